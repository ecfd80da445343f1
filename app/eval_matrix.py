"""The matrix of the Run view: which cells are there, which command makes the others, what that costs. No Streamlit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from app import widgets
from app.components.results_table import Line, Range, TableCell, TableColumn, TableRow
from app.results import metrics_of_names
from lark_engine.config import GenerateConfig, GradeConfig
from lark_engine.evaluation.matrix import MatrixCell, Speed
from lark_engine.figures import formats
from lark_engine.jobs.status import JobView
from lark_engine.results.commands import generate_command
from lark_engine.store.workspace import Workspace

LEGEND = "A cell is done when it was sampled and graded with exactly these options; only the others are run."
_INPUTS = ("--model-path", "--benchmark")


class Missing(NamedTuple):
    """The models and benchmarks with something missing: what a command runs; finished cells among them are skipped."""

    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    cells: tuple[MatrixCell, ...]
    num_finished: int

    @property
    def num_samples(self) -> int:
        return sum(cell.num_missing for cell in self.cells)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """All cells by model and benchmark; the jobs that make or failed to make some of them; and what is left to run."""

    cells: Sequence[Sequence[MatrixCell]]
    waiting: frozenset[int]  # by id: missing cells that a living job will come to
    jobs: Sequence[JobView]
    missing: Missing
    to_grade: Sequence[MatrixCell]

    @property
    def is_live(self) -> bool:
        return any(job.is_live for job in self.jobs) or any(c.state == "running" for row in self.cells for c in row)


def matrix_of(
    cells: Sequence[Sequence[MatrixCell]], names: Mapping[int, str], config: GenerateConfig, grading: GradeConfig,
    jobs: Sequence[JobView], workspace: Workspace,
) -> Matrix:  # fmt: skip
    """`names`: of each model by id, what a command calls it; `jobs`: all of the workspace, newest first."""
    own = generate_command(config, (), workspace, grading=grading)
    related = [job for job in jobs if job.spec is not None and _options(job.spec.command) == _options(own)]
    unmade = [cell for row in cells for cell in row if cell.state in ("missing", "partial")]
    waiting = frozenset(
        id(cell) for cell in unmade
        if any(job.is_live and _covers(job, names[id(cell.model)], cell.benchmark.source) for job in related)
    )  # fmt: skip
    left = [cell for cell in unmade if id(cell) not in waiting]
    missing = _missing(cells, left, names)
    command = generate_command(
        config.model_copy(update={"benchmark": missing.benchmarks or config.benchmark}), missing.models, workspace,
        grading=grading,
    )  # fmt: skip
    # The panel of a command shows its own job: these are the others, and of those that ended only the newest.
    shown = [job for job in related if job.is_live and list(job.spec.command) != command]  # type: ignore[union-attr]
    newest = next(iter(related), None)
    if newest is not None and not newest.is_live and newest.state != "succeeded":
        is_other = newest.spec is not None and list(newest.spec.command) != command
        if is_other and any(_covers(newest, names[id(cell.model)], cell.benchmark.source) for cell in left):
            shown.append(newest)
    to_grade = [cell for row in cells for cell in row if cell.state in ("generated", "graded_otherwise")]
    return Matrix(cells=cells, waiting=waiting, jobs=shown, missing=missing, to_grade=to_grade)


def _missing(
    cells: Sequence[Sequence[MatrixCell]], left: Sequence[MatrixCell], names: Mapping[int, str]
) -> Missing:  # fmt: skip
    models = tuple(dict.fromkeys(names[id(cell.model)] for cell in left))
    benchmarks = tuple(dict.fromkeys(cell.benchmark.source for cell in left))
    within = [
        cell for row in cells for cell in row
        if names[id(cell.model)] in models and cell.benchmark.source in benchmarks
    ]  # fmt: skip
    return Missing(models, benchmarks, tuple(left), len(within) - len(left))


def _options(command: Sequence[str]) -> list[str]:
    """A command without its models and benchmarks."""
    words = list(command)
    return [
        word for place, word in enumerate(words)
        if word not in _INPUTS and (place == 0 or words[place - 1] not in _INPUTS)
    ]  # fmt: skip


def _covers(job: JobView, model: str, benchmark: str) -> bool:
    words = list(job.spec.command) if job.spec else []
    pairs = set(itertools.pairwise(words))
    return ("--model-path", model) in pairs and ("--benchmark", benchmark) in pairs


def columns_of(matrix: Matrix) -> list[TableColumn]:
    """The benchmarks, with the number of their problems."""
    return [
        TableColumn(cell.benchmark.name, f"{formats.count(len(cell.benchmark.problems))} problems")
        for cell in matrix.cells[0]
    ]


def rows_of(matrix: Matrix) -> list[TableRow]:
    """The models, newest first as they were chosen."""
    return [
        TableRow(
            label=Line(text=row[0].model.name), detail=_kind(row[0]),
            cells=[_cell(cell, is_waiting=id(cell) in matrix.waiting) for cell in row],
        )
        for row in matrix.cells
    ]  # fmt: skip


def _kind(cell: MatrixCell) -> str:
    artifact = cell.model.artifact
    if artifact is None:
        return str(cell.model.path)
    if artifact.kind == "students":
        return "student (untrained)"
    return formats.method(str(artifact.manifest.config.get("method", "")))


def _cell(cell: MatrixCell, *, is_waiting: bool) -> TableCell:
    samples = formats.progress(cell.num_done, cell.num_samples, "sample")
    if cell.state in ("done", "graded_otherwise"):
        return _graded(cell)
    if cell.state == "generated":
        return TableCell(value=Line(text="not graded", tone="warn"), lines=[Line(text=samples, tone="muted")])
    share = cell.num_done / cell.num_samples if cell.num_done and cell.num_samples else None
    if cell.state == "running":
        left = f"{formats.duration(cell.eta_s)} left" if cell.eta_s is not None else "starting"
        lines = [Line(text=f"{samples} · {left}", tone="muted")]
        return TableCell(value=Line(text="running"), share=share or 0.0, lines=lines)
    if is_waiting:
        return TableCell(value=Line(text="waits in a job", tone="muted"), share=share)
    if cell.state == "partial":
        return TableCell(
            value=Line(text="partial"), share=share, lines=[Line(text=f"{samples} · resumes", tone="muted")]
        )
    lines = [Line(text=f"{formats.count(cell.num_samples)} samples to make", tone="muted")]
    return TableCell(value=Line(text="missing", tone="muted"), lines=lines)


def _graded(cell: MatrixCell) -> TableCell:
    assert cell.grade is not None, "a graded cell has its grade"
    overall: dict[str, Any] = cell.grade.manifest.metrics.get("overall", {})
    metric = next(iter(metrics_of_names(overall)), "")
    found = overall.get(metric) or {}
    value, low, high = (found.get(name) for name in ("value", "low", "high"))
    link = {"view": "results", "benchmark": cell.benchmark.name, "eval_find": cell.model.name}
    lines = [Line(text=f"{metric} · {formats.count(cell.num_samples)} samples", tone="muted")]
    badges = []
    if cell.state == "graded_otherwise":
        badges = [Line(text="graded by other rules", help=f"{cell.grade.name}; not by the rules above", tone="warn")]
    return TableCell(
        value=Line(text=formats.percent(value), link=link, help="Its row of the results"),
        note=formats.interval(low, high), lines=lines, badges=badges,
        range=Range(low, value, high) if None not in (value, low, high) else None,
    )  # type: ignore[arg-type]  # fmt: skip


def cost_html(part: Missing, config: GenerateConfig, speed: Speed | None) -> str:
    """What running the missing cells takes, and how the time is known."""
    samples, tokens = part.num_samples, part.num_samples * config.max_new_tokens
    facts = {
        "Cells": f"{formats.count(len(part.cells))}"
        + (f" · {part.num_finished} finished in the same rows and columns are skipped" if part.num_finished else ""),
        "Samples": f"{formats.count(samples)} · {config.n_samples} of each problem",
        "Tokens, at most": f"{formats.compact(tokens)} · {formats.count(config.max_new_tokens)} a sample",
    }
    if speed is None:
        facts["Time"] = "not measured yet: no finished generation with this backend in this workspace"
    else:
        likely = samples * min(speed.tokens_per_sample, config.max_new_tokens) / speed.tokens_per_s
        whose = "of these models" if speed.of_these else "of other models"
        facts["Time"] = (
            f"about {formats.duration(likely)}, at most {formats.duration(tokens / speed.tokens_per_s)} · at "
            f"{formats.count(speed.tokens_per_s)} tokens/s and {formats.count(speed.tokens_per_sample)} tokens a "
            f"sample, measured on {speed.num_runs} earlier generation{'' if speed.num_runs == 1 else 's'} {whose}, "
            "with starting the server"
        )
    rows = "".join(f"<dt>{name}</dt><dd>{widgets.text(value)}</dd>" for name, value in facts.items())
    return widgets.block(f"<dl>{rows}</dl>", "lark-cost")
