"""Which trajectories go through the student together: planned by a token budget from known lengths; nothing is padded.

The plan depends on the rows to score and on the options, never on what is finished already: a resumed run computes the
same batches, so its numbers are those of an undisturbed run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# Enough tokens in a pass for full speed; more only takes memory, and on a CPU outgrows its cache.
BATCH_TOKENS = {"cuda": 16384, "cpu": 2048}


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass, grouped by the prompt that they share.

    `prompt_apart`: the one group is part of a problem that is larger than the budget; its prompt is computed on its
    own, once, and kept for the parts, so that the numbers of a part do not depend on the other parts.
    `num_tokens`: tokens to compute; a prompt that is apart counts in its first part.
    """

    groups: tuple[tuple[int, ...], ...]
    num_tokens: int
    prompt_apart: bool = False

    @property
    def rows(self) -> list[int]:
        """All rows, in the order in which they are computed."""
        return [row for group in self.groups for row in group]


def plan_batches(
    rows: Ints, prompt_hash: Ints, num_prompt_tokens: Ints, num_response_tokens: Ints, *,
    batch_tokens: int, batch_size: int | None = None,
) -> list[Batch]:  # fmt: skip
    """Batches of at most `batch_tokens` unique tokens and `batch_size` trajectories; a longer trajectory goes alone.

    `prompt_hash`, `num_prompt_tokens`, `num_response_tokens`: of all rows of the pool; `rows` are those to score.
    The batch with most tokens comes first (one that does not fit the device shows at once); the others follow in a
    shuffled order, so that the rate so far predicts the rest. Parts of one problem stay together.
    """
    whole: list[tuple[int, tuple[int, ...]]] = []
    units: list[list[Batch]] = []
    for group in _groups(rows, prompt_hash, num_response_tokens):
        prompt, responses = int(num_prompt_tokens[group[0]]), num_response_tokens[group]
        fits = len(group) <= (batch_size or len(group)) and prompt + responses.sum() <= batch_tokens
        if fits or len(group) == 1:
            whole.append((prompt + int(responses.sum()), tuple(group.tolist())))
        else:
            units.append(_parts(group, prompt, responses, batch_tokens, batch_size))
    units += [[batch] for batch in _packed(whole, batch_tokens, batch_size)]
    units.sort(key=lambda unit: -max(batch.num_tokens for batch in unit))
    shuffled = np.random.default_rng(0).permutation(np.arange(1, len(units)))
    return [batch for place in (0, *shuffled.tolist()) for batch in units[place]] if units else []


def _groups(rows: Ints, prompt_hash: Ints, num_response_tokens: Ints) -> list[Ints]:
    """Rows that share a prompt, longest response first, ties in the pool's order."""
    order = rows[np.lexsort((rows, -num_response_tokens[rows], prompt_hash[rows]))]
    starts = np.flatnonzero(np.diff(prompt_hash[order])) + 1
    return [group for group in np.split(order, starts) if len(group)]


def _parts(group: Ints, prompt: int, responses: Ints, batch_tokens: int, batch_size: int | None) -> list[Batch]:
    """A problem that does not fit one batch, in parts whose responses fit."""
    parts: list[list[int]] = []
    sizes: list[int] = []
    for row, length in zip(group.tolist(), responses.tolist(), strict=True):
        if not parts or sizes[-1] + length > batch_tokens or len(parts[-1]) == batch_size:
            parts.append([])
            sizes.append(0)
        parts[-1].append(row)
        sizes[-1] += length
    sizes[0] += prompt
    return [Batch((tuple(part),), size, prompt_apart=True) for part, size in zip(parts, sizes, strict=True)]


def _packed(whole: list[tuple[int, tuple[int, ...]]], batch_tokens: int, batch_size: int | None) -> list[Batch]:
    """Whole problems of similar size packed up to the budget."""
    batches: list[list[tuple[int, ...]]] = []
    sizes: list[int] = []
    for size, group in sorted(whole, key=lambda item: (-item[0], item[1])):
        count = sum(map(len, batches[-1])) + len(group) if batches else 0
        if not batches or sizes[-1] + size > batch_tokens or count > (batch_size or count):
            batches.append([])
            sizes.append(0)
        batches[-1].append(group)
        sizes[-1] += size
    return [Batch(tuple(groups), size) for groups, size in zip(batches, sizes, strict=True)]
