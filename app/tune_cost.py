"""The cost card of the page Tune, under the assumptions that the address states."""

from __future__ import annotations

import streamlit as st

from app.address import number, one_of, read
from app.loaders import load_snapshot
from app.scored import ScoredPool
from app.session import current_workspace
from app.tune_controls import BILLIONS, MEASURED
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError
from lark_engine.figures import cost_card as cost_cards
from lark_engine.figures.cards import Card
from lark_engine.figures.tuning import Outcome
from lark_engine.recipes import train_recipe, train_recipes
from lark_engine.store.workspace import Workspace
from lark_engine.training.cost import (
    PEAK_FLOPS,
    Rate,
    StudentSize,
    measured_rate,
    tabled_rate,
)


def cost_card(scored: ScoredPool, now: Outcome, pinned: Outcome | None) -> Card:
    """What training on the selection takes, beside the pinned one, under the assumptions of the address."""
    recipes = train_recipes()
    recipe = read("recipe", one_of(recipes, "lora" if "lora" in recipes else recipes[0]))
    devices = read("devices", number(1, 1024, 1, integer=True))
    title = f"What does it cost? Recipe {recipe}"
    try:
        config = TrainConfig.parse(
            {**train_recipe(recipe), "student": "student", "nproc_per_node": devices}, f"recipe {recipe}"
        )
    except ConfigError as error:
        return Card(key="cost", title=title, note=str(error), span=4)
    size = _size(scored)
    return cost_cards.cost_card(now, pinned, config, recipe, size, _rate(scored, config, size, devices))


def _rate(scored: ScoredPool, config: TrainConfig, size: StudentSize | None, num_devices: int) -> Rate | None:
    device = read("device", one_of([MEASURED, *PEAK_FLOPS], MEASURED))
    if device in PEAK_FLOPS:
        return tabled_rate(size, config, device, num_devices)
    checkpoints = load_snapshot(current_workspace()).artifacts["checkpoints"]
    return measured_rate(checkpoints, scored.scores.manifest.identity.get("student"), config.method, num_devices)


def _size(scored: ScoredPool) -> StudentSize | None:
    """As the user says it, else as the student's files say it."""
    if (billions := read("billions", BILLIONS)) is not None:
        return StudentSize(round(1e9 * billions), None)
    return size_of_student(str(scored.scores.manifest.config.get("student", "")), str(current_workspace().root))


@st.cache_data(max_entries=32, ttl=600, show_spinner=False)
def size_of_student(student: str, root: str) -> StudentSize | None:
    """The size of a student of this workspace, kept for ten minutes: `lark_engine.figures.cost_card` finds it."""
    return cost_cards.size_of_student(student, Workspace(root))
