"""A look before hours of training: what the first batch trains on, that weights count, and whether it all fits.

Everything that can be measured is measured on this machine with the student itself; what is estimated says from what.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import DeviceError
from lark_engine.models import free_device_memory, load_tokenizer
from lark_engine.store.atomic import existing_parent
from lark_engine.store.workspace import Workspace
from lark_engine.training import checkpoints, sft
from lark_engine.training.cost import held_bytes
from lark_engine.training.examples import Example, MicroBatches, TrainLine, build_training_set, read_train_file
from lark_engine.training.plan import TrainData, plan_train
from lark_engine.training.preflight_record import Preflight, Shown
from lark_engine.training.resume import resume_of
from lark_engine.training.spec import TrainSpec
from lark_engine.training.student import build_model

_GB = 1e9
_RATIO_TOLERANCE = 0.1
# What the ratio is measured on: the shortest of a step, and the first numbers of the last parameters.
_PROBED_TRAJECTORIES = 8
_PROBED_PARAMETERS = 32
_PROBED_NUMBERS = 1 << 20


# Trajectories to take the gradient of, one or two.
Pair = list[Example]


def preflight(config: TrainConfig, workspace: Workspace, data: TrainData) -> Preflight:
    """Render and lay out the data, load the student, and compute as training does: the largest forward and backward
    pass, and the gradient of two trajectories with one weight doubled.

    One process stands for all; what DeepSpeed shards is divided in the estimate. Nothing is written to the workspace.
    Errors: those that training itself would end with; `DeviceError` when one pass with the whole student does not fit.
    """
    import torch

    plan, spec = plan_train(config, workspace, data)
    config = spec.config
    tokenizer = load_tokenizer(spec.student, trust_remote_code=config.trust_remote_code)
    run_data = sft.read_data(spec, tokenizer)
    layout, examples = run_data.layout, run_data.training_set.examples
    largest = max(layout.bins, key=lambda numbers: _computed([examples[n] for n in numbers], config))
    size = _computed([examples[n] for n in largest], config)
    first_step = [n for numbers in layout.bins[: layout.grad_accum * config.num_processes] for n in numbers]
    alone = config.model_copy(
        update={"deepspeed": None, "nproc_per_node": 1, "nnodes": 1, "rdzv_endpoint": None, "report_to": ()}
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            probe = _Probe(replace(spec, config=alone, deepspeed=None, folder=Path(folder)), run_data)
            seconds, peak = probe.measure([examples[n] for n in largest])
            ratio = None
            if config.weighting == "selection":
                ratio = probe.gradient_ratio(*_pairs(spec, tokenizer, [examples[n] for n in first_step]))
            num_weights, num_trained = probe.num_weights, probe.num_trained
            del probe
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"one pass of {size:,} tokens does not fit on {config.device} with the whole student; lower --pack-length "
            "or --max-length, or turn on --gradient-checkpointing"
            + (" (with DeepSpeed each device holds less than was tried here)" if spec.deepspeed else "")
        ) from error
    free_device_memory()
    passing = max(peak - _held_bytes(num_weights, num_trained, replace(spec, deepspeed=None), moments=False), 0.0)
    held = _held_bytes(num_weights, num_trained, spec, moments=True)
    saved = checkpoints.estimated_bytes(num_trained, deepspeed=bool(spec.deepspeed))
    # Processes on one CPU share its cores.
    devices = 1 if config.device == "cpu" else config.num_processes
    resume = resume_of(
        spec.folder, num_processes=config.num_processes, is_deepspeed=bool(spec.deepspeed), save_steps=config.save_steps
    )
    found = Preflight(
        checkpoint=plan.id, run=sft.describe(config, layout), num_sequences=len(examples),
        num_truncated=run_data.training_set.num_truncated, drops=run_data.training_set.drops,
        num_held_out=sum(len(held_out.examples) for held_out in run_data.held_out),
        num_held_out_truncated=sum(held_out.num_truncated for held_out in run_data.held_out),
        template=f"the prompt's tokens begin the conversation's in all {len(examples):,} trajectories "
        f"(--render {config.render})",
        first_batch=[_shown(examples[n], tokenizer, [examples[i] for i in first_step]) for n in layout.bins[0]],
        gradient_ratio=ratio, trainable_parameters=num_trained, steps=layout.num_steps, tokens=layout.tokens,
        hours=layout.occupied / devices * seconds / size / 3600,
        hours_basis=f"one forward and backward pass of {size:,} tokens took {seconds:.1f} s here; optimizer steps, "
        "evaluation and saving come on top",
        memory_gb=(passing + held) / _GB, memory_free_gb=_free_memory(config.device) / _GB,
        memory_basis=f"{passing / _GB:.2f} GB measured in that pass, {held / _GB:.2f} GB for weights, gradients and "
        "AdamW's moments" + (f", as DeepSpeed shards them over {config.num_processes}" if spec.deepspeed else ""),
        disk_gb=(saved * (config.keep + 1) + num_weights * 4 * (config.method == "full")) / _GB,
        disk_free_gb=shutil.disk_usage(existing_parent(workspace.root)).free / _GB,
        resume_step=resume.step, resume=resume.sentence, problems=[],
    )  # fmt: skip
    return replace(found, problems=[*([resume.sentence] if resume.is_refused else []), *_problems(found)])


class _Probe:
    """The student in the very Trainer that would train it, for single passes without an optimizer step."""

    def __init__(self, spec: TrainSpec, data: sft.RunData):
        arguments = sft.make_arguments(spec, data)
        self._spec = spec
        self._trainer = sft.make_trainer(build_model(spec, arguments.device), spec, data, arguments)
        self._model = self._trainer.accelerator.prepare_model(self._trainer.model)
        if spec.config.gradient_checkpointing:
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.num_weights = sum(p.numel() for p in self._model.parameters())
        self.num_trained = sum(p.numel() for p in self._model.parameters() if p.requires_grad)

    def measure(self, examples: Sequence[Example]) -> tuple[float, float]:
        """Seconds of a forward and backward pass (the second one), and bytes at the peak of both."""
        import torch

        on_gpu = self._trainer.args.device.type == "cuda"
        _reset_peak(on_gpu)
        seconds = 0.0
        self._model.train()
        for _ in range(2):
            started = time.perf_counter()
            self._step(examples)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        return seconds, _peak_bytes(on_gpu)

    def gradient_ratio(self, first: Pair, second: Pair, once: Pair, twice: Pair) -> float:
        """How much larger the first trajectory's share of the gradient is with its train_weight doubled.

        The gradient of both is a mixture α·∇CE_1 + (1 − α)·∇CE_2, and α / (1 − α) = q_1 / q_2 if weights count: its
        ratio is 2 then, and 1 where weights cancel. α is read off along ∇CE_1 − ∇CE_2, on the first numbers of the
        last parameters (copies of all gradients might not fit). Dropout is off.
        """
        import torch

        def gradient(pair: Pair) -> torch.Tensor:
            self._step(pair)
            grads = [p.grad.detach().flatten() for p in self._model.parameters() if p.grad is not None]
            return torch.cat([grad[:_PROBED_NUMBERS].double() for grad in grads[-_PROBED_PARAMETERS:]]).cpu()

        self._model.eval()
        of_first, of_second = gradient(first), gradient(second)
        apart = of_first - of_second

        def odds(pair: Pair) -> float:
            share = float((gradient(pair) - of_second) @ apart / (apart @ apart))
            return share / (1 - share)

        ratio = odds(twice) / odds(once)
        self._model.zero_grad(set_to_none=True)
        return ratio

    def _step(self, examples: Sequence[Example]) -> None:
        """Gradients of one optimizer step of these trajectories, in one pass, by the trainer's own loss."""
        inputs = MicroBatches(examples, [tuple(range(len(examples)))], packing=self._spec.config.packing)[0]
        self._model.zero_grad(set_to_none=True)
        self._trainer.examples = examples
        count = self._trainer._get_num_items_in_batch([inputs], self._trainer.args.device)
        inputs = self._trainer._prepare_inputs(inputs)
        self._trainer.accelerator.backward(self._trainer.compute_loss(self._model, inputs, num_items_in_batch=count))


def _pairs(spec: TrainSpec, tokenizer: Any, step: Sequence[Example]) -> tuple[Pair, Pair, Pair, Pair]:
    """Two short trajectories of a step: the first alone, the second alone, both, and both with the first one's
    train_weight doubled. They are those that weigh most among the short, and of different text.
    """
    config = spec.config.model_copy(update={"unit": "trajectory"})
    renderer = ChatRenderer(tokenizer, render=config.render, chat_template=config.chat_template, name=spec.student.name)
    labels = {example.label for example in step}
    lines = [line for line in read_train_file(spec.train_path) if line.label in labels and line.train_weight > 0]
    short = sorted(lines, key=lambda line: len(line.response))[:_PROBED_TRAJECTORIES]
    first, *others = sorted(short, key=lambda line: -line.train_weight)
    # A step of one trajectory is measured against itself, said backwards.
    second = others[0] if others else replace(first, response=first.response[::-1])

    def pair(*lines: TrainLine) -> Pair:
        return build_training_set(lines, renderer, config).examples

    doubled = replace(first, train_weight=2 * first.train_weight)
    return pair(first), pair(second), pair(first, second), pair(doubled, second)


def _computed(examples: Sequence[Example], config: TrainConfig) -> int:
    """Tokens that go through the model, padding included."""
    lengths = [len(example.ids) for example in examples]
    return sum(lengths) if config.packing else len(lengths) * max(lengths, default=0)


def _held_bytes(num_weights: int, num_trained: int, spec: TrainSpec, *, moments: bool) -> float:
    """`held_bytes` of a run as its spec says."""
    return held_bytes(
        num_weights, num_trained, dtype=spec.config.dtype, shards=spec.config.num_processes if spec.deepspeed else None,
        shards_weights=spec.is_sharded, moments=moments,
    )  # fmt: skip


def _reset_peak(on_gpu: bool) -> None:
    """Let the peak of memory be that of what comes now. Of a process Linux keeps it itself (proc(5), clear_refs)."""
    import torch

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(on_gpu: bool) -> float:
    import torch

    if on_gpu:
        return float(torch.cuda.max_memory_allocated())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(status["VmHWM"].split()[0]) * 1024


def _free_memory(device: str) -> float:
    """Bytes that training may use: what is free, and what this process holds itself."""
    import torch

    if device == "cuda":
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
    if found.gradient_ratio is not None and abs(found.gradient_ratio - 2) > _RATIO_TOLERANCE:
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
    if found.num_held_out_truncated:
        problems.append(f"{found.num_held_out_truncated:,} held-out trajectories are cut at the maximal length")
    if found.num_truncated:
        problems.append(
            f"{found.num_truncated:,} of {found.num_sequences:,} trajectories are cut at the maximal length: they lose "
            "their end, with the answer; raise --max-length, or select with --drop-truncated"
        )
    return problems
