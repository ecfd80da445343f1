"""What a training run would make, known before it runs. Nothing here imports torch, but to decide on `device` auto."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lark_engine.architecture import lora_targets
from lark_engine.chat import read_template
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, PoolError
from lark_engine.evaluation.benchmarks import load_benchmark, without_workspace
from lark_engine.models import context_length, model_type, resolve_device, resolve_dtype, resolve_student
from lark_engine.recipes import deepspeed_config
from lark_engine.selection.select import TRAIN
from lark_engine.store.fingerprint import fingerprint, hash_file
from lark_engine.store.workspace import Artifact, InputRef, Plan, Workspace, slug
from lark_engine.training.spec import VERSION, TrainSpec


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """What to train on: a selection of the workspace, or a train.jsonl from anywhere."""

    path: Path
    content: str
    inputs: dict[str, InputRef]


def train_data(name: str, workspace: Workspace) -> TrainData:
    """A selection by id, or the path of a train.jsonl (recognized when it is a selection's own)."""
    path = Path(name).expanduser()
    if not path.is_file():
        if path.suffix == ".jsonl":
            raise PoolError(f"{path}: no such file; `lark select --output` writes one")
        selection = workspace.resolve("selections", name)
        return selection_data(selection)
    content = hash_file(path, workspace.memo_dir)
    for selection in workspace.list("selections"):
        size = selection.manifest.files.get(TRAIN)
        if size == path.stat().st_size and hash_file(selection.path / TRAIN, workspace.memo_dir) == content:
            return selection_data(selection)
    return TrainData(path=path.absolute(), content=content, inputs={})


def selection_data(selection: Artifact) -> TrainData:
    """The training data of a selection; its content is its fingerprint."""
    return TrainData(
        path=selection.path / TRAIN, content=selection.manifest.fingerprint, inputs={"selection": selection.ref}
    )


def plan_train(config: TrainConfig, workspace: Workspace, data: TrainData) -> tuple[Plan, TrainSpec]:
    """What training would make, and what a training process needs to know.

    Errors: `ConfigError` for a DeepSpeed configuration that does not fit; `DeviceError`; `StudentError`.
    """
    student = resolve_student(config.student, workspace)
    device = resolve_device(config.device)
    template = read_template(config.chat_template)
    max_length = min(config.max_length, context_length(student) or config.max_length)
    targets = lora_targets(model_type(student)) if config.lora_targets == ("auto",) else config.lora_targets
    resolved = config.model_copy(
        update={
            "device": device, "dtype": resolve_dtype(config.dtype, device), "max_length": max_length,
            "lora_targets": targets,
        }
    )  # fmt: skip
    deepspeed = deepspeed_config(config.deepspeed) if config.deepspeed else None
    if deepspeed and config.method == "lora" and deepspeed.get("zero_optimization", {}).get("stage") == 3:
        raise ConfigError("deepspeed zero3 shards the frozen base of a LoRA run for nothing; use zero2, or method full")
    if deepspeed and deepspeed.get("bf16", {}).get("enabled") is True and resolved.dtype != "bfloat16":
        raise ConfigError(f"deepspeed {config.deepspeed} is for bfloat16, and dtype is {resolved.dtype}; use zero2")
    values = {**resolved.identity(), "chat_template": template, "deepspeed": deepspeed}
    if config.method == "full":
        values = {name: value for name, value in values.items() if not name.startswith("lora_")}
    measured = train_data(config.eval_data, workspace) if config.eval_data else None
    identity: dict[str, Any] = {"student": student.content, "data": data.content, "version": VERSION}
    if measured:
        identity["eval_data"] = measured.content
    if config.eval_benchmarks:
        benchmarks = [load_benchmark(name, workspace=workspace) for name in config.eval_benchmarks]
        identity["eval_benchmarks"] = {benchmark.name: benchmark.content for benchmark in benchmarks}
    plan = Plan(
        kind="checkpoints",
        name=checkpoint_name(config),
        fingerprint=fingerprint({"config": values, **identity}),
        config={**resolved.model_dump(mode="json"), "student": student.origin},
        inputs={**data.inputs, **({"student": student.artifact.ref} if student.artifact else {})},
        identity=identity,
        seed=config.seed,
    )
    folder = workspace.folder(plan)
    files = tuple(without_workspace(name, workspace) for name in config.eval_benchmarks)
    spec = TrainSpec(
        config=resolved.model_copy(update={"eval_benchmarks": files}), student=student, train_path=data.path,
        eval_path=measured.path if measured else None, folder=folder, deepspeed=deepspeed,
    )  # fmt: skip
    return plan, spec


def checkpoint_name(config: TrainConfig) -> str:
    """The recipe's name, with the method before it where it does not say it: `lora`, `full_500`, `lora-demo`."""
    recipe = slug(config.recipe)
    return recipe if recipe.startswith(config.method) else f"{config.method}-{recipe}"


def plan_from_outside(config: TrainConfig, workspace: Workspace, data: TrainData, *, has_cuda: bool) -> Plan:
    """What training would make, without asking torch for devices: for a process that must not import it.

    `has_cuda`: whether there is a GPU for `device` auto. The student must lie here. Errors: those of `plan_train`.
    """
    device = config.device if config.device != "auto" else "cuda" if has_cuda else "cpu"
    # The device is no part of what is made; the precision that follows from it is.
    there = config.model_copy(update={"device": "cpu", "dtype": resolve_dtype(config.dtype, device)})
    return plan_train(there, workspace, data)[0]
