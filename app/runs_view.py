"""The training runs on the page Train: one of them live, others laid over it, and all of them as a table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st

from app import address, run_words, widgets
from app.address import Codec, bound, flag, many_of, one_of, page_link
from app.boundary import guarded
from app.components.board import board
from app.job_actions import action_buttons
from app.runs import load_curves, load_runs
from app.runs_blocks import heading, saved_points
from app.runs_table import runs_table
from app.session import shell_command, shown_line
from lark_engine.access import visitor
from lark_engine.figures import charts_runs, formats
from lark_engine.figures.charts_runs import MOST_OVERLAID, Overlaid, View
from lark_engine.figures.safe_text import one_line
from lark_engine.jobs.folder import JOBS_DIR
from lark_engine.store.workspace import Workspace
from lark_engine.training.curves import AXES, Axis
from lark_engine.training.runs import Run, find_run, refreshed, resume_command, resume_points

_LIVE_S = 2.0
_FOLLOW_S = 4.0
_AUTO = "auto"
_SPANS = {_AUTO: "auto", **{str(span): "none" if span == 1 else str(span) for span in charts_runs.SPANS}}
_AXIS, _SPAN = one_of(AXES, "step"), one_of(list(_SPANS), _AUTO)
_STYLE = Path(__file__).parent / "static" / "runs.css"


def show_runs(workspace: Workspace) -> None:
    """Everything about the runs that there are; a sentence and a command where there are none."""
    st.html(_STYLE)
    seen = _signature(workspace)
    runs = load_runs(workspace)
    if not runs:
        _nothing()
    else:
        left, right = st.columns(2, gap="medium")
        with left:
            chosen = _choose(runs)
        with right:
            others = _choose_others(runs, chosen)
        with st.container(border=True, key="runs_shown"):
            _controls()
            _panel(workspace, chosen, others)
            _what_is_saved(workspace, chosen)
            _actions(workspace, chosen)
        runs_table(workspace, is_live=any(run.is_live for run in runs))
    _follow(workspace, seen)


def _nothing() -> None:
    with st.container(border=True, key="runs_empty"):
        st.html(
            widgets.note(
                "Nothing is trained yet. A run that is started as a new one, or by this command, is followed here: its "
                "curves while it trains, its checkpoints, and what can be done with it."
            )
        )
        st.code(shell_command("lark train lora --train-data SELECTION --student STUDENT"), language=None)
        st.button("New run", icon=":material/add:", key="runs_new", on_click=address.put, kwargs={"view": "new"})


def _choose(runs: Sequence[Run]) -> Run:
    """The run that the address names, by its checkpoint or its job; else the newest that goes on, else the newest."""
    newest = next((run for run in runs if run.is_live), runs[0])
    labels, now_s = run_words.labels(runs), time.time()

    def read(said: list[str]) -> str | None:
        found = find_run(runs, said[-1])
        return found.id if found else None

    codec = Codec(read=read, write=lambda value: [str(value)], default=newest.id)
    options = {run.id: one_line(run_words.option(run, labels[run.id], now_s), 90) for run in runs}
    asked = st.query_params.get("run")
    if asked is not None and find_run(runs, asked) is None:
        st.html(widgets.note(f"The address names the run {asked}, which is not here; this is the newest."))
    if asked is None:
        st.query_params["run"] = newest.id  # at once, so that it stays this one when a newer one comes
    st.selectbox("Run", list(options), format_func=options.__getitem__, **bound("run", codec))
    return find_run(runs, str(address.read("run", codec))) or newest


def _choose_others(runs: Sequence[Run], chosen: Run) -> list[Run]:
    """The runs that are laid over the chosen one."""
    labels, now_s = run_words.labels(runs), time.time()
    others = {run.id: run for run in runs if run.id != chosen.id and run.done}
    known = many_of(list(others))
    # The widget refuses more than it has room for.
    codec = replace(known, read=lambda said: known.read(said)[:MOST_OVERLAID])
    st.multiselect(
        "Lay over", list(others), max_selections=MOST_OVERLAID, placeholder="other runs",
        format_func=lambda name: one_line(run_words.option(others[name], labels[name], now_s), 60),
        **bound("overlay", codec),
    )  # fmt: skip
    return [others[name] for name in address.read("overlay", codec)]


def _controls() -> None:
    """How the curves are drawn."""
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="runs_controls"):
        st.segmented_control(
            "By", AXES, format_func=str.capitalize, required=True, **bound("run_by", _AXIS),
            help="Along the axis: optimizer steps, tokens trained on, or hours of training without pauses",
        )  # fmt: skip
        st.segmented_control(
            "Smoothed over", list(_SPANS), format_func=_SPANS.__getitem__, required=True, **bound("run_span", _SPAN),
            help="Span of the exponential moving average, in logged steps; auto: at most a tenth of the curve",
        )  # fmt: skip
        st.toggle("Loss on a log scale", **bound("run_log", flag()))


def _panel(workspace: Workspace, chosen: Run, others: Sequence[Run]) -> None:
    """The run as it goes: polled while it lives; the page runs again when it ends or becomes something else."""

    @st.fragment(run_every=_LIVE_S if chosen.is_live else None)
    @guarded
    def panel() -> None:
        run = refreshed(chosen, workspace) if chosen.is_live else chosen
        if run is None or (run.state, run.is_live, run.id) != (chosen.state, chosen.is_live, chosen.id):
            st.rerun()
        now_s = time.time()
        st.html(heading(run, run_words.facts(run, now_s)))
        if run.job is not None and run.has_own_job and run.state not in ("finished", "removed"):
            st.html(widgets.job(run.job))
        view = _view(run, others)
        shown = [run_words.figures(run, view, now_s)]
        board([*shown, *(charts_runs.cards(view) if view.curves.num_events else [])], key="run_board")
        if not view.curves.num_events:
            st.html(widgets.note("No step is logged yet." if run.is_live else "Its log holds no step."))

    panel()


def _view(run: Run, others: Sequence[Run]) -> View:
    """What the charts show, as the address says it."""
    axis: Axis = address.read("run_by", _AXIS)
    curves = load_curves(run)
    if not curves.has(axis):
        if curves.num_events:
            st.html(widgets.note(f"The log of this run does not say its {axis}: shown by step."))
        axis = "step"
    span = address.read("run_span", _SPAN)
    names = run_words.labels([run, *others])
    view = View(
        name=names[run.id], curves=curves, axis=axis, is_log=address.read("run_log", flag()),
        overlaid=[Overlaid(names[other.id], load_curves(other)) for other in others],
        span=charts_runs.auto_span(len(curves.curve("loss").x)) if span == _AUTO else int(span),
        ends_at=run_words.ends_at(run, axis, curves),
    )  # fmt: skip
    if missing := [other.name for other in view.overlaid if not other.curves.has(axis)]:
        st.html(widgets.note(f"Not drawn, since their logs do not say their {axis}: {', '.join(missing)}."))
    return view


def _what_is_saved(workspace: Workspace, run: Run) -> None:
    """The checkpoints of the run on the disk, and what is made of the finished one."""
    if run.artifact is not None:
        size = formats.size(sum(run.artifact.manifest.files.values()))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(widgets.note(f"Checkpoint {run.artifact.id} · {size}"), width="content")
            page_link("evaluate", "Evaluate it", icon=":material/leaderboard:", view="run", eval_model=run.artifact.id)
    elif run.folder is not None:

        @st.fragment(run_every=5 * _LIVE_S if run.is_live else None)
        @guarded
        def points() -> None:
            st.html(saved_points(resume_points(run), time.time(), is_live=run.is_live))

        points()


def _actions(workspace: Workspace, run: Run) -> None:
    """What can be done with the run: with its job where it has one, else the command that goes on with it."""
    if run.job is not None and run.has_own_job:
        action_buttons(run.job, key="run_job")
    elif run.artifact is None and run.state != "removed" and not run.is_live:
        command = resume_command(run, workspace)
        st.html(widgets.note("No job of this run is left. " + (
            "This command goes on with it:" if command else "Run the same command again: it goes on from what is saved."
        )))  # fmt: skip
        if command:
            st.code(shown_line(command), language=None, wrap_lines=True)
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        if run.config is not None:
            from app.train_form import params_of_run

            params, refusal = params_of_run(run.config, run.selection or None), visitor().why_not("launch")
            st.button(
                "Duplicate in the form", icon=":material/file_copy:", key="run_duplicate", on_click=_duplicate,
                args=(params,), disabled=bool(refusal),
                help=formats.plain_markdown(refusal)
                or "Fills the form with the options of this run; nothing is started",
            )  # fmt: skip
        if run.job is not None:
            page_link("jobs", f"Its job: {run.job.id}", icon=":material/list_alt:", job=run.job.id)


def _duplicate(params: dict[str, list[str] | str | None]) -> None:
    address.put(**params, view=None, run=None)
    st.toast("The form has the options of this run; nothing is started.", icon=":material/file_copy:")


def _follow(workspace: Workspace, seen: object) -> None:
    """Run the page again when a job or a run appears, ends or goes, whoever did it."""

    @st.fragment(run_every=_FOLLOW_S)
    @guarded
    def look() -> None:
        if _signature(workspace) != seen:
            st.rerun()

    look()


def _signature(workspace: Workspace) -> tuple[tuple[str, int], ...]:
    """A value that changes with the records of the jobs (verdicts come by renaming) and with the runs' folders."""
    found = []
    for folder in (JOBS_DIR, "checkpoints"):
        try:
            entries = list(os.scandir(workspace.root / folder))
        except OSError:
            continue
        for entry in entries:
            if not entry.name.startswith("."):
                try:
                    found.append((entry.path, entry.stat().st_mtime_ns if folder == JOBS_DIR else 0))
                except OSError:
                    continue
    return tuple(sorted(found))
