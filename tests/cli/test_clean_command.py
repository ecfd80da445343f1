"""`lark clean`: it lists before it removes, asks or is told, and says what room there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lark_engine.cli import app, clean
from lark_engine.store.lock import lock
from lark_engine.store.retention import JobRecord
from lark_engine.store.workspace import Artifact, Plan, Workspace
from tests.cli.command_line import lark, refuses, succeeds

OLD = time.time() - 30 * 86400


def age(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (OLD, OLD))


@pytest.fixture
def root(workspace: Workspace) -> Path:
    """An abandoned scoring, a leftover in a pool, and a selection that nobody trained on."""

    def made(kind: Any, name: str, *inputs: Artifact) -> Artifact:
        refs = {a.kind: a.ref for a in inputs}
        plan = Plan(kind=kind, name=name, fingerprint=name * 12, config={}, inputs=refs)
        return workspace.build(plan, lambda draft: None)

    pool = made("pools", "p")
    made("selections", "s", made("scores", "c", pool), pool)
    (pool.path / ".rejected.jsonl.7-ab.partial").write_bytes(b"x" * 5000)
    with lock(workspace.root / "scores" / "begun-0"):
        (workspace.root / "scores" / "begun-0" / "data").write_bytes(b"x" * 1_000_000)
    age(workspace.root)
    return workspace.root


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "_on_terminal", lambda: True)


def content(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_dry_run_lists_what_would_go_and_how_much_and_changes_nothing(root: Path) -> None:
    before = content(root)
    *lines, total = succeeds("clean", "--dry-run", workspace=root).splitlines()
    assert [re.sub(r" +", " ", re.sub(r"\d[\d.]* [kM]B", "SIZE", line)) for line in lines] == [
        "unfinished SIZE 30 days scores/begun-0: was never finished, and nothing works on it",
        "leftover SIZE 30 days pools/p-pppppppppppp/.rejected.jsonl.7-ab.partial: its artifact is finished and needs "
        "it no more",
    ]
    assert re.fullmatch(r"1 folder, 1 file, 1\.0 MB would go; [\d.]+ [GT]B are free now\.", total)
    assert content(root) == before
    assert "nothing would go" in succeeds("clean", "--dry-run", "--older-than", 31, workspace=root / "absent")


def test_without_a_terminal_it_needs_yes(root: Path) -> None:
    result = lark("clean", workspace=root)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("lark: there is no terminal to ask on, and nothing was removed")
    assert (root / "scores" / "begun-0").exists()
    assert "1 folder, 1 file, 1.0 MB removed; " in succeeds("clean", "--yes", workspace=root)
    assert sorted(content(root)) == [
        "logs", "logs/audit.jsonl",
        "pools", "pools/p-pppppppppppp", "pools/p-pppppppppppp/.lock", "pools/p-pppppppppppp/manifest.json",
        "scores", "scores/c-cccccccccccc", "scores/c-cccccccccccc/.lock", "scores/c-cccccccccccc/manifest.json",
        "selections", "selections/s-ssssssssssss", "selections/s-ssssssssssss/.lock",
        "selections/s-ssssssssssss/manifest.json",
    ]  # fmt: skip
    assert succeeds("clean", "--yes", workspace=root).startswith("nothing would go; ")


@pytest.mark.usefixtures("on_terminal")
def test_on_a_terminal_it_asks(root: Path) -> None:
    for answer, is_there in (("n\n", True), ("y\n", False)):
        result = CliRunner().invoke(app, ["clean", "--workspace", str(root)], input=answer)
        assert result.exit_code == 0, result.output
        assert ("nothing was removed" in result.output) == is_there
        assert (root / "scores" / "begun-0").exists() == is_there


@pytest.mark.usefixtures("on_terminal")
def test_what_is_needed_since_it_was_listed_stays_although_the_answer_is_yes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_late(_: str) -> bool:
        store = Workspace(root)
        trained = Plan(
            kind="checkpoints", name="t", fingerprint="t" * 12, config={},
            inputs={"selection": store.resolve("selections", "s").ref},
        )  # fmt: skip
        store.build(trained, lambda draft: None)
        return True

    monkeypatch.setattr(typer, "confirm", answer_late)
    said = succeeds("clean", "--unused", workspace=root)
    assert "3 folders, 1 file, " in said and "1 folder, 1 file, 1.0 MB removed" in said
    assert (root / "selections" / "s-ssssssssssss").exists() and (root / "scores" / "c-cccccccccccc").exists()


def test_unused_artifacts_and_kinds(root: Path) -> None:
    def going(*options: str) -> list[str]:
        plan = json.loads(succeeds("clean", "--json", "--unused", *options, workspace=root))
        return [Path(one["path"]).name for one in plan["removals"] if one["waste"] == "unused"]

    assert going() == ["s-ssssssssssss", "c-cccccccccccc"]
    assert going("--kind", "selections") == ["s-ssssssssssss"]
    assert going("--kind", "pools") == []
    assert going("--kind", "pools", "--kind", "scores", "--kind", "selections")[-1] == "p-pppppppppppp"
    assert going("--older-than", "31") == []


def test_json_is_the_plan_and_removes_nothing(root: Path) -> None:
    damaged = root / "scores" / "c-cccccccccccc" / "manifest.json"
    damaged.write_text("{")
    before = content(root)
    plan = json.loads(CliRunner().invoke(app, ["clean", "--json", "--workspace", str(root)]).stdout)
    first = plan["removals"][0]
    assert (first["path"], first["waste"]) == (str(root / "scores" / "begun-0"), "unfinished")
    assert first["age_s"] == pytest.approx(30 * 86400, abs=3600) and first["num_bytes"] > 1_000_000
    assert plan["num_bytes"] == sum(one["num_bytes"] for one in plan["removals"])
    assert plan["damaged"] == [str(damaged.parent)]
    assert content(root) == before
    assert "damaged, and left for you to look at: scores/c-cccccccccccc" in succeeds(
        "clean", "--dry-run", workspace=root
    )


def test_options_that_contradict_or_are_wrong_are_refused(root: Path) -> None:
    assert "--yes removes" in refuses("clean", "--yes", "--dry-run", workspace=root)
    assert "--yes removes" in refuses("clean", "--yes", "--json", workspace=root)
    assert "give --unused with --kind" in refuses("clean", "--kind", "scores", workspace=root)
    assert "did you mean 'scores'?" in refuses("clean", "--unused", "--kind", "score", workspace=root)
    assert "are results" in refuses("clean", "--unused", "--kind", "grades", workspace=root)
    assert "0 or more" in refuses("clean", "--older-than", "-1", workspace=root)


def test_jobs_are_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = root / "jobs" / "20260101-score-ab"
    job.mkdir(parents=True)
    records = [JobRecord(path=job, state="failed", ended_at=OLD, is_live=False)]
    monkeypatch.setattr(clean, "_job_records", lambda _: records)
    assert "jobs/" not in succeeds("clean", "--dry-run", workspace=root)
    assert "jobs/20260101-score-ab: this job is over: failed" in succeeds(
        "clean", "--dry-run", "--keep-jobs", "0", workspace=root
    )


def test_what_cannot_be_removed_is_said_and_the_status_is_2(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmtree = shutil.rmtree
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, onerror: onerror(None, "", (OSError, OSError(13, "Permission denied"), None))
    )
    result = lark("clean", "--yes", workspace=root)
    assert result.exit_code == 2
    *_, failure, total, sentence = result.output.splitlines()
    assert failure.startswith(f"not removed: {root}/scores/begun-0: is .trash-")
    assert total.startswith("1 file, ")
    assert sentence == "lark: 1 of 2 could not be removed; why is said above"
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert "an earlier cleaning was stopped before its end" in succeeds("clean", "--yes", workspace=root)
    assert list(root.glob(".trash-*")) == []
