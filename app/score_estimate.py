"""What scoring a pool by a student would take, with the basis of each figure; read once and cached. No controls."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app.loaders import Snapshot
from lark_engine.config import ScoreConfig
from lark_engine.errors import LarkError, StudentError
from lark_engine.figures import formats
from lark_engine.jobs.devices import machine_devices
from lark_engine.models import LocalStudent, find_student, resolve_dtype, stated_length
from lark_engine.scoring import cost
from lark_engine.scoring.score import resolved_options
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.cost import PEAK_FLOPS, Rate, student_size

log = logging.getLogger(__name__)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A student that was chosen: as the command names it, and what is known of it. `problem`: why it cannot be used.

    `local` is None for one that only the hub can know. `changed_at`: seconds since 1970 of its newest file.
    """

    name: str
    label: str
    local: LocalStudent | None = None
    problem: str = ""
    num_weights: int | None = None
    changed_at: float = 0.0

    @property
    def origin(self) -> str | None:
        """As scores keep it."""
        return self.local.origin if self.local else None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one student takes. `done`: the scores of these very options that are there already."""

    label: str
    detail: str
    work: cost.Workload
    tokens_basis: str
    seconds: float | None
    rate_basis: str
    disk_bytes: int
    done: Artifact | None


def look_at_student(name: str, workspace: Workspace) -> Chosen:
    """What a name means on this machine; whether it can be loaded is seen from the names of its files."""
    try:
        found = find_student(name, workspace)
        if found is None and not _HUB_ID.fullmatch(name):
            raise StudentError(f"no model folder, workspace student or hub id '{name}'; check the path")
    except (LarkError, OSError, RuntimeError, ValueError) as error:
        return Chosen(name=name, label=name, problem=str(error))
    if found is None:
        return Chosen(name=name, label=name)
    try:
        stated_length(found.path)
    except LarkError as error:
        return Chosen(name=name, label=name, problem=str(error))
    # The workspace's own never change, whatever a copy of the folder did to their times.
    changed_at = 0.0 if found.artifact else cost.newest_change(found.path)
    size = _num_weights(str(found.path), changed_at)
    return Chosen(name=found.origin, label=found.name, local=found, num_weights=size, changed_at=changed_at)


@st.cache_data(max_entries=64, show_spinner=False)
def _num_weights(folder: str, changed_at: float) -> int | None:
    size = student_size(Path(folder))
    return None if size is None else size.num_weights


def run_device(config: ScoreConfig) -> str:
    """`cpu` or `cuda`: where the command would run here, as far as the driver says; torch is not asked."""
    if config.device != "auto":
        return config.device
    return "cuda" if machine_devices("cuda") else "cpu"


def options_for(config: ScoreConfig, student: Chosen) -> dict[str, Any]:
    """The options that decide a score, as they hold for this student. Errors: `StudentError` (chat template)."""
    context = stated_length(student.local.path) if student.local else None
    return resolved_options(config, dtype=resolve_dtype(config.dtype, run_device(config)), context=context)


def estimate(
    config: ScoreConfig, student: Chosen, pool: Artifact, snapshot: Snapshot, workspace: Workspace, speed: str
) -> Estimate:
    """What scoring the pool takes. `speed`: a device of the data sheets, anything else for what was measured here.

    Errors: `LarkError` when the pool's table is damaged or the chat template cannot be read.
    """
    scores = snapshot.artifacts["scores"]
    options, device, texts = options_for(config, student), run_device(config), load_texts(pool)
    lengths = cost.known_lengths(texts, pool, scores, student.origin)
    if lengths is None:
        # Of the scores whose tokens were counted, the one that says most: no other pool is read for this.
        best = cost.best_counted(scores, student.origin)
        lengths = cost.estimated_lengths(texts, *cost.chars_per_token(_with_texts(best, snapshot), student.origin))
    work = cost.workload(texts, lengths, options["max_length"], _reused(texts, options, student, snapshot))
    rate = _rate(config, student, scores, workspace, speed, device)
    return Estimate(
        label=student.label, detail=_detail(student, options["max_length"], config), work=work,
        tokens_basis=lengths.basis, disk_bytes=cost.disk_bytes(work, config.token_stats),
        seconds=None if rate is None else work.tokens / rate.tokens_per_s,
        rate_basis=rate.basis if rate else _no_rate(student, device, speed),
        done=cost.already_scored(scores, pool, student.origin, options, student.changed_at),
    )  # fmt: skip


def _detail(student: Chosen, max_length: int, config: ScoreConfig) -> str:
    facts = [] if student.num_weights is None else [f"{formats.compact(student.num_weights)} parameters"]
    if student.local is None:
        facts.append("from the hub: the job downloads it")
    if max_length < config.max_length:
        facts.append(f"its config allows {max_length:,} tokens")
    return " · ".join(facts)


def _rate(
    config: ScoreConfig, student: Chosen, scores: Sequence[Artifact], workspace: Workspace, speed: str, device: str
) -> Rate | None:
    if speed in PEAK_FLOPS:
        return cost.tabled_rate(student.num_weights, speed, max(config.num_workers, 1))

    def weights_of(origin: str) -> int | None:
        return look_at_student(origin, workspace).num_weights

    return cost.measured_rate(scores, student.origin, device, student.num_weights, weights_of)


def _no_rate(student: Chosen, device: str, speed: str) -> str:
    if student.num_weights is None and (student.local is None or speed in PEAK_FLOPS):
        return "its size is not known here"
    return f"nothing was scored on {device} here yet; choose a device under Speed"


def _reused(
    texts: cost.PoolTexts, options: dict[str, Any], student: Chosen, snapshot: Snapshot
) -> NDArray[np.bool_]:  # fmt: skip
    fits = [s for s in snapshot.artifacts["scores"] if cost.reusable(s, student.origin, options, student.changed_at)]
    return cost.taken_over(texts, _with_texts(fits, snapshot))


def _with_texts(scores: Sequence[Artifact], snapshot: Snapshot) -> list[tuple[Artifact, cost.PoolTexts]]:
    """Scores whose pool is still there and whole, with what is known of its texts."""
    pools = [(s, snapshot.find(s.manifest.inputs["pool"])) for s in scores if "pool" in s.manifest.inputs]
    found = []
    for one, pool in pools:
        try:
            if pool is not None:
                found.append((one, load_texts(pool)))
        except LarkError as error:  # another pool's damage does not concern this one
            log.warning("%s is left out of the estimate: %s", one.id, error)
    return found


def load_texts(pool: Artifact) -> cost.PoolTexts:
    """The lengths of a pool's texts, read once. Errors: `StoreError` when its table is damaged."""
    return _texts(str(pool.path), pool.fingerprint, pool)


@st.cache_resource(max_entries=6, show_spinner="Reading the pool")
def _texts(path: str, fingerprint: str, _pool: Artifact) -> cost.PoolTexts:
    return cost.read_texts(_pool)
