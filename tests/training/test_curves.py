"""The curves of a run: what counts after a resume, what a pause is, what a thinned line still shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lark_engine.store.curves import NUMBERS, read_metrics
from lark_engine.store.events import EventLog
from lark_engine.training.curves import Curve, RunCurves, moving_average, thinned
from lark_engine.training.health import RunLog, read_curve


def event(step: int, loss: float | None, *, time: float = 0.0, **metrics: float) -> dict[str, Any]:
    said = {} if loss is None else {"loss": loss}
    return {"time": time or float(step), "stage": "train", "done": step, "total": 9, "rate": 1.0, "eta_s": 1.0,
            "metrics": {**said, **metrics}}  # fmt: skip


def start(time: float) -> dict[str, Any]:
    return {"time": time, "stage": "train", "done": 0, "total": 9, "note": "9 steps", "metrics": {}}


def append(path: Path, *events: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write("".join(f"{json.dumps(one)}\n" for one in events))


def pairs(curve: Curve) -> list[tuple[float, float]]:
    return list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_steps_that_are_computed_again_count_once_and_those_still_to_come_not_at_all(path: Path) -> None:
    """Killed after step 4, resumed after step 2, and at step 3 now: what was said of step 4 is of other weights."""
    append(path, start(1), *(event(step, 10.0 - step) for step in (1, 2, 3, 4)), event(4, None, eval_held_out_loss=7.0))
    curves = RunCurves(path)
    assert pairs(curves.read().curve("loss")) == [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0)]
    append(path, start(9), event(2, None, eval_held_out_loss=8.5), event(3, 6.5))
    shown = curves.read()
    assert pairs(shown.curve("loss")) == [(1, 9.0), (2, 8.0), (3, 6.5)]
    assert pairs(shown.curve("eval_held_out_loss")) == [(2, 8.5)]
    append(path, event(4, 5.5), event(5, 5.0))
    steps = pairs(curves.read().curve("loss"))
    assert steps == [(1, 9.0), (2, 8.0), (3, 6.5), (4, 5.5), (5, 5.0)]
    assert dict(steps) == read_curve(path)  # once it is beyond, it is what the manifest is written from
    assert pairs(RunCurves(path).read().curve("loss")) == steps  # read at once as in pieces


def test_a_line_that_is_being_written_counts_once_it_is_whole(path: Path) -> None:
    append(path, start(1), event(1, 3.0))
    line = json.dumps(event(2, 2.0)).encode() + b"\n"
    curves = RunCurves(path)
    with path.open("ab", buffering=0) as file:
        file.write(line[:30])
        assert pairs(curves.read().curve("loss")) == [(1, 3.0)]
        file.write(line[30:])
    assert pairs(curves.read().curve("loss")) == [(1, 3.0), (2, 2.0)]


def test_lines_that_are_no_events_are_left_out_whether_read_whole_or_later(path: Path) -> None:
    torn = b'{"time": 5.0, "done": 5, "metr\n[1]\n"x"\n{"time": null, "done": 3, "rate": 1, "metrics": {"loss": 1}}\n'
    append(path, event(1, 3.0))
    curves = RunCurves(path)
    for step in (2, 3):
        with path.open("ab") as file:
            file.write(torn)
        append(path, event(step, 2.0))
        assert len(curves.read().curve("loss").x) == step
    assert pairs(RunCurves(path).read().curve("loss")) == [(1, 3.0), (2, 2.0), (3, 2.0)]


def test_a_log_that_is_begun_anew_is_read_anew(path: Path) -> None:
    append(path, *(event(step, 1.0) for step in range(1, 9)))
    curves = RunCurves(path)
    assert curves.read().num_events == 8
    path.write_text(json.dumps(event(1, 4.0)) + "\n")
    assert pairs(curves.read().curve("loss")) == [(1, 4.0)]
    path.unlink()
    assert curves.read().num_events == 0


def test_a_pause_between_two_processes_is_no_training_time(path: Path) -> None:
    """100 s for each step; killed after step 3, resumed an hour later after step 2."""
    append(path, start(1000), event(1, 1.0, time=1100), event(2, 1.0, time=1200), event(3, 1.0, time=1300))
    watching = RunCurves(path)
    assert (3600 * watching.read().along("hours")).tolist() == pytest.approx([100, 200, 300])
    append(path, start(5000), event(3, 1.0, time=5100), event(4, 1.0, time=5200))
    for curves in (watching, RunCurves(path)):
        assert (3600 * curves.read().along("hours")).tolist() == pytest.approx([100, 200, 300, 400])


def test_what_was_shown_stays_when_steps_are_computed_again(path: Path) -> None:
    append(path, *(event(step, 1.0) for step in range(1, 6)))
    curves = RunCurves(path)
    shown = curves.read()
    append(path, event(3, 2.0), event(4, 2.0))
    assert pairs(curves.read().curve("loss")) == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert pairs(shown.curve("loss")) == [(step, 1.0) for step in range(1, 6)]


def test_a_resumed_process_counts_time_and_tokens_on(tmp_path: Path) -> None:
    log = RunLog(EventLog(tmp_path / "events.jsonl", "train"), [10, 20, 30, 40], 1, "cpu")
    log._started -= 60.0  # a minute ago
    log.step(1, {"loss": 3.0})
    log.step(2, {"loss": 2.0})
    log.step(3, {"loss": 9.0})
    resumed = RunLog(EventLog(tmp_path / "events.jsonl", "train"), [10, 20, 30, 40], 1, "cpu")
    resumed.begin(2)
    resumed._started -= 30.0
    resumed.step(3, {"loss": 1.5})
    curves = RunCurves(tmp_path / "events.jsonl").read()
    assert pairs(curves.curve("loss", "tokens")) == [(10, 3.0), (30, 2.0), (60, 1.5)]
    assert (3600 * curves.curve("loss", "hours").x).tolist() == pytest.approx([60, 60, 90], abs=5)
    assert curves.number("eta_s") == pytest.approx(30, abs=5)  # one step at the rate of this process


def test_a_run_whose_log_said_no_time_counts_it_on_when_it_is_resumed(path: Path) -> None:
    append(path, start(1), event(1, 3.0), event(2, 2.0))
    before = 3600 * float(RunCurves(path).read().along("hours")[-1])
    assert before > 0
    resumed = RunLog(EventLog(path, "train"), [10, 20, 30], 1, "cpu")
    resumed.begin(2)
    resumed.step(3, {"loss": 1.5})
    assert RunCurves(path).read().last("train_s") == pytest.approx(before, abs=0.5)


def test_a_log_without_tokens_cannot_be_drawn_by_tokens(path: Path) -> None:
    append(path, start(1), event(1, 3.0), event(2, 2.0))
    curves = RunCurves(path).read()
    assert [curves.has(axis) for axis in ("step", "tokens", "hours")] == [True, False, True]
    assert len(curves.curve("loss", "tokens").x) == 0


def test_alerts_stand_at_their_steps(path: Path) -> None:
    append(path, event(1, 1.0), {**event(2, 9.0), "alert": "loss spike"}, event(3, 1.0))
    curves = RunCurves(path)
    assert [tuple(mark) for mark in curves.read().marks()] == [(2.0, 9.0, "loss spike")]
    append(path, {**event(4, 8.0), "alert": "another"})
    assert [mark.text for mark in curves.read().marks()] == ["loss spike", "another"]


def test_held_out_sets_may_have_any_name(path: Path) -> None:
    names = ["eval_held_out_loss", "eval_aime-24_loss", 'eval_it\'s "x"_loss']
    append(path, event(1, 1.0), event(1, None, **dict.fromkeys(names, 2.0)))
    assert list(read_metrics(path, ["loss"]).columns)[len(NUMBERS) :] == ["loss", *names]
    curves = RunCurves(path)
    curves.read()
    append(path, event(2, None, eval_new_loss=3.0))
    assert curves.read().evaluations == [*names, "eval_new_loss"]
    assert pairs(curves.read().curve("eval_new_loss")) == [(2, 3.0)]


def test_a_thinned_curve_keeps_every_spike_and_both_ends() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=100_000)
    y[[777, 50_001]] = 40.0, -40.0
    found = thinned(Curve(np.arange(100_000.0), y))
    assert len(found.x) <= 1000
    assert {(777.0, 40.0), (50_001.0, -40.0)} <= set(pairs(found))
    assert (found.x[0], found.x[-1]) == (0.0, 99_999.0)
    assert np.all(np.diff(found.x) > 0)


def test_a_curve_that_grows_is_thinned_in_the_same_places() -> None:
    y = np.random.default_rng(0).normal(size=3000)
    before, after = (thinned(Curve(np.arange(float(n)), y[:n]), 1000) for n in (2900, 2990))
    assert set(before.x[before.x < 2896].tolist()) <= set(after.x.tolist())


def test_a_short_curve_is_not_thinned() -> None:
    curve = Curve(np.arange(1000.0), np.arange(1000.0))
    assert thinned(curve) is curve


def test_a_moving_average_forgets_at_the_rate_of_its_span() -> None:
    """Span 3: weights 1, 1/2, 1/4, … from the newest back."""
    found = moving_average(Curve(np.arange(3.0), np.array([7.0, 0.0, 0.0])), 3)
    assert found.y.tolist() == pytest.approx([7, 7 * (1 / 2) / (3 / 2), 7 * (1 / 4) / (7 / 4)])
    assert moving_average(found, 1).y.tolist() == found.y.tolist()


def test_a_hundred_thousand_steps_are_read_once_and_then_only_what_is_new(path: Path) -> None:
    append(path, *(event(step, step / 7, tokens=10.0 * step) for step in range(1, 100_001)))
    curves = RunCurves(path)
    first = curves.read()
    assert (first.num_events, first.last("tokens")) == (100_000, 1_000_000.0)
    assert curves.read() is first
    append(path, event(100_001, 0.5))
    grown = curves.read()
    assert grown.num_events == 100_001
    assert pairs(grown.curve("loss"))[-2:] == [(100_000, 100_000 / 7), (100_001, 0.5)]
