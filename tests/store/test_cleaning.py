"""A removal is safe beside others, against links and against a kill; and it says what it could not do."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lark_engine.errors import StoreError
from lark_engine.store import cleaning
from lark_engine.store.cleaning import measure, remove
from lark_engine.store.retention import Removal
from lark_engine.store.workspace import MANIFEST, Artifact, Workspace
from tests.store.aged import age, fork, graded_chain, held_by_a_process, named, planned, unfinished


@pytest.fixture
def chain(workspace: Workspace) -> dict[str, Artifact]:
    return graded_chain(workspace)


def test_what_a_live_process_makes_is_not_planned_and_is_left_when_it_began_after_the_plan(
    workspace: Workspace,
) -> None:
    folder = unfinished(workspace, "evals/model/gsm8k-0")
    removals = planned(workspace)
    with held_by_a_process(folder):
        assert planned(workspace, older_than_s=0) == []
        age(folder)
        assert remove(workspace, removals).left == [f"{folder}: something works on it now"]
    assert (folder / "data").exists()
    assert [r.path for r in remove(workspace, planned(workspace)).removed] == [folder]
    assert not folder.exists() and list(workspace.root.glob(".trash-*")) == []


def test_what_was_worked_on_or_finished_since_the_plan_is_left(workspace: Workspace) -> None:
    folder = unfinished(workspace, "scores/a-0")
    removals = planned(workspace)
    (folder / MANIFEST).write_text("{}")
    assert remove(workspace, removals).left == [f"{folder}: has changed since it was listed"]
    shutil.rmtree(folder)
    assert remove(workspace, removals) == ([], [f"{folder}: is gone already"], [])


def test_leftovers_go_from_finished_artifacts_and_what_they_keep_stays(
    workspace: Workspace, chain: dict[str, Artifact]
) -> None:
    scores, generations, checkpoint = (chain[name].path for name in ("scores", "generations", "checkpoint"))
    waste = [
        scores / "parts" / "rows-00001.parquet", scores / "token_stats" / ".tokens-x" / "ids.bin",
        scores / "token_stats" / ".top00-00001.parquet.12-ab.partial", generations / ".problems.jsonl.12-ab.partial",
        checkpoint / "resume" / "checkpoint-5" / "model.safetensors",
    ]  # fmt: skip
    needed = [
        scores / "token_stats" / "top00-00001.parquet", generations / "resume" / ".lock", checkpoint / "train.log",
        generations / "logs" / "server.log", chain["grade"].path / MANIFEST, generations / "disputes.jsonl",
    ]  # fmt: skip
    for path in (*waste, *needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sorted(named(planned(workspace), workspace)) == [
        "leftover checkpoints/graded-000000000003/resume",
        "leftover evals/graded/gsm8k-000000000004/.problems.jsonl.12-ab.partial",
        "leftover scores/scores-000000000001/parts",
        "leftover scores/scores-000000000001/token_stats/.tokens-x",
        "leftover scores/scores-000000000001/token_stats/.top00-00001.parquet.12-ab.partial",
    ]
    with held_by_a_process(scores / "token_stats"):
        assert "scores" not in " ".join(named(planned(workspace), workspace))
    assert remove(workspace, planned(workspace)).failures == []
    assert [path for path in waste if path.exists()] == [] and all(path.exists() for path in needed)


def test_what_something_left_needs_is_left(workspace: Workspace, chain: dict[str, Artifact]) -> None:
    removals = planned(workspace, unused=True)
    with held_by_a_process(chain["tried"].path):
        done = remove(workspace, removals)
    assert [r.path for r in done.removed] == [chain["other"].path]
    assert done.left[1] == f"{chain['idle'].path}: is needed by what was left"


def test_the_room_is_what_is_freed_blocks_of_inodes_all_of_whose_names_go(workspace: Workspace, tmp_path: Path) -> None:
    a, b = unfinished(workspace, "scores/a-0"), unfinished(workspace, "scores/b-0")
    own = {path: path.stat().st_blocks * 512 for f in (a, b) for path in (f, f / "data", f / ".lock")}
    assert sum(r.num_bytes for r in planned(workspace)) == sum(own.values())
    (a / "twin").hardlink_to(a / "data")
    (b / "again").hardlink_to(a / "data")
    assert [r.num_bytes for r in planned(workspace)] == [
        sum(size for path, size in own.items() if path in (folder, *folder.iterdir())) for folder in (a, b)
    ]
    with (b / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    age(b)
    assert sum(r.num_bytes for r in planned(workspace)) == sum(own.values())
    (tmp_path / "outside").hardlink_to(a / "data")
    assert sum(r.num_bytes for r in planned(workspace)) == sum(own.values()) - own[a / "data"]


def test_nothing_is_removed_through_a_link_and_a_link_in_a_folder_takes_only_itself(
    workspace: Workspace, tmp_path: Path
) -> None:
    outside = Workspace(tmp_path / "outside")
    linked, kept = unfinished(outside, "scores/linked-0"), outside.root / "kept.txt"
    kept.write_text("kept" * 100_000)
    folder = unfinished(workspace, "scores/a-0")
    (folder / "link").symlink_to(outside.root)
    (folder / "file").symlink_to(kept)
    (workspace.root / "scores" / "linked-0").symlink_to(linked)
    (workspace.root / "checkpoints").symlink_to(outside.root / "scores")
    age(folder)
    removals = planned(workspace)
    assert named(removals, workspace) == [
        "unfinished scores/a-0", "unfinished scores/linked-0", "unfinished checkpoints/linked-0",
    ]  # fmt: skip
    assert 5000 < removals[0].num_bytes < 100_000 and [r.num_bytes for r in removals[1:]] == [0, 0]
    done = remove(workspace, removals)
    assert [r.path for r in done.removed] == [folder]
    assert done.left[0] == f"{workspace.root}/scores/linked-0: is a link to {linked}; remove it yourself"
    assert kept.exists() and (linked / "data").exists() and not folder.exists()


def stop_in_the_middle(workspace: Workspace, removals: list[Removal], pipe: Any) -> None:
    def begin_and_wait(path: Path, **_: Any) -> None:
        next(path.glob("data")).unlink()
        pipe.send(path.name)
        time.sleep(60)

    cleaning.shutil.rmtree = begin_and_wait  # type: ignore[assignment]
    remove(workspace, removals)


def test_a_kill_in_the_middle_leaves_trash_that_the_next_cleaning_takes_first(workspace: Workspace) -> None:
    folders = [unfinished(workspace, f"scores/{name}-0") for name in "ab"]
    ours, theirs = fork.Pipe()
    process = fork.Process(target=stop_in_the_middle, args=(workspace, planned(workspace), theirs), daemon=True)
    process.start()
    stopped_in = ours.recv()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not any(folder.exists() for folder in folders)
    assert not (workspace.root / stopped_in / "data").exists()
    assert sorted(p.name[:7] for p in workspace.root.iterdir()) == [".trash-", ".trash-", "logs", "scores"]
    unfinished(workspace, "scores/c-0")
    removals = planned(workspace)
    assert [r.waste for r in removals] == ["trash", "trash", "unfinished"]
    assert len(remove(workspace, removals).removed) == 3
    assert sorted(p.name for p in workspace.root.iterdir()) == ["logs", "scores"]


def test_what_may_not_be_removed_is_said_and_the_rest_goes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = (unfinished(workspace, f"scores/{name}-0") for name in "abc")
    rename, rmtree = Path.rename, shutil.rmtree

    def refuse_a(self: Path, target: Path) -> Path:
        if self == a:
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    def refuse_b(path: Path, onerror: Any) -> None:
        if path.name.endswith("-1"):
            onerror(os.unlink, str(path), (OSError, OSError(1, "Operation not permitted", "data"), None))
        else:
            rmtree(path, onerror=onerror)

    monkeypatch.setattr(Path, "rename", refuse_a)
    monkeypatch.setattr(shutil, "rmtree", refuse_b)
    done = remove(workspace, planned(workspace))
    assert [r.path for r in done.removed] == [c]
    assert done.failures[0] == f"{a}: permission denied ({a}); mend that and clean again"
    assert done.failures[1].startswith(f"{b}: is .trash-")
    assert done.failures[1].endswith(
        "and not all of it could go: operation not permitted (data); mend that and clean again"
    )


def test_a_folder_that_may_not_be_read_stays_and_the_rest_goes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, other = unfinished(workspace, "evals/model/closed-0"), unfinished(workspace, "scores/a-0")
    closed.chmod(0)
    monkeypatch.setattr(os, "access", lambda path, _: path != closed)  # root may read all
    assert [r.path for r in planned(workspace)] == [other]
    with pytest.raises(StoreError, match=r"closed-0/manifest.json: cannot be read"):
        planned(workspace, unused=True)
    closed.chmod(0o700)


def test_an_empty_workspace_has_nothing_to_remove(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "absent")
    assert planned(workspace, memo=True, unused=True) == [] and remove(workspace, []).removed == []
    assert measure(tmp_path, tmp_path / "gone").blocks == {}
