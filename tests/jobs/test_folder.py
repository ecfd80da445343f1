"""A job's files are read as they were written, damaged ones as nothing; names lead to jobs and nowhere else."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lark_engine.errors import StoreError
from lark_engine.jobs import folder as folders
from lark_engine.jobs.folder import Job, all_jobs, create_job, find_job, somebody
from lark_engine.jobs.records import Heartbeat, JobSpec, Launch, Request, read_heartbeat
from lark_engine.processes import own_identity

SPEC = JobSpec(
    stage="train lora", command=("lark", "train", "lora", "--name", "a b\nĝ"), cwd="/somewhere", priority=-3,
    device_kind="cuda", devices=2, max_retries=1, launcher="ray", address="http://head:8265", cloned_from="another",
)  # fmt: skip


@pytest.fixture
def job(root: Path) -> Job:
    return create_job(root, JobSpec(stage="score", command=("lark", "score"), cwd="/"))


def named(root: Path, *names: str) -> list[Job]:
    """Jobs of these ids, without any files."""
    jobs = [Job(root / "jobs" / name) for name in names]
    for job in jobs:
        job.folder.mkdir(parents=True)
    return jobs


def test_a_specification_is_read_as_it_was_written(root: Path) -> None:
    before = time.time()
    job = create_job(root, SPEC)
    spec = job.spec()
    assert before - 0.001 <= spec.submitted_at <= time.time() + 0.001
    assert spec.submitted_by == somebody()
    assert (spec.stage, spec.command, spec.cwd) == (SPEC.stage, SPEC.command, SPEC.cwd)
    assert (spec.priority, spec.device_kind, spec.devices, spec.max_retries) == (-3, "cuda", 2, 1)
    assert (spec.launcher, spec.address, spec.cloned_from) == ("ray", "http://head:8265", "another")
    assert job.log_path.read_text() == ""
    assert job.workspace_root == root


@pytest.mark.parametrize("stage", ["../../escape", "/etc/passwd", "", "a" * 500, "train lora", "ĝ\n\0", ".."])
def test_whatever_a_stage_is_called_its_job_lies_in_the_jobs_folder(root: Path, stage: str) -> None:
    job = create_job(root, JobSpec(stage=stage, command=("lark", "x"), cwd="/"))
    assert job.folder.parent == root / "jobs"
    assert list((root / "jobs").iterdir()) == [job.folder]
    assert re.fullmatch(r"\d{8}-\d{6}-\d{3}-[\w.-]{1,24}-[0-9a-f]{8}", job.id)
    assert job.spec().stage == stage


def test_a_field_that_a_newer_version_added_is_passed_over(job: Job) -> None:
    path = job.folder / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_later": 1}))
    assert job.spec().command == ("lark", "score")


def test_a_specification_of_a_newer_schema_is_refused_with_the_remedy(job: Job) -> None:
    path = job.folder / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    with pytest.raises(StoreError, match=f"^{path}: was made by a newer version of LARK Studio; update this one$"):
        job.spec()


def test_a_missing_specification_is_refused_with_the_remedy(job: Job) -> None:
    (job.folder / "spec.json").unlink()
    with pytest.raises(StoreError, match=f"missing or damaged; remove the job with: lark jobs remove {job.id}$"):
        job.spec()


@pytest.mark.parametrize(
    "damage",
    [
        {"command": []}, {"command": None}, {"command": ["lark", 7]}, {"command": "lark score"}, {"stage": None},
        {"cwd": 7}, {"priority": "high"}, {"devices": None}, {"max_retries": "3"}, {"submitted_at": "today"},
        {"schema_version": "1"}, {"schema_version": None}, {"device_kind": "tpu"}, {"launcher": "cloud"},
    ],
)  # fmt: skip
def test_a_specification_with_a_value_that_cannot_be_is_refused(job: Job, damage: dict[str, Any]) -> None:
    path = job.folder / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(StoreError, match="is no job's specification"):
        job.spec()


def test_a_launch_record_is_read_as_it_was_written(job: Job) -> None:
    assert job.launch() is None
    launch = Launch(
        supervisor=own_identity(), command=own_identity(), attempt=3, devices=("GPU-1", "MIG-2"), started_at=1.5,
        command_started_at=2.5, log_offset=77, adopted=True,
    )  # fmt: skip
    job.write_launch(launch)
    assert job.launch() == launch
    first = Launch(supervisor=own_identity())
    job.write_launch(first)
    assert job.launch() == first


@pytest.mark.parametrize(
    "damage",
    [
        {"attempt": "x"}, {"attempt": None}, {"attempt": float("inf")}, {"log_offset": float("nan")}, {"devices": 7},
        {"started_at": "x"}, {"command_started_at": "x"}, {"supervisor": None}, {"supervisor": {"pid": 1}},
        {"supervisor": []},
    ],
)  # fmt: skip
def test_a_damaged_launch_record_is_none(job: Job, damage: dict[str, Any]) -> None:
    values = {**Launch(supervisor=own_identity()).as_json(), **damage}
    (job.folder / "launch.json").write_text(json.dumps(values))
    assert job.launch() is None


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        (["after_checkpoint"], ["after_checkpoint"]),
        (["after_checkpoint", "stop", "kill"], ["after_checkpoint", "stop", "kill"]),
        (["kill", "stop", "after_checkpoint"], ["kill", "kill", "kill"]),
        (["stop", "after_checkpoint", "stop", "kill"], ["stop", "stop", "stop", "kill"]),
    ],
)
def test_the_strongest_of_what_was_asked_holds(job: Job, asked: list[Request], holds: list[Request]) -> None:
    assert job.request() is None
    for request, strongest in zip(asked, holds, strict=True):
        assert job.ask(request) == strongest
        assert job.request() == strongest


def test_who_asked_first_is_kept_when_it_is_asked_again(job: Job) -> None:
    job.ask("stop")
    written = (job.folder / "control.json").read_bytes()
    assert json.loads(written)["by"] == somebody()
    job.ask("stop")
    job.ask("after_checkpoint")
    assert (job.folder / "control.json").read_bytes() == written


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"request": "dance"}', '{"request": ["stop"]}', "{}"])
def test_what_nobody_can_read_was_not_asked(job: Job, damage: str) -> None:
    (job.folder / "control.json").write_text(damage)
    assert job.request() is None
    assert job.ask("after_checkpoint") == job.request() == "after_checkpoint"


def test_of_eight_processes_that_ask_at_once_the_strongest_request_wins(root: Path) -> None:
    jobs = [create_job(root, SPEC) for _ in range(8)]
    requests: list[Request] = ["stop", "after_checkpoint", "kill", "stop", "after_checkpoint", "stop", "kill", "stop"]
    forks = multiprocessing.get_context("fork")
    gate = forks.Barrier(len(requests))

    def ask(request: Request) -> None:
        for number, job in enumerate(jobs):
            weaker: Request = "stop" if request == "kill" else request
            mine = weaker if number % 2 else request  # nobody asks for a kill of every other job
            gate.wait(30)
            held = job.ask(mine)
            assert folders.REQUESTS.index(held) >= folders.REQUESTS.index(mine)

    processes = [forks.Process(target=ask, args=(request,)) for request in requests]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 8
    assert [job.request() for job in jobs] == ["kill", "stop"] * 4


def ended(job: Job, number: int) -> None:
    """Files as an attempt leaves them."""
    job.write_launch(Launch(supervisor=own_identity(), attempt=number))
    job.ask("stop")
    job.write_outcome({"artifacts": []})
    job.excerpt_path.write_text(f"log {number}")
    job.write_done({"state": "failed", "attempt": number})


def test_a_job_begins_again_with_nothing_of_its_last_attempt_but_log_and_events(job: Job) -> None:
    job.log_path.write_text("said\n")
    job.events_path.write_text('{"done": 1}\n')
    ended(job, 1)
    job.begin_again()
    assert (job.done(), job.launch(), job.outcome(), job.request()) == (None, None, None, None)
    assert (job.log_path.read_text(), job.events_path.read_text()) == ("said\n", '{"done": 1}\n')
    assert sorted(path.name for path in (job.folder / "attempts" / "1").iterdir()) == [
        "control.json", "done.json", "excerpt.log", "launch.json", "outcome.json",
    ]  # fmt: skip
    assert job.attempts() == [{"state": "failed", "attempt": 1}]
    assert time.time() - 60 < job.begun_at() < time.time() + 60


def test_to_begin_again_twice_in_a_row_is_to_do_it_once(job: Job) -> None:
    job.begin_again()
    assert job.attempts() == []
    ended(job, 1)
    job.begin_again()
    job.begin_again()
    assert job.attempts() == [{"state": "failed", "attempt": 1}]
    ended(job, 2)
    job.begin_again()
    assert job.attempts() == [{"state": "failed", "attempt": 1}, {"state": "failed", "attempt": 2}]
    assert (job.folder / "attempts" / "2" / "excerpt.log").read_text() == "log 2"


def test_an_attempt_that_another_one_follows_at_once_leaves_its_verdict(job: Job) -> None:
    job.write_launch(Launch(supervisor=own_identity()))
    job.write_outcome({"error": "ServerError"})
    job.keep_attempt({"state": "failed"}, "its log\n")
    assert (job.attempts(), job.done()) == ([{"state": "failed"}], None)
    assert (job.folder / "attempts" / "1" / "excerpt.log").read_text() == "its log\n"
    assert job.launch() is not None


def test_an_attempt_without_a_verdict_was_interrupted(job: Job) -> None:
    job.write_launch(Launch(supervisor=own_identity()))
    job.begin_again()
    assert job.attempts() == [{"state": "interrupted"}]


def test_attempts_are_listed_in_their_order_whatever_is_damaged(job: Job) -> None:
    for number in range(1, 12):
        (job.folder / "attempts" / str(number)).mkdir(parents=True)
        (job.folder / "attempts" / str(number) / "done.json").write_text(json.dumps({"state": "failed", "n": number}))
    (job.folder / "attempts" / "2" / "done.json").write_text("{")
    (job.folder / "attempts" / "3" / "done.json").unlink()
    (job.folder / "attempts" / "notes").mkdir()
    (job.folder / "attempts" / "notes.txt").write_text("")
    found = job.attempts()
    assert [attempt.get("n") for attempt in found] == [1, None, None, 4, 5, 6, 7, 8, 9, 10, 11]
    assert found[1] == found[2] == {"state": "interrupted"}


def test_what_only_looks_like_a_number_is_no_attempt(job: Job) -> None:
    """Python calls a superscript a digit, and then cannot read it."""
    (job.folder / "attempts" / "²").mkdir(parents=True)
    assert job.attempts() == []


def test_no_attempt_is_put_over_an_earlier_one_when_one_before_it_was_removed(job: Job) -> None:
    for number in (1, 2):
        ended(job, number)
        job.begin_again()
    for path in (job.folder / "attempts" / "1").iterdir():
        path.unlink()
    (job.folder / "attempts" / "1").rmdir()
    ended(job, 3)
    job.begin_again()
    assert [attempt["attempt"] for attempt in job.attempts()] == [2, 3]


def test_a_job_is_found_by_its_id_a_unique_part_of_it_and_as_the_last(root: Path) -> None:
    old, new = named(root, "20260101-100000-score-aaaa1111", "20260102-100000-train-bbbb2222")
    for name in (old.id, "score", "aaaa", "20260101", "1111"):
        assert find_job(root, name) == old
    for name in (new.id, "train", "last"):
        assert find_job(root, name) == new
    assert all_jobs(root) == [new, old]


def test_a_whole_id_means_one_job_though_it_is_a_part_of_another(root: Path) -> None:
    short, long = named(root, "score", "score-2")
    assert (find_job(root, "score"), find_job(root, "score-2")) == (short, long)


def test_a_part_of_several_ids_is_refused_with_these(root: Path) -> None:
    names = [f"2026010{day}-100000-score-aaaa111{day}" for day in range(1, 8)]
    named(root, *names)
    with pytest.raises(StoreError) as error:
        find_job(root, "score")
    some = ", ".join(reversed(names[2:]))
    assert str(error.value) == f"'score' names 7 jobs of {root / 'jobs'}: {some}, …; give more of the id"


def test_an_unknown_name_is_refused_with_the_nearest(root: Path) -> None:
    with pytest.raises(StoreError) as error:
        find_job(root, "last")
    assert str(error.value) == f"no job 'last' in workspace {root}; the workspace holds none yet"
    named(root, "20260101-100000-score-aaaa1111")
    with pytest.raises(StoreError) as error:
        find_job(root, "20260101-100000-scare-aaaa1111")
    hint = "; did you mean '20260101-100000-score-aaaa1111'?"
    assert str(error.value) == f"no job '20260101-100000-scare-aaaa1111' in workspace {root}{hint}"
    with pytest.raises(StoreError, match=r"; known are: 20260101-100000-score-aaaa1111$"):
        find_job(root, "zzz")


@pytest.mark.parametrize(
    "name", ["../pools", "../../outside", "/etc", "..", ".", "./", "a/b", "*", "2026*", "\0", "\n", "x" * 100_000]
)
def test_a_name_leads_out_of_the_jobs_folder_nowhere(root: Path, job: Job, name: str) -> None:
    (root / "pools").mkdir()
    with pytest.raises(StoreError, match=r"^no job "):
        find_job(root, name)


def test_an_empty_name_names_no_job(root: Path, job: Job) -> None:
    """`lark jobs stop "$JOB"` with a variable that is not set must not stop the only one there is."""
    with pytest.raises(StoreError):
        find_job(root, "")


def test_the_last_of_two_jobs_of_one_second_is_the_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(["ffffffff", "00000000"])
    monkeypatch.setattr(folders, "secrets", SimpleNamespace(token_hex=lambda _: next(numbers)))
    first = create_job(root, SPEC)
    time.sleep(0.002)
    second = create_job(root, SPEC)
    assert all_jobs(root) == [second, first]
    assert find_job(root, "last") == second


def test_a_folder_that_is_being_removed_is_no_job(root: Path) -> None:
    named(root, ".20260101-100000-score-aaaa1111.removed")
    assert all_jobs(root) == []
    with pytest.raises(StoreError):
        find_job(root, "score")


def test_a_workspace_whose_jobs_folder_is_a_file_has_no_jobs(root: Path) -> None:
    root.mkdir()
    (root / "jobs").write_text("")
    assert all_jobs(root) == []


def beat(job: Job, phase: str, waits_for: str = "") -> dict[str, Any]:
    """What is read of a heartbeat; its record is always of the same size."""
    heartbeat = Heartbeat(job.folder)
    heartbeat.write(phase, waits_for=waits_for)
    heartbeat.close()
    assert (job.folder / "heartbeat").stat().st_size == 1024
    found = read_heartbeat(job.folder)
    assert found is not None
    return found


def test_a_heartbeat_is_written_over_in_place(job: Job) -> None:
    before = time.time(), time.monotonic()
    assert read_heartbeat(job.folder) is None
    assert beat(job, "queued", "2 of 2 GPU(s); none is free")["waits_for"] == "2 of 2 GPU(s); none is free"
    found = beat(job, "running")
    assert sorted(found) == ["monotonic", "phase", "time"]
    assert found["phase"] == "running"
    assert before[0] - 0.001 <= found["time"] <= time.time() + 0.001
    assert before[1] - 0.001 <= found["monotonic"] <= time.monotonic() + 0.001


@pytest.mark.parametrize(
    ("words", "least"),
    [
        ("GPU-1 is held by x, " * 50, 800), ("x" * 5000, 800), ("ĝ" * 500, 130), ("𝑥" * 500, 60),
        ('\udcff\n\0"' * 99, 100),
    ],
)  # fmt: skip
def test_what_is_waited_for_is_shortened_to_the_size_of_the_record(job: Job, words: str, least: int) -> None:
    found = beat(job, "queued", words)["waits_for"]
    assert found.endswith("…")
    assert words.startswith(found[:-1])
    assert len(found) > least


@settings(max_examples=40, deadline=None)
@given(words=st.text(min_size=1, max_size=1200))
def test_any_words_leave_a_record_that_can_be_read(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    job = Job(tmp_path_factory.getbasetemp())
    found = beat(job, "queued", words)["waits_for"]
    assert found == words or (found.endswith("…") and words.startswith(found[:-1]))
    assert found == words or len(json.dumps(words)) > 900
