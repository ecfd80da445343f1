"""What can be done with a job from a page: the verbs of `lark jobs`, each button with the command that does it."""

from __future__ import annotations

import shlex
from typing import Any

import streamlit as st

from app import address
from app.boundary import reported
from app.session import shell_command
from lark_engine.access import Capability, visitor
from lark_engine.errors import ConfigError
from lark_engine.figures.formats import plain_markdown
from lark_engine.jobs import actions
from lark_engine.jobs.folder import Job
from lark_engine.jobs.records import Request
from lark_engine.jobs.status import RESUMABLE, JobView, view

# Between a click and its answer no page should stand still for longer; what takes longer shows as `stopping`.
_KILL_S = 15.0
# Stages that keep what they have done: only these end at a checkpoint.
_CHECKPOINTED = ("train", "score", "generate", "run", "sweep")
_FLAGS: dict[Request, str] = {"after_checkpoint": " --after-checkpoint", "stop": "", "kill": " --kill"}


def action_buttons(job: JobView, *, key: str) -> None:
    """The actions that fit the state of a job; a refusal is shown on top of the page."""
    name = shlex.quote(job.id)
    with st.container(horizontal=True, gap="small", key=f"{key}.actions", vertical_alignment="center"):
        if job.state == "queued":
            _stop_button(job, "stop", "Leave the queue", ":material/remove_circle:", key)
        elif job.is_live:
            keeps = bool(job.spec) and job.spec.stage.partition(" ")[0] in _CHECKPOINTED and job.state == "running"
            _stop_button(
                job, "after_checkpoint", "Stop after checkpoint", ":material/flag:", key,
                because="" if keeps else "Only a stage that runs and keeps what it has done ends at a checkpoint",
            )  # fmt: skip
            _stop_button(job, "stop", "Stop now", ":material/stop_circle:", key)
            if job.state in ("stopping", "stale"):
                _stop_button(job, "kill", "Kill", ":material/dangerous:", key)
        if job.state in RESUMABLE:
            st.button(
                "Resume", icon=":material/resume:", key=f"{key}.resume", on_click=_resume, args=(job.job,),
                type="primary", **_allowed("launch", f"lark jobs resume {name}"),
            )  # fmt: skip
        if job.spec is not None:
            with st.popover("Run again with changes", icon=":material/content_copy:"):
                _clone_form(job, key)
        if not job.is_live:
            with st.popover("Remove", icon=":material/delete:"):
                st.caption("Its record and its log are removed for good. What it made stays.")
                st.button(
                    "Remove it", icon=":material/delete:", key=f"{key}.remove", on_click=_remove, args=(job.job,),
                    **_allowed("delete", f"lark jobs remove {name}"),
                )  # fmt: skip


def _stop_button(
    job: JobView, request: Request, label: str, icon: str, key: str, *, because: str = ""
) -> None:  # fmt: skip
    command = f"lark jobs stop{_FLAGS[request]} {shlex.quote(job.id)}"
    st.button(
        label, icon=icon, key=f"{key}.{request}", on_click=_stop, args=(job.job, request),
        **_allowed("cancel", command, because=because),
    )  # fmt: skip


def _clone_form(job: JobView, key: str) -> None:
    """Options that are given later hold: the command of the job, and these behind it."""
    st.caption("The same command as a new job; options given here hold over those of the command.")
    changes = st.text_input("Options to change", key=f"{key}.changes", placeholder="--lr 1e-5 --name another")
    st.code(shell_command(f"lark jobs clone {shlex.quote(job.id)} {changes}".strip()), language=None, wrap_lines=True)
    command = f"lark jobs clone {shlex.quote(job.id)}"
    st.button(
        "Start it", icon=":material/play_arrow:", key=f"{key}.clone", on_click=_clone, args=(job.job, key),
        **_allowed("launch", command),
    )  # fmt: skip


def _allowed(capability: Capability, command: str, *, because: str = "") -> dict[str, Any]:
    """A button's tooltip: the command that does the same, or why it cannot be pressed."""
    refusal = visitor().why_not(capability) or because
    return {"help": plain_markdown(refusal) or _same_as(command), "disabled": bool(refusal)}


def _same_as(command: str) -> str:
    """The command that does what the button does, as a tooltip (Markdown) shows it."""
    return f"`{shell_command(command)}`"


@reported
def _stop(job: Job, request: Request) -> None:
    actions.stop(job, request, timeout_s=_KILL_S if request == "kill" else 0.0)


@reported
def _resume(job: Job) -> None:
    if not view(job).is_live:  # a second click, or somebody else's, finds it under way
        actions.resume(job)


@reported
def _clone(job: Job, key: str) -> None:
    from lark_engine.cli.words import whole_command
    from lark_engine.store.workspace import Workspace

    try:
        words = shlex.split(st.session_state[f"{key}.changes"])  # as it is now, also when it was typed just before
    except ValueError as error:
        raise ConfigError(f"the options cannot be read ({error}); close the quotes") from None
    root = job.workspace_root
    whole_command([*job.spec().command, *words], Workspace(root))  # a mistake is said before a folder is made
    started = actions.clone(job, root, words, once=True)
    address.put(job=started.id)


@reported
def _remove(job: Job) -> None:
    actions.remove(job)
    address.put(job=None)
