"""The paired difference of two rows of the results table on one benchmark, from values that may be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from lark_engine.evaluation.grade import problems_of, shown_grades
from lark_engine.evaluation.intervals import Estimate, estimate
from lark_engine.evaluation.metrics import per_problem
from lark_engine.store.workspace import Artifact

# A metric of each problem that has it.
ProblemValues = Mapping[str, float]


def problem_values(grade: Artifact, metrics: Sequence[str]) -> dict[str, ProblemValues]:
    """Each metric of each problem of a grade, disputes applied. Errors: `StoreError` when its table is damaged."""
    problems = problems_of(shown_grades(grade))
    columns = {name: per_problem(name, list(problems.values())) for name in metrics}
    return {
        name: {problem: value for problem, value in zip(problems, values, strict=True) if value is not None}
        for name, values in columns.items()
    }


def paired_difference(a: Sequence[ProblemValues], b: Sequence[ProblemValues]) -> Estimate | None:
    """b − a over the problems that all runs of both sides have, with the interval that `compare` has; None without one.

    Several runs of a side are the seeds of a method, averaged problem by problem. No test is made: of many rows at once
    that takes seconds, and where the interval is near 0 it is the test of `compare` that decides.
    """
    common = [problem for problem in a[0] if all(problem in run for run in (*a, *b))] if a and b else []
    if not common:
        return None
    means_a, means_b = ([_mean([run[p] for run in side]) for p in common] for side in (a, b))
    differences = [y - x for x, y in zip(means_a, means_b, strict=True)]
    return estimate(differences, unit_interval=False)


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else fmean(values)
