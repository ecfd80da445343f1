"""The part Report of Share: the address says what goes in, the page shows what goes out and the very command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shown_page import calm, html_of
from streamlit.testing.v1 import AppTest

from lark_engine import access
from lark_engine.access import Visitor
from lark_engine.config import ReportConfig
from lark_engine.sharing.report import make_report, write_report
from lark_engine.sharing.report_material import Material
from lark_engine.store.workspace import Workspace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sharing"))

from reported import reported_workspace
from shown_workspace import Shown

Show = Callable[..., AppTest]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return reported_workspace(tmp_path_factory.mktemp("shown") / "w")


def panel() -> None:
    from app.share_report import report_panel

    report_panel()


@pytest.fixture
def show(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> Show:
    monkeypatch.setenv("LARK_HOME", str(shown.workspace.root))

    def run(**query: Any) -> AppTest:
        page = AppTest.from_function(panel, default_timeout=60)
        for key, value in query.items():
            page.query_params[key] = value
        return calm(page.run())

    return run


def test_the_address_is_the_command(show: Show, shown: Shown) -> None:
    root = shown.workspace.root
    assert [code.value for code in show().code] == [f"lark report --workspace {root}"]
    page = show(
        r_title="For Ada", r_block=["pool", "selection"], r_a="B=3", r_b=shown.selection.id, r_texts="chosen",
        r_problem=["0", "1"], r_examples="4", r_keep="true", r_format="markdown",
    )  # fmt: skip
    assert [code.value for code in page.code] == [
        "lark report --title 'For Ada' --block pool --block selection --selection-a B=3 --selection-b "
        f"{shown.selection.id} --texts chosen --problem 0 --problem 1 "
        f"--num-problems 4 --no-redact --format markdown --workspace {root}"
    ]


def test_what_goes_out_is_what_the_engine_says(show: Show, shown: Shown) -> None:
    preview = make_report(Material(shown.workspace, ReportConfig(texts="all", num_problems=2))).preview
    html = html_of(show(r_texts="all", r_examples="2"))
    assert f"{preview.num_texts} texts of problems" in html
    assert html.count("<td>ĝ by teacher</td><td>5</td>") == 1
    assert preview.target.name in html


def test_without_redaction_the_page_warns(show: Show) -> None:
    assert "paths, hosts and users stand in the file as they are" in html_of(show(r_keep="true"))


def test_a_choice_that_cannot_be_is_said(show: Show) -> None:
    assert "texts chosen needs problem" in html_of(show(r_texts="chosen"))
    assert "the pool has no problem &#x27;absent&#x27;" in html_of(show(r_problem=["absent"]))
    assert "no selection &#x27;absent&#x27;" in html_of(show(r_a="absent"))


def test_a_viewer_sees_what_goes_out_but_neither_makes_nor_removes_nor_learns_what_is_hidden(
    show: Show, shown: Shown
) -> None:
    write_report(make_report(Material(shown.workspace, ReportConfig(block=("versions",)))), shown.workspace)
    root = str(shown.workspace.root)
    assert f"<td>{root}</td><td>&lt;workspace&gt;</td>" in html_of(show())
    viewer = Visitor(name="v", origin="", may=frozenset(("explore", "tune")), because="This server is read-only.")
    before = access.resolve_with(lambda: viewer)
    try:
        page = show()
    finally:
        access.resolve_with(before)
    html = html_of(page)
    assert root not in html and "&lt;workspace&gt;" in html
    assert page.button(key="make_report").disabled
    [remove] = [button for button in page.button if (button.key or "").startswith("reports.remove.")]
    assert remove.disabled and "This server is read-only." in html


def test_reports_are_listed_with_their_links_and_removed(show: Show, shown: Shown) -> None:
    path = write_report(make_report(Material(shown.workspace, ReportConfig(title="Gone soon"))), shown.workspace)
    page = show()
    assert '<a href="/lark/shared/gone-soon.html" download>gone-soon.html</a>' in html_of(page)
    page.button(key="reports.remove.gone-soon.html.it").click().run()
    assert not path.exists()
    assert "gone-soon.html</a>" not in html_of(page)


def test_a_workspace_with_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARK_HOME", str(Workspace(tmp_path / "empty").root))
    page = AppTest.from_function(panel, default_timeout=60).run()
    assert not page.exception
    assert "No report is made yet." in html_of(page)


def test_what_is_pinned_on_tune_is_what_the_report_shows(show: Show) -> None:
    page = show(pin_a="B=2", pin_b="B=4&mode=sharpness&sharpness=0.5")
    assert (page.query_params["r_a"], page.query_params["r_b"]) == ("B=2", "B=4&mode=sharpness&sharpness=0.5")
    assert any("--selection-a B=2 --selection-b 'B=4&mode=sharpness&sharpness=0.5'" in code.value for code in page.code)
    page.selectbox(key="r_a").select("").run()
    assert page.query_params["r_a"] == ""
    [command] = [code.value for code in page.code if code.value.startswith("lark report")]
    assert "--selection" not in command
