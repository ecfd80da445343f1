"""A whole run from a recipe: each stage once, skipped with a reason the second time, only what changed made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lark_engine.errors import ConfigError, LarkError
from lark_engine.pipeline import plan_run, read_recipe, run
from lark_engine.store.workspace import Workspace

RECIPE = """
name: tiny
student: {student}
pool: {{source: pool.jsonl}}
score: {{dtype: float32}}
select: {{B: 2}}
train:
  recipe: lora
  dtype: float32
  epochs: 1
  global_batch: 2
  lora_rank: 2
  gradient_checkpointing: false
generate:
  benchmark: toy=problems.json
  backend: transformers
  dtype: float32
  n_samples: 2
  max_new_tokens: 4
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Path:
    with (tmp_path / "pool.jsonl").open("w") as file:
        for problem in range(3):
            for candidate in range(3):
                answer = {"role": "assistant", "content": f"{'so ' * candidate} \\boxed{{{problem}}}"}
                messages = [{"role": "user", "content": f"What is {problem}?"}, answer]
                row = {
                    "problem_id": problem,
                    "candidate_id": candidate,
                    "teacher": f"t{candidate}",
                    "messages": messages,
                }
                file.write(json.dumps(row) + "\n")
    (tmp_path / "problems.json").write_text(json.dumps([{"prompt": "What is 7?", "answer": "7", "level": 1}]))
    path = tmp_path / "run.yaml"
    path.write_text(RECIPE.format(student=tiny_model_dir))
    return path


STAGES = ["pool", "score", "select", "train", "generate", "grade", "generate", "grade"]


@pytest.mark.slow
def test_a_run_makes_every_stage_once_and_only_what_changed_anew(recipe: Path, workspace: Workspace) -> None:
    configs = read_recipe(recipe)
    planned = plan_run(configs, workspace)
    assert [(step.stage, step.state) for step in planned] == [(stage, "run") for stage in STAGES]
    assert not workspace.root.exists() or [p.name for p in workspace.root.iterdir()] == ["memo"]

    said: list[str] = []
    table = run(configs, workspace, said.append)
    assert [line.split()[0] for line in said] == [*STAGES[:4], "generate", "grade", "generate", "grade", "table"]
    assert not any("skipped" in line for line in said)
    overall = table[(table["level"] == "all") & (table["metric"] == "avg@2")]
    assert set(overall["method"]) == {"student (untrained)", "lora"}
    assert overall["n_problems"].tolist() == [1, 1]

    done = plan_run(configs, workspace)
    assert [step.plan.id for step in done] == [step.plan.id for step in planned]
    assert {step.state for step in done} == {"skip"}
    again: list[str] = []
    run(configs, workspace, again.append)
    assert sum("skipped, done already" in line for line in again) == 8

    recipe.write_text(recipe.read_text().replace("B: 2", "B: 1"))
    changed = plan_run(read_recipe(recipe), workspace)
    states = [step.state for step in changed]
    assert states == ["skip", "skip", "run", "run", "skip", "skip", "run", "run"]


def test_a_plan_needs_nothing_but_the_inputs(recipe: Path, workspace: Workspace) -> None:
    steps = plan_run(read_recipe(recipe), workspace)
    assert len({step.plan.id for step in steps}) == 8
    assert all(step.why == "not made yet" for step in steps)
    assert steps[3].plan.name == "lora"
    assert not list(workspace.root.glob("pools/*"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("B: 2", "Budget: 2", r"run.yaml: select: unknown key 'Budget'; did you mean 'budget'\?"),
        ("select:", "selekt:", r"run.yaml: unknown key 'selekt'; did you mean 'select'\?"),
        ("B: 2", "B: 0", r"run.yaml: select: 'B' = 0: input should be greater than or equal to 1"),
        ("recipe: lora", "recipe: lorra", r"no training recipe 'lorra'; did you mean 'lora'\?"),
        (
            "epochs: 1",
            "epochs: 1\n  epochs: 2",
            r"run.yaml:\d+: not valid YAML: key 'epochs' is given twice|given twice",
        ),
        ("B: 2", "B: *anchor", r"aliases are not allowed|undefined alias"),
        ("name: tiny", "name: !!python/object/apply:os.system [ls]", r"not valid YAML"),
        ("source: pool.jsonl", "source: absent.jsonl", r"absent.jsonl"),
        (
            "backend: transformers",
            "backend: endpoint\n  endpoint: http://x",
            r"which an endpoint does not serve",
        ),
        ("backend: transformers", "backend: transformers\n  device: cuda", r"torch finds no CUDA device"),
    ],
)
def test_a_wrong_recipe_is_refused_with_section_key_and_remedy(
    recipe: Path, workspace: Workspace, before: str, after: str, message: str
) -> None:
    recipe.write_text(recipe.read_text().replace(before, after, 1))
    with pytest.raises(LarkError, match=message):
        plan_run(read_recipe(recipe), workspace)


def test_without_a_baseline_only_the_checkpoint_is_evaluated(recipe: Path, workspace: Workspace) -> None:
    recipe.write_text(recipe.read_text() + "baseline: false\n")
    steps = plan_run(read_recipe(recipe), workspace)
    assert [step.stage for step in steps] == ["pool", "score", "select", "train", "generate", "grade"]


def test_numbers_with_an_exponent_are_numbers_in_a_recipe(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("epochs: 1", "epochs: 1\n  lr: 2e-5"))
    assert read_recipe(recipe).train.lr == 2e-5


def test_an_empty_recipe_is_refused(recipe: Path) -> None:
    recipe.write_text("")
    with pytest.raises(ConfigError, match="a recipe is a mapping of keys to values; this holds NoneType"):
        read_recipe(recipe)
