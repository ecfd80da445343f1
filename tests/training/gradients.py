"""The gradient of one optimizer step, however it is computed: `python -m tests.training.gradients` prints the table.

A way of computing is a training run like any other, stopped before its optimizer would use the gradient.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from lark_engine.config import TrainConfig
from lark_engine.models import load_tokenizer, resolve_student
from lark_engine.recipes import deepspeed_config
from lark_engine.store.workspace import Workspace
from lark_engine.training import sft
from lark_engine.training.examples import schedule
from lark_engine.training.spec import TrainSpec
from lark_engine.training.student import build_model

Make = Callable[..., TrainConfig]
Gradients = dict[str, torch.Tensor]

# How one optimizer step of 4 trajectories may be computed.
WAYS: dict[str, dict[str, Any]] = {
    "unpacked, all at once": {"packing": False, "batch_size": 4},
    "unpacked, accumulation 4": {"packing": False, "batch_size": 1},
    "packed, one row": {"packing": True},
    "packed, accumulation": {"packing": True, "pack_length": 64},
    "packed, gradient checkpointing": {"packing": True, "gradient_checkpointing": True},
    "DDP, 2 gloo ranks, packed": {"nproc_per_node": 2},
    "ZeRO-2, 2 gloo ranks, packed": {"nproc_per_node": 2, "deepspeed": "zero2"},
    "ZeRO-2, 2 gloo ranks, unpacked": {"nproc_per_node": 2, "deepspeed": "zero2", "packing": False},
    "ZeRO-3, 2 gloo ranks, packed": {"nproc_per_node": 2, "deepspeed": "zero3"},
}


class _Captured(Exception):
    """The gradient is there: nothing more is to be done."""


def step_gradient(config: TrainConfig, train_path: Path, folder: Path) -> Gradients:
    """The gradient of the first optimizer step of a run with this config, by parameter."""
    student = resolve_student(config.student, Workspace(folder / "cache"))
    spec = TrainSpec(
        config=config, student=student, train_path=train_path, eval_path=None, folder=folder,
        deepspeed=deepspeed_config(config.deepspeed) if config.deepspeed else None,
    )  # fmt: skip
    if config.num_processes == 1 and not config.deepspeed:
        return _capture(spec)
    path, result = spec.write(), folder / "gradient.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    command += [str(config.num_processes), "-m", "tests.training.gradients", str(path), str(result)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return dict(torch.load(result, weights_only=True))


def _capture(spec: TrainSpec) -> Gradients:
    """Run until the first gradient is whole, in this process."""
    from transformers import TrainerCallback

    tokenizer = load_tokenizer(spec.student)
    data = sft.read_data(spec, tokenizer)
    arguments = sft.make_arguments(spec, data)
    if spec.deepspeed:
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    trainer = sft.make_trainer(build_model(spec, arguments.device), spec, data, arguments)
    found: Gradients = {}

    def capture() -> None:
        for name, parameter in trainer.model.named_parameters():
            if not parameter.requires_grad:
                continue
            gradient = parameter.grad
            if spec.deepspeed:
                from deepspeed.utils import safe_get_full_grad

                gradient = safe_get_full_grad(parameter)
            found[name.removeprefix("module.")] = gradient.detach().float().cpu().clone()
        raise _Captured

    class Capture(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if spec.deepspeed:
                trainer.model_wrapped.step = capture  # DeepSpeed steps on its own, at the end of the backward pass

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            capture()

    trainer.add_callback(Capture())
    with contextlib.suppress(_Captured):
        trainer.train()
    return found


def formula_gradient(config: TrainConfig, train_path: Path, weights: list[float]) -> Gradients:
    """(1/N) Σ w_i · CE_i over the first step, written from the formula, one sequence at a time."""
    from transformers import AutoModelForCausalLM

    student = resolve_student(config.student, Workspace(train_path.parent / "cache"))
    spec = TrainSpec(config=config, student=student, train_path=train_path, eval_path=None, folder=train_path.parent,
                     deepspeed=None)  # fmt: skip
    examples = sft.read_data(spec, load_tokenizer(student)).training_set.examples
    step = schedule([len(e.ids) for e in examples], config)[0]
    mean_tokens = sum(e.num_response_tokens for e in examples) / len(examples)
    model = AutoModelForCausalLM.from_pretrained(config.student, dtype=torch.float32)
    loss = torch.zeros(())
    for i in step:
        ids, start = torch.tensor(examples[i].ids, dtype=torch.long), examples[i].num_prompt_tokens
        nll = F.cross_entropy(model(input_ids=ids[None]).logits[0, start - 1 : -1], ids[start:], reduction="none")
        divisor = mean_tokens if config.unit == "token" else len(nll)
        loss = loss + weights[i] / (sum(weights) / len(weights)) * nll.sum() / divisor / len(step)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def difference(gradient: Gradients, expected: Gradients) -> float:
    """‖a − b‖ / ‖b‖ over all parameters."""
    assert gradient.keys() == expected.keys()
    norm = torch.linalg.vector_norm
    apart = torch.stack([norm(gradient[name] - expected[name]) for name in expected])
    return float(norm(apart) / norm(torch.stack([norm(g) for g in expected.values()])))


def main(argv: list[str]) -> None:
    """As a rank: capture and save. Without arguments: print the table for a tiny model."""
    if argv:
        found = _capture(TrainSpec.read(Path(argv[0])))
        if int(os.environ["RANK"]) == 0:
            torch.save(found, argv[1])
        return
    from tests.conftest import make_tiny_model
    from tests.training.conftest import WEIGHTS, tiny_train_config, write_train_file

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        model_dir, train_path = make_tiny_model(root), write_train_file(root / "train.jsonl")
        print(f"{'relative difference to the formula, float32':46} {'trajectory':>12} {'token':>12}")
        for number, (name, changes) in enumerate(WAYS.items()):
            found = []
            for unit in ("trajectory", "token"):
                config = tiny_train_config(model_dir, unit=unit, **changes)
                expected = formula_gradient(config, train_path, WEIGHTS)
                found.append(difference(step_gradient(config, train_path, root / f"{number}-{unit}"), expected))
            print(f"{name:46} {found[0]:12.1e} {found[1]:12.1e}", flush=True)
        print(json.dumps({"weights": WEIGHTS, "global batch": 4}))


if __name__ == "__main__":
    main(sys.argv[1:])
