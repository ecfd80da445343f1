"""The page Jobs as Streamlit runs it: the list, its filter and pages, devices and queue, one job in full."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import fake_jobs as fake
import pytest
from fake_workspace import finished_run
from shown_page import shown_page
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from app import files, job_log, job_words
from app.files import log_path
from app.job_list import page_of
from lark_engine.jobs.devices import machine_devices
from lark_engine.jobs.folder import Job
from lark_engine.jobs.leases import lease
from lark_engine.jobs.status import list_jobs, view
from lark_engine.store.workspace import Workspace

ROUTER = Path(__file__).resolve().parents[2] / "app" / "router.py"
OpenPage = Callable[..., AppTest]


@pytest.fixture
def root(workspace: Workspace) -> Path:
    return workspace.root


@pytest.fixture
def open_page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    monkeypatch.setenv("LARK_HOME", str(root))
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))

    def run(**query: str) -> AppTest:
        return shown_page("jobs", **query)

    return run


def calm(page: AppTest) -> AppTest:
    assert not page.exception, page.exception
    assert "This part of the page failed." not in text_of(page)
    return page


def text_of(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def components(page: AppTest, name: str) -> list[dict[str, object]]:
    return [json.loads(e.proto.json) for e in page.get("bidi_component") if e.proto.component_name == name]


def rows(page: AppTest, table: int = -1) -> list[list[str]]:
    """The texts of a table's cells; the list is the last one."""
    found = components(page, "lark_row_table")[table]["rows"]
    assert isinstance(found, list)
    return [[cell[0] for cell in row] for row in found]


def log_of(page: AppTest) -> list[str]:
    [found] = components(page, "lark_log_view")
    assert isinstance(found["lines"], list)
    return found["lines"]


def filter_of(page: AppTest) -> list[str]:
    [found] = [g for g in page.get("button_group") if g.key == "job_state"]
    return [option.content for option in found.proto.options]


def test_a_workspace_without_jobs_says_what_a_job_is_and_how_one_is_started(open_page: OpenPage, root: Path) -> None:
    page = open_page()
    assert [heading.value for heading in page.subheader] == ["No jobs yet"]
    assert page.code[0].value == f"LARK_HOME={root} lark jobs submit lark pool import FILE"
    assert not root.exists()  # looking writes nothing


def test_the_list_says_of_each_job_what_it_runs_how_it_stands_and_why(open_page: OpenPage, root: Path) -> None:
    done = fake.ended(root, "succeeded", stage="score", artifacts=["scores/demo@student-0123456789ab"])
    bad = fake.failed(root)
    cut = fake.ended(root, "cancelled", stage="train lora", message="stopped as asked")
    page = open_page()
    assert rows(page) == [
        [f"train lora · {cut.id[-8:]}", "cancelled", "stopped as asked", "just now", "1 min 15 s", by(cut)],
        [
            f"pool import · {bad.id[-8:]}", "failed", "bad input: pool.jsonl:7: no assistant message", "just now",
            "1 min 15 s", by(bad),
        ],
        [
            f"score · {done.id[-8:]}", "succeeded", "scores/demo@student-0123456789ab", "just now", "1 min 15 s",
            by(done),
        ],
    ]  # fmt: skip


def by(job: Job) -> str:
    return job.spec().submitted_by


def test_500_jobs_are_counted_by_state_filtered_and_paged_newest_first(open_page: OpenPage, root: Path) -> None:
    fake.many(root, {"succeeded": 402, "failed": 60, "cancelled": 37})  # and one more
    page = open_page()
    assert filter_of(page) == ["All · 500", "Live · 0", "Failed · 60", "Cancelled · 37", "Succeeded · 403"]
    assert len(rows(page)) == 25
    assert [row[0][-8:] for row in rows(page)[1:4]] == ["000001f2", "000001f1", "000001f0"]
    assert "1 to 25 of 500, newest first · a row opens its job" in [caption.value for caption in page.caption]
    last = open_page(job_state="failed", job_page="3")
    assert [row[1] for row in rows(last)] == ["failed"] * 10
    assert [row[0][-8:] for row in rows(last)] == [f"{number:08x}" for number in range(411, 401, -1)]
    assert rows(open_page(job_page="999")) == rows(open_page(job_page="20"))
    assert rows(open_page(job_state="nonsense", job_page="x")) == rows(page)


def test_a_filter_starts_at_its_first_page_and_is_in_the_address(open_page: OpenPage, root: Path) -> None:
    fake.many(root, {"succeeded": 60, "failed": 3})
    page = open_page(job_page="2")
    [group] = [g for g in page.get("button_group") if g.key == "job_state"]
    group.set_value("failed").run()
    assert page.query_params["job_state"] == "failed"
    assert "job_page" not in page.query_params
    assert len(rows(calm(page))) == 3


def test_a_state_without_jobs_is_said_and_stays_chosen(open_page: OpenPage, root: Path) -> None:
    fake.ended(root, "succeeded")
    page = open_page(job_state="failed")
    assert filter_of(page) == ["All · 1", "Live · 0", "Failed · 0", "Succeeded · 1"]
    assert "No job is in this state now." in text_of(page)


def test_waiting_jobs_stand_in_the_order_of_their_turns_with_what_they_wait_for(
    open_page: OpenPage, root: Path
) -> None:
    first = fake.living(
        root, "queued", waits_for="1 of 1 CPU slot(s); cpu-0 is held by 20260101-000000-001-demo-0a0b0c0d"
    )
    urgent = fake.living(root, "queued", waits_for="the jobs before it", priority=5)
    page = open_page()
    assert [row[:3] for row in rows(page, 0)] == [
        [f"1. train lora · {urgent.id[-8:]}", "the jobs before it", "5"],
        [f"2. train lora · {first.id[-8:]}", "1 of 1 CPU slot(s); cpu-0 is held by demo 0a0b0c0d", "0"],
    ]
    assert "place 1 · waits for the jobs before it" in [row[2] for row in rows(page)]


def test_a_device_is_free_or_says_which_job_holds_it(open_page: OpenPage, root: Path) -> None:
    job = fake.living(root, "running")
    assert text_of(open_page()).count("free</div>") == len(machine_devices("cpu"))
    taken = lease(machine_devices("cpu"), 1, job.id)
    assert taken is not None
    page = open_page()
    assert "held</div>" in text_of(page)
    [holder] = [button for button in page.button if (button.key or "").startswith("holder.")]
    assert holder.label == rf"train lora · {job.id[-8:]}"
    holder.click().run()
    assert page.query_params["job"] == job.id
    taken.free()
    other = lease(machine_devices("cpu"), 1, "20260101-000000-001-demo-0a0b0c0d")
    assert other is not None
    assert "held by demo 0a0b0c0d, of another workspace</div>" in text_of(open_page())
    other.free()


def test_a_job_that_runs_shows_progress_time_left_and_the_end_of_its_log(open_page: OpenPage, root: Path) -> None:
    job = fake.living(root, "running")
    fake.tell(job, done=30, total=120, eta_s=185.0)
    job.log_path.write_text("".join(f"line {number}\n" for number in range(300)) + "\x1b[32mgreen\x1b[0m \x07end\n")
    page = open_page(job=job.id)
    text = text_of(page)
    assert "30 of 120 steps" in text
    assert 'aria-valuenow="25.0"' in text
    assert "3 min 0" in text and " left</span>" in text
    assert log_of(page)[0] == "line 101"
    assert log_of(page)[-1] == "green  end"
    assert len(log_of(page)) == 200
    assert len(log_of(open_page(job=job.id, log_lines="50"))) == 50
    assert len(log_of(open_page(job=job.id, log_lines="1000"))) == 301
    labels = [button.label for button in page.button]
    assert "Stop now" in labels and "Resume" not in labels


def test_a_failed_job_has_a_card_with_reason_message_place_and_remedy(open_page: OpenPage, root: Path) -> None:
    job = fake.failed(root)
    job.excerpt_path.write_text("first\n[… 7 bytes between are in output.log …]\nlast\n")
    fake.keep_attempt(job, 1, state="failed", reason="network", message="the hub did not answer", wall_s=3.0)
    text = text_of(open_page(job=job.id))
    assert "<strong>bad input</strong>" in text
    assert "will fail again as it is" in text
    assert "<p>pool.jsonl:7: no assistant message</p>" in text
    assert "<dt>Where</dt><dd>pool.jsonl:7</dd>" in text
    assert "<dt>What to do</dt><dd>mend it and run the same command again: it resumes</dd>" in text
    assert "<td>1</td><td>failed</td><td>network: the hub did not answer</td><td>3.0 s</td>" in text
    page = open_page(job=job.id, log_lines="excerpt")
    assert log_of(page) == ["first", "[… 7 bytes between are in output.log …]", "last"]
    assert "Resume" in [button.label for button in page.button]


def literal(label: str) -> str:
    """What a label says, without what makes its signs literal."""
    return label.replace("\\", "").replace("\u2060", "")


def test_what_a_job_made_is_linked_to_the_page_that_shows_it(open_page: OpenPage, root: Path) -> None:
    made = finished_run(Workspace(root))
    names = [f"{made[name].kind}/{made[name].id}" for name in ("student", "scores", "selection", "checkpoint")]
    job = fake.ended(root, "succeeded", stage="run", artifacts=[*names, "scores/gone-000000000000"])
    page = open_page(job=job.id)
    found = {literal(link.proto.label): link.proto for link in page.get("page_link")}
    scores, selection, checkpoint = (found[made[name].id] for name in ("scores", "selection", "checkpoint"))
    assert scores.page.endswith("explore") and parse_qs(scores.query_string)["scores"] == [made["scores"].id]
    assert selection.page.endswith("tune") and parse_qs(selection.query_string)["scores"] == [made["scores"].id]
    assert checkpoint.page.endswith("train") and parse_qs(checkpoint.query_string)["run"] == [made["checkpoint"].id]
    said = [literal(caption.value) for caption in page.caption]
    assert f"students/{made['student'].id}" in said  # no page shows it
    assert "scores/gone-000000000000 (no longer here)" in said
    live = fake.living(root, "running", stage="run")
    live.note_artifact(made["scores"].path)
    live.note_artifact(root / "checkpoints" / "not-finished-yet")
    labels = [literal(link.proto.label) for link in open_page(job=live.id).get("page_link")]
    assert made["scores"].id in labels
    assert "not-finished-yet" not in labels


def test_a_job_is_found_by_a_part_of_its_id_and_one_that_is_not_there_is_said_to_be_gone(
    open_page: OpenPage, root: Path
) -> None:
    job = fake.ended(root, "succeeded")
    assert [h.value for h in open_page(job=job.id[-8:]).subheader] == [f"pool import · {job.id[-8:]}"]
    page = open_page(job="20200101-000000-000-score-deadbeef")
    assert [h.value for h in page.subheader] == ["This job is not here"]
    assert "No job &#x27;20200101-000000-000-score-deadbeef&#x27; in workspace" in text_of(page)


def test_a_damaged_job_is_listed_and_can_be_opened_and_removed(open_page: OpenPage, root: Path) -> None:
    job = fake.living(root, "running")
    (job.folder / "spec.json").write_text("{")
    (job.folder / "launch.json").unlink()
    assert rows(open_page())[0][:2] == [f"unreadable · {job.id[-8:]}", "unreadable"]
    page = open_page(job=job.id)
    assert "missing or damaged" in text_of(page)
    [remove] = [button for button in page.button if button.key == "job.remove"]
    remove.click().run()
    assert not job.folder.exists()
    assert "job" not in calm(page).query_params


def test_hostile_texts_of_a_job_are_shown_as_text(open_page: OpenPage, root: Path) -> None:
    hostile = '<img src="https://evil.example/x" onerror=alert(1)>'
    job = fake.failed(root, stage=f"pool {hostile}", message=hostile, place=hostile, remedy=hostile, log=hostile)
    fake.living(root, "queued", waits_for=hostile)
    for page in (open_page(), open_page(job=job.id)):
        assert "<img" not in text_of(page)
        labels = [element.value for element in (*page.markdown, *page.caption, *page.subheader)]
        assert not any(re.search(r"(?<!\\)<", label) for label in labels)
    assert "&lt;img src=" in text_of(page)


def test_pages_and_progress_of_odd_records_are_harmless(root: Path) -> None:
    assert page_of([], "all", 5) == ([], 1, 1, 0)
    job = fake.living(root, "running")
    now_s = time.time()
    for event in (
        {"done": "x", "total": 10}, {"done": 5, "total": -1}, {"done": 1, "total": 1e400}, {"done": -3, "total": 10},
    ):  # fmt: skip
        job.events_path.unlink(missing_ok=True)
        fake.tell(job, **event)
        assert job_words.progress_words(view(job), now_s) in ("", "0 of 10 steps")
    fake.tell(job, done=2, total=10, eta_s=50.0, time=now_s - 20)
    assert job_words.progress_words(view(job), now_s) == "2 of 10 steps · 30 s left"
    fake.tell(job, done=2, total=10, eta_s=50.0, time=now_s - 90)  # the forecast is over, and the step is not
    assert job_words.progress_words(view(job), now_s) == "2 of 10 steps"
    fake.tell(job, done=2, total=10, eta_s=500.0, time=now_s - 300)  # of the attempt before
    assert job_words.progress_words(view(job), now_s) == "2 of 10 steps"


def test_a_failure_is_old_news_once_its_command_ran_again_or_a_day_has_passed(root: Path) -> None:
    fake.failed(root)
    again = fake.ended(root, "succeeded")
    other = fake.failed(root, stage="score")
    fake.failed(root, stage="generate", ended_at=time.time() - 90_000)
    assert [job.id for job in job_words.failed_lately(list_jobs(root))] == [other.id]
    shutil.rmtree(again.folder)
    assert len(job_words.failed_lately(list_jobs(root))) == 2


def test_the_whole_log_is_sent_as_it_is_and_nothing_else_of_the_disk(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARK_HOME", str(root))
    job = fake.ended(root, "succeeded", log="Zeile\n" * 300_000)
    client = TestClient(Starlette(routes=files.ROUTES))
    answer = client.get(log_path(job.id))
    assert answer.text == "Zeile\n" * 300_000
    assert answer.headers["content-disposition"] == f'attachment; filename="{job.id}.log"'
    assert client.get(log_path("nothing")).status_code == 404
    assert client.get("/lark/jobs/..%2F..%2Fetc/output.log").status_code == 404
    job.log_path.unlink()
    assert client.get(log_path(job.id)).status_code == 404


def test_the_end_of_a_log_of_2_gb_is_read_at_once(root: Path) -> None:
    job = fake.ended(root, "succeeded")
    with job.log_path.open("wb") as file:
        file.seek(2_000_000_000)
        file.write(b"\nlast but one\nlast\n")
    began = time.perf_counter()
    found = job_log.shown(job, "50")
    assert time.perf_counter() - began < 1.0  # of the whole it would be many seconds
    assert found.lines[-2:] == ["last but one", "last"]
    assert found.size == 2_000_000_019
