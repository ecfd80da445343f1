"""Progress of a stage: a bar on a terminal, and one line of `events.jsonl` for every step that a page may show."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from lark_engine.store.atomic import make_dir

log = logging.getLogger(__name__)


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
    """A progress bar in `unit`s; every update that is at least `every_s` after the last one is also an event."""

    def __init__(self, events: EventLog, total: int, unit: str, *, done: int = 0, every_s: float = 1.0):
        self.events, self.total, self.unit, self.done, self.every_s = events, total, unit, done, every_s
        self._start_done, self._start = done, time.monotonic()
        self._last = 0.0
        self._bar = tqdm(
            total=total, initial=done, unit=unit, unit_scale=True, desc=events.stage, smoothing=0.1,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def update(self, count: int, **metrics: Any) -> None:
        """Count `count` more units as done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if now - self._last >= self.every_s or self.done >= self.total:
            self._last = now
            rate = (self.done - self._start_done) / max(now - self._start, 1e-9)
            eta_s = (self.total - self.done) / rate if rate > 0 and self.total >= self.done else None
            self.events.write(
                done=self.done, total=self.total, unit=self.unit, rate=round(rate, 3),
                eta_s=None if eta_s is None else round(eta_s, 1), metrics=metrics,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
