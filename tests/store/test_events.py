"""Progress that can be trusted: a steady rate and time left, the same in events and in a log without a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lark_engine.store import events
from lark_engine.store.events import EventLog, Progress


class Clock:
    """Stands in for time.monotonic; `pass_` moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(events.time, "monotonic", clock)
    return clock


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_rate_after_a_resume_is_that_of_this_process(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "events.jsonl"
    with Progress(EventLog(path, "score"), 2000, "token", done=1000) as progress:
        for _ in range(4):
            clock.pass_(2.0)
            progress.update(100)
    assert [event["done"] for event in written(path)] == [1100, 1200, 1300, 1400]
    assert [event["rate"] for event in written(path)] == [50.0] * 4
    assert [event["eta_s"] for event in written(path)] == [18.0, 16.0, 14.0, 12.0]


def test_the_rate_can_begin_after_what_waited_for_something_to_start(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "events.jsonl"
    with Progress(EventLog(path, "score"), 1000, "token") as progress:
        clock.pass_(100.0)  # workers start
        progress.update(100)
        progress.begin()
        clock.pass_(2.0)
        progress.update(100)
    assert [event["rate"] for event in written(path)] == [1.0, 50.0]
    assert [event["eta_s"] for event in written(path)] == [900.0, 16.0]


def test_uneven_steps_move_the_time_left_by_little(tmp_path: Path, clock: Clock) -> None:
    """A long batch after many short ones: the time left is about the whole run's rate, not about the last step's."""
    path = tmp_path / "events.jsonl"
    with Progress(EventLog(path, "score"), 2000, "token") as progress:
        for seconds in (*[1.0] * 9, 5.0):
            clock.pass_(seconds)
            progress.update(100)
    assert [event["eta_s"] for event in written(path)[-2:]] == [11.0, 14.0]


def test_updates_in_quick_succession_are_one_event_and_the_last_is_never_lost(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "events.jsonl"
    with Progress(EventLog(path, "score"), 30, "trajectory") as progress:
        for _ in range(30):
            clock.pass_(0.1)
            progress.update(1, note="x")
    assert [event["done"] for event in written(path)] == [1, 11, 21, 30]
    assert {(event["stage"], event["unit"], event["total"]) for event in written(path)} == {("score", "trajectory", 30)}
    assert written(path)[-1]["metrics"] == {"note": "x"}


def test_a_log_without_a_terminal_gets_a_line_every_half_minute(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), Progress(EventLog(tmp_path / "events.jsonl", "score"), 9000, "token") as progress:
        for _ in range(8):
            clock.pass_(10.0)
            progress.update(500)
    assert caplog.messages == [
        "score: 1500 of 9000 tokens (16.7 %), 50.0 a second, 0:02:30 left",
        "score: 3000 of 9000 tokens (33.3 %), 50.0 a second, 0:02:00 left",
    ]


def test_a_number_that_is_not_finite_is_null_in_an_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path, "train").write(loss=float("nan"), norm=float("inf"), lr=0.5)
    [event] = written(path)
    assert (event["loss"], event["norm"], event["lr"]) == (None, None, 0.5)
