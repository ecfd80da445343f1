"""The cards of the page Tune, made from what sessions share: each curve, scale and pinned selection is kept."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app.address import pack, read, words
from app.components.board import PlotEvent
from app.components.live_slider import is_moving
from app.scored import ScoredPool, load_frame
from app.tune_cost import cost_card
from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.figures import tune_cards
from lark_engine.figures.cards import Card
from lark_engine.figures.tune_cards import Scales, Setting
from lark_engine.figures.tuning import BudgetCurve, Outcome, budget_curve, largest_difference, outcome

PROBLEM = "problem"


def cards(scored: ScoredPool, config: SelectConfig, pinned: Outcome | None, row: int | None) -> list[Card]:
    """All cards of the page; `row`: the problem that is shown in full.

    Errors: `ConfigError` when the selection cannot be made.
    """
    frame_of = partial(load_frame, scored)
    now = outcome(frame_of, config)
    # Under limits each neighbor is solved by steps: the other criteria wait until the slider rests.
    waits = config.has_constraint and is_moving()
    setting = Setting(
        scored=scored, frame_of=frame_of, curve=_curve(scored, config), scales=_scales(scored, config),
        with_criteria=not waits,
    )  # fmt: skip
    return [*tune_cards.cards(setting, now, pinned, row), cost_card(scored, now, pinned)]


def solved(scored: ScoredPool, config: SelectConfig, name: str = "now") -> Outcome:
    """The outcome of a selection that stays while others change."""
    return _solved(scored.version, pack(config), name, scored, config)


@st.cache_resource(max_entries=8, show_spinner=False)
def _solved(version: str, packed: str, name: str, _scored: ScoredPool, _config: SelectConfig) -> Outcome:
    return outcome(partial(load_frame, _scored), _config, name)


def _curve(scored: ScoredPool, config: SelectConfig) -> BudgetCurve:
    # B and the limits do not change the curve; a rule without one is shown the paper rule's, which knows no strength.
    fixed = {"budget", "max_teacher_share", "max_train_tokens"}
    if not config.has_budget or config.rule == "best_teacher":
        fixed |= {"tau", "max_budget"}
    key = repr(sorted((name, value) for name, value in config.model_dump().items() if name not in fixed))
    return _kept_curve(scored.version, key, scored, config)


@st.cache_resource(max_entries=128, show_spinner=False)
def _kept_curve(version: str, key: str, _scored: ScoredPool, _config: SelectConfig) -> BudgetCurve:
    return budget_curve(load_frame(_scored, _config), _config)


def _scales(scored: ScoredPool, config: SelectConfig) -> Scales:
    return _kept_scales(scored.version, repr(sorted(config.pool_edit.items())), scored, config)


@st.cache_resource(max_entries=16, show_spinner=False)
def _kept_scales(version: str, edit: str, _scored: ScoredPool, _config: SelectConfig) -> Scales:
    return tune_cards.scales_of(load_frame(_scored, _config), _config)


def chosen_problem(scored: ScoredPool, config: SelectConfig, pinned: Outcome | None) -> int | None:
    """The row of the problem that the address names, else of the one that tells most; None when there is none."""
    try:
        now = solved(scored, config)
    except ConfigError:
        return None  # the figures say why
    asked = read(PROBLEM, words(1000))
    if asked and asked in scored.problem_ids:
        row = int(scored.problem_ids.get_loc(asked))
        if now.frame.ranked.num_valid_N[row]:
            return row
    return largest_difference(now, pinned)


def event_target(event: PlotEvent | None) -> dict[str, Any] | None:
    """Where a click on a chart leads: a candidate's page, or a teacher on Explore."""
    if event is None or event.kind != "click":
        return None
    said = event.customdata
    if event.card == "problem" and isinstance(said, list) and len(said) == 2:
        return {"page": "trajectory", "problem": str(said[0]), "candidate": str(said[1])}
    if event.card == "teachers" and isinstance(said, str):
        return {"page": "explore", "teacher": said}
    return None
