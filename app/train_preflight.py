"""The preflight on the page Train: run as a job, its record found again by its command, shown with its age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from app.launch import job_panel, start
from app.session import shown_line
from app.train_blocks import batches, bite, data_facts, fact_grid, first_batch, verdict
from lark_engine.access import visitor
from lark_engine.config import TrainConfig
from lark_engine.figures import formats
from lark_engine.jobs.needs import option
from lark_engine.jobs.status import JobView, list_jobs
from lark_engine.results.commands import preflight_command
from lark_engine.store.workspace import Workspace
from lark_engine.training.preflight_record import Preflight, is_preflight, read_preflight


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What preflights have found. `job`: the newest of this very command; `record`: what it found, once it has ended.

    `other`: the newest one that succeeded of another command, where there is none of this.
    """

    job: JobView | None = None
    record: Preflight | None = None
    other: JobView | None = None


def find_preflight(workspace: Workspace, command: Sequence[str]) -> Looked:
    """The newest preflight of a training command, by the jobs of the workspace."""
    words = tuple(preflight_command(command))
    looks = [job for job in list_jobs(workspace.root) if job.spec is not None and is_preflight(job.spec.command)]
    job = next((job for job in looks if job.spec is not None and job.spec.command == words), None)
    if job is not None and not job.is_live and _is_older_than_its_recipe(job):
        job = None  # the command is the same, and what it reads is not
    record = read_preflight(job.job.folder) if job is not None and job.state == "succeeded" else None
    other = next((job for job in looks if job.state == "succeeded"), None)
    return Looked(job=job, record=record, other=other if record is None and other is not job else None)


def _is_older_than_its_recipe(job: JobView) -> bool:
    """Whether the recipe file that the command names was changed since."""
    assert job.spec is not None
    recipe = option(job.spec.command, "recipe", "sft-config") or ""
    try:
        return Path(recipe).suffix in (".yaml", ".yml") and Path(recipe).stat().st_mtime > job.spec.submitted_at
    except (OSError, ValueError):
        return False


def preflight_controls(workspace: Workspace, command: Sequence[str], looked: Looked, *, because: str) -> None:
    """The button that runs it, the command that it runs, and how its job goes."""
    words = preflight_command(command)
    because = visitor().why_not("launch") or because
    is_live = looked.job is not None and looked.job.is_live
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="train_preflight_controls"):
        if not is_live and st.button(
            "Run the preflight again" if looked.record else "Run the preflight", icon=":material/fact_check:",
            key="train_preflight.run", disabled=bool(because), help=formats.plain_markdown(because)
            or "Loads the student and measures one pass: some seconds to minutes; trains nothing",
        ):  # fmt: skip
            start(workspace, words)
            st.rerun()
        if looked.other is not None and not is_live:
            st.caption(f"The form has changed since the last preflight ({_age(looked.other)}).")
    job_panel(workspace, words)
    with st.expander("The command that the button runs"):
        st.code(shown_line(words), language=None, wrap_lines=True)


def preflight_result(looked: Looked, config: TrainConfig) -> None:
    """What it found: the verdict, whether the weights bite, the data, the batches, and the first pass decoded."""
    if looked.record is None or looked.job is None:
        return
    found = looked.record
    st.html(verdict(found, _age(looked.job)))
    wide = fact_grid([bite(found, config.weighting), batches(found, config.global_batch)], is_wide=True)
    st.html(wide + fact_grid(data_facts(found)))
    st.html(first_batch(found))


def _age(job: JobView) -> str:
    if job.ended_at is None:
        return ""
    return formats.age(datetime.fromtimestamp(job.ended_at, UTC).isoformat(), datetime.now(UTC))
