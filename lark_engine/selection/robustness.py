"""How much of a selection stays when a setting moves a little, or when another criterion ranks. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lark_engine.config import SelectConfig
from lark_engine.config.selection import MOST_TAU
from lark_engine.errors import ConfigError
from lark_engine.selection.compare import compare
from lark_engine.selection.frame import SelectionFrame, Solution

STEP = 1.25
_MOST_SHARPNESS, _LEAST_SHARPNESS = 20.0, 0.05
# Opposite directions of one criterion say nothing new of each other; these are the ones that a user would compare.
CRITERIA = ("-nll", "-rsr", "+rho", "-num_response_tokens", "random")


class Variant(NamedTuple):
    """A neighbor of a selection: what differs, and its options."""

    name: str
    config: SelectConfig


class Robustness(NamedTuple):
    """A neighbor, and what the selection shares with it: Jaccard overlap, and the share of weight that stays."""

    variant: Variant
    overlap: float
    same_weight: float


def neighbors(config: SelectConfig, num_columns: int) -> list[Variant]:
    """The settings beside this one that its rule has: B ± 1, and s or τ a quarter up and down."""
    found = []
    if config.has_budget:
        for step in (-1, 1):
            if 1 <= config.budget + step <= num_columns:
                found.append(Variant(f"B = {config.budget + step}", _with(config, budget=config.budget + step)))
    if config.rule == "chi2" and config.mode != "temperature":
        for factor, sign in ((1 / STEP, "÷"), (STEP, "×")):
            sharpness = config.sharpness * factor
            if _LEAST_SHARPNESS <= sharpness <= _MOST_SHARPNESS:
                found.append(Variant(f"s {sign} {STEP:g}", _with(config, mode="sharpness", sharpness=sharpness)))
    if config.tau is not None:
        for factor, sign in ((1 / STEP, "÷"), (STEP, "×")):
            if 0 < config.tau * factor <= MOST_TAU:
                found.append(Variant(f"τ {sign} {STEP:g}", _with(config, tau=config.tau * factor)))
    return found


def other_criteria(config: SelectConfig, budget: int, energies: Iterable[str] = CRITERIA) -> list[Variant]:
    """The same rule on other energies. τ has the unit of its energy: a rule with a τ is compared with the top `budget`
    by each. Rules without ranks (all, best_teacher) have no such neighbors.
    """
    if config.rule in ("all", "best_teacher"):
        return []
    top = {"rule": "top_b", "mode": "budget", "tau": None, "max_budget": None, "sharpness": 1.0, "budget": budget}
    changes = top if config.tau is not None else {}
    name = f"top {budget} by" if changes else "by"
    return [
        Variant(f"{name} {energy}", _with(config, energy=energy, **changes))
        for energy in ("g_hat", *energies)
        if energy != config.energy or changes
    ]


def robustness(
    solution: Solution, variants: Iterable[Variant], frame_of: Callable[[SelectConfig], SelectionFrame]
) -> list[Robustness]:
    """What a solution shares with each variant. A variant that the scores cannot give (no RSR) is left out.

    `frame_of` gives the frame of a config of the same candidates; frames may be kept by whoever calls.
    """
    found = []
    for variant in variants:
        try:
            other = frame_of(variant.config).solve(variant.config)
        except ConfigError:
            continue
        figures = compare(solution.kept, other.kept)
        change = figures["weight_change"]["mean"]
        found.append(Robustness(variant, figures["overlap"], 1.0 - change if change is not None else 1.0))
    return found


def _with(config: SelectConfig, **changes: object) -> SelectConfig:
    """The config with some fields changed, checked anew."""
    given = {name: getattr(config, name) for name in config.model_fields_set}
    if changes.get("energy", config.energy) != "random":
        given.pop("seed", None)
    return SelectConfig.model_validate({**given, **changes})
