"""Workspaces with graded answers: the generations are written by hand, the grades are the engine's own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "results"))

from graded import checkpoint_of, evaluated, finished, generated

from lark_engine.store.workspace import Artifact, Workspace

__all__ = ["checkpoint_of", "compared", "evaluated", "finished", "generated"]
LEVELS = {"p0": "1", "p1": "1", "p2": "2", "p3": "2"}
# Of each problem, which samples are right (`1`), wrong (`0`), without an answer (`-`), or cut without one (`x`).
BASE = {"p0": "10", "p1": "00", "p2": "0x", "p3": "-1"}
TRAINED = {"p0": "11", "p1": "11", "p2": "00", "p3": "01"}


def compared(root: Path) -> dict[str, Artifact]:
    """An untrained student and a checkpoint, both on gsm8k and on aime."""
    workspace = Workspace(root)
    pool = finished(workspace, "pools", "demo", {"source": "/absent/demo.jsonl"})
    scores = finished(workspace, "scores", "demo@tiny", {"student": "/models/tiny"}, inputs={"pool": pool})
    chosen = {"rule": "chi2", "energy": "g_hat", "mode": "budget", "budget": 3}
    selection = finished(workspace, "selections", "chi2-b3", chosen, inputs={"scores": scores, "pool": pool})
    checkpoint = checkpoint_of(workspace, selection)
    return {
        "checkpoint": checkpoint,
        "base": evaluated(workspace, "tiny", "gsm8k", BASE, levels=LEVELS),
        "trained": evaluated(workspace, checkpoint.id, "gsm8k", TRAINED, checkpoint, levels=LEVELS),
        "base_aime": evaluated(workspace, "tiny", "aime", {"a": "0000", "b": "0000"}),
        "trained_aime": evaluated(workspace, checkpoint.id, "aime", {"a": "1000", "b": "0000"}, checkpoint),
    }


def place_of(artifact: Artifact) -> str:
    """The folder of a grade below its workspace, by which the address names it."""
    return "/".join(artifact.path.parts[-5:])
