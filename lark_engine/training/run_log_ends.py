"""How far a run is, by the two ends of its log: for lists of many runs, whatever the length of their logs."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lark_engine.jobs.records import number
from lark_engine.store.atomic import open_regular
from lark_engine.store.events import last_event

_HEAD_BYTES = 16 << 10
_TAIL_BYTES = 64 << 10


class RunLogEnds(NamedTuple):
    """What the two ends of a run's log say."""

    started_at: float | None = None
    updated_at: float | None = None
    done: float | None = None
    total: float | None = None
    tokens: float | None = None
    train_s: float | None = None
    last_loss: float | None = None
    eval_loss: float | None = None

    @property
    def progress(self) -> dict[str, Any]:
        """How far the run is, as fields of `Run`."""
        return {name: value for name, value in self._asdict().items() if name not in ("started_at", "updated_at")}


def log_ends(path: Path) -> RunLogEnds:
    """What a log says at its two ends, read again only when it has changed; of no log, nothing."""
    try:
        stat = path.stat()
    except OSError:
        return RunLogEnds()
    return _read_log(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2048)
def _read_log(path: Path, modified_ns: int, size: int) -> RunLogEnds:
    event = last_event(path) or {}
    first, last = _ends(path, size)
    return RunLogEnds(
        started_at=first, updated_at=number(event.get("time")) or modified_ns / 1e9, done=number(event.get("done")),
        total=number(event.get("total")), tokens=_last_of(last, "tokens"), train_s=_last_of(last, "train_s"),
        last_loss=_last_of(last, "loss"), eval_loss=_last_of(last, "eval_"),
    )  # fmt: skip


def _ends(path: Path, size: int) -> tuple[float | None, list[dict[str, Any]]]:
    """The time of the first event, and the last events, the newest first."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError:
        return None, []
    events = [event for line in reversed(tail.split(b"\n")) if (event := _event(line))]
    first = next((event for line in head.split(b"\n") if (event := _event(line))), {})
    return number(first.get("time")), events


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _last_of(events: Sequence[dict[str, Any]], prefix: str) -> float | None:
    """The last value of the first metric of this name or beginning."""
    for event in events:
        metrics = event.get("metrics")
        for name, value in (metrics if isinstance(metrics, dict) else {}).items():
            if name == prefix or (prefix.endswith("_") and name.startswith(prefix)):
                return number(value)
    return None
