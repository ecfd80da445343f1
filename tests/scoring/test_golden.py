"""Numbers of the released code on real data with the real 135M student; `benchmarks/golden.py` compares all of them."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.score import read_scores, score
from lark_engine.store.workspace import Artifact, Workspace

pytestmark = pytest.mark.slow


def first_lines(source: Path, count: int, target: Path) -> Path:
    with gzip.open(source, "rt", encoding="utf-8") as file:
        target.write_text("".join(islice(file, count)), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("stem", "golden", "num_candidates", "num_problems"),
    [("gsm8k_pool", "gsm8k_first60", 40, 8), ("alpaca_pool", "alpaca_first8", 11, 1)],
)
def test_scores_agree_with_the_released_code(
    shared_dir: Path, real_student: Artifact, workspace: Workspace, tmp_path: Path,
    stem: str, golden: str, num_candidates: int, num_problems: int,
) -> None:  # fmt: skip
    source = first_lines(shared_dir / "data" / f"{stem}.jsonl.gz", num_candidates, tmp_path / f"{stem}.jsonl")
    pool = import_pool(PoolConfig(source=str(source), labels="none"), workspace)
    config = ScoreConfig(student=str(real_student.path), brier="top_k", max_length=4096, dtype="float32")
    table = read_scores(score(config, workspace, pool))
    expected = json.loads((shared_dir / "golden" / f"{golden}.lark_ghat.json").read_text())["scores"]
    assert len(table) == num_candidates
    assert table["problem_id"].nunique() == num_problems
    for row in table.to_dict("records"):
        released = next(c for c in expected[row["problem_id"]] if c["candidate_id"] == row["candidate_id"])
        assert row["teacher"] == released["teacher"]
        assert row["nll"] == pytest.approx(released["L"], abs=2e-4)
        assert row["brier"] == pytest.approx(released["Brier"], abs=2e-4)
        assert row["g_hat"] == pytest.approx(released["g_hat"], abs=5e-5)
    if golden == "gsm8k_first60":
        compare_rsr(table.to_dict("records"), json.loads((shared_dir / "golden" / f"{golden}.rsr.json").read_text()))


def compare_rsr(rows: list[dict[str, Any]], golden: list[dict[str, Any]]) -> None:
    """The released RSR ends before the newline after the end-of-turn token: that one token is the whole difference."""
    released = {(str(g["problem_id"]), g["candidate_id"]): g for g in golden}
    for row in rows:
        other = released[row["problem_id"], row["candidate_id"]]
        assert row["num_response_tokens"] == other["resp_token_length"] + 1
        rank_of_newline = (
            row["mean_rank"] * row["num_response_tokens"] - other["avg_rank_clip"] * other["resp_token_length"]
        )
        nll_of_newline = row["nll"] * row["num_response_tokens"] - other["avg_surprisal"] * other["resp_token_length"]
        assert rank_of_newline == pytest.approx(round(rank_of_newline), abs=0.05)
        assert 1 <= round(rank_of_newline) <= 100
        assert nll_of_newline >= -1e-2
