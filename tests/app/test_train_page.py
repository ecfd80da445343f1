"""The page Train as Streamlit runs it: the form, its YAML, the command, and what the preflight found."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest
from train_workspace import make_selection, write_student

from app.train_form import params_of_run
from lark_engine.config import TrainConfig
from lark_engine.jobs.folder import create_job
from lark_engine.jobs.records import JobSpec
from lark_engine.recipes import train_recipe
from lark_engine.results.commands import preflight_command, train_command
from lark_engine.store.workspace import Workspace
from lark_engine.training.plan import plan_from_outside, selection_data
from lark_engine.training.preflight_record import PREFLIGHT, Preflight, Shown

ROOT = Path(__file__).resolve().parents[2]
OpenTrain = Callable[..., AppTest]


@pytest.fixture
def train(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenTrain:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))

    def run(**query: Any) -> AppTest:
        return shown_page("train", **query)

    return run


@pytest.fixture
def student(tmp_path: Path) -> str:
    return str(write_student(tmp_path / "student"))


def command_of(page: AppTest) -> list[str]:
    """The words that the page shows beside the button that starts training."""
    (shown,) = trainings(page)
    return shown


def trainings(page: AppTest) -> list[list[str]]:
    commands = [shlex.split(code.value) for code in page.code]
    return [words for words in commands if words[:2] == ["lark", "train"] and "--preflight" not in words]


def yaml_of(page: AppTest) -> str:
    return str(page.text_area(key="train_yaml.text").value)


def said(page: AppTest, param: str) -> str | None:
    """A parameter of the address; None when it is not there."""
    if param not in page.query_params:
        return None
    value = page.query_params[param]
    return value[-1] if isinstance(value, list) else value


def found(**changes: Any) -> Preflight:
    shown = Shown(
        label="problem 3, candidate 1", teacher="<b>t</b>", num_prompt_tokens=20, num_response_tokens=30,
        coefficient=0.0332, share=0.25, prompt="<|im_start|>user\nHow many?", response="<script>alert(1)</script>",
    )  # fmt: skip
    values: dict[str, Any] = {
        "checkpoint": "lora-x", "run": "9 steps; global batch 4 = 1 process × 1 forward pass, packed",
        "num_sequences": 36, "num_truncated": 0, "drops": {"zero_weight": 2}, "num_held_out": 0,
        "num_held_out_truncated": 0,
        "template": "t", "first_batch": [shown], "gradient_ratio": 2.0004, "trainable_parameters": 6144, "steps": 9,
        "tokens": 5000, "hours": 0.5, "hours_basis": "one pass took 2 s here", "memory_gb": 1.5, "memory_free_gb": 6.0,
        "memory_basis": "1 GB measured", "disk_gb": 0.2, "disk_free_gb": 50.0, "resume_step": 0, "resume": "begins",
        "problems": [],
    }  # fmt: skip
    return Preflight(**{**values, **changes})


def keep_preflight(workspace: Workspace, command: list[str], record: Preflight) -> None:
    """A job of a preflight that has succeeded."""
    spec = JobSpec(stage="train lora", command=tuple(preflight_command(command)), cwd=str(workspace.root))
    job = create_job(workspace.root, spec)
    (job.folder / PREFLIGHT).write_text(json.dumps(asdict(record)))
    job.write_done({"state": "succeeded", "ended_at": time.time() - 130})


def test_the_newest_selection_is_trained_on_as_the_recipe_says(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace, budget=2)
    newest = make_selection(workspace)
    page = train()
    assert said(page, "train_data") == newest.id
    assert command_of(page) == [
        "lark", "train", "lora", "--train-data", newest.id, "--student", "generated-student", "--recipe", "lora",
        "--workspace", str(workspace.root),
    ]  # fmt: skip
    counts = newest.manifest.counts
    line = f"{counts['num_trajectories']} trajectories · {counts['num_problems']} problems · χ² · B = 3 · "
    assert line in html_of(page)
    assert yaml_of(page).startswith("method: lora\nlr: 0.0001\nepochs: 3\n")
    assert not page.button(key="train_launch").disabled


def test_a_selection_of_the_address_that_is_gone_gives_way_to_the_newest(
    workspace: Workspace, train: OpenTrain
) -> None:
    newest = make_selection(workspace)
    page = train(train_data="chi2-b9-000000000000")
    assert command_of(page)[4] == newest.id
    assert page.toast[0].value == "The address names a selection that is not here; showing the newest."


def test_a_change_is_marked_in_form_yaml_and_command(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace)
    page = train()
    page.text_input(key="train.lr").set_value("3e-5").run()
    assert said(page, "train.lr") == "3e-5"
    assert page.text_input(key="train.lr").label == "Learning rate ●"
    assert r"changed from 0\.0001" in [caption.value for caption in page.caption]
    assert "lr: 3.0e-05  # recipe: 0.0001\n" in yaml_of(page)
    assert command_of(page)[9:11] == ["--lr", "3e-05"]
    page.button(key="train.reset").click().run()
    assert said(page, "train.lr") is None
    assert "--lr" not in command_of(page)


def test_a_value_that_is_not_valid_is_explained_at_its_field_and_nothing_starts(
    workspace: Workspace, train: OpenTrain
) -> None:
    make_selection(workspace)
    page = train(train__lr="0", train__warmup_ratio="much")
    shown = html_of(page)
    assert 'role="alert">input should be greater than 0<' in shown
    assert 'role="alert">input should be a valid number' in shown
    assert page.button(key="train_launch").disabled
    assert trainings(page) == []
    assert yaml_of(page).splitlines()[1] == "lr: 0  # recipe: 0.0001"


def test_a_recipe_as_text_sets_the_form(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace)
    page = train(train__seed="7")
    page.text_area(key="train_yaml.text").set_value(
        "learning_rate: 2e-4\nepochs: 2  # fewer\npacking: false\nrecipe: mine"
    )
    page.button(key="train_yaml.use").click().run()
    assert (said(page, "train.lr"), said(page, "train.epochs"), said(page, "train.packing")) == ("0.0002", "2", "false")
    assert said(page, "train.seed") is None  # the text does not say it: the default
    assert command_of(page)[9:-2] == [
        "--name", "mine", "--lr", "0.0002", "--epochs", "2.0", "--no-packing", "--dtype", "auto",
    ]  # fmt: skip
    assert "# fewer" not in yaml_of(page)
    assert "packing: false  # default: true" in yaml_of(page)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("epochs: 2\nlr: -1", "line 2: 'lr': input should be greater than 0"),
        ("lr: 1e-4\nepoch: 2", "line 2: unknown key 'epoch'; did you mean 'epochs'?"),
        ("lr: [1", "line 1: not valid YAML"),
        ("method: full", "method is full and the recipe above trains LoRA; choose another recipe first"),
        ("student: /other", "the student is chosen above; leave it out"),
    ],
)
def test_a_text_that_cannot_be_used_is_explained_and_changes_nothing(
    workspace: Workspace, train: OpenTrain, text: str, why: str
) -> None:
    make_selection(workspace)
    page = train()
    before = command_of(page)
    page.text_area(key="train_yaml.text").set_value(text)
    page.button(key="train_yaml.use").click().run()
    assert why.replace("'", "&#x27;") in html_of(page)
    assert yaml_of(page) == text
    assert command_of(page) == before


def test_what_is_typed_and_not_used_stays_while_another_control_changes(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace)
    page = train()
    page.text_area(key="train_yaml.text").set_value("lr: 0.5").run()
    page.text_input(key="train.epochs").set_value("9").run()
    assert yaml_of(page) == "lr: 0.5"
    assert "--lr" not in command_of(page)
    page.button(key="train_yaml.drop").click().run()
    assert "epochs: 9.0  # recipe: 3\n" in yaml_of(page)


def test_what_a_recipe_sets_is_taken_out(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace)
    page = train(train_recipe="full_500")
    assert not [field for field in page.text_input if str(field.key).startswith("train.lora")]
    page.text_input(key="train.deepspeed").set_value("").run()
    assert "deepspeed: null  # recipe: zero2" in yaml_of(page)
    assert command_of(page)[2] == "full"
    assert command_of(page)[9:11] == ["--deepspeed", "none"]
    assert said(page, "train.deepspeed") == ""


def test_a_recipe_file_is_named_by_its_whole_path_and_a_mistake_in_it_is_explained(
    workspace: Workspace, train: OpenTrain, tmp_path: Path
) -> None:
    make_selection(workspace)
    path = tmp_path / "mine.yaml"
    path.write_text("method: lora\nlr: 2e-4\nmax_steps: 5\n")
    page = train(train_recipe=str(path))
    assert command_of(page)[7:-2] == ["--recipe", str(path)]
    path.write_text("lr: fast\n")
    page = train(train_recipe=str(path))
    assert "The recipe cannot be used." in html_of(page)
    assert "valid number" in html_of(page)


@pytest.mark.parametrize("recipe", ["nowhere/x.yaml", "folder.yaml", "nul\0.yaml", "~nobody/x.yaml"])
def test_a_recipe_that_is_no_file_is_explained(
    workspace: Workspace, train: OpenTrain, tmp_path: Path, recipe: str
) -> None:
    make_selection(workspace)
    (tmp_path / "folder.yaml").mkdir()
    page = train(train_recipe=recipe if recipe.startswith("~") else f"{tmp_path}/{recipe}")
    assert "The recipe cannot be used." in html_of(page)


def test_a_name_of_a_recipe_is_never_markup(workspace: Workspace, train: OpenTrain, tmp_path: Path) -> None:
    make_selection(workspace)
    path = tmp_path / "**a** :red[b].yaml"
    path.write_text("method: lora\n")
    page = train(train_recipe=str(path), train__lr="3e-5")
    [caption] = [caption.value for caption in page.caption if caption.value.startswith("1 changed")]
    assert "**" not in caption and ":red[" not in caption


def test_what_is_typed_goes_with_the_recipe_that_it_was_typed_for(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace)
    page = train()
    page.text_area(key="train_yaml.text").set_value("lr: 0.5").run()
    page.selectbox(key="train_recipe").set_value("full_500").run()
    assert yaml_of(page).startswith("method: full\n")


def test_what_a_run_takes_is_told_before_anything_is_measured(
    workspace: Workspace, train: OpenTrain, student: str
) -> None:
    make_selection(workspace)
    page = train(train_student=student, train__max_steps="4", train__dtype="float32")
    shown = html_of(page)
    assert '<span class="label">Steps</span><span class="value">4</span>' in shown
    # 5,120 frozen at 4 bytes, and 64 × (32 + 64) trained at 16.
    assert '<span class="label">Memory of a device</span><span class="value">119 kB</span>' in shown
    assert "free now (1 of 1): it starts at once" in shown
    assert "begins with step 1: it was never started; it can be resumed from every 50th step on" in shown


def test_what_training_would_refuse_is_said_before_it_starts(
    workspace: Workspace, train: OpenTrain, student: str
) -> None:
    make_selection(workspace)
    page = train(train_student=student, train__deepspeed="zero3")
    assert "deepspeed zero3 shards the frozen base of a LoRA run for nothing" in html_of(page)
    assert page.button(key="train_launch").disabled
    page = train(train_student=student, train__device="cuda")
    assert page.button(key="train_launch").disabled


def test_a_run_that_cannot_be_resumed_as_it_is_cannot_be_started(
    workspace: Workspace, train: OpenTrain, student: str
) -> None:
    selection = make_selection(workspace)
    config = TrainConfig.parse({**train_recipe("full_500"), "student": student}, "test")
    plan = plan_from_outside(config, workspace, selection_data(selection), has_cuda=False)
    resume = workspace.folder(plan) / "resume"
    (resume / "checkpoint-50").mkdir(parents=True)
    (resume / "checkpoint-50" / "COMPLETE").write_text("")
    (resume / "spec.json").write_text(json.dumps({"config": {"nproc_per_node": 2, "nnodes": 1}}))
    page = train(train_recipe="full_500", train_student=student)
    assert "begun with 2 processes, and DeepSpeed resumes it only with as many" in html_of(page)
    assert page.button(key="train_launch").disabled


def test_a_run_that_is_finished_is_offered_instead_of_another(
    workspace: Workspace, train: OpenTrain, student: str
) -> None:
    selection = make_selection(workspace)
    config = TrainConfig.parse({**train_recipe("lora"), "student": student, "lr": 2e-4}, "test")
    plan = plan_from_outside(config, workspace, selection_data(selection), has_cuda=False)
    workspace.build(plan, lambda draft: None)
    page = train(train_student=student)
    assert "train.finished" not in [button.key for button in page.button]
    page.text_input(key="train.lr").set_value("2e-4").run()
    page.button(key="train.finished").click().run()
    assert said(page, "run") == plan.id


def test_a_preflight_is_shown_for_its_very_command_and_its_texts_are_only_text(
    workspace: Workspace, train: OpenTrain
) -> None:
    make_selection(workspace)
    page = train()
    keep_preflight(workspace, command_of(page), found())
    page.run()
    shown = html_of(page)
    assert "Nothing stands against this run · measured 2 min ago" in shown
    assert "× 2.000" in shown and "the weights reach the loss" in shown
    assert '<span class="label">Steps</span><span class="value">9</span>' in shown
    assert '<span class="masked">&lt;|im_start|&gt;user\nHow many?</span>' in shown
    assert '<span class="trained">&lt;script&gt;alert(1)&lt;/script&gt;</span>' in shown
    assert "<bdi>&lt;b&gt;t&lt;/b&gt;</bdi>" in shown and "25.0% of its step" in shown
    page.text_input(key="train.lr").set_value("2e-4").run()
    assert "Nothing stands against" not in html_of(page)
    assert "The form has changed since the last preflight (2 min ago)." in [c.value for c in page.caption]
    assert page.button(key="train_preflight.run").label == "Run the preflight"


def test_a_preflight_of_a_recipe_file_that_has_changed_since_is_not_shown(
    workspace: Workspace, train: OpenTrain, tmp_path: Path
) -> None:
    make_selection(workspace)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: lora\nlr: 1.0e-5\n")
    os.utime(recipe, (0, 0))
    page = train(train_recipe=str(recipe))
    keep_preflight(workspace, command_of(page), found())
    page.run()
    assert "Nothing stands against this run" in html_of(page)
    recipe.write_text("method: lora\nlr: 9.0e-4\n")
    os.utime(recipe)
    page.run()
    assert "Nothing stands against this run" not in html_of(page)


def test_what_a_preflight_found_against_the_run_is_listed(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace)
    page = train()
    problems = ["memory: about 9.0 GB are needed and 6.0 GB are free; lower --pack-length"]
    keep_preflight(workspace, command_of(page), found(problems=problems, memory_gb=9.0, gradient_ratio=None))
    page.run()
    shown = html_of(page)
    assert '<strong role="status">1 problem.</strong> Measured 2 min ago' in shown
    assert f"<li>{problems[0]}</li>" in shown
    assert '<div class="lark-bar over">' in shown


def test_a_preflight_is_no_run(workspace: Workspace, train: OpenTrain) -> None:
    make_selection(workspace)
    page = train()
    keep_preflight(workspace, command_of(page), found())
    from lark_engine.training.runs import training_runs

    assert training_runs(workspace) == []


def test_a_run_of_a_manifest_fills_the_form_with_its_options(
    workspace: Workspace, train: OpenTrain, student: str
) -> None:
    selection = make_selection(workspace)
    config = TrainConfig.parse(
        {**train_recipe("full_500"), "student": student, "recipe": "mine", "lr": 3e-5, "deepspeed": None,
         "max_steps": 7, "device": "cpu", "report_to": ["tensorboard"]}, "test",
    )  # fmt: skip
    params = params_of_run(config.model_dump(mode="json"), selection.id)
    page = train(**{name.replace(".", "__"): value for name, value in params.items() if value is not None})
    expected = config.model_copy(update={"device": "auto"})
    assert command_of(page) == train_command(expected, selection.id, workspace, recipe="full_5000")


def test_without_a_selection_the_page_says_what_to_do_first(workspace: Workspace, train: OpenTrain) -> None:
    page = train()
    assert page.subheader[0].value == "Nothing is selected yet"
    assert "lark score --input FILE --student STUDENT" in page.code[0].value
    from benchmarks.scored_pool import make_scored_pool

    made = make_scored_pool(workspace, num_problems=4, num_candidates=3)
    page = train()
    assert f"lark select --scores {made.scores.id} --pool {made.pool.id}" in page.code[0].value
