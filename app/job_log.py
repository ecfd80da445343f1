"""The log of a job as a page shows it: its end, at once however long it is, as plain lines."""

from __future__ import annotations

import re
from typing import NamedTuple

from lark_engine.jobs import logs
from lark_engine.jobs.folder import Job
from lark_engine.printing import printable

EXCERPT = "excerpt"
LENGTHS = ("50", "200", "1000")
DEFAULT = "200"
# What terminals take for colors, cursor moves and titles; all else that is not printable becomes a space.
_CONTROLS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")


class Shown(NamedTuple):
    """Lines of a log, and the length of the whole one in bytes."""

    lines: list[str]
    size: int


def choices(job: Job) -> tuple[str, ...]:
    """How much can be shown: the last lines, and of an ended run what was kept of its log."""
    return (*LENGTHS, EXCERPT) if job.excerpt_path.is_file() else LENGTHS


def shown(job: Job, choice: str) -> Shown:
    """The lines of a choice; none of a log that is not there."""
    try:
        size = job.log_path.stat().st_size
    except OSError:
        size = 0
    if choice == EXCERPT:
        most = logs.FIRST_LINES + logs.LAST_LINES + 1
        return Shown([plain(line) for line in logs.last_lines(job.excerpt_path, most)], size)
    return Shown([plain(line) for line in logs.last_lines(job.log_path, int(choice), end=size)], size)


def plain(line: str) -> str:
    """A line without colors and other control characters."""
    return printable(_CONTROLS.sub("", line)).rstrip()
