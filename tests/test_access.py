"""Who acts, what they may do, and the record of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lark_engine import access
from lark_engine.access import ALL, NOBODY, ROLES, Visitor, action, author_name, read_audit, require, resolve_with
from lark_engine.errors import AccessError, StoreError


@pytest.fixture
def become() -> Iterator[object]:
    before = resolve_with(access.visitor)
    resolve_with(before)
    yield lambda who: resolve_with(lambda: who)
    resolve_with(before)


def test_on_the_command_line_the_user_may_do_everything() -> None:
    assert access.visitor().may == ALL
    assert access.visitor().origin == "command line"


def test_nobody_may_not_even_look(become: object) -> None:
    become(NOBODY)  # type: ignore[operator]
    with pytest.raises(AccessError, match=r"^you cannot look at this workspace here: You are not logged in\.$"):
        require("explore")


def test_a_refused_action_does_nothing_and_leaves_no_record(tmp_path: Path, become: object) -> None:
    become(Visitor(name="ann", origin="x", may=ROLES["viewer"], because="You visit as viewer."))  # type: ignore[operator]
    with pytest.raises(AccessError), action(tmp_path, "save", "view.save"):
        raise AssertionError("the block ran")
    assert list(tmp_path.iterdir()) == []


def test_an_action_that_fails_is_recorded_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(StoreError), action(tmp_path, "save", "view.save", view="abc"):
        raise StoreError("the disk is full")
    (row,) = read_audit(tmp_path)
    assert (row["what"], row["view"], row["outcome"]) == ("view.save", "abc", "failed: StoreError: the disk is full")


def test_what_an_action_does_by_others_is_one_line(tmp_path: Path) -> None:
    with action(tmp_path, "launch", "job.clone"), action(tmp_path, "launch", "job.submit"):
        pass
    assert [row["what"] for row in read_audit(tmp_path)] == ["job.clone"]
    with action(tmp_path, "save", "flag.set"):
        pass
    assert [row["what"] for row in read_audit(tmp_path)] == ["flag.set", "job.clone"]


def test_an_inner_action_is_refused_where_only_the_outer_one_is_allowed(tmp_path: Path, become: object) -> None:
    become(Visitor(name="eve", origin="x", may=ROLES["editor"], role="editor"))  # type: ignore[operator]
    with action(tmp_path, "save", "view.save"), pytest.raises(AccessError), action(tmp_path, "launch", "job.submit"):
        raise AssertionError("the block ran")


def test_what_cannot_be_recorded_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "audit.jsonl").mkdir()  # a folder where the record should be
    with pytest.raises(StoreError), action(tmp_path, "save", "view.save"):
        raise AssertionError("the block ran")


def test_a_guest_signs_with_the_name_of_the_login(become: object) -> None:
    become(Visitor(name="ann@uni.example", origin="192.0.2.1", may=ALL, role="admin"))  # type: ignore[operator]
    assert author_name() == "ann@uni.example"


def test_many_processes_write_whole_lines(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lark_engine.access import action\n"
        "for i in range(40):\n    with action(Path(sys.argv[1]), 'save', 'flag.set', reason='x' * 500, number=i): pass"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = (tmp_path / "logs" / "audit.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["number"] for line in lines) == sorted([*range(40)] * 3)
