"""Which runs a workspace holds: each once, with the jobs that built it, whatever became of folder and records."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import TrainConfig
from lark_engine.errors import StoppedEarly
from lark_engine.jobs.folder import Job, create_job
from lark_engine.jobs.membership import join, leave
from lark_engine.jobs.records import JobSpec
from lark_engine.store.lock import lock
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.plan import plan_train, train_data
from lark_engine.training.runs import Run, find_run, refreshed, resume_command, resume_points, training_runs
from lark_engine.training.train import train

Make = Callable[..., TrainConfig]


def job(workspace: Workspace, *words: str, state: str = "succeeded", builds: str = "", at: int = 0) -> Job:
    """A job of these words that has ended; `at` orders those of one test."""
    command = ("lark", *words, "--workspace", str(workspace.root))
    stage = " ".join(words[:2]) if words[0] == "train" else words[0]
    made = create_job(workspace.root, JobSpec(stage=stage, command=command, cwd=str(workspace.root)))
    renamed = Job(made.folder.with_name(f"{at:03d}-{made.id}"))
    made.folder.rename(renamed.folder)
    if builds:
        folder = workspace.root / "checkpoints" / builds
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
        renamed.note_artifact(folder)
    renamed.write_done({"state": state, "message": "it ended", "ended_at": time.time()})
    return renamed


TRAIN = ("train", "lora", "--train-data", "chi2-b3", "--recipe", "lora")


def one(workspace: Workspace) -> Run:
    [found] = training_runs(workspace)
    return found


def test_a_run_that_another_job_resumed_is_one_run(workspace: Workspace) -> None:
    first = job(workspace, *TRAIN, state="cancelled", builds="lora-0a", at=1)
    second = job(workspace, *TRAIN, "--keep", "2", state="failed", builds="lora-0a", at=2)
    found = one(workspace)
    assert (found.id, found.state, found.job_ids) == ("lora-0a", "failed", (second.id, first.id))
    assert found.job is not None and found.job.id == second.id
    assert (found.method, found.recipe, found.selection, found.is_live) == ("lora", "lora", "chi2-b3", False)


def test_a_job_that_never_began_a_checkpoint_is_a_run_of_its_own(workspace: Workspace) -> None:
    failed = job(workspace, "train", "full", "--train-data=chi2-b3", "--sft_config", "my/own.yaml", state="failed")
    found = one(workspace)
    assert (found.id, found.name, found.state, found.folder) == (failed.id, "own", "failed", None)
    assert (found.method, found.selection) == ("full", "chi2-b3")


@pytest.mark.parametrize(
    "words", [("train", "merge", "lora-0a"), (*TRAIN, "--preflight"), ("generate", "--model-path", "x"), ("score",)]
)
def test_what_does_not_train_is_no_run(workspace: Workspace, words: tuple[str, ...]) -> None:
    job(workspace, *words)
    assert training_runs(workspace) == []


def test_a_run_whose_checkpoint_was_removed_is_known_by_its_job(workspace: Workspace) -> None:
    made = job(workspace, *TRAIN, builds="lora-0a")
    shutil.rmtree(workspace.root / "checkpoints")
    found = one(workspace)
    assert (found.id, found.name, found.state, found.events_path) == ("lora-0a", "lora", "removed", made.events_path)


def test_a_folder_without_a_job_is_stopped_or_running(workspace: Workspace) -> None:
    folder = workspace.root / "checkpoints" / "lora-0a"
    with lock(folder):
        assert (one(workspace).state, one(workspace).is_live) == ("running", True)
    assert (one(workspace).state, one(workspace).is_live) == ("stopped", False)


def test_of_the_runs_of_a_sweep_only_the_one_at_hand_goes_on(workspace: Workspace) -> None:
    sweep = job(workspace, "sweep", "--budget", "3", builds="lora-0a", at=1)
    sweep.note_artifact(workspace.root / "checkpoints" / "lora-0b")
    (sweep.folder / "done.json").unlink()  # it has no supervisor: starting, for half a minute
    with lock(workspace.root / "checkpoints" / "lora-0b"):
        states = {run.id: (run.state, run.is_live, run.has_own_job) for run in training_runs(workspace)}
    assert states == {"lora-0a": ("stopped", False, False), "lora-0b": ("running", True, False)}


def test_runs_are_found_by_their_checkpoint_and_by_any_of_their_jobs(workspace: Workspace) -> None:
    first = job(workspace, *TRAIN, state="cancelled", builds="lora-0a", at=1)
    second = job(workspace, *TRAIN, builds="lora-0b", at=2)
    runs = training_runs(workspace)
    assert [getattr(find_run(runs, name), "id", None) for name in (first.id, second.id, "lora-0b", "lora")] == [
        "lora-0a", "lora-0b", "lora-0b", None,
    ]  # fmt: skip


def test_a_run_is_looked_at_again_by_itself(workspace: Workspace) -> None:
    waits = job(workspace, *TRAIN, at=1)
    (waits.folder / "done.json").unlink()
    job(workspace, *TRAIN, builds="lora-0b", at=2)
    before = find_run(training_runs(workspace), waits.id)
    assert before is not None and (before.state, before.folder) == ("starting", None)
    folder = workspace.root / "checkpoints" / "lora-0a"
    with lock(folder):
        waits.note_artifact(folder)
        after = refreshed(before, workspace)
    assert after is not None and (after.id, after.job_ids) == ("lora-0a", (waits.id,))
    shutil.rmtree(workspace.root)
    assert refreshed(before, workspace) is None


def test_what_is_noted_twice_or_elsewhere_is_noted_once_or_not(workspace: Workspace, tmp_path: Path) -> None:
    made = job(workspace, *TRAIN, builds="lora-0a")
    for folder in (workspace.root / "checkpoints" / "lora-0a", tmp_path / "elsewhere"):
        made.note_artifact(folder)
    with made.artifacts_path.open("a") as file:
        file.write("checkpoints/torn")
    assert made.artifacts() == ["checkpoints/lora-0a"]
    shutil.rmtree(made.folder)
    made.note_artifact(workspace.root / "checkpoints" / "lora-0a")  # a record that is gone stays gone
    assert not made.folder.exists() and made.artifacts() == []


def test_a_real_run_from_its_first_checkpoint_to_its_end(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    """Stopped after step 2, which leaves config, checkpoint and progress; resumed by the command it says."""
    config = tiny_config(max_steps=4, save_steps=2, stop_after_checkpoint=True, eval_share=0.4)
    data = train_data(str(train_path), workspace)
    of = create_job(workspace.root, JobSpec(stage="train full", command=("lark", *TRAIN), cwd=str(workspace.root)))
    assert join({"LARK_JOB_DIR": str(of.folder)}) is not None
    try:
        with pytest.raises(StoppedEarly):
            train(config, workspace, data)
    finally:
        leave()
    of.write_done({"state": "cancelled", "message": ""})
    found = one(workspace)
    assert of.artifacts() == [f"checkpoints/{found.id}"]
    assert (found.state, found.done, found.total, found.method) == ("cancelled", 2, 4, "full")
    assert found.last_loss is not None and found.eval_loss is not None and found.tokens and found.train_s
    assert [point.step for point in resume_points(found)] == [2]
    command = resume_command(found, workspace)
    assert command is not None and command[:3] == ["lark", "train", "full"]
    assert command[command.index("--save-steps") + 1] == "2" and "--stop-after-checkpoint" not in command
    there = {**(found.config or {}), "nproc_per_node": 2, "chat_template": "/t.jinja"}
    command = resume_command(dataclasses.replace(found, config=there), workspace)
    assert command is not None and command[command.index("--nproc-per-node") + 1] == "2"
    assert command[command.index("--chat-template") + 1] == "/t.jinja"
    checkpoint = train(config.model_copy(update={"stop_after_checkpoint": False}), workspace, data)
    assert isinstance(checkpoint, Artifact)
    done = one(workspace)
    assert (done.id, done.state, done.done, done.total) == (found.id, "finished", 4, 4)
    assert done.tokens == checkpoint.manifest.counts["tokens_seen"]
    assert (done.train_s or 0) > found.train_s
    assert resume_points(done) == []
    plan, _ = plan_train(config, workspace, data)
    assert done.id == plan.id


def test_damaged_records_break_no_list(workspace: Workspace) -> None:
    made = job(workspace, *TRAIN, builds="lora-0a", at=1)
    (made.folder / "spec.json").write_text("{")
    (workspace.root / "checkpoints" / "lora-0a" / "resume").mkdir()
    (workspace.root / "checkpoints" / "lora-0a" / "resume" / "spec.json").write_text('{"config": 3}')
    (workspace.root / "checkpoints" / "lora-0a" / "events.jsonl").write_bytes(b"\xff\n[]\n{\n")
    values: dict[str, Any] = {"state": one(workspace).state, "config": one(workspace).config}
    assert values == {"state": "stopped", "config": None}
