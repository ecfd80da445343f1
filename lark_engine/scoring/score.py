"""The scoring stage: a pool and a student become scores; resumable at any moment, memory flat in the pool's size."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lark_engine.chat import ChatRenderer, read_template
from lark_engine.config import ScoreConfig
from lark_engine.errors import StudentError
from lark_engine.models import (
    ModelRef,
    context_length,
    free_device_memory,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
    resolve_student,
)
from lark_engine.pool.dataset import PoolData
from lark_engine.scoring.criteria import g_hat, rho
from lark_engine.scoring.matrix import layout
from lark_engine.scoring.planner import plan_batches
from lark_engine.scoring.tokenized import TokenizedPool, tokenize
from lark_engine.store.atomic import replacing
from lark_engine.store.events import EventLog, Progress
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.rows import RowLog, read_rows
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_table

log = logging.getLogger(__name__)

SCORES = "scores.parquet"
METHOD = "lark_ghat"
# To be raised when a change of the code changes scores of the same options and inputs.
VERSION = 1
_STATS = ("nll", "brier_exact", "brier_top_k", "entropy", "mean_rank", "rsr")


def plan_score(config: ScoreConfig, workspace: Workspace, pool: Artifact | Plan) -> tuple[Plan, ModelRef]:
    """What scoring would make, and the student that it would use; nothing is loaded."""
    student = resolve_student(config.student, workspace)
    dtype = resolve_dtype(config.dtype, resolve_device(config.device))
    max_length = min(config.max_length, context_length(student) or config.max_length)
    template = read_template(config.chat_template)
    resolved = {**config.identity(), "dtype": dtype, "max_length": max_length, "chat_template": template}
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


def score(config: ScoreConfig, workspace: Workspace, pool: Artifact) -> Artifact:
    """Score every candidate of a pool. Writes scores.parquet, one row a scored candidate, in the pool's order.

    Columns: problem_id, candidate_id, teacher, nll, brier, rho, g_hat, rsr, entropy, mean_rank, brier_exact,
    brier_top_k, num_response_tokens, num_prompt_tokens, truncated, reason (why a number is null).
    Errors: `StudentError` when the student's chat template would make the scores wrong; `DeviceError`.
    """
    plan, student = plan_score(config, workspace, pool)
    return workspace.build(plan, lambda draft: _make(draft, config, plan, student, pool))


def _make(draft: Draft, config: ScoreConfig, plan: Plan, model: ModelRef, pool: Artifact) -> None:
    device = resolve_device(config.device)
    data = PoolData(pool)
    tokenizer = load_tokenizer(model, trust_remote_code=config.trust_remote_code)
    renderer = ChatRenderer(tokenizer, render=config.render, chat_template=config.chat_template, name=model.name)
    parts = draft.path / "parts"
    events = EventLog(draft.path / "events.jsonl", "score")
    max_length = plan.config["max_length"]
    with Progress(EventLog(events.path, "tokenize"), data.num_trajectories, "trajectory") as progress:
        tokens = tokenize(data.trajectories(), renderer, max_length, parts, progress)
    scorable = np.flatnonzero(tokens.num_response_tokens > 0)
    if not len(scorable):
        raise StudentError(
            f"no trajectory of {pool.id} has a response token within {max_length} tokens; raise --max-length"
        )
    with RowLog(parts / "rows.jsonl", ("row",)) as rows:
        todo = [int(row) for row in scorable if (int(row),) not in rows.known]
        if len(todo) < len(scorable):
            log.info("resuming: %d of %d trajectories are scored already", len(scorable) - len(todo), len(scorable))
        _score_rows(config, plan, model, device, tokens, todo, len(scorable), rows, events)
    table = _table(data.index(), tokens, parts / "rows.jsonl", config)
    with replacing(draft.path / SCORES) as partial:
        table.to_parquet(partial, index=False)
    shutil.rmtree(parts)
    draft.counts = {
        "num_problems": int(table["problem_id"].nunique()),
        "num_trajectories": len(table),
        "num_truncated": int(table["truncated"].sum()),
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
        "num_not_finite": int(table["reason"].notna().sum()),
    }


def _score_rows(
    config: ScoreConfig, plan: Plan, model: ModelRef, device: str, tokens: TokenizedPool, todo: list[int], total: int,
    rows: RowLog, events: EventLog,
) -> None:  # fmt: skip
    """Run the student over the missing rows and append each batch as soon as it is there."""
    if not todo:
        return
    from lark_engine.scoring.student import Student

    student = Student(
        model, dtype=plan.config["dtype"], device=device, top_k=config.top_k, trust_remote_code=config.trust_remote_code
    )
    batches = plan_batches(todo, tokens.lengths, batch_size=config.batch_size, batch_tokens=config.batch_tokens)
    num_tokens = int(tokens.lengths[todo].sum())
    with Progress(events, num_tokens, "token") as progress:
        for batch in batches:
            stats = student.score([(tokens.tokens(row).tolist(), int(tokens.num_prompt_tokens[row])) for row in batch])
            rows.append(
                {"row": row, **{k: v if np.isfinite(v) else None for k, v in row_stats.items()}}
                for row, row_stats in zip(batch, stats, strict=True)
            )
            progress.update(int(tokens.lengths[batch].sum()), trajectories=len(rows.known), total_trajectories=total)
    del student
    free_device_memory()


def _table(index: pd.DataFrame, tokens: TokenizedPool, rows_path: Path, config: ScoreConfig) -> pd.DataFrame:
    """The score table in the pool's order, with the criteria that need a problem's whole candidate set."""
    rows = sorted(read_rows(rows_path), key=lambda row: row["row"])
    position = np.array([row["row"] for row in rows])
    stats = {name: np.array([_number(row[name]) for row in rows], dtype=np.float64) for name in _STATS}
    table = index.loc[position, ["problem_id", "candidate_id", "teacher"]].reset_index(drop=True)
    nll = stats["nll"]
    brier = stats["brier_exact" if config.brier == "exact" else "brier_top_k"]
    where = layout(table["problem_id"])
    table["nll"], table["brier"] = nll, brier
    table["rho"] = rho(nll, brier)
    table["g_hat"] = where.gather(g_hat(where.spread(nll), where.spread(brier)))
    for name in ("rsr", "entropy", "mean_rank", "brier_exact", "brier_top_k"):
        table[name] = stats[name]
    table["num_response_tokens"] = tokens.num_response_tokens[position]
    table["num_prompt_tokens"] = tokens.num_prompt_tokens[position]
    table["truncated"] = tokens.truncated[position]
    lost = ~(np.isfinite(nll) & np.isfinite(brier))
    table["reason"] = pd.Series("not_finite", index=table.index, dtype="string").where(lost)
    return table


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def read_scores(scores: Artifact) -> pd.DataFrame:
    """The score table of an artifact. Errors: `StoreError` when the file is damaged."""
    return read_table(scores.path / SCORES)


def released_scores(scores: Artifact) -> dict[str, Any]:
    """The scores in the format of the released code (`lark_ghat.json`)."""
    table = read_scores(scores)
    id_type = scores.manifest.metrics["id_type"]
    problems: dict[str, list[dict[str, Any]]] = {}
    for row in _finite_rows(table):
        problems.setdefault(str(row["problem_id"]), []).append(
            {
                "candidate_id": int(row["candidate_id"]),
                "teacher": row["teacher"],
                "L": row["nll"],
                "Brier": row["brier"],
                "rho": row["rho"],
                "g_hat": row["g_hat"],
            }
        )
    scored = sum(len(candidates) for candidates in problems.values())
    return {
        "lark_scores": scores.id,
        "method": METHOD,
        "student_model": scores.manifest.config["student"],
        "top_k": scores.manifest.config["top_k"],
        "brier": scores.manifest.config["brier"],
        "id_type": id_type,
        "n_problems": len(problems),
        "n_scored": scored,
        "n_skipped": sum(scores.manifest.drops.values()) + len(table) - scored,
        "scores": problems,
    }


def _finite_rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    finite = table[table["reason"].isna()]
    columns = ["problem_id", "candidate_id", "teacher", "nll", "brier", "rho", "g_hat"]
    for values in finite[columns].itertuples(index=False, name=None):
        yield dict(zip(columns, values, strict=True))
