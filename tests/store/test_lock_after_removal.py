"""A lock is one on the folder that is there, also when that was removed while somebody waited for it."""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from lark_engine.errors import StoreError
from lark_engine.store import lock as locks
from lark_engine.store.lock import lock

WAIT_S = 20.0


def is_held(folder: Path) -> bool:
    """Whether somebody has the lock of the folder that is there."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_in(folder: Path, taken: Event, begun: Event, has: Event, go: Event) -> None:
    """Of another process: wait for the lock once it is taken, say that it waits and that it has it, hold it."""
    locks.log.warning = lambda *_: begun.set()  # type: ignore[method-assign]
    taken.wait(WAIT_S)
    with lock(folder):
        (folder / "made").write_text("by the one that waited")
        has.set()
        go.wait(WAIT_S)


@pytest.mark.parametrize("comes", ["nothing", "a new folder", "a new folder that is locked"])
def test_who_waited_for_a_folder_that_was_removed_locks_the_new_one(tmp_path: Path, comes: str) -> None:
    folder, trash = tmp_path / "scores" / "a", tmp_path / ".trash"
    forks = multiprocessing.get_context("fork")
    taken, begun, has, go = (forks.Event() for _ in range(4))
    waiter = forks.Process(target=wait_in, args=(folder, taken, begun, has, go), daemon=True)
    waiter.start()  # before the lock, whose open file it would have from us
    with lock(folder):
        taken.set()
        assert begun.wait(WAIT_S)
        folder.rename(trash)
        if comes == "a new folder":
            folder.mkdir()
        if comes == "a new folder that is locked":
            first = lock(folder)
            first.__enter__()
    if comes == "a new folder that is locked":
        assert not has.wait(0.3)
        first.__exit__(None, None, None)
    assert has.wait(WAIT_S)
    assert is_held(folder) and not is_held(trash)
    assert (folder / ".lock").read_text().startswith(f"process {waiter.pid} on ")
    assert not (trash / "made").exists()
    go.set()
    waiter.join(WAIT_S)
    assert waiter.exitcode == 0
    assert not is_held(folder)


def test_a_folder_that_goes_before_its_lock_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    made: list[Path] = []
    make_dir = locks.make_dir

    def make_and_lose(path: Path) -> None:
        make_dir(path)
        made.append(path)
        if len(made) == 1:
            shutil.rmtree(path)

    monkeypatch.setattr(locks, "make_dir", make_and_lose)
    with lock(folder):
        assert is_held(folder)
    assert made == [folder, folder]


def test_a_folder_that_a_file_takes_the_place_of_is_an_error_and_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    begun = threading.Event()
    errors: list[Exception] = []
    monkeypatch.setattr(locks.log, "warning", lambda *_: begun.set())

    def wait() -> None:
        try:
            with lock(folder):
                pass
        except StoreError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    with lock(folder):
        waiter.start()
        assert begun.wait(WAIT_S)
        folder.rename(tmp_path / "b")
        folder.write_text("")
    waiter.join(WAIT_S)
    assert [str(error) for error in errors] == [
        f"{folder}: cannot be made a folder (File exists); choose another place"
    ]


def test_a_lock_that_is_a_link_to_nowhere_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "missing" / "lock")
    with pytest.raises(StoreError, match=r"\.lock: is a link, which nothing is written through"), lock(tmp_path):
        pass


def test_an_error_under_a_lock_is_passed_on_and_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "a"):
        raise ZeroDivisionError
    assert not is_held(tmp_path / "a")
