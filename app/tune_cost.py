"""The cost card of the page Tune: what a run on the selection would take, and what each figure rests on."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.address import number, one_of, read
from app.loaders import load_snapshot
from app.scored import ScoredPool
from app.session import current_workspace
from app.tune_controls import BILLIONS, MEASURED
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError
from lark_engine.figures import formats
from lark_engine.figures.cards import Card, Stat
from lark_engine.figures.tuning import Outcome
from lark_engine.models import STUDENT_DIR
from lark_engine.recipes import train_recipe, train_recipes
from lark_engine.store.workspace import Workspace
from lark_engine.training.cost import (
    PEAK_FLOPS,
    Cost,
    Rate,
    StudentSize,
    measured_rate,
    student_size,
    tabled_rate,
    training_cost,
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
    rate = _rate(scored, config, size, devices)

    def cost_of(outcome: Outcome) -> Cost:
        return training_cost(
            outcome.figures["num_trajectories"], outcome.solution.kept.train_tokens, config, size, rate
        )

    cost = cost_of(now)
    other = None if pinned is None else cost_of(pinned)
    name = "" if pinned is None else pinned.name
    width = config.pack_length or config.max_length

    def beside(detail: str, value: str | None) -> str:
        return detail if value is None else f"{name}: {value}"

    stats = (
        Stat("Optimizer steps", formats.count(cost.steps),
             beside(f"{config.epochs:g} epochs of {config.global_batch} a step", other and formats.count(other.steps))),
        Stat("Tokens trained on", _compact(cost.tokens), beside("all epochs", other and _compact(other.tokens))),
        Stat("Packed sequences", _count(cost.passes),
             beside(f"at least, of {formats.count(width)} tokens", other and _count(other.passes))),
        Stat("Time", _hours(cost.hours),
             beside("training alone" if rate else "choose a speed under Cost basis", other and _hours(other.hours))),
        Stat("Memory of a device", _gigabytes(cost.memory_gb), "activations on top"),
        Stat("Disk", _gigabytes(cost.checkpoint_gb), "checkpoints of the run"),
    )  # fmt: skip
    basis = rate.basis if rate else "no run of this student here to measure by"
    return Card(key="cost", title=title, note=basis, stats=stats, span=4)


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
    """The student's size where its files lie here: a folder, or a student of the workspace."""
    if not student:
        return None
    folders = [Path(student).expanduser()]
    students = Workspace(root).list("students")
    folders += [a.path / STUDENT_DIR for a in students if student in (a.id, a.name, a.fingerprint)]
    sizes = (student_size(folder) for folder in folders if folder.is_dir())
    return next((size for size in sizes if size is not None), None)


def _compact(value: float | None) -> str:
    return "–" if value is None else formats.compact(value)


def _count(value: float | None) -> str:
    return "–" if value is None else formats.count(value)


def _hours(value: float | None) -> str:
    return "–" if value is None else formats.duration(3600 * value)


def _gigabytes(value: float | None) -> str:
    return "–" if value is None else formats.size(1e9 * value)
