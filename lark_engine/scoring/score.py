"""The scoring stage: a pool and a student become scores; resumable at any moment."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lark_engine.chat import ChatRenderer, read_template
from lark_engine.config import ScoreConfig
from lark_engine.errors import StudentError
from lark_engine.models import ModelRef, context_length, load_tokenizer, resolve_device, resolve_dtype, resolve_student
from lark_engine.pool.dataset import PoolData
from lark_engine.scoring import reuse
from lark_engine.scoring.executors import Executor, Work, keep_results, run_here, run_on_ray
from lark_engine.scoring.parts import BINS, SCORES, Parts
from lark_engine.scoring.planner import BATCH_TOKENS, Batch, plan_batches
from lark_engine.scoring.summaries import BIN_COLUMNS
from lark_engine.scoring.table import ROW_COLUMNS, score_table, sorted_rows
from lark_engine.scoring.token_view import keep_tokens, score_tokens
from lark_engine.scoring.tokenized import TokenizedPool, tokenize
from lark_engine.store.atomic import replacing
from lark_engine.store.events import EventLog, Progress
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

log = logging.getLogger(__name__)

# To be raised when a change of the code changes scores of the same options and inputs.
VERSION = 2


def plan_score(config: ScoreConfig, workspace: Workspace, pool: Artifact | Plan) -> tuple[Plan, ModelRef]:
    """What scoring would make, and the student that it would use; nothing is loaded."""
    student = resolve_student(config.student, workspace)
    dtype = resolve_dtype(config.dtype, _device(config))
    resolved = resolved_options(config, dtype=dtype, context=context_length(student))
    identity = {"student": student.content, "version": VERSION}
    plan = Plan(
        kind="scores",
        name=f"{pool.name}@{student.name}",
        fingerprint=fingerprint({"config": resolved, "pool": pool.fingerprint, **identity}),
        config={**resolved, "student": student.origin},
        inputs={"pool": pool.ref, **({"student": student.artifact.ref} if student.artifact else {})},
        identity=identity,
    )
    return plan, student


def resolved_options(config: ScoreConfig, *, dtype: str, context: int | None) -> dict[str, Any]:
    """The options that change a score, as they hold for a student whose longest sequence is `context`.

    Errors: `StudentError` when the chat template cannot be read.
    """
    max_length = min(config.max_length, context or config.max_length)
    template = read_template(config.chat_template)
    return {**config.identity(), "dtype": dtype, "max_length": max_length, "chat_template": template}


def _device(config: ScoreConfig) -> str:
    """`cpu` or `cuda`. The head of a cluster need not have the device that its workers have."""
    on_workers = config.ray_address is not None and config.device == "cuda"
    return "cuda" if on_workers else resolve_device(config.device)


def score(config: ScoreConfig, workspace: Workspace, pool: Artifact) -> Artifact:
    """Score every candidate of a pool that this student has not scored yet, in this pool or in another.

    Writes scores.parquet, one row a scored candidate, in the pool's order: problem_id, candidate_id, teacher, nll,
    brier, the criteria of `criteria.CRITERIA`, brier_exact, brier_top_k, entropy, mean_rank, num_response_tokens,
    num_prompt_tokens, truncated, tokens_hash, reason (why a number is null); and row for row token_bins.parquet, the
    token statistics in means of 64 tokens. With `token_stats: full`, every token of every row in token_stats/.
    Errors: `StudentError` when the student's chat template would make the scores wrong; `DeviceError`.
    """
    plan, student = plan_score(config, workspace, pool)
    scores = workspace.build(plan, lambda draft: _make(draft, config, workspace, plan, student, pool))
    if config.token_stats == "full":
        rows = range(scores.manifest.counts["num_trajectories"])
        score_tokens(
            scores, workspace, rows, alternatives=0, device=_device(config), batch_tokens=config.batch_tokens,
            run=_executor(config),
        )  # fmt: skip
    return scores


def _make(draft: Draft, config: ScoreConfig, workspace: Workspace, plan: Plan, model: ModelRef, pool: Artifact) -> None:
    device = _device(config)
    data = PoolData(pool)
    tokenizer = load_tokenizer(model, trust_remote_code=config.trust_remote_code)
    renderer = ChatRenderer(tokenizer, render=config.render, chat_template=config.chat_template, name=model.name)
    folder = draft.scratch
    events = EventLog(draft.path / "events.jsonl", "score")
    max_length = plan.config["max_length"]
    with Progress(EventLog(events.path, "tokenize"), data.num_trajectories, "trajectory") as progress:
        tokens = tokenize(data.trajectories(), renderer, max_length, folder, progress)
    scorable = np.flatnonzero(tokens.num_response_tokens > 0)
    if not len(scorable):
        raise StudentError(
            f"no trajectory of {pool.id} has a response token within {max_length} tokens; raise --max-length"
        )
    reused = reuse.take_over(folder / "reused.parquet", plan, workspace, tokens, scorable)
    batches = plan_batches(
        np.setdiff1d(scorable, reused["row"].to_numpy()), tokens.prompt_hash, tokens.num_prompt_tokens,
        tokens.num_response_tokens, batch_tokens=config.batch_tokens or BATCH_TOKENS[device],
        batch_size=config.batch_size,
    )  # fmt: skip
    work = Work(
        model=model, dtype=plan.config["dtype"], device=device, top_k=config.top_k,
        trust_remote_code=config.trust_remote_code, tokens_dir=folder, keep_tokens=config.token_stats == "full",
    )  # fmt: skip
    with Parts(folder, "rows") as parts:
        run_batches(config, work, batches, tokens, parts, events)
    rows = sorted_rows([reused, *parts.tables(ROW_COLUMNS)])
    assert rows["row"].to_pylist() == scorable.tolist(), "every scorable row is scored once"
    table = score_table(data.index(), tokens, rows, config.brier)
    with replacing(draft.path / SCORES) as path:
        table.to_parquet(path, index=False)
    with replacing(draft.path / BINS) as path:
        pq.write_table(rows.select(list(BIN_COLUMNS)), path, compression="zstd", row_group_size=1024)
    if work.keep_tokens:
        keep_tokens(draft.path, parts, table, rows, tokenizer)
    draft.counts = {
        "num_problems": int(table["problem_id"].nunique()),
        "num_trajectories": len(table),
        "num_truncated": int(table["truncated"].sum()),
        "num_reused": len(reused),
    }
    draft.drops = (
        {"no_response_token": data.num_trajectories - len(table)} if len(table) < data.num_trajectories else {}
    )
    draft.tokens = int(tokens.lengths[scorable].sum())
    draft.device = device
    draft.metrics = {
        "id_type": data.id_type,
        "max_length": max_length,
        "response_tokens": int(table["num_response_tokens"].sum()),
        "computed_tokens": sum(batch.num_tokens for batch in batches),
        "num_not_finite": int(table["reason"].notna().sum()),
        "reused": reuse.counts(reused),
    }


def run_batches(
    config: ScoreConfig, work: Work, batches: list[Batch], tokens: TokenizedPool, parts: Parts, events: EventLog
) -> None:
    """Score the batches that are not finished, and add each to the parts as soon as it is there."""
    todo = [batch for batch in batches if not parts.known.issuperset(batch.rows)]
    total = sum(batch.num_tokens for batch in batches)
    left = sum(batch.num_tokens for batch in todo)
    if not todo:
        return
    num_rows = sum(len(batch.rows) for batch in batches)
    if left < total:
        log.info("resuming: %d of %d trajectories are scored already", len(parts.known), num_rows)
    shared = int(tokens.lengths[[row for batch in batches for row in batch.rows]].sum()) - total
    log.info(
        "%d trajectories in %d passes: %d tokens, and %d more of prompts that are computed once",
        num_rows, len(batches), total, shared,
    )  # fmt: skip
    # Workers start and students are loaded before the first batch is there.
    with Progress(events, total, "token", done=total - left, starts_later=True, resumes=True) as progress:
        keep_results(_executor(config)(work, todo), todo, parts, progress)


def _executor(config: ScoreConfig) -> Executor:
    if config.executor == "ray":
        return partial(run_on_ray, address=config.ray_address, num_workers=config.num_workers)
    return run_here
