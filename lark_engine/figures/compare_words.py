"""A comparison in words: what was found, for whom it speaks, and what to be careful about. Pure."""

from __future__ import annotations

from typing import NamedTuple

from lark_engine.evaluation.intervals import Estimate
from lark_engine.evaluation.metrics import MEAN_TOKENS
from lark_engine.evaluation.paired import MANY_COMPARISONS, Paired
from lark_engine.figures import formats
from lark_engine.figures.formats import decimal, signed
from lark_engine.figures.safe_text import one_line
from lark_engine.results.compare import BenchmarkComparison

ALPHA = 0.05
METRICS = {
    "avg": "avg@n", "pass": "pass@k", "maj": "maj@n", "no_answer": "no answer", "truncated": "truncated",
    MEAN_TOKENS: "mean tokens",
}  # fmt: skip
_LONGEST_DIFFERENCE = 200  # a system prompt can be of any length
_MORE_IS_BETTER = ("avg", "pass", "maj")


class Unit(NamedTuple):
    """How differences of a metric are written: what they are multiplied with, and what they are called."""

    scale: float
    name: str

    def say(self, value: float) -> str:
        said = signed(value * self.scale, 1)
        return "0.0" if said[1:] == "0.0" else said


def unit_of(metric: str) -> Unit:
    """Points for shares, tokens for lengths."""
    return Unit(1.0, "tokens") if metric == MEAN_TOKENS else Unit(100.0, "points")


def is_shown(p_adjusted: float) -> bool:
    """Whether a difference counts as shown: below 5 %, with Holm's correction where several are tested."""
    return p_adjusted < ALPHA


def verdict(one: BenchmarkComparison, num_benchmarks: int) -> str:
    """`B is better by 4.2 points on gsm8k (95 %: 1.0 – 7.4), p = 0.010, exact permutation, n = 60`."""
    paired, unit = one.paired, unit_of(one.metric)
    adjusted = f" ({p_value(one.p_adjusted)} by Holm over {num_benchmarks} benchmarks)" if num_benchmarks > 1 else ""
    facts = f"{p_equals(paired.p_value)}{adjusted}, {paired.test}, n = {formats.count(paired.num_problems)}."
    if is_shown(one.p_adjusted):
        # The interval is written for the amount, from the side that has more.
        ends = (paired.low, paired.high) if paired.difference >= 0 else (_minus(paired.high), _minus(paired.low))
        size = decimal(abs(paired.difference) * unit.scale, 1)
        return f"{_winner(one)} by {size} {unit.name} on {one.benchmark}{between(*ends, unit)}, {facts}"
    said = f"No difference is shown on {one.benchmark}: B − A = {unit.say(paired.difference)} {unit.name}"
    said += f"{between(paired.low, paired.high, unit)}, {facts}"
    if paired.smallest_detectable is not None:
        size = decimal(paired.smallest_detectable * unit.scale, 1)
        said += f" A difference of {size} {unit.name} would be found with 80 % power."
    return said


def _winner(one: BenchmarkComparison) -> str:
    side = "B" if one.paired.difference > 0 else "A"
    kind = one.metric.partition("@")[0]
    if kind in _MORE_IS_BETTER:
        return f"{side} is better"
    if kind == MEAN_TOKENS:
        return f"{side} is longer"
    return f"{side} has more samples {'without an answer' if kind == 'no_answer' else 'that were cut'}"


def mean_sentence(macro: Estimate, metric: str, number: int) -> str:
    """The unweighted mean over benchmarks."""
    unit = unit_of(metric)
    return (
        f"Mean over {number} benchmarks: B − A = {unit.say(macro.value)} {unit.name}"
        f"{between(macro.low, macro.high, unit)}, n = {formats.count(macro.num_problems)}."
    )


def many_sentence(number: int) -> str:
    """A warning where many differences are tested; empty where few are."""
    if number <= MANY_COMPARISONS:
        return ""
    return f"{number} comparisons: of that many, one in twenty is below 0.05 by chance; read the p-values by Holm."


def cautions(one: BenchmarkComparison) -> list[str]:
    """What else than the model differs, and what has changed since."""
    found = []
    if one.differences:
        said = "; ".join(one_line(text, _LONGEST_DIFFERENCE) for text in one.differences)
        found.append(f"Sampled or graded otherwise (A / B): {said}.")
    if one.stale:
        found.append(f"Stale: {'; '.join(one_line(text, _LONGEST_DIFFERENCE) for text in one.stale)}.")
    if one.num_samples_a != one.num_samples_b:
        found.append(f"Samples of a problem: {one.num_samples_a} of A, {one.num_samples_b} of B.")
    return found


def between(low: float | None, high: float | None, unit: Unit) -> str:
    """` (95 %: 1.0 – 7.4)`, `(95 %: −0.4 to 3.1)`, or nothing where one problem gives no interval."""
    if low is None or high is None:
        return ""
    word = "to" if low < 0 else "–"  # a dash beside a minus sign is hard to read
    return f" (95 %: {decimal(low * unit.scale, 1)} {word} {decimal(high * unit.scale, 1)})"


def p_value(p: float) -> str:
    """`0.012`, `0.34`, `< 0.001`."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_equals(p: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def p_phrase(p: float, p_adjusted: float, number: int) -> str:
    """`p = 0.012 · Holm 0.036`."""
    return p_equals(p) if number < 2 else f"{p_equals(p)} · Holm {p_value(p_adjusted)}"


def counts(paired: Paired) -> str:
    """On how many problems each side is ahead."""
    return f"B higher on {paired.num_better}, lower on {paired.num_worse}, same on {paired.num_tied}"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
