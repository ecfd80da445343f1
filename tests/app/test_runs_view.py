"""The runs on the page Train, as Streamlit runs it: one of them with its curves, what can be done, and all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest

from app import run_words
from app.run_words import ends_at
from benchmarks.many_runs import make_runs, write_events
from lark_engine.figures import charts_runs
from lark_engine.figures.charts_runs import Overlaid, View
from lark_engine.jobs.folder import create_job
from lark_engine.jobs.records import JobSpec
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.curves import Curves, RunCurves
from lark_engine.training.runs import Run

ROOT = Path(__file__).resolve().parents[2]
Show = Callable[..., AppTest]


@pytest.fixture
def show(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Show:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))

    def run(**query: Any) -> AppTest:
        return shown_page("train", **{"view": "runs", **query})

    return run


def boards(page: AppTest) -> dict[str, dict[str, Any]]:
    """What the charts and the table of the runs are given."""
    found = {}
    for element in page.get("bidi_component"):
        data = json.loads(element.proto.json or "null")
        if isinstance(data, dict) and ("cards" in data or "rows" in data):
            found["board" if "cards" in data else "table"] = data
    return found


def figure(page: AppTest, card: str) -> dict[str, Any]:
    [found] = [one for one in boards(page)["board"]["cards"] if one["key"] == card]
    return dict(json.loads(found["figure"]))


def ended_job(workspace: Workspace, state: str, checkpoint: Path | None, **verdict: Any) -> str:
    command = ("lark", "train", "lora", "--train-data", "chi2-b3", "--workspace", str(workspace.root))
    job = create_job(workspace.root, JobSpec(stage="train lora", command=command, cwd=str(workspace.root)))
    if checkpoint is not None:
        job.note_artifact(checkpoint)
    job.write_done({"state": state, "ended_at": time.time(), **verdict})
    return job.id


def unfinished(artifact: Artifact, *, steps: int = 40, total: int = 100) -> Path:
    """Make an unfinished run of a finished one."""
    (artifact.path / "manifest.json").unlink()
    (artifact.path / "events.jsonl").unlink()
    write_events(artifact.path / "events.jsonl", steps, total=total)
    return artifact.path


def test_without_runs_the_page_says_how_to_start_one(show: Show, workspace: Workspace) -> None:
    page = show()
    assert "Nothing is trained yet. A run that is started as a new one" in html_of(page)
    commands = [code.value for code in page.code]
    assert any("lark train lora --train-data SELECTION --student STUDENT" in command for command in commands)
    assert not workspace.root.exists()
    page.button(key="runs_new").click().run()
    assert page.segmented_control(key="view").value == "new"


def test_the_newest_run_is_shown_with_its_curves_and_numbers(show: Show, workspace: Workspace) -> None:
    runs = make_runs(workspace, num_runs=2, num_steps=60)
    page = show()
    meta = figure(page, "loss")["layout"]["meta"]
    assert (meta["run"], meta["axis"], meta["n"], meta["overlaid"]) == ("lora-001", "step", 60, 0)
    [figures] = [one for one in boards(page)["board"]["cards"] if one["key"] == "run_figures"]
    assert {s["label"]: s["value"] for s in figures["stats"]}["Step"] == "60"
    assert f"<b>{runs[1].id}</b>" in html_of(page) and "Checkpoint lora-001-" in html_of(page)
    assert [card["key"] for card in boards(page)["board"]["cards"]] == ["run_figures", "loss", "rate", "norm", "speed"]


def test_the_address_says_which_run_along_what_and_with_which_others(show: Show, workspace: Workspace) -> None:
    runs = make_runs(workspace, num_runs=3, num_steps=60)
    page = show(run=runs[0].id, overlay=[runs[1].id, runs[2].id], run_by="tokens", run_span="25", run_log="true")
    loss = figure(page, "loss")
    assert loss["layout"]["meta"] == {"run": "lora-000", "axis": "tokens", "n": 60, "overlaid": 2, "step": 60.0}
    assert loss["layout"]["yaxis"]["type"] == "log"
    assert [a["text"] for a in loss["layout"]["annotations"]].count("lora-001") == 1
    [card] = [one for one in boards(page)["board"]["cards"] if one["key"] == "loss"]
    assert "smoothed, span of 25 logged steps" in card["note"] and "n = 60 logged steps" in card["note"]
    assert "lora-002 last " in card["alt"]


def test_more_runs_than_fit_are_laid_over_as_far_as_they_fit(show: Show, workspace: Workspace) -> None:
    runs = make_runs(workspace, num_runs=7, num_steps=5)
    page = show(run=runs[0].id, overlay=[run.id for run in runs[1:]])
    assert page.multiselect(key="overlay").value == [run.id for run in runs[1:6]]


def test_the_newest_run_is_named_in_the_address_and_the_form_is_still_one_choice_away(
    show: Show, workspace: Workspace
) -> None:
    runs = make_runs(workspace, num_runs=2, num_steps=5)
    page = show()
    assert page.query_params["run"] in (runs[1].id, [runs[1].id])
    page.segmented_control(key="view").set_value("new").run()
    assert page.segmented_control(key="view").value == "new"
    assert not page.selectbox or "run" not in [box.key for box in page.selectbox]


def test_a_run_is_found_by_its_job_and_one_that_is_not_here_is_said(show: Show, workspace: Workspace) -> None:
    runs = make_runs(workspace, num_runs=2, num_steps=20)
    job = ended_job(workspace, "succeeded", runs[0].path)
    assert figure(show(run=job), "loss")["layout"]["meta"]["run"] == "lora-000"
    assert "The address names the run nowhere" in html_of(show(run="nowhere"))


def test_a_run_is_duplicated_into_the_form(show: Show, workspace: Workspace) -> None:
    runs = make_runs(workspace, num_runs=3, num_steps=5)
    page = show(run=runs[2].id, train_draft="eJzLKbJSMNAzBQAK3QJA")
    page.button(key="run_duplicate").click().run()
    exactly = str(runs[2].manifest.config["lr"])  # to its last digit: another one is another run
    assert exactly == "3.0000000000000004e-05" and page.query_params["train.lr"] == exactly
    assert page.query_params["train_data"] == runs[2].manifest.inputs["selection"].id
    assert "run" not in page.query_params and "view" not in page.query_params
    assert page.text_input(key="train.lr").value == exactly
    assert "train_draft" not in page.query_params


def test_a_failed_run_says_why_and_what_to_do_and_offers_to_resume(show: Show, workspace: Workspace) -> None:
    [run] = make_runs(workspace, num_runs=1, num_steps=1)
    folder = unfinished(run)
    ended_job(
        workspace, "failed", folder, reason="out_of_memory", message="training does not fit on cuda",
        remedy="lower --pack-length",
    )  # fmt: skip
    page = show()
    assert "training does not fit on cuda" in html_of(page) and "lower --pack-length" in html_of(page)
    assert "Resume" in [button.label for button in page.button]
    assert "No checkpoint is saved yet" in html_of(page)


def test_a_stopped_run_without_a_job_says_what_goes_on_with_it(show: Show, workspace: Workspace) -> None:
    [run] = make_runs(workspace, num_runs=1, num_steps=1)
    folder = unfinished(run)
    assert "Run the same command again" in html_of(show())
    (folder / "resume" / "checkpoint-40").mkdir(parents=True)
    (folder / "resume" / "checkpoint-40" / "COMPLETE").write_text("")
    train_path = workspace.root / "selections" / run.manifest.inputs["selection"].id / "train.jsonl"
    spec = {"config": run.manifest.config, "train_path": str(train_path)}
    (folder / "resume" / "spec.json").write_text(json.dumps(spec))
    page = show()
    [command] = [code.value for code in page.code if "--student student" in code.value]
    assert command.startswith(f"lark train lora --train-data {run.manifest.inputs['selection'].id} --student student")
    assert "<td>40</td>" in html_of(page)


def test_the_table_pages_and_sorts_all_runs(show: Show, workspace: Workspace) -> None:
    make_runs(workspace, num_runs=18, num_steps=2)
    first, second = boards(show())["table"], boards(show(run_page=2))["table"]
    assert (len(first["rows"]), len(second["rows"])) == (15, 3)
    assert first["rows"][0][0][0] == "lora-017"
    sorted_rows = boards(show(run_sort="loss", run_desc="true"))["table"]["rows"]
    assert [row[0][0] for row in sorted_rows][:2] == ["lora-017", "lora-016"]
    assert sorted_rows[0][5][0] == "0.617"


def test_text_of_a_log_is_never_markup(show: Show, workspace: Workspace) -> None:
    [run] = make_runs(workspace, num_runs=1, num_steps=20)
    event = {
        "time": 2e9, "done": 21, "total": 21, "rate": 1.0, "alert": "<img src=x onerror=alert(1)>",
        "metrics": {"loss": 9.0, "eval_<b>x</b>_loss": 1.0},
    }  # fmt: skip
    with (run.path / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    text = json.dumps(figure(show(), "loss"))
    assert "<img" not in text and "<b>x" not in text and "&lt;img" in text


def curves_of(path: Path, steps: int, total: int) -> Curves:
    write_events(path, steps, total=total)
    return RunCurves(path).read()


@pytest.mark.parametrize(("done", "end"), [(3, 3.125), (40, 50), (60, 100), (100, 100)])
def test_the_axis_of_a_run_that_goes_on_grows_by_doubling(tmp_path: Path, done: int, end: float) -> None:
    curves = curves_of(tmp_path / "events.jsonl", done, 100)
    run = Run(id="x", name="x", state="running", is_live=True)
    assert ends_at(run, "step", curves) == end
    assert ends_at(Run(id="x", name="x", state="finished", is_live=False), "step", curves) is None


@pytest.mark.parametrize("place", [0.0, -1.0])
def test_an_axis_that_ends_nowhere_has_no_end(place: float) -> None:
    columns = {"done": np.array([1.0]), "total": np.array([9.0]), "tokens": np.array([place])}
    run = Run(id="x", name="x", state="running", is_live=True)
    assert ends_at(run, "tokens", Curves(columns=columns, alerts={})) is None


def test_a_metric_without_a_value_along_the_axis_has_no_chart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write_events(path, 5, total=5)
    read = RunCurves(path).read()
    known = np.isfinite(read.columns["loss"]) & (np.arange(read.num_events) == 0)
    names = ("learning_rate", "grad_norm", "tokens_per_s")
    nowhere = {name: np.where(known, np.nan, read.columns[name]) for name in names}
    curves = Curves(columns={**read.columns, **nowhere, "tokens": np.where(known, 1.0, np.nan)}, alerts={})
    assert [card.key for card in charts_runs.cards(View(name="x", curves=curves, axis="tokens"))] == ["loss"]


def test_names_beside_curves_that_end_together_are_apart(tmp_path: Path) -> None:
    curves = curves_of(tmp_path / "events.jsonl", 60, 60)
    view = View(name="now", curves=curves, overlaid=[Overlaid(name, curves) for name in "abcde"], span=5)
    heights = [a["y"] for a in charts_runs.cards(view)[0].figure["layout"]["annotations"]]
    assert len(heights) == 6 and all(0 <= y <= 1.01 for y in heights)
    assert min(a - b for a, b in pairwise(heights)) >= 0.08


def test_the_span_is_at_most_a_tenth_of_the_curve() -> None:
    assert [charts_runs.auto_span(n) for n in (3, 49, 50, 250, 1000, 100_000)] == [1, 1, 5, 25, 100, 500]


def test_runs_of_one_name_are_told_apart_by_their_ids() -> None:
    runs = [Run(id=f"lora-{end}", name="lora", state="finished", is_live=False) for end in ("aaaa1111", "bbbb2222")]
    assert run_words.labels(runs) == {"lora-aaaa1111": "lora 1111", "lora-bbbb2222": "lora 2222"}
