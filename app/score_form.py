"""Scoring: which pool, which students, with which options; what it takes; the command; and where the scores are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from pyarrow import ArrowInvalid

from app import pool_blocks, widgets
from app.address import Codec, bound, name_at_once, one_of, page_link, read
from app.config_form import ConfigForm
from app.launch import job_panel, launch_panel, newest_job
from app.loaders import Snapshot
from app.pool_form import made_by
from app.score_estimate import Chosen, estimate, look_at_student
from lark_engine.config import ScoreConfig
from lark_engine.errors import LarkError
from lark_engine.figures.safe_text import one_line
from lark_engine.jobs.status import JobView, list_jobs
from lark_engine.results.commands import score_command
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.cost import PEAK_FLOPS

MEASURED = "Measured here"
_MOST_STUDENTS = 8
_MOST_CHARS = 500
_ANY = "student"  # stands in the form for the students, which the page asks for by itself


def score_pool(workspace: Workspace, snapshot: Snapshot) -> list[list[str]]:
    """The choice of pool and students, the options, the estimate, and the command with its button.

    Returns the commands whose jobs it shows.
    """
    pools = {pool.id: pool for pool in snapshot.artifacts["pools"]}
    if not pools:
        st.html(widgets.note("There is no pool to score yet: add one first."))
        return []
    left, right = st.columns([2, 3], gap="medium")
    with left:
        codec = one_of(list(pools), next(iter(pools)))
        name_at_once(**{"score.pool": codec.default})
        st.selectbox("Pool", list(pools), **bound("score.pool", codec))
        pool = pools[str(read("score.pool", codec))]
    with right:
        students = _students(workspace, snapshot)
    form = ConfigForm(config=ScoreConfig, prefix="score", base={}, fixed={"student": _ANY})
    values = form.values()
    form.draw(values, first=("max_length", "brier", "device"))
    for student in students:
        if student.problem:
            st.html(widgets.problem(f"{student.label} cannot be used.", student.problem))
    config, usable = values.config, [student for student in students if not student.problem]
    if not isinstance(config, ScoreConfig) or not usable:
        if not students:
            st.html(widgets.note("Choose a student above: what scoring takes is shown here before anything runs."))
        return []
    return _estimate_and_start(config, usable, pool, workspace, snapshot)


def _students(workspace: Workspace, snapshot: Snapshot) -> list[Chosen]:
    """Students of the workspace and of earlier scores, and whatever is typed."""
    own = [artifact.id for artifact in snapshot.artifacts["students"]]
    origins = [str(scores.manifest.config.get("student") or "") for scores in snapshot.artifacts["scores"]]
    known = list(dict.fromkeys([*own, *filter(None, origins)]))
    there = [name for name in known if name in own or Path(name).is_dir()]
    codec = _names(there[:1])
    names = read("score.student", codec)
    name_at_once(**{"score.student": names})
    bindings = bound("score.student", codec)
    st.multiselect(
        "Student", list(dict.fromkeys([*known, *names])), accept_new_options=True, max_selections=_MOST_STUDENTS,
        format_func=lambda name: one_line(name, 80), placeholder="choose, or type a folder or hub id",
        help="A student of this workspace, the folder of a Hugging Face model on this machine, or a hub id such as "
        "`owner/name`. Several are scored one by one.", **bindings,
    )  # fmt: skip
    return [look_at_student(name, workspace) for name in names]


def _names(default: list[str]) -> Codec:
    def read_names(said: list[str]) -> list[str]:
        names = [word.strip()[:_MOST_CHARS] for word in said]
        return list(dict.fromkeys(filter(None, names)))[:_MOST_STUDENTS]

    def write(value: Sequence[str]) -> list[str]:
        return [] if list(value) == default else list(map(str, value)) or [""]

    return Codec(read=read_names, write=write, default=default)


def _estimate_and_start(
    config: ScoreConfig, students: Sequence[Chosen], pool: Artifact, workspace: Workspace, snapshot: Snapshot
) -> list[list[str]]:
    st.subheader("What it takes", anchor=False)
    speeds = one_of([MEASURED, *PEAK_FLOPS], MEASURED)
    speed = str(read("score.speed", speeds))
    try:
        found = [estimate(config, student, pool, snapshot, workspace, speed) for student in students]
    except (LarkError, OSError, ArrowInvalid) as error:
        # What it takes is not known then; scoring says by itself what is wrong with the files.
        st.html(widgets.problem("This cannot be estimated.", str(error)))
        command = score_command(config, [student.name for student in students], pool, workspace)
        launch_panel(workspace, command, "Score", key="score_start")
        return [command]
    st.html(pool_blocks.estimate_table(found))
    st.selectbox(
        "Speed", [MEASURED, *PEAK_FLOPS], width=220, **bound("score.speed", speeds),
        help="What the time rests on: earlier scores on this machine, or a data sheet. Loading the student "
        "comes on top.",
    )  # fmt: skip
    for one in found:
        if one.done is not None:
            _explore(f"{one.label} has scored this pool with these very options: {one.done.id}", one.done)
    todo = [student.name for student, e in zip(students, found, strict=True) if e.done is None]
    at_work = [job for job in list_jobs(workspace.root) if _is_at(job, config, pool, workspace)]
    for job in at_work:  # of several students, it may be at the second one
        assert job.spec is not None
        job_panel(workspace, job.spec.command)
        todo = [name for name in todo if name not in job.spec.command]
    if not todo:
        return [list(job.spec.command) for job in at_work if job.spec is not None]
    command = score_command(config, todo, pool, workspace)
    launch_panel(
        workspace, command, "Score", key="score_start", help="One forward pass of the student over every candidate"
    )
    # Of a student from the hub it is not known before whether it has scored.
    for scores in made_by(newest_job(workspace, command), "scores", snapshot):
        _explore(f"Scored: {scores.id}", scores)
    return [command]


def _is_at(job: JobView, config: ScoreConfig, pool: Artifact, workspace: Workspace) -> bool:
    """Whether a job that lives scores this pool with these options, under whichever students."""
    if not job.is_live or job.spec is None or job.spec.stage != "score":
        return False
    words = list(job.spec.command)
    students = [value for flag, value in itertools.pairwise(words) if flag == "--student"]
    return len(students) > 1 and words == score_command(config, students, pool, workspace)


def _explore(sentence: str, scores: Artifact) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"scored.{scores.id}"):
        st.html(widgets.note(sentence), width="content")
        page_link("explore", "Explore", icon=":material/scatter_plot:", scores=scores.id)
