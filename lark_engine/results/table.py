"""The results table: one tidy row for each grade artifact, group (all, a level, a subject) and metric.

Made from manifests alone; only the grades whose verdicts a person has disputed are summed up anew. A missing number is
empty, never 0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from lark_engine.errors import StoreError
from lark_engine.evaluation.disputes import read_disputes
from lark_engine.evaluation.grade import metrics_of, shown_grades
from lark_engine.results.graded import Graded, read_graded
from lark_engine.store.workspace import Artifact, Workspace

log = logging.getLogger(__name__)

UNTRAINED = "student (untrained)"
ALL = "all"
MACRO = "macro average"  # in place of a benchmark: the unweighted mean over benchmarks
COLUMNS = (
    "model", "method", "recipe", "sweep", "arm", "seed", "rule", "energy", "mode", "B", "student", "benchmark", "level",
    "subject", "metric", "value", "low", "high", "se", "n_problems", "n_samples", "n_seeds", "between_seed_sd",
    "within_seed_se", "num_truncated", "num_disputed", "stale", "sampling", "grading", "grade_id", "generation_id",
    "checkpoint_id", "selection_id", "scores_id", "pool_id", "created_at", "row", "place",
)  # fmt: skip
_WHOLE = ("n_problems", "n_samples", "n_seeds", "num_truncated", "num_disputed", "B", "seed")
REAL = ("value", "low", "high", "se", "between_seed_sd", "within_seed_se")


class Results(NamedTuple):
    """The tidy table, and a sentence for every grade that is left out because it cannot be read."""

    table: pd.DataFrame
    problems: list[str]


def results_table(workspace: Workspace, *, grades: Sequence[Artifact] | None = None) -> pd.DataFrame:
    """The table of `read_results`; what is left out is logged."""
    results = read_results(workspace, grades=grades)
    for problem in results.problems:
        log.warning("left out of the table, grade it again: %s", problem)
    return results.table


def read_results(workspace: Workspace, *, grades: Sequence[Artifact] | None = None) -> Results:
    """Every metric of every grade of the workspace, or of these only; columns `COLUMNS`, tidy.

    `level` and `subject` are `all` in the overall rows. An untrained student's method is `student (untrained)`. `stale`
    says why a result is not what would be made today; empty when it is. Disputed verdicts count as disputed. `row` is
    the same for results of one model that were sampled and graded alike, `place` is the grade's folder. One unreadable
    grade hides no other result.
    """
    graded, problems = read_graded(workspace, grades)
    rows: list[dict[str, Any]] = []
    for one in graded:
        try:
            own = list(_rows(one))
            _check_numbers(own)
            rows += own
        except (StoreError, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reason = str(error) if isinstance(error, StoreError) else f"unexpected metrics in its manifest ({error!r})"
            problems.append(f"{one.place}: {reason}")
    return Results(frame(rows), problems)


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with the types of `COLUMNS`."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    text = dict.fromkeys((name for name in COLUMNS if name not in (*_WHOLE, *REAL)), "string")
    return table.astype({**dict.fromkeys(_WHOLE, "Int64"), **dict.fromkeys(REAL, "float64"), **text})


def _check_numbers(rows: list[dict[str, Any]]) -> None:
    """That rows from a manifest fit the table's columns; a table for each grade would tell it 30 times as slowly.

    Errors: `TypeError`, `ValueError`, `OverflowError`.
    """
    for row in rows:
        for name in REAL:
            if (value := row.get(name)) is not None:
                float(value)
        for name in _WHOLE:
            value = row.get(name)
            if value is not None and value is not pd.NA and (not isinstance(value, int) or abs(value) >= 2**63):
                raise ValueError(f"{name} = {value!r}")


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of all problems: no level, no subject."""
    return table[(table["level"] == ALL) & (table["subject"] == ALL)]


def _rows(one: Graded) -> Iterator[dict[str, Any]]:
    num_disputed, metrics = 0, one.grade.manifest.metrics
    if read_disputes(one.generations.path):
        shown = shown_grades(one.grade)
        num_disputed, metrics = int(shown["disputed"].sum()), metrics_of(shown)
    known = {**_origin(one), "n_samples": metrics["n_samples"], "n_seeds": 1, "num_disputed": num_disputed}
    groups = [(ALL, ALL, metrics["overall"])]
    groups += [(level, ALL, part) for level, part in metrics["by_level"].items()]
    groups += [(ALL, subject, part) for subject, part in metrics["by_subject"].items()]
    for level, subject, part in groups:
        for name, estimate in part.items():
            e = estimate or {"value": None, "low": None, "high": None, "se": None, "num_problems": 0}
            yield {
                **known, "level": level, "subject": subject, "metric": name, "value": e["value"], "low": e["low"],
                "high": e["high"], "se": e["se"], "n_problems": e["num_problems"],
            }  # fmt: skip


def _origin(one: Graded) -> dict[str, Any]:
    """Where a grade comes from: model, method and the ids of its lineage."""
    checkpoint, selection = one.sources.get("checkpoints"), one.sources.get("selections")
    trained = checkpoint.manifest.config if checkpoint else {}
    chosen = selection.manifest.config if selection else {}
    is_untrained = one.checkpoint_id is None and not one.model.get("is_adapter")
    # The empty lines' rows have no rule: a baseline is trained on no selection.
    rule = chosen.get("rule")
    member = one.member._asdict() if one.member else {"seed": trained.get("seed")}
    return {
        "model": one.model.get("name"), "method": UNTRAINED if is_untrained else trained.get("method"),
        "recipe": trained.get("recipe") or (_name_of(one.checkpoint_id) if one.checkpoint_id else None),
        "rule": rule, "energy": chosen.get("energy"), "mode": chosen.get("mode"),
        "B": chosen.get("budget") if rule not in (None, "all") else None,
        "student": trained.get("student") or one.model.get("name"), "benchmark": one.benchmark,
        "num_truncated": one.grade.manifest.counts.get("num_truncated"), "stale": "; ".join(one.stale),
        "sampling": one.sampling, "grading": one.grade.name, "grade_id": one.grade.id,
        "generation_id": one.generations.id, "checkpoint_id": one.checkpoint_id,
        "selection_id": selection.id if selection else None,
        "scores_id": one.sources["scores"].id if "scores" in one.sources else None,
        "pool_id": one.sources["pools"].id if "pools" in one.sources else None,
        "created_at": one.grade.manifest.created_at, "row": one.row, "place": one.place, **member,
    }  # fmt: skip


def _name_of(artifact_id: str) -> str:
    return artifact_id.rpartition("-")[0]
