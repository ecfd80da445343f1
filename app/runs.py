"""Training runs and their curves, read anew at every run of the page, and of what is known already only what is new."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.loaders import load_snapshot
from lark_engine.jobs.status import list_jobs
from lark_engine.store.workspace import Workspace
from lark_engine.training.curves import Curves, RunCurves
from lark_engine.training.runs import Run, training_runs


def load_runs(workspace: Workspace) -> list[Run]:
    """All runs as of now, newest first."""
    checkpoints = load_snapshot(workspace).artifacts["checkpoints"]
    return training_runs(workspace, checkpoints=checkpoints, jobs=list_jobs(workspace.root))


def load_curves(run: Run) -> Curves:
    """The curves of a run as of now; only what is new is read."""
    return _curves_of(str(run.events_path or "")).read()


@st.cache_resource(max_entries=12, show_spinner=False)
def _curves_of(path: str) -> RunCurves:
    return RunCurves(Path(path))
