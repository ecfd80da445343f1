"""What a supervisor does with a real command, and what is left when any of the processes is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lark_engine.errors import LarkError, StoreError
from lark_engine.jobs import actions
from lark_engine.jobs.folder import Job
from lark_engine.jobs.status import view
from lark_engine.processes import identity_of
from tests.jobs.kit import (
    command_pid,
    kill,
    new_job,
    processes_of,
    python,
    start,
    supervisor_pid,
    wait_for,
    wait_for_state,
    wait_for_text,
)

pytestmark = pytest.mark.slow

SLEEP = python("import time; print('at', 'work', flush=True); time.sleep(120)")
_IMPORTS = (
    "import sys, time; from pathlib import Path; from lark_engine.jobs import actions; "
    "from lark_engine.jobs.folder import Job"
)
# Two children: one leaves the session and gives itself a title, as vLLM's do; one also drops its environment. Both
# ignore TERM, and their parents end at once.
STUBBORN = python(
    textwrap.dedent("""
    import subprocess, sys, time
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    titled = deaf + "import setproctitle; setproctitle.setproctitle('VLLM::EngineCore'); time.sleep(120)"
    sleeps = deaf + "time.sleep(120)"
    bare = "import subprocess, sys; " \\
        f"subprocess.Popen([sys.executable, '-c', {sleeps!r}], env={{}}, start_new_session=True)"
    subprocess.Popen([sys.executable, "-c", titled], start_new_session=True)
    subprocess.run([sys.executable, "-c", bare])
    time.sleep(1)
    print("at", "work", flush=True)
    time.sleep(120)
    """)
)


def test_a_command_that_ends_well_succeeds(root: Path) -> None:
    job = start(root, python("import sys; print('out'); print('err', file=sys.stderr)"))
    found = wait_for_state(job, "succeeded", "failed")
    assert found.state == "succeeded"
    verdict = found.verdict or {}
    assert (verdict["exit_code"], verdict["signal"], verdict["processes_left"]) == (0, None, [])
    said = job.log_path.read_text()
    assert "out\n" in said and "err\n" in said
    assert "out" in job.excerpt_path.read_text()
    wait_for(lambda: processes_of(job) == [], job)


def test_the_command_gets_its_words_as_they_are_and_no_shell_sees_them(root: Path) -> None:
    words = ("$HOME `id` \"x\" 'y' ; echo z", "two\nlines", "", "*", "–ĝ")
    job = start(root, (*python("import json, sys; print(json.dumps(sys.argv[1:]))"), *words))
    wait_for_state(job, "succeeded")
    assert json.dumps(list(words)) in job.log_path.read_text()


def test_what_lies_in_the_jobs_folder_of_work_is_not_imported(root: Path) -> None:
    """A user's folder may hold a file that is called as some module is."""
    root.mkdir()
    for name in ("h2", "psutil", "logging", "tqdm"):
        (root.parent / f"{name}.py").write_text("raise SystemExit('imported from the folder of work')")
    job = start(root, ("lark", "pool", "show", "--workspace", str(root)))
    found = wait_for_state(job, "succeeded", "failed")
    assert found.state == "succeeded", job.log_path.read_text()


def test_a_command_that_fails_has_a_verdict_with_cause_and_remedy(root: Path) -> None:
    bad = root.parent / "pool.jsonl"
    bad.write_text("{\n")
    job = start(root, ("lark", "pool", "import", str(bad), "--workspace", str(root)))
    verdict = wait_for_state(job, "failed").verdict or {}
    assert (verdict["reason"], verdict["place"], verdict["exit_code"]) == ("bad_input", "pool.jsonl:1", 2)
    assert "--skip-bad" in verdict["remedy"]


def test_a_command_that_cannot_be_started_fails(root: Path) -> None:
    job = start(root, ("/nonexistent/program", "x"))
    verdict = wait_for_state(job, "failed").verdict or {}
    assert "/nonexistent/program: No such file or directory" in verdict["message"]


def test_a_folder_of_work_that_is_gone_fails(root: Path) -> None:
    job = new_job(root, python("pass"))
    spec = json.loads((job.folder / "spec.json").read_text())
    (job.folder / "spec.json").write_text(json.dumps({**spec, "cwd": str(root / "gone")}))
    actions.launch(job)
    verdict = wait_for_state(job, "failed").verdict or {}
    assert f"{root / 'gone'}: No such file or directory" in verdict["message"]


@pytest.mark.parametrize("request_", ["stop", "kill"])
def test_a_stop_leaves_no_process_however_it_hides(root: Path, request_: str) -> None:
    job = start(root, STUBBORN)
    wait_for_text(job.log_path, "at work", job)
    assert len(processes_of(job)) == 4  # supervisor, command, and the two that left the session
    before = processes_of(job)
    found = actions.stop(job, request_)  # type: ignore[arg-type]
    assert found.state == "cancelled"
    verdict = found.verdict or {}
    assert (verdict["request"], verdict["processes_left"]) == (request_, [])
    wait_for(lambda: not any(is_alive(pid) for pid in before), job)


def test_a_command_that_does_not_end_when_asked_is_killed(root: Path) -> None:
    deaf = python(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('at', 'work', flush=True); time.sleep(99)"
    )
    job = start_with(root, deaf, GRACE_S=0.5)
    wait_for_text(job.log_path, "at work", job)
    verdict = actions.stop(job, "stop").verdict or {}
    assert (verdict["state"], verdict["signal"]) == ("cancelled", signal.SIGKILL)


def test_what_a_command_leaves_behind_when_it_ends_by_itself_is_ended(root: Path) -> None:
    leaves = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    job = start(root, python(leaves))
    assert wait_for_state(job, "succeeded", "failed").state == "succeeded"
    wait_for(lambda: processes_of(job) == [], job)
    assert "ending 1 process(es) that the command left" in job.log_path.read_text()


def test_a_stop_ends_no_process_of_another_job_or_of_nobody(root: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    other, job = start(root, SLEEP), start(root, SLEEP)
    for one in (other, job):
        wait_for_text(one.log_path, "at work", one)
    actions.stop(job, "kill")
    assert view(other).state == "running"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    actions.stop(other, "kill")


def test_two_stops_at_once_are_one_stop_and_the_stronger_holds(root: Path) -> None:
    job = start(root, SLEEP)
    wait_for_text(job.log_path, "at work", job)
    script = f"{_IMPORTS}; print(actions.stop(Job(Path(sys.argv[1])), sys.argv[2]).state)"
    stops = [
        subprocess.Popen([sys.executable, "-c", script, str(job.folder), request], stdout=subprocess.PIPE, text=True)
        for request in ("stop", "kill", "stop")
    ]
    ended = [stop.communicate(timeout=60) for stop in stops]
    # One that came when the job had ended already is told so; nobody breaks anything.
    assert {"cancelled"} <= {out.strip() for out, _ in ended} <= {"cancelled", ""}
    assert view(job).state == "cancelled"
    assert len(list(job.folder.glob("attempts/*"))) == 0


def test_a_stop_of_a_job_that_has_ended_is_refused(root: Path) -> None:
    job = start(root, python("pass"))
    wait_for_state(job, "succeeded")
    with pytest.raises(StoreError, match="has ended already: succeeded"):
        actions.stop(job, "stop")


def test_the_launching_process_killed_is_nothing_to_the_job(root: Path) -> None:
    job = new_job(root, SLEEP)
    script = f"{_IMPORTS}; actions.launch(Job(Path(sys.argv[1]))); print('launched', flush=True); time.sleep(99)"
    launcher = subprocess.Popen([sys.executable, "-c", script, str(job.folder)], stdout=subprocess.PIPE)
    assert launcher.stdout is not None and launcher.stdout.readline() == b"launched\n"
    launcher.kill()
    launcher.wait()
    wait_for_text(job.log_path, "at work", job)
    assert view(job).state == "running"
    assert actions.stop(job, "stop").state == "cancelled"


def test_a_worker_killed_is_a_failure_that_says_so(root: Path) -> None:
    job = start(root, SLEEP)
    wait_for_text(job.log_path, "at work", job)
    kill(command_pid(job))
    verdict = wait_for_state(job, "failed").verdict or {}
    assert (verdict["reason"], verdict["signal"], verdict["is_transient"]) == ("killed", signal.SIGKILL, True)


def test_a_supervisor_killed_leaves_a_command_of_others_running_and_it_can_be_ended(root: Path) -> None:
    """A command that is not ours calls no new supervisor; it goes on, and a stop ends it all the same."""
    job = start(root, STUBBORN)
    wait_for_text(job.log_path, "at work", job)
    kill(supervisor_pid(job))
    found = wait_for_state(job, "running")
    wait_for(lambda: "its supervisor is gone" in view(job).why, job)
    assert found.is_live
    found = actions.stop(job, "kill")
    assert found.state == "cancelled"
    assert "without a supervisor" in found.why


def test_resume_has_a_new_supervisor_take_over_a_run_that_goes_on(root: Path) -> None:
    job = start(root, python("import time; print('at', 'work', flush=True); time.sleep(9); print('done')"))
    wait_for_text(job.log_path, "at work", job)
    command = command_pid(job)
    kill(supervisor_pid(job))
    wait_for(lambda: "its supervisor is gone" in view(job).why, job)
    found = actions.resume(job)
    assert found.launch is not None and found.launch.adopted
    assert command_pid(job) == command
    found = wait_for_state(job, "succeeded", "failed")
    # Nobody saw its exit status, and a program that is not ours leaves no word: it may have failed.
    assert (found.state, (found.verdict or {})["reason"]) == ("failed", "killed")


def test_a_supervisor_and_its_command_killed_are_marked_interrupted_and_resume_runs_again(root: Path) -> None:
    marker = root.parent / "ran"
    code = f"""
import pathlib, time
marker = pathlib.Path({str(marker)!r})
again = marker.exists()
marker.touch()
time.sleep(0 if again else 99)
"""
    job = start(root, python(code))
    wait_for(marker.exists, job)
    command = command_pid(job)
    kill(supervisor_pid(job))
    kill(command)
    found = wait_for_state(job, "interrupted")
    assert found.why == "its supervisor is gone without a verdict: killed, or the machine went down"
    job.begin_again()  # as resume does, which takes commands of ours only
    actions.launch(job)
    found = wait_for_state(job, "succeeded")
    assert found.attempt == 2
    assert job.attempts() == [{"state": "interrupted"}]


def test_a_supervisor_that_is_told_to_end_ends_the_command_and_the_job_can_be_resumed(root: Path) -> None:
    job = start(root, SLEEP)
    wait_for_text(job.log_path, "at work", job)
    os.kill(supervisor_pid(job), signal.SIGTERM)
    assert wait_for_state(job, "interrupted").state == "interrupted"
    wait_for(lambda: processes_of(job) == [], job)


def test_a_kill_ends_a_run_whose_supervisor_hangs(root: Path) -> None:
    job = start(root, STUBBORN)
    wait_for_text(job.log_path, "at work", job)
    before = processes_of(job)
    os.kill(supervisor_pid(job), signal.SIGSTOP)
    with pytest.raises(StoreError, match="has not ended within 1 s"):
        actions.stop(job, "stop", timeout_s=1)
    assert actions.stop(job, "kill", timeout_s=1).state == "cancelled"
    assert [pid for pid in before if is_alive(pid)] == []


def test_a_launch_that_comes_second_breaks_nothing(root: Path) -> None:
    job = start(root, SLEEP)
    wait_for_text(job.log_path, "at work", job)
    (job.folder / "launch.json").rename(job.folder / "aside")  # as if the first had not come to write it yet
    actions.launch(job)
    (job.folder / "aside").rename(job.folder / "launch.json")
    assert job.done() is None
    assert view(job).state == "running"
    actions.stop(job, "kill")


def test_a_job_that_can_never_have_its_devices_fails_and_holds_nobody_up(root: Path) -> None:
    job = start(root, SLEEP, device_kind="cpu", devices=999)
    verdict = wait_for_state(job, "failed").verdict or {}
    assert verdict["reason"] == "device_missing"
    assert "the job wants 999 CPU slots and this machine has" in verdict["message"]


def test_a_copy_of_a_workspace_is_another_workspace(root: Path) -> None:
    job = start(root, SLEEP)
    wait_for_text(job.log_path, "at work", job)
    shutil.copytree(root, root.parent / "copy", ignore=shutil.ignore_patterns(".reserve"))
    copy = Job(root.parent / "copy" / "jobs" / job.id)
    assert processes_of(job) != []
    actions._end_without_supervisor(copy, "kill")
    assert view(job).state == "running"
    actions.stop(job, "kill")


def test_only_one_supervisor_owns_a_job(root: Path) -> None:
    job = start(root, SLEEP)
    wait_for_text(job.log_path, "at work", job)
    owner = supervisor_pid(job)
    second = subprocess.run(
        [sys.executable, "-m", "lark_engine.jobs.supervise", str(job.folder)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "another supervisor owns the job" in second.stderr
    assert supervisor_pid(job) == owner
    actions.stop(job, "kill")


def test_a_transient_failure_is_tried_again_and_earlier_verdicts_are_kept(root: Path) -> None:
    marker = root.parent / "ran"
    code = f"""
import os, pathlib, signal
p = pathlib.Path({str(marker)!r})
p.write_text(p.read_text() + "x" if p.exists() else "x")
if len(p.read_text()) < 3: os.kill(os.getpid(), signal.SIGKILL)
"""
    job = start_with(root, python(code), {"max_retries": 3}, _FIRST_WAIT_S=0.1)
    found = wait_for_state(job, "succeeded", "failed")
    assert (found.state, found.attempt) == ("succeeded", 3)
    assert [(v["state"], v["reason"]) for v in job.attempts()] == [("failed", "killed")] * 2
    assert "trying again in 0 s (1 of 3)" in job.log_path.read_text()


def test_a_stop_while_a_job_waits_to_be_tried_again_is_a_stop(root: Path) -> None:
    killed = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    job = start_with(root, killed, {"max_retries": 3}, _FIRST_WAIT_S=60.0)
    wait_for(lambda: "trying again" in job.log_path.read_text(), job)
    found = actions.stop(job, "stop")
    assert (found.state, found.why, found.attempt) == ("cancelled", "stopped as asked", 1)


def test_a_failure_after_a_request_that_it_does_not_follow_from_is_a_failure(root: Path) -> None:
    """Asked to end after a checkpoint, the command dies of something else before it comes to one."""
    job = start(
        root, python("import time; print('at', 'work', flush=True); time.sleep(2); raise MemoryError('no room')")
    )
    wait_for_text(job.log_path, "at work", job)
    actions.stop(job, "after_checkpoint", timeout_s=0)
    found = wait_for_state(job, "failed", "cancelled")
    assert (found.state, (found.verdict or {})["reason"]) == ("failed", "host_memory")


def test_a_word_of_an_earlier_attempt_says_nothing_of_a_later_one(root: Path) -> None:
    job = new_job(root, python("raise SystemExit(3)"))
    job.write_outcome({"error": "PoolError", "message": "of yesterday"})
    actions.launch(job)
    assert "yesterday" not in wait_for_state(job, "failed").why


def test_a_failure_that_will_come_again_is_not_tried_again(root: Path) -> None:
    job = start_with(root, ("lark", "pool", "import", "/nonexistent", "--workspace", str(root)), {"max_retries": 3})
    found = wait_for_state(job, "failed")
    assert (found.attempt, job.attempts()) == (1, [])


def test_a_job_of_another_user_is_not_run(root: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    job = new_job(root, python("print('ran')"))
    os.chown(job.folder / "spec.json", 12345, 12345)
    with pytest.raises(LarkError, match="belongs to another user"):
        actions.launch(job)
    assert "ran" not in job.log_path.read_text()


def is_alive(pid: int) -> bool:
    identity = identity_of(pid)
    return identity is not None and identity.liveness() == "live"


def start_with(
    root: Path, command: tuple[str, ...], values: dict[str, object] | None = None, **constants: float
) -> Job:
    """A job under the real supervisor with other times, which no option sets."""
    job = new_job(root, command, **(values or {}))
    changes = "; ".join(f"supervise.{name} = {value}" for name, value in constants.items()) or "pass"
    code = f"import sys; from lark_engine.jobs import supervise; {changes}; sys.exit(supervise.main(sys.argv[1:]))"
    with job.log_path.open("ab") as output:
        subprocess.Popen(
            [sys.executable, "-c", code, str(job.folder)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    wait_for(lambda: job.launch() is not None, job)
    return job
