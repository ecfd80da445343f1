"""Curves are those of the events, line by line, whatever is torn and however the folders are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lark_engine.store.curves import read_metric
from lark_engine.store.events import EventLog


def line(done: Any, loss: Any, **more: Any) -> bytes:
    return json.dumps({"stage": "train", "done": done, "metrics": {"loss": loss}, **more}).encode() + b"\n"


def curve(path: Path, content: bytes, metric: str = "loss") -> list[tuple[int, float]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    steps, values = read_metric(path, metric)
    assert (steps.dtype, values.dtype) == (np.int64, np.float64)
    return list(zip(steps.tolist(), values.tolist(), strict=True))


def line_by_line(content: bytes, metric: str = "loss") -> list[tuple[int, float]]:
    """The plain way."""
    found = []
    for text in content.split(b"\n"):
        try:
            event = json.loads(text)
            step, value = event["done"], event["metrics"][metric]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if step is not None and value is not None:
            found.append((int(step), float(value)))
    return found


TWO = line(1, 0.5) + line(2, 0.25)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b'{"don',
        TWO[:-1],  # whole, only its end is missing
        TWO + b'{"done": 3, "metrics": {"loss": 1.',
        line(1, 0.5) + b'{"done": 9, "met\n' + line(2, 0.25),
        line(1, 0.5) + b'{"done": 9, "met{"done": 8, "metrics": {"loss": 7.0}}\n' + line(2, 0.25),
        line(1, 0.5) + b"\0" * 5000 + b"\n" + line(2, 0.25),  # after a power loss
        line(1, 0.5) + b'{"note": "\xff", "done": 7, "metrics": {"loss": 3}}\n' + line(2, 0.25),
        line(1, 0.5) + b"[" * 100_000 + b"\n" + line(2, 0.25),
        line(1, None) + line(None, 0.5) + line(3, 0.25),
        b'{"done": 1}\n{"done": 2, "metrics": 3}\n{"done": 2, "metrics": null}\n[]\n7\nnull\n"x"\n' + TWO,
        b'{"note": "begins"}\n' + line(1, 0.5, note='–ĝ \u2028 "quoted" \\ {') + b'{"alert": "x"}\n',
        line(5, 3) + line(4, 2.5) + line(5, 1e-300) + line(2**62, -0.0),
        line(1, 0.5).replace(b"\n", b"\r\n") + line(2, 0.25),
    ],
)
def test_a_curve_is_that_of_the_lines(tmp_path: Path, content: bytes) -> None:
    assert curve(tmp_path / "events.jsonl", content) == line_by_line(content)


def test_what_is_not_finite_leaves_a_gap(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", "train")
    for done, loss in enumerate([1.0, float("nan"), float("inf"), 0.5], start=1):
        log.write(done=done, metrics={"loss": loss, "lr": 0.1})
    steps, values = read_metric(log.path, "loss")
    assert (steps.tolist(), values.tolist()) == ([1, 4], [1.0, 0.5])
    assert read_metric(log.path, "lr")[0].tolist() == [1, 2, 3, 4]


def test_steps_that_a_resumed_run_computes_again_come_again_in_the_order_of_the_log(tmp_path: Path) -> None:
    content = b"".join(line(done, done / 2) for done in (1, 2, 3, 2, 3, 4))
    assert curve(tmp_path / "e", content) == [(1, 0.5), (2, 1.0), (3, 1.5), (2, 1.0), (3, 1.5), (4, 2.0)]


def test_a_metric_that_no_event_has_is_an_empty_curve(tmp_path: Path) -> None:
    assert curve(tmp_path / "events.jsonl", TWO, "eval_loss") == []


@pytest.mark.parametrize("metric", ["order", "group", "select", "end", "value", "done", "metrics", "gütemaß"])
def test_a_metric_may_have_any_name(tmp_path: Path, metric: str) -> None:
    content = json.dumps({"done": 1, "metrics": {metric: 2.5}}).encode() + b"\n"
    assert curve(tmp_path / "events.jsonl", content, metric) == [(1, 2.5)]


@pytest.mark.parametrize(
    "name",
    [
        "a*b", "a?b", "[a]", "[!a]", "a]b", "{a,b}", "**", "it's", 'a "quoted" one', "back\\slash", "back\\sl*sh", "–ĝ",
        "two\nlines", "$HOME", "~", "%20", "http:", "done=5", "metrics=1", "lr=1e-5", "events.gz", "events.zst",
    ],
)  # fmt: skip
def test_folders_and_files_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Beside others that a pattern would take for it."""
    for other in ("axb", "a", "ab"):
        for path in (tmp_path / other / "events.jsonl", tmp_path / "files" / other):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(line(9, 9.0))
    assert curve(tmp_path / name / "events.jsonl", TWO) == [(1, 0.5), (2, 0.25)]
    assert curve(tmp_path / "files" / name, TWO) == [(1, 0.5), (2, 0.25)]


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_metric(tmp_path / "events.jsonl", "loss")


def test_a_log_of_a_hundred_thousand_events_is_read_in_order(tmp_path: Path) -> None:
    lines = [line(step, step / 7, time=1.5, unit="step", rate=2.0) for step in range(100_000)]
    for torn in range(500, 100_000, 9973):
        lines[torn] = lines[torn][: torn % 60] + b"\n"
    content = b"".join(lines)
    found = curve(tmp_path / "events.jsonl", content)
    assert len(found) == 99_990
    assert found == line_by_line(content)


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 60)), max_size=8),
    values=st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=40, max_size=40),
)
def test_wherever_lines_are_torn_the_others_count(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], values: list[float | None]
) -> None:
    lines = [line(step, value) for step, value in enumerate(values)]
    for number, keep in cuts:
        lines[number] = lines[number][:keep].rstrip(b"\n") + b"\n"
    content = b"".join(lines)
    assert curve(tmp_path_factory.getbasetemp() / "torn.jsonl", content) == line_by_line(content)
