"""A pool in the student's tokens, on disk: made once before scoring, so that every trajectory is checked early.

A template that would cut a response is found here, before hours of computation, and lengths are known for batching.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lark_engine.chat import ChatRenderer
from lark_engine.errors import StudentError
from lark_engine.records import Trajectory
from lark_engine.store.atomic import replacing
from lark_engine.store.events import Progress


@dataclass(frozen=True)
class TokenizedPool:
    """Token ids of all trajectories end to end (int32), with offsets [rows + 1] and prompt lengths [rows]."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    num_prompt_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    def tokens(self, row: int) -> NDArray[np.int32]:
        """Prompt and response tokens of one trajectory."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @property
    def num_response_tokens(self) -> NDArray[np.int64]:
        """Response tokens that are left after truncation, 0 where the prompt alone fills the maximum length."""
        return np.maximum(self.lengths - self.num_prompt_tokens, 0)


def tokenize(
    trajectories: Iterable[Trajectory], renderer: ChatRenderer, max_length: int, folder: Path, progress: Progress
) -> TokenizedPool:
    """Tokenize a pool into `folder` (ids.i32, index.npz), or open what an earlier run finished there.

    Errors: `StudentError` for the first trajectory that the student's template would change, with its name.
    """
    ids_path, index_path = folder / "ids.i32", folder / "index.npz"
    if not index_path.exists():
        _write(trajectories, renderer, max_length, ids_path, index_path, progress)
    index = np.load(index_path, allow_pickle=False)
    empty = ids_path.stat().st_size == 0
    ids = np.zeros(0, np.int32) if empty else np.memmap(ids_path, dtype=np.int32, mode="r")
    return TokenizedPool(ids, index["offsets"], index["num_prompt_tokens"], index["truncated"])


def _write(
    trajectories: Iterable[Trajectory], renderer: ChatRenderer, max_length: int, ids_path: Path, index_path: Path,
    progress: Progress,
) -> None:  # fmt: skip
    offsets, num_prompt_tokens, truncated = [0], [], []
    with replacing(ids_path) as partial, partial.open("wb") as file:
        for trajectory in trajectories:
            try:
                tokens = renderer.tokens(trajectory.prompt, trajectory.response, max_length)
            except StudentError as error:
                place = f"problem {trajectory.problem_id}, candidate {trajectory.candidate_id}"
                raise StudentError(f"{place}: {error}") from error
            file.write(np.asarray(tokens.ids, dtype=np.int32).tobytes())
            offsets.append(offsets[-1] + len(tokens.ids))
            num_prompt_tokens.append(tokens.num_prompt_tokens)
            truncated.append(tokens.truncated)
            progress.update(1)
    with replacing(index_path) as partial, partial.open("wb") as file:
        np.savez(
            file, offsets=np.array(offsets, np.int64), num_prompt_tokens=np.array(num_prompt_tokens, np.int64),
            truncated=np.array(truncated, bool),
        )  # fmt: skip
