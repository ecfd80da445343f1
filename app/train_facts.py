"""What a run would take and whether it can be had now, before anything is measured: arithmetic, no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.loaders import Snapshot
from app.machine import load_devices
from app.train_blocks import Fact, train_tokens
from app.train_form import Chosen
from app.tune_cost import size_of_student
from lark_engine.config import TrainConfig
from lark_engine.errors import LarkError
from lark_engine.figures import formats
from lark_engine.jobs.devices import machine_devices
from lark_engine.jobs.leases import never_enough
from lark_engine.jobs.needs import Needs, needs_of
from lark_engine.serve import SOURCE_TREE
from lark_engine.store.atomic import existing_parent
from lark_engine.store.workspace import Artifact, Plan, Workspace
from lark_engine.training.cost import measured_rate, training_cost
from lark_engine.training.plan import plan_from_outside, selection_data
from lark_engine.training.preflight_record import Preflight
from lark_engine.training.resume import Resume, resume_of

_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What the run would make. `refused`: why it would not even begin; `unknown`: why the plan is not known here."""

    plan: Plan | None = None
    finished: Artifact | None = None
    resume: Resume | None = None
    refused: str = ""
    unknown: str = ""

    @property
    def cannot_start(self) -> str:
        """Why the run must not be started as it is; empty where nothing is against it."""
        return self.refused or (self.resume.sentence if self.resume is not None and self.resume.is_refused else "")


def planned_run(config: TrainConfig, chosen: Chosen, workspace: Workspace) -> Planned:
    """The checkpoint of these options, whether it is finished, and whether it would be resumed."""
    students = workspace.list("students")
    is_here = Path(chosen.student).expanduser().is_dir() or any(
        chosen.student in (a.id, a.name, a.fingerprint) for a in students
    )
    if not is_here:
        return Planned(unknown="the student is not on this machine yet: what the run is called follows from its files")
    try:
        plan = plan_from_outside(
            config, workspace, selection_data(chosen.selection), has_cuda=bool(machine_devices("cuda"))
        )
    except LarkError as error:
        return Planned(refused=str(error))
    resume = resume_of(
        workspace.folder(plan), num_processes=config.num_processes, is_deepspeed=bool(config.deepspeed),
        save_steps=config.save_steps,
    )  # fmt: skip
    return Planned(plan=plan, finished=workspace.find(plan), resume=resume)


def estimate(config: TrainConfig, chosen: Chosen, snapshot: Snapshot, workspace: Workspace) -> list[Fact]:
    """Steps, tokens, time, memory and disk from counts and from earlier runs."""
    scores = snapshot.find(ref) if (ref := chosen.selection.manifest.inputs.get("scores")) else None
    is_scored = scores is not None and str(scores.manifest.config.get("student")) == chosen.student
    content = scores.manifest.identity.get("student") if scores is not None and is_scored else None
    rate = measured_rate(snapshot.artifacts["checkpoints"], content, config.method, config.num_processes)
    size = size_of_student(chosen.student, str(workspace.root))
    tokens = train_tokens(chosen.selection)
    cost = training_cost(chosen.selection.manifest.counts.get("num_trajectories", 0), tokens, config, size, rate)
    return [
        Fact("Steps", formats.count(cost.steps), _length(config)),
        Fact("Tokens", "–" if cost.tokens is None else formats.compact(cost.tokens), "prompt and response, all epochs"),
        Fact("Time", "–" if cost.hours is None else formats.duration(3600 * cost.hours),
             rate.basis if rate else "no run of this student here to measure by; the preflight measures"),
        need("Memory of a device", cost.memory_gb, free_memory(config),
             "weights, gradients and AdamW's moments; activations on top"),
        need("Disk", cost.checkpoint_gb, free_disk(workspace), "checkpoints of the run"),
    ]  # fmt: skip


def measured(found: Preflight, config: TrainConfig) -> list[Fact]:
    """The same as the preflight measured it."""
    return [
        Fact("Steps", formats.count(found.steps), _length(config)),
        Fact("Tokens", formats.compact(found.tokens), "prompt and response, all epochs"),
        Fact("Time", formats.duration(3600 * found.hours), found.hours_basis),
        need("Memory of a device", found.memory_gb, found.memory_free_gb, found.memory_basis),
        need("Disk", found.disk_gb, found.disk_free_gb, "at most, while the run lasts"),
    ]


def need(label: str, wanted_gb: float | None, free_gb: float | None, basis: str) -> Fact:
    """What is wanted beside what is free."""
    if wanted_gb is None:
        return Fact(label, "–", "the student's size is not known here")
    there = "" if free_gb is None else f"of {formats.size(free_gb * _GB)} free · "
    share = None if not free_gb else wanted_gb / free_gb
    return Fact(label, formats.size(wanted_gb * _GB), there + basis, share=share, is_bad=(share or 0.0) > 1)


def free_memory(config: TrainConfig) -> float | None:
    """GB of a device, or of this machine where the run is on its processor; None where it is not known."""
    gpus = machine_devices("cuda") if config.device != "cpu" else []
    if gpus:
        return min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes), default=0) / _GB or None
    return None if config.device == "cuda" else psutil.virtual_memory().available / _GB


def free_disk(workspace: Workspace) -> float:
    """GB free where the workspace is."""
    return shutil.disk_usage(existing_parent(workspace.root)).free / _GB


def devices_fact(command: Sequence[str]) -> Fact:
    """What the command waits for, and who has it now."""
    wants = needs_of(command, num_gpus=len(machine_devices("cuda")), environment=os.environ, cwd=SOURCE_TREE)
    if wants.kind == "none":
        return Fact("Devices", "none", "it waits for nothing")
    value = _devices(wants)
    if missing := never_enough(wants.kind, wants.count):
        return Fact("Devices", value, missing, is_bad=True)
    known = load_devices()
    uses = known.of(wants.kind)
    free = sum(not use.holder for use in uses)
    if known.problem:
        return Fact("Devices", value, known.problem)
    if free >= wants.count:
        return Fact("Devices", value, f"free now ({free} of {len(uses)}): it starts at once")
    holders = ", ".join(dict.fromkeys(use.holder for use in uses if use.holder))
    return Fact("Devices", value, f"it waits: held by {holders}")


def run_fact(planned: Planned) -> Fact:
    """What the run is called, and where it would begin."""
    if planned.refused:
        return Fact("Run", "refused", planned.refused, is_bad=True)
    if planned.plan is None or planned.resume is None:
        return Fact("Run", "new", planned.unknown)
    step = planned.resume.step
    value = "finished" if planned.finished else "not now" if step is None else "resumes" if step else "new"
    return Fact("Run", value, f"{planned.plan.id}: {planned.resume.sentence}", is_bad=planned.resume.is_refused)


def _length(config: TrainConfig) -> str:
    if config.max_steps:
        return f"as asked, of {formats.count(config.global_batch)} trajectories"
    if config.max_tokens:
        return (
            f"until {formats.compact(config.max_tokens)} tokens, {formats.count(config.global_batch)} trajectories each"
        )
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs:g} epochs"
    return f"{epochs}, {formats.count(config.global_batch)} trajectories a step"


def _devices(wants: Needs) -> str:
    noun = "GPU" if wants.kind == "cuda" else "CPU slot"
    return f"{wants.count} {noun}{'s' if wants.count > 1 else ''}"
