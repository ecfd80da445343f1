"""Grading of generations: one row a sample in grades.parquet, and metrics.json overall, by level and by subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from lark_engine.config import GradeConfig
from lark_engine.errors import LarkError, StoreError
from lark_engine.evaluation.benchmarks import load_benchmark
from lark_engine.evaluation.disputes import apply_disputes, read_disputes
from lark_engine.evaluation.equality import reference_answer
from lark_engine.evaluation.extract import RULES_VERSION, extract
from lark_engine.evaluation.generate import GENERATIONS, PROBLEMS
from lark_engine.evaluation.grading import Grade, GradeItem, grade_all
from lark_engine.evaluation.metrics import Samples, summarize
from lark_engine.evaluation.sampling import TRUNCATED, text_with_thinking
from lark_engine.store.atomic import replacing, write_json
from lark_engine.store.events import EventLog, Progress
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.rows import read_rows
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_table

GRADES = "grades.parquet"
METRICS = "metrics.json"
COLUMNS = (
    "problem_id", "sample_index", "prediction", "reference", "correct", "rule", "reason", "finish_reason",
    "num_tokens", "level", "subject",
)  # fmt: skip


def plan_grade(
    config: GradeConfig, workspace: Workspace, generations: Artifact | Plan, *, answer_type: str | None = None
) -> Plan:
    """What grading these generations would make. Other rules or another math-verify make other grades.

    `answer_type` is the benchmark's, for a caller who has just loaded it; else it is looked up (`answer_type_of`).
    """
    identity = {
        "answer_type": config.answer_type or answer_type or answer_type_of(generations, workspace),
        "rules_version": RULES_VERSION,
        "math_verify": metadata.version("math-verify"),
    }
    content = {"config": config.identity(), "generations": generations.fingerprint, **identity}
    return Plan(
        kind="grades", name=_name(config), fingerprint=fingerprint(content), config=config.identity(),
        inputs={"generations": generations.ref}, identity=identity,
        parent=(generations.path if isinstance(generations, Artifact) else workspace.folder(generations)) / "grades",
    )  # fmt: skip


def _name(config: GradeConfig) -> str:
    """The rules of extraction in their order, and whose equality it is unless it is ours."""
    return "-".join([*config.rules, *([] if config.equality == "strict" else [config.equality])])


def answer_type_of(generations: Artifact | Plan, workspace: Workspace) -> str:
    """How answers are read: as the benchmark says now, or as it said then where it is gone or asks something else."""
    identity = generations.manifest.identity if isinstance(generations, Artifact) else generations.identity
    benchmark = identity["benchmark"]
    try:
        now = load_benchmark(str(benchmark.get("source")), limit=benchmark.get("limit"), workspace=workspace)
    except (LarkError, OSError):
        return str(benchmark["answer_type"])
    return now.answer_type if now.content == benchmark["content"] else str(benchmark["answer_type"])


def grade(
    config: GradeConfig, workspace: Workspace, generations: Artifact, *, answer_type: str | None = None
) -> Artifact:
    """Grade generations. Writes grades.parquet (`COLUMNS`, in the benchmark's order) and metrics.json.

    Errors: `StoreError` when the generations lack a problem that a sample belongs to.
    """
    plan = plan_grade(config, workspace, generations, answer_type=answer_type)
    return workspace.build(plan, lambda draft: _make(draft, config, generations, plan.identity["answer_type"]))


def extract_answers(
    generations: Artifact, workspace: Workspace, config: GradeConfig | None = None
) -> Iterator[dict[str, Any]]:
    """What grading would compare: {problem_id, sample_index, prediction, reference, rule, reason} of every sample.

    Pure text, no worker processes; in the benchmark's order. Errors: as `grade`.
    """
    config = config or GradeConfig()
    answer_type = plan_grade(config, workspace, generations).identity["answer_type"]
    for sample, problem in _samples_of(generations):
        reference = reference_answer(problem["reference"])
        found = extract(_text_of(sample), answer_type, reference, config.rules)
        yield {
            "problem_id": sample["problem_id"], "sample_index": sample["sample_index"],
            "prediction": _utf8(found.prediction), "reference": reference, "rule": found.rule, "reason": found.reason,
        }  # fmt: skip


def shown_grades(grade: Artifact) -> pd.DataFrame:
    """grades.parquet as people see it: `correct` with the disputes of these generations applied, and `disputed`.

    The file keeps the verdicts of the rules. Errors: `StoreError` when it is damaged.
    """
    return apply_disputes(read_table(grade.path / GRADES), read_disputes(generations_dir(grade)))


def generations_dir(grade: Artifact) -> Path:
    """The folder of the generations that were graded: grades live under them."""
    return grade.path.parents[1]


def problems_of(table: pd.DataFrame) -> dict[str, Samples]:
    """The samples of each problem by its id, in the order of the table."""
    found = table["prediction"]
    columns = (
        table["correct"].astype(bool), found.astype(object).where(found.notna(), None),
        table["finish_reason"] == TRUNCATED, table["num_tokens"].astype(int),
    )  # fmt: skip
    samples: dict[str, list[tuple[bool, str | None, bool, int]]] = {}
    # One pass over lists: a group of pandas for each of thousands of problems takes seconds.
    for problem_id, *sample in zip(table["problem_id"], *(column.tolist() for column in columns), strict=True):
        samples.setdefault(str(problem_id), []).append(tuple(sample))
    return {problem_id: _samples(rows) for problem_id, rows in samples.items()}


def _make(draft: Draft, config: GradeConfig, generations: Artifact, answer_type: str) -> None:
    pairs = _samples_of(generations)
    items = (
        GradeItem(
            text=_text_of(sample), reference=problem["reference"], answer_type=answer_type, rules=config.rules,
            equality=config.equality,
        )
        for sample, problem in pairs
    )  # fmt: skip
    rows = []
    with Progress(EventLog(draft.path / "events.jsonl", "grade"), len(pairs), "sample") as progress:
        grades = grade_all(items, time_limit_s=config.time_limit_s, workers=config.workers)
        for (sample, problem), verdict in zip(pairs, grades, strict=True):
            rows.append(_row(sample, problem, verdict))
            progress.update(1)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    with replacing(draft.path / GRADES) as partial:
        table.to_parquet(partial, index=False)
    draft.metrics = metrics_of(table)
    write_json(draft.path / METRICS, draft.metrics)
    draft.counts = {
        "num_problems": int(table["problem_id"].nunique()),
        "num_generations": len(table),
        "num_correct": int(table["correct"].sum()),
        "num_truncated": int((table["finish_reason"] == TRUNCATED).sum()),
        **{f"rule_{rule}": int(count) for rule, count in table["rule"].value_counts().items()},
    }
    draft.drops = {str(reason): int(count) for reason, count in table["reason"].value_counts().items()}


def _text_of(sample: dict[str, Any]) -> str:
    return text_with_thinking(sample["text"], sample.get("starts_in_thinking", False))


def _samples_of(generations: Artifact) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every sample with its problem, in the benchmark's order."""
    problems = {row["problem_id"]: row for row in read_rows(generations.path / PROBLEMS)}
    place = {problem_id: index for index, problem_id in enumerate(problems)}
    samples = list(read_rows(generations.path / GENERATIONS))
    if unknown := {s["problem_id"] for s in samples} - place.keys():
        raise StoreError(f"{generations.path / PROBLEMS}: lacks problem {min(unknown)}; generate this benchmark again")
    samples.sort(key=lambda s: (place[s["problem_id"]], s["sample_index"]))
    return [(sample, problems[sample["problem_id"]]) for sample in samples]


def _row(sample: dict[str, Any], problem: dict[str, Any], verdict: Grade) -> dict[str, Any]:
    return {
        **{name: sample[name] for name in ("problem_id", "sample_index", "finish_reason", "num_tokens")},
        **{name: problem[name] for name in ("reference", "level", "subject")},
        **asdict(verdict),
        "prediction": _utf8(verdict.prediction),
    }


def _utf8(text: str | None) -> str | None:
    """Files are UTF-8; half a surrogate pair, which a model can write, is not."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def metrics_of(table: pd.DataFrame) -> dict[str, Any]:
    """The content of metrics.json: `n_samples`, and {metric: {value, low, high, se, num_problems}} overall, by level
    and by subject; samples without a level or subject are in the overall numbers only."""
    return {
        "n_samples": int(table.groupby("problem_id").size().max()),
        "overall": _metrics(table),
        "by_level": {str(level): _metrics(part) for level, part in table.groupby("level")},
        "by_subject": {str(subject): _metrics(part) for subject, part in table.groupby("subject")},
    }


def _metrics(table: pd.DataFrame) -> dict[str, dict[str, Any] | None]:
    problems = list(problems_of(table).values())
    return {name: asdict(value) if value else None for name, value in summarize(problems).items()}


def _samples(rows: Sequence[tuple[bool, str | None, bool, int]]) -> Samples:
    correct, predictions, truncated, num_tokens = zip(*rows, strict=True)
    return Samples(correct=correct, predictions=predictions, truncated=truncated, num_tokens=num_tokens)
