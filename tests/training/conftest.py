"""A small weighted training set and what it takes to train the tiny model on it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import TrainConfig

WEIGHTS = [0.9, 0.1, 0.5, 0.3, 0.2, 0.7, 0.3]


def write_train_file(path: Path, weights: list[float] = WEIGHTS) -> Path:
    """Trajectories of growing length, two for each problem, with these weights."""
    with path.open("w") as file:
        for number, weight in enumerate(weights):
            messages = [
                {"role": "user", "content": f"What is {number // 2} + 1?"},
                {"role": "assistant", "content": "so " * number + f"it is {number // 2 + 1}"},
            ]
            meta = {"problem_id": number // 2, "candidate_id": number % 2, "teacher": "t", "train_weight": weight}
            file.write(json.dumps({"messages": messages, "meta": meta}) + "\n")
    return path


def tiny_train_config(model_dir: Path, **changes: Any) -> TrainConfig:
    """A config that trains the tiny model by plain AdamW steps, with what differs."""
    base: dict[str, Any] = {
        "student": str(model_dir), "method": "full", "recipe": "tiny", "lr": 1e-3, "epochs": 2,
        "global_batch": 4, "max_length": 256, "dtype": "float32", "device": "cpu",
        "gradient_checkpointing": False, "warmup_ratio": 0.0, "scheduler": "constant", "max_grad_norm": 0,
    }  # fmt: skip
    return TrainConfig(**{**base, **changes})


@pytest.fixture
def train_path(tmp_path: Path) -> Path:
    return write_train_file(tmp_path / "train.jsonl")


@pytest.fixture
def tiny_config(tiny_model_dir: Path) -> Any:
    """A function that makes a TrainConfig for the tiny model, with what differs."""
    return partial(tiny_train_config, tiny_model_dir)
