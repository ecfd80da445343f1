"""What a run would make and whether it would be resumed, as a process without torch sees it."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import TrainConfig
from lark_engine.store.workspace import Workspace
from lark_engine.training.plan import plan_from_outside, plan_train, train_data
from lark_engine.training.resume import Resume, resume_of
from lark_engine.training.spec import RESUME_DIR, SPEC

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize("changes", [{"device": "auto"}, {"device": "cpu"}, {"device": "auto", "dtype": "auto"}])
def test_the_plan_from_outside_is_that_of_training(
    workspace: Workspace, tiny_config: Make, train_path: Path, changes: dict[str, Any]
) -> None:
    config, data = tiny_config(**changes), train_data(str(train_path), workspace)
    assert plan_from_outside(config, workspace, data, has_cuda=False).id == plan_train(config, workspace, data)[0].id


def test_a_gpu_decides_the_precision_that_is_planned(workspace: Workspace, tiny_config: Make, train_path: Path) -> None:
    data = train_data(str(train_path), workspace)
    automatic = tiny_config(dtype="auto", device="auto")

    def planned(config: TrainConfig, *, has_cuda: bool) -> str:
        return plan_from_outside(config, workspace, data, has_cuda=has_cuda).id

    assert planned(automatic, has_cuda=False) == planned(tiny_config(dtype="float32"), has_cuda=False)
    assert planned(automatic, has_cuda=True) == planned(tiny_config(dtype="bfloat16"), has_cuda=False)


def test_planning_imports_no_torch() -> None:
    script = "import sys; import lark_engine.training.plan, lark_engine.training.resume; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr


def look(folder: Path, *, num_processes: int = 1, is_deepspeed: bool = False) -> Resume:
    return resume_of(folder, num_processes=num_processes, is_deepspeed=is_deepspeed, save_steps=50)


def save(folder: Path, step: int, *, complete: bool = True) -> None:
    checkpoint = folder / RESUME_DIR / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    if complete:
        (checkpoint / "COMPLETE").write_text("")


def test_a_run_begins_where_nothing_whole_is_saved(tmp_path: Path) -> None:
    sentence = "begins with step 1: it was never started; it can be resumed from every 50th step on"
    assert look(tmp_path / "run") == Resume(0, sentence)
    save(tmp_path / "run", 50, complete=False)
    assert look(tmp_path / "run").step == 0
    assert look(tmp_path / "run").sentence.startswith("begins with step 1: an earlier start of it saved nothing")


def test_a_run_goes_on_after_the_newest_step_that_is_whole(tmp_path: Path) -> None:
    save(tmp_path, 50)
    save(tmp_path, 100)
    save(tmp_path, 150, complete=False)
    assert look(tmp_path) == Resume(100, "goes on after step 100, which is saved")


def test_deepspeed_goes_on_only_with_as_many_processes(tmp_path: Path) -> None:
    save(tmp_path, 50)
    config = {"nproc_per_node": 2, "nnodes": 2}
    (tmp_path / RESUME_DIR / SPEC).write_text(json.dumps({"config": config}))
    assert look(tmp_path, num_processes=4, is_deepspeed=True).step == 50
    refused = look(tmp_path, num_processes=2, is_deepspeed=True)
    assert refused.step is None and refused.is_refused
    assert refused.sentence.startswith("begun with 4 processes, and DeepSpeed resumes it only with as many; choose 4")
    assert look(tmp_path, num_processes=2).step == 50


def test_a_run_that_is_being_trained_is_not_begun_again(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert look(tmp_path).step is None and not look(tmp_path).is_refused
        assert look(tmp_path).sentence.startswith("this very run is being trained now")


def test_a_finished_run_is_found(workspace: Workspace, tiny_config: Make, train_path: Path) -> None:
    plan = plan_from_outside(tiny_config(), workspace, train_data(str(train_path), workspace), has_cuda=False)
    workspace.build(plan, lambda draft: None)
    assert look(workspace.folder(plan)).sentence.startswith("this very run is finished")
