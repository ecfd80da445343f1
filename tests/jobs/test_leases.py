"""A device has one holder at a time, whatever becomes of the processes; all or none; and nobody else's files."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lark_engine.errors import StoreError
from lark_engine.jobs import leases
from lark_engine.jobs.devices import Device
from lark_engine.jobs.leases import Lease, holder_of, lease, leases_dir
from tests.jobs.kit import kill, wait_for


def device(device_id: str) -> Device:
    return Device(kind="cuda", id=device_id, name="a device", memory_bytes=None)


ONE, TWO = device("GPU-1"), device("GPU-2")
_TAKES = """
import os, subprocess, sys
from lark_engine.jobs.devices import Device
from lark_engine.jobs.leases import lease
devices = [Device(kind="cuda", id=name, name="a device", memory_bytes=None) for name in {names!r}]
taken = lease(devices, {count}, "job-of-another")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "leases"
    monkeypatch.setenv("LARK_LEASES", str(path))
    return path


@contextlib.contextmanager
def another(names: list[str], count: int, then: str = "print(taken and len(taken.files), flush=True)") -> Iterator[Any]:
    """A process that takes devices, prints a line, and holds what it has until it is killed or this block ends."""
    code = _TAKES.format(names=names, count=count) + textwrap.dedent(then) + "\nsys.stdin.read()\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def taken(found: Lease | None) -> list[str]:
    """What a lease holds, which is freed again."""
    if found is None:
        return []
    found.free()
    return [device.id for device in found.devices]


def test_of_two_processes_one_gets_the_device(folder: Path) -> None:
    with another(["GPU-1"], 1) as (holder, said):
        assert said == "1"
        assert lease([ONE], 1, "mine") is None
        found = holder_of(ONE)
        assert found is not None
        assert (found["holder"], found["pid"]) == ("job-of-another", holder.pid)
        with another(["GPU-1"], 1) as (_, said_too):
            assert said_too == "None"
    assert holder_of(ONE) is None
    assert taken(lease([ONE], 1, "mine")) == ["GPU-1"]


def test_a_holder_that_is_killed_frees_its_device() -> None:
    with another(["GPU-1"], 1) as (holder, _):
        holder.kill()
        holder.wait()
        assert holder_of(ONE) is None
        assert taken(lease([ONE], 1, "mine")) == ["GPU-1"]


def test_a_device_stays_taken_while_the_command_lives_that_its_killed_holder_started() -> None:
    starts = """
    child = subprocess.Popen(["sleep", "100"], pass_fds=taken.files, start_new_session=True, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    """
    with another(["GPU-1"], 1, starts) as (holder, child):
        try:
            holder.kill()
            holder.wait()
            assert lease([ONE], 1, "mine") is None
            assert (holder_of(ONE) or {})["holder"] == "job-of-another"
        finally:
            kill(int(child))
    mine = wait_for(lambda: lease([ONE], 1, "mine"))
    assert taken(mine) == ["GPU-1"]


def test_a_program_that_the_holder_starts_for_itself_holds_nothing() -> None:
    mine = lease([ONE], 1, "mine")
    assert mine is not None
    child = subprocess.Popen(["sleep", "100"])
    mine.free()
    assert taken(lease([ONE], 1, "again")) == ["GPU-1"]
    child.kill()
    child.wait()


def test_the_first_free_devices_are_taken_and_no_more() -> None:
    mine = lease([ONE, TWO, device("GPU-3")], 2, "mine")
    assert mine is not None
    assert mine.devices == (ONE, TWO)
    assert taken(lease([ONE, TWO, device("GPU-3")], 1, "another")) == ["GPU-3"]
    mine.free()


def test_all_or_none_are_taken() -> None:
    with another(["GPU-2"], 1):
        assert lease([ONE, TWO], 2, "mine") is None
        assert holder_of(ONE) is None
        assert taken(lease([ONE, TWO], 1, "mine")) == ["GPU-1"]
    assert taken(lease([ONE, TWO], 2, "mine")) == ["GPU-1", "GPU-2"]


def test_more_devices_than_there_are_are_not_given() -> None:
    assert lease([ONE], 2, "mine") is None
    assert lease([], 1, "mine") is None
    assert taken(lease([ONE], 0, "mine")) == []


def test_two_that_want_both_devices_do_not_take_one_each() -> None:
    """The one that comes second in the order of the list comes first in time: neither may be left with half."""
    gate = threading.Barrier(2)
    got: list[Lease | None] = []

    def take(devices: list[Device]) -> None:
        gate.wait()
        got.append(lease(devices, 2, "mine"))

    for _ in range(20):
        threads = [threading.Thread(target=take, args=(order,)) for order in ([ONE, TWO], [TWO, ONE])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found is None for found in got].count(True) == 1
        assert sorted(name for found in got for name in taken(found)) == ["GPU-1", "GPU-2"]
        got.clear()


def test_instances_of_a_gpu_are_given_one_to_a_job() -> None:
    """CUDA shows a process one MIG instance, not several."""
    parts = [device("MIG-1"), device("MIG-2")]
    assert taken(lease(parts, 1, "mine")) == ["MIG-1"]
    assert lease(parts, 2, "mine") is None
    assert taken(lease([parts[0], ONE, parts[1], TWO], 2, "mine")) == ["GPU-1", "GPU-2"]


def test_who_holds_a_device_is_said(folder: Path) -> None:
    assert holder_of(ONE) is None
    mine = lease([ONE], 1, "20260101-train-ab")
    assert mine is not None
    found = holder_of(ONE)
    assert found is not None
    assert (found["holder"], found["pid"]) == ("20260101-train-ab", os.getpid())
    (folder / "GPU-1.lock").write_text("{")
    assert holder_of(ONE) == {"holder": "another process"}
    (folder / "GPU-1.lock").write_text("[1]")
    assert holder_of(ONE) == {"holder": "another process"}
    mine.free()
    assert holder_of(ONE) is None


def test_a_shorter_name_leaves_nothing_of_a_longer_one_behind() -> None:
    for name in ("a-long-name-of-a-job", "short"):
        mine = lease([ONE], 1, name)
        assert mine is not None
        assert (holder_of(ONE) or {})["holder"] == name
        mine.free()


def test_to_look_who_holds_a_device_takes_it_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks, which is a lock for a moment, and at that very moment somebody wants the device."""
    flock = leases.fcntl.flock
    got: list[list[str]] = []
    taker = threading.Thread(target=lambda: got.append(taken(lease([ONE], 1, "mine"))))

    def flock_slowly(file: Any, operation: int) -> None:
        flock(file, operation)
        if operation & leases.fcntl.LOCK_SH and not taker.ident:
            taker.start()
            taker.join(0.2)

    taken(lease([ONE], 1, "earlier"))
    monkeypatch.setattr(leases.fcntl, "flock", flock_slowly)
    assert holder_of(ONE) is None
    taker.join()
    assert got == [["GPU-1"]]


def test_a_full_disk_keeps_nobody_from_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the name of the holder is not to be seen then."""

    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(leases.os, "pwrite", pwrite)
    mine = lease([ONE], 1, "mine")
    assert mine is not None
    assert holder_of(ONE) == {"holder": "another process"}
    mine.free()


def test_a_device_that_cannot_be_locked_leaves_no_other_one_taken(folder: Path) -> None:
    leases_dir()
    (folder / "GPU-2.lock").symlink_to(folder / "elsewhere")
    with pytest.raises(StoreError, match="GPU-2"):
        lease([ONE, TWO], 2, "mine")
    assert holder_of(ONE) is None
    assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "..", "a/../../outside", "GPU-1\n", "ĝ ρ", "*", "-rf"])
def test_the_id_of_a_device_leads_nowhere_else(folder: Path, name: str) -> None:
    odd = device(name)
    mine = lease([odd], 1, "mine")
    assert mine is not None
    assert (holder_of(odd) or {})["holder"] == "mine"
    assert len(list(folder.iterdir())) == 2  # its file, and that of who takes
    assert list(folder.parent.iterdir()) == [folder]
    mine.free()


def test_the_folder_is_made_for_its_user_alone(folder: Path) -> None:
    assert leases_dir() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert leases_dir() == folder


def test_a_folder_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    folder.symlink_to(tmp_path / "real")
    with pytest.raises(StoreError, match="is not a folder of this user"):
        lease([ONE], 1, "mine")
    assert list((tmp_path / "real").iterdir()) == []


def test_what_is_no_folder_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a folder of this user"):
        leases_dir()
    folder.unlink()
    folder.write_text("")
    with pytest.raises(StoreError, match="is not a folder of this user"):
        leases_dir()
    monkeypatch.setenv("LARK_LEASES", str(folder / "below"))
    with pytest.raises(StoreError, match="choose another place"):
        leases_dir()


def test_the_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.setattr(leases.os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(
        StoreError, match=f"^{folder}: is not a folder of this user; remove it, or name another one in "
    ):
        holder_of(ONE)


def test_a_holder_that_is_only_stopped_keeps_its_device() -> None:
    with another(["GPU-1"], 1) as (holder, _):
        kill(holder.pid, signal.SIGSTOP)
        assert lease([ONE], 1, "mine") is None
        kill(holder.pid, signal.SIGCONT)
