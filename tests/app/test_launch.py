"""The button runs exactly the command that the page shows, whatever was typed the moment before."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from lark_engine.jobs.folder import all_jobs
from lark_engine.jobs.status import list_jobs
from lark_engine.store.workspace import Workspace
from tests.jobs.kit import wait_for_state

pytestmark = pytest.mark.slow


def page() -> None:
    """A source to type, and the button that imports it."""
    import streamlit as st

    from app.address import bound, words
    from app.launch import launch_panel
    from app.session import current_workspace

    workspace = current_workspace()
    st.text_input("Source", **bound("source", words()))
    source = st.query_params.get("source", "/nowhere/first.jsonl")
    command = ["lark", "pool", "import", source, "--workspace", str(workspace.root)]
    launch_panel(workspace, command, "Import", key="start")


def test_a_value_that_is_typed_right_before_the_click_is_in_the_command_that_runs(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    app = AppTest.from_function(page, default_timeout=60).run()
    app.text_input(key="source").set_value("/nowhere/typed.jsonl")
    app.button(key="start").click().run()
    assert not app.exception
    (job,) = all_jobs(workspace.root)
    assert job.spec().command[:4] == ("lark", "pool", "import", "/nowhere/typed.jsonl")
    assert "/nowhere/typed.jsonl" in app.code[0].value
    app.run()
    wait_for_state(job, "failed")
    assert len(list_jobs(workspace.root)) == 1
