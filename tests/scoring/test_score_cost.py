"""What scoring would take: tokens counted or estimated, what is taken over, speed, disk, each with its basis."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.pool.importer import import_pool
from lark_engine.scoring import cost
from lark_engine.scoring.parts import SCORES
from lark_engine.scoring.score import VERSION, resolved_options
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

OPTIONS = resolved_options(ScoreConfig(student="any", max_length=2000), dtype="float32", context=None)
# Tokens of the responses of two problems with prompts of 10 and 20 tokens.
RESPONSES = ((5, 7, 100), (8, 9, 300))
PROMPTS = (10, 20)
Score = Callable[..., Artifact]


def pool_of(workspace: Workspace, folder: Path, num_candidates: int = 3) -> Artifact:
    """Two problems with prompts of 30 characters and responses of 10 and of 20."""
    rows: list[dict[str, Any]] = [
        {"problem_id": p, "candidate_id": c, "teacher": "a", "messages": [
            {"role": "user", "content": f"{p}" * 30}, {"role": "assistant", "content": f"{c}" * 10 * (p + 1)},
        ]}
        for p in range(2) for c in range(num_candidates)
    ]  # fmt: skip
    path = folder / f"pool{num_candidates}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_pool(PoolConfig(source=str(path), labels="none"), workspace)


@pytest.fixture
def pool(workspace: Workspace, tmp_path: Path) -> Artifact:
    return pool_of(workspace, tmp_path)


@pytest.fixture
def score(workspace: Workspace) -> Score:
    """`score(pool, "student")` writes scores with the table that the stage writes."""

    def make(pool: Artifact, student: str = "/models/mine", **said: Any) -> Artifact:
        truncated, options = said.pop("truncated", ()), {**OPTIONS, **said.pop("options", {}), "student": student}
        rows = [
            {"problem_id": str(p), "candidate_id": c, "num_prompt_tokens": PROMPTS[p],
             "num_response_tokens": RESPONSES[p][c], "truncated": (p, c) in truncated}
            for p in range(2) for c in range(3)
        ]  # fmt: skip
        plan = Plan(
            kind="scores", name=f"{pool.name}@{Path(student).name}", config=options, inputs={"pool": pool.ref},
            fingerprint=f"{len(workspace.list('scores')):012x}", identity={"student": "content", "version": VERSION},
        )  # fmt: skip

        def write(draft: Draft) -> None:
            pd.DataFrame(rows).to_parquet(draft.path / SCORES)
            draft.device, draft.tokens = said.get("device", "cpu"), 519
            draft.counts = {"num_trajectories": 6, "num_truncated": len(truncated)}
            draft.metrics = {"response_tokens": 429, "computed_tokens": said.get("computed", 459)}
            event = {"stage": "score", "done": 459, "total": 459, "unit": "token", "rate": said.get("rate", 50.0)}
            (draft.path / "events.jsonl").write_text(json.dumps(event) + "\n")

        return workspace.build(plan, write)

    return make


NONE = np.zeros(6, bool)


def test_tokens_are_those_that_the_student_counted_and_a_shared_prompt_counts_once(
    pool: Artifact, score: Score
) -> None:
    made, texts = score(pool), cost.read_texts(pool)
    lengths = cost.known_lengths(texts, pool, [made], "/models/mine")
    assert lengths is not None
    assert lengths.basis == f"counted in {made.id}"
    assert cost.workload(texts, lengths, 2000, NONE) == cost.Workload(6, 0, 10 + 20 + 429, 429)


def test_a_shorter_max_length_cuts_responses_and_leaves_out_what_has_none(pool: Artifact, score: Score) -> None:
    texts = cost.read_texts(pool)
    lengths = cost.known_lengths(texts, pool, [score(pool)], "/models/mine")
    assert lengths is not None
    assert cost.workload(texts, lengths, 30, NONE) == cost.Workload(6, 0, 10 + 20 + 5 + 7 + 20 + 8 + 9 + 10, 59)
    assert cost.workload(texts, lengths, 20, NONE) == cost.Workload(3, 0, 10 + 5 + 7 + 10, 22)


def test_what_is_scored_already_is_not_computed_again_and_its_prompt_neither(pool: Artifact, score: Score) -> None:
    texts = cost.read_texts(pool)
    lengths = cost.known_lengths(texts, pool, [score(pool)], "/models/mine")
    assert lengths is not None
    first = np.array([True, True, True, False, False, True])
    assert cost.workload(texts, lengths, 2000, first) == cost.Workload(6, 4, 20 + 8 + 9, 429)
    # Cut at 50 tokens the two long ones are other texts than those that were scored.
    assert cost.workload(texts, lengths, 50, first) == cost.Workload(6, 2, 10 + 40 + 20 + 8 + 9 + 30, 99)


def test_scores_of_the_same_student_without_a_cut_are_preferred_and_the_basis_says_what_they_are(
    pool: Artifact, score: Score
) -> None:
    texts = cost.read_texts(pool)
    cut, other = score(pool, truncated=((1, 2),)), score(pool, "/models/other")

    def basis(*scores: Artifact) -> str:
        found = cost.known_lengths(texts, pool, scores, "/models/mine")
        return "" if found is None else found.basis

    assert basis(cut, other) == f"counted in {cut.id}; 1 were cut at 2,000 tokens there, so at least"
    assert basis(other) == f"counted in {other.id}, by the tokenizer of another student"
    assert basis() == ""


def test_without_scores_tokens_are_estimated_from_characters(
    workspace: Workspace, tmp_path: Path, score: Score
) -> None:
    pool, larger = pool_of(workspace, tmp_path), pool_of(workspace, tmp_path, 4)
    texts = cost.read_texts(larger)
    assert texts.response_chars_N.tolist() == [10] * 4 + [20] * 4
    assert texts.prompt_chars_N.tolist() == [30] * 8
    ratio, basis = cost.chars_per_token([], "/models/mine")
    assert (ratio, basis) == (3.0, "estimated: 3 characters a token, usual for English mathematics")
    work = cost.workload(texts, cost.estimated_lengths(texts, ratio, basis), 2000, np.zeros(8, bool))
    assert work == cost.Workload(8, 0, 60, 40)  # two prompts of 10 tokens; four responses of 3.3 and four of 6.7
    made = score(pool)
    ratio, basis = cost.chars_per_token([(made, cost.read_texts(pool))], "/models/mine")
    assert ratio == pytest.approx(90 / 429)
    assert basis == f"estimated: 0.21 characters a token, as in {made.id}"
    assert cost.chars_per_token([(made, texts)], "/models/other")[1].endswith(", of another student")


def test_a_pool_that_grew_has_only_its_new_candidates_to_score(
    workspace: Workspace, tmp_path: Path, score: Score
) -> None:
    pool, larger = pool_of(workspace, tmp_path), pool_of(workspace, tmp_path, 4)
    made = score(pool, truncated=((1, 2),))
    found = cost.taken_over(cost.read_texts(larger), [(made, cost.read_texts(pool))])
    assert found.tolist() == [True, True, True, False, True, True, False, False]
    assert not cost.taken_over(cost.read_texts(larger), []).any()


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "bfloat16"}, {"top_k": 7}, {"render": "append"}, {"chat_template": "{{x}}"}],
)  # fmt: skip
def test_scores_with_other_numbers_or_tokens_are_not_taken_over(
    pool: Artifact, score: Score, changes: dict[str, Any]
) -> None:
    made = score(pool)
    assert cost.reusable(made, "/models/mine", OPTIONS, 0.0)
    assert cost.reusable(made, "/models/mine", {**OPTIONS, "brier": "top_k", "max_length": 5}, 0.0)
    assert not cost.reusable(made, "/models/mine", {**OPTIONS, **changes}, 0.0)
    assert not cost.reusable(made, "/models/other", OPTIONS, 0.0)
    assert not cost.reusable(made, None, OPTIONS, 0.0)
    assert not cost.reusable(made, "/models/mine", OPTIONS, time.time() + 60)  # the weights changed since


def test_already_scored_means_this_pool_this_student_and_these_very_options(
    workspace: Workspace, tmp_path: Path, score: Score
) -> None:
    pool, larger = pool_of(workspace, tmp_path), pool_of(workspace, tmp_path, 4)
    made = score(pool)

    def found(pool: Artifact, origin: str = "/models/mine", **changes: Any) -> Artifact | None:
        return cost.already_scored([made], pool, origin, {**OPTIONS, **changes}, 0.0)

    assert found(pool) == made
    assert found(larger) is None
    assert found(pool, "/models/other") is None
    assert found(pool, max_length=1999) is None
    assert found(pool, brier="top_k") is None


def test_speed_is_what_the_longest_run_of_this_student_on_this_device_logged(pool: Artifact, score: Score) -> None:
    score(pool, rate=10.0)
    longest = score(pool, rate=50.0, computed=900)
    gpu = score(pool, rate=9000.0, computed=5000, device="cuda")
    scores = [longest, gpu, score(pool, "/models/other", rate=80.0, computed=800)]
    assert cost.measured_rate(scores, "/models/mine", "cpu") == (50.0, f"measured: 50 tokens/s in {longest.id} on cpu")
    assert cost.measured_rate(scores, "/models/mine", "cuda") == (
        9000.0,
        f"measured: 9,000 tokens/s in {gpu.id} on cuda",
    )
    assert cost.measured_rate(scores, "/models/none", "cpu") is None


def test_without_a_run_of_its_own_the_speed_of_another_student_is_scaled_by_parameters(
    pool: Artifact, score: Score
) -> None:
    other = score(pool, "/models/other", rate=80.0)
    rate = cost.measured_rate([other], "/models/mine", "cpu", 400, {"/models/other": 100}.get)
    basis = f"estimated: 20 tokens/s, scaled by parameters from {other.id} on cpu, of another student"
    assert rate == (20.0, basis)
    assert cost.measured_rate([other], "/models/mine", "cpu", None, {"/models/other": 100}.get) is None


def test_a_run_that_logged_no_rate_counts_by_its_wall_time(pool: Artifact, score: Score) -> None:
    made = score(pool)
    (made.path / "events.jsonl").write_text("")
    rate = cost.measured_rate([made], "/models/mine", "cpu")
    assert rate is not None
    assert rate.tokens_per_s == pytest.approx(459 / made.manifest.wall_s)


def test_a_data_sheet_gives_two_flop_a_parameter_and_token() -> None:
    rate = cost.tabled_rate(1_000_000_000, "A100", 2)
    assert rate is not None
    assert rate.tokens_per_s == pytest.approx(2 * 312e12 * 0.35 / 2e9)
    assert rate.basis == "estimated: 109,200 tokens/s, 2 × A100 at 35% of 312 TFLOP/s (data sheet)"
    assert cost.tabled_rate(None, "A100") is None


def test_disk_is_a_line_a_candidate_ten_bytes_a_bin_and_fourteen_a_token_on_request() -> None:
    work = cost.Workload(num_candidates=100, num_reused=0, tokens=0, response_tokens=6400)
    assert cost.disk_bytes(work, "bins") == 100 * 200 + 100 * 10
    assert cost.disk_bytes(work, "full") == 100 * 200 + 100 * 10 + 6400 * 14


def test_the_newest_file_says_when_a_student_changed(tmp_path: Path) -> None:
    for name, changed in (("config.json", 100), ("model.safetensors", 300), ("tokenizer.json", 200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (changed, changed))
    assert cost.newest_change(tmp_path) == 300
