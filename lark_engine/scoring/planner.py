"""Which trajectories go through the student together: planned from known lengths, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def plan_batches(
    rows: Sequence[int], lengths: NDArray[np.int64], *, batch_size: int, batch_tokens: int
) -> list[list[int]]:
    """Batches of rows of similar length, the longest first (a batch that does not fit shows at once).

    `lengths` [all rows] in tokens. A batch holds at most `batch_size` rows and `batch_tokens` tokens, padding
    included; a single row longer than that is a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        full = not batches or len(batches[-1]) == batch_size or longest * (len(batches[-1]) + 1) > batch_tokens
        if full:
            batches.append([])
            longest = int(lengths[row])
        batches[-1].append(row)
    return batches
