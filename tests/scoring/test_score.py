"""The scoring stage on a tiny student: right numbers, resume after kill -9, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.errors import DeviceError, StudentError
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.planner import plan_batches
from lark_engine.scoring.score import plan_score, read_scores, released_scores, score
from lark_engine.store.workspace import Artifact, Workspace


def write_pool(path: Path, num_problems: int = 4, num_candidates: int = 3) -> Path:
    with path.open("w") as file:
        for problem in range(num_problems):
            for candidate in range(num_candidates):
                text = f"step {problem} " * (1 + 2 * candidate + problem) + "done"
                messages = [{"role": "user", "content": f"Q{problem}?"}, {"role": "assistant", "content": text}]
                row = {
                    "problem_id": problem,
                    "candidate_id": candidate,
                    "teacher": f"t{candidate}",
                    "messages": messages,
                }
                file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def pool(workspace: Workspace, tmp_path: Path) -> Artifact:
    return import_pool(PoolConfig(source=str(write_pool(tmp_path / "pool.jsonl"))), workspace)


def straightforward_scores(model_dir: Path, pool_path: Path) -> dict[tuple[int, int], dict[str, float]]:
    """The released algorithm: one trajectory a forward pass, all logits at once."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    result = {}
    for line in pool_path.read_text().splitlines():
        row = json.loads(line)
        full = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        prompt = tokenizer.apply_chat_template(row["messages"][:-1], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(full, add_special_tokens=False)["input_ids"]
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            prob = model(torch.tensor([ids])).logits[0, start - 1 : -1].double().softmax(-1)
        true = prob.gather(1, torch.tensor(ids[start:])[:, None])[:, 0]
        rank = 1 + (prob > true[:, None]).sum(1)
        result[row["problem_id"], row["candidate_id"]] = {
            "nll": float(-true.log().mean()),
            "brier": float((1 - 2 * true + (prob**2).sum(1)).mean()),
            "entropy": float(-(prob * prob.log()).sum(1).mean()),
            "rsr": float(rank.clamp(max=100).sum() / -true.log().sum()),
            "num_response_tokens": len(ids) - start,
            "num_prompt_tokens": start,
        }
    return result


def test_scores_equal_those_of_one_plain_forward_pass_each(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path
) -> None:
    scores = score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool)
    table = read_scores(scores)
    expected = straightforward_scores(tiny_model_dir, tmp_path / "pool.jsonl")
    assert len(table) == 12
    for row in table.to_dict("records"):
        for name, value in expected[int(row["problem_id"]), row["candidate_id"]].items():
            assert row[name] == pytest.approx(value, abs=2e-4), name
    assert table["g_hat"].groupby(table["problem_id"]).sum().tolist() == pytest.approx(
        (table.groupby("problem_id")["brier"].sum() / table.groupby("problem_id")["nll"].sum()).tolist()
    )
    assert scores.manifest.counts == {"num_problems": 4, "num_trajectories": 12, "num_truncated": 0}
    assert scores.manifest.tokens == sum(v["num_response_tokens"] + v["num_prompt_tokens"] for v in expected.values())


def test_batching_does_not_change_the_scores_nor_the_fingerprint(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path
) -> None:
    one = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_size=1)
    many = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_size=12)
    assert plan_score(one, workspace, pool)[0].id == plan_score(many, workspace, pool)[0].id
    first = read_scores(score(one, workspace, pool))
    second = read_scores(score(many, Workspace(tmp_path / "other"), pool))
    numbers = ["nll", "brier", "brier_top_k", "g_hat", "rsr", "entropy"]
    assert np.abs(first[numbers] - second[numbers]).max().max() < 2e-4


def test_options_that_change_numbers_change_the_fingerprint(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path
) -> None:
    base = {"student": str(tiny_model_dir), "dtype": "float32"}
    plans = [base, {**base, "dtype": "bfloat16"}, {**base, "top_k": 5}, {**base, "brier": "top_k"}]
    plans += [{**base, "max_length": 64}, {**base, "render": "append"}]
    assert len({plan_score(ScoreConfig(**p), workspace, pool)[0].fingerprint for p in plans}) == 6


def test_a_cut_trajectory_is_flagged_and_one_without_response_tokens_is_dropped_and_counted(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path
) -> None:
    full = read_scores(score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool))
    prompt, total = full["num_prompt_tokens"], full["num_prompt_tokens"] + full["num_response_tokens"]
    limit = int(prompt.max() + full["num_response_tokens"].min() + 3)
    config = ScoreConfig(student=str(tiny_model_dir), dtype="float32", max_length=limit)
    cut = score(config, workspace, pool)
    assert read_scores(cut)["truncated"].tolist() == (total > limit).tolist()
    assert cut.manifest.counts["num_truncated"] == int((total > limit).sum()) > 0
    with pytest.raises(StudentError, match=r"no trajectory of pool-.* within 5 tokens; raise --max-length"):
        score(config.model_copy(update={"max_length": 5}), workspace, pool)


def test_the_released_score_file_has_the_released_keys(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path
) -> None:
    values = released_scores(score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool))
    assert values["method"] == "lark_ghat"
    assert (values["n_problems"], values["n_scored"], values["n_skipped"]) == (4, 12, 0)
    assert list(values["scores"]) == ["0", "1", "2", "3"]
    assert list(values["scores"]["0"][0]) == ["candidate_id", "teacher", "L", "Brier", "rho", "g_hat"]


def test_cuda_is_refused_where_there_is_none(workspace: Workspace, pool: Artifact, tiny_model_dir: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match=r"torch finds no CUDA device; use --device cpu"):
        score(ScoreConfig(student=str(tiny_model_dir), device="cuda"), workspace, pool)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("tokenizer", "no tokenizer files; copy tokenizer.json and tokenizer_config.json beside the model"),
        ("config.json", r"no config.json; give the folder of a Hugging Face model"),
        ("safetensors", r"no \*.safetensors weights; convert them \(pickled weights are never loaded\)"),
    ],
)
def test_an_incomplete_model_folder_is_refused_by_name_of_what_is_missing(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path, broken: str, message: str
) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    for file in tiny_model_dir.iterdir():
        if broken not in file.name:
            (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(StudentError, match=message):
        score(ScoreConfig(student=str(copy)), workspace, pool)


def test_batches_hold_rows_of_similar_length_within_both_limits() -> None:
    lengths = np.array([10, 100, 12, 95, 11, 300])
    assert plan_batches(range(6), lengths, batch_size=3, batch_tokens=200) == [[5], [1, 3], [2, 4, 0]]
    assert plan_batches([0, 2], lengths, batch_size=1, batch_tokens=1) == [[2], [0]]


SLOW_SCORER = """
import sys, time
from lark_engine.scoring import student
plain = student.Student._score
def slow(self, batch):
    time.sleep(0.15)
    return plain(self, batch)
student.Student._score = slow
from lark_engine.config import ScoreConfig
from lark_engine.scoring.score import score
from lark_engine.store.workspace import Workspace
store = Workspace(sys.argv[1])
config = ScoreConfig(student=sys.argv[2], dtype="float32", batch_size=1)
score(config, store, store.list("pools")[0])
"""


@pytest.mark.slow
def test_scoring_that_is_killed_twice_ends_with_the_rows_of_an_undisturbed_run(
    workspace: Workspace, tiny_model_dir: Path, tmp_path: Path
) -> None:
    source = write_pool(tmp_path / "pool.jsonl", num_problems=8, num_candidates=4)
    pool = import_pool(PoolConfig(source=str(source)), workspace)
    config = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_size=1)
    rows = workspace.folder(plan_score(config, workspace, pool)[0]) / "parts" / "rows.jsonl"
    seen = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", SLOW_SCORER, str(workspace.root), str(tiny_model_dir)])
        deadline = time.monotonic() + 120
        while not rows.exists() or rows.read_bytes().count(b"\n") < seen + 3:
            assert process.poll() is None, "the scorer ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = rows.read_bytes().count(b"\n")
        assert kept >= seen + 3
        seen = kept
    with rows.open("ab") as file:
        file.write(b'{"row": 999, "nll": 1.')  # as a kill in the middle of a write leaves it
    resumed = score(config, workspace, pool)
    undisturbed = score(config, Workspace(tmp_path / "other"), pool)
    pd.testing.assert_frame_equal(read_scores(resumed), read_scores(undisturbed), check_exact=True)
    assert not (resumed.path / "parts").exists()
