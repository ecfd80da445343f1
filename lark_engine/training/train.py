"""The training stage: a train.jsonl and a student become a checkpoint."""

from __future__ import annotations

import json
import shutil
from typing import Any

from lark_engine.config import TrainConfig
from lark_engine.store.workspace import Artifact, Draft, Workspace
from lark_engine.training.examples import read_train_file
from lark_engine.training.plan import TrainData, plan_train
from lark_engine.training.spec import RESUME_DIR, SUMMARY, TrainSpec


def train(config: TrainConfig, workspace: Workspace, data: TrainData, *, rank: int | None = None) -> Artifact | None:
    """Train, or return the finished checkpoint. `rank` is set when torchrun started this process.

    Only rank 0 of machine 0 builds the artifact; other ranks and other machines train along and return None. Errors:
    those of `plan_train` and of `launch.launch`.
    """
    from lark_engine.training.launch import launch

    plan, spec = plan_train(config, workspace, data)
    read_train_file(data.path)  # a bad line is found before a model is loaded on every rank
    if rank or config.node_rank:
        if not workspace.find(plan):
            launch(spec, joined=rank is not None)
        return None

    def make(draft: Draft) -> None:
        launch(spec, joined=rank is not None)
        _describe(draft, spec)

    return workspace.build(plan, make)


def _describe(draft: Draft, spec: TrainSpec) -> None:
    """Fill in the manifest from the summary of the run, and free the resume state."""
    summary: dict[str, Any] = json.loads((draft.path / SUMMARY).read_text())
    shutil.rmtree(draft.path / RESUME_DIR)
    draft.device = spec.config.device
    draft.tokens, draft.drops = summary["tokens"], summary["drops"]
    draft.counts, draft.metrics = summary["counts"], summary["metrics"]
