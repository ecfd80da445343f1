"""Largest deviation of our numbers from those of the released code, over every golden file (8 minutes on 2 cores).

    .venv/bin/python benchmarks/golden.py [SHARED_DIR]

Needs the folder with real data and golden numbers (default: `../shared`). Tolerances are those stated there.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np

from lark_engine.chat import ChatRenderer
from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.demo.student import convert_student
from lark_engine.models import load_tokenizer, resolve_student
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.score import score
from lark_engine.scoring.student import Responses, Student
from lark_engine.scoring.table import read_scores
from lark_engine.selection import chi2
from lark_engine.store.workspace import Workspace

SCORES = (("gsm8k_pool", "gsm8k_first60", 300), ("alpaca_pool", "alpaca_first8", 88))
TOLERANCE = {"L": 2e-4, "Brier": 2e-4, "g_hat": 5e-5, "rho": 2e-4, "weights": 1e-9, "rsr": 2e-4}
OURS = {"L": "nll", "Brier": "brier", "g_hat": "g_hat", "rho": "rho"}


def score_deviations(shared: Path, workspace: Workspace, stem: str, golden: str, count: int) -> dict[str, float]:
    """Largest absolute difference of each released number."""
    student = convert_student(workspace)
    source = workspace.root / f"{stem}.jsonl"
    with gzip.open(shared / "data" / f"{stem}.jsonl.gz", "rt", encoding="utf-8") as file:
        source.write_text("".join(islice(file, count)), encoding="utf-8")
    pool = import_pool(PoolConfig(source=str(source), labels="none"), workspace)
    config = ScoreConfig(student=str(student.path), brier="top_k", max_length=4096, dtype="float32")
    table = read_scores(score(config, workspace, pool)).set_index(["problem_id", "candidate_id"])
    released = json.loads((shared / "golden" / f"{golden}.lark_ghat.json").read_text())["scores"]
    rows = [(problem, c) for problem, candidates in released.items() for c in candidates]
    assert len(rows) == len(table) == count
    return {
        name: max(abs(float(table.loc[(p, c["candidate_id"]), ours]) - c[name]) for p, c in rows)
        for name, ours in OURS.items()
    }


def rsr_deviation(shared: Path, workspace: Workspace, count: int) -> float:
    """Largest relative difference of RSR on the released span, which ends before the end-of-turn token."""
    model = resolve_student(str(convert_student(workspace).path), workspace)
    renderer = ChatRenderer(load_tokenizer(model))
    student = Student(model, dtype="float32", device="cpu", top_k=50)
    golden = json.loads((shared / "golden" / "gsm8k_first60.rsr.json").read_text())
    released = {(row["problem_id"], row["candidate_id"]): row for row in golden}
    with gzip.open(shared / "data" / "gsm8k_pool.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, count)]
    worst = 0.0
    for row in rows:
        tokens = renderer.tokens(row["messages"][:-1], row["messages"][-1]["content"], 4096)
        other = released[row["problem_id"], row["candidate_id"]]
        ids = tokens.ids[: tokens.num_prompt_tokens + other["resp_token_length"]]
        prompt, response = np.split(np.array(ids, np.int32), [tokens.num_prompt_tokens])
        stats, _ = student.score([Responses(prompt, (response,))])
        worst = max(worst, abs(float(stats.rank.sum() / stats.nll.sum()) / other["rank_surprisal_ratio"] - 1))
    return worst


def weight_deviation(shared: Path) -> float:
    """Largest difference of a chi2 weight over the released cases that have a valid energy."""
    worst = 0.0
    for case in json.loads((shared / "golden" / "chi2_topb_weights.json").read_text()):
        energies = np.array([[np.nan if e is None else e for e in case["energies"]]])
        ranked = chi2.rank(energies)
        if ranked.num_valid_N[0]:
            weights = np.zeros(energies.shape[1])
            kept = chi2.budget_weights(ranked, case["B"], released_margin=True)[0]
            weights[ranked.order_NK[0, : len(kept)]] = kept
            worst = max(worst, float(np.abs(weights - case["weights"]).max()))
    return worst


def main() -> int:
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "shared"
    failed = False
    print(f"{'golden file':<28} {'number':<8} {'largest deviation':>18} {'allowed':>9}")
    with tempfile.TemporaryDirectory() as folder:
        rows = [("chi2_topb_weights", "weights", weight_deviation(shared))]
        for stem, golden, count in SCORES:
            deviations = score_deviations(shared, Workspace(folder), stem, golden, count)
            rows += [(golden, name, value) for name, value in deviations.items()]
        rows.append(("gsm8k_first60.rsr", "rsr", rsr_deviation(shared, Workspace(folder), 300)))
    for golden, name, value in rows:
        failed |= value > TOLERANCE[name]
        print(f"{golden:<28} {name:<8} {value:>18.1e} {TOLERANCE[name]:>9.0e}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
