"""What a finished pool holds: order, ids, text, labels, counts; and what its fingerprint stands for."""

from __future__ import annotations

import json
import random

import pyarrow.parquet as pq
import pytest
from pool_sources import jsonl, pool_row

from lark_engine.config import PoolConfig
from lark_engine.pool import staging
from lark_engine.pool.importer import import_pool, plan_pool
from lark_engine.records import Trajectory, public_id
from lark_engine.store.workspace import Workspace


def keys(pool):
    return [(t.problem_id, t.candidate_id) for t in pool.trajectories()]


def test_a_row_comes_back_as_the_trajectory_it_was(write, load):
    messages = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "Is it \\boxed{4} 🎉?", "name": "bot"},
    ]  # fmt: skip
    row = pool_row(7, 3, messages=messages, answer=4, is_correct=True, level=5, tags=["a"], score=float("nan"))
    (trajectory,) = load(write("pool.jsonl", row)).trajectories()
    assert trajectory == Trajectory(
        problem_id="7", candidate_id=3, teacher="alpha",
        prompt=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}),
        response="Is it \\boxed{4} 🎉?", answer="4", is_correct=True,
        extra={"level": 5, "tags": ["a"], "score": None, "message_keys": {"2": {"name": "bot"}}},
    )  # fmt: skip
    assert trajectory.messages[2] == {"role": "assistant", "content": "Is it \\boxed{4} 🎉?"}


def test_the_manifest_counts_problems_teachers_and_labels(write, load):
    rows = [
        pool_row(0, 0, is_correct=True), pool_row(0, 1, is_correct=False, teacher="beta"), pool_row(0, 2),
        pool_row(1, 0, is_correct=True),
    ]  # fmt: skip
    manifest = load(write("my_pool.jsonl", *rows)).artifact.manifest
    assert manifest.name == "my_pool"
    assert manifest.counts == {
        "num_problems": 2, "num_trajectories": 4, "num_teachers": 2, "num_correct": 2, "num_labeled": 3,
    }  # fmt: skip
    assert manifest.metrics == {"id_type": "int", "candidates_per_problem": {"min": 1, "median": 2.0, "max": 3}}
    assert manifest.drops == {}
    assert set(manifest.files) == {"events.jsonl", "trajectories.parquet"}


def test_problems_keep_their_order_and_candidates_ascend(write, load):
    rows = [pool_row("b", 2), pool_row("a", 1), pool_row("b", 0), pool_row("c", 0), pool_row("a", 0), pool_row("b", 1)]
    pool = load(write("pool.jsonl", *rows))
    assert keys(pool) == [("b", 0), ("b", 1), ("b", 2), ("a", 0), ("a", 1), ("c", 0)]


def test_rows_in_any_order_are_sorted_in_bounded_runs(write, load, monkeypatch):
    monkeypatch.setattr(staging.SortedRuns.__init__, "__defaults__", (20_000,))
    wanted = [(str(p), c) for p in range(50) for c in range(6)]
    rows = [pool_row(p, c) for c in (0, 4, 2, 5, 1, 3) for p in range(50)]
    assert keys(load(write("pool.jsonl", *rows))) == wanted
    random.Random(0).shuffle(later := rows[50:])
    assert keys(load(write("shuffled.jsonl", *rows[:50], *later))) == wanted


def test_row_groups_are_bounded_in_rows_and_in_bytes(write, load, monkeypatch):
    monkeypatch.setattr(staging, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(staging, "ROW_GROUP_BYTES", 50_000)
    long = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * 30_000}]
    rows = [pool_row(0, i) for i in range(6)] + [pool_row(1, i, messages=long) for i in range(3)]
    pool = load(write("pool.jsonl", *rows))
    metadata = pq.read_metadata(pool.artifact.path / "trajectories.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 1]
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert [t.candidate_id for t in pool.trajectories([0, 3, 4, 8])] == [0, 3, 4, 2]
    assert list(pool.trajectories([])) == []
    assert [prompt[-1]["content"] for prompt in pool.prompts([0, 3, 4, 8])] == ["What is 0 + 1?"] * 3 + ["q"]
    assert list(pool.prompts([])) == []


def test_reading_rows_that_do_not_ascend_or_exist_is_our_own_mistake(write, load):
    pool = load(write("pool.jsonl", pool_row(0, 0), pool_row(0, 1)))
    for rows in ([1, 0], [0, 0], [2], [-1]):
        with pytest.raises(AssertionError):
            pool.trajectories(rows)


def test_the_index_holds_everything_but_the_text(write, load):
    same = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "same ü"}]
    rows = [pool_row(0, 0, messages=same, answer="1", is_correct=False), pool_row(0, 1, messages=same, teacher="beta")]
    index = load(write("pool.jsonl", *rows)).index()
    assert list(index.columns) == [
        "problem_id", "candidate_id", "teacher", "answer", "is_correct", "response_hash", "num_chars",
    ]  # fmt: skip
    assert index["teacher"].tolist() == ["alpha", "beta"]
    assert index["answer"].isna().tolist() == [False, True]
    assert str(index["is_correct"].dtype) == "boolean"
    assert index["is_correct"].isna().tolist() == [False, True]
    assert index["response_hash"].tolist() == [-101149332633968643] * 2
    assert index["num_chars"].tolist() == [6, 6]


@pytest.mark.parametrize(
    ("ids", "id_type", "back"),
    [
        ([3, 10], "int", [3, 10]),
        (["3", "10"], "str", ["3", "10"]),
        ([3, "math/007"], "str", ["3", "math/007"]),
        ([-1, 10**30], "int", [-1, 10**30]),
    ],
)
def test_ids_may_be_integers_or_text_and_come_back_as_written(write, load, ids, id_type, back):
    pool = load(write("pool.jsonl", *[pool_row(i, 0) for i in ids]))
    assert pool.id_type == id_type
    assert [public_id(t.problem_id, pool.id_type) for t in pool.trajectories()] == back


def test_a_candidate_id_that_is_left_out_is_its_order_within_the_problem(write, load):
    rows = [pool_row(0, None), pool_row(1, None), pool_row(0, None), pool_row(1, "7"), pool_row(0, None)]
    assert keys(load(write("pool.jsonl", *rows))) == [("0", 0), ("0", 1), ("0", 2), ("1", 0), ("1", 7)]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [(18, "18"), (0.5, "0.5"), ("1/2", "1/2"), ("  ", None), (None, None), (float("nan"), None)],
)
def test_a_reference_answer_is_kept_as_text(write, load, answer, kept):
    (trajectory,) = load(write("pool.jsonl", pool_row(0, 0, answer=answer)), labels="none").trajectories()
    assert trajectory.answer == kept


def test_null_bytes_and_lone_surrogates_survive_storage(write, load):
    line = (
        b'{"problem_id": "p\\ud800", "candidate_id": 0, "teacher": "t\\u0000", "note\\ud800": "n\\udc00", '
        b'"messages": [{"role": "user", "content": "q\\ud800"}, '
        b'{"role": "assistant", "content": "a\\u0000b\\udfffc \\ud83d\\ude00"}]}'
    )
    (trajectory,) = load(write("pool.jsonl", line)).trajectories()
    assert trajectory.problem_id == "p\ufffd"
    assert trajectory.teacher == "t\0"
    assert trajectory.prompt == ({"role": "user", "content": "q\ufffd"},)
    assert trajectory.response == "a\0b\ufffdc 😀"
    assert trajectory.extra == {"note\ufffd": "n\ufffd"}


def test_html_and_sql_in_ids_and_text_stay_data(write, load):
    rows = [pool_row("'; DROP TABLE pool; --", 0, teacher="<script>alert(1)</script>"), pool_row("../../etc", 0)]
    pool = load(write("pool.jsonl", *rows))
    assert [t.problem_id for t in pool.trajectories()] == ["'; DROP TABLE pool; --", "../../etc"]


def test_the_fingerprint_follows_content_and_options_not_the_path(write, workspace):
    def plan(path, **options):
        return plan_pool(PoolConfig(source=str(path), **options), workspace)

    first = plan(write("a/pool.jsonl", pool_row()))
    assert plan(write("b/pool.jsonl", pool_row())).id == first.id
    assert plan(write("b/pool.jsonl", pool_row()), workers=3, split="test").id == first.id
    renamed = plan(write("b/pool.jsonl", pool_row()), name="My Pool!")
    assert (renamed.name, renamed.fingerprint) == ("my-pool", first.fingerprint)
    assert plan(write("b/pool.jsonl", pool_row(1))).fingerprint != first.fingerprint
    assert plan(write("b/pool.jsonl", pool_row()), labels="verify").fingerprint != first.fingerprint
    assert plan(write("b/pool.jsonl", pool_row()), skip_bad=True).fingerprint != first.fingerprint


def test_a_finished_pool_is_found_again_without_reading_the_source(write, workspace, monkeypatch):
    config = PoolConfig(source=str(write("pool.jsonl", pool_row())))
    first = import_pool(config, workspace)
    monkeypatch.setattr("lark_engine.pool.importer.read_source", None)
    assert import_pool(config, workspace).manifest == first.manifest


def test_progress_is_reported_in_bytes_and_ends_at_the_total(write, load):
    path = write("pool.jsonl", *[pool_row(i, 0) for i in range(600)])
    events = [json.loads(line) for line in (load(path).artifact.path / "events.jsonl").open()]
    assert events[-1]["stage"] == "pool"
    assert (events[-1]["done"], events[-1]["total"], events[-1]["unit"]) == (path.stat().st_size,) * 2 + ("B",)


def test_the_real_gsm8k_pool_is_imported_whole(shared_dir, load):
    manifest = load(shared_dir / "data/gsm8k_pool.jsonl.gz").artifact.manifest
    assert manifest.name == "gsm8k_pool"
    assert manifest.counts == {
        "num_problems": 1000, "num_trajectories": 5000, "num_teachers": 5, "num_correct": 2541, "num_labeled": 5000,
    }  # fmt: skip
    assert manifest.drops == {}


def test_the_real_alpaca_pool_has_no_labels_without_answers(shared_dir, workspace: Workspace, load):
    pool = load(shared_dir / "data/alpaca_pool.jsonl.gz")
    assert pool.artifact.manifest.counts["num_trajectories"] == 2200
    assert pool.artifact.manifest.counts["num_labeled"] == 0
    lines = sum(t.teacher == "gpt-4o-2024-05-13" for t in pool.trajectories())
    assert lines == 200
    table = pq.read_table(pool.artifact.path / "trajectories.parquet", columns=["label_reason"])
    assert set(table["label_reason"].to_pylist()) == {"no_reference"}


def test_importing_loads_no_torch(write, tmp_path):
    import subprocess
    import sys

    path = write("pool.jsonl", content=jsonl(pool_row()))
    code = (
        "import sys; from lark_engine.config import PoolConfig; from lark_engine.pool.importer import import_pool\n"
        "from lark_engine.pool.dataset import PoolData; from lark_engine.store.workspace import Workspace\n"
        "PoolData(import_pool(PoolConfig(source=sys.argv[1]), Workspace(sys.argv[2]))).index()\n"
        "assert not {'torch', 'transformers', 'streamlit', 'math_verify'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "w")], check=True)
