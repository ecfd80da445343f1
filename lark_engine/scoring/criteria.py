"""Every criterion of a candidate in one registry (METHOD.md 1, 2 and 4): what it is, and how it is computed.

The score table's derived columns, the valid energies of a selection and the dashboard's menus are read from
`CRITERIA`. To add a criterion, write its function of the base statistics and one entry. Pure functions, no torch.

Base statistics are means over the response tokens of a trajectory: nll, brier, entropy, mean_rank, and
num_response_tokens. NaN means absent: padding, a candidate that a pool edit took out, or a number that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lark_engine.scoring.matrix import Layout

Floats = NDArray[np.float64]

RANDOM = "random"  # the one energy without a criterion: drawn from the config's seed
_LARK = "LARK paper (arXiv 2605.30651)"
_RSR = "RSR paper (arXiv 2601.14249)"


def rho(nll: Floats, brier: Floats) -> Floats:
    """ρ = brier / nll, 0 where nll ≤ 1e-30; same shape as given."""
    tiny = nll <= 1e-30
    return np.where(tiny, 0.0, brier / np.where(tiny, 1.0, nll))


def rsr(mean_rank: Floats, nll: Floats) -> Floats:
    """RSR = Σ rank / Σ nll = mean_rank / nll, lower is better; NaN where nll is 0; same shape as given."""
    positive = nll > 0
    return np.where(positive, mean_rank / np.where(positive, nll, 1.0), np.nan)


def g_hat(nll_NK: Floats, brier_NK: Floats) -> Floats:
    """g_k = (2·brier_k − L_k·Σbrier/ΣL) / ΣL over the candidates of each problem, [N, K]; NaN = not a candidate.

    Relative to the candidate set: removing one candidate changes the others. Invariant: Σ_k g_k = Σbrier / ΣL.
    A problem whose ΣL is 0 has no g_hat (NaN). Source: LARK paper (arXiv 2605.30651), METHOD.md 2.
    """
    absent_NK = np.isnan(nll_NK) | np.isnan(brier_NK)
    if absent_NK.any():
        nll_NK, brier_NK = (np.where(absent_NK, np.nan, values_NK) for values_NK in (nll_NK, brier_NK))
        sums = [np.where(absent_NK, 0.0, values_NK).sum(axis=1, keepdims=True) for values_NK in (nll_NK, brier_NK)]
    else:
        sums = [values_NK.sum(axis=1, keepdims=True) for values_NK in (nll_NK, brier_NK)]
    sum_nll_N1 = np.where(sums[0] > 0, sums[0], np.nan)
    return (2.0 * brier_NK - nll_NK * sums[1] / sum_nll_N1) / sum_nll_N1


def _itself(statistic: Floats) -> Floats:
    return statistic


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One number of a candidate: a column of the score table, and the energies that it gives.

    `compute` takes the base statistics named in `needs`, in this order. If `relative`, the value depends on which
    candidates its problem has: `compute` takes [N, K] matrices and pool edits recompute it. Otherwise it works
    element by element on any shape. `energies` are names of METHOD.md 4; one that begins with "-" ranks low values
    first. `better` is the direction that its source recommends, None where it recommends none.
    """

    name: str
    symbol: str
    formula: str
    unit: str
    source: str
    needs: tuple[str, ...]
    better: Literal["higher", "lower"] | None
    energies: tuple[str, ...] = ()
    compute: Callable[..., Floats] = _itself
    relative: bool = False

    @property
    def is_derived(self) -> bool:
        """Whether it is computed from base statistics, not one of them."""
        return self.needs != (self.name,)


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion(
            name="g_hat", symbol="ĝ", formula="(2·brier − L·Σbrier/ΣL) / ΣL over the problem's candidates",
            unit="1/nat", source=_LARK, needs=("nll", "brier"), better="higher", energies=("g_hat",),
            compute=g_hat, relative=True,
        ),
        Criterion(
            name="nll", symbol="L", formula="mean of −log π(y) over the response tokens", unit="nats/token",
            source="naturalness: likely under the student", needs=("nll",), better="lower", energies=("-nll", "+nll"),
        ),
        Criterion(
            name="rsr", symbol="RSR", formula="Σ rank / Σ nll, ranks clipped at 100", unit="ranks/nat", source=_RSR,
            needs=("mean_rank", "nll"), better="lower", energies=("-rsr",), compute=rsr,
        ),
        Criterion(
            name="brier", symbol="Brier", formula="mean of 1 − 2π(y) + Σπ² over the response tokens", unit="[0, 2]",
            source=_LARK, needs=("brier",), better="lower", energies=("-brier",),
        ),
        Criterion(
            name="rho", symbol="ρ", formula="brier / nll", unit="1/nat", source=_LARK, needs=("nll", "brier"),
            better="higher", energies=("+rho",), compute=rho,
        ),
        Criterion(
            name="num_response_tokens", symbol="T", formula="number of response tokens", unit="tokens",
            source="shortest and longest response", needs=("num_response_tokens",), better=None,
            energies=("-num_response_tokens", "+num_response_tokens"),
        ),
        Criterion(
            name="entropy", symbol="H", formula="mean of −Σ π log π over the response tokens", unit="nats/token",
            source="the student's uncertainty", needs=("entropy",), better=None,
        ),
        Criterion(
            name="mean_rank", symbol="r̄", formula="mean rank of the true token, clipped at 100", unit="ranks",
            source=_RSR, needs=("mean_rank",), better="lower",
        ),
    )
}  # fmt: skip


class SignedCriterion(NamedTuple):
    """What an energy is made of: sign · criterion, so that a higher energy is ranked first."""

    sign: float
    criterion: Criterion


def energy_names() -> tuple[str, ...]:
    """Every valid energy, in the registry's order; `random` last."""
    return (*(energy for criterion in CRITERIA.values() for energy in criterion.energies), RANDOM)


def criterion_of(energy: str) -> SignedCriterion:
    """The criterion behind an energy other than `random`."""
    [criterion] = [criterion for criterion in CRITERIA.values() if energy in criterion.energies]
    return SignedCriterion(-1.0 if energy.startswith("-") else 1.0, criterion)


def derived_columns(stats: Mapping[str, Floats], where: Layout) -> dict[str, Floats]:
    """Every derived criterion of a score table, [rows] each, in the registry's order: g_hat, rsr, rho.

    `stats` holds base statistics by name, [rows] float64, NaN = absent; `where` places rows in their problems. A
    criterion that needs a statistic which is not given (released score files hold no ranks) is NaN in every row.
    """
    columns = {}
    for criterion in CRITERIA.values():
        if not criterion.is_derived:
            continue
        if any(name not in stats for name in criterion.needs):
            columns[criterion.name] = np.full(len(where.problem), np.nan)
        elif criterion.relative:
            values_NK = criterion.compute(*(where.spread(stats[name]) for name in criterion.needs))
            columns[criterion.name] = where.gather(values_NK)
        else:
            columns[criterion.name] = criterion.compute(*(stats[name] for name in criterion.needs))
    return columns
