"""`lark jobs`: what each verb says, for people and as JSON, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lark_engine.cli.jobs import list_lines, show_lines
from lark_engine.jobs import actions
from lark_engine.jobs.folder import Job, all_jobs
from lark_engine.jobs.records import Heartbeat, Launch
from lark_engine.jobs.status import list_jobs, view
from lark_engine.processes import own_identity
from tests.cli.command_line import refuses, succeeds
from tests.jobs.kit import new_job, processes_of, python, wait_for, wait_for_state, write_pool

LARK = [sys.executable, "-m", "lark_engine.cli"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))
    yield tmp_path / "workspace"
    for job in all_jobs(tmp_path / "workspace"):
        if view(job).is_live and processes_of(job):
            actions.stop(job, "kill")


@pytest.fixture
def pool_path(tmp_path: Path) -> Path:
    return write_pool(tmp_path / "pool.jsonl")


def submit(root: Path, *words: str) -> Job:
    said = json.loads(succeeds("jobs", "submit", "--json", "--workspace", root, *words, workspace=root))
    return Job(Path(said["folder"]))


def submit_process(root: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As a user would: a process of its own, whose words after the command are the command's."""
    line = [*LARK, "jobs", "submit", "--workspace", str(root), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=60)


def test_submit_answers_with_a_launch_record_and_runs_exactly_what_it_shows(root: Path, pool_path: Path) -> None:
    done = submit_process(root, "--json", "lark", "pool", "import", "pool.jsonl", cwd=pool_path.parent)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["command"] == ["lark", "pool", "import", "pool.jsonl", "--workspace", str(root)]
    assert said["launch"]["supervisor"]["pid"] > 0
    assert said["cwd"] == str(pool_path.parent)
    job = Job(Path(said["folder"]))
    assert wait_for_state(job, "succeeded", "failed").state == "succeeded"
    shown = succeeds("jobs", "show", job.id, workspace=root)
    assert f"command    lark pool import pool.jsonl --workspace {root}" in shown
    assert "made       pools/pool-" in shown
    logged = json.loads(succeeds("jobs", "logs", job.id, "--json", workspace=root))
    assert any("lark pool import pool.jsonl" in line for line in logged["lines"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rm", "-rf", "x"], "a job runs a command of lark, and not 'rm -rf x'"),
        (["lark", "trian"], "lark trian: No such command 'trian'"),
        (["lark", "score", "--studnet", "x"], "lark score --studnet: No such option: --studnet"),
        (["lark", "score", "--batch-tokens", "many"], "Invalid value for '--batch-tokens'"),
        (["lark", "pool", "import", "x", "--workspace", "/another"], "the job's workspace is"),
        (["lark", "pool", "--help"], "only shows something; run it without a job"),
        (["lark", "jobs", "list"], "'lark jobs' is no stage"),
    ],
)  # fmt: skip
def test_submit_refuses_what_could_only_fail(root: Path, tmp_path: Path, words: list[str], said: str) -> None:
    done = submit_process(root, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.startswith("lark: ") and done.stderr.count("\n") == 1
    assert all_jobs(root) == []


def test_list_shows_states_and_reasons_and_waiting_jobs_in_their_order(root: Path) -> None:
    for priority in (1, 7):
        job = new_job(root, ("lark", "score"), priority=priority, device_kind="cpu", devices=1)
        beat(job, "queued", waits_for="1 of 1 CPU slot(s)")
        time.sleep(0.002)
    failed = new_job(root, ("lark", "select"))
    failed.write_done(
        {"state": "failed", "reason": "disk_full", "message": "the disk \x1b[31mis\nfull", "ended_at": 1.0}
    )
    lines = list_lines(list_jobs(root))
    assert [line.split()[1] for line in lines] == ["queued", "queued", "failed"]
    assert "priority 7 place 1; waits for 1 of 1 CPU slot(s)" in lines[0]
    assert "priority 1 place 2" in lines[1]
    assert lines[2].endswith(" disk_full: the disk [31mis full")
    listed = json.loads(succeeds("jobs", "list", "--json", workspace=root))
    assert [found["state"] for found in listed] == ["failed", "queued", "queued"]
    only = json.loads(succeeds("jobs", "list", "--json", "--state", "failed", workspace=root))
    assert [found["id"] for found in only] == [failed.id]


def beat(job: Job, phase: str, **fields: Any) -> None:
    heartbeat = Heartbeat(job.folder)
    heartbeat.write(phase, **fields)
    heartbeat.close()
    job.write_launch(Launch(supervisor=own_identity()))


def test_a_workspace_without_jobs_says_how_to_start_one(root: Path) -> None:
    assert succeeds("jobs", "list", workspace=root) == "no jobs; start one with: lark jobs submit lark …\n"
    assert succeeds("jobs", "list", "--state", "failed", workspace=root) == "no jobs are failed\n"
    assert refuses("jobs", "show", "x", workspace=root).endswith("; the workspace holds none yet")


def test_show_says_what_is_known_of_a_job_that_failed(root: Path) -> None:
    job = new_job(root, ("lark", "score", "--student", "a b"), device_kind="cpu", devices=1)
    beat(job, "running")
    job.events_path.write_text(
        '{"time": 1, "stage": "score", "done": 250, "total": 1000, "unit": "token", "rate": 1.0, "eta_s": 750.0}\n'
    )
    job.write_done(
        {"state": "failed", "reason": "disk_full", "message": "the disk is full", "place": None, "remedy": "free some"}
    )
    lines = show_lines(view(job))
    assert lines[0] == f"{job.id}: failed: disk_full (the disk is full)"
    assert lines[1] == "command    lark score --student 'a b'"
    assert "progress   score: 250 of 1,000 tokens (25.0%)" in lines
    assert "remedy     free some" in lines


def test_logs_shows_the_end_and_follows_to_the_end_of_the_job(root: Path, pool_path: Path) -> None:
    seen = root.parent / "seen"
    until = f"while not pathlib.Path({str(seen)!r}).exists(): print('a', 'line', flush=True); time.sleep(0.2)"
    job = new_job(root, python(f"import pathlib, time\n{until}\nprint('the', 'end')"))
    actions.launch(job)
    line = [*LARK, "jobs", "logs", job.id, "--follow", "--lines", "0", "--workspace", str(root)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        told = iter(following.stdout.readline, "")
        assert next(told) == "a line\n"
        seen.touch()  # it ends when the one that follows has shown a line
        rest = list(told)
    assert "the end\n" in rest
    assert rest[-1].endswith("jobs: succeeded\n")
    assert succeeds("jobs", "logs", job.id, "-n", "1", workspace=root).endswith("jobs: succeeded\n")


def test_stop_resume_and_remove_by_the_command_line(root: Path, pool_path: Path) -> None:
    job = new_job(root, python("import time; print('at', 'work', flush=True); time.sleep(60)"))
    actions.launch(job)
    wait_for(lambda: "at work" in job.log_path.read_text(), job)
    assert " cancelled " in succeeds("jobs", "stop", job.id, "--kill", workspace=root)
    assert "has ended already: cancelled" in refuses("jobs", "stop", job.id, workspace=root)
    assert "choose one" in refuses("jobs", "stop", job.id, "--kill", "--after-checkpoint", workspace=root)
    assert "a job runs a command of lark" in refuses("jobs", "resume", job.id, workspace=root)
    wait_for(lambda: processes_of(job) == [], job)
    assert succeeds("jobs", "remove", job.id, workspace=root) == f"removed {job.id}\n"
    assert all_jobs(root) == []


def test_clone_takes_the_command_with_changes_and_refuses_what_there_is_not(root: Path, pool_path: Path) -> None:
    done = submit_process(root, "--json", "lark", "pool", "import", str(pool_path), cwd=pool_path.parent)
    job = Job(Path(json.loads(done.stdout)["folder"]))
    wait_for_state(job, "succeeded")
    line = [*LARK, "jobs", "clone", "--json", "--workspace", str(root), job.id]
    refused = subprocess.run([*line, "--nmae", "x"], capture_output=True, text=True, timeout=60)
    assert (refused.returncode, "No such option: --nmae" in refused.stderr) == (2, True)
    cloned = subprocess.run([*line, "--name", "x"], capture_output=True, text=True, timeout=60)
    copy = Job(Path(json.loads(cloned.stdout)["folder"]))
    assert wait_for_state(copy, "succeeded", "failed").state == "succeeded"
    assert view(copy).as_json()["cloned_from"] == job.id


def test_the_options_of_submit_are_those_of_the_job_and_of_its_clone(root: Path, pool_path: Path) -> None:
    options = ["--json", "--priority", "7", "--retries", "2", "--devices", "1"]
    done = submit_process(root, *options, "lark", "pool", "import", str(pool_path), cwd=pool_path.parent)
    said = json.loads(done.stdout)
    needs = {"kind": "cpu", "count": 1}
    assert (said["priority"], said["max_retries"], said["needs"]) == (7, 2, needs)
    job = Job(Path(said["folder"]))
    wait_for_state(job, "succeeded")
    line = [*LARK, "jobs", "clone", "--priority", "3", "--workspace", str(root), job.id, "--json"]
    cloned = json.loads(subprocess.run(line, capture_output=True, text=True, timeout=60).stdout)
    assert (cloned["priority"], cloned["max_retries"], cloned["needs"]) == (3, 2, needs)
    wait_for_state(Job(Path(cloned["folder"])), "succeeded")


def test_a_ray_job_without_an_address_is_refused(root: Path, tmp_path: Path) -> None:
    done = submit_process(root, "--launcher", "ray", "lark", "pool", "import", "x", cwd=tmp_path)
    assert (done.returncode, "launcher 'ray' needs an address" in done.stderr) == (2, True)
    words = ["--launcher", "ray", "--address", "http://127.0.0.1:9", "lark", "pool", "import", "x"]
    assert "cannot be reached at http://127.0.0.1:9" in submit_process(root, *words, cwd=tmp_path).stderr
    assert {found.state for found in list_jobs(root)} == {"failed"}


def test_a_script_is_printed_and_nothing_is_started(root: Path, tmp_path: Path) -> None:
    options = [
        "--launcher",
        "script",
        "--devices",
        "8",
        "--nodes",
        "2",
        "--time-limit",
        "1-00:00:00",
        "--partition",
        "a",
    ]
    words = ["lark", "train", "lora", "--train-data", "s", "--student", "m"]
    done = submit_process(root, *options, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=train-lora\n")
    for option in ("--nodes=2", "--gpus-per-node=8", "--time=1-00:00:00", "--partition=a", "--requeue"):
        assert f"#SBATCH {option}\n" in done.stdout
    assert all_jobs(root) == []
