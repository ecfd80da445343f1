"""A look at a source: format, first problem, mistakes in the first rows; fast whatever its size; and rejected lines."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pool_sources import jsonl, pool_row

from lark_engine.config import PoolConfig
from lark_engine.errors import PoolError
from lark_engine.pool.importer import REJECTED, import_pool
from lark_engine.pool.preview import Preview, preview
from lark_engine.pool.rejected_lines import read_rejected
from lark_engine.store.workspace import Workspace

Write = Callable[..., Path]


def look(source: Path | str, **options: Any) -> Preview:
    return preview(PoolConfig(source=str(source), **options))


def test_lines_are_recognized_with_the_first_problem_and_its_candidates(write: Write) -> None:
    found = look(write("pool.jsonl", pool_row(3, 0, answer=4, level=2), pool_row(3, 1), pool_row(4, 0)))
    assert (found.kind, found.num_files, found.num_rows, found.is_whole) == ("JSON Lines", 1, 3, True)
    assert [(t.problem_id, t.candidate_id) for t in found.first] == [("3", 0), ("3", 1)]
    first = found.first[0]
    assert (first.teacher, first.answer, first.extra) == ("alpha", "4", {"level": 2})
    assert first.prompt[0]["content"] == "What is 3 + 1?"
    assert found.rejected == ()


def test_the_content_says_what_it_is_and_not_the_suffix(write: Write, tmp_path: Path) -> None:
    rows = [pool_row(0, c) for c in range(2)]
    assert look(write("a.gz", content=gzip.compress(jsonl(*rows)))).kind == "JSON Lines (gzip)"
    assert look(write("b.json", content=json.dumps(rows).encode())).kind == "JSON list"
    assert look(write("c.json", *rows)).kind == "JSON Lines"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.jsonl")
    assert look(tmp_path / "d.jsonl").kind == "Parquet"
    for teacher in ("a", "b"):
        (tmp_path / "folder" / teacher).mkdir(parents=True)
        content = [{"messages": row["messages"]} for row in rows]
        (tmp_path / "folder" / teacher / "0.json").write_text(json.dumps(content))
    found = look(tmp_path / "folder")
    assert (found.kind, found.num_files) == ("folder of 2 teachers", 2)


def test_mistakes_of_the_first_rows_come_with_place_and_remedy(write: Write) -> None:
    found = look(write("pool.jsonl", pool_row(0, 0), b"{torn", pool_row(0, 1, teacher=7)))
    assert [(r.place, r.reason) for r in found.rejected] == [
        ("pool.jsonl:2", "broken_json"), ("pool.jsonl:3", "bad_teacher"),
    ]  # fmt: skip
    assert found.rejected[1].remedy == "give the name of the model that wrote the answer as text"


def test_of_a_large_file_only_the_beginning_is_read(write: Write) -> None:
    path = write("large.jsonl", *(pool_row(p, 0) for p in range(60)))
    with path.open("r+b") as file:
        file.truncate(2 << 30)  # sparse: two gigabytes of zeros behind the rows
    began = time.monotonic()
    found = look(path)
    assert time.monotonic() - began < 1.0
    assert (found.num_rows, found.is_whole, found.num_bytes) == (50, False, 2 << 30)


def test_a_large_file_without_lines_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "weights.jsonl").open("wb") as file:
        file.truncate(2 << 30)
    began = time.monotonic()
    found = look(tmp_path / "weights.jsonl")
    assert time.monotonic() - began < 1.0
    assert [(r.place, r.reason) for r in found.rejected] == [("weights.jsonl:1", "line_too_long")]


def test_rows_of_megabytes_end_the_look_early(write: Write) -> None:
    row = pool_row(0, 0, note="x" * (3 << 20))
    found = look(write("long.jsonl", *(row | {"candidate_id": c} for c in range(20))))
    assert found.num_rows == 5
    assert not found.is_whole


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{folder}/nothing.jsonl", "no such file or folder"),
        ("{folder}/pipe", "is no regular file"),
        ("{folder}/empty.jsonl", "the file is empty"),
        ("{folder}/many", "holds more than 20,000 files and folders"),
        ("a\x00b", "no such file or folder|cannot be read"),
    ],
)
def test_what_is_no_source_is_said_at_once(tmp_path: Path, source: str, said: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.jsonl").touch()
    if "many" in source:
        (tmp_path / "many").mkdir()
        for number in range(20_001):
            os.mknod(tmp_path / "many" / str(number))
    with pytest.raises(PoolError, match=said):
        look(source.format(folder=tmp_path))


def test_a_dataset_of_the_hub_is_not_asked_for() -> None:
    assert look("owner/name").kind == "Hugging Face dataset, read when it is imported"


def test_rejected_lines_are_counted_and_read_by_page_and_reason(write: Write, workspace: Workspace) -> None:
    rows = [b"{", pool_row(0, 0), *(pool_row(0, c, teacher=c) for c in range(1, 6)), b"}"]
    pool = import_pool(PoolConfig(source=str(write("pool.jsonl", *rows)), skip_bad=True), workspace)
    found = read_rejected(pool.path / REJECTED)
    assert found.reasons == {"bad_teacher": 5, "broken_json": 2}
    assert [r.place for r in found.page(0, 3)] == ["pool.jsonl:1", "pool.jsonl:3", "pool.jsonl:4"]
    assert [r.place for r in found.page(6, 3)] == ["pool.jsonl:8"]
    assert [r.place for r in found.page(1, 1, "broken_json")] == ["pool.jsonl:8"]
    assert found.page(0, 3, "no_such_reason") == []


def test_lines_that_are_no_rejection_are_left_out(tmp_path: Path) -> None:
    whole = dict.fromkeys(("place", "reason", "field", "problem", "excerpt", "remedy"), "é\u2028x")
    lines = [json.dumps(whole, ensure_ascii=False).encode(), b"[1]", b"\xff", b'{"place": "x"}', b'{"place": "torn']
    (tmp_path / REJECTED).write_bytes(b"\n".join(lines))
    found = read_rejected(tmp_path / REJECTED)
    assert found.reasons == {"é\u2028x": 1}
    assert found.page(0, 9)[0].remedy == "é\u2028x"
