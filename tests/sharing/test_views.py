"""Saved views: kept, found, renamed, removed, by whom; and files that are none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lark_engine import access
from lark_engine.access import ROLES, Role, Visitor
from lark_engine.errors import AccessError, ConfigError, StoreError
from lark_engine.sharing import views
from lark_engine.sharing.views import (
    VIEWS,
    Place,
    SavedView,
    find_view,
    names_shown,
    place_of,
    read_views,
    remove_view,
    rename_view,
    save_view,
)
from lark_engine.store.workspace import Workspace
from tests.cli.command_line import refuses, succeeds
from tests.store.aged import graded_chain, names

PARAMS = (("B", "8"), ("exclude_teachers", "Qw\u202eQ"), ("scores", "demo@tiny-0123456789ab"))


@pytest.fixture
def root(workspace: Workspace) -> Path:
    return workspace.root


@pytest.fixture
def become() -> Iterator[Any]:
    """Have somebody else act in this process."""
    before = access.resolve_with(access.visitor)
    access.resolve_with(before)

    def be(name: str, role: Role) -> None:
        access.resolve_with(lambda: Visitor(name=name, origin="192.0.2.7", may=ROLES[role], because=f"{name} may not."))

    yield be
    access.resolve_with(before)


def kept(root: Path, name: str = "Eight of each", page: str = "tune", **more: Any) -> SavedView:
    return save_view(root, name=name, page=page, params=more.pop("params", PARAMS), **more)


def audited(root: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in (root / access.AUDIT).read_text().splitlines()]
    return [(row["who"], row["what"], row["outcome"].partition(":")[0]) for row in rows]


def test_a_view_is_found_again_as_it_was_saved(root: Path, become: Any) -> None:
    become("ann", "editor")
    saved = kept(root, "  Eight \n of each ", note=" look at the knee ")
    assert (saved.name, saved.note, saved.author, saved.page) == ("Eight of each", "look at the knee", "ann", "tune")
    assert saved.params == PARAMS
    assert len(saved.id) == 12 and saved.id.isalpha() and saved.id.islower()
    assert saved.link == f"tune?saved={saved.id}"
    assert find_view(root, saved.id) == saved
    assert read_views(root) == ([saved], [])
    assert audited(root) == [("ann", "view.save", "done")]


def test_the_newest_view_is_first_and_a_new_name_keeps_the_link(root: Path) -> None:
    first, second = kept(root, "first"), kept(root, "second", page="overview", params=())
    path = root / VIEWS / f"{first.id}.json"
    path.write_text(path.read_text().replace(str(first.created_at.year), "2001", 1))
    assert [view.name for view in read_views(root).views] == ["second", "first"]
    assert second.link == f"?saved={second.id}"
    assert rename_view(root, first.id, "third").id == first.id
    assert [view.name for view in read_views(root).views] == ["second", "third"]
    remove_view(root, second.id)
    assert [view.name for view in read_views(root).views] == ["third"]
    with pytest.raises(StoreError, match="it was removed, or its link is of another one"):
        find_view(root, second.id)


def test_an_address_is_read_with_and_without_its_host_and_keeps_values_in_order(root: Path) -> None:
    assert place_of("http://127.0.0.1:8501/explore?beats=b&beats=a&A=&scores=x%40y-1") == Place(
        "explore", (("A", ""), ("beats", "b"), ("beats", "a"), ("scores", "x@y-1"))
    )
    assert place_of("https://studio.example/lark/tune/?B=8#top") == Place("tune", (("B", "8"),))
    assert place_of("/?metric=avg%402") == place_of("?metric=avg%402") == Place("overview", (("metric", "avg@2"),))
    assert place_of(place_of("/tune?b=%E2%80%AE%0A").address) == Place("tune", (("b", "\u202e\n"),))
    with pytest.raises(ConfigError, match="'etc' is no page; pages are overview, score"):
        place_of("http://127.0.0.1/etc?B=8")
    with pytest.raises(ConfigError, match="cannot be read as an address"):
        place_of("http://[x/tune")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": " "}, "name: String should have at least 1 character"),
        ({"name": "x" * 121}, "name: String should have at most 120 characters"),
        ({"name": "\ud800"}, "name: Input should be a valid string"),
        ({"note": "x" * 1001}, "note: String should have at most 1000 characters"),
        ({"page": "../../etc"}, "page: Input should be 'overview', "),
        ({"params": [("saved", "abcdefgh")]}, "the parameter saved is no part of a view"),
        ({"params": [("token", "secret")]}, "the parameter token is no part of a view"),
        ({"params": [("a b", "1")]}, r"params\.0\.0: String should match pattern"),
        ({"params": [("B", "\ud800")]}, r"params\.0\.1: Input should be a valid string"),
        ({"params": [("B", "1")] * 301}, "params: Tuple should have at most 300 items"),
        ({"params": [("B", "ü" * 6000)]}, "its address is longer than 32,000 letters"),
        ({"params": [("B", "\x01" * 10_650)]}, "it takes more than 64,000 bytes"),
    ],
)
def test_what_cannot_be_a_view_is_refused_and_leaves_no_file(root: Path, wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=f"^this cannot be saved as a view: {why}"):
        kept(root, **wrong)
    assert read_views(root) == ([], [])
    assert list((root / VIEWS).glob("*")) in ([], [root / VIEWS / ".lock"])


def test_no_id_reaches_a_file_outside_of_the_views(root: Path) -> None:
    saved = kept(root)
    (root / "abcdefgh.json").write_text((root / VIEWS / f"{saved.id}.json").read_text())
    for said in ("../abcdefgh", "..", "", ".lock", saved.id.upper(), f"{saved.id}\n", f"{saved.id}.json", "a/../b"):
        for act in (find_view, remove_view, views.capability_to_remove):
            with pytest.raises(StoreError, match="no view"):
                act(root, said)
        with pytest.raises(StoreError, match="no view"):
            rename_view(root, said, "x")
    assert (root / "abcdefgh.json").exists() and find_view(root, saved.id) == saved


def damaged(root: Path, saved: SavedView) -> None:
    """All kinds of files that are no view, beside one that is."""
    folder = root / VIEWS
    good = json.loads((folder / f"{saved.id}.json").read_text())
    for name, content in {
        "cut": b'{"id": "cut', "list": b"[]", "deep": b"[" * 60_000, "binary": b"\x00\xff\xfe", "empty": b"",
        "large": b" " * 64_001,
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_bytes(content)
    for name, change in {
        "badpageaa": {"page": "https://evil.example"}, "badparams": {"params": [["__proto__", "1"]]},
        "badtokens": {"params": [["token", "x"]]}, "badextras": {"run": "rm -rf"}, "baddatesa": {"created_at": "soon"},
        "badtypesa": {"name": 7}, "badtriple": {"params": [["a", "b", "c"]]}, "badothers": {"id": "someother"},
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps({**good, "id": name, **change}))
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "link.json").symlink_to("/dev/zero")
    (folder / "gone.json").symlink_to(folder / "nowhere")
    (folder / ".hidden.json").write_text("{")
    (folder / "notes.txt").write_text("mine")


def test_files_that_are_no_view_are_named_and_the_others_are_read(root: Path) -> None:
    saved = kept(root)
    damaged(root, saved)
    found = read_views(root)
    assert found.views == [saved]
    assert [Path(problem.partition(":")[0]).stem for problem in found.problems] == [
        "baddatesa", "badextras", "badothers", "badpageaa", "badparams", "badtokens", "badtriple",
        "badtypesa", "binary", "cut", "deep", "empty", "folder", "gone", "large", "link", "list", "pipe",
    ]  # fmt: skip
    assert not any("evil" in problem or "rm -rf" in problem for problem in found.problems)
    with pytest.raises(StoreError, match="is no view"):
        find_view(root, "badpageaa")
    remove_view(root, "badpageaa")  # by somebody who may delete
    assert len(read_views(root).problems) == 17


def test_there_is_an_end_to_how_many_are_kept_and_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_VIEWS", 2)
    kept(root, "one"), kept(root, "two")
    with pytest.raises(StoreError, match="holds 2 views; remove some: lark views list"):
        kept(root, "three")
    (root / VIEWS / "zzz.json").write_text("{")
    found = read_views(root)
    assert len(found.views) == 2
    assert found.problems == [f"{root / VIEWS}: of 3 files the first 2 by name are read; remove some"]


def test_who_may_only_look_keeps_nothing_and_everything_stays(root: Path, become: Any) -> None:
    saved = kept(root)
    before = (root / access.AUDIT).read_text()
    become("bob", "viewer")
    for act in (lambda: kept(root), lambda: rename_view(root, saved.id, "x"), lambda: remove_view(root, saved.id)):
        with pytest.raises(AccessError, match="here: bob may not"):
            act()
    assert read_views(root) == ([saved], [])
    assert (root / access.AUDIT).read_text() == before


def test_who_may_save_renames_all_and_removes_their_own_only(root: Path, become: Any) -> None:
    become("ann", "editor")
    anns = kept(root)
    become("bob", "editor")
    bobs = kept(root)
    assert rename_view(root, anns.id, "by bob").author == "ann"
    assert views.why_not_remove(anns) == "bob may not."
    assert views.why_not_remove(bobs) == ""
    with pytest.raises(AccessError, match="you cannot remove anything here"):
        remove_view(root, anns.id)
    remove_view(root, bobs.id)
    become("eve", "admin")
    remove_view(root, anns.id)
    assert read_views(root) == ([], [])
    assert audited(root)[-2:] == [("bob", "view.remove", "done"), ("eve", "view.remove", "done")]


def test_the_command_line_has_the_same_verbs(root: Path) -> None:
    assert "no view is saved" in succeeds("views", "list", workspace=root)
    said = succeeds(
        "views", "save", "http://127.0.0.1:8501/tune?B=8&scores=s-1", "--name", "Eight", "--note", "the knee",
        workspace=root,
    )  # fmt: skip
    [view] = read_views(root).views
    assert said == f"{view.id}: Eight\n  /tune?saved={view.id}\n"
    assert succeeds("views", "rename", view.id, "Nine", workspace=root) == f"{view.id}: Nine\n"
    (root / VIEWS / "cut.json").write_text("{")
    listed = succeeds("views", "list", workspace=root)
    assert (
        f"{view.id}  Nine\n  /tune?saved={view.id}  by {view.author}, {view.created_at:%Y-%m-%d} · the knee" in listed
    )
    assert "left out: " in listed and "cut.json: is no view" in listed
    assert succeeds("views", "remove", view.id, workspace=root) == f"{view.id} is removed\n"
    assert "no view" in refuses("views", "remove", view.id, workspace=root)
    assert "is no page" in refuses("views", "save", "/etc?x=1", "--name", "x", workspace=root)


def test_cleaning_leaves_views_and_what_they_show(workspace: Workspace) -> None:
    chain = graded_chain(workspace)
    assert names(workspace, unused=True) == ["other", "tried", "idle"]
    shown = [kept(workspace.root, params=[("run", chain["tried"].id)], page="train")]
    assert names_shown(shown) == {chain["tried"].id}
    assert succeeds("clean", "--unused", "--older-than", 0, "--yes", workspace=workspace.root)
    left = {path.name.rpartition("-")[0] for kind in ("checkpoints", "selections") for path in
            (workspace.root / kind).iterdir()}  # fmt: skip
    assert left == {"trained", "graded", "tried", "idle"}  # it was trained on the selection "idle"; "other" is gone
    assert read_views(workspace.root).views == shown
