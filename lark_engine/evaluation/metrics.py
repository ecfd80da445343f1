"""avg@n, pass@k and maj@n with 95 % intervals (METHOD.md section 7). Pure; a metric that cannot be had is None."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lark_engine.evaluation.equality import normalize

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over problems, in [0, 1], with its 95 % interval (None when one problem cannot give one)."""

    value: float
    low: float | None
    high: float | None
    num_problems: int


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The graded samples of one problem, in the order of sampling: was each correct, and what did it say."""

    correct: tuple[bool, ...]
    predictions: tuple[str | None, ...]


def avg_at_n(correct: Sequence[bool]) -> float:
    """Mean correctness c / n."""
    return sum(correct) / len(correct)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float | None:
    """1 − C(n − c, k) / C(n, k): the chance that k of the n samples, drawn without replacement, hold a correct one.

    Unbiased (Chen et al. 2021, equation 1). None when k > n.
    """
    if k > num_samples:
        return None
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_at_n(samples: Samples) -> bool:
    """Whether the most frequent answer is correct; ties go to the answer seen first; no answer at all is wrong.

    Answers vote together when `normalize` writes them alike. A class is correct when its first member is.
    """
    votes = Counter(normalize(p) for p in samples.predictions if p is not None)
    if not votes:
        return False
    winner, _ = votes.most_common(1)[0]  # insertion order decides ties: Counter keeps it
    pairs = zip(samples.predictions, samples.correct, strict=True)
    return next(c for p, c in pairs if p is not None and normalize(p) == winner)


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """(p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n), the score interval of a proportion (Wilson 1927)."""
    from scipy.stats import norm

    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    n, p = num_trials, num_successes / num_trials
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Exact at the ends, where rounding would leave 2e-17 for 0.
    low = (center - half) / scale if num_successes else 0.0
    return low, (center + half) / scale if num_successes < num_trials else 1.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval (None when one value cannot give one)."""

    value: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float]) -> Interval:
    """mean ± t(n − 1) · s / √n. Errors: `ZeroDivisionError` without values."""
    from scipy.stats import t

    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Interval(value=mean, low=None, high=None)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(value=mean, low=mean - half, high=mean + half)


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """`mean_interval` of per-problem values in [0, 1], cut to [0, 1]; None for fewer than two."""
    found = mean_interval(values) if values else None
    if found is None or found.low is None or found.high is None:
        return None
    return max(found.low, 0.0), min(found.high, 1.0)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and interval of per-problem values: Wilson when each is 0 or 1, Student-t otherwise; None without values."""
    if not values:
        return None
    if all(v in (0.0, 1.0) for v in values):
        interval: tuple[float, float] | None = wilson_interval(round(sum(values)), len(values))
    else:
        interval = t_interval(values)
    low, high = interval or (None, None)
    return Estimate(value=sum(values) / len(values), low=low, high=high, num_problems=len(values))


def summarize(problems: Sequence[Samples]) -> dict[str, Estimate | None]:
    """Every metric of a set of problems by name: avg@n, pass@1 … pass@n, maj@n; n = the most samples of a problem.

    avg@n and maj@n are over all problems. pass@k leaves out problems with fewer than k samples, and is None when all
    have fewer; `num_problems` says how many count.
    """
    n = max((len(p.correct) for p in problems), default=0)
    if n == 0:
        return {}
    passes = {
        f"pass@{k}": [v for p in problems if (v := pass_at_k(len(p.correct), sum(p.correct), k)) is not None]
        for k in range(1, n + 1)
    }
    per_problem = {
        f"avg@{n}": [avg_at_n(p.correct) for p in problems],
        **passes,
        f"maj@{n}": [float(majority_at_n(p)) for p in problems],
    }
    return {name: estimate(values) for name, values in per_problem.items()}
