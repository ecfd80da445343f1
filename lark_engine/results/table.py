"""The results table: one tidy row for each grade artifact, group (all, a level, a subject) and metric.

Made from manifests and metrics.json alone. A missing number is empty, never 0.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lark_engine.errors import StoreError
from lark_engine.evaluation.grade import METRICS
from lark_engine.results.lineage import Lineage
from lark_engine.results.sweeps import Member, members
from lark_engine.store.atomic import replacing, write_text
from lark_engine.store.workspace import Artifact, Workspace, read_json

log = logging.getLogger(__name__)

UNTRAINED = "student (untrained)"
ALL = "all"
COLUMNS = (
    "model", "method", "recipe", "sweep", "arm", "seed", "rule", "energy", "mode", "B", "student", "benchmark", "level",
    "subject", "metric", "value", "low", "high", "n_problems", "n_samples", "num_truncated", "grade_id",
    "generation_id", "checkpoint_id", "selection_id", "scores_id", "pool_id", "created_at",
)  # fmt: skip
_NUMBERS = {"value", "low", "high", "n_problems", "n_samples", "num_truncated", "B", "seed"}
_HEADLINE = ("avg", "pass", "maj")


class Results(NamedTuple):
    """The tidy table, and a sentence for every grade that is left out because its metrics cannot be read."""

    table: pd.DataFrame
    problems: list[str]


def results_table(workspace: Workspace, *, ids: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of `read_results`; what is left out is logged."""
    results = read_results(workspace, ids=ids)
    for problem in results.problems:
        log.warning("left out of the table, grade it again: %s", problem)
    return results.table


def read_results(workspace: Workspace, *, ids: Sequence[str] | None = None) -> Results:
    """Every metric of every grade of the workspace, or of the grades in `ids` only; columns `COLUMNS`, tidy.

    `level` and `subject` are `all` in the overall rows. An untrained student's method is `student (untrained)`. One
    unreadable metrics.json hides no other result. Errors: `StoreError` when one of `ids` names no grade.
    """
    grades = workspace.list("grades") if ids is None else [workspace.resolve("grades", name) for name in ids]
    lineage, swept = Lineage(workspace), members(workspace)
    parts, problems = [_frame([])], []
    for grade in reversed(grades):
        try:
            parts.append(_frame(list(_rows(grade, lineage, swept))))
        except (StoreError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = str(error) if isinstance(error, StoreError) else f"unexpected content of {METRICS} ({error!r})"
            problems.append(f"{grade.path.relative_to(workspace.root)}: {reason}")
    return Results(pd.concat(parts, ignore_index=True), problems)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the types of `COLUMNS`."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(("n_problems", "n_samples", "num_truncated", "B", "seed"), "Int64")
    text = {name: "string" for name in COLUMNS if name not in _NUMBERS}
    return table.astype({**numbers, **dict.fromkeys(("value", "low", "high"), "float64"), **text})


def _rows(grade: Artifact, lineage: Lineage, swept: dict[str, Member]) -> Iterator[dict[str, Any]]:
    metrics = read_json(grade.path / METRICS)
    known = {**_origin(grade, lineage), "n_samples": metrics["n_samples"]}
    if member := swept.get(known["checkpoint_id"]):
        known |= member._asdict()
    groups = [(ALL, ALL, metrics["overall"])]
    groups += [(level, ALL, part) for level, part in metrics["by_level"].items()]
    groups += [(ALL, subject, part) for subject, part in metrics["by_subject"].items()]
    for level, subject, part in groups:
        for name, estimate in part.items():
            e = estimate or {"value": None, "low": None, "high": None, "num_problems": 0}
            yield {
                **known, "level": level, "subject": subject, "metric": name, "value": e["value"], "low": e["low"],
                "high": e["high"], "n_problems": e["num_problems"],
            }  # fmt: skip


def _origin(grade: Artifact, lineage: Lineage) -> dict[str, Any]:
    """Where a grade comes from: model, method and the ids of its lineage."""
    sources: dict[str, Artifact] = {}
    for artifact in lineage.of(grade):
        sources.setdefault(artifact.kind, artifact)  # nearest first
    generations, checkpoint, selection = (sources.get(k) for k in ("evals", "checkpoints", "selections"))
    trained = checkpoint.manifest.config if checkpoint else {}
    chosen = selection.manifest.config if selection else {}
    identity = generations.manifest.identity if generations else {}
    # A checkpoint that was deleted is still named by the generations.
    model_ref = generations.manifest.inputs.get("model") if generations else None
    checkpoint_id = model_ref.id if model_ref and model_ref.kind == "checkpoints" else None
    is_untrained = checkpoint_id is None and not identity.get("model", {}).get("is_adapter")
    # The empty lines' rows have no rule: a baseline is trained on no selection.
    rule = chosen.get("rule")
    return {
        "model": identity.get("model", {}).get("name"),
        "method": UNTRAINED if is_untrained else trained.get("method"),
        "recipe": trained.get("recipe") or (_name_of(checkpoint_id) if checkpoint_id else None),
        "rule": rule, "energy": chosen.get("energy"), "mode": chosen.get("mode"),
        "B": chosen.get("budget") if rule not in (None, "all") else None,
        "student": trained.get("student") or identity.get("model", {}).get("name"),
        "benchmark": identity.get("benchmark", {}).get("name"),
        "num_truncated": grade.manifest.counts.get("num_truncated"),
        "grade_id": grade.id, "generation_id": generations.id if generations else None,
        "checkpoint_id": checkpoint_id, "selection_id": selection.id if selection else None,
        "scores_id": sources["scores"].id if "scores" in sources else None,
        "pool_id": sources["pools"].id if "pools" in sources else None,
        "created_at": grade.manifest.created_at,
    }  # fmt: skip


def _name_of(artifact_id: str) -> str:
    return artifact_id.rpartition("-")[0]


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row a model, one column a benchmark and metric; cells `mean [low, high]` in percent.

    Of the metrics, avg@n, pass@n and maj@n with n = the number of samples are shown; the tidy table has all. Several
    grades of one model on one benchmark (other sampling options, say) get rows of their own.
    """
    overall = table[(table["level"] == ALL) & (table["subject"] == ALL)]
    shown = overall[[_is_headline(m, n) for m, n in zip(overall["metric"], overall["n_samples"], strict=True)]]
    if shown.empty:
        return pd.DataFrame(columns=["model", "method"])
    cells = shown.assign(
        column=shown["benchmark"] + " " + shown["metric"],
        cell=[_cell(v, lo, hi) for v, lo, hi in zip(shown["value"], shown["low"], shown["high"], strict=True)],
    )
    # The how-manyth grade of this model on this benchmark: 0 mostly.
    cells["variant"] = cells.groupby(["model", "column"], dropna=False).cumcount()
    rows = ["model", "method", "recipe", "rule", "B", "variant"]
    cells[["method", "recipe", "rule"]] = cells[["method", "recipe", "rule"]].fillna("")
    cells["B"] = cells["B"].astype("string").fillna("")
    result = cells.pivot(index=rows, columns="column", values="cell").reset_index().drop(columns="variant")
    order = list(dict.fromkeys(cells["column"]))
    result = result[[*rows[:-1], *order]].rename_axis(columns=None)
    first = [m == UNTRAINED for m in result["method"]]
    return result.assign(_first=first).sort_values(["_first", "model"], ascending=[False, True]).drop(columns="_first")


def _is_headline(metric: str, n_samples: int) -> bool:
    name, _, n = metric.partition("@")
    return name in _HEADLINE and n == str(n_samples)


def _cell(value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.1%}" if pd.isna(low) else f"{value * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}]"


def to_markdown(table: pd.DataFrame) -> str:
    """The wide table, then one by level where there are levels, as Markdown; text of the user's is escaped."""
    parts = ["# Results", "", "Percent of problems, with 95 % intervals.", "", _markdown(wide(table).fillna(""))]
    levels = table[(table["level"] != ALL) & table["metric"].str.startswith("avg@")]
    if not levels.empty:
        cells = levels.assign(
            column="level " + levels["level"],
            cell=[_cell(v, lo, hi) for v, lo, hi in zip(levels["value"], levels["low"], levels["high"], strict=True)],
        )
        by_level = cells.pivot_table(
            index=["model", "benchmark", "metric", "grade_id"], columns="column", values="cell", aggfunc="first"
        )
        parts += ["", "## By level", "", _markdown(by_level.reset_index().drop(columns="grade_id").fillna(""))]
    return "\n".join(parts) + "\n"


def _markdown(frame: pd.DataFrame) -> str:
    header = [str(c) for c in frame.columns]
    lines = [header, ["---"] * len(header), *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def _escape(text: str) -> str:
    return re.sub(r"([\\|`<>*_])", r"\\\1", text).replace("\n", " ") if text != "---" else text


def write_table(table: pd.DataFrame, output_dir: Path) -> list[Path]:
    """Write table.csv and table.parquet (tidy, levels and subjects too) and table.md (for reading), each atomically."""
    csv, parquet, markdown = (output_dir / f"table.{suffix}" for suffix in ("csv", "parquet", "md"))
    with replacing(csv) as partial:
        table.to_csv(partial, index=False)
    with replacing(parquet) as partial:
        table.to_parquet(partial, index=False)
    write_text(markdown, to_markdown(table))
    return [csv, markdown, parquet]
