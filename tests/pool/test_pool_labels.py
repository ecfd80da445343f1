"""Correctness labels: given ones kept, others found against the reference answer, each with its reason."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from pool_sources import pool_row

from lark_engine.config import PoolConfig
from lark_engine.evaluation import grading
from lark_engine.evaluation.grading import Grade
from lark_engine.pool.labels import Label, label_of_grade, read_labels, verify
from lark_engine.store.rows import RowLog


def said(candidate_id, text, **fields):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    return pool_row(0, candidate_id, messages=messages, **fields)


ROWS = [
    said(0, "So it is \\boxed{18}.", answer="18", is_correct=False),
    said(1, "So it is \\boxed{18}.", answer=18),
    said(2, "So it is \\boxed{17}.", answer="18"),
    said(3, "I do not know", answer="18"),
    said(4, "So it is \\boxed{18}."),
    said(5, "So it is \\boxed{18}.", is_correct=True),
]


def labels(pool):
    table = pq.read_table(pool.artifact.path / "trajectories.parquet", columns=["is_correct", "label_reason"])
    return [(row["is_correct"], row["label_reason"]) for row in table.to_pylist()]


def test_auto_keeps_given_labels_and_verifies_the_rest(write, load):
    pool = load(write("pool.jsonl", *ROWS), labels="auto", workers=1)
    assert labels(pool) == [
        (False, "given"), (True, None), (False, None), (False, "no_answer"), (None, "no_reference"), (True, "given"),
    ]  # fmt: skip
    assert pool.artifact.manifest.counts["num_labeled"] == 5
    assert pool.artifact.manifest.counts["num_correct"] == 2


def test_verify_finds_all_labels_anew(write, load):
    pool = load(write("pool.jsonl", *ROWS), labels="verify", workers=1)
    assert labels(pool) == [
        (True, None), (True, None), (False, None), (False, "no_answer"), (None, "no_reference"), (None, "no_reference"),
    ]  # fmt: skip


def test_none_keeps_no_label_at_all(write, load):
    pool = load(write("pool.jsonl", *ROWS), labels="none")
    assert labels(pool) == [(None, "labels_off")] * 6
    assert pool.artifact.manifest.counts["num_labeled"] == 0


@pytest.mark.parametrize(
    ("correct", "reason", "label"),
    [
        (True, None, Label(True, None)),
        (False, None, Label(False, None)),
        (False, "no_answer", Label(False, "no_answer")),
        (False, "unfinished_thinking", Label(False, "unfinished_thinking")),
        (False, "timeout", Label(None, "timeout")),
        (False, "worker_died", Label(None, "worker_died")),
        (False, "error: ValueError", Label(None, "error: ValueError")),
    ],
)
def test_an_unfinished_comparison_is_unknown_and_no_answer_is_wrong(correct, reason, label):
    assert label_of_grade(correct, reason) == label


def test_labels_of_a_stopped_run_are_not_found_again(tmp_path, monkeypatch):
    graded = []

    def grade_all(items, *, time_limit_s, workers):
        for item in items:
            graded.append(item.text)
            yield Grade(correct=item.text == item.reference, prediction=item.text, rule=None, reason=None)

    monkeypatch.setattr(grading, "grade_all", grade_all)
    rows = [
        {"problem_id": "p", "candidate_id": i, "response": str(i), "answer": "1", "is_correct": None} for i in range(4)
    ]
    path, done = tmp_path / "labels.jsonl", []
    config = PoolConfig(source="x", labels="verify")
    with RowLog(path, ("problem_id", "candidate_id")) as log:
        verify(log, rows[:2], config, done.append)
    with RowLog(path, ("problem_id", "candidate_id")) as log:
        verify(log, rows, config, done.append)
    assert graded == ["0", "1", "2", "3"]
    assert done == [2, 2]
    assert read_labels(path) == {("p", i): Label(i == 1, None) for i in range(4)}


@pytest.mark.slow
def test_verified_labels_of_the_real_pool_agree_with_the_given_ones(shared_dir, load):
    given = load(shared_dir / "data/gsm8k_pool.jsonl.gz").index()["is_correct"]
    found = load(shared_dir / "data/gsm8k_pool.jsonl.gz", labels="verify").index()["is_correct"]
    assert found.notna().all()
    assert (given != found).sum() == 0
