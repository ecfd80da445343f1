"""A workspace with every kind of file that a bundle holds, and with paths, a user and a host in many of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "results"))

from graded import evaluated, finished

from benchmarks.scored_pool import make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.explore.flags import CandidateKey, set_flag
from lark_engine.selection.select import select
from lark_engine.sharing.views import save_view
from lark_engine.store.workspace import Artifact, Workspace, read_artifact

PROBLEMS = {"p0": "10", "p1": "1-"}


class Shown(NamedTuple):
    workspace: Workspace
    pool: Artifact
    scores: Artifact
    selection: Artifact
    checkpoint: Artifact
    grades: list[Artifact]


def shown_workspace(root: Path, *, author: str = "quentin", num_problems: int = 6) -> Shown:
    workspace = Workspace(root)
    made = make_scored_pool(workspace, num_problems=num_problems, num_candidates=5)
    selection = select(SelectConfig(budget=2), workspace, made.scores, made.pool)
    source = str(root / "students" / "mine" / "model")
    checkpoint = finished(
        workspace, "checkpoints", f"lora-of-{author}",
        {"method": "lora", "student": source, "recipe": "/data/x/lora.yaml"},
        inputs={"selection": selection}, identity={"student": "s0"},
    )  # fmt: skip
    event = {"time": 1.0, "stage": "train", "done": 1, "total": 2, "note": f"reads {source}", "metrics": {"loss": 0.5}}
    (checkpoint.path / "events.jsonl").write_text(json.dumps(event) + "\n")
    for secret in ("model", "resume", "logs"):
        (checkpoint.path / secret).mkdir()
        (checkpoint.path / secret / "weights.safetensors").write_bytes(b"weights")
    grades = [
        evaluated(workspace, "student", "quiz", PROBLEMS, content=made.scores.manifest.identity["student"]),
        evaluated(workspace, checkpoint.id, "quiz", PROBLEMS, checkpoint),
    ]
    answers = read_artifact(grades[0].path.parents[1])
    assert answers is not None
    add_dispute(answers, SampleKey("p0", 0), correct=False, author=author, reason="a private reason")
    table = pq.read_table(made.pool.path / "trajectories.parquet", columns=["problem_id", "candidate_id"])
    first = CandidateKey(str(table["problem_id"][0]), int(table["candidate_id"][0].as_py()))
    set_flag(made.pool, first, flagged=True, author=author, reason="a private reason")
    tokens = made.scores.path / "token_stats"
    tokens.mkdir()
    rows = {"row": [0, 5], "problem_id": scored_ids(made.scores), "text": [["secret token"]] * 2}
    pq.write_table(pa.table(rows), tokens / "top05-00001.parquet")
    save_view(
        root, name="the middle", page="tune", params=[("scores", made.scores.id), ("B", "2")], note=f"by {author}"
    )
    save_view(root, name="elsewhere", page="tune", params=[("scores", made.scores.id), ("pin_a", selection.id)])
    return Shown(workspace, made.pool, made.scores, selection, checkpoint, grades)


def scored_ids(scores: Artifact) -> list[str]:
    """The problems of the first and the sixth row."""
    ids = pq.read_table(scores.path / "scores.parquet", columns=["problem_id"])["problem_id"].to_pylist()
    return [ids[0], ids[5]]
