"""Batch scripts for Slurm: what they say, and what they do when stand-ins for Slurm's commands run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lark_engine.errors import ConfigError
from lark_engine.jobs.batch_script import batch_script
from lark_engine.store.workspace import Workspace
from tests.training.conftest import write_train_file

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
SCORE = ["lark", "score", "--input", "pool"]
TRAIN = ["lark", "train", "lora", "--train-data", "chi2-b3"]

# Stand-ins: srun notes what it is to run and becomes the program of the test; scancel reaches what srun has started and
# not the script; scontrol knows the machines, and notes what goes back into the queue.
SRUN = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
here = Path(__file__).parent
(here / "srun.json").write_text(json.dumps(sys.argv[1:]))
(here / "step").write_text(str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", (here / "program.py").read_text()])
"""
SCANCEL = """#!/bin/bash
[ "$*" = "--signal=TERM 4711" ] && kill -TERM "$(cat "${0%/*}/step")"
"""
SCONTROL = """#!/bin/bash
if [ "$*" = "show hostnames node-[a-b]" ]; then echo node-a; echo node-b; else echo "$*" >> "${0%/*}/requeued"; fi
"""
# As every stage of lark: TERM ends it in order, with the status of Ctrl-C.
STAGE = """
import signal, sys, time
def end(*_):
    time.sleep(0.5)
    print("ended in order", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
print("begun", flush=True)
time.sleep(60)
"""


class Cluster:
    """Slurm's commands as stand-ins in a folder. `program`: what runs in the place of every step."""

    def __init__(self, folder: Path, program: str = ""):
        self.folder = folder
        for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL), ("program.py", program)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def start(self, script: str) -> subprocess.Popen[str]:
        path = self.folder / "lark.sbatch"
        path.write_text(script)
        slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node-[a-b]"}
        return subprocess.Popen(
            ["/bin/bash", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", **slurm},
        )  # fmt: skip

    def run(self, script: str) -> int:
        process = self.start(script)
        process.communicate(timeout=60)
        return process.returncode

    @property
    def step(self) -> list[str]:
        """What srun was to run."""
        return list(json.loads((self.folder / "srun.json").read_text()))

    @property
    def requeued(self) -> list[str]:
        path = self.folder / "requeued"
        return path.read_text().splitlines() if path.exists() else []


def script_of(command: Sequence[str], **options: Any) -> str:
    """The script, which bash can read."""
    values: dict[str, Any] = {"workspace": Path("/w"), "devices": 1, "partition": None, "name": "demo", **options}
    script = batch_script(command, **values)
    subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=True)
    return script


def sbatch_lines(script: str) -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)


def test_the_first_lines_are_the_options_of_sbatch() -> None:
    script = script_of(
        TRAIN, workspace=Path("/data/my work"), nodes=2, devices=8, cpus=16, time_limit="1-12:00:00", partition="a,b",
        name="train lora", signal_s=300,
    )  # fmt: skip
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert sbatch_lines(script) == [
        "--job-name=train-lora", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=16",
        "--time=1-12:00:00", "--partition=a,b", '--output="/data/my work/jobs/slurm-%j.log"', "--open-mode=append",
        "--requeue", "--signal=B:USR1@300",
    ]  # fmt: skip
    assert "# Save this on the cluster as lark.sbatch and submit it" in script
    assert "#   mkdir -p '/data/my work/jobs' && sbatch lark.sbatch" in script
    assert "this script resumes: it goes on from what is saved" in script


def test_what_is_not_given_is_left_to_the_cluster() -> None:
    assert sbatch_lines(script_of(SCORE, devices=0)) == [
        "--job-name=demo", "--nodes=1", "--ntasks-per-node=1", '--output="/w/jobs/slurm-%j.log"', "--open-mode=append",
        "--requeue", "--signal=B:USR1@120",
    ]  # fmt: skip


def test_a_run_that_ends_by_itself_ends_the_script_with_its_status(tmp_path: Path) -> None:
    for status in (0, 2, 130):
        cluster = Cluster(tmp_path, f"raise SystemExit({status})")
        assert cluster.run(script_of(SCORE)) == status
        assert cluster.requeued == []


def test_before_its_time_is_up_the_run_ends_in_order_and_goes_back_into_the_queue(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, STAGE)
    process = cluster.start(script_of(SCORE))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)  # again changes nothing
    output, _ = process.communicate(timeout=30)
    assert output == "ended in order\n"
    assert process.returncode == 0
    assert cluster.requeued == ["requeue 4711"]


def test_a_run_that_succeeds_in_the_time_that_is_left_is_not_run_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, STAGE.replace("130", "0"))
    process = cluster.start(script_of(SCORE))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert cluster.requeued == []


def test_a_stage_runs_once_with_every_word_as_it_was_given(tmp_path: Path) -> None:
    hostile = "a b'\"$(touch pwned)`touch pwned`; exit 3 & \\ * # !\nnext --x"
    cluster = Cluster(tmp_path)
    assert cluster.run(script_of([*SCORE, "--where", hostile, ""], cpus=4, cwd=tmp_path)) == 0
    assert cluster.step[:4] == ["--cpus-per-task=4", "--nodes=1", "--ntasks=1", sys.executable]
    assert cluster.step[-7:] == ["lark_engine.cli", "score", "--input", "pool", "--where", hostile, ""]
    assert not (tmp_path / "pwned").exists()


def test_training_on_one_machine_runs_under_torchrun(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    hostile = "$(touch pwned) '"
    assert cluster.run(script_of([*TRAIN, "--name", hostile], devices=8, cwd=tmp_path)) == 0
    words = ["-m", "lark_engine.cli", *TRAIN[1:], "--name", hostile]
    assert cluster.step == [*TORCHRUN, "--standalone", "--nproc_per_node", "8", *words]
    assert not (tmp_path / "pwned").exists()


def test_training_on_several_machines_meets_at_the_first_of_them(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    said = ["--nproc_per_node=8", "--nnodes", "2", "--node-rank", "0", "--rdzv-endpoint", "head:29500", "--epochs", "1"]
    assert cluster.run(script_of([*TRAIN, *said, "--", "--nnodes"], nodes=2, devices=8)) == 0
    assert cluster.step == [
        "--kill-on-bad-exit=1", *TORCHRUN, "--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "node-a:24711",
        "--rdzv_id", "4711", "--nproc_per_node", "8", "-m", "lark_engine.cli", *TRAIN[1:], "--epochs", "1", "--",
        "--nnodes",
    ]  # fmt: skip


def test_without_gpus_the_command_says_how_many_processes_train(tmp_path: Path) -> None:
    for said, processes in ((["--nproc-per-node", "4"], "4"), ([], "1")):
        cluster = Cluster(tmp_path)
        assert cluster.run(script_of([*TRAIN, "--device", "cpu", *said], devices=0)) == 0
        assert cluster.step[3:6] == ["--standalone", "--nproc_per_node", processes]


@pytest.mark.parametrize("command", [["lark", "train", "merge", "lora"], [*TRAIN, "--preflight"], ["lark", "sweep"]])
def test_what_is_no_training_run_does_not_run_under_torchrun(command: list[str], tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    assert cluster.run(script_of(command)) == 0
    assert "torch.distributed.run" not in cluster.step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a\n#SBATCH"}, "name 'a\\n#SBATCH' cannot stand in a batch script; give letters"),
        ({"name": "#x"}, "name '#x' cannot stand in a batch script; give letters"),
        ({"partition": "gpu --uid=0"}, "partition 'gpu --uid=0' cannot stand in a batch script; give names"),
        ({"partition": "gpu\n"}, "partition 'gpu\\n' cannot stand in a batch script; give names"),
        ({"time_limit": "1h"}, "time limit '1h' cannot stand in a batch script; give a time as MINUTES, HH:MM:SS"),
        ({"time_limit": "#1"}, "time limit '#1' cannot stand in a batch script; give a time as MINUTES, HH:MM:SS"),
        ({"workspace": Path("/w\nx")}, "workspace '/w\\nx' cannot stand in a batch script; give a path without quotes"),
        ({"workspace": Path('/w"x')}, "workspace '/w\"x' cannot stand in a batch script; give a path without quotes"),
        ({"nodes": 0}, "a batch script with nodes 0: give 1 or more"),
        ({"devices": -1}, "a batch script with devices -1: give 0 or more"),
        ({"cpus": 0}, "a batch script with cpus 0: give 1 or more"),
        ({"signal_s": 0}, "a batch script with signal 0: give 1 or more"),
    ],
)
def test_what_slurm_would_misread_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        script_of(SCORE, **options)


@pytest.mark.parametrize("time_limit", ["90", "90:00", "24:00:00", "2-12", "2-12:30", "2-12:30:00"])
def test_times_are_what_slurm_takes(time_limit: str) -> None:
    assert f"--time={time_limit}" in sbatch_lines(script_of(SCORE, time_limit=time_limit))


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ([*TRAIN, "--nnodes", "4"], {"nodes": 2}, "the command says --nnodes 4 and the batch script is for 2; give"),
        (
            [*TRAIN, "--nproc_per_node=4"],
            {"devices": 8},
            "the command says --nproc-per-node 4 and the batch script has",
        ),
        (SCORE, {"nodes": 2}, "'lark score --input' runs on one machine; only training runs on 2"),
    ],
)
def test_machines_and_devices_that_contradict_the_command_are_refused(
    command: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        script_of(command, **options)


@pytest.mark.slow
def test_two_machines_train_one_model_with_the_script_as_it_is(
    tmp_path: Path, tiny_model_dir: Path, workspace: Workspace
) -> None:
    cluster = Cluster(tmp_path)
    # Two tasks for one: both machines are this one.
    (tmp_path / "srun").write_text('#!/bin/bash\nshift\n"$@" & first=$!\n"$@" && wait "$first"\n')
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho localhost; echo localhost\n")
    train_path = write_train_file(tmp_path / "train.jsonl")
    command = [
        "lark", "train", "full", "--train-data", str(train_path), "--student", str(tiny_model_dir), "--device", "cpu",
        "--dtype", "float32", "--epochs", "1", "--global-batch", "4", "--workspace", str(workspace.root),
    ]  # fmt: skip
    process = cluster.start(script_of(command, nodes=2, devices=0, workspace=workspace.root))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    [checkpoint] = workspace.list("checkpoints")
    assert checkpoint.manifest.counts["num_steps"] == 2
    assert "2 processes" in output
