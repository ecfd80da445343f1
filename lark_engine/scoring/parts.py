"""Scored rows on disk while a run goes on: Parquet parts, each whole or absent, so that a kill costs seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from lark_engine.scoring.summaries import take_rows
from lark_engine.store.atomic import make_dir, replacing

SCORES = "scores.parquet"
BINS = "token_bins.parquet"
# Finished rows are written with the first batch that ends so long after the last write.
FLUSH_S = 10.0


class Parts:
    """Numbered Parquet files `<stem>-00001.parquet` in a folder, each written whole; rows are known by number.

    `add` keeps a batch's rows together: after a kill a batch is there with all its rows or with none.
    """

    def __init__(self, folder: Path, stem: str):
        self.folder, self.stem = folder, stem
        make_dir(folder)
        self.known = {row for table in self.tables(["row"]) for row in table["row"].to_pylist()}
        self._next = max((int(path.stem.rpartition("-")[2]) for path in self.paths()), default=0) + 1
        self._waiting: list[pa.Table] = []
        self._flushed = time.monotonic()

    def paths(self) -> list[Path]:
        """The files in the order in which they were written."""
        return sorted(self.folder.glob(f"{self.stem}-*.parquet"))

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """What was written, one file at a time; files that lack one of the columns are left out."""
        for path in self.paths():
            if set(columns or ()) <= set(pq.read_schema(path).names):
                yield pq.read_table(path, columns=columns)

    def add(self, table: pa.Table) -> None:
        """Add the rows of one batch; those known already are left out."""
        rows = table["row"].to_pylist()
        fresh = [place for place, row in enumerate(rows) if row not in self.known]
        self.known.update(rows)
        if fresh:
            self._waiting.append(table if len(fresh) == len(rows) else take_rows(table, fresh))
        if time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            with replacing(self.folder / f"{self.stem}-{self._next:05d}.parquet") as partial:
                pq.write_table(pa.concat_tables(self._waiting), partial, compression="zstd", row_group_size=512)
            self._next += 1
            self._waiting.clear()
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Also after an error or Ctrl-C: finished batches are finished.
        self.flush()
