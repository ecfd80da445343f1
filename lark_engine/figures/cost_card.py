"""The cost card of a selection: what a run on it would take, and what each figure rests on."""

from __future__ import annotations

from pathlib import Path

from lark_engine.config import TrainConfig
from lark_engine.figures import formats
from lark_engine.figures.cards import Card, Stat
from lark_engine.figures.tuning import Outcome
from lark_engine.models import STUDENT_DIR
from lark_engine.store.workspace import Workspace
from lark_engine.training.cost import Cost, Rate, StudentSize, student_size, training_cost


def cost_card(
    now: Outcome, pinned: Outcome | None, config: TrainConfig, recipe: str, size: StudentSize | None, rate: Rate | None,
    *, no_rate: str = "choose a speed under Cost basis",
) -> Card:  # fmt: skip
    """What training on a selection by a recipe takes, beside the pinned one. `no_rate`: said where no rate is known."""

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
        Stat("Tokens trained on", formats.compact(cost.tokens),
             beside("all epochs", other and formats.compact(other.tokens))),
        Stat("Packed sequences", _count(cost.passes),
             beside(f"at least, of {formats.count(width)} tokens", other and _count(other.passes))),
        Stat("Time", _hours(cost.hours),
             beside("training alone" if rate else no_rate, other and _hours(other.hours))),
        Stat("Memory of a device", _gigabytes(cost.memory_gb), "activations on top"),
        Stat("Disk", _gigabytes(cost.checkpoint_gb), "checkpoints of the run"),
    )  # fmt: skip
    basis = rate.basis if rate else "no run of this student here to measure by"
    return Card(key="cost", title=f"What does it cost? Recipe {recipe}", note=basis, stats=stats, span=4)


def size_of_student(student: str, workspace: Workspace) -> StudentSize | None:
    """The student's size where its files lie here: a folder, or a student of the workspace."""
    if not student:
        return None
    folders = [Path(student).expanduser()]
    students = workspace.list("students")
    folders += [a.path / STUDENT_DIR for a in students if student in (a.id, a.name, a.fingerprint)]
    sizes = (student_size(folder) for folder in folders if folder.is_dir())
    return next((size for size in sizes if size is not None), None)


def _count(value: float | None) -> str:
    return "–" if value is None else formats.count(value)


def _hours(value: float | None) -> str:
    return "–" if value is None else formats.duration(3600 * value)


def _gigabytes(value: float | None) -> str:
    return "–" if value is None else formats.size(1e9 * value)
