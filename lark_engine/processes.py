"""Processes of this machine: which one it is for sure, which belong together, and ending all of those.

A process id alone is no identity: ids are given again. With the time of its start, counted in ticks since the machine
was started (a clock that is set back cannot move it), and the id of that start, it is.
"""

from __future__ import annotations

import os
import platform
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

Liveness = Literal["live", "gone", "elsewhere"]
_PROC = Path("/proc")
_POLL_S = 0.05
_DEAD = ("Z", "X")


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """One process of one start of one machine. `start_ticks`: kernel ticks from the machine's start to its own."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_ticks: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> ProcessIdentity | None:
        """Read back what `as_json` made; None for anything else."""
        try:
            return cls(
                host=str(values["host"]), boot_id=str(values["boot_id"]), pid_namespace=str(values["pid_namespace"]),
                pid=int(values["pid"]), start_ticks=int(values["start_ticks"]),
            )  # fmt: skip
        except (TypeError, KeyError, ValueError, OverflowError):
            return None

    def liveness(self) -> Liveness:
        """`live` or `gone`, or `elsewhere`: on another machine, or where this process cannot look.

        A machine that was started again has none of its earlier processes.
        """
        if self.boot_id != boot_id():
            return "gone" if self.host == platform.node() else "elsewhere"
        if self.pid_namespace != pid_namespace():
            return "elsewhere"  # another container of this machine
        found = _stat(self.pid)
        return "live" if found and found.start_ticks == self.start_ticks and found.state not in _DEAD else "gone"


class _Stat(NamedTuple):
    state: str
    parent: int
    session: int
    start_ticks: int


def identity_of(pid: int) -> ProcessIdentity | None:
    """Who has this id now; None when nobody has."""
    found = _stat(pid)
    if found is None:
        return None
    return ProcessIdentity(
        host=platform.node(), boot_id=boot_id(), pid_namespace=pid_namespace(), pid=pid, start_ticks=found.start_ticks
    )


def own_identity() -> ProcessIdentity:
    identity = identity_of(os.getpid())
    assert identity is not None
    return identity


@cache
def boot_id() -> str:
    """What the kernel calls this start of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


@cache
def pid_namespace() -> str:
    """Containers of one machine count their processes apart."""
    return os.readlink(_PROC / "self/ns/pid")  # noqa: PTH115


def marked(name: str, value: str, *, session: int | None = None, is_ours: bool = True) -> list[int]:
    """Ids of the live processes with `name=value` in their environment, or in this session.

    `is_ours`: whether the session is known for sure to be that of those. If not, it is when one of them is in it.
    """
    wanted = f"{name}={value}".encode()
    found = {pid: (live.session, wanted in _environment(pid)) for pid, live in _live()}
    if not is_ours and (session, True) not in found.values():
        session = None
    return [pid for pid, (own, has_mark) in found.items() if has_mark or (session is not None and own == session)]


def carries(pid: int, name: str, value: str) -> bool:
    """Whether a process was started with `name=value` in its environment."""
    return f"{name}={value}".encode() in _environment(pid)


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has this very file open; False also where we may not look, and for a file of several names."""
    try:
        file = path.lstat()
        if not stat.S_ISREG(file.st_mode) or file.st_nlink != 1:
            return False
        links = list(os.scandir(_PROC / str(pid) / "fd"))
    except OSError:
        return False
    return any(_is_same(link.path, file) for link in links)


def _is_same(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)  # noqa: PTH116
    except OSError:  # closed meanwhile
        return False


def session_of(leader: ProcessIdentity | None) -> int | None:
    """The session that this process led, for as long as its number is not another process's."""
    if leader is None or leader.boot_id != boot_id() or leader.pid_namespace != pid_namespace():
        return None
    return leader.pid if identity_of(leader.pid) in (None, leader) else None


def descendants(ancestor: int) -> list[int]:
    """Ids of the live processes that this one started, and that those started."""
    children: dict[int, list[int]] = {}
    for pid, live in _live():
        children.setdefault(live.parent, []).append(pid)
    found: list[int] = []
    waiting = [ancestor]
    while waiting:
        waiting += (more := children.get(waiting.pop(), []))
        found += more
    return found


def end_all(find: Callable[[], Sequence[int]], *, grace_s: float, kill_s: float = 10.0) -> list[int]:
    """End what `find` finds until it finds nothing: TERM once to each, after the grace time KILL.

    Returns the ids of those that outlive even that by `kill_s`: processes that the kernel itself holds.
    """
    asked: set[int] = set()
    start = time.monotonic()
    while (left := find()) and time.monotonic() < start + grace_s + kill_s:
        kill = time.monotonic() >= start + grace_s
        for pid in left:
            if kill or pid not in asked:
                send(pid, signal.SIGKILL if kill else signal.SIGTERM)
            asked.add(pid)
        time.sleep(_POLL_S)
    return list(left)


def send(pid: int, number: int) -> bool:
    """Send a signal; False when the process is gone, or runs as somebody else (sudo) and may not be sent one."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def may_signal(pid: int) -> bool:
    """Whether this user may send a process signals."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        return True
    return True


def _live() -> Iterator[tuple[int, _Stat]]:
    for entry in os.scandir(_PROC):
        if entry.name.isdigit() and (found := _stat(int(entry.name))) and found.state not in _DEAD:
            yield int(entry.name), found


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name before it may hold anything, blanks and parentheses too.
    fields = text[text.rindex(b")") + 2 :].split()
    return _Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
