"""Numbers of the released code on real data with the real 135M student; `benchmarks/golden.py` compares all of them."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from lark_engine.chat import ChatRenderer
from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.models import load_tokenizer, resolve_student
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.score import score
from lark_engine.scoring.student import Responses, Student
from lark_engine.scoring.table import read_scores
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


def test_rsr_agrees_with_the_released_code_on_its_own_span(
    shared_dir: Path, real_student: Artifact, workspace: Workspace
) -> None:
    """The released RSR ends before the end-of-turn token: on that span its numbers are ours, token for token."""
    model = resolve_student(str(real_student.path), workspace)
    renderer = ChatRenderer(load_tokenizer(model))
    student = Student(model, dtype="float32", device="cpu", top_k=50)
    golden = json.loads((shared_dir / "golden" / "gsm8k_first60.rsr.json").read_text())
    released = {(row["problem_id"], row["candidate_id"]): row for row in golden}
    with gzip.open(shared_dir / "data" / "gsm8k_pool.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, 10)]
    for row in rows:
        tokens = renderer.tokens(row["messages"][:-1], row["messages"][-1]["content"], 4096)
        other = released[row["problem_id"], row["candidate_id"]]
        ids = tokens.ids[: tokens.num_prompt_tokens + other["resp_token_length"]]
        assert student_text(renderer, tokens.ids[len(ids) :]) == "<|im_end|>\n"
        prompt, response = np.split(np.array(ids, np.int32), [tokens.num_prompt_tokens])
        stats, _ = student.score([Responses(prompt, (response,))])
        assert float(stats.rank.sum() / stats.nll.sum()) == pytest.approx(other["rank_surprisal_ratio"], rel=1e-4)
        assert float(stats.rank.mean()) == pytest.approx(other["avg_rank_clip"], rel=1e-4)
        assert float(stats.nll.mean()) == pytest.approx(other["avg_surprisal"], abs=2e-4)


def student_text(renderer: ChatRenderer, ids: list[int]) -> str:
    return str(renderer.tokenizer.decode(ids, skip_special_tokens=False))
