from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lark_engine.cli import app
from lark_engine.config import PoolConfig
from lark_engine.errors import ConfigError, StoreError
from lark_engine.explore.flags import FLAGS, CandidateKey, flags_version, read_flags, set_flag
from lark_engine.pool.importer import import_pool
from lark_engine.store.workspace import Artifact, Workspace, read_artifact


@pytest.fixture
def pool(workspace: Workspace, tmp_path: Path) -> Artifact:
    lines = [
        {
            "problem_id": problem, "candidate_id": number, "teacher": "t",
            "messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": f"it is {number}"}],
        }
        for problem in ("p", "ünï")
        for number in range(3)
    ]  # fmt: skip
    source = tmp_path / "sums.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return import_pool(PoolConfig(source=str(source), labels="none"), workspace)


def test_a_flag_stands_beside_the_pool_which_stays_finished(pool: Artifact) -> None:
    before = flags_version(pool)
    set_flag(pool, CandidateKey("p", 1), flagged=True, author=" ann ", reason=" guesses the answer ")
    (flag,) = read_flags(pool).values()
    assert (flag.key, flag.author, flag.reason) == (("p", 1), "ann", "guesses the answer")
    assert flag.created_at.startswith("20")
    assert read_artifact(pool.path) == pool
    assert flags_version(pool) != before


def test_the_last_word_counts_and_can_be_taken_back(pool: Artifact) -> None:
    key = CandidateKey("ünï", 2)
    set_flag(pool, key, flagged=True, author="a", reason="x")
    set_flag(pool, key, flagged=True, author="b", reason="y")
    assert read_flags(pool)[key].reason == "y"
    set_flag(pool, key, flagged=False, author="a", reason="agreed")
    assert read_flags(pool) == {}
    assert len((pool.path / FLAGS).read_text().splitlines()) == 3
    with pytest.raises(ConfigError, match="has no flag"):
        set_flag(pool, key, flagged=False, author="a", reason="again")


def test_a_candidate_that_is_not_there_and_a_flag_without_reason_are_refused(pool: Artifact) -> None:
    with pytest.raises(ConfigError, match="no candidate 3 of problem 'p'; its candidates are 0 to 2"):
        set_flag(pool, CandidateKey("p", 3), flagged=True, author="a", reason="x")
    with pytest.raises(ConfigError, match="the pool has no such problem"):
        set_flag(pool, CandidateKey("q", 0), flagged=True, author="a", reason="x")
    with pytest.raises(ConfigError, match="needs its author and a reason"):
        set_flag(pool, CandidateKey("p", 0), flagged=True, author="a", reason=" ")
    with pytest.raises(ConfigError, match="longer than 2,000 characters"):
        set_flag(pool, CandidateKey("p", 0), flagged=True, author="a", reason="x" * 2001)
    assert not (pool.path / FLAGS).exists()


@pytest.mark.parametrize("damage", ['{"problem_id": 5}\n', "{\n", "[]\n", "\xff\n"])
def test_a_torn_line_is_dropped_and_a_damaged_one_is_named(pool: Artifact, damage: str) -> None:
    path = pool.path / FLAGS
    set_flag(pool, CandidateKey("p", 0), flagged=True, author="a", reason="x")
    with path.open("a") as file:
        file.write('{"problem_id": "p", "cand')
    assert len(read_flags(pool)) == 1
    set_flag(pool, CandidateKey("p", 1), flagged=True, author="a", reason="x")
    assert len(read_flags(pool)) == 2
    path.write_bytes(path.read_bytes() + damage.encode("latin-1"))
    with pytest.raises(StoreError, match=r"flags\.jsonl:3: is no flag"):
        read_flags(pool)


def test_the_command_flags_lists_and_takes_back(pool: Artifact, workspace: Workspace) -> None:
    def lark(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["pool", "flag", pool.id, *words, "--workspace", str(workspace.root)])
        return done.exit_code, done.output

    assert lark() == (0, f"{pool.id}: 0 flagged candidate(s)\n")
    code, said = lark("--problem", "p", "--candidate", "1", "--reason", "wrong\x1b[31m unit", "--author", "ann")
    assert code == 0 and f"{pool.id}: 1 flagged candidate(s)\n  p:1 flagged by ann (20" in said
    assert "wrong [31m unit" in said
    assert lark("--problem", "p")[0] == 2
    assert lark("--reason", "x")[0] == 2
    assert "give --author and --reason" in lark("--problem", "p", "--candidate", "1")[1]
    code, said = lark("--problem", "p", "--candidate", "1", "--remove", "--reason", "it is right")
    assert (code, said) == (0, f"{pool.id}: 0 flagged candidate(s)\n")


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(
    pool: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(pool.path / FLAGS))

    monkeypatch.setattr("lark_engine.explore.flags.append_durably", refuse)
    with pytest.raises(StoreError, match="no permission"):
        set_flag(pool, CandidateKey("p", 0), flagged=True, author="a", reason="x")


def _flag(path: Path, number: int) -> None:
    artifact = read_artifact(path)
    assert artifact is not None
    for _ in range(10):
        set_flag(artifact, CandidateKey("p", number), flagged=True, author=f"author {number}", reason="x" * 1900)


@pytest.mark.slow
def test_several_processes_lose_no_flag(pool: Artifact) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_flag, args=(pool.path, i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (pool.path / FLAGS).read_text().splitlines()
    assert sorted(json.loads(line)["candidate_id"] for line in lines) == [0] * 10 + [1] * 10 + [2] * 10
