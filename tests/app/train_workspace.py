"""A workspace for the page Train: a scored pool, a saved selection of it, and a small student that is only files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.scored_pool import make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.selection.select import select
from lark_engine.store.workspace import Artifact, Workspace


def write_student(folder: Path) -> Path:
    """A Llama of 5,120 parameters: its shapes can be read, and nothing can be computed with it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 4096}))
    (folder / "tokenizer.json").write_text("{}")
    save_file(
        {
            "model.embed_tokens.weight": np.zeros((48, 64), np.float32),
            "model.layers.0.self_attn.q_proj.weight": np.zeros((32, 64), np.float32),
        },
        folder / "model.safetensors",
    )
    return folder


def make_selection(workspace: Workspace, *, budget: int = 3) -> Artifact:
    """A saved selection; the scored pool is made where there is none yet."""
    if not workspace.list("scores"):
        make_scored_pool(workspace, num_problems=12, num_candidates=6)
    return select(SelectConfig(budget=budget), workspace, workspace.list("scores")[0], workspace.list("pools")[0])
