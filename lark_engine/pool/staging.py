"""The pool's table, and sorted runs that bring rows into pool order in bounded memory.

Rows arrive in any order (a folder of teachers gives all problems of one teacher after the other). They are collected
up to `RUN_BYTES` of text, sorted and written as a run; merging the runs gives the pool in order. This is not left to
DuckDB: measured on 33,000 answers of 30 kB, its sort runs out of memory at 512 MB, because it works on blocks of
2,048 whole rows; here every buffer is bounded in bytes.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lark_engine.pool.checks import PlacedTrajectory
from lark_engine.pool.readers import POOL_MARK
from lark_engine.pool.rejections import clean_text, json_text
from lark_engine.store.atomic import replacing

TRAJECTORIES = "trajectories.parquet"
POOL_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("candidate_id", pa.int32()),
        ("teacher", pa.string()),
        ("prompt", pa.string()),  # JSON list of the messages before the answer
        ("response", pa.string()),
        ("answer", pa.string()),
        ("is_correct", pa.bool_()),
        ("label_reason", pa.string()),
        ("extra", pa.string()),  # JSON object, null when empty
        ("response_hash", pa.int64()),
        ("num_chars", pa.int32()),
    ],
    metadata={POOL_MARK: b"1"},
)
_RUN_SCHEMA = pa.schema([("problem_order", pa.int32()), *POOL_SCHEMA])
ROW_GROUP_ROWS, ROW_GROUP_BYTES = 2048, 32 << 20
RUN_BYTES = 48 << 20
_RUN_GROUP_ROWS, _RUN_GROUP_BYTES = 256, 1 << 20

Row = dict[str, Any]


def response_hash(response: str) -> int:
    """A stable signed 64-bit hash of a response's text (BLAKE2b), for finding identical responses."""
    return int.from_bytes(hashlib.blake2b(response.encode(), digest_size=8).digest(), "big", signed=True)


def as_row(placed: PlacedTrajectory) -> Row:
    """A trajectory as a row of a run; its label's reason is filled in later."""
    trajectory = placed.trajectory
    return {
        "problem_order": placed.problem_order,
        "problem_id": trajectory.problem_id,
        "candidate_id": trajectory.candidate_id,
        "teacher": trajectory.teacher,
        "prompt": json_text(list(trajectory.prompt)),
        "response": trajectory.response,
        "answer": trajectory.answer,
        "is_correct": trajectory.is_correct,
        "label_reason": None,
        "extra": clean_text(json_text(trajectory.extra)) if trajectory.extra else None,
        "response_hash": response_hash(trajectory.response),
        "num_chars": len(trajectory.response),
    }


def _num_bytes(row: Row) -> int:
    """Rough size in memory: the text, and what Python objects cost beside it."""
    return 1000 + len(row["prompt"]) + len(row["response"]) + len(row["extra"] or "")


def _order(row: Row) -> tuple[int, int]:
    return row["problem_order"], row["candidate_id"]


class SortedRuns:
    """Collects rows in any order; `merged` gives them back by problem (order of first appearance), then candidate.

    The folder is emptied first: a killed import leaves nothing that could get into this one.
    """

    def __init__(self, folder: Path, run_bytes: int = RUN_BYTES):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder, self._run_bytes = folder, run_bytes
        self._rows: list[Row] = []
        self._bytes = 0
        self._paths: list[Path] = []
        self._last: tuple[int, int] = (-1, -1)
        self._in_order = True

    def add(self, row: Row) -> None:
        """Take one row; write a run when enough are collected."""
        self._rows.append(row)
        self._bytes += _num_bytes(row)
        if self._bytes >= self._run_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is collected as a run."""
        if not self._rows:
            return
        self._rows.sort(key=_order)
        self._in_order = self._in_order and _order(self._rows[0]) > self._last
        self._last = _order(self._rows[-1])
        path = self._folder / f"run-{len(self._paths):05d}.parquet"
        with pq.ParquetWriter(path, _RUN_SCHEMA, compression="zstd", compression_level=1) as writer:
            for group in _groups(self._rows, _RUN_GROUP_ROWS, _RUN_GROUP_BYTES):
                writer.write_table(pa.Table.from_pylist(group, _RUN_SCHEMA))
        self._paths.append(path)
        self._rows, self._bytes = [], 0

    def unsorted(self, columns: list[str]) -> Iterator[Row]:
        """Some columns of all rows, run after run."""
        self.flush()
        for path in self._paths:
            yield from _read_run(path, columns)

    def merged(self) -> Iterator[Row]:
        """All rows in pool order. Memory: one small row group of each run."""
        self.flush()
        runs = [_read_run(path) for path in self._paths]
        return itertools.chain.from_iterable(runs) if self._in_order else heapq.merge(*runs, key=_order)


def _read_run(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for i in range(file.num_row_groups):
            yield from file.read_row_group(i, columns=columns, use_threads=False).to_pylist()


def _groups(rows: Iterable[Row], max_rows: int, max_bytes: int) -> Iterator[list[Row]]:
    """Consecutive rows in groups that are bounded in number and in bytes."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += _num_bytes(row)
        if len(group) >= max_rows or size >= max_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def write_pool(path: Path, rows: Iterable[Row]) -> None:
    """Write the pool's table atomically, in row groups that a reader can hold. Errors: `StoreError` (disk full)."""
    with (
        replacing(path) as partial,
        pq.ParquetWriter(partial, POOL_SCHEMA, compression="zstd") as writer,
    ):
        for group in _groups(rows, ROW_GROUP_ROWS, ROW_GROUP_BYTES):
            writer.write_table(pa.Table.from_pylist(group, POOL_SCHEMA))
