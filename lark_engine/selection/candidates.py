"""A scored pool as arrays, made once: who wrote each candidate, and its numbers as padded [N, K] matrices."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lark_engine.scoring.matrix import Floats, Ints, layout

UNKNOWN = -1  # in codes and flags: padding, or a value that is not known


class Candidates:
    """The candidates of a scored pool: N problems, K the most candidates of one.

    `table` has one row a scored candidate with the columns of scores.parquet and of the pool's index, and `row`, its
    row in the pool (`candidate_table` joins it). Matrices are spread from it on demand and kept; nothing but the
    layout and the teachers is made before it is asked for. Treat all arrays as read-only: they may share memory.
    """

    def __init__(self, table: pd.DataFrame):
        self.table = table
        self.layout = layout(table["problem_id"])
        codes, names = table["teacher"].factorize(sort=True)
        assert len(names) < 2**15
        self.teachers: tuple[str, ...] = tuple(map(str, names))
        self.teacher_NK: NDArray[np.int16] = self.layout.spread(codes.astype(np.int16), UNKNOWN)
        self._matrices: dict[tuple[str, str], NDArray[Any]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.layout.num_problems, self.layout.num_columns

    @cached_property
    def present_NK(self) -> NDArray[np.bool_]:
        """Which places hold a candidate."""
        return self.teacher_NK != UNKNOWN

    @cached_property
    def row_NK(self) -> NDArray[np.int32]:
        """The row of the table that a candidate comes from, -1 in padding."""
        return self.layout.spread(np.arange(len(self.table), dtype=np.int32), UNKNOWN)

    def stat_NK(self, name: str) -> Floats:
        """A column of numbers as [N, K] float64; NaN in padding and where it is null."""
        if (key := ("stat", name)) not in self._matrices:
            values = self.table[name].to_numpy(np.float64, na_value=np.nan)
            self._matrices[key] = self.layout.spread(values)
        return self._matrices[key]

    def flag_NK(self, name: str) -> NDArray[np.int8]:
        """A column of booleans as [N, K]: 1, 0, or -1 where it is null and in padding."""
        if (key := ("flag", name)) not in self._matrices:
            values = self.table[name].astype("Int8").to_numpy(np.int8, na_value=UNKNOWN)
            self._matrices[key] = self.layout.spread(values, UNKNOWN)
        return self._matrices[key]

    def hash_NK(self, name: str) -> NDArray[np.int64]:
        """A column of 64-bit integers as [N, K]; 0 in padding."""
        if (key := ("hash", name)) not in self._matrices:
            self._matrices[key] = self.layout.spread(self.table[name].to_numpy(np.int64), 0)
        return self._matrices[key]

    @cached_property
    def num_tokens_NK(self) -> Floats:
        """What training on a candidate costs: its prompt and response tokens; NaN where they are not known."""
        return self.stat_NK("num_prompt_tokens") + self.stat_NK("num_response_tokens")

    def count_teachers(self, mask_NK: NDArray[np.bool_]) -> Ints:
        """How many of the marked candidates each teacher wrote, in the order of `teachers`."""
        return np.bincount(self.teacher_NK[mask_NK], minlength=len(self.teachers))
