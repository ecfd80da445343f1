"""The Overview in each state of a workspace, run as Streamlit runs it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_workspace import add, damage, finished_run, graded
from streamlit.testing.v1 import AppTest

from lark_engine.store.workspace import Workspace

PAGE = Path(__file__).resolve().parents[2] / "pages" / "overview.py"


OpenPage = Callable[..., AppTest]


@pytest.fixture
def open_page(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))

    def run(**query: str) -> AppTest:
        page = AppTest.from_file(str(PAGE), default_timeout=30)
        for key, value in query.items():
            page.query_params[key] = value
        page.run()
        assert not page.exception, page.exception
        return page

    return run


def html_of(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def headings(page: AppTest) -> list[str]:
    return [element.value for element in page.subheader]


def test_an_empty_workspace_shows_the_first_steps_with_their_commands(
    open_page: OpenPage, workspace: Workspace
) -> None:
    page = open_page()
    assert headings(page) == ["First steps"]
    home = f"LARK_HOME={workspace.root}"
    commands = [f"{home} make demo", f"{home} lark pool import FILE", f"{home} lark run recipe.yaml"]
    assert [code.value for code in page.code] == commands
    assert html_of(page).count("not yet</span>") == 5
    assert not workspace.root.exists()  # looking writes nothing


def test_a_finished_run_shows_each_stage_the_best_result_and_the_table(
    open_page: OpenPage, workspace: Workspace
) -> None:
    finished_run(workspace)
    page = open_page()
    text = html_of(page)
    assert headings(page) == ["Best result so far", "Next", "All results", "Where each result comes from"]
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
