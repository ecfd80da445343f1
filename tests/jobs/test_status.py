"""States follow from files and processes alone: the table, and what real files make of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lark_engine.cli.jobs import list_lines, show_lines
from lark_engine.jobs import status
from lark_engine.jobs.folder import Job, create_job
from lark_engine.jobs.records import Heartbeat, JobSpec, Launch
from lark_engine.jobs.status import Facts, derive, list_jobs, show_job, view
from lark_engine.processes import own_identity
from tests.jobs.kit import new_job, python

LIVE = {"supervisor": "live", "command": "live", "phase": "running", "heartbeat_s_ago": 1.0}
ELSEWHERE = {**LIVE, "supervisor": "elsewhere", "command": "elsewhere"}


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "starting"),
        ({"submitted_s_ago": 29.0}, "starting"),
        ({"submitted_s_ago": 31.0}, "interrupted"),
        ({"submitted_s_ago": 31.0, "request": "stop"}, "interrupted"),
        ({"supervisor": "live"}, "starting"),
        ({"supervisor": "live", "phase": "queued", "heartbeat_s_ago": 0.0}, "queued"),
        ({"supervisor": "live", "phase": "queued", "heartbeat_s_ago": 0.0, "request": "stop"}, "queued"),
        ({"supervisor": "live", "phase": "starting", "heartbeat_s_ago": 0.0}, "starting"),
        ({"supervisor": "live", "phase": "starting", "heartbeat_s_ago": 0.0, "request": "kill"}, "stopping"),
        (LIVE, "running"),
        ({**LIVE, "heartbeat_s_ago": None}, "running"),
        ({**LIVE, "heartbeat_s_ago": 15.0}, "running"),
        ({**LIVE, "heartbeat_s_ago": 15.1}, "stale"),
        ({**LIVE, "request": "after_checkpoint"}, "stopping"),
        ({**LIVE, "request": "stop"}, "stopping"),
        ({**LIVE, "request": "kill"}, "stopping"),
        ({**LIVE, "request": "stop", "heartbeat_s_ago": 99.0}, "stale"),
        ({**LIVE, "phase": "stopping"}, "stopping"),
        ({**LIVE, "supervisor": "gone"}, "running"),  # the command lives and calls another supervisor
        ({**LIVE, "supervisor": "gone", "heartbeat_s_ago": 99.0}, "running"),
        ({**LIVE, "supervisor": "gone", "command": "gone"}, "interrupted"),
        ({**LIVE, "supervisor": "gone", "command": None, "phase": "queued"}, "interrupted"),
        ({**LIVE, "supervisor": "gone", "command": "gone", "request": "stop"}, "interrupted"),
        (ELSEWHERE, "running"),
        ({**ELSEWHERE, "phase": "queued"}, "queued"),
        ({**ELSEWHERE, "request": "stop"}, "stopping"),
        ({**ELSEWHERE, "heartbeat_s_ago": 60.0}, "running"),
        ({**ELSEWHERE, "heartbeat_s_ago": 60.1}, "stale"),
        ({"is_clusters": True, "submitted_s_ago": 9999.0}, "queued"),
        ({**ELSEWHERE, "is_clusters": True}, "running"),
    ],
)
def test_a_state_follows_from_the_facts(facts: dict[str, Any], state: str) -> None:
    assert derive(Facts(**facts))[0] == state


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (LIVE, ""),
        ({**LIVE, "request": "after_checkpoint"}, "it ends after its next checkpoint"),
        ({**LIVE, "heartbeat_s_ago": 99.0}, "its supervisor lives but has shown no sign of life for 99 s"),
        (
            {**ELSEWHERE, "heartbeat_s_ago": 4000.0},
            "its supervisor, on another machine, has shown no sign of life for 4,000 s",
        ),
        (
            {**LIVE, "supervisor": "gone", "command": "gone"},
            "its supervisor is gone without a verdict: killed, or the machine went down",
        ),
        ({"submitted_s_ago": 99.0}, "its supervisor never came up"),
    ],
)
def test_the_reason_of_a_state_is_said(facts: dict[str, Any], why: str) -> None:
    assert derive(Facts(**facts))[1] == why


def _launch(job: Job, *, supervisor: bool, command: bool | None, phase: str) -> None:
    """Files as a supervisor writes them; its process, and that of the command, lives or does not."""
    alive = own_identity()
    dead = dataclasses.replace(alive, start_ticks=0)
    identity = None if command is None else alive if command else dead
    heartbeat = Heartbeat(job.folder)
    heartbeat.write(phase)
    heartbeat.close()
    job.write_launch(Launch(supervisor=alive if supervisor else dead, command=identity))


def _age_heartbeat(job: Job, seconds: float) -> None:
    values = json.loads((job.folder / "heartbeat").read_text())
    (job.folder / "heartbeat").write_text(json.dumps({**values, "monotonic": time.monotonic() - seconds}))


EVENTS: dict[str, Callable[[Job], object]] = {
    "waits": lambda job: _launch(job, supervisor=True, command=None, phase="queued"),
    "starts": lambda job: _launch(job, supervisor=True, command=None, phase="starting"),
    "runs": lambda job: _launch(job, supervisor=True, command=True, phase="running"),
    "stop": lambda job: job.ask("stop"),
    "silent": lambda job: _age_heartbeat(job, 60),
    "heard": lambda job: _age_heartbeat(job, 0),
    "supervisor dies": lambda job: _launch(job, supervisor=False, command=True, phase="running"),
    "all die": lambda job: _launch(job, supervisor=False, command=False, phase="running"),
    "waiting one dies": lambda job: _launch(job, supervisor=False, command=None, phase="queued"),
    "adopted": lambda job: _launch(job, supervisor=True, command=True, phase="running"),
    "succeeds": lambda job: job.write_done({"state": "succeeded"}),
    "fails": lambda job: job.write_done({"state": "failed"}),
    "cancelled": lambda job: job.write_done({"state": "cancelled"}),
    "resumed": lambda job: job.begin_again(),
}


@pytest.mark.parametrize(
    "path",
    [
        "starting waits queued starts starting runs running succeeds succeeded",
        "starting runs running fails failed resumed starting waits queued runs running succeeds succeeded",
        "starting waits queued stop queued cancelled cancelled resumed starting waits queued",
        "starting runs running stop stopping cancelled cancelled resumed starting runs running",
        "starting runs running stop stopping succeeds succeeded",
        "starting runs running silent stale heard running",
        "starting runs running silent stale stop stale heard stopping cancelled cancelled",
        "starting runs running supervisor-dies running adopted running succeeds succeeded",
        "starting runs running supervisor-dies running all-die interrupted resumed starting runs running",
        "starting runs running all-die interrupted cancelled cancelled",
        "starting waits queued waiting-one-dies interrupted resumed starting waits queued",
        "starting starts starting stop stopping cancelled cancelled",
    ],
)  # fmt: skip
def test_transitions(root: Path, path: str) -> None:
    """State, what happens, state, and so on, on real files."""
    job = new_job(root, python("pass"))
    words = path.split()
    assert view(job).state == words[0]
    for event, state in zip(words[1::2], words[2::2], strict=True):
        EVENTS[event.replace("-", " ")](job)
        assert view(job).state == state, f"after '{event}' in: {path}"


def launched(root: Path, **changes: Any) -> Job:
    """A job whose files say that this test supervises it."""
    job = new_job(root, python("pass"))
    heartbeat = Heartbeat(job.folder)
    heartbeat.write("running")
    heartbeat.close()
    identity = dataclasses.replace(own_identity(), **changes)
    job.write_launch(Launch(supervisor=identity, command=identity, started_at=time.time()))
    return job


def test_a_process_is_known_by_id_start_and_boot(root: Path) -> None:
    assert view(launched(root)).state == "running"


def test_an_id_that_was_given_to_another_process_is_not_the_supervisor(root: Path) -> None:
    assert view(launched(root, start_ticks=own_identity().start_ticks - 1)).state == "interrupted"


def test_after_a_power_loss_nothing_of_before_lives(root: Path) -> None:
    """The same machine with another boot id; process ids and even start times may be those of now."""
    assert view(launched(root, boot_id="00000000-0000-0000-0000-000000000000")).state == "interrupted"


def test_a_job_on_another_machine_is_judged_by_its_heartbeat_and_its_lock(root: Path) -> None:
    job = launched(root, host="elsewhere", boot_id="another")
    assert view(job).state == "running"
    values = json.loads((job.folder / "heartbeat").read_text())
    (job.folder / "heartbeat").write_text(json.dumps({**values, "time": time.time() - 100}))
    with held(job):
        assert view(job).state == "stale"
    assert view(job).state == "interrupted"


def test_a_process_of_another_container_of_this_machine_lives_while_it_holds_the_lock(root: Path) -> None:
    job = launched(root, pid_namespace="pid:[1]", start_ticks=1)
    with held(job):
        assert view(job).state == "running"
    assert view(job).state == "interrupted"


@contextlib.contextmanager
def held(job: Job) -> Iterator[None]:
    """The lock of a supervisor, held by another process."""
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); "
    code += "input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(job.lock_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    yield
    holder.kill()
    holder.wait()


def test_a_process_that_has_ended_but_was_not_waited_for_is_gone(root: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = dataclasses.replace(own_identity(), pid=child.pid, start_ticks=_start_ticks(child.pid))
    assert identity.liveness() == "live"
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity.liveness() == "gone"
    child.wait()
    assert identity.liveness() == "gone"


def _start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_set_moves_no_state(root: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    job = launched(root)
    now = time.time()
    monkeypatch.setattr(status.time, "time", lambda: now + hours * 3600)
    assert view(job).state == "running"


def test_a_clock_that_is_set_back_makes_no_new_job_old(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = new_job(root, python("pass"))
    now = time.time()
    monkeypatch.setattr(status.time, "time", lambda: now - 3600)
    assert view(job).state == "starting"


def test_a_heartbeat_that_stopped_is_stale_though_its_process_lives(root: Path) -> None:
    job = launched(root)
    values = json.loads((job.folder / "heartbeat").read_text())
    (job.folder / "heartbeat").write_text(json.dumps({**values, "monotonic": time.monotonic() - 20}))
    assert view(job).state == "stale"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'{"state": 7}',
        b'{"state": "done"}',
        b"[" * 100_000,
        b'{"a": 1e999}',
    ],
)
@pytest.mark.parametrize(
    "name", ["launch.json", "control.json", "heartbeat", "done.json", "outcome.json", "events.jsonl"]
)
def test_a_damaged_file_breaks_neither_the_job_nor_the_list(root: Path, name: str, damage: bytes) -> None:
    job, whole = launched(root), launched(root)
    (job.folder / name).write_bytes(damage)
    found = {item.id: item for item in list_jobs(root)}
    assert found[whole.id].state == "running"
    assert found[job.id].state in ("running", "starting", "interrupted")
    json.dumps(found[job.id].as_json())


HUGE = b"1" + b"0" * 400


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("done.json", b'{"state": "failed", "attempt": 1e999}'),
        ("done.json", b'{"state": "failed", "ended_at": ' + HUGE + b', "artifacts": 5}'),
        ("heartbeat", b'{"phase": "running", "time": ' + HUGE + b', "monotonic": ' + HUGE + b"}"),
        ("events.jsonl", b'{"total": "x", "done": [1], "rate": 1, "eta_s": 1e999}\n'),
        ("events.jsonl", b'{"total": 5, "done": 1, "rate": 1, "eta_s": 1e300, "unit": 7}\n'),
        ("attempts/1/done.json", b'{"a": 1}'),
        ("launch.json", b'{"attempt": 1e999}'),
    ],
)
def test_numbers_that_are_none_break_neither_list_nor_show(root: Path, name: str, content: bytes) -> None:
    job = launched(root)
    (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (job.folder / name).write_bytes(content)
    [found] = list_jobs(root)
    json.dumps(found.as_json(), allow_nan=False)
    assert list_lines([found]) and show_lines(show_job(root, job.id))


@pytest.mark.parametrize("name", ["done.json", "spec.json", "launch.json", "heartbeat", "control.json", "events.jsonl"])
def test_a_pipe_in_place_of_a_file_holds_nobody_up(root: Path, name: str) -> None:
    job = launched(root)
    (job.folder / name).unlink(missing_ok=True)
    os.mkfifo(job.folder / name)
    assert len(list_jobs(root)) == 1


def test_links_in_the_jobs_folder_are_no_jobs_and_stop_no_queue(root: Path) -> None:
    mine = queued(root, 0)
    (root / "jobs" / "dangling").symlink_to(root / "nowhere")
    (root / "jobs" / "linked").symlink_to(mine.folder)
    assert [found.id for found in list_jobs(root)] == [mine.id]
    assert status.is_next(mine, mine.spec(), {})


@pytest.mark.parametrize("submitted_at", ["1e999", "-1", "1e300", "NaN"])
def test_a_time_that_is_none_makes_a_job_unreadable(root: Path, submitted_at: str) -> None:
    job = launched(root)
    spec = (job.folder / "spec.json").read_text()
    (job.folder / "spec.json").write_text(re.sub(r'"submitted_at": [\d.]+', f'"submitted_at": {submitted_at}', spec))
    [found] = list_jobs(root)
    assert found.state == "unreadable"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"schema_version": 1}', b'{"schema_version": 99}'])
def test_a_job_without_a_readable_specification_is_listed_as_unreadable(root: Path, damage: bytes) -> None:
    job = launched(root)
    (job.folder / "spec.json").write_bytes(damage)
    [found] = list_jobs(root)
    assert (found.state, found.is_live) == ("unreadable", False)
    assert str(job.folder) in found.why
    json.dumps(found.as_json())


def test_what_is_no_job_is_no_job(root: Path) -> None:
    launched(root)
    (root / "jobs" / ".hidden").mkdir()
    (root / "jobs" / "a-file").write_text("")
    assert [found.state for found in list_jobs(root)] == ["running"]


def test_an_empty_workspace_has_no_jobs(tmp_path: Path) -> None:
    assert list_jobs(tmp_path / "nothing") == []


def test_waiting_jobs_are_ordered_by_priority_and_then_by_time(root: Path) -> None:
    jobs = [queued(root, priority) for priority in (0, 5, 0, 9)]
    places = {found.id: found.place for found in list_jobs(root)}
    assert [places[job.id] for job in jobs] == [3, 2, 4, 1]
    assert show_job(root, jobs[1].id).place == 2
    assert [status.is_next(job, job.spec(), {}) for job in jobs] == [False, False, False, True]


def test_jobs_that_wait_for_other_devices_or_another_machine_are_not_before_one(root: Path) -> None:
    first = queued(root, 9, device_kind="cuda")
    other_machine = queued(root, 9)
    launch = other_machine.launch()
    assert launch is not None
    elsewhere = dataclasses.replace(launch.supervisor, host="elsewhere", boot_id="another")
    other_machine.write_launch(dataclasses.replace(launch, supervisor=elsewhere))
    mine = queued(root, 0)
    assert status.is_next(mine, mine.spec(), {})
    assert status.is_next(first, first.spec(), {})


def test_a_job_that_was_passed_is_looked_at_again_when_it_has_changed(root: Path) -> None:
    """One with a higher priority had ended, and is resumed: it comes before those of lower priority again."""
    before, mine = queued(root, 5), queued(root, 0)
    before.write_done({"state": "cancelled"})
    passed: dict[str, int] = {}
    assert status.is_next(mine, mine.spec(), passed)
    assert list(passed) == [before.id]
    time.sleep(0.02)
    before.begin_again()
    before.write_launch(Launch(supervisor=own_identity()))
    assert not status.is_next(mine, mine.spec(), passed)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_verdict_stands_above_everything_else(root: Path, state: str) -> None:
    job = launched(root)
    job.ask("kill")
    job.write_done({"state": state, "message": "why", "attempt": 3, "ended_at": 7.0})
    found = view(job)
    assert (found.state, found.why, found.attempt, found.ended_at) == (state, "why", 3, 7.0)


def queued(root: Path, priority: int, device_kind: Any = "cpu") -> Job:
    spec = JobSpec(stage="t", command=("x",), cwd="/", priority=priority, device_kind=device_kind, devices=1)
    job = create_job(root, spec)
    heartbeat = Heartbeat(job.folder)
    heartbeat.write("queued", waits_for="something")
    heartbeat.close()
    job.write_launch(Launch(supervisor=own_identity(), started_at=time.time()))
    time.sleep(0.002)  # another time of submission
    return job
