"""The command of a training run says exactly its options: read by the command line, it gives the same config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from graded import finished
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lark_engine.cli import app
from lark_engine.cli import train as cli_train
from lark_engine.config import TrainConfig
from lark_engine.recipes import train_recipe
from lark_engine.recipes.texts import recipe_text
from lark_engine.results.commands import command_of, preflight_command, train_command
from lark_engine.store.workspace import Workspace
from lark_engine.training.preflight_record import is_preflight

ROOT = Workspace("/tmp/a workspace")


def read(command: list[str]) -> TrainConfig:
    """The options that the command line reads from a command; nothing is trained."""
    seen: list[TrainConfig] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_train, "_preflight", lambda config, data, store, as_json: seen.append(config))
        done = CliRunner().invoke(app, preflight_command(command)[1:])
    assert done.exit_code == 0, done.output
    (config,) = seen
    return config


def config_of(base: str, /, **changes: Any) -> TrainConfig:
    return TrainConfig.parse({"student": "/s", **train_recipe(base), **changes}, "test")


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("lora", {}), ("full_500", {}), ("full_5000", {}),
    ("lora", {"recipe": "my run", "lr": 1e-5, "epochs": 1.5, "seed": 3, "student": "--odd name"}),
    ("lora", {"packing": False, "gradient_checkpointing": False, "trust_remote_code": True}),
    ("lora", {"lora_targets": ("q_proj", "v_proj"), "lora_rank": 8, "lora_dropout": 0.0}),
    ("lora", {"device": "cpu", "nproc_per_node": 2, "dtype": "auto"}),
    ("lora", {"nnodes": 2, "node_rank": 1, "rdzv_endpoint": "host:29500"}),
    ("lora", {"eval_share": 0.1, "eval_benchmarks": ("a=/b c", "d"), "eval_steps": 3, "eval_data": "-x"}),
    ("lora", {"report_to": ("tensorboard", "wandb"), "stop_after_checkpoint": True, "chat_template": Path("/t.jinja")}),
    ("full_500", {"deepspeed": None}), ("full_500", {"deepspeed": "none"}), ("full_500", {"deepspeed": "zero3"}),
    ("full_5000", {"max_steps": 20, "unit": "token", "weighting": "uniform", "render": "append"}),
    ("lora", {"max_tokens": 10**9, "pack_length": 4096, "adam_epsilon": 1e-12, "warmup_ratio": 1 / 3}),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "changes"), CHANGES)
def test_the_command_line_reads_the_same_options(recipe: str, changes: dict[str, Any]) -> None:
    config = config_of(recipe, **changes)
    assert read(train_command(config, "chi2-b3-0123", ROOT, recipe=recipe)) == config


NUMBERS = {
    "lr": st.floats(1e-9, 10), "epochs": st.floats(0.01, 50), "global_batch": st.integers(8, 512),
    "seed": st.integers(0, 2**31), "warmup_ratio": st.floats(0, 0.99), "max_grad_norm": st.floats(0, 5),
    "weight_decay": st.floats(0, 1), "lora_rank": st.integers(1, 512), "packing": st.booleans(),
    "gradient_checkpointing": st.booleans(), "deepspeed": st.sampled_from([None, "zero2", "zero3"]),
    "scheduler": st.sampled_from(["cosine", "linear", "constant"]), "nproc_per_node": st.integers(1, 8),
    "max_steps": st.none() | st.integers(1, 10**6), "report_to": st.sampled_from([(), ("wandb",)]),
    "lora_targets": st.lists(st.text("abc_", min_size=1), min_size=1).map(tuple),
}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["lora", "full_500"]), st.fixed_dictionaries({}, optional=NUMBERS))
def test_any_options_are_read_as_they_were_meant(recipe: str, changes: dict[str, Any]) -> None:
    if recipe != "lora":
        changes = {name: value for name, value in changes.items() if not name.startswith("lora_")}
    config = config_of(recipe, **changes)
    assert read(train_command(config, "x", ROOT, recipe=recipe)) == config


@pytest.mark.parametrize(("recipe", "changes"), CHANGES)
def test_a_downloaded_recipe_gives_the_same_run(tmp_path: Path, recipe: str, changes: dict[str, Any]) -> None:
    base = {name: value for name, value in train_recipe(recipe).items() if name != "recipe"}
    config = config_of(recipe, **{**changes, "recipe": "mine", "student": "/s"})
    own = {name: value for name, value in changes.items() if name not in ("recipe", "student")}
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_text(base, own), encoding="utf-8")
    words = ["lark", "train", config.method, "--train-data", "x", "--student", "/s", "--recipe", str(path)]
    words += ["--trust-remote-code"] if config.trust_remote_code else []  # which a file alone cannot ask for
    assert read([*words, "--workspace", str(tmp_path)]) == config


def test_a_file_that_sets_what_no_option_takes_back_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump({"method": "lora", "max_steps": 5, "lr": 0.5}))
    kept = config_of(str(path))
    command = train_command(kept, "x", ROOT, recipe=str(path))
    assert command[7:-2] == ["--recipe", str(path)]
    assert read(command) == kept
    taken_back = config_of(str(path), max_steps=None)
    command = train_command(taken_back, "x", ROOT, recipe=str(path))
    assert command[7:11] == ["--recipe", "lora", "--name", "short"]
    assert read(command) == taken_back


def test_accumulation_steps_of_a_file_do_not_change_the_batch_with_the_devices(tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text("method: lora\ngradient_accumulation_steps: 4\n")
    config = TrainConfig(student="/s", recipe="steps", global_batch=4, nproc_per_node=2)
    command = train_command(config, "x", ROOT, recipe=str(path))
    assert command[9:-2] == ["--global-batch", "4", "--nproc-per-node", "2"]
    assert read(command) == config


def test_a_checkpoint_without_deepspeed_is_made_again_without_it(workspace: Workspace) -> None:
    config = config_of("full_500", deepspeed=None, device="cpu", nproc_per_node=2).model_dump(mode="json")
    checkpoint = finished(workspace, "checkpoints", "full_500", config)
    command = command_of(checkpoint, workspace)
    assert command is not None
    assert command[-4:-2] == ["--deepspeed", "none"]
    assert "--device" not in command and "--nproc-per-node" not in command


def test_a_preflight_is_told_from_a_run() -> None:
    command = train_command(config_of("lora"), "x", ROOT, recipe="lora")
    assert preflight_command(command)[-4:] == ["--preflight", "--json", "--workspace", str(ROOT.root)]
    assert is_preflight(preflight_command(command))
    assert not is_preflight(command)
    assert not is_preflight(["lark", "score", "--json"])
