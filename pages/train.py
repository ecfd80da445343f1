"""Train: is this the run I think it is, will it fit, how is it going?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from app import address, train_facts, widgets
from app.address import bound, one_of, read
from app.launch import launch_panel, newest_job
from app.loaders import load_snapshot
from app.runs_view import show_runs
from app.session import current_workspace
from app.shell import is_closed
from app.train_blocks import fact_grid
from app.train_empty import nothing_to_train
from app.train_form import ESSENTIAL, Chosen, choose
from app.train_preflight import find_preflight, preflight_controls, preflight_result
from app.train_yaml import yaml_editor
from lark_engine.config import TrainConfig
from lark_engine.figures import formats
from lark_engine.results.commands import train_command

VIEWS = {"new": "New run", "runs": "Runs"}

st.title("Train", anchor=False)
st.caption("Is this the run I think it is, will it fit, how is it going?")
st.html(Path(__file__).resolve().parents[1] / "app" / "static" / "train.css")
workspace = current_workspace()
snapshot = load_snapshot(workspace)


def options(chosen: Chosen) -> TrainConfig | None:
    """The form beside the same values as a recipe; None while something is not valid."""
    form = chosen.form
    values = form.values()
    left, right = st.columns([3, 2], gap="large")
    with left:
        with st.container(horizontal=True, vertical_alignment="center", key="train_form_head"):
            st.subheader("Options", anchor=False, width="content")
            changed = len({*values.changed, *(name for name in values.problems if name)})
            if changed:
                recipe = formats.plain_markdown(str(chosen.base["recipe"]))
                st.caption(f"{changed} changed from {recipe}", width="content")
                st.button("Back to the recipe", icon=":material/undo:", key="train.reset", on_click=form.reset)
        form.draw(values, first=ESSENTIAL)
    with right:
        yaml_editor(chosen, values)
    return values.config if isinstance(values.config, TrainConfig) else None


def will_it_fit(chosen: Chosen, config: TrainConfig, command: list[str]) -> str:
    """What the run takes, estimated or measured, and the preflight; why it cannot be started, if so."""
    planned = train_facts.planned_run(config, chosen, workspace)
    looked = find_preflight(workspace, command)
    st.subheader("Will it fit?", anchor=False)
    takes = (
        train_facts.measured(looked.record, config)
        if looked.record
        else train_facts.estimate(config, chosen, snapshot, workspace)
    )
    devices = train_facts.devices_fact(command)
    st.html(fact_grid(takes) + fact_grid([devices, train_facts.run_fact(planned)], is_wide=True))
    because = planned.cannot_start or (devices.detail if devices.is_bad else "")
    preflight_controls(workspace, command, looked, because=because)
    preflight_result(looked, config)
    if planned.finished is not None:
        st.button(
            "Trained already: show this run below", icon=":material/task_alt:", type="tertiary", key="train.finished",
            on_click=address.put, kwargs={"run": planned.finished.id, "view": "runs"},
        )  # fmt: skip
    return because


def new_run() -> None:
    """From the selection to the button that starts the training."""
    if is_closed("launch", "Start training", "lark train lora --train-data SELECTION --student STUDENT"):
        return
    chosen = choose(snapshot)
    config = options(chosen) if chosen is not None else None
    if chosen is not None and config is not None and chosen.student:
        command = train_command(config, chosen.selection.id, workspace, recipe=chosen.recipe)
        because = will_it_fit(chosen, config, command)
        st.subheader("Start", anchor=False)
        launch_panel(workspace, command, "Start training", key="train_launch", disabled_because=because)
        if (started := newest_job(workspace, command)) is not None:
            address.page_link("train", "Its curves", icon=":material/show_chart:", view="runs", run=started.id)
    elif chosen is not None:
        st.button("Start training", icon=":material/play_arrow:", type="primary", disabled=True, key="train_launch")
        what = "Choose a student." if not chosen.student else "A value above is not valid; it says why at its field."
        st.html(widgets.note(what))


# A link to a run shows the runs; the default changes with it, so what is chosen is always written.
codec = one_of(list(VIEWS), "runs" if "run" in st.query_params else "new")
codec = replace(codec, write=lambda value: [str(value)])
st.segmented_control(
    "View", list(VIEWS), format_func=VIEWS.__getitem__, required=True, label_visibility="collapsed",
    **bound("view", codec),
)  # fmt: skip
if read("view", codec) == "runs":
    show_runs(workspace)
elif snapshot.artifacts["selections"]:
    new_run()
else:
    nothing_to_train(snapshot)
