"""The scoring stage on a tiny student: right numbers, resume after kill -9, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.errors import DeviceError, StudentError
from lark_engine.pool.importer import import_pool
from lark_engine.scoring import executors
from lark_engine.scoring import score as stage
from lark_engine.scoring.executors import Work
from lark_engine.scoring.planner import Batch
from lark_engine.scoring.score import plan_score, score
from lark_engine.scoring.table import read_scores, released_scores
from lark_engine.scoring.token_view import read_bins, read_tokens, score_tokens
from lark_engine.selection.released import import_scores
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
    assert scores.manifest.counts == {"num_problems": 4, "num_trajectories": 12, "num_truncated": 0, "num_reused": 0}
    assert scores.manifest.tokens == sum(v["num_response_tokens"] + v["num_prompt_tokens"] for v in expected.values())


def test_batching_does_not_change_the_scores_nor_the_fingerprint(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path
) -> None:
    one = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_size=1)
    many = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_tokens=4000)
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


def test_shuffling_the_pool_and_changing_the_budget_move_no_score_by_more_than_the_tolerance(
    workspace: Workspace, tiny_model_dir: Path, tmp_path: Path
) -> None:
    lines = write_pool(tmp_path / "pool.jsonl", num_problems=6, num_candidates=5).read_text().splitlines()
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("\n".join(lines[i] for i in np.random.default_rng(1).permutation(len(lines))) + "\n")
    tables = []
    for number, (source, budget) in enumerate([(tmp_path / "pool.jsonl", 60), (shuffled, 150), (shuffled, 5000)]):
        store = Workspace(tmp_path / f"workspace-{number}")
        pool = import_pool(PoolConfig(source=str(source)), store)
        config = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_tokens=budget)
        tables.append(read_scores(score(config, store, pool)).set_index(["problem_id", "candidate_id"]).sort_index())
    numbers = ["nll", "brier", "brier_top_k", "g_hat", "rsr", "entropy", "mean_rank"]
    for other in tables[1:]:
        assert np.abs(tables[0][numbers] - other[numbers]).max().max() < 2e-4


def test_a_new_teacher_in_a_scored_pool_costs_its_own_candidates_only(
    workspace: Workspace, tiny_model_dir: Path, tmp_path: Path
) -> None:
    config = ScoreConfig(student=str(tiny_model_dir), dtype="float32")
    small = import_pool(PoolConfig(source=str(write_pool(tmp_path / "a.jsonl", num_candidates=3))), workspace)
    large = import_pool(PoolConfig(source=str(write_pool(tmp_path / "b.jsonl", num_candidates=4))), workspace)
    first = score(config, workspace, small)
    second = score(config, workspace, large)
    assert (first.manifest.counts["num_reused"], second.manifest.counts["num_reused"]) == (0, 12)
    assert second.manifest.metrics["reused"] == {first.id: 12}
    table = read_scores(second)
    new = table[table["candidate_id"] == 3]
    prompts = new["num_prompt_tokens"] + new["num_response_tokens"]
    assert second.manifest.metrics["computed_tokens"] == prompts.sum()
    fresh = read_scores(score(config, Workspace(tmp_path / "other"), large))
    numbers = ["nll", "brier", "brier_top_k", "g_hat", "rsr", "entropy"]
    assert np.abs(table[numbers] - fresh[numbers]).max().max() < 2e-4  # g_hat too: made anew among four candidates
    assert read_bins(second, 0).equals(read_bins(first, 0))


def test_another_brier_of_the_same_student_computes_nothing(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path
) -> None:
    score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool)
    released = score(ScoreConfig(student=str(tiny_model_dir), dtype="float32", brier="top_k"), workspace, pool)
    assert released.manifest.metrics["computed_tokens"] == 0
    table = read_scores(released)
    assert table["brier"].tolist() == table["brier_top_k"].tolist()


def test_scores_of_another_precision_are_not_taken_over(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path
) -> None:
    score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool)
    other = score(ScoreConfig(student=str(tiny_model_dir), dtype="bfloat16"), workspace, pool)
    assert other.manifest.counts["num_reused"] == 0


def test_bins_of_64_tokens_are_kept_for_every_row(workspace: Workspace, pool: Artifact, tiny_model_dir: Path) -> None:
    scores = score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool)
    table = read_scores(scores)
    for row, line in enumerate(table.to_dict("records")):
        bins = read_bins(scores, row)
        assert len(bins) == -(-line["num_response_tokens"] // 64)
        sizes = np.minimum(64, line["num_response_tokens"] - 64 * np.arange(len(bins)))
        assert bins["nll"] @ sizes / sizes.sum() == pytest.approx(line["nll"], rel=2e-3)
    assert read_tokens(scores, 0) is None


def test_tokens_of_given_candidates_are_computed_later_with_their_alternatives(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path
) -> None:
    scores = score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool)
    before = scores.manifest
    assert score_tokens(scores, workspace, [7, 2], alternatives=3, device="cpu") == 2
    assert score_tokens(scores, workspace, [2, 7], alternatives=3, device="cpu") == 0
    assert workspace.resolve("scores", scores.id).manifest == before
    line = read_scores(scores).iloc[7]
    tokens = read_tokens(scores, 7)
    assert tokens is not None
    assert len(tokens) == line["num_response_tokens"]
    for name, column in (("nll", "nll"), ("brier", "brier"), ("rank", "mean_rank"), ("entropy", "entropy")):
        assert tokens[name].mean() == pytest.approx(line[column], rel=2e-3)
    assert np.allclose(-np.log(tokens["p_true"]), tokens["nll"], atol=5e-3)
    assert [len(texts) for texts in tokens["top_text"]] == [3] * len(tokens)
    assert all(np.diff(p).max() <= 0 for p in tokens["top_p"])
    assert "".join(tokens["text"]) == "step 2 step 2 step 2 step 2 step 2 done<|im_end|>\n"
    assert read_tokens(scores, 3) is None


def test_all_tokens_can_be_kept_while_scoring_or_filled_in_afterwards(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path
) -> None:
    base = {"student": str(tiny_model_dir), "dtype": "float32"}
    at_once = score(ScoreConfig(**base, token_stats="full"), workspace, pool)
    other = Workspace(tmp_path / "other")
    same = import_pool(PoolConfig(source=str(tmp_path / "pool.jsonl")), other)
    score(ScoreConfig(**base), other, same)
    afterwards = score(ScoreConfig(**base, token_stats="full"), other, same)
    for row in range(12):
        first, second = read_tokens(at_once, row), read_tokens(afterwards, row)
        assert first is not None
        assert second is not None
        pd.testing.assert_frame_equal(first, second, atol=1e-3)
        assert first["top_p"].tolist() == [[]] * len(first)


def test_tokens_are_refused_when_the_student_has_changed(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "student"
    shutil.copytree(tiny_model_dir, copy)
    scores = score(ScoreConfig(student=str(copy), dtype="float32"), workspace, pool)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with pytest.raises(StudentError, match=r"is not the one that made pool@student-\w+; score the pool again"):
        score_tokens(scores, workspace, [0], alternatives=0, device="cpu")


def test_a_run_that_was_begun_without_all_tokens_can_be_finished_with_them(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(work: Work, batches: list[Batch]) -> Iterator[pa.Table]:
        yield from list(executors.run_here(work, batches[:2]))
        raise KeyboardInterrupt

    base = {"student": str(tiny_model_dir), "dtype": "float32", "batch_tokens": 150}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "run_here", interrupted)
        score(ScoreConfig(**base), workspace, pool)
    scores = score(ScoreConfig(**base, token_stats="full"), workspace, pool)
    table = read_scores(scores)
    for row, num_tokens in enumerate(table["num_response_tokens"]):
        tokens = read_tokens(scores, row)
        assert tokens is not None
        assert len(tokens) == num_tokens


def test_more_alternatives_than_are_there_are_computed(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path
) -> None:
    scores = score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool)
    (scores.path / "token_stats" / ".tokens-left-by-a-kill").mkdir(parents=True)
    made = [score_tokens(scores, workspace, [4], alternatives=n, device="cpu") for n in (0, 2, 12, 3)]
    assert made == [1, 1, 1, 0]
    assert not list(scores.path.glob("token_stats/.tokens-*"))
    tokens = read_tokens(scores, 4)
    assert tokens is not None
    assert {len(texts) for texts in tokens["top_text"]} == {12}


def test_tokens_of_imported_scores_are_refused_before_a_student_is_looked_for(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path
) -> None:
    values = released_scores(score(ScoreConfig(student=str(tiny_model_dir), dtype="float32"), workspace, pool))
    path = tmp_path / "lark_ghat.json"
    path.write_text(json.dumps({**values, "student_model": "someone/somewhere"}))
    with pytest.raises(StudentError, match=r"was imported, and which student made it is not known for sure"):
        score_tokens(import_scores(path, workspace, pool), workspace, [0], alternatives=0, device="cpu")


KILLED_AT = """
import os, signal, sys
from lark_engine.config import ScoreConfig
from lark_engine.scoring import score as stage, tokenized
from lark_engine.store import workspace
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
point = sys.argv[4]
if point == "tokenizing":
    tokenized.np.savez = kill
if point == "assembling":
    stage.score_table = kill
if point == "manifest":
    workspace.write_json = kill
if point == "removing":
    def remove(folder, **_):
        if (folder / "ids.i32").exists():
            (folder / "ids.i32").unlink()
            kill()
    workspace.shutil.rmtree = remove
store = workspace.Workspace(sys.argv[1])
config = ScoreConfig(student=sys.argv[2], dtype="float32", batch_tokens=int(sys.argv[3]))
stage.score(config, store, store.list("pools")[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["tokenizing", "assembling", "manifest", "removing"])
def test_a_kill_where_no_batch_is_computed_loses_no_computed_one(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, tmp_path: Path, point: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    arguments = [str(workspace.root), str(tiny_model_dir), "150", point]
    assert subprocess.run([sys.executable, "-c", KILLED_AT, *arguments], timeout=120).returncode == -9
    config = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_tokens=150)
    with monkeypatch.context() as patch:
        if point != "tokenizing":
            patch.setattr(stage, "run_here", None)  # all batches are there: the student is not even loaded
        resumed = score(config, workspace, pool)
    undisturbed = score(config, Workspace(tmp_path / "other"), pool)
    for name in ("scores.parquet", "token_bins.parquet"):
        assert pq.read_table(resumed.path / name).equals(pq.read_table(undisturbed.path / name))
    assert sorted(path.name for path in resumed.path.iterdir() if path.name != ".lock") == [
        "events.jsonl", "manifest.json", "scores.parquet", "token_bins.parquet"
    ]  # fmt: skip


SLOW_SCORER = """
import sys, time
from lark_engine.scoring import parts, student
parts.FLUSH_S = 0.0
plain = student.Student.score
def slow(self, groups, **how):
    time.sleep(0.15)
    return plain(self, groups, **how)
student.Student.score = slow
from lark_engine.config import ScoreConfig
from lark_engine.scoring.score import score
from lark_engine.store.workspace import Workspace
store = Workspace(sys.argv[1])
config = ScoreConfig(student=sys.argv[2], dtype="float32", batch_tokens=int(sys.argv[3]))
score(config, store, store.list("pools")[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("batch_tokens", [150, 400])
def test_scoring_that_is_killed_twice_ends_with_the_rows_of_an_undisturbed_run(
    workspace: Workspace, tiny_model_dir: Path, tmp_path: Path, batch_tokens: int
) -> None:
    """Whole problems in a batch (400), and problems cut into parts (150): the same values to the last bit."""
    source = write_pool(tmp_path / "pool.jsonl", num_problems=24, num_candidates=4)
    pool = import_pool(PoolConfig(source=str(source)), workspace)
    config = ScoreConfig(student=str(tiny_model_dir), dtype="float32", batch_tokens=batch_tokens)
    folder = workspace.folder(plan_score(config, workspace, pool)[0]) / "parts"
    seen = 0
    for _ in range(2):
        arguments = [str(workspace.root), str(tiny_model_dir), str(batch_tokens)]
        process = subprocess.Popen([sys.executable, "-c", SLOW_SCORER, *arguments])
        deadline = time.monotonic() + 120
        while len(list(folder.glob("rows-*.parquet"))) < seen + 3:
            assert process.poll() is None, "the scorer ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seen = len(list(folder.glob("rows-*.parquet")))
    torn = [folder / ".rows-99999.parquet.1-ab.partial", folder.parent / ".scores.parquet.1-ab.partial"]
    for path in torn:  # as a kill in the middle of a write leaves it
        path.write_bytes(b"PAR1")
    resumed = score(config, workspace, pool)
    undisturbed = score(config, Workspace(tmp_path / "other"), pool)
    for name in ("scores.parquet", "token_bins.parquet"):
        assert pq.read_table(resumed.path / name).equals(pq.read_table(undisturbed.path / name))
    assert not (resumed.path / "parts").exists()
    assert not any(path.exists() for path in torn)


@pytest.mark.slow
def test_a_second_process_on_the_same_run_is_told_who_holds_it(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW_SCORER, str(workspace.root), str(tiny_model_dir), "60"])
    config = ScoreConfig(student=str(tiny_model_dir), dtype="float32")
    folder = workspace.folder(plan_score(config, workspace, pool)[0])
    deadline = time.monotonic() + 120
    while not list(folder.glob("parts/rows-*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    score(config, workspace, pool)
    assert f"is being made by process {process.pid} on " in caplog.text
    assert process.wait(60) == 0
