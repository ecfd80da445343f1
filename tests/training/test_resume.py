"""Resume for real: kill -9 after every checkpoint and in the middle of one, and the run ends as an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lark_engine.config import TrainConfig
from lark_engine.errors import StoppedEarly, StoreError
from lark_engine.jobs.folder import Job
from lark_engine.jobs.membership import join, leave
from lark_engine.store.events import last_event
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training import checkpoints
from lark_engine.training.checkpoints import (
    COMPLETE,
    complete_checkpoints,
    finish,
    newest_complete_checkpoint,
    require_own_files,
    step_of,
)
from lark_engine.training.health import read_curve
from lark_engine.training.plan import plan_train, train_data
from lark_engine.training.train import train

Make = Callable[..., TrainConfig]

# Trains; a rank kills itself with -9 right after (or in the middle of) saving the first checkpoint of its process.
KILLED = """
import os, signal, sys
from lark_engine.config import TrainConfig
from lark_engine.store.workspace import Workspace
from lark_engine.training import checkpoints
from lark_engine.training.plan import train_data
from lark_engine.training.train import train

def killed(function, before):
    def run(*args):
        if not before:
            function(*args)
        os.kill(os.getpid(), signal.SIGKILL)
    return run

checkpoints.finish = killed(checkpoints.finish, before=sys.argv[4] == "before")
store = Workspace(sys.argv[1])
train(TrainConfig.model_validate_json(sys.argv[3]), store, train_data(sys.argv[2], store))
"""


def run(config: TrainConfig, workspace: Workspace, path: Path) -> Artifact:
    checkpoint = train(config, workspace, train_data(str(path), workspace))
    assert checkpoint is not None
    return checkpoint


def run_killed(config: TrainConfig, workspace: Workspace, path: Path, when: str = "after") -> int:
    arguments = [str(workspace.root), str(path), config.model_dump_json(), when]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, timeout=300
    ).returncode


def resume_dir(config: TrainConfig, workspace: Workspace, path: Path) -> Path:
    plan, _ = plan_train(config, workspace, train_data(str(path), workspace))
    return workspace.folder(plan) / "resume"


def difference(a: Artifact, b: Artifact) -> float:
    first, second = (load_file(next(x.path.glob("*/*.safetensors"))) for x in (a, b))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


KINDS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lr": 1e-2},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_after_every_checkpoint_ends_as_the_undisturbed_run(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path, kind: str
) -> None:
    """Data order, optimizer, scheduler and random numbers (dropout) included: curve and weights to 1e-6."""
    config = tiny_config(epochs=6, save_steps=4, scheduler="cosine", **KINDS[kind])  # 12 steps, 3 checkpoints
    folder = resume_dir(config, workspace, train_path)
    for step in (4, 8, 12):
        assert run_killed(config, workspace, train_path) == -signal.SIGKILL
        assert newest_complete_checkpoint(folder) == folder / f"checkpoint-{step}"
    assert [p.name for p in complete_checkpoints(folder)] == ["checkpoint-12"]
    resumed = run(config, workspace, train_path)
    undisturbed = run(config, Workspace(tmp_path / "other"), train_path)
    curves = [read_curve(artifact.path / "events.jsonl") for artifact in (resumed, undisturbed)]
    assert list(curves[0]) == list(curves[1]) == list(range(1, 13))
    assert list(curves[0].values()) == pytest.approx(list(curves[1].values()), rel=1e-6)
    assert difference(resumed, undisturbed) <= 1e-6
    assert not (resumed.path / "resume").exists()


@pytest.mark.slow
def test_a_kill_while_saving_costs_that_checkpoint_only(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path
) -> None:
    config = tiny_config(epochs=4, save_steps=2)
    folder = resume_dir(config, workspace, train_path)
    assert run_killed(config, workspace, train_path) == -signal.SIGKILL
    assert run_killed(config, workspace, train_path, "before") == -signal.SIGKILL
    assert newest_complete_checkpoint(folder) == folder / "checkpoint-2"
    assert not (folder / "checkpoint-4" / COMPLETE).exists()
    shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-999")  # not chosen, whatever its number
    resumed = run(config, workspace, train_path)
    undisturbed = run(config, Workspace(tmp_path / "other"), train_path)
    assert difference(resumed, undisturbed) <= 1e-6


@pytest.mark.slow
def test_two_ranks_under_zero_2_are_resumed_too(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path
) -> None:
    config = tiny_config(epochs=4, save_steps=3, nproc_per_node=2, deepspeed="zero2", scheduler="cosine")
    with pytest.raises(StoppedEarly, match="stopped after step 3 of 8"):
        run(config.model_copy(update={"stop_after_checkpoint": True}), workspace, train_path)
    resumed = run(config, workspace, train_path)
    undisturbed = run(config, Workspace(tmp_path / "other"), train_path)
    assert difference(resumed, undisturbed) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_another_process_asks_to_end_saves_its_step_and_loses_nothing(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path, processes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """All ranks end after the same step, though only one of them may see the request in time."""
    config = tiny_config(epochs=12, save_steps=1000, nproc_per_node=processes, scheduler="cosine")
    job = Job(workspace.root / "jobs" / "a-job")
    job.folder.mkdir(parents=True)
    monkeypatch.setenv("LARK_JOB_DIR", str(job.folder))
    join(os.environ)
    asked = threading.Thread(target=_ask_when_under_way, args=(job,))
    asked.start()
    try:
        with pytest.raises(
            StoppedEarly, match=r"stopped after step \d+ of \d+, which is saved; run the same command again"
        ):
            run(config, workspace, train_path)
    finally:
        leave()
        asked.join()
    monkeypatch.delenv("LARK_JOB_DIR")
    newest = newest_complete_checkpoint(resume_dir(config, workspace, train_path))
    assert newest is not None and step_of(newest) >= 2
    assert last_event(job.events_path)["done"] == step_of(newest)  # type: ignore[index]
    resumed = run(config, workspace, train_path)
    undisturbed = run(config, Workspace(tmp_path / "other"), train_path)
    assert difference(resumed, undisturbed) <= 1e-6


def _ask_when_under_way(job: Job) -> None:
    deadline = time.monotonic() + 120
    while (last_event(job.events_path) or {"done": 0})["done"] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    job.ask("after_checkpoint")


def test_the_newest_complete_checkpoint_is_chosen_by_number_not_by_name(tmp_path: Path) -> None:
    for step, complete in ((500, True), (1500, True), (2000, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-1500"
    assert newest_complete_checkpoint(tmp_path / "absent") is None


def test_older_checkpoints_are_removed_once_a_newer_one_is_whole(tmp_path: Path) -> None:
    for step in (90, 100, 110, 1000):
        (tmp_path / f"checkpoint-{step}").mkdir()
        finish(tmp_path / f"checkpoint-{step}", keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-1000", "checkpoint-110"]


def test_a_state_that_can_run_code_must_be_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "state.pt").touch()
    require_own_files(tmp_path / "checkpoint-2")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(StoreError, match="belongs to another user, and DeepSpeed's state can run code"):
        require_own_files(tmp_path / "checkpoint-2")


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_the_disk_is_not_begun(
    workspace: Workspace, tiny_config: Make, train_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(epochs=4, save_steps=2)
    folder = resume_dir(config, workspace, train_path)

    def usage(path: Path) -> Any:
        free = 10**6 if complete_checkpoints(folder) else 10**12
        return shutil._ntuple_diskusage(10**12, 0, free)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(StoreError, match=r"a checkpoint needs 0\.\d+ GB, and the disk has 0\.00 GB left; free some"):
        run(config, workspace, train_path)
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.undo()
    assert run(config, workspace, train_path).manifest.counts["num_steps"] == 8


def test_stopping_after_a_checkpoint_keeps_it_and_says_how_to_go_on(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    config = tiny_config(epochs=4, save_steps=3)
    folder = resume_dir(config, workspace, train_path)
    with pytest.raises(StoppedEarly, match=r"stopped after step 3 of 8, .* without --stop-after-checkpoint to go on"):
        run(config.model_copy(update={"stop_after_checkpoint": True}), workspace, train_path)
    assert [p.name for p in complete_checkpoints(folder)] == ["checkpoint-3"]
    assert checkpoints.step_of(folder / "checkpoint-3") == 3
    steps = [json.loads(line)["done"] for line in (folder.parent / "events.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3]
