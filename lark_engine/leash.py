"""Runs a command that cannot outlive the process that started it: `python -m lark_engine.leash COMMAND …`.

The parent holds the other end of our standard input. The kernel closes it when the parent ends, however it ends
(kill -9 too), and then the whole process group is stopped: TERM, and KILL for what is left after the grace time. A
pipe is used and not PR_SET_PDEATHSIG, because that signal comes when the *thread* that started us ends, and reaches
only one process. Imports nothing heavy.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

POLL_S = 0.5
GRACE_S = 10.0
_LOOK = 0


def main(command: list[str]) -> int:
    """Run `command` in a process group of its own until it ends or the parent is gone; returns its exit status."""
    parent = os.getppid()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    while child.poll() is None and not stopping and os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], POLL_S)
        stopping = stopping or (bool(readable) and not os.read(sys.stdin.fileno(), 4096))
    _stop_group(child)
    return child.wait()


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it started: TERM, then KILL for what the grace time leaves."""
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        child.poll()
        if not _signal_group(child.pid, _LOOK):
            return
        time.sleep(0.05)
    _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal (0: none, just look); False when the group has no process left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
