"""A pool in the student's tokens, on disk: made once before scoring, so that every trajectory is checked early.

A template that would cut a response is found here, before hours of computation, and lengths are known for batching.
"""

from __future__ import annotations

import hashlib
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

_IDS, _INDEX = "ids.i32", "index.npz"


@dataclass(frozen=True)
class TokenizedPool:
    """Token ids of all trajectories end to end (int32), with offsets [rows + 1] and one value a row otherwise.

    `prompt_hash` is equal for rows with the same prompt; `tokens_hash` for rows that any student of this tokenizer
    scores alike: the same prompt and the same response.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    num_prompt_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    prompt_hash: NDArray[np.int64]
    tokens_hash: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> TokenizedPool:
        """A pool that `tokenize` has finished; ids are read from disk where they are used."""
        index = np.load(folder / _INDEX, allow_pickle=False)
        empty = (folder / _IDS).stat().st_size == 0
        ids = np.zeros(0, np.int32) if empty else np.memmap(folder / _IDS, dtype=np.int32, mode="r")
        return cls(ids=ids, **{name: index[name] for name in index.files})

    def prompt(self, row: int) -> NDArray[np.int32]:
        """Prompt tokens of one trajectory."""
        start = self.offsets[row]
        return self.ids[start : min(start + self.num_prompt_tokens[row], self.offsets[row + 1])]

    def response(self, row: int) -> NDArray[np.int32]:
        """Response tokens of one trajectory, after truncation."""
        end = self.offsets[row + 1]
        return self.ids[min(self.offsets[row] + self.num_prompt_tokens[row], end) : end]

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
    if not (folder / _INDEX).exists():
        _write(trajectories, renderer, max_length, folder, progress)
    return TokenizedPool.open(folder)


def hash_ids(*parts: NDArray[np.int32]) -> int:
    """64 bits of a hash of token ids, as a signed integer; where one part ends and the next begins counts."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part.tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def _write(
    trajectories: Iterable[Trajectory], renderer: ChatRenderer, max_length: int, folder: Path, progress: Progress
) -> None:
    columns: dict[str, list[int]] = {
        name: [] for name in ("num_prompt_tokens", "truncated", "prompt_hash", "tokens_hash")
    }
    offsets = [0]
    with replacing(folder / _IDS) as partial, partial.open("wb") as file:
        for trajectory in trajectories:
            try:
                tokens = renderer.tokens(trajectory.prompt, trajectory.response, max_length)
            except StudentError as error:
                place = f"problem {trajectory.problem_id}, candidate {trajectory.candidate_id}"
                raise StudentError(f"{place}: {error}") from error
            ids = np.asarray(tokens.ids, dtype=np.int32)
            prompt, response = ids[: tokens.num_prompt_tokens], ids[tokens.num_prompt_tokens :]
            file.write(ids.tobytes())
            offsets.append(offsets[-1] + len(ids))
            columns["num_prompt_tokens"].append(tokens.num_prompt_tokens)
            columns["truncated"].append(tokens.truncated)
            columns["prompt_hash"].append(hash_ids(prompt))
            columns["tokens_hash"].append(hash_ids(prompt, response))
            progress.update(1)
    arrays = {name: np.array(values, bool if name == "truncated" else np.int64) for name, values in columns.items()}
    with replacing(folder / _INDEX) as partial, partial.open("wb") as file:
        np.savez(file, offsets=np.array(offsets, np.int64), **arrays)  # type: ignore[arg-type]
