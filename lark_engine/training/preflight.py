"""A look before hours of training: what the first batch trains on, that weights count, and whether it all fits.

Everything that can be measured is measured on this machine with the student itself; what is estimated says from what.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from lark_engine.config import TrainConfig
from lark_engine.errors import DeviceError
from lark_engine.models import free_device_memory, load_tokenizer
from lark_engine.store.atomic import existing_parent
from lark_engine.store.workspace import Workspace
from lark_engine.training import sft
from lark_engine.training.examples import Example, micro_batch
from lark_engine.training.student import build_model
from lark_engine.training.train import TrainData, plan_train

_GB = 1e9
# AdamW's two moments, float32.
_MOMENTS_BYTES = 8
_RATIO_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A trajectory of the first forward pass: what is read (no loss), what is trained on, and with what coefficient.

    `coefficient` is that of each response token, w / T or w / T̄; `share` that of the whole trajectory among those of
    its optimizer step.
    """

    label: str
    teacher: str
    num_prompt_tokens: int
    num_response_tokens: int
    coefficient: float
    share: float
    prompt: str
    response: str


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What will be trained, what it will take, and what stands against it (`problems`, sentences; empty = ready)."""

    checkpoint: str
    run: str
    num_sequences: int
    num_truncated: int
    drops: dict[str, int]
    num_held_out: int
    template: str
    first_batch: list[Shown]
    gradient_ratio: float
    trainable_parameters: int
    steps: int
    tokens: int
    hours: float
    hours_basis: str
    memory_gb: float
    memory_free_gb: float
    memory_basis: str
    disk_gb: float
    disk_free_gb: float
    problems: list[str]

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return asdict(self)


def preflight(config: TrainConfig, workspace: Workspace, data: TrainData) -> Preflight:
    """Render and lay out the data, load the student, and run one forward and backward pass of the largest batch.

    Nothing is written. Errors: those that training itself would end with, at once.
    """
    import torch

    plan, spec = plan_train(config, workspace, data)
    # One process stands for all: what is sharded over devices is divided in the estimate.
    alone = replace(spec, deepspeed=None, config=spec.config.model_copy(update={"deepspeed": None}))
    tokenizer = load_tokenizer(spec.student, trust_remote_code=spec.config.trust_remote_code)
    run_data = sft.read_data(spec, tokenizer)
    layout, examples = run_data.layout, run_data.training_set.examples
    device = torch.device(spec.config.device)
    model = build_model(alone, device)
    largest = max(layout.bins, key=lambda numbers: sum(len(examples[n].ids) for n in numbers))
    first_step = [n for numbers in layout.bins[: layout.grad_accum * spec.config.num_processes] for n in numbers]
    shortest = sorted(first_step, key=lambda n: len(examples[n].ids))[:2]
    ratio = gradient_ratio(model, [examples[n] for n in shortest], spec.config)
    if spec.config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tokens = sum(len(examples[n].ids) for n in largest)
    try:
        seconds, peak = _measure(model, [examples[n] for n in largest], spec.config)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"one pass of {tokens:,} tokens does not fit on {spec.config.device} with the whole student; lower "
            "--pack-length or --max-length, or turn on --gradient-checkpointing"
            + (" (with DeepSpeed each device holds less than was tried here)" if spec.deepspeed else "")
        ) from error
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    del model
    free_device_memory()
    processes = spec.config.num_processes
    moments = trained * _MOMENTS_BYTES / (processes if spec.deepspeed else 1)
    checkpoint_bytes = trained * (4 + _MOMENTS_BYTES) * (spec.config.keep + 1) + weights * (
        spec.config.method == "full"
    )
    found = Preflight(
        checkpoint=plan.id, run=sft.describe(spec.config, layout), num_sequences=len(examples),
        num_truncated=run_data.training_set.num_truncated, drops=run_data.training_set.drops,
        num_held_out=sum(len(held.examples) for held in run_data.held_out),
        template=f"the prompt's tokens begin the conversation's in all {len(examples):,} trajectories "
        f"(--render {spec.config.render})",
        first_batch=[_shown(examples[n], tokenizer, [examples[i] for i in first_step]) for n in layout.bins[0]],
        gradient_ratio=ratio, trainable_parameters=trained, steps=layout.num_steps, tokens=layout.tokens,
        hours=layout.occupied / processes * seconds / tokens / 3600,
        hours_basis=f"one forward and backward pass of {tokens:,} tokens took {seconds:.1f} s here; optimizer steps, "
        "evaluation and saving come on top",
        memory_gb=(peak + moments) / _GB, memory_free_gb=_free_memory(device) / _GB,
        memory_basis=f"{peak / _GB:.2f} GB at the peak of that pass, and {moments / _GB:.2f} GB for AdamW's moments"
        + (f", sharded over {processes} processes" if spec.deepspeed and processes > 1 else ""),
        disk_gb=checkpoint_bytes / _GB, disk_free_gb=shutil.disk_usage(existing_parent(workspace.root)).free / _GB,
        problems=[],
    )  # fmt: skip
    return replace(found, problems=_problems(found))


def gradient_ratio(model: Any, examples: Sequence[Example], config: TrainConfig) -> float:
    """How much larger the first trajectory's share of the gradient becomes when its weight is doubled: 2, if it counts.

    ‖g(2w) − g(0)‖ / ‖g(w) − g(0)‖ over all trainable parameters, dropout off, its neighbors' weights unchanged.
    """
    import torch

    def gradient(factor: float) -> torch.Tensor:
        first = replace(examples[0], coefficient=examples[0].coefficient * factor)
        model.zero_grad(set_to_none=True)
        _backward(model, [first, *examples[1:]], config)
        return torch.cat([p.grad.detach().float().flatten() for p in model.parameters() if p.grad is not None])

    was_training = model.training
    model.eval()
    without, once, twice = gradient(0.0), gradient(1.0), gradient(2.0)
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return float(torch.linalg.vector_norm(twice - without) / torch.linalg.vector_norm(once - without))


def _backward(model: Any, examples: Sequence[Example], config: TrainConfig) -> None:
    """Gradients of one forward pass, in the precision that training has."""
    import torch

    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in micro_batch(examples, packing=config.packing).items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
        loss = model(**inputs).value
    loss.backward()


def _measure(model: Any, examples: Sequence[Example], config: TrainConfig) -> tuple[float, float]:
    """Seconds of a forward and backward pass (the second one), and bytes at the peak."""
    import torch

    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = 0.0
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        _backward(model, examples, config)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    if on_gpu:
        return seconds, float(torch.cuda.max_memory_allocated())
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _free_memory(device: Any) -> float:
    """Bytes that training may use: what is free, and what this process holds itself."""
    import torch

    if device.type == "cuda":
        return float(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    return float(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def _shown(example: Example, tokenizer: Any, step: Sequence[Example]) -> Shown:
    total = sum(e.coefficient * e.num_response_tokens for e in step)
    return Shown(
        label=example.label, teacher=example.teacher, num_prompt_tokens=example.num_prompt_tokens,
        num_response_tokens=example.num_response_tokens, coefficient=example.coefficient,
        share=example.coefficient * example.num_response_tokens / total,
        prompt=tokenizer.decode(example.ids[: example.num_prompt_tokens]),
        response=tokenizer.decode(example.ids[example.num_prompt_tokens :]),
    )  # fmt: skip


def _problems(found: Preflight) -> list[str]:
    problems = []
    if abs(found.gradient_ratio - 2) > _RATIO_TOLERANCE:
        problems.append(
            f"a doubled weight changes the gradient {found.gradient_ratio:.3f} times, not 2: please report it"
        )
    if found.memory_gb > found.memory_free_gb:
        problems.append(
            f"memory: about {found.memory_gb:.1f} GB are needed and {found.memory_free_gb:.1f} GB are free; lower "
            "--pack-length, turn on --gradient-checkpointing, or shard with --deepspeed"
        )
    if found.disk_gb > found.disk_free_gb:
        problems.append(
            f"disk: {found.disk_gb:.1f} GB are needed and {found.disk_free_gb:.1f} GB are free; lower --keep"
        )
    if found.num_truncated:
        problems.append(
            f"{found.num_truncated:,} of {found.num_sequences:,} trajectories are cut at the maximal length: they lose "
            "their end, with the answer; raise --max-length, or select with --drop-truncated"
        )
    return problems
