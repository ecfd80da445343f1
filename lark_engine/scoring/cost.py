"""What scoring a pool would take, before anything is scored: arithmetic on counts, no model, no tokenizer, no torch.

Every figure says what it rests on. Tokens are counted where a student has scored the pool, and else estimated from
characters; speed is measured where this machine has scored, and else taken from a data sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lark_engine.pool.dataset import PoolData
from lark_engine.pool.rejections import json_text
from lark_engine.pool.staging import response_hash
from lark_engine.scoring.parts import SCORES
from lark_engine.scoring.reuse import SAME_CONFIG
from lark_engine.scoring.score import VERSION
from lark_engine.scoring.summaries import BIN_TOKENS, TOKEN_STATISTICS
from lark_engine.store.events import last_event
from lark_engine.store.workspace import Artifact
from lark_engine.training.cost import PEAK_FLOPS, UTILIZATION, Rate

# Of English mathematics with its formulas; tokenizers of a large vocabulary need a little less.
CHARS_PER_TOKEN = 3.0
# A line of the score table, compressed; then float16 for each bin of each statistic, and on request for each token.
_ROW_BYTES = 200
_BIN_BYTES = 2 * len(TOKEN_STATISTICS) / BIN_TOKENS
_TOKEN_BYTES = 4 + 2 * len(TOKEN_STATISTICS)
# Beside what reuse asks for: what decides which tokens a text becomes.
_SAME_TOKENS = (*SAME_CONFIG, "render", "chat_template")

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PoolTexts:
    """How long the texts of a pool are and which are the same, without the texts: a row a candidate, as in the pool.

    `problem_N`: the number of its problem; `key_N`: a hash of prompt and response, the same in every pool.
    """

    ids: pd.MultiIndex
    problem_N: Ints
    prompt_chars_N: Ints
    response_chars_N: Ints
    key_N: Ints


class Lengths(NamedTuple):
    """Tokens of prompt and response of every candidate, uncut, and what the figures rest on."""

    prompt_N: NDArray[np.float64]
    response_N: NDArray[np.float64]
    basis: str


class Workload(NamedTuple):
    """What one student has to do: `num_reused` of the candidates are scored already, `tokens` are to be computed.

    A prompt that candidates share is computed once. `response_tokens` are those of all candidates, reused ones too.
    """

    num_candidates: int
    num_reused: int
    tokens: int
    response_tokens: int


def read_texts(pool: Artifact) -> PoolTexts:
    """Read a pool's index and its prompts. Errors: `StoreError` when its table is damaged."""
    data = PoolData(pool)
    index, first = data.index(), data.first_rows()
    prompts = list(data.prompts(first.tolist()))
    chars = np.array([sum(len(message["content"]) for message in prompt) for prompt in prompts], np.int64)
    hashes = np.array([response_hash(json_text(list(prompt))) for prompt in prompts], np.int64)
    problem_N = first.index.get_indexer(pd.Index(index["problem_id"].astype(str))).astype(np.int64)
    with np.errstate(over="ignore"):
        key_N = hashes[problem_N] * np.int64(1_000_003) + index["response_hash"].to_numpy(np.int64)
    ids = pd.MultiIndex.from_arrays([index["problem_id"].astype(str), index["candidate_id"]])
    return PoolTexts(ids, problem_N, chars[problem_N], index["num_chars"].to_numpy(np.int64), key_N)


def known_lengths(texts: PoolTexts, pool: Artifact, scores: Iterable[Artifact], origin: str | None) -> Lengths | None:
    """The tokens that earlier scores of this pool counted, those of this student (`origin`) first."""
    fits = [s for s in scores if s.manifest.inputs.get("pool") == pool.ref and _is_own(s)]
    if not fits:
        return None

    def quality(source: Artifact) -> tuple[bool, bool, str]:
        manifest = source.manifest
        return _is_of(source, origin), not manifest.counts.get("num_truncated"), manifest.created_at

    best = max(fits, key=quality)
    columns = ["problem_id", "candidate_id", "num_prompt_tokens", "num_response_tokens"]
    table = pq.read_table(best.path / SCORES, columns=columns).to_pandas()
    table.index = pd.MultiIndex.from_arrays([table["problem_id"].astype(str), table["candidate_id"]])
    # What has no response token is not in the table, and is not scored.
    table = table[columns[2:]].reindex(texts.ids).fillna(0.0)
    basis = f"counted in {best.id}"
    if not _is_of(best, origin):
        basis += ", by the tokenizer of another student"
    if cut := best.manifest.counts.get("num_truncated"):
        basis += f"; {cut:,} were cut at {best.manifest.config.get('max_length', 0):,} tokens there, so at least"
    return Lengths(table["num_prompt_tokens"].to_numpy(float), table["num_response_tokens"].to_numpy(float), basis)


def estimated_lengths(texts: PoolTexts, chars_per_token: float, basis: str) -> Lengths:
    """Tokens from characters."""
    return Lengths(texts.prompt_chars_N / chars_per_token, texts.response_chars_N / chars_per_token, basis)


def best_counted(scored: Sequence[Artifact], origin: str | None) -> list[Artifact]:
    """Of scores whose response tokens were counted, the newest, this student's first; none where none counted."""
    counted = [scores for scores in scored if scores.manifest.metrics.get("response_tokens")]
    return [max(counted, key=lambda one: (_is_of(one, origin), one.manifest.created_at))] if counted else []


def chars_per_token(scored: Sequence[tuple[Artifact, PoolTexts]], origin: str | None) -> tuple[float, str]:
    """Characters that a token stands for, and the basis: as scores of other pools counted, this student's first."""
    best = best_counted([scores for scores, _ in scored], origin)
    if not best:
        return CHARS_PER_TOKEN, f"estimated: {CHARS_PER_TOKEN:g} characters a token, usual for English mathematics"
    scores, texts = next(pair for pair in scored if pair[0] is best[0])
    ratio = texts.response_chars_N.sum() / scores.manifest.metrics["response_tokens"]
    whose = "" if _is_of(scores, origin) else ", of another student"
    return float(ratio), f"estimated: {ratio:.2f} characters a token, as in {scores.id}{whose}"


def workload(texts: PoolTexts, lengths: Lengths, max_length: int, reused_N: Bools) -> Workload:
    """The tokens to compute: responses that are left within `max_length`, and each of their prompts once."""
    response_N = np.clip(np.minimum(lengths.response_N, max_length - lengths.prompt_N), 0, None)
    scorable_N = response_N > 0
    reused_N = reused_N & scorable_N & (lengths.prompt_N + lengths.response_N <= max_length)  # cut, it is another text
    todo_N = scorable_N & ~reused_N
    prompts = pd.Series(lengths.prompt_N[todo_N]).groupby(texts.problem_N[todo_N]).max().sum()
    return Workload(
        num_candidates=int(scorable_N.sum()), num_reused=int(reused_N.sum()),
        tokens=round(float(response_N[todo_N].sum() + prompts)), response_tokens=round(float(response_N.sum())),
    )  # fmt: skip


def taken_over(texts: PoolTexts, scored: Iterable[tuple[Artifact, PoolTexts]]) -> Bools:
    """Which candidates some scores (of `reusable` kind) hold already, by their texts; those that were cut do not count.

    The stage itself compares tokens; texts that are the same become the same tokens.
    """
    known = [np.empty(0, np.int64)]
    for scores, theirs in scored:
        table = pq.read_table(scores.path / SCORES, columns=["problem_id", "candidate_id", "truncated"]).to_pandas()
        table = table[~table["truncated"].astype(bool)]
        ids = pd.MultiIndex.from_arrays([table["problem_id"].astype(str), table["candidate_id"]])
        known.append(theirs.key_N[theirs.ids.isin(ids)])
    return np.isin(texts.key_N, np.concatenate(known))


def reusable(scores: Artifact, origin: str | None, options: Mapping[str, Any], changed_at: float) -> bool:
    """Whether scores of this student hold with these resolved options for each trajectory that they share.

    `changed_at`: the time of the student's newest file; older scores may be of other weights.
    """
    config = scores.manifest.config
    return (
        _is_of(scores, origin) and _is_own(scores) and scores.manifest.identity.get("version") == VERSION
        and all(config.get(name) == options.get(name) for name in _SAME_TOKENS)
        and _made_at(scores) > changed_at
    )  # fmt: skip


def already_scored(
    scores: Iterable[Artifact], pool: Artifact, origin: str | None, options: Mapping[str, Any], changed_at: float
) -> Artifact | None:
    """The scores of this pool by this student with these very resolved options, if there are any."""
    wanted = {**options, "student": origin}
    return next(
        (
            s for s in scores
            if s.manifest.inputs.get("pool") == pool.ref and dict(s.manifest.config) == wanted
            and reusable(s, origin, options, changed_at)
        ),
        None,
    )  # fmt: skip


def newest_change(folder: Path) -> float:
    """When the newest file of a model's folder changed, in seconds since 1970."""
    return max((file.stat().st_mtime for file in folder.iterdir() if file.is_file()), default=0.0)


def measured_rate(
    scores: Iterable[Artifact], origin: str | None, device: str, num_weights: int | None = None,
    weights_of: Callable[[str], int | None] = lambda student: None,
) -> Rate | None:  # fmt: skip
    """The speed that the longest run of this student on this kind of device logged, of its wall time where it logged
    none; without one, that of another student, scaled by parameters.
    """
    runs = [s for s in scores if s.manifest.device == device and s.manifest.wall_s > 0 and _computed(s) > 0]
    own = [s for s in runs if _is_of(s, origin)]
    if own:
        longest = max(own, key=_computed)
        rate = _logged_rate(longest)
        return Rate(rate, f"measured: {rate:,.0f} tokens/s in {longest.id} on {device}")
    sized = [(s, size) for s in runs if (size := weights_of(str(s.manifest.config.get("student", "")))) is not None]
    if not sized or not num_weights:
        return None
    longest, size = max(sized, key=lambda pair: _computed(pair[0]))
    rate = _logged_rate(longest) * size / num_weights
    return Rate(
        rate,
        f"estimated: {rate:,.0f} tokens/s, scaled by parameters from {longest.id} on {device}, of another student",
    )


def tabled_rate(num_weights: int | None, device: str, num_devices: int = 1) -> Rate | None:
    """The speed from the device's data sheet: 2 FLOP a parameter and token, at 35 % of the peak."""
    if not num_weights:
        return None
    rate = num_devices * PEAK_FLOPS[device] * UTILIZATION / (2 * num_weights)
    basis = f"{num_devices} × {device} at {UTILIZATION:.0%} of {PEAK_FLOPS[device] / 1e12:.0f} TFLOP/s (data sheet)"
    return Rate(rate, f"estimated: {rate:,.0f} tokens/s, {basis}")


def disk_bytes(work: Workload, token_stats: Literal["bins", "full"]) -> int:
    """Bytes of the finished scores, about; as much again while they are being made."""
    per_token = _BIN_BYTES + (_TOKEN_BYTES if token_stats == "full" else 0)
    return round(work.num_candidates * _ROW_BYTES + work.response_tokens * per_token)


def _is_of(scores: Artifact, origin: str | None) -> bool:
    return origin is not None and scores.manifest.config.get("student") == origin


def _is_own(scores: Artifact) -> bool:
    """Whether they were made here, and not taken over from a file of the released code, which knows no tokens."""
    return "file" not in scores.manifest.identity


def _made_at(scores: Artifact) -> float:
    try:
        return datetime.fromisoformat(scores.manifest.created_at).timestamp()
    except ValueError:
        return 0.0


def _computed(scores: Artifact) -> int:
    return int(scores.manifest.metrics.get("computed_tokens") or 0)


def _logged_rate(scores: Artifact) -> float:
    """Loading the student not included. A resumed run's wall time is that of its last part."""
    event = last_event(scores.path / "events.jsonl") or {}
    logged = event.get("rate")
    if event.get("unit") == "token" and isinstance(logged, int | float) and logged > 0:
        return float(logged)
    return _computed(scores) / scores.manifest.wall_s
