"""The training stage for real on a tiny model: full, LoRA, two gloo ranks with ZeRO-2, resume, bad numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, TrainingError
from lark_engine.models import model_of_checkpoint
from lark_engine.recipes import deepspeed_config, train_recipe, train_recipes
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.plan import plan_train, train_data
from lark_engine.training.train import train

Make = Callable[..., TrainConfig]


def run(config: TrainConfig, workspace: Workspace, path: Path) -> Artifact:
    checkpoint = train(config, workspace, train_data(str(path), workspace))
    assert checkpoint is not None
    return checkpoint


def weights(checkpoint: Artifact) -> dict[str, torch.Tensor]:
    file = next(checkpoint.path.glob("*/*.safetensors"))
    return load_file(file)


def losses(checkpoint: Artifact) -> list[float]:
    events = [json.loads(line) for line in (checkpoint.path / "events.jsonl").read_text().splitlines()]
    return [event["metrics"]["loss"] for event in events if "loss" in event["metrics"]]


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.slow
def test_a_full_checkpoint_opens_in_plain_transformers_and_has_learned(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = run(tiny_config(epochs=10, lr=3e-3), workspace, train_path)
    folder = model_of_checkpoint(checkpoint, workspace).path
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert model.dtype == torch.float32  # as the student was stored
    curve = losses(checkpoint)
    assert len(curve) == 20 == checkpoint.manifest.counts["num_steps"]
    assert curve[-1] < 0.8 * curve[0]
    assert checkpoint.manifest.counts["num_sequences"] == 7
    assert not (checkpoint.path / "resume").exists()


@pytest.mark.slow
def test_a_lora_checkpoint_opens_in_plain_peft_and_changes_only_the_adapter(
    workspace: Workspace, tiny_config: Make, train_path: Path, tiny_model_dir: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = tiny_config(method="lora", lora_rank=4, lora_alpha=8, lora_dropout=0.0, lr=1e-2)
    checkpoint = run(config, workspace, train_path)
    model = model_of_checkpoint(checkpoint, workspace)
    assert model.is_adapter
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), model.path)
    names = [name for name, _ in adapted.named_parameters() if "lora_B" in name]
    assert len(names) == 2 * 7
    assert all(float(dict(adapted.named_parameters())[n].abs().sum()) > 0 for n in names)
    assert checkpoint.manifest.metrics["trainable_parameters"] < 20_000


@pytest.mark.slow
def test_accumulation_and_batch_size_do_not_change_what_is_learned(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path
) -> None:
    accumulated = run(tiny_config(packing=False, batch_size=1), workspace, train_path)
    at_once = run(tiny_config(packing=False, batch_size=4), Workspace(tmp_path / "other"), train_path)
    assert accumulated.id == at_once.id
    assert losses(accumulated) == pytest.approx(losses(at_once), rel=1e-5)
    assert difference(weights(accumulated), weights(at_once)) < 1e-5


@pytest.mark.slow
def test_two_gloo_ranks_under_zero_2_learn_what_one_process_learns(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    alone = run(tiny_config(), workspace, train_path)
    together = run(tiny_config(nproc_per_node=2, deepspeed="zero2"), workspace, train_path)
    assert alone.id != together.id
    assert together.manifest.counts["num_steps"] == 4
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    assert difference(weights(alone), weights(together)) < 1e-4


@pytest.mark.slow
def test_a_rank_that_torchrun_started_trains_along_and_zero_3_saves_whole_weights(
    workspace: Workspace, tiny_config: Make, train_path: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    alone = run(tiny_config(epochs=1, lr=1e-3), Workspace(tmp_path / "alone"), train_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "lark_engine.cli", "train", "full", "--train_data", str(train_path)]
    command += ["--model_path", str(tiny_model_dir), "--deepspeed", "zero3", "--grad_accum", "2", "--epochs", "1"]
    command += ["--lr", "1e-3", "--scheduler", "constant", "--warmup-ratio", "0", "--max-grad-norm", "0"]
    command += ["--max-length", "256", "--dtype", "float32", "--workspace", str(workspace.root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    subprocess.run(command, check=True, timeout=300, env=environment, capture_output=True)
    [together] = workspace.list("checkpoints")
    assert together.manifest.metrics["trainable_parameters"] == alone.manifest.metrics["trainable_parameters"]
    assert difference(weights(alone), weights(together)) < 1e-4


@pytest.mark.slow
def test_weights_change_what_is_learned(workspace: Workspace, tiny_config: Make, train_path: Path) -> None:
    weighted = run(tiny_config(), workspace, train_path)
    uniform = run(tiny_config(weighting="uniform"), workspace, train_path)
    assert difference(weights(weighted), weights(uniform)) > 1e-4


@pytest.mark.slow
def test_training_that_diverges_stops_with_step_batch_and_remedy(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    config = tiny_config(lr=1e30, epochs=20)
    with pytest.raises(TrainingError, match=r"the (loss|gradient norm) became (nan|inf) at step \d+.*lower --lr"):
        run(config, workspace, train_path)
    plan, _ = plan_train(config, workspace, train_data(str(train_path), workspace))
    assert workspace.find(plan) is None


@pytest.mark.parametrize("name", ["full_500", "full_5000", "lora"])
def test_shipped_recipes_are_valid(name: str, tiny_model_dir: Path) -> None:
    config = TrainConfig.parse({"student": str(tiny_model_dir), **train_recipe(name)}, name)
    assert config.global_batch == 64
    assert config.recipe == name


def test_released_hyper_parameters_ship_as_recipes() -> None:
    assert train_recipes() == ["full_500", "full_5000", "lora"]
    full, lora = train_recipe("full_5000"), train_recipe("lora")
    assert (full["lr"], full["epochs"], full["max_length"], full["warmup_ratio"]) == (1e-5, 5, 32768, 0.05)
    assert (lora["lr"], lora["epochs"], lora["lora_rank"], lora["lora_alpha"]) == (1e-4, 3, 64, 128)
    assert (train_recipe("full_500")["lr"], train_recipe("full_500")["logging_steps"]) == (5e-6, 5)


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero2_bf16", 2), ("zero3", 3)])
def test_shipped_deepspeed_configurations_leave_batches_to_the_trainer(name: str, stage: int) -> None:
    values = deepspeed_config(name)
    assert values["zero_optimization"]["stage"] == stage
    assert values["train_batch_size"] == "auto"


def test_a_deepspeed_file_that_fixes_the_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{"gradient_accumulation_steps": 8}')
    with pytest.raises(ConfigError, match=r"'gradient_accumulation_steps' is fixed to 8"):
        deepspeed_config(str(path))
    path.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(ConfigError, match=r"trains to the end and then cannot save the model; set it"):
        deepspeed_config(str(path))
    with pytest.raises(ConfigError, match=r"no DeepSpeed configuration 'zero4'; did you mean 'zero3'"):
        deepspeed_config("zero4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"global_batch": 6, "nproc_per_node": 8},
            r"global_batch 6 leaves some of the 8 processes without a trajectory",
        ),
        ({"lr": 0}, r"'lr' = 0: input should be greater than 0"),
        ({"learning_rat": 1}, r"unknown key 'learning_rat'"),
        ({"lora_ranks": 1}, r"unknown key 'lora_ranks'; did you mean 'lora_rank'\?"),
    ],
)
def test_train_options_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse({"student": "s", **changes}, "train")
