"""How training is started: the batch from the devices, one machine or several, adapters and what they go on."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lark_engine.architecture import lora_targets
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, StudentError
from lark_engine.models import load_model, model_of_checkpoint, resolve_model
from lark_engine.recipes.batches import with_global_batch
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.launch import torchrun
from lark_engine.training.merge import merge
from lark_engine.training.plan import plan_train, train_data
from lark_engine.training.train import train
from tests.cli.command_line import succeeds

Make = Callable[..., TrainConfig]


def run(config: TrainConfig, workspace: Workspace, path: Path) -> Artifact:
    checkpoint = train(config, workspace, train_data(str(path), workspace))
    assert checkpoint is not None
    return checkpoint


@pytest.mark.parametrize(
    ("merged", "given", "grad_accum", "batch", "said"),
    [
        ({"global_batch": 64, "nproc_per_node": 8}, {}, None, 64, ""),
        # 8 accumulation steps are 64 on 8 devices, and something else on others.
        (
            {"global_batch": 64, "nproc_per_node": 2},
            {},
            8,
            16,
            "global batch 16 = 8 accumulation steps × 2 trajectories",
        ),
        (
            {"grad_accum": 8, "nproc_per_node": 1},
            {},
            None,
            8,
            "on these devices that is a batch of 8; on 8 devices it was 64",
        ),
        (
            {"grad_accum": 8, "global_batch": 64},
            {},
            None,
            64,
            "are for 8 devices, and here they follow from the 1 there are",
        ),
        ({"grad_accum": 8, "global_batch": 64, "nproc_per_node": 8}, {}, None, 64, ""),
        ({"grad_accum": 4, "batch_size": 2, "nproc_per_node": 4, "nnodes": 2}, {}, None, 64, "State global_batch"),
    ],
)
def test_the_global_batch_is_kept_or_what_becomes_of_it_is_said(
    merged: dict[str, Any], given: dict[str, Any], grad_accum: int | None, batch: int, said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with caplog.at_level(logging.WARNING):
        values = with_global_batch(merged, given, grad_accum)
    assert values["global_batch"] == batch
    assert "grad_accum" not in values
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_accumulation_and_global_batch_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="say the same thing; give one of them"):
        with_global_batch({"global_batch": 64}, {"global_batch": 64}, 8)


def test_one_machine_meets_itself_and_several_meet_at_the_endpoint(tiny_config: Make, tmp_path: Path) -> None:
    spec = tmp_path / "lora-0123" / "resume" / "spec.json"
    start = [sys.executable, "-m", "torch.distributed.run"]
    end = ["--nproc_per_node", "2", "-m", "lark_engine.training.sft", str(spec)]
    assert torchrun(tiny_config(nproc_per_node=2), spec) == [*start, "--standalone", *end]
    several = tiny_config(nproc_per_node=2, nnodes=2, node_rank=1, rdzv_endpoint="head:29500")
    assert torchrun(several, spec) == [
        *start, "--nnodes", "2", "--node_rank", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", "head:29500",
        "--rdzv_id", "lora-0123", *end,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nnodes": 2}, "several machines meet at --rdzv-endpoint host:port"),
        ({"rdzv_endpoint": "a:1"}, "several machines meet at --rdzv-endpoint host:port"),
        ({"nnodes": 2, "node_rank": 2, "rdzv_endpoint": "a:1"}, "node_rank 2 is not below nnodes 2"),
        ({"max_steps": 3, "max_tokens": 30}, "both say where training ends"),
        ({"packing": False, "pack_length": 30}, "pack_length has no effect without packing"),
        ({"eval_steps": 5}, "eval_steps has no effect without something held out; give --eval-share too"),
        ({"eval_data": "x"}, "eval_data has no effect without held-out problems; give --eval-share too"),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse({"student": "s", **changes}, "train")


@pytest.mark.slow
def test_two_machines_train_as_one(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    """Two `lark train` on one workspace, as two machines would run them, each with one rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "lark_engine.cli", "train", "full", "--train-data", str(train_path)]
    command += ["--model-path", str(tiny_model_dir), "--workspace", str(workspace.root), "--global-batch", "4"]
    command += ["--epochs", "1", "--lr", "1e-3", "--scheduler", "constant", "--warmup-ratio", "0", "--dtype", "float32"]
    command += ["--max-grad-norm", "0", "--max-length", "256", "--deepspeed", "zero2", "--device", "cpu"]
    command += ["--nnodes", "2", "--rdzv-endpoint", endpoint]
    machines = [subprocess.Popen([*command, "--node-rank", str(n)], stderr=subprocess.PIPE, text=True) for n in (0, 1)]
    logs = [machine.communicate(timeout=240)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], logs
    assert f"--rdzv_endpoint {endpoint}" in logs[0]
    [together] = workspace.list("checkpoints")
    alone = run(tiny_config(epochs=1), Workspace(tmp_path / "alone"), train_path)
    first, second = (load_file(next(a.path.glob("*/*.safetensors"))) for a in (together, alone))
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4


def test_adapters_go_on_every_projection_of_the_architecture(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    assert lora_targets("llama") == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert lora_targets("phi3") == ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    data = train_data(str(train_path), workspace)
    plans = [
        plan_train(tiny_config(method="lora", lora_targets=targets), workspace, data)[0]
        for targets in (("auto",), lora_targets("llama"), ("q_proj",))
    ]
    assert plans[0].fingerprint == plans[1].fingerprint != plans[2].fingerprint


@pytest.mark.parametrize("model_type", ["gpt2", "phi3", "gpt_neox", "starcoder2", "opt", "falcon"])
def test_the_targets_of_an_architecture_are_modules_of_its_models(model_type: str) -> None:
    """Every name is there, and nothing in a layer that has weights to adapt is left out."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    config = AutoConfig.for_model(model_type, vocab_size=64, num_hidden_layers=1, pad_token_id=0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = {
        n.rsplit(".", 1)[-1]
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear | Conv1D) and m is not head
    }
    assert set(lora_targets(model_type)) == linear - {"project_in", "project_out"}


def test_a_target_that_the_model_lacks_is_named(workspace: Workspace, tiny_config: Make, train_path: Path) -> None:
    config = tiny_config(method="lora", lora_targets=("q_proj", "qkv_proj"))
    with pytest.raises(ConfigError, match=r"no module of this model is named qkv_proj; it has .*q_proj.* all-linear"):
        run(config, workspace, train_path)


@pytest.mark.slow
def test_a_merged_checkpoint_answers_as_the_adapter_does(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path
) -> None:
    adapter = run(tiny_config(method="lora", lora_rank=4, lora_targets=("all-linear",), lr=1e-2), workspace, train_path)
    merged = merge(adapter, workspace)
    assert merged.name == f"merged-{adapter.name}"
    assert merged.manifest.inputs["adapter"].id == adapter.id
    assert merge(adapter, workspace).path == merged.path
    ids = torch.arange(20)[None]
    logits = [
        load_model(model_of_checkpoint(a, workspace), dtype="float32", device="cpu")(input_ids=ids).logits
        for a in (adapter, merged)
    ]
    assert not model_of_checkpoint(merged, workspace).is_adapter
    assert torch.allclose(*logits, atol=1e-4)
    with pytest.raises(ConfigError, match="has no adapter: its weights are whole already"):
        merge(merged, workspace)
    succeeds("train", "merge", adapter.id, "--output-dir", tmp_path / "out", workspace=workspace.root)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert resolve_model(str(tmp_path / "out"), workspace).name == merged.id


@pytest.mark.slow
def test_an_adapter_knows_its_base(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    import json
    import shutil

    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    adapter = run(tiny_config(method="lora", lora_rank=4, student=str(base)), workspace, train_path)
    exported = tmp_path / "exported"
    shutil.copytree(adapter.path / "adapter", exported)
    elsewhere = Workspace(tmp_path / "elsewhere")
    assert resolve_model(str(exported), elsewhere).base_path == base
    assert json.loads((exported / "base_model.json").read_text())["name"] == "base"
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with pytest.raises(StudentError, match="this adapter was trained on other weights than"):
        resolve_model(str(exported), elsewhere)
