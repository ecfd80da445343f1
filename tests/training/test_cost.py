"""The arithmetic of what a run takes, on numbers worked out by hand, and against the student itself."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lark_engine.config import TrainConfig
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_artifact
from lark_engine.training.cost import (
    PEAK_FLOPS,
    Cost,
    Rate,
    StudentSize,
    held_bytes,
    lora_weights_per_rank,
    measured_rate,
    student_size,
    tabled_rate,
    trained_weights,
    training_cost,
)
from lark_engine.training.examples import schedule

BILLION = StudentSize(num_weights=1_000_000_000, num_lora_per_rank=10_000)


def config_of(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({"student": "student", "dtype": "bfloat16", **changes})


def test_steps_tokens_passes_and_hours_by_hand() -> None:
    """235 steps of 64 hold 15,000 trajectories; 2,697.75 sequences of 8,192 hold 22.1 M tokens."""
    cost = training_cost(15_000, 22_100_000, config_of(), BILLION, Rate(1000.0, "said"))
    assert (cost.steps, cost.passes, cost.tokens) == (705, 2698, 66_300_000)
    assert cost.hours == pytest.approx(18.41667, rel=1e-6)


@pytest.mark.parametrize(
    ("num_trajectories", "options", "steps"),
    [
        (0, {}, 1),
        (1, {}, 3),
        (64, {"epochs": 1}, 1),
        (65, {"epochs": 1}, 2),
        (65, {"epochs": 0.5}, 1),
        (7, {"epochs": 2.5, "global_batch": 2}, 10),
        (15_000, {"epochs": 5}, 1175),
    ],
)
def test_steps_are_those_that_the_run_lays_out(num_trajectories: int, options: dict[str, Any], steps: int) -> None:
    config = config_of(**options)
    assert training_cost(num_trajectories, None, config, None, None).steps == steps
    if num_trajectories:
        assert len(schedule([10] * num_trajectories, config)) == steps


def test_the_packed_length_decides_how_many_passes() -> None:
    passes = [
        training_cost(9, 10_000, config_of(**options), None, None).passes
        for options in ({"max_length": 4096}, {"max_length": 4096, "pack_length": 16384}, {"max_length": 2500})
    ]
    assert passes == [3, 1, 4]


def test_what_is_not_known_is_none_and_not_zero() -> None:
    assert training_cost(64, None, config_of(), None, None) == (3, None, None, None, None, None)
    rate = Rate(100.0, "said")
    assert training_cost(64, None, config_of(), BILLION, rate).hours is None
    assert training_cost(64, 1000, config_of(), BILLION, None).hours is None
    unknown = training_cost(64, 1000, config_of(), StudentSize(10**9, None), rate)
    assert (unknown.memory_gb, unknown.checkpoint_gb) == (None, None)
    assert training_cost(64, 1000, config_of(method="full"), StudentSize(10**9, None), rate).memory_gb == 16.0


@pytest.mark.parametrize(
    ("options", "memory_gb", "checkpoint_gb"),
    [
        # A base of 2 bytes a weight, and 16 bytes (weights, gradients, two moments) for each of 640,000 of the adapter.
        ({}, 2.01024, 0.01536),
        ({"lora_rank": 8, "keep": 3}, 2.00128, 0.00384),
        ({"dtype": "auto"}, 2.01024, 0.01536),
        ({"dtype": "float32"}, 4.01024, 0.01536),
        # 16 bytes a weight; two checkpoints of 12 bytes while one replaces the other, and the weights at the end.
        ({"method": "full"}, 16.0, 28.0),
        ({"method": "full", "deepspeed": "zero2"}, 18.0, 44.0),
        ({"method": "full", "deepspeed": "zero2", "nproc_per_node": 4}, 6.0, 44.0),
        ({"method": "full", "deepspeed": "zero2", "nproc_per_node": 4, "dtype": "float32"}, 8.0, 44.0),
        ({"method": "full", "deepspeed": "zero3", "nproc_per_node": 4}, 4.5, 44.0),
        ({"method": "full", "nproc_per_node": 4}, 16.0, 28.0),
    ],
)
def test_memory_and_disk_by_hand(options: dict[str, Any], memory_gb: float, checkpoint_gb: float) -> None:
    cost = training_cost(100, 1000, config_of(**options), BILLION, None)
    assert cost.memory_gb == pytest.approx(memory_gb, rel=1e-12)
    assert cost.checkpoint_gb == pytest.approx(checkpoint_gb, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "num_bytes"),
    [
        ({"num_trained": 10, "shards": None}, 990 * 2 + 10 * 16),  # LoRA: the adapter is among the 1,000
        ({"num_trained": 10, "shards": None, "moments": False}, 990 * 2 + 10 * 8),
        ({"num_trained": 10, "shards": None, "dtype": "float32"}, 990 * 4 + 10 * 16),
        ({"num_trained": 1000, "shards": None}, 16_000),  # full
        ({"num_trained": 1000, "shards": None, "moments": False}, 8000),
        ({"num_trained": 1000, "shards": 8}, 2000 + 2000),  # zero2
        ({"num_trained": 1000, "shards": 8, "moments": False}, 2000 + 1000),
        ({"num_trained": 1000, "shards": 8, "shards_weights": True}, 250 + 2000),  # zero3
        ({"num_trained": 1000, "shards": 1, "shards_weights": True}, 18_000),
    ],
)
def test_held_bytes_by_hand(options: dict[str, Any], num_bytes: float) -> None:
    assert held_bytes(1000, **{"dtype": "bfloat16", "shards_weights": False, **options}) == num_bytes


def test_trained_weights_follow_the_method_and_the_rank() -> None:
    assert trained_weights(BILLION, config_of(method="full")) == 10**9
    assert trained_weights(BILLION, config_of(lora_rank=16)) == 160_000
    assert trained_weights(StudentSize(10**9, None), config_of()) is None


LLAMA_SHAPES = {
    "model.embed_tokens.weight": (100, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.self_attn.k_proj.bias": (4,),
    "model.layers.0.mlp.down_proj.weight": (8, 32),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.1.self_attn.q_proj.weight": (8, 8),
}


def test_an_adapter_of_rank_1_adds_inputs_and_outputs_of_its_targets() -> None:
    targets = ("q_proj", "k_proj", "down_proj")
    assert lora_weights_per_rank(LLAMA_SHAPES, targets) == (8 + 8) + (4 + 8) + (8 + 32) + (8 + 8)
    assert lora_weights_per_rank(LLAMA_SHAPES, ("q_proj",)) == 32
    assert lora_weights_per_rank({"q_proj.weight": (3, 5), "weight": (2, 2)}, ("q_proj",)) == 8
    assert lora_weights_per_rank(LLAMA_SHAPES, ("c_attn",)) is None
    assert lora_weights_per_rank({}, ("q_proj",)) is None


def write_student(folder: Path, config: object = None, **files: dict[str, tuple[int, ...]]) -> Path:
    """Weight files of these shapes, and a config.json."""
    folder.mkdir(exist_ok=True)
    for name, shapes in files.items():
        save_file({key: np.zeros(shape, np.float32) for key, shape in shapes.items()}, folder / f"{name}.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))
    return folder


def test_the_size_of_a_student_is_read_from_the_headers_of_its_files(tmp_path: Path) -> None:
    first, second = dict(list(LLAMA_SHAPES.items())[:3]), dict(list(LLAMA_SHAPES.items())[3:])
    folder = write_student(tmp_path / "s", part_1=first, part_2=second)
    assert student_size(folder) == StudentSize(800 + 64 + 32 + 4 + 256 + 8 + 64, 84)
    # The architecture says which modules get an adapter.
    assert student_size(write_student(tmp_path / "s", {"model_type": "gpt2"})) == StudentSize(1228, None)


def test_bfloat16_weights_are_counted_too(tmp_path: Path) -> None:
    """numpy has no such type, and nothing is loaded."""
    header = json.dumps({"q_proj.weight": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]}}).encode()
    folder = write_student(tmp_path / "s")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(30))
    assert student_size(folder) == StudentSize(15, 8)


@pytest.mark.parametrize("damage", ["no files", "no config", "torn config", "no object", "torn weights", "no folder"])
def test_a_student_that_cannot_be_read_has_no_size(tmp_path: Path, damage: str) -> None:
    folder = write_student(tmp_path / "s", model={"a.weight": (2, 2)})
    assert student_size(folder) == StudentSize(4, None)
    if damage == "no files":
        (folder / "model.safetensors").unlink()
    elif damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "torn config":
        (folder / "config.json").write_bytes(b'{"model_type": "lla\xff')
    elif damage == "no object":
        (folder / "config.json").write_text("[]")
    elif damage == "torn weights":
        (folder / "model.safetensors").write_bytes(b"\x00\x01")
    assert student_size(tmp_path / "nowhere" if damage == "no folder" else folder) is None


def test_the_size_is_what_the_model_and_its_adapter_count(tiny_model_dir: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from lark_engine.architecture import lora_targets

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    size = student_size(tiny_model_dir)
    assert size is not None
    assert size.num_weights == sum(p.numel() for p in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=list(lora_targets("llama"))))
    num_trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    config = config_of(lora_rank=4)
    assert trained_weights(size, config) == num_trained
    # Memory as the look before training counts it: over all parameters, those of the adapter among them.
    num_all = sum(p.numel() for p in adapted.parameters())
    expected = held_bytes(num_all, num_trained, dtype="bfloat16", shards=None, shards_weights=False)
    assert training_cost(9, 90, config, size, None).memory_gb == pytest.approx(expected / 1e9, rel=1e-12)


AddRun = Callable[..., Artifact]


@pytest.fixture
def add_run(workspace: Workspace) -> AddRun:
    """A function that adds a checkpoint which saw this many tokens in this many seconds."""
    from lark_engine.store import workspace as store

    def add(
        name: str, tokens: int | None, wall_s: float, *, student: str | None = "s0", method: str = "lora"
    ) -> Artifact:
        identity = {} if student is None else {"student": student}
        plan = Plan(kind="checkpoints", name=name, fingerprint=name, config={"method": method}, identity=identity)

        def make(draft: Draft) -> None:
            draft.counts = {} if tokens is None else {"tokens_seen": tokens}
            draft.device = "NVIDIA H100" if name == "long" else None

        workspace.build(plan, make)
        manifest = workspace.folder(plan) / store.MANIFEST
        said = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**said, "wall_s": wall_s}))
        artifact = workspace.find(plan)
        assert artifact is not None
        return artifact

    return add


def test_the_longest_run_of_the_same_student_and_method_gives_the_speed(add_run: AddRun) -> None:
    runs = [
        add_run("short", 9_000, 10.0),
        add_run("long", 120_000, 100.0),
        add_run("middle", 9_000, 50.0),
        add_run("other-student", 10**6, 500.0, student="s1"),
        add_run("full", 10**6, 500.0, method="full"),
        add_run("merged", None, 500.0),
        add_run("empty", 0, 500.0),
        add_run("no-time", 10**6, 0.0),
    ]
    assert measured_rate(runs, "s0", "lora") == Rate(1200.0, "measured: 1,200 tokens/s in long-long on NVIDIA H100")
    assert measured_rate(iter(runs[:1]), "s0", "lora") == Rate(
        900.0, "measured: 900 tokens/s in short-short on this machine"
    )
    assert measured_rate(runs, "s1", "lora") == Rate(
        2000.0, "measured: 2,000 tokens/s in other-student-other-student on this machine"
    )
    assert measured_rate(runs, "s2", "lora") is None
    assert measured_rate([], "s0", "lora") is None


def test_a_resumed_run_is_as_fast_as_it_logged_not_as_its_last_part_was_short(add_run: AddRun) -> None:
    run = add_run("resumed", 120_000, 10.0)
    manifest = run.path / "manifest.json"
    said = json.loads(manifest.read_text())
    counts = {**said["counts"], "num_steps": 60}
    manifest.write_text(json.dumps({**said, "counts": counts}))
    event = {"stage": "train", "done": 60, "total": 60, "unit": "step", "rate": 0.25}
    (run.path / "events.jsonl").write_text(json.dumps(event) + "\n")
    resumed = read_artifact(run.path)
    assert resumed is not None
    assert measured_rate([resumed], "s0", "lora") == Rate(
        500.0, "measured: 500 tokens/s in resumed-resumed on this machine"
    )


def test_scores_without_a_student_have_no_measured_speed(add_run: AddRun) -> None:
    assert measured_rate([add_run("strange", 100, 10.0, student=None)], None, "lora") is None


@pytest.mark.parametrize(
    ("options", "device", "num_devices", "tokens_per_s", "basis"),
    [
        # 0.35 · 989e12 / (8 · 1e9): 6 FLOP a weight and token and 2 to recompute
        ({"method": "full"}, "H100", 1, 43_268.75, "1 × H100 at 35% of 989 TFLOP/s (data sheet)"),
        ({"method": "full", "gradient_checkpointing": False}, "H100", 1, 57_691.67, "1 × H100 at 35% of 989 TFLOP/s"),
        ({"method": "lora"}, "A100", 1, 18_200.0, "1 × A100 at 35% of 312 TFLOP/s"),
        ({"method": "lora", "gradient_checkpointing": False}, "A100", 8, 218_400.0, "8 × A100 at 35%"),
    ],
)
def test_the_tabled_speed_by_hand(
    options: dict[str, Any], device: str, num_devices: int, tokens_per_s: float, basis: str
) -> None:
    rate = tabled_rate(BILLION, config_of(**options), device, num_devices)
    assert rate is not None
    assert rate.tokens_per_s == pytest.approx(tokens_per_s, abs=0.01)
    assert rate.basis.startswith(f"estimated: {rate.tokens_per_s:,.0f} tokens/s, {basis}")


def test_a_student_of_unknown_size_has_no_tabled_speed() -> None:
    assert tabled_rate(None, config_of(), "H100", 1) is None
    assert all(peak > 1e14 for peak in PEAK_FLOPS.values())


def test_steps_or_tokens_that_are_asked_for_end_the_run_instead_of_epochs() -> None:
    def cost(**options: Any) -> Cost:
        config = TrainConfig(student="s", epochs=3, global_batch=10, **options)
        return training_cost(100, 5000, config, None, Rate(100.0, "r"))

    assert (cost().steps, cost().tokens) == (30, 15_000)
    assert (cost(max_steps=5).steps, cost(max_steps=5).tokens) == (5, 2500)
    assert (cost(max_tokens=2500).steps, cost(max_tokens=2500).tokens) == (5, 2500)
    assert (cost(eval_share=0.2).steps, cost(eval_share=0.2).tokens) == (24, 12_000)
