"""The reader of a finished pool: a small index of all rows, and trajectories streamed from row groups."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.parquet as pq

from lark_engine.errors import StoreError
from lark_engine.pool.staging import TRAJECTORIES
from lark_engine.records import IdType, Trajectory
from lark_engine.store.workspace import Artifact

if TYPE_CHECKING:
    import pandas as pd

INDEX_COLUMNS = ["problem_id", "candidate_id", "teacher", "answer", "is_correct", "response_hash", "num_chars"]
_TEXT_COLUMNS = ["problem_id", "candidate_id", "teacher", "prompt", "response", "answer", "is_correct", "extra"]


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
