"""The reader of a finished pool: a small index of all rows, and trajectories streamed from row groups."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lark_engine.errors import StoreError
from lark_engine.pool.staging import TRAJECTORIES
from lark_engine.records import IdType, Message, Trajectory
from lark_engine.store.workspace import Artifact

if TYPE_CHECKING:
    import pandas as pd

INDEX_COLUMNS = ["problem_id", "candidate_id", "teacher", "answer", "is_correct", "response_hash", "num_chars"]
_TEXT_COLUMNS = ["problem_id", "candidate_id", "teacher", "prompt", "response", "answer", "is_correct", "extra"]


class RowGroup(NamedTuple):
    """Consecutive rows of a pool: the number of the first, and their texts."""

    start: int
    table: pa.Table

    def trajectories(self, start: int, stop: int) -> list[Trajectory]:
        """Those of rows start..stop of the pool that are in this group."""
        first, last = max(start, self.start), min(stop, self.start + self.table.num_rows)
        return list(map(_trajectory, self.table.slice(first - self.start, max(last - first, 0)).to_pylist()))


class PoolData:
    """A finished pool. A row's number is its place in the file: problems contiguous, candidates ascending.

    Errors: `StoreError` when the table is missing or no pool.
    """

    def __init__(self, artifact: Artifact):
        assert artifact.kind == "pools", f"{artifact.id} is of kind {artifact.kind}"
        self.artifact = artifact
        self._path = artifact.path / TRAJECTORIES
        try:
            metadata = pq.read_metadata(self._path)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._path}: the pool's table cannot be read ({error}); import it again") from error
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self.num_trajectories: int = metadata.num_rows

    @property
    def id_type(self) -> IdType:
        """Whether the source wrote every problem_id as an integer; `records.public_id` turns ids back."""
        return cast(IdType, self.artifact.manifest.metrics["id_type"])

    def index(self) -> pd.DataFrame:
        """One line for each trajectory in file order, without its text: `INDEX_COLUMNS`.

        answer may be null; is_correct is pandas' nullable boolean; response_hash is a signed 64-bit hash of the text of
        the response, num_chars its length in characters.
        """
        table = pq.read_table(self._path, columns=INDEX_COLUMNS).to_pandas()
        return cast("pd.DataFrame", table.astype({"is_correct": "boolean"}))

    def first_rows(self) -> pd.Series:
        """The first row of every problem, by problem_id, in file order; a problem's rows follow each other."""
        import pandas as pd

        ids = pq.read_table(self._path, columns=["problem_id"], read_dictionary=["problem_id"])["problem_id"]
        names = ids.combine_chunks().to_pandas()
        begins = np.flatnonzero(~names.duplicated().to_numpy())
        return pd.Series(begins, index=pd.Index(names.iloc[begins].astype(str), name="problem_id"), name="row")

    def prompts(self, rows: Sequence[int]) -> Iterator[tuple[Message, ...]]:
        """The prompts of `rows` (strictly ascending row numbers), without their responses, one row group at a time."""
        wanted = np.asarray(rows, dtype=np.int64)
        groups = np.searchsorted(self._starts, wanted, side="right") - 1
        with pq.ParquetFile(self._path, pre_buffer=False) as file:
            for group in np.unique(groups):
                table = file.read_row_group(int(group), columns=["prompt"], use_threads=False)
                for text in table["prompt"].take(wanted[groups == group] - self._starts[group]):
                    yield tuple(json.loads(text.as_py()))

    def group_of(self, row: int) -> int:
        """Which row group of the file holds a row."""
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def group(self, number: int) -> RowGroup:
        """The rows that are stored, and therefore read, together: for who looks at one problem after the other."""
        with pq.ParquetFile(self._path, pre_buffer=False) as file:
            table = file.read_row_group(number, columns=_TEXT_COLUMNS, use_threads=False)
        return RowGroup(int(self._starts[number]), table)

    def trajectories(self, rows: Sequence[int] | None = None) -> Iterator[Trajectory]:
        """The trajectories of `rows` (strictly ascending row numbers; None = all), reading one row group at a time."""
        wanted = np.arange(self.num_trajectories) if rows is None else np.asarray(rows, dtype=np.int64)
        assert (np.diff(wanted) > 0).all(), "rows must be strictly ascending"
        assert ((wanted >= 0) & (wanted < self.num_trajectories)).all(), "a row is outside the pool"
        return self._read(wanted)

    def _read(self, wanted: Any) -> Iterator[Trajectory]:
        groups = np.searchsorted(self._starts, wanted, side="right") - 1
        with pq.ParquetFile(self._path, pre_buffer=False) as file:
            for group in np.unique(groups):
                table = file.read_row_group(int(group), columns=_TEXT_COLUMNS, use_threads=False)
                for batch in table.take(wanted[groups == group] - self._starts[group]).to_batches(max_chunksize=64):
                    yield from map(_trajectory, batch.to_pylist())


def _trajectory(row: dict[str, Any]) -> Trajectory:
    prompt, extra = json.loads(row.pop("prompt")), row.pop("extra")
    return Trajectory(**row, prompt=tuple(prompt), extra=json.loads(extra) if extra else {})
