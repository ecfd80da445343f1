"""Progress of a stage: a bar on a terminal, and one line of `events.jsonl` for every step that a page may show.

All stages write one schema, read here too: `time` (seconds since 1970), `stage`, `done` and `total` in `unit`s, `rate`
(units a second since this process began), `eta_s` (seconds left), `metrics` (what the stage measures), and now and
then `note` or `alert` (a sentence).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Self

from tqdm import tqdm

from lark_engine.errors import StoppedEarly
from lark_engine.store.atomic import make_dir, open_in_place, open_regular

log = logging.getLogger(__name__)

# Without a terminal, a log gets a line of progress this often.
LINE_EVERY_S = 30.0
# The end of a log, in which its last progress is looked for: what that is mostly enough for, and what it may take.
_TAILS_BYTES = (16 << 10, 1 << 20)
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class JobLink:
    """What ties the stages of this process to a job: where events go too, and whether somebody wants them to stop.

    `builds` is told the folder of every artifact that a stage sets out to build.
    """

    events_path: Path
    wants_stop: Callable[[], bool]
    builds: Callable[[Path], None] = lambda folder: None


_job: JobLink | None = None


def link_job(link: JobLink | None) -> None:
    """Tie the stages of this process to a job, or to none. For the entry points of processes."""
    global _job
    _job = link


def tell_job(folder: Path) -> None:
    """Tell the job of this process, if there is one, which artifact's folder is built next."""
    if _job is not None:
        _job.builds(folder)


def plural(unit: str) -> str:
    """The unit of a count in words: steps, trajectories; bytes and what is plural already stay."""
    if unit == "B" or unit.endswith("s"):
        return unit
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"


def is_asked_to_stop() -> bool:
    """Whether somebody wants the stage to end at the next point from which it can be resumed without loss."""
    return _job is not None and _job.wants_stop()


class EventLog:
    """Appends events of one schema: time, stage, and what the stage reports (done, total, unit, rate, metrics)."""

    def __init__(self, path: Path, stage: str):
        self.path = path
        self.stage = stage
        make_dir(path.parent)
        self._paths = [path, *([_job.events_path] if _job else [])]
        for place in self._paths:
            with contextlib.suppress(OSError):
                _end_torn_line(place)

    def write(self, **fields: Any) -> dict[str, Any]:
        """Append one event, and return it. Values must be JSON; a non-finite number is written as null."""
        event = {"time": round(time.time(), 3), "stage": self.stage, **{k: finite(v) for k, v in fields.items()}}
        line = json.dumps(event, ensure_ascii=False) + "\n"
        with open_in_place(self.path, "a", "utf-8") as file:
            file.write(line)
        for path in self._paths[1:]:  # of the job: its folder may be gone, which is nothing to the stage
            with contextlib.suppress(OSError), open_in_place(path, "a", "utf-8") as file:
                file.write(line)
        return event


def finite(value: Any) -> Any:
    """The value with null in place of numbers that are not finite, which are no JSON."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def _end_torn_line(path: Path) -> None:
    """A kill may have left half a line; what is appended must not become part of it."""
    try:
        with open_in_place(path, "rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
                file.write(b"\n")
    except FileNotFoundError:
        pass


class EventReader:
    """Reads a growing log of events: each call gives what is new since the last one, whole lines only.

    `offset`: the byte to begin at; keep `reader.offset` to go on in another process.
    """

    def __init__(self, path: Path, offset: int = 0):
        self.path = path
        self.offset = offset

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The new events. What is no event (a line that a kill tore) is left out."""
        for line in self.lines():
            if (event := _parsed(line)) is not None:
                yield event

    def lines(self) -> Iterator[bytes]:
        try:
            with open_regular(self.path) as file:
                if os.fstat(file.fileno()).st_size < self.offset:
                    self.offset = 0  # the log was begun anew
                while whole := _whole_lines(file, self.offset):
                    for line in whole[:-1].split(b"\n"):
                        self.offset += len(line) + 1  # line by line: who stops here goes on with the next one
                        yield line
        except OSError:
            return


def _whole_lines(file: IO[bytes], offset: int) -> bytes:
    """About 8 MiB from `offset` on, to the end of a line; without a line that is not finished yet."""
    file.seek(offset)
    chunk = file.read(_CHUNK_BYTES)
    if chunk and not chunk.endswith(b"\n"):
        chunk += file.readline()
    return chunk[: chunk.rfind(b"\n") + 1]


def last_event(path: Path) -> dict[str, Any] | None:
    """The last event that says how far the stage is, however long the log; None where its last MiB holds none.

    One with a rate: a note at the start of a process knows of no step yet, also where the run is resumed.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            for tail_bytes in _TAILS_BYTES:
                file.seek(max(0, size - tail_bytes))
                if event := _last_progress(file.read(tail_bytes)):
                    return event
                if tail_bytes >= size:
                    break
    except OSError:
        pass
    return None


def _last_progress(tail: bytes) -> dict[str, Any] | None:
    for line in reversed(tail.splitlines(keepends=True)):
        event = _parsed(line) if line.endswith(b"\n") else None
        if event and event.get("total") and "rate" in event:
            return event
    return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


class ProgressLines:
    """Progress as lines of a log, for where nobody sees a bar: one now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def say(self, event: dict[str, Any]) -> None:
        """Log an event if the last line is old enough."""
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            log.info("%s", progress_line(event))


def progress_line(event: dict[str, Any]) -> str:
    """`train: 60 of 125 steps (48.0 %), 0.3 a second, loss 0.6812, 0:04:30 left`."""
    done, total, unit = event["done"], event["total"], plural(event["unit"])
    loss, eta_s = event["metrics"].get("loss"), event.get("eta_s")
    parts = [
        f"{event['stage']}: {done} of {total} {unit} ({100 * done / max(total, 1):.1f} %)",
        f"{event.get('rate') or 0.0:.1f} a second",
        *([] if loss is None else [f"loss {loss:.4g}"]),
        *([] if eta_s is None else [f"{timedelta(seconds=round(eta_s))} left"]),
    ]
    return ", ".join(parts)


class Progress:
    """Progress in `unit`s: a bar on a terminal, a line in the log every half minute without one, and events.

    The rate is that since this process began (or since `begin`), so that the time left is steady and right after a
    resume; bar, log line and events say the same. Every update that is at least `every_s` after the last event is an
    event. With `starts_later` there is no rate before `begin`. `resumes`: what is counted as done is
    kept, and not done again by the next process, so that the stage may be asked to end here.
    """

    def __init__(
        self, events: EventLog, total: int, unit: str, *, done: int = 0, every_s: float = 1.0,
        starts_later: bool = False, resumes: bool = False,
    ):  # fmt: skip
        self.events, self.total, self.unit, self.done, self.every_s = events, total, unit, done, every_s
        self._start_done, self._start = done, time.monotonic()
        self._has_begun = not starts_later
        self._resumes = resumes
        self._last_event = float("-inf")
        self._lines = ProgressLines()
        self._bar = tqdm(
            total=total, initial=done, unit=f" {unit}", unit_scale=True, desc=events.stage, smoothing=0,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def update(self, count: int, **metrics: Any) -> None:
        """Count `count` more units as done.

        Errors: `StoppedEarly` when the job that this stage belongs to was asked to end here.
        """
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if now - self._last_event < self.every_s and self.done < self.total:
            return
        self._last_event = now
        rate = (self.done - self._start_done) / max(now - self._start, 1e-9) if self._has_begun else 0.0
        eta_s = (self.total - self.done) / rate if rate > 0 and self.total >= self.done else None
        event = self.events.write(
            done=self.done, total=self.total, unit=self.unit, rate=round(rate, 3),
            eta_s=None if eta_s is None else round(eta_s, 1), metrics=metrics,
        )  # fmt: skip
        if self._bar.disable:
            self._lines.say(event)
        if self._resumes and self.done < self.total and is_asked_to_stop():
            raise StoppedEarly(
                f"stopped after {self.done:,} of {self.total:,} {plural(self.unit)}, which are kept; run the same "
                "command again, it resumes"
            )

    def begin(self) -> None:
        """Count rate and time left from here: what came before waited for something to start."""
        self._start_done, self._start, self._has_begun = self.done, time.monotonic(), True
        self._bar.initial, self._bar.start_t = self.done, time.time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
