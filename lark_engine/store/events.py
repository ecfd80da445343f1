"""Progress of a stage: a bar on a terminal, and one line of `events.jsonl` for every step that a page may show."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from lark_engine.store.atomic import make_dir

log = logging.getLogger(__name__)

# Without a terminal, a log gets a line of progress this often.
LINE_EVERY_S = 30.0


class EventLog:
    """Appends events of one schema: time, stage, and what the stage reports (done, total, unit, rate, metrics)."""

    def __init__(self, path: Path, stage: str):
        self.path = path
        self.stage = stage
        make_dir(path.parent)

    def write(self, **fields: Any) -> None:
        """Append one event. Values must be JSON; a non-finite number is written as null."""
        event = {"time": round(time.time(), 3), "stage": self.stage, **{k: _finite(v) for k, v in fields.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


class Progress:
    """Progress in `unit`s: a bar on a terminal, a line in the log every half minute without one, and events.

    The rate is that since this process began (or since `begin`), so that the time left is steady and right after a
    resume; bar, log line and events say the same. Every update that is at least `every_s` after the last event is an
    event.
    """

    def __init__(self, events: EventLog, total: int, unit: str, *, done: int = 0, every_s: float = 1.0):
        self.events, self.total, self.unit, self.done, self.every_s = events, total, unit, done, every_s
        self._start_done, self._start = done, time.monotonic()
        self._last_event = 0.0
        self._last_line = self._start
        self._bar = tqdm(
            total=total, initial=done, unit=f" {unit}", unit_scale=True, desc=events.stage, smoothing=0,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def update(self, count: int, **metrics: Any) -> None:
        """Count `count` more units as done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if now - self._last_event < self.every_s and self.done < self.total:
            return
        self._last_event = now
        rate = (self.done - self._start_done) / max(now - self._start, 1e-9)
        eta_s = (self.total - self.done) / rate if rate > 0 and self.total >= self.done else None
        self.events.write(
            done=self.done, total=self.total, unit=self.unit, rate=round(rate, 3),
            eta_s=None if eta_s is None else round(eta_s, 1), metrics=metrics,
        )  # fmt: skip
        if self._bar.disable and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            left = "" if eta_s is None else f", {timedelta(seconds=round(eta_s))} left"
            log.info(
                "%s: %d of %d %ss (%.1f %%), %.1f a second%s", self.events.stage, self.done, self.total, self.unit,
                100 * self.done / max(self.total, 1), rate, left,
            )  # fmt: skip

    def begin(self) -> None:
        """Count rate and time left from here: what came before waited for something to start."""
        self._start_done, self._start = self.done, time.monotonic()
        self._bar.initial, self._bar.start_t = self.done, time.time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
