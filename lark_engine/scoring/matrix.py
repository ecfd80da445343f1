"""Ragged candidates as padded [N, K] matrices: N problems, K the most candidates that a problem has, NaN in padding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Layout(NamedTuple):
    """Where each row of a table goes in a matrix: `problem` in [0, N), `column` in [0, K) by order of appearance."""

    problem: Ints
    column: Ints
    num_problems: int
    num_columns: int

    def spread(self, values: NDArray[Any]) -> Floats:
        """[rows] → [N, K], NaN where a problem has no such candidate."""
        matrix_NK = np.full((self.num_problems, self.num_columns), np.nan)
        matrix_NK[self.problem, self.column] = values
        return matrix_NK

    def gather(self, matrix_NK: Floats) -> Floats:
        """[N, K] → [rows]."""
        return matrix_NK[self.problem, self.column]


def layout(problem_id: pd.Series) -> Layout:
    """The layout of a table with one row a candidate; problems keep their order of first appearance."""
    codes, unique = pd.factorize(problem_id.to_numpy(), sort=False)
    problem = np.asarray(codes, dtype=np.int64)
    column = np.asarray(pd.Series(problem).groupby(problem, sort=False).cumcount(), dtype=np.int64)
    num_columns = int(column.max()) + 1 if len(column) else 0
    return Layout(problem, column, len(unique), num_columns)
