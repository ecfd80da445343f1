"""Ragged candidates as padded [N, K] matrices: N problems, K the most candidates that a problem has, NaN in padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Layout:
    """Where each row of a table goes in a matrix: `problem` in [0, N), `column` in [0, K) by order of appearance.

    `is_dense` says that the rows are the matrix already, row after row; spreading and gathering then copy nothing.
    """

    problem: Ints
    column: Ints
    num_problems: int
    num_columns: int
    is_dense: bool

    def spread(self, values: NDArray[Any], fill: Any = np.nan) -> NDArray[Any]:
        """[rows] → [N, K], `fill` where a problem has no such candidate; may share memory with `values`."""
        shape = (self.num_problems, self.num_columns)
        if self.is_dense:
            return values.reshape(shape)
        matrix_NK = np.full(shape, fill, dtype=values.dtype)
        matrix_NK[self.problem, self.column] = values
        return matrix_NK

    def gather(self, matrix_NK: NDArray[Any]) -> NDArray[Any]:
        """[N, K] → [rows]; may share memory with `matrix_NK`."""
        return matrix_NK.reshape(-1) if self.is_dense else matrix_NK[self.problem, self.column]


def layout(problem_id: pd.Series) -> Layout:
    """The layout of a table with one row a candidate; problems keep their order of first appearance."""
    codes, unique = problem_id.factorize()
    assert len(codes) < 2**31
    problem = codes.astype(np.int32)
    # Rows of a problem need not be neighbors; where they are, sorting finds that out and costs nothing.
    order = np.argsort(problem, kind="stable")
    num_candidates_N = np.bincount(problem, minlength=len(unique))
    first_N = np.cumsum(num_candidates_N) - num_candidates_N
    column = np.empty(len(problem), dtype=np.int32)
    column[order] = np.arange(len(problem)) - np.repeat(first_N, num_candidates_N)
    num_columns = int(num_candidates_N.max(initial=0))
    is_dense = len(problem) == len(unique) * num_columns and bool((np.diff(problem) >= 0).all())
    return Layout(problem, column, len(unique), num_columns, is_dense)
