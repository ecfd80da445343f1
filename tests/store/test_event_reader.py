"""Events are read once and whole, while they are written and after a kill; a job sees and stops its stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lark_engine.errors import StoppedEarly
from lark_engine.store import events
from lark_engine.store.events import (
    EventLog,
    EventReader,
    JobLink,
    Progress,
    is_asked_to_stop,
    last_event,
    link_job,
    plural,
)

STEP = {"time": 1.5, "stage": "train", "done": 1, "total": 10, "unit": "step", "rate": 2.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture(autouse=True)
def _unlinked() -> Iterator[None]:
    yield
    link_job(None)


def line(number: int, **more: Any) -> bytes:
    return json.dumps({**STEP, "done": number, **more}, ensure_ascii=False).encode() + b"\n"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def numbers(found: EventReader) -> list[int]:
    return [event["done"] for event in found]


def test_each_call_gives_what_is_new(path: Path) -> None:
    reader = EventReader(path)
    assert numbers(reader) == []
    append(path, line(1) + line(2))
    assert numbers(reader) == [1, 2]
    assert numbers(reader) == []
    append(path, line(3))
    assert numbers(reader) == [3]


def test_a_line_that_is_not_finished_is_waited_for(path: Path) -> None:
    reader = EventReader(path)
    append(path, line(1) + line(2, note="ĝ")[:-5])
    assert numbers(reader) == [1]
    append(path, line(2, note="ĝ")[-5:-1])
    assert numbers(reader) == []
    append(path, b"\n")
    assert list(reader) == [{**STEP, "done": 2, "note": "ĝ"}]


def test_a_line_that_is_finished_while_those_before_it_are_read_comes_once_and_whole(path: Path) -> None:
    """The reader takes its time; the log grows meanwhile, in the middle of a line too."""
    reader = EventReader(path)
    append(path, line(1) + line(2)[:20])
    found = []
    for event in reader:
        found.append(event["done"])
        if event["done"] == 1:
            append(path, line(2)[20:] + line(3) + line(4)[:30])
    append(path, line(4)[30:])
    assert [*found, *numbers(reader)] == [1, 2, 3, 4]
    assert reader.offset == path.stat().st_size


def test_who_stops_in_the_middle_goes_on_with_the_next_event(path: Path) -> None:
    append(path, line(1) + line(2) + line(3))
    reader = EventReader(path)
    assert next(iter(reader))["done"] == 1
    assert reader.offset == len(line(1))
    assert numbers(EventReader(path, reader.offset)) == [2, 3]
    assert numbers(reader) == [2, 3]


@pytest.mark.parametrize(
    "torn",
    [
        b'{"done": 9, "met', b"", b"\xff\xfe{", b"null", b"[1]", b"7", b"\0" * 50, b"[" * 100_000,
        b'{"done": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_event_is_left_out(path: Path, torn: bytes) -> None:
    append(path, line(1) + torn + b"\n" + line(2))
    assert numbers(EventReader(path)) == [1, 2]
    assert last_event(path) == {**STEP, "done": 2}
    append(path, torn + b"\n")
    assert last_event(path) == {**STEP, "done": 2}


def test_lines_end_where_a_line_is_fed_and_nowhere_else(path: Path) -> None:
    append(path, line(1, note="a\u2028b\x85c\x0cd"))
    append(path, line(2)[:-1] + b"\r\n")
    append(path, b"half\r" + line(3))
    assert numbers(EventReader(path)) == [1, 2]


def test_a_log_that_was_begun_anew_is_read_from_its_beginning(path: Path) -> None:
    append(path, line(1) + line(2))
    reader = EventReader(path)
    assert numbers(reader) == [1, 2]
    path.write_bytes(line(3))
    assert numbers(reader) == [3]
    path.unlink()
    assert numbers(reader) == []


def test_lines_that_are_longer_than_what_is_read_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_CHUNK_BYTES", 64)
    for number in range(1, 6):
        append(path, line(number, note="x" * 100 * (number % 3)))
    assert numbers(EventReader(path)) == [1, 2, 3, 4, 5]


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 1000), max_size=12), chunk=st.sampled_from([1, 7, 100, 8 << 20]), stop=st.booleans()
)
def test_wherever_the_writing_pauses_every_line_comes_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], chunk: int, stop: bool
) -> None:
    whole = b"".join(line(number, note="ĝ" * (number % 4)) for number in range(10))
    path = tmp_path_factory.getbasetemp() / "split.jsonl"
    path.write_bytes(b"")
    reader, found = EventReader(path), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_CHUNK_BYTES", chunk)
        ends = sorted({min(cut, len(whole)) for cut in cuts} | {len(whole)})
        for begin, end in zip([0, *ends], ends, strict=False):
            append(path, whole[begin:end])
            for event in reader:
                found.append(event["done"])
                if stop:
                    break
        found += numbers(reader)
    assert found == list(range(10))
    assert reader.offset == len(whole)


def test_no_log_has_no_last_event(path: Path) -> None:
    assert last_event(path) is None
    path.write_bytes(b"")
    assert last_event(path) is None
    path.unlink()
    path.mkdir()
    assert last_event(path) is None


def test_the_last_event_is_one_that_says_how_far_the_stage_is(path: Path) -> None:
    append(path, line(1) + line(2))
    note = {"time": 2.0, "stage": "train", "done": 0, "total": 10, "unit": "step", "note": "resumes"}
    append(path, json.dumps(note).encode() + b"\n" + b'{"time": 3.0, "alert": "the loss rises"}\n' + line(3)[:-1])
    assert last_event(path) == {**STEP, "done": 2}
    append(path, b"\n")
    assert last_event(path) == {**STEP, "done": 3}


def test_many_notes_do_not_hide_how_far_the_stage_is(path: Path) -> None:
    append(path, line(7))
    append(path, b'{"time": 3.0, "stage": "train", "note": "waits for a worker"}\n' * 5000)
    assert last_event(path) == {**STEP, "done": 7}


def test_an_event_that_is_longer_than_what_is_mostly_enough(path: Path) -> None:
    append(path, line(1) + line(2, metrics={"text": "x" * 100_000}))
    assert (last_event(path) or {})["done"] == 2


def test_the_end_of_a_long_log_is_enough(path: Path) -> None:
    """2 GB of a log that is a hole; to read it would take seconds."""
    append(path, line(1))
    with path.open("rb+") as file:
        file.truncate(2_000_000_000)
    assert last_event(path) is None
    append(path, b"\n" + line(5))
    assert last_event(path) == {**STEP, "done": 5}


def test_what_a_kill_tore_is_ended_before_anything_is_appended(path: Path) -> None:
    append(path, line(1) + line(2)[:-10])
    EventLog(path, "train").write(done=3)
    assert numbers(EventReader(path)) == [1, 3]
    log = path.read_bytes()
    EventLog(path, "train")
    assert path.read_bytes() == log


def test_a_new_log_is_not_begun_before_there_is_an_event(path: Path) -> None:
    log = EventLog(path.parent / "below" / "events.jsonl", "train")
    assert log.path.parent.is_dir() and not log.path.exists()
    path.write_bytes(b"")
    EventLog(path, "train")
    assert path.read_bytes() == b""


def test_events_of_a_stage_go_to_its_job_too(path: Path, tmp_path: Path) -> None:
    of_job = tmp_path / "job.jsonl"
    append(of_job, line(1) + b'{"torn')
    EventLog(path, "score").write(done=1)
    link_job(JobLink(events_path=of_job, wants_stop=lambda: False))
    EventLog(path, "score").write(done=2, note="–ĝ")
    link_job(None)
    EventLog(path, "score").write(done=3)
    assert numbers(EventReader(path)) == [1, 2, 3]
    assert [(event["stage"], event["done"]) for event in EventReader(of_job)] == [("train", 1), ("score", 2)]
    assert path.read_bytes().splitlines()[1] == of_job.read_bytes().splitlines()[2]


def test_a_number_that_is_not_finite_is_null_however_deep_it_lies(path: Path) -> None:
    nan, infinity = float("nan"), float("inf")
    metrics = {"loss": nan, "norm": {"max": infinity, "each": [1.0, nan, (-infinity, 2)]}, "text": "nan", "step": 3}
    EventLog(path, "train").write(metrics=metrics, eta_s=nan)
    text = path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    [event] = EventReader(path)
    each = [1.0, None, [None, 2]]
    assert event["metrics"] == {"loss": None, "norm": {"max": None, "each": each}, "text": "nan", "step": 3}
    assert event["eta_s"] is None


@pytest.mark.parametrize("end", ["stop", "no stop"])
def test_a_stage_ends_at_an_update_when_its_job_is_asked_to(path: Path, tmp_path: Path, end: str) -> None:
    asked: list[bool] = []
    assert not is_asked_to_stop()
    link_job(JobLink(events_path=tmp_path / "job.jsonl", wants_stop=lambda: bool(asked)))
    with Progress(EventLog(path, "score"), 3000, "trajectory", every_s=0.0, resumes=True) as progress:
        progress.update(1000)
        if end == "no stop":
            progress.update(2000)
            return
        asked.append(True)
        assert is_asked_to_stop()
        with pytest.raises(StoppedEarly) as error:
            progress.update(500)
    assert str(error.value) == (
        "stopped after 1,500 of 3,000 trajectories, which are kept; run the same command again, it resumes"
    )
    assert numbers(EventReader(path)) == [1000, 1500]
    assert (last_event(tmp_path / "job.jsonl") or {})["done"] == 1500


def test_what_is_complete_is_not_stopped(path: Path, tmp_path: Path) -> None:
    link_job(JobLink(events_path=tmp_path / "job.jsonl", wants_stop=lambda: True))
    with Progress(EventLog(path, "score"), 2, "trajectory", every_s=0.0) as progress:
        progress.update(2)
    assert numbers(EventReader(path)) == [2]


def test_who_is_asked_is_not_asked_at_every_step(path: Path, tmp_path: Path) -> None:
    """A look at the job's folder costs time: at most one for each event."""
    looks: list[int] = []
    link_job(JobLink(events_path=tmp_path / "job.jsonl", wants_stop=lambda: bool(looks.append(1))))
    with Progress(EventLog(path, "score"), 1000, "token", every_s=3600.0, resumes=True) as progress:
        for _ in range(999):
            progress.update(1)
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("unit", "units"),
    [("step", "steps"), ("trajectory", "trajectories"), ("token", "tokens"), ("labels", "labels"), ("B", "B")],
)
def test_units_in_words(unit: str, units: str) -> None:
    assert plural(unit) == units
