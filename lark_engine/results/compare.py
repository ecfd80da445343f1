"""Is B better than A, by how much, and on which problems: paired on the benchmarks that both were run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lark_engine.errors import ConfigError
from lark_engine.evaluation.grade import problems_of, shown_grades
from lark_engine.evaluation.intervals import Estimate, macro_average
from lark_engine.evaluation.paired import Paired, compare_paired, holm
from lark_engine.evaluation.registry import key
from lark_engine.results.graded import Graded, read_graded
from lark_engine.results.pairs import HALF, ProblemPair, Runs, pair_problems
from lark_engine.results.sides import find_side
from lark_engine.store.workspace import Workspace

# Metrics that are named by their number of samples get it from what both sides have.
_COUNTED = ("avg", "pass", "maj")


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A problem that one side mostly solves and the other does not: more than half of its samples are correct.

    `a` and `b`: shares of correct samples. `gained`: B solves it.
    """

    problem_id: str
    prompt: str
    reference: str
    a: float
    b: float

    @property
    def gained(self) -> bool:
        return self.b > HALF


@dataclass(frozen=True, kw_only=True)
class BenchmarkComparison:
    """A and B on one benchmark, by one metric.

    `differences`: settings other than the model in which the sides differ, as `name: A / B`; `stale`: what has changed
    since. `p_adjusted` is Holm's over all benchmarks compared. `matrix[i, j]`: how many problems have i correct samples
    of A and j of B. `grades_a` and `grades_b` are the grades compared; several are the seeds of a method.
    """

    benchmark: str
    metric: str
    paired: Paired
    p_adjusted: float
    differences: tuple[str, ...]
    stale: tuple[str, ...]
    num_samples_a: int
    num_samples_b: int
    matrix: dict[tuple[int, int], int]
    flips: tuple[Flip, ...]
    grades_a: tuple[str, ...]
    grades_b: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All benchmarks that A and B share, and the mean difference over them (None for a single one)."""

    a: str
    b: str
    benchmarks: tuple[BenchmarkComparison, ...]
    macro: Estimate | None


class Detail(NamedTuple):
    """What a `BenchmarkComparison` was made from: its problems, and the grades of both sides."""

    problems: tuple[ProblemPair, ...]
    graded_a: tuple[Graded, ...]
    graded_b: tuple[Graded, ...]


class Compared(NamedTuple):
    """A comparison, and for each of its benchmarks, in their order, the problems behind it."""

    comparison: Comparison
    details: tuple[Detail, ...]


def compare(workspace: Workspace, a: str, b: str, *, metric: str = "avg", benchmarks: Sequence[str] = ()) -> Comparison:
    """Compare two models, checkpoints, arms of a sweep (`SWEEP:ARM`), rows of the table or grades, by problem.

    `metric`: avg, pass or maj (of as many samples as both have), or any by its whole name. The seeds of an arm are
    averaged problem by problem; the intervals are then for other problems and these very seeds. Only grades of the same
    problems are compared; `benchmarks` names some of them.
    Errors: `ConfigError` when a name is unknown, has several grades of one benchmark, or nothing is shared.
    """
    return compare_graded(read_graded(workspace).graded, a, b, metric=metric, benchmarks=benchmarks).comparison


def compare_graded(
    graded: Sequence[Graded], a: str, b: str, *, metric: str = "avg", benchmarks: Sequence[str] = ()
) -> Compared:
    """As `compare`, among grades that were read before, with the problems behind it."""
    side_a, side_b = find_side(graded, a), find_side(graded, b)
    shared = [content for content in side_a if content in side_b]
    wanted = set(map(key, benchmarks))
    named = [content for content in shared if not benchmarks or key(side_a[content][0].benchmark) in wanted]
    if not named:
        raise ConfigError(
            f"{a} and {b} share no graded benchmark"
            + (f" called {' or '.join(benchmarks)}" if shared else "; generate and grade one for both")
        )
    found = [_compare(side_a[content], side_b[content], metric) for content in named]
    adjusted = holm([one.paired.p_value for one, _ in found])
    done = tuple(replace(one, p_adjusted=p) for (one, _), p in zip(found, adjusted, strict=True))
    return Compared(Comparison(a=a, b=b, benchmarks=done, macro=_macro(done)), tuple(detail for _, detail in found))


def _compare(a: Sequence[Graded], b: Sequence[Graded], metric: str) -> tuple[BenchmarkComparison, Detail]:
    runs_a, runs_b = ([problems_of(shown_grades(one.grade)) for one in side] for side in (a, b))
    name = _metric_name(metric, [*runs_a, *runs_b], a[0].benchmark)
    problems = pair_problems(a[0], runs_a, runs_b, name)
    paired = compare_paired([p.value_a for p in problems], [p.value_b for p in problems])
    found = BenchmarkComparison(
        benchmark=a[0].benchmark, metric=name, paired=paired, p_adjusted=paired.p_value,
        num_samples_a=_num_samples(runs_a), num_samples_b=_num_samples(runs_b),
        differences=_differences(a[0], b[0]),
        stale=tuple(dict.fromkeys(reason for one in (*a, *b) for reason in one.stale)),
        matrix=dict(sorted(Counter((p.correct_a, p.correct_b) for p in problems).items())), flips=_flips(problems),
        grades_a=tuple(one.grade.id for one in a), grades_b=tuple(one.grade.id for one in b),
    )  # fmt: skip
    return found, Detail(tuple(problems), tuple(a), tuple(b))


def _metric_name(metric: str, runs: Runs, benchmark: str) -> str:
    """`avg` as `avg@n`, n = the most samples that every problem of every run has.

    Errors: `ConfigError` for a number of samples that one side does not have.
    """
    fewest = min(len(samples.correct) for run in runs for samples in run.values())
    if metric in _COUNTED:
        return f"{metric}@{fewest}"
    kind, _, count = metric.partition("@")
    if kind in _COUNTED and count.isdecimal() and int(count) > fewest:
        raise ConfigError(f"{metric} of {benchmark}: one side has only {fewest} samples of a problem; ask for {kind}")
    return metric


def _differences(a: Graded, b: Graded) -> tuple[str, ...]:
    """What else than the model differs: options of sampling and grading, and the prompt."""
    settings = [
        {**one.settings, "system_prompt": one.generations.manifest.config.get("system_prompt"),
         "answer_type": one.grade.manifest.identity.get("answer_type")}
        for one in (a, b)
    ]  # fmt: skip
    names = [name for name in {**settings[0], **settings[1]} if settings[0].get(name) != settings[1].get(name)]
    return tuple(f"{name}: {settings[0].get(name)} / {settings[1].get(name)}" for name in names)


def _num_samples(runs: Runs) -> int:
    """The most samples of one problem, over all runs."""
    return sum(max(len(samples.correct) for samples in run.values()) for run in runs)


def _flips(problems: Sequence[ProblemPair]) -> tuple[Flip, ...]:
    """Problems that only one side mostly solves, the largest differences first."""
    found = [
        Flip(problem_id=p.problem_id, prompt=p.prompt, reference=p.reference, a=p.share_a, b=p.share_b)
        for p in problems
        if p.is_flipped
    ]
    return tuple(sorted(found, key=lambda flip: -abs(flip.b - flip.a)))


def _macro(found: Sequence[BenchmarkComparison]) -> Estimate | None:
    """The mean difference over benchmarks; its interval from the paired standard errors."""
    if len(found) < 2 or len({one.metric.partition("@")[0] for one in found}) > 1:
        return None
    differences = [
        Estimate(
            value=one.paired.difference, low=one.paired.low, high=one.paired.high, se=one.paired.se,
            num_problems=one.paired.num_problems,
        )
        for one in found
    ]  # fmt: skip
    return macro_average(differences, unit_interval=False)
