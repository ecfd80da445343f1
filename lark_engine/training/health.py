"""How a run is doing: loss, gradient norm, speed and memory of every step to `events.jsonl`, alerts, and the curve."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lark_engine.store.curves import read_metric
from lark_engine.store.events import EventLog, ProgressLines
from lark_engine.training.curves import RunCurves

log = logging.getLogger(__name__)

# A loss is a spike when it is this many robust standard deviations above the median of the steps before it, and this
# much larger: weights make the loss of a step vary by nature.
SPIKE_DEVIATIONS = 6.0
SPIKE_FACTOR = 1.5
_WINDOW = 50
_FEWEST = 10
_MAD_TO_DEVIATION = 1.4826


class RunLog:
    """Writes the events of a run. `step_tokens`: real tokens of every optimizer step, over all devices.

    Every event also says how far the run is in `tokens`, those of all steps so far, and in `train_s`, the seconds that
    these steps took in this process and in those that it resumes.

    `ends_after_step`: whether somebody wants the run saved and ended after the step that is computed now.
    """

    def __init__(self, events: EventLog, step_tokens: Sequence[int], logging_steps: int, device: str):
        self._events = events
        self._step_tokens = step_tokens
        self._tokens = [0, *accumulate(step_tokens)]
        self._logging_steps = logging_steps
        self._usage = Usage(device)
        self._lines = ProgressLines()
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self.ends_after_step = False
        self.begin(0)

    def begin(self, step: int) -> None:
        """Count rate and speed from here: steps before `step` are of an earlier process, whose time counts on."""
        self._earlier_s = _seconds_of(self._events.path, step) if step else 0.0
        self._first_step = self._last_step = step
        self._started = self._last_time = time.monotonic()

    def note(self, step: int, text: str, **fields: Any) -> None:
        """Something to say once, in words."""
        self._events.write(done=step, total=len(self._step_tokens), unit="step", note=text, metrics={}, **fields)

    def step(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """A finished step: an event where the config wants one, an alert where the loss jumped.

        Returns the metrics with speed and memory added.
        """
        now = time.monotonic()
        tokens = self._tokens[step] - self._tokens[self._last_step]
        metrics = {**metrics, "tokens_per_s": round(tokens / max(now - self._last_time, 1e-9), 1)}
        alert = spike(self._losses, metrics["loss"])
        self._losses.append(metrics["loss"])
        if alert or step % self._logging_steps == 0 or step == len(self._step_tokens):
            self._last_step, self._last_time = step, now
            metrics |= self._usage.read()
            if alert:
                log.warning("step %d: %s", step, alert)
            self._write(step, metrics, now, **({"alert": alert} if alert else {}))
        return metrics

    def evaluation(self, step: int, metrics: dict[str, float], seconds: float) -> None:
        """Losses on what is not trained on, and how long it took to measure them: that is not training time."""
        self._write(step, metrics, time.monotonic())
        self._last_time += seconds

    def _write(self, step: int, metrics: dict[str, float], now: float, **fields: Any) -> None:
        total = len(self._step_tokens)
        rate = (step - self._first_step) / max(now - self._started, 1e-9)
        event = self._events.write(
            done=step, total=total, unit="step", rate=round(rate, 5),
            eta_s=round((total - step) / rate, 1) if rate else None, **fields,
            metrics={
                **metrics, "tokens": self._tokens[step], "train_s": round(self._earlier_s + now - self._started, 3)
            },
        )  # fmt: skip
        if not sys.stderr.isatty():
            self._lines.say(event)


def _seconds_of(path: Path, step: int) -> float:
    """The seconds that the steps up to this one took, as the log of a run says."""
    columns = RunCurves(path).read().columns
    seconds = columns["train_s"][columns["done"] <= step]
    known = seconds[np.isfinite(seconds)]
    return float(known[-1]) if len(known) else 0.0


def spike(before: Sequence[float], loss: float) -> str | None:
    """What to say of a loss that is far above those of the steps before it, None of one that is not."""
    if len(before) < _FEWEST:
        return None
    median = statistics.median(before)
    deviation = _MAD_TO_DEVIATION * statistics.median(abs(x - median) for x in before)
    if loss <= median + SPIKE_DEVIATIONS * deviation or loss <= SPIKE_FACTOR * median:
        return None
    return f"loss spike: {loss:.4g}, while the median of the last {len(before)} steps is {median:.4g}"


class Usage:
    """Memory and load of this process's device."""

    def __init__(self, device: str):
        self._device = device
        self._asks_nvml = device == "cuda"
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call starts the clock

    def read(self) -> dict[str, float]:
        """`memory_mb`: peak on a GPU, resident on a CPU. `device_use`: share of the GPU's time or of all cores."""
        if self._device == "cpu":
            use = self._process.cpu_percent() / 100 / (psutil.cpu_count() or 1)
            return {"memory_mb": round(self._process.memory_info().rss / 1e6, 1), "device_use": round(use, 3)}
        import torch

        values = {"memory_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1)}
        if self._asks_nvml:
            try:
                values["device_use"] = torch.cuda.utilization() / 100
            except Exception:  # NVML is not installed, or knows no load of this device; its errors have no common type
                log.info("the load of the GPU is not known here and is left out of the events")
                self._asks_nvml = False
        return values


def read_curve(path: Path, metric: str = "loss") -> dict[int, float]:
    """Step → value of a metric of a run's `events.jsonl`.

    A resumed run computes the steps after its checkpoint again; the last value of a step counts.
    """
    steps, values = read_metric(path, metric)
    last_of_step = dict(zip(steps.tolist(), values.tolist(), strict=True))
    return dict(sorted(last_of_step.items()))
