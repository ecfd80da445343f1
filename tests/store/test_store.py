"""Artifacts are whole or not there; two builders give one; a changed option is another fingerprint."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from lark_engine.errors import StoreError
from lark_engine.store.atomic import replacing, write_json, write_text
from lark_engine.store.fingerprint import fingerprint, hash_file, hash_model_dir
from lark_engine.store.rows import RowLog, read_rows
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, slug


def plan(name: str = "toy", fingerprint_: str = "0123456789ab") -> Plan:
    return Plan(kind="pools", name=name, fingerprint=fingerprint_, config={"x": 1})


def build(workspace: Workspace, text: str = "data") -> Artifact:
    def make(draft: Draft) -> None:
        write_text(draft.path / "table.txt", text)
        draft.counts = {"num_problems": 2}
        draft.drops = {"empty": 1}

    return workspace.build(plan(), make)


def test_a_fingerprint_does_not_depend_on_key_order_and_is_stable() -> None:
    assert fingerprint({"b": 1, "a": [1.5, None]}) == fingerprint({"a": [1.5, None], "b": 1})
    assert fingerprint({"a": 1}) == "015abd7f5cc5"
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_content_of_a_model_decides_its_fingerprint_not_its_folder_or_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    os.utime(tmp_path / "two" / "config.json", (1, 1))
    assert hash_model_dir(tmp_path / "one") == hash_model_dir(tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").write_bytes(b"Weights")
    assert hash_model_dir(tmp_path / "one") != hash_model_dir(tmp_path / "two")


def test_a_remembered_hash_is_not_used_after_the_file_changed(tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(b"a" * (9 << 20))
    first = hash_file(big, tmp_path / "memo")
    assert hash_file(big, tmp_path / "memo") == first
    big.write_bytes(b"b" * (9 << 20))
    assert hash_file(big, tmp_path / "memo") == hash_file(big) != first


def test_the_hash_of_a_large_file_is_remembered_in_a_workspace_of_ones_own(tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(b"a" * (9 << 20))
    own, bundle, absent = tmp_path / "own", tmp_path / "bundle", tmp_path / "absent"
    own.mkdir()
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    for root in (own, bundle, absent):
        hash_file(big, root / "memo")
    [remembered] = (own / "memo" / "hashes").iterdir()
    remembered.write_text('{"sha256": "as it was"}')
    assert hash_file(big, own / "memo") == "as it was"
    assert [path.name for path in bundle.iterdir()] == ["bundle.json"]
    assert not absent.exists()


def test_a_failed_write_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), replacing(target) as partial:
        partial.write_text("new, but torn")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_json_refuses_nan_so_that_no_file_of_ours_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_a_finished_artifact_is_found_and_not_made_twice(workspace: Workspace) -> None:
    first = build(workspace)
    second = workspace.build(plan(), lambda draft: pytest.fail("made twice"))
    assert second.manifest == first.manifest
    assert first.id == "toy-0123456789ab"
    assert first.manifest.counts == {"num_problems": 2}
    assert first.manifest.drops == {"empty": 1}
    assert first.manifest.files == {"table.txt": 4}
    assert workspace.list("pools") == [first]


def test_an_artifact_that_fails_half_way_is_not_there(workspace: Workspace) -> None:
    def make(draft: Draft) -> None:
        write_text(draft.path / "table.txt", "half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        workspace.build(plan(), make)
    assert workspace.find(plan()) is None
    assert workspace.list("pools") == []
    assert build(workspace).manifest.files == {"table.txt": 4}


def test_a_file_that_was_cut_after_the_artifact_was_finished_makes_it_unfinished(workspace: Workspace) -> None:
    artifact = build(workspace)
    (artifact.path / "table.txt").write_text("cu")
    assert workspace.find(plan()) is None
    assert build(workspace, "made again").manifest.files == {"table.txt": 10}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "nonsense"}', "\x00\xff"])
def test_a_damaged_manifest_never_breaks_the_list(workspace: Workspace, content: str) -> None:
    artifact = build(workspace)
    damaged = workspace.root / "pools" / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text(content)
    assert [a.id for a in workspace.list("pools")] == [artifact.id]


def test_an_artifact_of_a_newer_version_is_not_read_as_if_it_were_ours(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    path = build(workspace).path / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    assert workspace.list("pools") == []
    assert "made by a newer version of LARK Studio" in caplog.text


def test_an_artifact_is_resolved_by_id_name_fingerprint_and_folder(workspace: Workspace) -> None:
    artifact = build(workspace)
    for name in ("toy-0123456789ab", "toy", "0123456789ab", str(artifact.path)):
        assert workspace.resolve("pools", name).id == artifact.id
    with pytest.raises(
        StoreError, match=r"no pool 'toy-0123456789ff' in workspace .*; did you mean 'toy-0123456789ab'\?"
    ):
        workspace.resolve("pools", "toy-0123456789ff")


def test_a_name_with_two_artifacts_is_refused_with_both_ids(workspace: Workspace) -> None:
    build(workspace)
    workspace.build(plan(fingerprint_="ffffffffffff"), lambda draft: None)
    with pytest.raises(StoreError, match=r"names 2 artifacts .*toy-ffffffffffff.*give one id whole"):
        workspace.resolve("pools", "toy")


def race(root: str, start: float, results: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    made = []

    def make(draft: Draft) -> None:
        made.append(1)
        with replacing(draft.path / "rows.txt") as partial, partial.open("w") as file:
            for number in range(200):
                file.write(f"{os.getpid()} {number}\n")
                time.sleep(0.001)

    time.sleep(max(0.0, start - time.time()))
    Workspace(root).build(plan(), make)
    results.put(len(made))


def test_two_processes_that_race_for_one_artifact_give_one_whole_result(workspace: Workspace) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    start = time.time() + 1.5
    racers = [context.Process(target=race, args=(str(workspace.root), start, results)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert sorted(results.get() for _ in racers) == [0, 0, 1]
    artifact = workspace.find(plan())
    assert artifact is not None
    lines = (artifact.path / "rows.txt").read_text().splitlines()
    assert len(lines) == 200
    assert len({line.split()[0] for line in lines}) == 1


def hold(root: str) -> None:
    def make(draft: Draft) -> None:
        write_text(draft.path / "held", "")
        time.sleep(60)

    Workspace(root).build(plan(), make)


def test_a_killed_builder_frees_the_folder_and_leaves_no_artifact(workspace: Workspace) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(str(workspace.root),))
    process.start()
    deadline = time.monotonic() + 30
    while not (workspace.folder(plan()) / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert workspace.find(plan()) is None
    assert build(workspace).manifest.counts == {"num_problems": 2}


def test_a_torn_last_row_is_dropped_and_its_key_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"row": 1, "x": "a"}\n{"row": 2, "x": "b"}\n{"row": 3, "x": "c')
    with RowLog(path, ("row",)) as rows:
        assert rows.known == {(1,), (2,)}
        rows.append([{"row": 2, "x": "twice"}, {"row": 3, "x": "é\n"}])
    assert list(read_rows(path)) == [{"row": 1, "x": "a"}, {"row": 2, "x": "b"}, {"row": 3, "x": "é\n"}]


def test_a_file_that_is_one_torn_row_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"row": 1' + " " * 200_000)
    with RowLog(path, ("row",)) as rows:
        assert rows.known == set()
    assert path.read_bytes() == b""


def test_a_full_disk_is_one_sentence_and_leaves_nothing_that_passes_for_whole(workspace: Workspace) -> None:
    def make(draft: Draft) -> None:
        # /dev/full is the kernel's own full disk: the write really fails with ENOSPC.
        with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"x")

    with pytest.raises(StoreError, match="the disk is full; free some space and run the same command again"):
        workspace.build(plan(), make)
    assert workspace.find(plan()) is None
    assert json.dumps([a.id for a in workspace.list("pools")]) == "[]"


@pytest.mark.parametrize(
    "error",
    [
        OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_known_in_the_words_of_other_libraries(workspace: Workspace, error: Exception) -> None:
    def make(draft: Draft) -> None:
        raise error

    with pytest.raises(StoreError, match="the disk is full"):
        workspace.build(plan(), make)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("GSM8K pool", "gsm8k-pool"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unnamed"),
        ("Модель", "unnamed"),
        ("a/b\x00c", "a-b-c"),
        ("x" * 300, "x" * 60),
    ],
)
def test_names_from_outside_become_safe_folder_names(text: str, safe: str) -> None:
    assert slug(text) == safe
