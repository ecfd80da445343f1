"""The problems behind a comparison, side by side, and the difference within parts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, NamedTuple, get_args

import numpy as np

from lark_engine.evaluation.generate import PROBLEMS
from lark_engine.evaluation.metrics import Samples, per_problem
from lark_engine.evaluation.paired import Paired, compare_paired, holm
from lark_engine.results.graded import Graded
from lark_engine.store.rows import read_rows

Runs = Sequence[Mapping[str, Samples]]  # of each seed the samples of each problem
SliceBy = Literal["level", "subject", "length"]
SLICES: tuple[SliceBy, ...] = get_args(SliceBy)
HALF = 0.5
_NUM_LENGTHS = 4


@dataclass(frozen=True, kw_only=True)
class ProblemPair:
    """One problem under A and B, over all their seeds.

    `correct_a` of `num_a` samples are correct; `tokens_a` is the mean length of a sample; `value_a` is the metric that
    is compared, as the mean over seeds.
    """

    problem_id: str
    prompt: str
    reference: str
    level: str | None
    subject: str | None
    correct_a: int
    num_a: int
    correct_b: int
    num_b: int
    tokens_a: float
    tokens_b: float
    value_a: float
    value_b: float

    @property
    def share_a(self) -> float:
        return self.correct_a / self.num_a

    @property
    def share_b(self) -> float:
        return self.correct_b / self.num_b

    @property
    def difference(self) -> float:
        """b − a by the metric that is compared."""
        return self.value_b - self.value_a

    @property
    def mean_tokens(self) -> float:
        """The mean of A's and B's mean tokens."""
        return (self.tokens_a + self.tokens_b) / 2

    @property
    def is_flipped(self) -> bool:
        """One side mostly solves it, with more than half of its samples correct, and the other does not."""
        return (self.share_a > HALF) != (self.share_b > HALF)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The difference on a part of the problems; `p_adjusted` is Holm's over all slices."""

    name: str
    paired: Paired
    p_adjusted: float


class Slices(NamedTuple):
    """All parts, and how many problems are in none as their benchmark does not say which."""

    parts: list[Slice]
    num_without: int


def pair_problems(graded: Graded, runs_a: Runs, runs_b: Runs, metric: str) -> list[ProblemPair]:
    """The problems for which both sides have the metric in every run, in the order of A's first run."""
    values_a, values_b = _values(runs_a, metric), _values(runs_b, metric)
    rows = {row["problem_id"]: row for row in read_rows(graded.generations.path / PROBLEMS)}
    found = []
    for problem_id, value_a in values_a.items():
        if problem_id not in values_b:
            continue
        row = rows[problem_id]
        a, b = ([run[problem_id] for run in runs] for runs in (runs_a, runs_b))
        found.append(
            ProblemPair(
                problem_id=problem_id, prompt=row["prompt"], reference=row["reference"],
                level=_text(row.get("level")), subject=_text(row.get("subject")),
                correct_a=_num_correct(a), num_a=_num_samples(a), correct_b=_num_correct(b), num_b=_num_samples(b),
                tokens_a=_mean_tokens(a), tokens_b=_mean_tokens(b), value_a=value_a, value_b=values_b[problem_id],
            )
        )  # fmt: skip
    return found


def slices(pairs: Sequence[ProblemPair], by: SliceBy) -> Slices:
    """The paired difference within each level or subject, or each quarter of the problems by `mean_tokens`.

    Problems of one length are never parted, so that quarters can differ in size, and be fewer than four.
    """
    groups = _lengths(pairs) if by == "length" else _labels(pairs, by)
    found = [
        Slice(name=name, paired=paired, p_adjusted=paired.p_value)
        for name, part in groups.items()
        if (paired := compare_paired([p.value_a for p in part], [p.value_b for p in part]))
    ]
    adjusted = holm([one.paired.p_value for one in found])
    parts = [replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True)]
    return Slices(parts, len(pairs) - sum(one.paired.num_problems for one in parts))


def _labels(pairs: Sequence[ProblemPair], by: Literal["level", "subject"]) -> dict[str, list[ProblemPair]]:
    groups: dict[str, list[ProblemPair]] = {}
    for pair in pairs:
        if (name := pair.level if by == "level" else pair.subject) is not None:
            groups.setdefault(name, []).append(pair)
    return {name: groups[name] for name in sorted(groups, key=_natural)}


def _lengths(pairs: Sequence[ProblemPair]) -> dict[str, list[ProblemPair]]:
    tokens_P = np.array([pair.mean_tokens for pair in pairs])
    if not len(tokens_P):
        return {}
    edges = np.quantile(tokens_P, np.linspace(0, 1, _NUM_LENGTHS + 1)[1:-1])
    quarter_P = np.searchsorted(edges, tokens_P, side="left")
    groups: dict[str, list[ProblemPair]] = {}
    for quarter in range(_NUM_LENGTHS):
        part = [pair for pair, own in zip(pairs, quarter_P, strict=True) if own == quarter]
        if part:
            lengths = [pair.mean_tokens for pair in part]
            groups[f"{min(lengths):,.0f} – {max(lengths):,.0f} tokens"] = part
    return groups


def _natural(name: str) -> tuple[bool, float, str]:
    """Levels as numbers where they are."""
    try:
        return (False, float(name), name)
    except ValueError:
        return (True, 0.0, name)


def _values(runs: Runs, metric: str) -> dict[str, float]:
    """The metric of each problem that has it in every run, as the mean over runs."""
    tables = [dict(zip(run, per_problem(metric, list(run.values())), strict=True)) for run in runs]
    values = {p: [table.get(p) for table in tables] for p in tables[0]}
    return {p: fmean(v for v in of_runs if v is not None) for p, of_runs in values.items() if None not in of_runs}


def _num_correct(samples: Iterable[Samples]) -> int:
    return sum(sum(one.correct) for one in samples)


def _num_samples(samples: Iterable[Samples]) -> int:
    return sum(len(one.correct) for one in samples)


def _mean_tokens(samples: Sequence[Samples]) -> float:
    return fmean(tokens for one in samples for tokens in one.num_tokens)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


_SORTS: dict[str, Callable[[ProblemPair], object]] = {
    "problem": lambda p: p.problem_id, "a": lambda p: p.share_a, "b": lambda p: p.share_b,
    "difference": lambda p: p.difference, "level": lambda p: _natural(p.level or "\uffff"),
    "tokens_a": lambda p: p.tokens_a, "tokens_b": lambda p: p.tokens_b,
}  # fmt: skip
PAIR_SORTS = ("flipped", *_SORTS)


def sort_pairs(pairs: Sequence[ProblemPair], by: str, *, descending: bool) -> list[ProblemPair]:
    """By one of `PAIR_SORTS`; `flipped`: flipped problems first, the largest difference first (descending: last)."""
    if by == "flipped":
        ordered = sorted(pairs, key=lambda p: (not p.is_flipped, -abs(p.difference)))
        return ordered[::-1] if descending else ordered
    key: Callable[[ProblemPair], object] = _SORTS[by]
    return sorted(pairs, key=key, reverse=descending)  # type: ignore[arg-type]
