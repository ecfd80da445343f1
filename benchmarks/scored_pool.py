"""A scored pool of any size with the shape of a real one, made without a model.

    python -m benchmarks.scored_pool FOLDER [--problems 5000] [--candidates 33] [--seed 0] [--hostile]

The pool goes through the real importer, the scores through the real score table and the store; only the token
statistics are drawn: teachers differ in likelihood, ρ, length and accuracy, problems in difficulty.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.pool_texts import (
    CHARS_PER_TOKEN,
    HOSTILE_PROBLEM_IDS,
    HOSTILE_TEACHERS,
    HOSTILE_TEXTS,
    LONG_LINE,
    SHORT,
    problem_texts,
    responses,
    step_bank,
)
from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.pool.dataset import PoolData
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.parts import BINS, SCORES
from lark_engine.scoring.score import VERSION
from lark_engine.scoring.summaries import BIN_COLUMNS, BIN_TOKENS
from lark_engine.scoring.table import score_table
from lark_engine.scoring.tokenized import TokenizedPool
from lark_engine.store.atomic import replacing
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

TEACHERS = (
    "DeepSeek-R1", "QwQ-32B", "Qwen3-235B-A22B", "Qwen3-32B", "Qwen3-8B", "gpt-oss-120b", "gpt-oss-20b",
    "Llama-Nemotron-Super-49B", "Magistral-Small", "Phi-4-reasoning-plus", "GLM-4.5-Air",
)  # fmt: skip
CANDIDATES_OF_TEACHER = 3  # where there are enough candidates for it
STUDENT = "generated-student"
LARGE_TEXT_TOKENS = (550, 1650)  # about 2 to 6 thousand characters
_RAGGED, _DUPLICATED, _SHORT, _UNBOXED, _UNKNOWN, _NOT_FINITE = 0.01, 0.015, 0.004, 0.03, 0.04, 0.001
_TRUNCATED = 0.015

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class ScoredPoolArtifacts(NamedTuple):
    """A pool and its scores by one student."""

    pool: Artifact
    scores: Artifact


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """One entry a candidate in the pool's order: its problem, its teacher, and what its text is like."""

    problem: Ints
    column: Ints
    teacher: Ints
    num_tokens: Ints
    boxed: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    short: NDArray[np.bool_]
    copy_of: Ints  # the row whose text it repeats, itself where it does not

    def __len__(self) -> int:
        return len(self.problem)


def make_scored_pool(
    workspace: Workspace, *, num_problems: int, num_candidates: int, seed: int = 0,
    text_tokens: tuple[int, int] = (60, 240), hostile: bool = False, name: str | None = None,
) -> ScoredPoolArtifacts:  # fmt: skip
    """Make a pool of `num_problems` with up to `num_candidates` each, and its scores; the same for the same arguments.

    The first problem is complete; about 1 % of the others lack candidates. Some candidates are truncated, duplicated,
    next to empty, without a boxed answer, wrong, of unknown correctness, or without finite scores. `text_tokens`: the
    10th and 90th percentile of a response's length. `hostile` adds ids, teachers and texts that attack a page, and a
    problem whose prompt leaves no response token to score.
    """
    name = name or f"generated-{num_problems}x{num_candidates}"
    rng = np.random.default_rng(seed)
    teachers = _teachers(num_candidates, hostile)
    rows = _draw_rows(rng, num_problems, num_candidates, len(teachers), text_tokens)
    pool = _import(workspace, rng, rows, teachers, name, hostile)
    return ScoredPoolArtifacts(pool, _score(workspace, rng, rows, pool, len(teachers), seed))


def _teachers(num_candidates: int, hostile: bool) -> tuple[str, ...]:
    names = HOSTILE_TEACHERS if hostile else TEACHERS
    return names[: max(min(len(names), num_candidates // CANDIDATES_OF_TEACHER), min(num_candidates, 3))]


def _draw_rows(
    rng: np.random.Generator, num_problems: int, num_candidates: int, num_teachers: int, text_tokens: tuple[int, int]
) -> _Rows:
    counts = np.full(num_problems, num_candidates)
    ragged = rng.random(num_problems) < _RAGGED
    ragged[-1] = num_problems > 1
    ragged[0] = False
    counts[ragged] = rng.integers(1, max(num_candidates, 2), ragged.sum())
    problem = np.repeat(np.arange(num_problems), counts)
    column = np.arange(len(problem)) - np.repeat(np.cumsum(counts) - counts, counts)
    teacher = column % num_teachers
    difficulty = rng.normal(0, 1, num_problems)[problem]
    low, high = np.log(text_tokens)
    wordy = np.linspace(0.35, -0.35, num_teachers)[rng.permutation(num_teachers)][teacher]
    log_length = (low + high) / 2 + wordy + 0.25 * difficulty + rng.normal(0, (high - low) / 2.56, len(problem))
    skill = np.linspace(1.8, 0.2, num_teachers)[rng.permutation(num_teachers)][teacher]
    correct = rng.random(len(problem)) < 1 / (1 + np.exp(0.8 * difficulty - skill))
    return _Rows(
        problem=problem, column=column, teacher=teacher, num_tokens=np.maximum(np.exp(log_length), 12).astype(np.int64),
        boxed=~_some(rng, len(problem), _UNBOXED), correct=correct, short=_some(rng, len(problem), _SHORT),
        copy_of=_copies(rng, problem, teacher),
    )  # fmt: skip


def _some(rng: np.random.Generator, num_rows: int, share: float) -> NDArray[np.bool_]:
    """A random mask of this share of the rows, at least one."""
    mask = np.zeros(num_rows, dtype=bool)
    mask[rng.choice(num_rows, max(round(share * num_rows), 1), replace=False)] = True
    return mask


def _copies(rng: np.random.Generator, problem: Ints, teacher: Ints) -> Ints:
    """For each row the row whose text it repeats: some repeat an earlier one of the same problem and teacher."""
    rows = np.arange(len(problem))
    order = np.lexsort((rows, teacher, problem))
    same = (np.diff(problem[order]) == 0) & (np.diff(teacher[order]) == 0)
    before = rows.copy()
    before[order[1:][same]] = order[:-1][same]
    copy_of = np.where(_some(rng, len(rows), 2 * _DUPLICATED), before, rows)
    return np.where(copy_of[copy_of] == copy_of, copy_of, rows)  # no copy of a copy


def _import(
    workspace: Workspace, rng: np.random.Generator, rows: _Rows, teachers: tuple[str, ...], name: str, hostile: bool
) -> Artifact:
    """Write the rows as JSONL with their labels, and import that."""
    num_problems = int(rows.problem[-1]) + 1
    prompts = problem_texts(rng, num_problems)
    truth = rng.integers(1, 1000, num_problems)
    unknown = _some(rng, num_problems, _UNKNOWN)
    said = np.where(rows.correct, truth[rows.problem], truth[rows.problem] + rng.integers(1, 99, len(rows)))
    num_chars = (rows.num_tokens * CHARS_PER_TOKEN).astype(np.int64)
    texts = responses(step_bank(rng), rng, num_chars, rows.teacher % 3, [str(n) for n in said], rows.boxed)
    for row in np.flatnonzero(rows.short):
        texts[row] = SHORT[row % len(SHORT)]
    ids: list[int | str] = list(range(num_problems))
    if hostile:
        _make_hostile(rows, ids, prompts, texts)
    correct = rows.correct & rows.boxed & ~rows.short
    with tempfile.TemporaryDirectory(prefix="lark-pool-") as folder:
        path = Path(folder) / f"{name}.jsonl"
        with path.open("w") as file:
            for row, (n, column, teacher, source) in enumerate(
                zip(
                    rows.problem.tolist(),
                    rows.column.tolist(),
                    rows.teacher.tolist(),
                    rows.copy_of.tolist(),
                    strict=True,
                )
            ):
                line: dict[str, Any] = {
                    "problem_id": ids[n], "candidate_id": column, "teacher": teachers[teacher],
                    "messages": [
                        {"role": "user", "content": prompts[n]}, {"role": "assistant", "content": texts[source]},
                    ],
                }  # fmt: skip
                if not unknown[n]:
                    line |= {"answer": str(truth[n]), "is_correct": bool(correct[source])}
                if row % 7 == 0:
                    line["subject"] = "algebra"
                file.write(json.dumps(line) + "\n")
        return import_pool(PoolConfig(source=str(path), name=name), workspace)


def _make_hostile(rows: _Rows, ids: list[int | str], prompts: list[str], texts: list[str]) -> None:
    """Put attacking ids, prompts and texts in place of some; the second problem's prompt becomes far too long."""
    for n in range(len(ids)):
        ids[n] = HOSTILE_PROBLEM_IDS[n] if n < len(HOSTILE_PROBLEM_IDS) else f"problem-{n}"
        if n % 2 == 0:
            prompts[n] = HOSTILE_TEXTS[n // 2 % len(HOSTILE_TEXTS)] + " " + prompts[n]
    if len(prompts) > 1:
        prompts[1] = "A prompt that fills the context. " * 8_000
    for row in range(len(rows)):
        if not rows.short[row]:
            texts[row] = HOSTILE_TEXTS[row % len(HOSTILE_TEXTS)] + "\n" + texts[row]
    texts[0] = LONG_LINE


def _score(
    workspace: Workspace, rng: np.random.Generator, rows: _Rows, pool: Artifact, num_teachers: int, seed: int
) -> Artifact:
    data = PoolData(pool)
    config = {**ScoreConfig(student=STUDENT).identity(), "dtype": "bfloat16", "chat_template": None}
    tokens, config["max_length"] = _tokens(data, rng)
    content = fingerprint({"generated": seed})
    plan = Plan(
        kind="scores", name=f"{pool.name}@{STUDENT}",
        fingerprint=fingerprint({"config": config, "pool": pool.fingerprint, "student": content, "version": VERSION}),
        config={**config, "student": STUDENT}, inputs={"pool": pool.ref},
        identity={"student": content, "version": VERSION},
    )  # fmt: skip
    return workspace.build(plan, lambda draft: _write_scores(draft, data, tokens, rows, num_teachers, rng, plan.config))


def _tokens(data: PoolData, rng: np.random.Generator) -> tuple[TokenizedPool, int]:
    """Token counts of the pool's texts, and the length at which the longest few are cut."""
    table = pq.read_table(data.artifact.path / "trajectories.parquet", columns=["prompt", "num_chars", "response_hash"])
    prompt_chars = pa.compute.utf8_length(table["prompt"]).to_numpy()
    num_prompt = (prompt_chars / CHARS_PER_TOKEN).astype(np.int64) + 12
    codes = table["prompt"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    hashes = table["response_hash"].to_numpy()
    noise = 1 + 0.08 * np.sin(hashes.astype(np.float64))  # the same text has the same number of tokens
    num_response = np.maximum((table["num_chars"].to_numpy() / CHARS_PER_TOKEN * noise).astype(np.int64), 1) + 1
    wanted = num_prompt + num_response
    max_length = int(np.median(num_prompt) + np.quantile(num_response, 1 - _TRUNCATED, method="lower"))
    lengths = np.minimum(wanted, max_length)
    with np.errstate(over="ignore"):
        tokens_hash = hashes ^ (codes * np.int64(0x5851F42D4C957F2D))
    tokens = TokenizedPool(
        ids=np.zeros(0, np.int32), offsets=np.append(0, np.cumsum(lengths)), num_prompt_tokens=num_prompt,
        truncated=wanted > max_length, prompt_hash=codes, tokens_hash=tokens_hash,
    )  # fmt: skip
    return tokens, max_length


def _write_scores(
    draft: Draft, data: PoolData, tokens: TokenizedPool, rows: _Rows, num_teachers: int, rng: np.random.Generator,
    config: dict[str, Any],
) -> None:  # fmt: skip
    """Write what the scoring stage writes, and count what it counts."""
    scorable = np.flatnonzero(tokens.num_response_tokens > 0)
    means = {name: values[scorable] for name, values in _means(rows, num_teachers, rng).items()}
    binned = _bins(means, tokens.num_response_tokens[scorable], rng)
    lost = _some(rng, len(scorable), _NOT_FINITE)
    means = {name: np.where(lost, np.nan, values) for name, values in means.items()}
    table = score_table(data.index(), tokens, pa.table({"row": pa.array(scorable), **means}), config["brier"])
    with replacing(draft.path / SCORES) as path:
        table.to_parquet(path, index=False)
    with replacing(draft.path / BINS) as path:
        pq.write_table(binned, path, compression="zstd", row_group_size=1024)
    num_tokens = int(tokens.lengths[scorable].sum())
    draft.counts = {
        "num_problems": int(table["problem_id"].nunique()), "num_trajectories": len(table),
        "num_truncated": int(table["truncated"].sum()), "num_reused": 0,
    }  # fmt: skip
    num_dropped = data.num_trajectories - len(table)
    draft.drops = {"no_response_token": num_dropped} if num_dropped else {}
    draft.tokens, draft.device = num_tokens, "cpu"
    draft.metrics = {
        "id_type": data.id_type, "max_length": config["max_length"],
        "response_tokens": int(table["num_response_tokens"].sum()), "computed_tokens": num_tokens,
        "num_not_finite": int(table["reason"].notna().sum()), "reused": {},
    }  # fmt: skip


def _means(rows: _Rows, num_teachers: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Means over tokens of every row: log-normal L by teacher, problem and candidate; Brier through ρ, and so on."""
    num_rows, num_problems = len(rows), int(rows.problem[-1]) + 1

    def effects(spread: float) -> Floats:
        of_teacher = np.linspace(-spread, spread, num_teachers)[rng.permutation(num_teachers)]
        return of_teacher[rows.teacher]

    difficulty = rng.normal(0, 0.22, num_problems)[rows.problem]
    shorter = np.log(np.median(rows.num_tokens) / rows.num_tokens)  # long reasoning repeats itself and is likelier
    noise = rng.normal(0, 0.16, num_rows) + 0.25 * rows.short
    nll = 0.55 * np.exp(effects(0.35) + difficulty + 0.12 * shorter - 0.04 * rows.correct + noise)
    rho = 0.40 * np.exp(effects(0.09) + rng.normal(0, 0.05, num_rows)) * (nll / 0.55) ** -0.18
    brier = np.minimum(rho * nll, 1.9)
    entropy = nll * np.exp(effects(0.08) + rng.normal(0.02, 0.09, num_rows))
    mean_rank = 1 + 2.2 * nll**1.3 * np.exp(effects(0.2) + rng.normal(0, 0.2, num_rows))
    means = {
        "nll": nll, "brier_exact": brier, "brier_top_k": brier * (1 + rng.normal(0, 0.004, num_rows)),
        "entropy": entropy, "mean_rank": np.minimum(mean_rank, 100.0),
    }  # fmt: skip
    return {name: values[rows.copy_of] for name, values in means.items()}


def _bins(means: dict[str, Floats], num_tokens: Ints, rng: np.random.Generator) -> pa.Table:
    """Means over 64 tokens that wander around the mean of their row, and average to it."""
    counts = -(-num_tokens // BIN_TOKENS)
    starts = np.cumsum(counts) - counts
    sizes = np.full(counts.sum(), float(BIN_TOKENS))
    sizes[starts + counts - 1] = num_tokens - BIN_TOKENS * (counts - 1)
    smooth = np.full(8, 8**-0.5)
    wander = np.exp(0.4 * np.convolve(rng.normal(size=len(sizes)), smooth, "same"))
    wander /= np.repeat(np.add.reduceat(wander * sizes, starts) / num_tokens, counts)
    offsets = pa.array(np.append(0, np.cumsum(counts)).astype(np.int32))
    nll = np.repeat(means["nll"], counts) * wander
    columns = {
        "nll": nll, "brier": np.minimum(np.repeat(means["brier_exact"], counts) * wander, 2.0),
        "rank": 1 + np.repeat(means["mean_rank"] - 1, counts) * wander,
        "entropy": np.repeat(means["entropy"], counts) * wander, "p_true": np.exp(-0.8 * nll),
    }  # fmt: skip
    lists = {
        f"{name}_bins": pa.ListArray.from_arrays(offsets, values.astype(np.float16)) for name, values in columns.items()
    }
    assert tuple(lists) == BIN_COLUMNS
    return pa.table(lists)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="workspace to make the pool in")
    parser.add_argument("--problems", type=int, default=5000)
    parser.add_argument("--candidates", type=int, default=33)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hostile", action="store_true", help="with ids, teachers and texts that attack a page")
    arguments = parser.parse_args()
    started = time.perf_counter()
    made = make_scored_pool(
        Workspace(arguments.folder), num_problems=arguments.problems, num_candidates=arguments.candidates,
        seed=arguments.seed, text_tokens=LARGE_TEXT_TOKENS, hostile=arguments.hostile,
    )  # fmt: skip
    print(f"{made.pool.id}\n{made.scores.id}\n{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
