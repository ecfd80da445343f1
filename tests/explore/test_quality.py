"""What can be wrong with candidates: each check against a pool whose faults are known, and the scan of texts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lark_engine.config import PoolConfig, SelectConfig
from lark_engine.errors import StoreError
from lark_engine.explore import scan
from lark_engine.explore.quality import NAMES, Check, check_quality
from lark_engine.explore.scan import TextScan
from lark_engine.pool.importer import import_pool
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.store.workspace import Artifact, Workspace
from tests.selection.scored_pools import table

RESPONSES = [
    "It is \\boxed{4}.",
    "It is 4.",
    "<think>\\boxed{3}</think> So: \\boxed{4}",
    "<think>\\boxed{3}</think> So: 4",
    "<think>\\boxed{3} and on",
    "<think>long</think>\n \t",
    "\\boxed{ }",
    "\\boxed{1} never closed \\boxed{2",
    "<think>abc</think>",
    "<think></think>",
    "<think>",
]
EMPTY = [False, False, False, False, False, True, False, False, True, True, False]
BOXED = [True, False, True, False, False, False, False, True, False, False, False]


def checks_of(
    problems: list[list[dict[str, Any]]], texts: TextScan | None = None, flagged: set[tuple[str, int]] | None = None,
    **options: Any,
) -> dict[str, Check]:  # fmt: skip
    config = SelectConfig(**options)
    frame = SelectionFrame(Candidates(table(problems)), config)
    return check_quality(frame, config, texts, flagged or set())


def test_each_fault_is_counted_by_its_own_check() -> None:
    found = checks_of(
        [
            [{"truncated": True}, {"is_correct": False}, {"response_hash": 7}, {"response_hash": 7}, {"nll": np.nan}],
            [{"is_correct": None}, {}],
        ],
        TextScan(empty=np.arange(7) == 6, boxed=np.arange(7) < 5),
        {("1", 0), ("no such problem", 0), ("1", 99)},
    )
    assert list(found) == list(NAMES)
    assert {name: check.count for name, check in found.items()} == {
        "truncated": 1, "empty": 1, "duplicated": 1, "no_boxed_answer": 2, "wrong_answer": 1, "no_score": 1,
        "too_few_candidates": 1, "flagged": 1,
    }  # fmt: skip
    assert found["wrong_answer"].unknown == "not known of 1"


def test_too_few_candidates_counts_problems_and_shows_their_candidates() -> None:
    found = checks_of([[{}, {}], [{}] * 5], budget=2)["too_few_candidates"]
    assert found.count == 1 and found.mask_NK is not None and found.mask_NK.sum() == 2


def test_duplicates_are_what_the_gate_would_take_out() -> None:
    problems = [[{"response_hash": 7}, {"response_hash": 7}, {"response_hash": 8}, {"response_hash": 7}]]
    assert checks_of(problems)["duplicated"].count == 2
    assert checks_of(problems, deduplicate=True)["duplicated"].count == 0


def test_a_gated_candidate_is_in_no_count() -> None:
    found = checks_of([[{"truncated": True}, {"is_correct": False}, {}]], correct_only=True)
    assert found["truncated"].count == 1 and found["wrong_answer"].count == 0


def test_what_nothing_tells_is_not_known_instead_of_zero() -> None:
    found = checks_of([[{"truncated": None, "is_correct": None}] * 2])
    for name in ("truncated", "wrong_answer", "empty", "no_boxed_answer"):
        assert found[name].count is None and found[name].mask_NK is None and found[name].unknown


def test_flags_that_cannot_be_read_are_not_known_instead_of_zero() -> None:
    frame = SelectionFrame(Candidates(table([[{}, {}]])), SelectConfig())
    found = check_quality(frame, SelectConfig(), None, "flags.jsonl:3: is no flag")["flagged"]
    assert (found.count, found.unknown) == (None, "flags.jsonl:3: is no flag")


def test_the_texts_belong_to_the_rows_of_the_pool_not_of_the_scores() -> None:
    rows = table([[{}, {}], [{}]])
    rows["row"] = [4, 2, 0]
    config = SelectConfig()
    frame = SelectionFrame(Candidates(rows), config)
    texts = TextScan(
        empty=np.array([False, False, True, False, False]), boxed=np.array([True, True, True, True, False])
    )
    found = check_quality(frame, config, texts, set())
    assert found["empty"].mask_NK is not None and found["empty"].mask_NK.tolist() == [[False, True], [False, False]]
    assert found["no_boxed_answer"].mask_NK is not None
    assert found["no_boxed_answer"].mask_NK.tolist() == [[True, False], [False, False]]


@pytest.fixture
def pool(tmp_path: Path) -> tuple[Workspace, Artifact]:
    workspace = Workspace(tmp_path / "ws")
    source = tmp_path / "pool.jsonl"
    lines = [
        {
            "problem_id": "0", "candidate_id": n, "teacher": "t",
            "messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": text}],
        }
        for n, text in enumerate(RESPONSES)
    ]  # fmt: skip
    source.write_text("\n".join(json.dumps(line) for line in lines))
    return workspace, import_pool(PoolConfig(source=str(source), labels="none"), workspace)


def test_a_scan_tells_what_answers_outside_thinking(pool: tuple[Workspace, Artifact]) -> None:
    found = scan.scan_texts(pool[1])
    assert found.empty.tolist() == EMPTY
    assert found.boxed.tolist() == BOXED


def test_a_scan_is_remembered_under_the_pool_and_never_trusted_blindly(pool: tuple[Workspace, Artifact]) -> None:
    workspace, artifact = pool
    assert scan.read_scan(artifact, workspace.memo_dir) is None
    made = scan.remember_scan(artifact, workspace.memo_dir)
    known = scan.read_scan(artifact, workspace.memo_dir)
    assert known is not None and known.boxed.tolist() == made.boxed.tolist() == BOXED
    [memo] = (workspace.memo_dir / "texts").glob("*.parquet")
    memo.write_bytes(memo.read_bytes()[:50])
    assert scan.read_scan(artifact, workspace.memo_dir) is None
    assert scan.remember_scan(artifact, workspace.memo_dir).boxed.tolist() == BOXED


def test_a_memo_of_another_length_is_not_used(pool: tuple[Workspace, Artifact]) -> None:
    workspace, artifact = pool
    scan.remember_scan(artifact, workspace.memo_dir)
    more = artifact.manifest.model_copy(update={"counts": {"num_trajectories": 12}})
    assert scan.read_scan(Artifact(artifact.path, more), workspace.memo_dir) is None


def test_a_pool_without_its_table_says_what_to_do(pool: tuple[Workspace, Artifact]) -> None:
    (pool[1].path / "trajectories.parquet").unlink()
    with pytest.raises(StoreError, match="import the pool again"):
        scan.scan_texts(pool[1])


@pytest.mark.slow
def test_a_process_of_its_own_leaves_the_scan_behind(pool: tuple[Workspace, Artifact]) -> None:
    workspace, artifact = pool
    process: subprocess.Popen[bytes] = scan.start_scan(artifact, workspace.memo_dir)
    assert process.wait(timeout=60) == 0
    known = scan.read_scan(artifact, workspace.memo_dir)
    assert known is not None and known.empty.tolist() == EMPTY
    assert not scan.is_scanning(artifact, workspace.memo_dir)
