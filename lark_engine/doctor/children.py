"""Short-lived processes of an interpreter: started, watched, ended in time, and asked for one report.

Heavy libraries are imported only here, never in our own process: an import may hang, crash, or take a GPU.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lark_engine.evaluation.server_log import last_meaningful_line

log = logging.getLogger(__name__)

# A child's report is one line of JSON after this word: libraries write to the standard output as well.
MARK = "lark-doctor-report "
# What each child's code begins with.
REPORT = f"""
import json
def report(**facts):
    print("\\n" + {MARK!r} + json.dumps(facts), flush=True)
"""
_POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Child:
    """`python -c code arguments…`. The code calls `report(**facts)` once; after `limit_s` seconds it is ended."""

    label: str
    python: Path
    code: str
    arguments: tuple[str, ...] = ()
    limit_s: float = 30.0


class Outcome(NamedTuple):
    """What a child reported, or why it did not (exactly one of the two), and how long it took."""

    report: dict[str, Any] | None
    failure: str | None
    wall_s: float


def run_child(child: Child) -> Outcome:
    """Run one child to its end."""
    return run_children([child])[0]


def run_children(
    children: Sequence[Child], *, at_once: int = 2, told: Callable[[Child, Outcome], None] = lambda *_: None
) -> list[Outcome]:
    """Run children, at most `at_once` side by side; their outcomes in the same order.

    `told` is called as each ends. Nothing that they started outlives this call, however it ends.
    """
    waiting = list(enumerate(children))[::-1]
    running: dict[int, _Running] = {}
    outcomes: dict[int, Outcome] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, child = waiting.pop()
                running[index] = _Running(child)
            for index in list(running):
                outcome = running[index].outcome()
                if outcome is not None:
                    outcomes[index] = outcome
                    running.pop(index).close()
                    told(children[index], outcome)
            if running:
                time.sleep(_POLL_S)
    finally:
        for process in running.values():
            process.close()
    return [outcomes[index] for index in range(len(children))]


class _Running:
    """A child's process. Its output goes to files in memory: a full disk is one of the things that are looked for."""

    def __init__(self, child: Child):
        self.child = child
        self.started = time.monotonic()
        self.output = os.memfd_create("output")
        self.errors = os.memfd_create("errors")
        self.process: subprocess.Popen[bytes] | None = None
        self.refusal = ""
        try:
            self.process = subprocess.Popen(
                [str(child.python), "-c", REPORT + child.code, *child.arguments], stdin=subprocess.DEVNULL,
                stdout=self.output, stderr=self.errors, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            self.refusal = getattr(error, "strerror", None) or str(error)

    def outcome(self) -> Outcome | None:
        """What came of it; None while it runs. It may not run longer than its limit."""
        wall_s = time.monotonic() - self.started
        if self.process is None:
            return Outcome(None, f"it does not start: {self.refusal}", wall_s)
        status = self.process.poll()
        if status is None:
            late = wall_s > self.child.limit_s
            return Outcome(None, f"not done after {self.child.limit_s:g} s", wall_s) if late else None
        facts = _reported(_path(self.output).read_text("utf-8", "replace"))
        if facts is not None:
            # What happens after the report, as a crash while the interpreter closes, changes nothing of it.
            return Outcome(facts, None, wall_s)
        said = last_meaningful_line(_path(self.errors)) if os.fstat(self.errors).st_size else ""
        ended = f"ended by {_signal_name(-status)}" if status < 0 else f"exit status {status}"
        # A Python error says enough without the status 1 that goes with it.
        said = said if said and status == 1 else ": ".join(filter(None, (ended, said)))
        return Outcome(None, said, wall_s)

    def close(self) -> None:
        """End it with all that it started, and forget its output."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.output)
        os.close(self.errors)


def _path(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


def _reported(output: str) -> dict[str, Any] | None:
    """The facts of the last report in a child's output, if there is one."""
    lines = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    with contextlib.suppress(IndexError, ValueError):
        facts = json.loads(lines[-1])
        return facts if isinstance(facts, dict) else None
    return None


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
