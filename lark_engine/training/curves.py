"""The curves of a run: all metrics of its events by step, tokens or hours, read on while the run lives.

A run that was killed and resumed computes the steps after its checkpoint again. What an earlier process said of them
counts until the later one gets there or beyond: the curve is always that of the weights that there are.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from lark_engine.store.curves import NUMBERS, EventTable, read_metrics
from lark_engine.store.events import EventReader

METRICS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_s", "memory_mb", "device_use", "tokens", "train_s",
)  # fmt: skip
Axis = Literal["step", "tokens", "hours"]
AXES: tuple[Axis, ...] = ("step", "tokens", "hours")
Floats = np.ndarray
_S_PER_HOUR = 3600.0
# Events at the end in which the last value of a metric is mostly found.
_RECENT = 64


class Curve(NamedTuple):
    """A metric along an axis, ascending; both float64 and finite."""

    x: Floats
    y: Floats


class Alert(NamedTuple):
    """What a run said of a step, where that step lies on the axis, and its loss (NaN where it is not known)."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Curves:
    """All events of a run that count, in the order of steps, as columns (NaN where an event says nothing).

    Columns are those of `NUMBERS`, of `METRICS` and of every held-out set; `alerts` are by the place of their event.
    """

    columns: Mapping[str, Floats]
    alerts: Mapping[int, str]

    @property
    def num_events(self) -> int:
        return len(self.columns["done"])

    @property
    def evaluations(self) -> list[str]:
        """The metrics that are losses of held-out sets."""
        return [name for name in self.columns if _is_evaluation(name)]

    def has(self, axis: Axis) -> bool:
        """Whether the run can be drawn along an axis: logs of earlier versions do not say their tokens."""
        return bool(np.isfinite(self.along(axis)).any())

    def along(self, axis: Axis) -> Floats:
        """The place of every event on an axis: its step, the tokens trained on so far, or the hours that it took."""
        if axis == "step":
            return self.columns["done"]
        return self.columns["tokens"] if axis == "tokens" else self.columns["train_s"] / _S_PER_HOUR

    def curve(self, metric: str, axis: Axis = "step") -> Curve:
        """A metric by step, tokens or hours."""
        x, y = self.along(axis), self.columns.get(metric)
        if y is None:
            return Curve(np.empty(0), np.empty(0))
        is_known = np.isfinite(x) & np.isfinite(y)
        return Curve(x[is_known], y[is_known])

    def last(self, metric: str) -> float | None:
        """The last value of a metric."""
        values = self.columns.get(metric, np.empty(0))
        known = np.flatnonzero(np.isfinite(values[-_RECENT:]))
        if not len(known):
            known = np.flatnonzero(np.isfinite(values))
            return float(values[known[-1]]) if len(known) else None
        return float(values[-_RECENT:][known[-1]])

    def number(self, name: str) -> float | None:
        """What the last event says of its progress: `done`, `total`, `rate`, `eta_s`, `time`."""
        value = float(self.columns[name][-1]) if self.num_events else np.nan
        return value if np.isfinite(value) else None

    def marks(self, axis: Axis = "step") -> list[Alert]:
        """The alerts, in the order of steps."""
        x, loss = self.along(axis), self.columns["loss"]
        return [Alert(float(x[at]), float(loss[at]), text) for at, text in sorted(self.alerts.items())]


class RunCurves:
    """The curves of one log, kept: read whole once, and then only what is new. Threads may share it."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._file: int | None = None
        self._offset = 0
        self._last_time = math.nan
        self._kept = _nothing()
        self._curves = self._kept.view()

    def read(self) -> Curves:
        """The curves as of now; those of no event where there is no log."""
        with self._lock:
            try:
                stat = self.path.stat()
                if stat.st_ino != self._file or stat.st_size < self._offset:
                    self._read_whole()
                    self._file = stat.st_ino
                elif stat.st_size > self._offset:
                    self._read_on()
            except OSError:
                self._file, self._kept = None, _nothing()
                self._curves = self._kept.view()
            return self._curves

    def _read_whole(self) -> None:
        table = read_metrics(self.path, METRICS)
        self._kept, self._offset = _what_counts(table), table.offset
        times = table.columns["time"]
        self._last_time = float(times[-1]) if len(times) else np.nan
        self._curves = self._kept.view()

    def _read_on(self) -> None:
        reader = EventReader(self.path, self._offset)
        for event in reader:
            time, metrics = _number(event.get("time")), event.get("metrics")
            if not math.isfinite(time):
                continue
            row = {name: _number(event.get(name)) for name in NUMBERS}
            for name, value in (metrics if isinstance(metrics, dict) else {}).items():
                if name in METRICS or _is_evaluation(name):
                    row[name] = _number(value)
            if math.isfinite(row["done"]) and math.isfinite(row["rate"]):
                took_s = max(0.0, time - self._last_time)
                self._kept.add(row, str(event.get("alert") or ""), took_s if math.isfinite(took_s) else 0.0)
            self._last_time = time
        self._offset = reader.offset
        self._curves = self._kept.view()


class _Kept:
    """The events that count, so far: columns with room at their ends, so that one more event moves nothing.

    Views of them that were handed out stay as they are.
    """

    def __init__(self, columns: dict[str, Floats], alerts: dict[int, str]):
        self._columns, self._alerts = columns, alerts
        self._num = len(columns["done"])

    def view(self) -> Curves:
        return Curves(
            columns={name: column[: self._num] for name, column in self._columns.items()}, alerts=dict(self._alerts)
        )

    def add(self, row: dict[str, float], alert: str, took_s: float) -> None:
        """An event after all others. `took_s`: since the event before it in the log, for logs without `train_s`."""
        order = row["done"] + (0.0 if math.isfinite(row.get("loss", np.nan)) else 0.5)
        before = _order(self._columns)
        if self._num and before(self._num - 1) >= order:
            self._cut(bisect.bisect_left(range(self._num), order, key=before))
        if not math.isfinite(row.get("train_s", np.nan)):
            row["train_s"] = took_s + (float(self._columns["train_s"][self._num - 1]) if self._num else 0.0)
        if self._num == len(self._columns["done"]):
            room = np.full(max(1000, self._num // 2), np.nan)
            self._columns = {name: np.append(column, room) for name, column in self._columns.items()}
        for name in row.keys() - self._columns.keys():
            self._columns[name] = np.full(len(self._columns["done"]), np.nan)
        for name, column in self._columns.items():
            column[self._num] = row.get(name, np.nan)
        if alert:
            self._alerts[self._num] = alert
        self._num += 1

    def _cut(self, num: int) -> None:
        """Forget what an earlier process said of steps that are computed again."""
        self._num = num
        self._columns = {name: column.copy() for name, column in self._columns.items()}
        self._alerts = {place: text for place, text in self._alerts.items() if place < num}


def _nothing() -> _Kept:
    return _Kept({name: np.empty(0) for name in (*NUMBERS, *METRICS)}, {})


def _order(columns: Mapping[str, Floats]) -> Callable[[int], float]:
    """The order of an event that counts: an evaluation comes after its step, whose loss it does not replace."""
    done, loss = columns["done"], columns["loss"]
    return lambda place: float(done[place]) + (0.0 if math.isfinite(loss[place]) else 0.5)


def _what_counts(table: EventTable) -> _Kept:
    """Of all events in the order of the log, those that no later one replaces."""
    done, rate = table.columns["done"], table.columns["rate"]
    is_progress = np.isfinite(done) & np.isfinite(rate)  # a note at the start of a process knows of no step yet
    order = np.where(is_progress, done + np.where(np.isfinite(table.columns["loss"]), 0.0, 0.5), np.inf)
    least_later = np.append(np.minimum.accumulate(order[::-1])[::-1][1:], np.inf)
    places = np.flatnonzero(is_progress & (order < least_later[: len(order)]))
    columns = {name: column[places] for name, column in table.columns.items()}
    if not np.isfinite(columns["train_s"]).any():
        columns["train_s"] = _seconds(table.columns["time"], ~is_progress, places)
    at = {int(place): number for number, place in enumerate(places)} if table.alerts else {}
    return _Kept(columns, {at[place]: text for place, text in table.alerts.items() if place in at})


def _seconds(time: Floats, is_start: Floats, places: Floats) -> Floats:
    """The seconds up to each event that counts, from the times of a log that does not say them.

    Every process begins with an event without a rate; what lies before that one is the pause since the last process.
    """
    took = np.clip(np.diff(time, prepend=time[:1]), 0.0, None)
    took[is_start] = 0.0
    return np.cumsum(took[places])


def _is_evaluation(name: str) -> bool:
    return name.startswith("eval_") and name.endswith("_loss")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def smoothed(values: Floats, span: int) -> Floats:
    """The exponential moving average of a curve with a span: weights fall by (span − 1) / (span + 1) a point.

    A span of 1 leaves it as it is.
    """
    if span <= 1 or not len(values):
        return values
    return pd.Series(values).ewm(span=span).mean().to_numpy()


def thinned(curve: Curve, most: int = 1000) -> Curve:
    """The curve with at most so many points: the lowest and the highest of each bucket, and both ends.

    Buckets are powers of two long, so that a curve that grows changes only at its end until they double.
    """
    num = len(curve.x)
    size = 1
    while 2 * -(-num // size) > most - 2:
        size *= 2
    if num <= most:
        return curve
    room = np.full(-num % size, curve.y[-1])
    buckets = np.append(curve.y, room).reshape(-1, size)
    starts = size * np.arange(len(buckets))
    places = np.concatenate([starts + buckets.argmin(axis=1), starts + buckets.argmax(axis=1), [0, num - 1]])
    places = np.unique(np.minimum(places, num - 1))
    return Curve(curve.x[places], curve.y[places])


def moving_average(curve: Curve, span: int) -> Curve:
    """The smoothed curve."""
    return Curve(curve.x, smoothed(curve.y, span))


def value_range(values: Sequence[Floats]) -> tuple[float, float] | None:
    """The lowest and the highest of some curves; None where there is no value."""
    found = [part for part in values if len(part)]
    if not found:
        return None
    return min(float(part.min()) for part in found), max(float(part.max()) for part in found)
