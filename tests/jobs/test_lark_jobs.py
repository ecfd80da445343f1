"""Real stages as jobs: adopted when their supervisor is killed, stopped after a checkpoint, seen from a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lark_engine.errors import ConfigError, DeviceError, StoppedEarly, StoreError
from lark_engine.jobs import actions
from lark_engine.jobs.commands import require_lark, stage_of
from lark_engine.jobs.folder import Job, all_jobs
from lark_engine.jobs.status import JobView, list_jobs, view
from lark_engine.store.events import EventLog, EventReader, JobLink, Progress, link_job
from lark_engine.store.workspace import Workspace
from tests.fake_server import FakeServer
from tests.jobs.kit import (
    command_pid,
    kill,
    new_job,
    processes_of,
    python,
    supervisor_pid,
    wait_for,
    wait_for_state,
    write_pool,
)

pytestmark = pytest.mark.slow

LARK = [sys.executable, "-m", "lark_engine.cli"]


@pytest.fixture
def pool_path(tmp_path: Path) -> Path:
    return write_pool(tmp_path / "pool.jsonl")


@pytest.fixture
def slow_server(fake_server: FakeServer) -> FakeServer:
    """A server that takes its time, so that a stage is under way for as long as a test wants."""
    fake_server.pause_s = 0.2
    return fake_server


def generate(root: Path, server: FakeServer) -> list[str]:
    """A real stage of 160 samples, one after the other."""
    benchmark = root.parent / "sums.json"
    benchmark.write_text(json.dumps([{"prompt": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(4)]))
    words = ["lark", "generate", "--backend", "endpoint", "--endpoint", server.url, "--benchmark", str(benchmark)]
    return [*words, "--n-samples", "40", "--max-concurrency", "1", "--workspace", str(root)]


def submitted(root: Path, command: list[str]) -> Job:
    return actions.submit(root, command, cwd=root.parent).job


def under_way(job: Job) -> JobView:
    """The job once it has sampled something."""

    def samples() -> JobView | None:
        found = view(job)
        return found if found.event and found.event["done"] else None

    found: JobView = wait_for(samples, job)
    return found


def ends_well(job: Job, server: FakeServer) -> JobView:
    """Let the server hurry, and wait for the end: every sample is there once."""
    server.pause_s = 0.0
    found = wait_for_state(job, "succeeded", "failed", "interrupted")
    assert found.state == "succeeded", job.log_path.read_text()
    [artifact] = Workspace(job.workspace_root).list("evals")
    rows = [json.loads(line) for line in (artifact.path / "generations.jsonl").read_text().splitlines()]
    assert len(rows) == len({(row["problem_id"], row["sample_index"]) for row in rows}) == 160
    assert (found.verdict or {})["artifacts"] == [f"evals/{artifact.id}"]
    return found


def test_a_stage_whose_supervisor_is_killed_calls_another_one_and_loses_nothing(
    root: Path, slow_server: FakeServer
) -> None:
    job = submitted(root, generate(root, slow_server))
    under_way(job)
    command = command_pid(job)
    for _ in range(2):  # and once more
        before = supervisor_pid(job)
        kill(before)
        wait_for(lambda before=before: supervisor_pid(job) != before, job)
        found = wait_for_state(job, "running")
        assert found.launch is not None and found.launch.adopted
    assert command_pid(job) == command
    assert (ends_well(job, slow_server).attempt, job.attempts()) == (1, [])
    wait_for(lambda: processes_of(job) == [], job)


def test_a_stage_that_ends_while_it_has_no_supervisor_gets_its_verdict(root: Path, slow_server: FakeServer) -> None:
    job = submitted(root, generate(root, slow_server))
    under_way(job)
    slow_server.pause_s = 0.0
    kill(supervisor_pid(job))
    assert ends_well(job, slow_server).attempt == 1


def test_a_stage_is_stopped_after_what_it_keeps_and_resumed_without_loss(root: Path, slow_server: FakeServer) -> None:
    job = submitted(root, generate(root, slow_server))
    under_way(job)
    found = actions.stop(job, "after_checkpoint")
    assert found.state == "cancelled"
    assert found.why.startswith("stopped after ") and found.why.endswith("run the same command again, it resumes")
    kept = found.event
    assert kept is not None
    assert actions.resume(job).attempt == 2
    wait_for(lambda: (view(job).event or kept)["time"] > kept["time"], job)
    ends_well(job, slow_server)
    after = [event for event in EventReader(job.events_path) if event["time"] > kept["time"] and "rate" in event]
    assert after[0]["done"] == kept["done"] + 1  # nothing is sampled twice
    # One sample in at least 0.2 s, whatever an earlier process did: the time left is right from the first event on.
    assert after[0]["rate"] <= 5.1
    assert after[0]["eta_s"] >= (160 - after[0]["done"]) / 5.1
    assert [verdict["state"] for verdict in job.attempts()] == ["cancelled"]


def test_a_stage_that_is_told_to_stop_now_ends_in_order(root: Path, slow_server: FakeServer) -> None:
    job = submitted(root, generate(root, slow_server))
    under_way(job)
    verdict = actions.stop(job, "stop").verdict or {}
    assert (verdict["state"], verdict["signal"], verdict["message"]) == ("cancelled", None, "stopped as asked")
    assert "lark: interrupted; run the same command again, it resumes" in job.log_path.read_text()
    assert actions.resume(job).is_live
    ends_well(job, slow_server)


def test_a_supervisor_and_its_stage_killed_are_interrupted_and_resumed_without_loss(
    root: Path, slow_server: FakeServer
) -> None:
    job = submitted(root, generate(root, slow_server))
    under_way(job)
    command = command_pid(job)
    kill(supervisor_pid(job))
    kill(command)
    assert wait_for_state(job, "interrupted").why.startswith("its supervisor is gone without a verdict")
    assert actions.resume(job).attempt == 2
    ends_well(job, slow_server)
    assert job.attempts() == [{"state": "interrupted"}]


def test_two_resumes_at_once_are_one_run(root: Path, slow_server: FakeServer) -> None:
    job = submitted(root, generate(root, slow_server))
    under_way(job)
    actions.stop(job, "kill")
    script = (
        "import sys; from pathlib import Path; from lark_engine.jobs import actions; "
        "from lark_engine.jobs.folder import Job; actions.resume(Job(Path(sys.argv[1])))"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, str(job.folder)], stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert ends_well(job, slow_server).attempt == 2
    assert len(job.attempts()) == 1
    assert job.log_path.read_text().count("jobs: attempt 2: ") == 1


def in_a_terminal(root: Path, server: FakeServer) -> tuple[subprocess.Popen[str], Job]:
    """A stage as a user starts it, without submit."""
    process = subprocess.Popen(
        [*LARK, *generate(root, server)[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    [job] = wait_for(lambda: all_jobs(root))
    return process, job


def test_a_stage_in_a_terminal_is_a_job_that_anyone_sees_and_stops(root: Path, slow_server: FakeServer) -> None:
    process, job = in_a_terminal(root, slow_server)
    found = under_way(job)
    assert found.spec is not None and found.launch is not None
    assert (found.state, found.spec.launcher, found.spec.stage) == ("running", "terminal", "generate")
    assert list(found.spec.command) == generate(root, slow_server)
    assert found.launch.supervisor.pid == process.pid
    assert actions.stop(job, "stop").state == "cancelled"
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.splitlines()[-1] == "lark: interrupted; run the same command again, it resumes"
    # What is sampled is taken up by a job of the same command.
    assert actions.resume(job).is_live
    assert ends_well(job, slow_server).attempt == 2


def test_a_stage_in_a_terminal_stops_after_what_it_keeps_when_another_process_asks(
    root: Path, slow_server: FakeServer
) -> None:
    process, job = in_a_terminal(root, slow_server)
    under_way(job)
    assert actions.stop(job, "after_checkpoint").state == "cancelled"
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.splitlines()[-1].startswith("stopped after ")


def test_a_kill_of_a_stage_in_a_terminal_leaves_nothing_of_it(root: Path, slow_server: FakeServer) -> None:
    process, job = in_a_terminal(root, slow_server)
    under_way(job)
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(99)"], env={**os.environ, "LARK_JOB_ID": job.mark},
        start_new_session=True,
    )  # fmt: skip
    assert actions.stop(job, "kill").state == "cancelled"
    assert process.wait(30) == -signal.SIGKILL
    assert child.wait(30) == -signal.SIGKILL


def test_a_stage_in_a_terminal_deaf_to_ctrl_c_stops_when_it_is_asked(root: Path, slow_server: FakeServer) -> None:
    """As one that a script starts in the background."""
    words = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *LARK, *generate(root, slow_server)[1:]]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    [job] = wait_for(lambda: all_jobs(root))
    under_way(job)
    assert actions.stop(job, "stop").state == "cancelled"
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_stage_that_keeps_nothing_on_its_way_is_not_ended_as_if_it_did(root: Path, tmp_path: Path) -> None:
    """An import reads its source anew each time: what it has counted is not kept."""
    job = Job(tmp_path / "job")
    job.folder.mkdir()
    job.ask("after_checkpoint")
    link_job(JobLink(events_path=job.events_path, wants_stop=lambda: job.request() == "after_checkpoint"))
    try:
        with Progress(EventLog(tmp_path / "events.jsonl", "pool"), 10, "row", every_s=0) as progress:
            progress.update(1)
        keeps = Progress(EventLog(tmp_path / "events.jsonl", "labels"), 10, "row", every_s=0, resumes=True)
        with keeps, pytest.raises(StoppedEarly, match="stopped after 1 of 10 rows, which are kept"):
            keeps.update(1)
    finally:
        link_job(None)


def test_a_stage_in_a_terminal_that_is_killed_is_interrupted(root: Path, slow_server: FakeServer) -> None:
    process, job = in_a_terminal(root, slow_server)
    under_way(job)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert view(job).state == "interrupted"
    assert actions.resume(job).is_live
    ends_well(job, slow_server)


def test_a_stage_in_a_terminal_that_fails_keeps_its_verdict(root: Path) -> None:
    bad = root.parent / "bad.jsonl"
    bad.write_text("{\n")
    done = subprocess.run(
        [*LARK, "pool", "import", str(bad), "--workspace", str(root)], capture_output=True, timeout=60
    )
    assert done.returncode == 2
    [found] = list_jobs(root)
    verdict = found.verdict or {}
    assert (found.state, verdict["reason"], verdict["place"]) == ("failed", "bad_input", "bad.jsonl:1")


def test_a_mistake_in_the_options_makes_no_job(root: Path) -> None:
    done = subprocess.run([*LARK, "score", "--workspace", str(root)], capture_output=True, timeout=60)
    assert (done.returncode, b"Missing option" in done.stderr) == (2, True)
    assert all_jobs(root) == []


def test_a_name_that_is_no_text_is_no_job_and_says_what_it_always_said(root: Path) -> None:
    line = [*map(os.fsencode, LARK), b"pool", b"import", b"\xff.jsonl", b"--workspace", os.fsencode(root)]
    done = subprocess.run(line, capture_output=True, timeout=60)
    assert done.returncode == 2 and b"no such file" in done.stderr


def test_a_plan_makes_no_job(root: Path) -> None:
    recipe = root.parent / "recipe.yaml"
    recipe.write_text("name: x\n")
    subprocess.run([*LARK, "run", str(recipe), "--dry-run", "--workspace", str(root)], capture_output=True, timeout=60)
    subprocess.run([*LARK, "pool", "show", "--workspace", str(root)], capture_output=True, timeout=60)
    assert all_jobs(root) == []


def test_a_command_that_succeeds_in_a_terminal_names_what_it_made(root: Path, pool_path: Path) -> None:
    subprocess.run([*LARK, "pool", "import", str(pool_path), "--workspace", str(root)], check=True, timeout=120)
    [found] = list_jobs(root)
    [pool] = Workspace(root).list("pools")
    assert (found.state, (found.verdict or {})["artifacts"]) == ("succeeded", [f"pools/{pool.id}"])
    assert "LARK_JOB_ID" not in os.environ


def test_the_lock_of_a_supervisor_that_is_dying_is_waited_for_and_that_of_one_that_lives_is_not(root: Path) -> None:
    """A process counts as gone a moment before the system frees what it held."""
    job = new_job(root, python("pass"))
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('x', flush=True); "
    )
    for seconds, ends in ((1.0, True), (60.0, False)):
        holder = subprocess.Popen(
            [sys.executable, "-c", f"{code}time.sleep({seconds})", str(job.lock_path)], stdout=subprocess.PIPE
        )
        assert holder.stdout is not None and holder.stdout.readline() == b"x\n"
        if ends:
            actions._end_without_supervisor(job, "kill")
        else:
            with pytest.raises(StoreError, match="has a supervisor that lives"):
                actions.remove(job)
        holder.kill()
        holder.wait()


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        ("lark train lora --lr 1", "train lora"), ("lark score --input p", "score"), ("lark run recipe.yaml", "run"),
        ("lark score tokens --all", "score tokens"), ("lark pool import p", "pool import"),
    ],
)  # fmt: skip
def test_the_stage_of_a_command_is_its_first_words(command: str, stage: str) -> None:
    assert stage_of(command.split()) == stage


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], "a job runs a command of lark, and not 'nothing'"),
        (["rm", "-rf", "/"], "a job runs a command of lark, and not 'rm -rf /'"),
        (["lark"], "a job runs a command of lark, and not 'lark'"),
        (["lark", "jobs", "submit"], "'lark jobs' is no stage; run it without a job"),
        (["lark", "demo"], "a job leaves nothing; add --no-dashboard"),
        (["lark", "score", "\udcff"], "a word of the command is no text"),
        (["lark", "serve"], "'lark serve' is no stage; run it without a job"),
    ],
)
def test_a_job_runs_stages_and_nothing_else(command: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_lark(command)


def test_a_job_that_wants_more_devices_than_there_are_is_refused(root: Path) -> None:
    with pytest.raises(DeviceError, match="the job wants 999 CPU slots and this machine has"):
        actions.submit(root, ["lark", "score"], cwd=root.parent, devices=999)
    assert all_jobs(root) == []


def test_resume_of_what_runs_or_succeeded_is_refused_and_remove_too(root: Path, pool_path: Path) -> None:
    job = submitted(root, ["lark", "pool", "import", str(pool_path), "--workspace", str(root)])
    if view(job).is_live:
        with pytest.raises(StoreError, match="stop it first with: lark jobs stop"):
            actions.remove(job)
        with pytest.raises(StoreError, match="cannot be resumed"):
            actions.resume(job)
    wait_for_state(job, "succeeded")
    with pytest.raises(StoreError, match="is succeeded and cannot be resumed; clone it to run it again"):
        actions.resume(job)
    wait_for(lambda: processes_of(job) == [], job)
    actions.remove(job)
    assert (all_jobs(root), list((root / "jobs").iterdir())) == ([], [])


def test_a_clone_runs_the_command_again_with_what_was_changed(root: Path, pool_path: Path) -> None:
    job = submitted(root, ["lark", "pool", "import", str(pool_path), "--workspace", str(root)])
    wait_for_state(job, "succeeded")
    copy = actions.clone(job, root, ["--name", "other"])
    assert copy.spec is not None and copy.spec.cloned_from == job.id
    assert list(copy.spec.command)[-2:] == ["--name", "other"]
    wait_for_state(copy.job, "succeeded")
    assert sorted(pool.name for pool in Workspace(root).list("pools")) == ["other", "pool"]
