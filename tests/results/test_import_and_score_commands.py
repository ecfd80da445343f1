"""The commands of the page Pool and scores: whole, readable by the command line, and with only what was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lark_engine.cli.words import _parsed, whole_command
from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.results.commands import import_command, score_command
from lark_engine.store.workspace import Artifact, Plan, Workspace


@pytest.fixture
def pool(workspace: Workspace) -> Artifact:
    plan = Plan(kind="pools", name="small", fingerprint="0123456789ab", config={})
    return workspace.build(plan, lambda draft: None)


def read_back(command: list[str], workspace: Workspace) -> dict[str, Any]:
    """The options that the command line reads from a command; the words stay what they are."""
    assert whole_command(command, workspace) == command
    return {name: value for name, value in _parsed(command).params.items() if value not in (None, [])}


def test_an_import_with_the_defaults_says_only_the_source(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "a pool's.jsonl"
    source.touch()
    command = import_command(PoolConfig(source=str(source)), workspace)
    assert command == ["lark", "pool", "import", str(source), "--workspace", str(workspace.root)]
    assert read_back(command, workspace) == {"source": str(source), "workspace": workspace.root}


def test_an_import_says_what_was_changed_and_finds_the_source_from_any_folder(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("--pool.jsonl").touch()
    config = PoolConfig(source="--pool.jsonl", name="-x", skip_bad=True, labels="none", time_limit_s=2)
    found = read_back(import_command(config, workspace), workspace)
    assert found == {
        "source": str(tmp_path / "--pool.jsonl"), "name": "-x", "skip_bad": True, "labels": "none",
        "time_limit_s": 2.0, "workspace": workspace.root,
    }  # fmt: skip


def test_a_dataset_id_stays_what_it_is(workspace: Workspace) -> None:
    command = import_command(PoolConfig(source="owner/name", split="test", revision="main"), workspace)
    assert command[3:8] == ["owner/name", "--split", "test", "--revision", "main"]
    read_back(command, workspace)


def test_scoring_names_the_pool_by_id_and_every_student(workspace: Workspace, pool: Artifact) -> None:
    config = ScoreConfig(student="asked apart", max_length=4096, brier="top_k", device="cpu", chat_template=Path("a b"))
    command = score_command(config, ["/models/one", "two-0123"], pool, workspace)
    assert command == [
        "lark", "score", "--input", "small-0123456789ab", "--student", "/models/one", "--student", "two-0123",
        "--brier", "top_k", "--max-length", "4096", "--chat-template", "a b", "--device", "cpu",
        "--workspace", str(workspace.root),
    ]  # fmt: skip
    found = read_back(command, workspace)
    assert found["student"] == ["/models/one", "two-0123"]
    assert (found["brier"], found["max_length"], found["device"]) == ("top_k", 4096, "cpu")
