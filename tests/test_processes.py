"""A process is known for sure, its relatives are found, and all of them can be ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lark_engine import processes
from lark_engine.processes import (
    ProcessIdentity,
    boot_id,
    descendants,
    end_all,
    identity_of,
    marked,
    own_identity,
    pid_namespace,
    send,
)


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python code that prints a line when it is ready; what was started is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-S", "-c", textwrap.dedent(code)]
        started.append(process := subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options))
        return process

    yield begin
    for process in started:
        for pid in [*descendants(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def ready(process: subprocess.Popen[str]) -> list[int]:
    """The numbers in the line that a process prints."""
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


SLEEP = "import time; print(1, flush=True); time.sleep(100)"


def test_a_process_is_live_until_it_ends(run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run(SLEEP)
    ready(process)
    identity = identity_of(process.pid)
    assert identity is not None
    assert (identity.pid, identity.boot_id, identity.pid_namespace) == (process.pid, boot_id(), pid_namespace())
    assert identity == identity_of(process.pid)
    assert identity.liveness() == "live"
    process.kill()
    process.wait()
    assert identity.liveness() == "gone"
    assert identity_of(process.pid) is None


@pytest.mark.parametrize("name", [") (", "a b", "))) Z 1 2", "x) Z 0 (", "\n", ")"])
def test_a_process_may_have_any_name(run: Callable[..., subprocess.Popen[str]], name: str) -> None:
    code = f"import time; open('/proc/self/comm', 'w').write({name!r}); print(1, flush=True); time.sleep(100)"
    process = run(code, start_new_session=True)
    before = identity_of(process.pid)
    ready(process)
    assert Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n"
    assert before is not None
    assert identity_of(process.pid) == before
    assert before.liveness() == "live"
    assert process.pid in descendants(os.getpid())
    assert process.pid in marked("LARK_NOTHING", "x", session=process.pid)


def test_an_id_that_was_given_again_is_another_process() -> None:
    own = own_identity()
    assert own.liveness() == "live"
    assert dataclasses.replace(own, start_ticks=own.start_ticks + 1).liveness() == "gone"
    assert dataclasses.replace(own, boot_id="of-before").liveness() == "gone"
    assert dataclasses.replace(own, boot_id="of-another", host="another").liveness() == "elsewhere"
    assert dataclasses.replace(own, pid_namespace="pid:[1]").liveness() == "elsewhere"


def test_an_identity_is_read_as_it_was_written() -> None:
    own = own_identity()
    assert ProcessIdentity.from_json(own.as_json()) == own


@pytest.mark.parametrize("damage", [{"pid": None}, {"pid": "x"}, {"pid": float("inf")}, {"start_ticks": float("nan")}])
def test_a_damaged_identity_is_none(damage: dict[str, Any]) -> None:
    assert ProcessIdentity.from_json({**own_identity().as_json(), **damage}) is None


@pytest.mark.parametrize("values", [None, {}, [], "x", 7, {"pid": 1}])
def test_what_is_no_identity_is_none(values: Any) -> None:
    assert ProcessIdentity.from_json(values) is None


@pytest.mark.parametrize("pid", [-1, 0, 1 << 22, 10**30])
def test_nobody_has_an_id_that_is_none(pid: int) -> None:
    assert identity_of(pid) is None
    assert dataclasses.replace(own_identity(), pid=pid).liveness() == "gone"


def test_a_process_is_found_by_its_environment_and_by_its_session(run: Callable[..., subprocess.Popen[str]]) -> None:
    """The first starts a child in a session of its own, and one that drops its environment."""
    code = """
    import os, subprocess
    far = subprocess.Popen(["sleep", "100"], start_new_session=True)
    bare = subprocess.Popen(["sleep", "100"], env={})
    print(far.pid, bare.pid, flush=True)
    bare.wait()
    """
    process = run(code, start_new_session=True, env={**os.environ, "LARK_MARK": "job-1"})
    other = run(SLEEP, env={**os.environ, "LARK_MARK": "job-11", "LARK_MARKS": "job-1", "X": "LARK_MARK=job-1"})
    far, bare = ready(process)
    ready(other)
    assert sorted(marked("LARK_MARK", "job-1")) == sorted([process.pid, far])
    assert sorted(marked("LARK_MARK", "job-1", session=process.pid)) == sorted([process.pid, far, bare])
    assert marked("LARK_MARK", "job-11") == [other.pid]
    assert marked("LARK_MARK", "job") == []


def test_descendants_are_children_and_theirs(run: Callable[..., subprocess.Popen[str]]) -> None:
    code = """
    import subprocess, sys
    inner = "import subprocess; p = subprocess.Popen(['sleep', '100']); print(p.pid, flush=True); p.wait()"
    child = subprocess.Popen([sys.executable, "-S", "-c", inner], stdout=subprocess.PIPE, start_new_session=True)
    print(child.pid, int(child.stdout.readline()), flush=True)
    child.wait()
    """
    process = run(code)
    child, grandchild = ready(process)
    assert sorted(descendants(process.pid)) == sorted([child, grandchild])
    assert {process.pid, child, grandchild} <= set(descendants(os.getpid()))
    assert descendants(grandchild) == []


def test_what_has_ended_and_is_not_waited_for_counts_no_more(run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run(SLEEP, start_new_session=True, env={**os.environ, "LARK_MARK": "job-2"})
    ready(process)
    assert marked("LARK_MARK", "job-2", session=process.pid) == [process.pid]
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z"
    assert marked("LARK_MARK", "job-2", session=process.pid) == []
    assert process.pid not in descendants(os.getpid())
    assert end_all(lambda: marked("LARK_MARK", "job-2", session=process.pid), grace_s=0.0) == []


def alive(*found: subprocess.Popen[str]) -> Callable[[], list[int]]:
    return lambda: [process.pid for process in found if process.poll() is None]


def test_what_obeys_is_ended_in_order_and_what_does_not_is_killed(run: Callable[..., subprocess.Popen[str]]) -> None:
    obeys, ignores = run(SLEEP), run(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}")
    for process in (obeys, ignores):
        ready(process)
    begun = time.monotonic()
    assert end_all(alive(obeys, ignores), grace_s=0.4) == []
    assert 0.4 <= time.monotonic() - begun < 5
    assert (obeys.returncode, ignores.returncode) == (-signal.SIGTERM, -signal.SIGKILL)


def test_term_is_sent_once_so_that_an_orderly_end_is_not_disturbed(run: Callable[..., subprocess.Popen[str]]) -> None:
    code = """
    import signal, sys, time
    count = 0
    def note(*_):
        global count
        count += 1
    signal.signal(signal.SIGTERM, note)
    print(1, flush=True)
    while not count:
        time.sleep(0.01)
    for _ in range(30):
        time.sleep(0.01)
    sys.exit(count)
    """
    process = run(code)
    ready(process)
    assert end_all(alive(process), grace_s=20.0) == []
    assert process.returncode == 1


def test_without_a_time_of_grace_all_are_killed_at_once(run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run(SLEEP)
    ready(process)
    assert end_all(alive(process), grace_s=0.0) == []
    assert process.returncode == -signal.SIGKILL


def test_what_is_born_meanwhile_is_ended_too(run: Callable[..., subprocess.Popen[str]]) -> None:
    """A process that answers TERM by starting another one."""
    code = """
    import signal, subprocess, sys, time
    def fork(*_):
        subprocess.Popen(["sleep", "100"])
        sys.exit()
    signal.signal(signal.SIGTERM, fork)
    print(1, flush=True)
    time.sleep(100)
    """
    process = run(code, env={**os.environ, "LARK_MARK": "job-3"})
    ready(process)
    assert end_all(lambda: marked("LARK_MARK", "job-3"), grace_s=5.0) == []
    assert process.wait() == 0


def test_what_outlives_even_a_kill_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(processes, "send", lambda pid, number: sent.append((pid, number)))
    assert end_all(lambda: [4711, 4712], grace_s=0.1, kill_s=0.1) == [4711, 4712]
    assert sent[:2] == [(4711, signal.SIGTERM), (4712, signal.SIGTERM)]
    assert set(sent[2:]) == {(4711, signal.SIGKILL), (4712, signal.SIGKILL)}


def test_a_signal_to_a_process_that_is_gone_is_no_error(run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run(SLEEP)
    ready(process)
    assert send(process.pid, 0)
    process.kill()
    process.wait()
    assert not send(process.pid, signal.SIGTERM)


def test_a_process_of_somebody_else_is_left_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that a command starts with sudo: it stands in the way of no other one's end."""

    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(processes.os, "kill", kill)
    assert not send(4711, signal.SIGTERM)
    assert end_all(lambda: [4711], grace_s=0.05, kill_s=0.05) == [4711]
