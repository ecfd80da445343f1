"""What training on a selection would take, before anything is trained: arithmetic on counts, no model, no torch.

`lark train --preflight` measures on the student itself; this is for choosing a budget, and says what each figure rests
on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from lark_engine.architecture import lora_targets
from lark_engine.config import TrainConfig
from lark_engine.store.events import last_event
from lark_engine.store.workspace import Artifact
from lark_engine.training.checkpoints import estimated_bytes
from lark_engine.training.spec import EVENTS

# Dense bfloat16 throughput in FLOP/s, from the makers' data sheets, and the share of it that training reaches.
PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "RTX 4090": 165e12}
UTILIZATION = 0.35
_GB = 1e9

Shapes = Mapping[str, tuple[int, ...]]


class StudentSize(NamedTuple):
    """Parameters of a student, and how many of them a LoRA adapter of rank 1 adds; None where it is not known."""

    num_weights: int
    num_lora_per_rank: int | None


class Rate(NamedTuple):
    """Training speed in tokens/s of all devices together, and what the figure rests on."""

    tokens_per_s: float
    basis: str


class Cost(NamedTuple):
    """What one run takes. None: not known, because the student's size or the token counts are not.

    `passes` counts packed forward passes of one epoch; `tokens` those of all epochs; `memory_gb` is what one device
    holds in weights, gradients and AdamW's moments, activations not included.
    """

    steps: int
    passes: int | None
    tokens: int | None
    hours: float | None
    memory_gb: float | None
    checkpoint_gb: float | None


def training_cost(
    num_trajectories: int, train_tokens: int | None, config: TrainConfig, size: StudentSize | None, rate: Rate | None
) -> Cost:
    """The cost of a run. `train_tokens`: prompt and response tokens of the selection, once through."""
    trained_on = 1 - config.eval_share  # about: whole problems are held out
    steps_per_epoch = math.ceil(round(trained_on * num_trajectories, 6) / config.global_batch)
    epochs = config.epochs
    if config.max_steps:
        epochs = config.max_steps / max(1, steps_per_epoch)
    elif config.max_tokens and train_tokens:
        epochs = config.max_tokens / (trained_on * train_tokens)
    steps = config.max_steps or max(1, math.ceil(epochs * steps_per_epoch))
    tokens = None if train_tokens is None else round(trained_on * train_tokens * epochs)
    width = config.pack_length or config.max_length
    memory = checkpoint = None
    if size is not None and (num_trained := trained_weights(size, config)) is not None:
        added = num_trained if config.method == "lora" else 0
        memory = held_bytes(
            size.num_weights + added, num_trained, dtype="bfloat16" if config.dtype == "auto" else config.dtype,
            shards=config.num_processes if config.deepspeed else None,
            shards_weights=bool(config.deepspeed and config.deepspeed.startswith("zero3")),
        )  # fmt: skip
        saved = estimated_bytes(num_trained, deepspeed=bool(config.deepspeed))
        checkpoint = saved * (config.keep + 1) + size.num_weights * 4 * (config.method == "full")
    return Cost(
        steps=steps,
        passes=None if train_tokens is None else math.ceil(train_tokens / width),
        tokens=tokens,
        hours=None if tokens is None or rate is None else tokens / rate.tokens_per_s / 3600,
        memory_gb=None if memory is None else memory / _GB,
        checkpoint_gb=None if checkpoint is None else checkpoint / _GB,
    )


def trained_weights(size: StudentSize, config: TrainConfig) -> int | None:
    """How many parameters the run trains."""
    if config.method == "full":
        return size.num_weights
    return None if size.num_lora_per_rank is None else size.num_lora_per_rank * config.lora_rank


def held_bytes(
    num_weights: int, num_trained: int, *, dtype: str, shards: int | None, shards_weights: bool, moments: bool = True
) -> float:
    """Bytes of weights, gradients and, where asked for, AdamW's moments on one device.

    Without DeepSpeed (`shards` is None): what is trained is float32, a frozen base as it computes. DeepSpeed
    (Rajbhandari et al. 2020, figure 1) computes with all weights in `dtype`, and shards gradients, float32 masters and
    moments (stage 2 and 3), and the weights too (stage 3, `shards_weights`).
    """
    compute = 2 if dtype == "bfloat16" else 4
    moment_bytes = 8 * num_trained if moments else 0
    if shards is None:
        return (num_weights - num_trained) * compute + num_trained * 8 + moment_bytes
    weights = num_weights * compute / (shards if shards_weights else 1)
    return weights + (num_trained * (4 + 4) + moment_bytes) / shards


def measured_rate(
    checkpoints: Iterable[Artifact], student: object, method: str, num_devices: int = 1
) -> Rate | None:  # fmt: skip
    """The speed that the longest run of this student by this method logged; of its wall time where it logged none.

    For another number of devices than it had, as if each were as fast.
    """
    runs = [
        artifact
        for artifact in checkpoints
        if student is not None
        and artifact.manifest.config.get("method") == method
        and artifact.manifest.identity.get("student") == student
        and artifact.manifest.counts.get("tokens_seen", 0) > 0
        and artifact.manifest.wall_s > 0
    ]
    if not runs:
        return None
    longest = max(runs, key=lambda artifact: artifact.manifest.counts["tokens_seen"])
    counts, run = longest.manifest.counts, longest.manifest.config
    rate = counts["tokens_seen"] / longest.manifest.wall_s
    # A resumed run's wall time is that of its last part; what it logged of its speed is right for all of it.
    logged = (last_event(longest.path / EVENTS) or {}).get("rate")
    if isinstance(logged, int | float) and logged > 0 and counts.get("num_steps"):
        rate = logged * counts["tokens_seen"] / counts["num_steps"]
    processes = int(run.get("nproc_per_node", 1)) * int(run.get("nnodes", 1))
    basis = f"measured: {rate:,.0f} tokens/s in {longest.id} on {longest.manifest.device or 'this machine'}"
    if num_devices != processes:
        basis += f", scaled from {processes} to {num_devices} device{'s' if num_devices > 1 else ''}"
    return Rate(rate * num_devices / processes, basis)


def tabled_rate(size: StudentSize | None, config: TrainConfig, device: str, num_devices: int) -> Rate | None:
    """The speed from the device's data sheet: 6 FLOP a parameter and token, 4 where the base is frozen, 2 more to
    recompute activations, at 35 % of the peak. Attention over long trajectories comes on top.
    """
    if size is None:
        return None
    flops = (6 if config.method == "full" else 4) + (2 if config.gradient_checkpointing else 0)
    rate = num_devices * PEAK_FLOPS[device] * UTILIZATION / (flops * size.num_weights)
    basis = f"{num_devices} × {device} at {UTILIZATION:.0%} of {PEAK_FLOPS[device] / 1e12:.0f} TFLOP/s (data sheet)"
    return Rate(rate, f"estimated: {rate:,.0f} tokens/s, {basis}")


def student_size(folder: Path) -> StudentSize | None:
    """The size of a model in a folder, from the headers of its weight files; None when there are none to read."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="numpy") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        kind = str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
    except (OSError, ValueError, AttributeError, SafetensorError):
        return None
    if not shapes:
        return None
    return StudentSize(sum(map(math.prod, shapes.values())), lora_weights_per_rank(shapes, lora_targets(kind)))


def lora_weights_per_rank(shapes: Shapes, targets: tuple[str, ...]) -> int | None:
    """Parameters that an adapter of rank 1 adds: inputs and outputs of each target; None when no target is found."""
    adapted = [
        shape for name, shape in shapes.items() if len(shape) == 2 and name.split(".")[-2:-1] and
        name.split(".")[-2] in targets and name.endswith(".weight")
    ]  # fmt: skip
    return sum(map(sum, adapted)) if adapted else None
