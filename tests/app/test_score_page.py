"""The page Pool and scores as Streamlit runs it: what is there, a look at a source, refused lines, and the estimate."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_jobs import living
from fake_workspace import damage
from safetensors.numpy import save_file
from shown_page import html_of, shown_page, text_of
from streamlit.testing.v1 import AppTest

from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.errors import PoolError
from lark_engine.jobs.folder import Job, create_job
from lark_engine.jobs.records import JobSpec
from lark_engine.pool.importer import import_pool, plan_pool
from lark_engine.results.commands import import_command
from lark_engine.scoring.parts import SCORES
from lark_engine.scoring.score import VERSION, resolved_options
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=alert(1)> **bold** \u202e"
OpenScore = Callable[..., AppTest]


@pytest.fixture
def score(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> OpenScore:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(**query: Any) -> AppTest:
        return shown_page("score", **query)

    return run


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.button]


def button(page: AppTest, label: str) -> Any:
    return next(button for button in page.button if button.label == label)


def code_of(page: AppTest) -> list[str]:
    return [code.value for code in page.code]


def links(page: AppTest) -> list[str]:
    return [element.proto.label for element in page.get("page_link")]


def source(folder: Path, *bad: str, teacher: str = "alpha") -> Path:
    """Two problems with two candidates each, and lines that cannot be imported."""
    rows = [
        {"problem_id": p, "candidate_id": c, "teacher": teacher, "answer": "2", "is_correct": c == 0,
         "messages": [{"role": "user", "content": f"{p}" * 30}, {"role": "assistant", "content": f"{c}" * 60}]}
        for p in range(2) for c in range(2)
    ]  # fmt: skip
    path = folder / "pool.jsonl"
    path.write_text("\n".join([*map(json.dumps, rows), *bad]) + "\n")
    return path


def model(folder: Path) -> Path:
    """A folder that holds what a student needs by the names of its files: 1,000,000 parameters."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 4096}))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros((1000, 1000), np.float16)}, folder / "model.safetensors")
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    return folder


def scores_of(workspace: Workspace, pool: Artifact, student: Path) -> Artifact:
    """Scores with the default options on this machine: prompts of 10 tokens, responses of 20 and 30."""
    options = resolved_options(ScoreConfig(student="any"), dtype="float32", context=4096)
    table = pd.DataFrame(
        {"problem_id": list("0011"), "candidate_id": [0, 1] * 2, "num_prompt_tokens": 10,
         "num_response_tokens": [20, 30] * 2, "truncated": False}
    )  # fmt: skip

    def write(draft: Draft) -> None:
        table.to_parquet(draft.path / SCORES)
        event = {"stage": "score", "done": 120, "total": 120, "unit": "token", "rate": 4.0}
        (draft.path / "events.jsonl").write_text(json.dumps(event) + "\n")
        draft.device, draft.counts = "cpu", {"num_trajectories": 4, "num_truncated": 0}
        draft.metrics = {"response_tokens": 100, "computed_tokens": 120}

    plan = Plan(
        kind="scores", name=f"{pool.name}@mine", fingerprint="00000000abcd", inputs={"pool": pool.ref},
        config={**options, "student": str(student)}, identity={"student": "content", "version": VERSION},
    )  # fmt: skip
    return workspace.build(plan, write)


def refused(workspace: Workspace, config: PoolConfig) -> Job:
    """The job of an import that was refused, as it is left."""
    command = tuple(import_command(config, workspace))
    job = create_job(workspace.root, JobSpec(stage="pool import", command=command, cwd=str(workspace.root)))
    with pytest.raises(PoolError) as error:
        import_pool(config, workspace)
    job.note_artifact(workspace.folder(plan_pool(config, workspace)))
    now = time.time()
    job.write_done({
        "state": "failed", "attempt": 1, "started_at": now - 2, "ended_at": now, "wall_s": 2.0, "reason": "bad_input",
        "message": str(error.value), "remedy": "mend it", "is_transient": False,
    })  # fmt: skip
    return job


def test_an_empty_workspace_begins_with_adding_a_pool(score: OpenScore) -> None:
    page = score()
    assert "This workspace holds no pool yet" in text_of(page)
    assert "make demo" in code_of(page)[0]
    assert page.text_input(key="pool.source").value == ""
    assert "Import" not in labels(page)
    assert 'role="alert"' not in html_of(page)
    assert "There is no pool to score yet" in text_of(score(task="score"))


def test_a_pool_is_shown_in_figures_with_who_has_scored_it(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    pool = import_pool(PoolConfig(source=str(source(tmp_path, "{", "[]")), skip_bad=True), workspace)
    assert "No student has scored it yet" in [caption.value for caption in score().caption]
    scores = scores_of(workspace, pool, model(tmp_path / "mine"))
    page = score()
    text = text_of(page)
    for label, value in {"Problems": "2", "Candidates": "4\n2 a problem", "Teachers": "1", "Labeled": "100.0%",
                         "Correct": "50.0%", "Left out": "2\n1 broken json, 1 not an object"}.items():  # fmt: skip
        assert f"\n{label}\n{value}\n" in text
    assert any("mine · 4,096 tokens" in label.replace("\\", "") for label in links(page))
    [link] = [e.proto for e in page.get("page_link") if "4,096" in e.proto.label]
    assert f"scores={scores.id}".replace("@", "%40") in link.query_string
    button(page, "2 left out").click().run()
    assert page.query_params["rejected"] in (pool.id, [pool.id])
    assert "pool.jsonl:5" in text_of(page)
    button(page, "Close").click().run()
    assert "rejected" not in page.query_params
    assert "pool.jsonl:5" not in text_of(page)


def test_the_address_opens_no_file_outside_of_the_pools(score: OpenScore, workspace: Workspace, tmp_path: Path) -> None:
    import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    (workspace.root / "rejected.jsonl").write_text(json.dumps({"place": "secret"}) + "\n")
    for name in ("..", "../", "/etc", ".", "a\x00b"):
        assert "Close" not in labels(score(rejected=name))


def test_a_source_is_looked_at_before_it_is_imported_and_its_text_stays_text(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    path = source(tmp_path, '{"teacher": ' + json.dumps(HOSTILE), teacher=HOSTILE)
    page = score(task="add", pool__source=str(path))
    text = text_of(page)
    assert re.search(r"JSON Lines · [\d.]+ k?B · all 5 rows read", text)
    assert "Some of the first rows cannot be imported: the import refuses" in text
    assert "pool.jsonl:5" in text
    assert "<img" not in html_of(page)
    assert "&lt;img src=x onerror=alert(1)&gt; **bold**" in html_of(page)
    assert "\u202e" not in html_of(page)
    assert code_of(page)[-1] == f"lark pool import {path} --workspace {workspace.root}"
    assert not button(page, "Import").disabled


@pytest.mark.parametrize(
    ("name", "said"), [("nothing.jsonl", "no such file or folder"), ("torn.parquet", "no readable Parquet file")]
)
def test_what_cannot_be_imported_has_no_button_and_says_why(
    score: OpenScore, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and nothing")
    page = score(task="add", pool__source=str(tmp_path / name))
    assert said in text_of(page)
    assert button(page, "Import").disabled


def test_options_are_part_of_the_command_and_a_mistake_is_said_at_its_field(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    path = source(tmp_path)
    page = score(task="add", pool__source=str(path), pool__labels="none", pool__name="My pool")
    assert code_of(page)[-1] == (f"lark pool import {path} --name 'My pool' --labels none --workspace {workspace.root}")
    page = score(task="add", pool__source=str(path), pool__time_limit_s="0")
    assert "should be greater than 0" in text_of(page)
    assert "Import" not in labels(page)


def test_a_refused_import_shows_its_lines_by_reason_and_the_command_that_leaves_them_out(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    path = source(tmp_path, *["{"] * 25, '{"problem_id": null}')
    refused(workspace, PoolConfig(source=str(path)))
    page = score(task="add", pool__source=str(path))
    text = text_of(page)
    assert "Nothing was imported." in text
    assert "pool.jsonl:5" in text
    assert "pool.jsonl:30" not in text
    assert "write one whole JSON object on each line" in text
    assert code_of(page)[-1] == f"lark pool import {path} --skip-bad --workspace {workspace.root}"
    assert "Import without these lines" in labels(page)
    second = text_of(score(task="add", pool__source=str(path), refused_page="2"))
    assert "pool.jsonl:30" in second
    only = text_of(score(task="add", pool__source=str(path), refused_reason="bad_problem_id"))
    assert "pool.jsonl:30" in only
    assert "pool.jsonl:20\n" in text
    assert "pool.jsonl:20\n" not in only


def test_a_source_that_was_mended_since_it_was_refused_is_looked_at_anew(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    path = source(tmp_path, "{")
    refused(workspace, PoolConfig(source=str(path)))
    source(tmp_path)
    os.utime(path, (time.time() + 5, time.time() + 5))
    page = score(task="add", pool__source=str(path))
    assert "all 4 rows read" in text_of(page)
    assert "Import without these lines" not in labels(page)
    assert not button(page, "Import").disabled


def test_a_refused_import_is_listed_with_its_lines_until_it_is_followed_by_one_that_goes_well(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    config = PoolConfig(source=str(source(tmp_path, "{")))
    refused(workspace, config)
    page = score()
    assert "was refused: 1 line is bad." in text_of(page)
    button(page, "See them").click().run()
    assert "pool.jsonl:5" in text_of(page)
    assert "Import without these lines" in labels(page)
    import_pool(config.model_copy(update={"skip_bad": True}), workspace)
    assert "was refused" not in text_of(score())


def test_the_estimate_of_a_student_that_has_scored_the_pool_rests_on_its_own_figures(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    pool = import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    student = model(tmp_path / "mine")
    scores = scores_of(workspace, pool, student)
    page = score(task="score", score__student=str(student), score__top_k="7")  # another option: nothing is taken over
    text = text_of(page)
    assert "mine\n1 M parameters · its config allows 4,096 tokens\n" in text
    assert "\n4\nnone scored already\n" in text
    assert f"\n120\ncounted in {scores.id}; shared prompts once\n" in text
    assert f"\n30 s\nmeasured: 4 tokens/s in {scores.id} on cpu\n" in text
    assert "\n816 B\ntwice that while it runs\n" in text
    expected = f"lark score --input {pool.id} --student {student} --top-k 7 --workspace {workspace.root}"
    assert code_of(page)[-1] == expected
    assert not button(page, "Score").disabled


def test_what_is_scored_already_is_taken_over_or_is_all_that_was_asked(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    pool = import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    student = model(tmp_path / "mine")
    scores = scores_of(workspace, pool, student)
    page = score(score__student=str(student))
    assert f"mine has scored this pool with these very options: {scores.id}" in text_of(page)
    assert "Score" not in labels(page)
    assert "Explore" in links(page)
    page = score(score__student=str(student), score__brier="top_k")
    assert "\n0\n4 scored already, taken over\n" in text_of(page)
    assert "Score" in labels(page)
    os.utime(student / "model.safetensors")  # other weights, for all that is known
    page = score(score__student=str(student))
    assert "none scored already" in text_of(page)
    assert "Score" in labels(page)


def test_without_any_scores_the_tokens_are_estimated_and_a_data_sheet_gives_the_time(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    student = model(tmp_path / "mine")
    page = score(score__student=str(student))
    text = text_of(page)
    assert "\n100\nestimated: 3 characters a token, usual for English mathematics; shared prompts once\n" in text
    assert "\nnot known\nnothing was scored on cpu here yet; choose a device under Speed\n" in text
    text = text_of(score(score__student=str(student), score__speed="A100"))
    assert "estimated: 54,600,000 tokens/s, 1 × A100 at 35% of 312 TFLOP/s (data sheet)" in text


def test_several_students_are_summed_up_and_go_into_one_command(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    pool = import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    one, two = model(tmp_path / "one"), model(tmp_path / "two")
    scores_of(workspace, pool, one)
    page = score(score__student=[str(one), str(two), "owner/name"])
    text = text_of(page)
    # The first is done; the second is as fast; of the third nothing is known before it is downloaded.
    assert "one has scored this pool" in text
    assert "scaled by parameters from" in text
    assert "from the hub: the job downloads it" in text
    assert "\nAll, one by one\n240\n–\n" in text
    assert code_of(page)[-1].startswith(
        f"lark score --input {pool.id} --student {two} --student owner/name --workspace"
    )


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "no config.json; give the folder of a Hugging Face model"),
        ("tokenizer.json", "no tokenizer files"),
        ("model.safetensors", "no *.safetensors weights; convert them"),
    ],
)
def test_a_student_that_cannot_be_used_is_said_before_anything_runs(
    score: OpenScore, workspace: Workspace, tmp_path: Path, missing: str, said: str
) -> None:
    import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    student = model(tmp_path / "mine")
    (student / missing).unlink()
    page = score(score__student=str(student))
    assert said in text_of(page)
    assert "Score" not in labels(page)


@pytest.mark.parametrize("name", ["/nowhere", HOSTILE, "a\x00b", "no such student"])
def test_a_name_that_means_nothing_is_said(score: OpenScore, workspace: Workspace, tmp_path: Path, name: str) -> None:
    import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    page = score(score__student=name)
    assert "cannot be used." in text_of(page)
    assert "<img" not in html_of(page)


def test_a_damaged_config_or_pool_is_said_and_does_not_break_the_page(
    score: OpenScore, workspace: Workspace, tmp_path: Path
) -> None:
    pool = import_pool(PoolConfig(source=str(source(tmp_path))), workspace)
    student = model(tmp_path / "mine")
    (student / "config.json").write_text("[")
    assert "config.json:1: not valid JSON" in text_of(score(score__student=str(student)))
    damage(pool)
    assert "This workspace holds no pool yet" in text_of(score())


def test_what_runs_is_shown_with_its_speed_and_the_way_to_its_log(score: OpenScore, workspace: Workspace) -> None:
    job = living(workspace.root, "running", stage="score")
    event = {"time": time.time(), "stage": "score", "done": 30, "total": 120, "unit": "token", "rate": 45.0, "eta_s": 2}
    job.events_path.write_text(json.dumps(event) + "\n")
    page = score()
    assert "30 of 120 tokens" in text_of(page)
    assert "45 tokens/s" in text_of(page)
    assert "Its log and what can be done with it" in links(page)


def test_the_page_imports_no_torch(score: OpenScore, workspace: Workspace, tmp_path: Path) -> None:
    loaded = {"torch", "transformers"} & sys.modules.keys()
    pool = import_pool(PoolConfig(source=str(source(tmp_path)), labels="none"), workspace)
    student = model(tmp_path / "mine")
    scores_of(workspace, pool, student)
    score(score__student=str(student))
    score(task="add", pool__source=str(source(tmp_path)))
    assert {"torch", "transformers"} & sys.modules.keys() == loaded
