"""Saved views as Streamlit runs them: opened by an address, listed with what they show, renamed and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest
from train_workspace import make_selection

from app import address
from app.view_words import words_of
from benchmarks.scored_pool import make_scored_pool
from lark_engine import access
from lark_engine.access import ROLES, Role, Visitor
from lark_engine.sharing.views import PAGES, VIEWS, find_view, place_of, read_views, save_view
from lark_engine.store.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=alert(1)> **bold** :red[x]"
Open = Callable[..., AppTest]
PANEL = """
import sys; sys.path.insert(0, {root!r})
from app.boundary import show_refusal
import streamlit as st
from app import shell
from app.address import PAGES_DIR
from app.share_views import views_panel
st.navigation([st.Page(PAGES_DIR / f"{{name}}.py", default=name == "overview") for name in shell.PAGES])
show_refusal()
views_panel()
"""


@pytest.fixture
def open_at(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))

    return shown_page


@pytest.fixture
def as_role(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Role], None]]:
    """Somebody who was let in with a role, also in the threads that run the page."""
    before = access.resolve_with(access.visitor)
    access.resolve_with(before)
    yield lambda name, role: (
        access.resolve_with(lambda: Visitor(name=name, origin="test", may=ROLES[role], because=f"{name} may not.")),
        None,
    )[1]
    access.resolve_with(before)


def panel(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    page = AppTest.from_string(PANEL.format(root=str(ROOT)), default_timeout=30).run()
    assert not page.exception, page.exception
    return page


def kept(workspace: Workspace, at: str, name: str = "Mine", **more: Any) -> str:
    place = place_of(at)
    return save_view(workspace.root, name=name, page=place.page, params=place.params, **more).id


def test_an_address_with_a_view_becomes_what_the_view_says(workspace: Workspace, open_at: Open) -> None:
    scores = make_scored_pool(workspace, num_problems=8, num_candidates=5).scores.id
    saved = kept(workspace, f"/tune?B=2&exclude_teachers=QwQ-32B&energy=-nll&scores={scores}")
    page = open_at("tune", saved=saved, B="4", rule="all")
    assert dict(page.query_params) == {"B": "2", "exclude_teachers": "QwQ-32B", "energy": "-nll", "scores": scores}
    assert [toast.value for toast in page.toast] == ["Saved view: Mine"]
    assert page.multiselect(key="exclude_teachers").value == ["QwQ-32B"]
    # It is changed as any other address, and the view stays as it was saved.
    page.multiselect(key="exclude_teachers").set_value([]).run()
    assert "exclude_teachers" not in page.query_params and "saved" not in page.query_params
    assert ("exclude_teachers", "QwQ-32B") in find_view(workspace.root, saved).params


def test_a_view_of_another_page_opens_that_page(workspace: Workspace, open_at: Open) -> None:
    scores = make_scored_pool(workspace, num_problems=8, num_candidates=5).scores.id
    saved = kept(workspace, f"/explore?metric=brier&teacher=QwQ-32B&teacher=DeepSeek-R1&scores={scores}")
    page = open_at("overview", saved=saved)
    assert [title.value for title in page.title] == ["Explore"]
    assert page.query_params["teacher"] == ["QwQ-32B", "DeepSeek-R1"]
    assert "saved" not in page.query_params
    assert page.segmented_control(key="metric").value == "brier"


@pytest.mark.parametrize("asked", ["abcdefghijkl", "../../etc/passwd", HOSTILE, "", "damagedview"])
def test_a_view_that_is_not_here_is_said_in_one_sentence_over_the_page_as_it_is(
    workspace: Workspace, open_at: Open, asked: str
) -> None:
    make_scored_pool(workspace, num_problems=8, num_candidates=5)
    (workspace.root / VIEWS).mkdir()
    (workspace.root / VIEWS / "damagedview.json").write_text(f'{{"name": "{HOSTILE}"}}')
    page = open_at("tune", saved=asked, B="2")
    said = html_of(page)
    assert said.count("The saved view cannot be opened.") == 1
    assert ("is no view (" if asked == "damagedview" else "is in this workspace: it was removed") in said
    assert "Share lists the views that are here." in said
    assert "<img src=x" not in said
    assert [title.value for title in page.title] == ["Tune"]
    assert page.query_params["B"] == "2"


def test_the_pages_of_views_are_the_pages_of_the_dashboard() -> None:
    from app import shell

    assert tuple(shell.PAGES) == PAGES
    assert {path.stem for path in (ROOT / "pages").glob("*.py")} == set(PAGES)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("/", "as it comes"),
        ("/?metric=avg%402&B=4", "avg@2"),
        ("/tune?scores=x&B=8&exclude_teachers=a&correct_only=true", "χ² · B = 8 · 2 pool edits"),
        ("/tune?mode=sharpness&sharpness=0.5&against=B", "χ² · B = 3, s = 0.5 · against B"),
        ("/explore?metric=g_hat&quality=wrong_answer&teacher=a&teacher=b&plane=rho&top=3",
         "χ² · B = 3 · g hat · only a, b · only wrong answer · 2 more settings"),
        ("/trajectory?problem=7&candidate=4&versus=2", "χ² · B = 3 · problem 7 · candidate 4 · beside candidate 2"),
        ("/train?view=runs&run=lora-1&run_log=true", "runs · lora-1 · 1 more setting"),
        ("/evaluate?view=compare&a=x&b=y", "compare · A: x · B: y"),
        ("/jobs?job_state=failed", "failed"),
        ("/share", "as it comes"),
    ],
)  # fmt: skip
def test_what_a_view_shows_is_said_in_words(at: str, words: str) -> None:
    assert words_of(*place_of(at)) == words


def test_the_list_shows_opens_and_names_views_and_hostile_ones_are_text(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(workspace, "/tune?B=8", name=HOSTILE, note=f"{HOSTILE} note")
    (workspace.root / VIEWS / "cut.json").write_text(f'{{"name": "{HOSTILE}"}}')
    page = panel(workspace, monkeypatch)
    said = html_of(page)
    assert "&lt;img src=x onerror=alert(1)&gt; **bold** :red[x]</div><div>&lt;img" in said
    assert "<img" not in said
    assert "Tune · χ² · B = 8" in said
    assert "Left out as damaged.</strong><div>" in said and "cut.json: is no view" in said
    [link] = page.get("page_link")
    assert (link.proto.page, link.proto.query_string) == ("tune", "B=8")


def test_a_view_is_renamed_and_removed_and_then_the_list_says_how_to_save_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = kept(workspace, "/tune?B=8")
    page = panel(workspace, monkeypatch)
    assert f"lark views remove {saved}" in [code.value.partition(" ")[2] for code in page.code]
    page.text_input(key=f"view_name.{saved}").set_value("Theirs").run()
    page.button(key=f"rename_it.{saved}").click().run()
    assert "Theirs</div>" in html_of(page)
    page.text_input(key=f"view_name.{saved}").set_value(" ").run()
    page.button(key=f"rename_it.{saved}").click().run()
    assert "this cannot be saved as a view: name: String should have at least 1 character" in html_of(page)
    assert [view.name for view in read_views(workspace.root).views] == ["Theirs"]
    page.button(key=f"remove_it.{saved}").click().run()
    assert [subheader.value for subheader in page.subheader] == ["No view is saved yet"]
    assert page.code[0].value.endswith("lark views save 'ADDRESS' --name 'What there is to see'")


def test_whoever_may_not_change_a_view_reads_why_beside_the_disabled_button(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, as_role: Callable[[str, Role], None]
) -> None:
    as_role("ann", "editor")
    saved = kept(workspace, "/tune?B=8")

    def disabled() -> tuple[bool, bool]:
        page = panel(workspace, monkeypatch)
        assert html_of(page).count("may not.") == sum(
            page.button(key=f"{act}_it.{saved}").disabled for act in ("rename", "remove")
        )
        return page.button(key=f"rename_it.{saved}").disabled, page.button(key=f"remove_it.{saved}").disabled

    assert disabled() == (False, False)  # her own
    as_role("bob", "editor")
    assert disabled() == (False, True)
    as_role("bob", "viewer")
    assert disabled() == (True, True)


def test_many_views_are_paged(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(15):
        kept(workspace, "/jobs", name=f"view {number}")
    page = panel(workspace, monkeypatch)
    assert len(page.get("page_link")) == 12
    assert [caption.value for caption in page.caption][-1] == "Views 1 to 12 of 15, newest first"


def test_text_is_packed_into_an_address_and_what_is_no_such_text_is_not_read() -> None:
    codec = address.long_text(20_000)
    recipe = (ROOT / "lark_engine" / "recipes" / "train" / "lora.yaml").read_text()
    text = recipe + "# ü \u202e\n"
    assert codec.read(codec.write(text)) == text
    assert len(codec.write(text)[0]) < 2000
    assert codec.read(codec.write("")) == "" and codec.write(None) == []
    assert codec.read(codec.write("x" * 30_000)) == "x" * 20_000
    for wrong in ("", "lr: 1", "eJw", "\u202e", "A" * 50_000, codec.write(text)[0][:-9]):
        assert codec.read([wrong]) in (None, "")


def test_what_a_page_chose_by_itself_is_named_at_once(workspace: Workspace, open_at: Open) -> None:
    make_selection(workspace)
    pool = workspace.list("pools")[0].id
    page = open_at("score")
    assert (page.query_params["task"], page.query_params["score.pool"]) == ("score", pool)
    make_scored_pool(workspace, num_problems=5, num_candidates=4, seed=1)
    page.run()
    assert page.selectbox(key="score.pool").value == pool  # and not the newer one


def test_yaml_that_is_typed_and_not_used_is_in_the_address(workspace: Workspace, open_at: Open) -> None:
    make_selection(workspace)
    page = open_at("train")
    page.text_area(key="train_yaml.text").set_value("lr: 0.5  # ü\n").run()
    page.text_input(key="train.epochs").set_value("9").run()
    said = {name: page.query_params[name] for name in page.query_params}
    again = open_at("train", **said)
    assert again.text_area(key="train_yaml.text").value == "lr: 0.5  # ü\n"
    assert "lr: 0.5" not in " ".join(code.value for code in again.code)  # not used
    again.button(key="train_yaml.drop").click().run()
    assert "train_draft" not in again.query_params
    assert "epochs: 9.0" in again.text_area(key="train_yaml.text").value
    broken = open_at("train", train_draft="no such text")
    assert broken.text_area(key="train_yaml.text").value.startswith("method: lora")
