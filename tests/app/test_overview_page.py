"""The Overview in each state of a workspace, run as Streamlit runs it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import fake_jobs as fake
import pytest
from fake_workspace import add, damage, finished_run, graded
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest

from app.job_blocks import health
from app.machine import Devices, DeviceUse, Disk
from lark_engine.doctor.disk import Room
from lark_engine.doctor.versions import Conflict
from lark_engine.jobs.devices import Device
from lark_engine.store.workspace import Workspace

ROUTER = Path(__file__).resolve().parents[2] / "app" / "router.py"


OpenPage = Callable[..., AppTest]


@pytest.fixture
def open_page(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))

    def run(**query: str) -> AppTest:
        return shown_page("overview", **query)

    return run


def headings(page: AppTest) -> list[str]:
    return [element.value for element in page.subheader]


def test_an_empty_workspace_shows_the_first_steps_with_their_commands(
    open_page: OpenPage, workspace: Workspace
) -> None:
    page = open_page()
    assert headings(page) == ["First steps", "Machine"]
    home = f"LARK_HOME={workspace.root}"
    assert [code.value for code in page.code] == [
        f"lark demo --no-dashboard --workspace {workspace.root}", f"{home} lark pool import FILE",
        f"{home} lark score --pool POOL --student STUDENT", f"{home} lark run recipe.yaml",
    ]  # fmt: skip
    assert [button.label for button in page.button if button.key == "run_demo"] == ["Run the demo"]
    assert html_of(page).count("not yet</span>") == 5
    assert not workspace.root.exists()  # looking writes nothing


def test_a_finished_run_shows_each_stage_the_best_result_and_the_table(
    open_page: OpenPage, workspace: Workspace
) -> None:
    finished_run(workspace)
    page = open_page()
    text = html_of(page)
    assert headings(page) == ["Best result so far", "Next", "All results", "Where each result comes from", "Machine"]
    assert text.count("ready</span>") == 5
    assert '168<span>candidates</span></div><div class="facts"><div>24 problems</div><div>7 teachers</div>' in text
    assert "<div>χ², B = 3</div><div>8 dropped</div>" in text
    assert "45.8%<span>95 %: 28.8 – 63.8</span></div><div>lora-demo-4d6f8b0c2e3a</div>" in text
    assert "+25.0 points against smollm2-135m-instruct" in text
    assert "<small>LoRA · χ², B = 3</small>" in text and "<small>student (untrained)</small>" in text


def test_the_metric_in_the_address_is_the_metric_shown(open_page: OpenPage, workspace: Workspace) -> None:
    finished_run(workspace)
    text = html_of(open_page(metric="pass@2"))
    assert "demo · pass@2 · n = 12" in text
    assert '<span class="value">55.8%</span>' in text


def test_a_result_is_traced_back_to_its_pool_with_counts_and_drops(open_page: OpenPage, workspace: Workspace) -> None:
    made = finished_run(workspace)
    text = html_of(open_page())
    chain = text[text.index("lora-demo-4d6f8b0c2e3a on demo") :]
    places = [chain.index(f"<code>{made[name].id}</code>") for name in ("checkpoint", "selection", "scores", "pool")]
    assert places == sorted(places)
    assert "24 problems · 168 trajectories · 7 teachers · 160 correct · 168 labeled" in chain
    assert "<td>2 no assistant message</td>" in chain
    assert "python 3.11" in chain


def test_an_input_that_was_deleted_is_said_to_be_gone(open_page: OpenPage, workspace: Workspace) -> None:
    made = finished_run(workspace)
    (made["pool"].path / "manifest.json").unlink()
    text = html_of(open_page())
    assert f'<code>{made["pool"].id}</code></td><td colspan="4" class="muted">no longer in the workspace</td>' in text


def test_bold_is_only_what_no_other_interval_reaches(open_page: OpenPage, workspace: Workspace) -> None:
    made = finished_run(workspace)  # 45.8 above 20.8 [3.8, 38.8]
    assert html_of(open_page()).count('<td class="best">') == 1
    rival = add(workspace, "checkpoints", "lora-rival", "7a7a7a7a7a7a", inputs={"selection": made["selection"].ref})
    graded(workspace, rival, rival.id, "demo", 0.40)
    text = html_of(open_page())
    assert text.count('<td class="best">') == 0
    assert "tied: another interval reaches it" in text


def test_each_benchmark_is_shown_by_its_own_number_of_samples(open_page: OpenPage, workspace: Workspace) -> None:
    made = finished_run(workspace)
    manifest = graded(workspace, made["student"], "smollm2-135m-instruct", "aime", 0.31).path / "manifest.json"
    said = json.loads(manifest.read_text())
    overall = said["metrics"]["overall"]
    said["metrics"] |= {"n_samples": 64, "overall": {"avg@64": overall["avg@2"], "<b>": overall["avg@2"]}}
    manifest.write_text(json.dumps(said))
    page = open_page()
    assert "aime · avg@n · n = 12" in html_of(page) and "demo · avg@n · n = 12" in html_of(page)
    (said,) = (c.value.replace("\u2060", "") for c in page.caption if c.value.startswith("n: "))
    assert said.endswith("aime avg\\@64 · demo avg\\@2")
    (control,) = page.get("button_group")
    assert [option.content for option in control.proto.options] == [
        "avg@n",
        "avg@2",
        "avg@64",
        "pass@1",
        "pass@2",
        "maj@2",
    ]


def test_without_a_share_of_right_answers_there_is_no_table(open_page: OpenPage, workspace: Workspace) -> None:
    made = finished_run(workspace)
    for name in ("trained", "untrained"):
        manifest = made[name].path / "manifest.json"
        said = json.loads(manifest.read_text())
        overall = {"mean_tokens": said["metrics"]["overall"]["avg@2"]}
        said["metrics"] |= {"overall": overall, "by_level": {}}
        manifest.write_text(json.dumps(said))
    assert "All results" not in headings(open_page())


def test_of_many_results_ten_are_shown_with_a_way_to_the_others(open_page: OpenPage, workspace: Workspace) -> None:
    made = finished_run(workspace)
    for number in range(11):
        graded(workspace, made["student"], f"m{number:02d}", "demo", 0.1)
    page = open_page()
    assert html_of(page).count("<details>") == 10
    assert [link.proto.label for link in page.get("page_link") if "more" in link.proto.label] == ["3 more on Evaluate"]
    assert html_of(page).count("<br><small>") == 10


def test_a_model_that_was_not_evaluated_has_an_empty_cell_not_a_zero(open_page: OpenPage, workspace: Workspace) -> None:
    made = finished_run(workspace)
    graded(workspace, made["student"], "smollm2-135m-instruct", "gsm8k", 0.31)
    text = html_of(open_page())
    assert text.count("not evaluated") == 1
    assert "0.0%<" not in text


@pytest.mark.parametrize("name", ["pool", "scores", "checkpoint", "trained"])
def test_a_damaged_manifest_is_named_and_breaks_nothing(open_page: OpenPage, workspace: Workspace, name: str) -> None:
    made = finished_run(workspace)
    damage(made[name])
    text = html_of(open_page())
    assert "Left out as damaged." in text
    assert str(made[name].path.relative_to(workspace.root)) in text


@pytest.mark.parametrize("metrics", [{}, {"n_samples": 2}, {"n_samples": 2, "overall": {"avg@2": 5}}])
def test_damaged_metrics_are_named_and_hide_no_other_result(
    open_page: OpenPage, workspace: Workspace, metrics: dict[str, object]
) -> None:
    made = finished_run(workspace)
    path = made["trained"].path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": metrics}))
    text = html_of(open_page())
    assert f"<li><code>{made['trained'].path.relative_to(workspace.root)}: " in text
    assert '<span class="value">20.8%</span>' in text


def test_an_artifact_of_another_process_appears_at_the_next_run(open_page: OpenPage, workspace: Workspace) -> None:
    page = open_page()
    finished_run(workspace)
    page.run()
    assert "168<span>candidates</span>" in html_of(page)


def test_markup_in_names_is_shown_as_text(open_page: OpenPage, workspace: Workspace) -> None:
    hostile = '<img src="https://evil.example/x" onerror=alert(1)>'
    made = finished_run(workspace, pool_name=hostile.replace("/", "_"))
    add(workspace, "scores", "<script>alert(2)<_script>", "9c9c9c9c9c9c", inputs={"pool": made["pool"].ref})
    graded(workspace, made["checkpoint"], "<b>x", "<i>y", 0.5)
    manifest = made["selection"].path / "manifest.json"
    said = json.loads(manifest.read_text())
    said["drops"] = {"<iframe src=x>": 3}
    said["config"]["rule"] = "<object>"
    manifest.write_text(json.dumps(said))
    page = open_page()
    text = html_of(page)
    for tag in ("<img", "<script", "<iframe", "<object", "<b>x", "<i>y"):
        assert tag not in text
    assert "&lt;img src=" in text and "&lt;iframe src=x&gt;" in text
    assert not page.markdown or all("<" not in element.value for element in page.markdown)


def test_what_is_being_made_is_shown_with_its_progress(open_page: OpenPage, workspace: Workspace) -> None:
    folder = workspace.root / "scores" / "demo@student-0123456789ab"
    folder.mkdir(parents=True)
    event = {"stage": "score", "done": 12034, "total": 31000, "unit": "token", "rate": 2.0, "eta_s": 48.2}
    (folder / "events.jsonl").write_text(json.dumps(event) + '\n{"stage": "score", "torn')
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        page = open_page()
    assert "running · 12,034 of 31,000 tokens · 48 s left" in html_of(page)
    assert 'class="lark-card running"' in html_of(page)
    after = open_page()  # the lock is free: whoever held it is gone
    assert "stopped; the same command resumes it · 12,034 of 31,000 tokens" in html_of(after)


def queries(page: AppTest, label: str) -> list[str]:
    return [link.proto.query_string for link in page.get("page_link") if link.proto.label == label]


def test_live_jobs_are_shown_once_the_running_ones_before_those_that_wait(
    open_page: OpenPage, workspace: Workspace
) -> None:
    finished_run(workspace)
    waiting = fake.living(workspace.root, "queued", stage="score", waits_for="the jobs before it")
    job = fake.living(workspace.root, "running")
    fake.tell(job, done=30, total=120, eta_s=1000.0)
    folder = workspace.root / "checkpoints" / "lora-0123456789ab"
    folder.mkdir()
    job.note_artifact(folder)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        page = open_page()
    text = html_of(page)
    assert headings(page)[:2] == ["Running now", "Best result so far"]
    assert text.index("30 of 120 steps · 16 min") < text.index("place 1 · waits for the jobs before it")
    assert "Checkpoint <code>" not in text  # the job stands for what it makes
    assert 'class="lark-card running"' in text
    assert [f"job={job.id}" in query for query in queries(page, "Open")] == [True, False]
    assert waiting.id in queries(page, "Open")[1]
    assert "Wait for what is being made" in text


def test_jobs_that_failed_lately_are_a_line_with_a_way_to_the_reason(open_page: OpenPage, workspace: Workspace) -> None:
    finished_run(workspace)
    assert "failed in the last day" not in html_of(open_page())
    job = fake.failed(workspace.root)
    page = open_page()
    assert "1 job failed in the last day and was not run again: pool import" in html_of(page)
    assert f"job={job.id}" in queries(page, "See why")[0]
    fake.failed(workspace.root, stage="score")
    page = open_page()
    assert "2 jobs failed in the last day and were not run again: score, pool import" in html_of(page)
    assert "job_state=failed" in queries(page, "See why")[0]


def test_what_a_stopped_job_left_is_taken_up_by_resuming_it(open_page: OpenPage, workspace: Workspace) -> None:
    finished_run(workspace)
    job = fake.ended(workspace.root, "cancelled", stage="train lora", message="stopped as asked")
    folder = workspace.root / "checkpoints" / "lora-0123456789ab"
    folder.mkdir()
    (folder / ".lock").touch()
    job.note_artifact(folder)
    page = open_page()
    assert headings(page)[0] == "Left unfinished"
    assert "Checkpoint lora-0123456789ab is unfinished. Its job was cancelled; it can be resumed:" in html_of(page)
    assert page.code[0].value == f"LARK_HOME={workspace.root} lark jobs resume {job.id}"
    assert f"job={job.id}" in queries(page, "Its job")[0]


@pytest.mark.parametrize(
    ("missing", "label", "param"),
    [
        (("trained", "untrained"), "Evaluate", "view=run"), (("checkpoint",), "Train", ""),
        (("selection",), "Tune", "scores=demo"), (("scores",), "Pool and scores", ""),
    ],
)  # fmt: skip
def test_the_next_step_leads_to_the_page_that_does_it(
    open_page: OpenPage, workspace: Workspace, missing: tuple[str, ...], label: str, param: str
) -> None:
    made = finished_run(workspace)
    order = ("scores", "selection", "checkpoint", "trained", "untrained")
    for name in order[order.index(missing[0]) :]:
        (made[name].path / "manifest.json").unlink()
        (made[name].path / ".lock").unlink(missing_ok=True)
    page = open_page()
    found = [link.proto for link in page.get("page_link") if link.proto.icon == ":material/arrow_forward:"]
    assert [link.label for link in found] == [label]
    assert param in found[0].query_string


def test_disk_devices_and_versions_are_in_a_strip_and_what_is_wrong_is_said(workspace: Workspace) -> None:
    slot = Device(kind="cpu", id="cpu-0", name="CPU slot 1 of 1", memory_bytes=None)
    gpu = Device(kind="cuda", id="GPU-1", name="NVIDIA H100", memory_bytes=85_000_000_000)
    room = Room(free=5_000_000_000, total=500_000_000_000, free_inodes=None, file_system="ext4")
    uses = [DeviceUse(gpu, "somebody", None, None), DeviceUse(slot, "", None, None)]
    text = health(Disk(room, ""), Devices(uses), [])
    assert "5.0 GB free of 500 GB" in text
    assert "0 of 1 free<small>NVIDIA H100 · 85.0 GB</small>" in text
    assert "CPU slots</span> 1 of 1 free" in text
    assert "lark-warning" not in text
    wrong = [Conflict("torch", "torch==2.13.0", "2.9.0"), Conflict("peft", "peft>=0.21", None)]
    text = health(Disk(room, "free some room on /data"), Devices(uses, "the leases belong to somebody else"), wrong)
    assert "free some room on /data" in text
    assert "the leases belong to somebody else" in text
    assert "torch 2.9.0 (torch==2.13.0 is required), peft is missing (peft&gt;=0.21 is required)" in text
