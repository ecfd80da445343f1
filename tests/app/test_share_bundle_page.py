"""The part Bundle of the page Share: what the address chooses is previewed, and the button runs the shown command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sharing"))

from shown_workspace import Shown, shown_workspace

from app.share_bundle import bundle_command
from lark_engine import access
from lark_engine.sharing.bundle import plan_bundle, write_bundle
from lark_engine.sharing.bundle_choice import BundleChoice
from lark_engine.sharing.unpack import open_bundle
from lark_engine.store.workspace import Workspace

ROUTER = Path(__file__).resolve().parents[2] / "app" / "router.py"
OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return shown_workspace(tmp_path_factory.mktemp("home") / "cache")


@pytest.fixture
def open_page(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    def run(root: Path | None = None, **query: Any) -> AppTest:
        monkeypatch.setenv("LARK_HOME", str(root or shown.workspace.root))
        return shown_page("share", **{"share": "bundle", **query})

    return run


def commands(page: AppTest) -> list[str]:
    return [element.value for element in page.code]


def test_by_default_no_text_goes_out_and_the_command_says_so(open_page: OpenPage, shown: Shown) -> None:
    page = open_page()

    assert f"lark bundle --scores {shown.scores.id} --texts none --workspace {shown.workspace.root}" in commands(page)
    said = html_of(page)
    assert "1 pool, 1 set of scores, 1 selection, 1 checkpoint, 2 evaluations, 2 gradings" in said
    assert "no texts: problems, responses and answers stay here" in said
    assert "/data/x/lora.yaml" in said
    assert "…/lora.yaml" in said
    assert not page.button(key="bundle.make").disabled


def test_the_address_is_the_choice(open_page: OpenPage, shown: Shown) -> None:
    page = open_page(
        bundle_texts="chosen", bundle_problems="quiz:p0\nquiz:p1", bundle_up_to="results", bundle_as_is="true",
        bundle_title="For Dora", bundle_selections=shown.selection.id, bundle_tokens="true",
    )  # fmt: skip

    assert (
        f"lark bundle --scores {shown.scores.id} --selection {shown.selection.id} --texts chosen --problem quiz:p0 "
        f"--problem quiz:p1 --token-stats --no-redact --title 'For Dora' --workspace {shown.workspace.root}"
    ) in commands(page)
    said = html_of(page)
    assert "the texts of 2 chosen problems" in said
    assert "paths, hosts and user names go out as they are" in said


def test_a_problem_that_is_not_there_is_said_and_nothing_can_be_made(open_page: OpenPage) -> None:
    page = open_page(bundle_texts="chosen", bundle_problems="<b>absent</b>")

    assert "neither the pool nor a benchmark has this problem" in html_of(page)
    assert "<b>absent" not in html_of(page)
    assert page.button(key="bundle.make").disabled


def test_the_bundles_that_were_made_are_listed_with_their_checksum(open_page: OpenPage, tmp_path: Path) -> None:
    made = shown_workspace(tmp_path / "cache")
    plan = plan_bundle(BundleChoice(title="<i>Ours</i>"), made.workspace)
    bundle = write_bundle(plan, made.workspace.root / "shared" / "ours.zip")
    (made.workspace.root / "shared" / "report.zip").write_bytes(b"no bundle")

    page = open_page(made.workspace.root)

    said = html_of(page)
    assert bundle.sha256 in said
    assert 'href="/lark/shared/ours.zip"' in said
    assert "&lt;i&gt;Ours&lt;/i&gt;" in said
    assert "<i>Ours" not in said
    assert "report.zip" not in said
    page.button(key="bundle.remove.ours.zip.it").click().run()
    assert not (made.workspace.root / "shared" / "ours.zip").exists()


def test_a_viewer_sees_what_would_go_out_and_neither_paths_nor_a_button_that_works(
    open_page: OpenPage,
) -> None:
    viewer = access.Visitor(name="v", origin="", may=access.ROLES["viewer"], because="This server is read-only.")
    before = access.resolve_with(lambda: viewer)
    try:
        page = open_page()
    finally:
        access.resolve_with(before)

    assert page.button(key="bundle.make").disabled
    assert "This server is read-only." in html_of(page)
    assert "/data/x/lora.yaml" not in html_of(page)


def test_in_a_bundle_the_page_says_whose_it_is(open_page: OpenPage, shown: Shown, tmp_path: Path) -> None:
    plan = plan_bundle(BundleChoice(title="Ours"), shown.workspace)
    workspace = open_bundle(write_bundle(plan, tmp_path / "ours.zip").path, tmp_path / "bundles")

    said = html_of(open_page(workspace.root))

    assert ">Ours</span>" in said
    assert "without texts · redacted · read-only" in said


def test_an_empty_workspace_says_what_to_do_first(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(tmp_path / "new")
    assert "A bundle begins with scores" in html_of(page)
    assert any("lark demo" in command for command in commands(page))


def test_the_command_says_each_choice_once() -> None:
    choice = BundleChoice(scores="s", selections=("a", "b"), up_to="selections", texts="all", token_stats=True)
    assert bundle_command(choice, Workspace("/w")) == [
        "lark", "bundle", "--scores", "s", "--selection", "a", "--selection", "b", "--up-to", "selections",
        "--texts", "all", "--token-stats", "--workspace", "/w",
    ]  # fmt: skip


def test_a_response_that_stayed_at_home_is_one_sentence(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_bundle(BundleChoice(), shown.workspace)
    workspace = open_bundle(write_bundle(plan, tmp_path / "bare.zip").path, tmp_path / "bundles")
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    said = html_of(shown_page("trajectory"))
    assert "(texts are not part of this bundle)" in said
    assert "boxed{withheld}" not in said
    assert " characters" not in said
