"""Statistics of every response token: computed for given candidates, kept beside their scores, read by the page."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lark_engine.chat import ChatRenderer
from lark_engine.errors import StudentError
from lark_engine.models import load_tokenizer, resolve_student
from lark_engine.pool.dataset import PoolData
from lark_engine.scoring.executors import Executor, Work, keep_results, run_here
from lark_engine.scoring.parts import BINS, Parts
from lark_engine.scoring.planner import BATCH_TOKENS, plan_batches
from lark_engine.scoring.summaries import TOKEN_COLUMNS, TOKEN_STATISTICS
from lark_engine.scoring.table import read_scores
from lark_engine.scoring.token_text import TokenText
from lark_engine.scoring.tokenized import tokenize
from lark_engine.store.events import EventLog, Progress
from lark_engine.store.lock import lock
from lark_engine.store.workspace import Artifact, Workspace

log = logging.getLogger(__name__)

TOKEN_STATS_DIR = "token_stats"
_TEMPORARY = ".tokens-"


def score_tokens(
    scores: Artifact, workspace: Workspace, rows: Iterable[int], *, alternatives: int, device: str,
    batch_tokens: int | None = None, trust_remote_code: bool = False, run: Executor = run_here,
) -> int:  # fmt: skip
    """Compute and keep the token statistics of some rows of a score table; returns how many were not there yet.

    `alternatives`: the most probable tokens to keep for every token, 0 for none; rows that are there with fewer are
    computed anew. `device`: `cpu` or `cuda`. `trust_remote_code`: asked for anew, for a manifest that says so may be
    anybody's. Errors: `StudentError` when the student has changed since it scored, or its template renders other tokens
    than those that were scored.
    """
    table = read_scores(scores)
    folder = _folder(scores)
    with lock(folder):
        for left in folder.glob(f"{_TEMPORARY}*"):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        known = {row for stem in _stems(folder, alternatives) for row in Parts(folder, stem).known}
        missing = sorted(set(map(int, rows)) - known)
        if missing:
            parts = Parts(folder, _stem(alternatives))
            with tempfile.TemporaryDirectory(dir=folder, prefix=_TEMPORARY) as temporary:
                _compute(
                    scores, workspace, table, missing, parts, Path(temporary), alternatives, device, batch_tokens,
                    trust_remote_code, run,
                )  # fmt: skip
    return len(missing)


def _stem(alternatives: int) -> str:
    """The name of the parts that hold so many alternatives to every token."""
    return f"top{alternatives:02d}"


def _stems(folder: Path, least: int = 0) -> list[str]:
    """Names of the parts with at least so many alternatives, most first."""
    stems = {path.name.partition("-")[0] for path in folder.glob("top*-*.parquet")}
    return sorted((stem for stem in stems if stem >= _stem(least)), reverse=True)


def _compute(
    scores: Artifact, workspace: Workspace, table: pd.DataFrame, missing: list[int], parts: Parts, folder: Path,
    alternatives: int, device: str, batch_tokens: int | None, trust_remote_code: bool, run: Executor,
) -> None:  # fmt: skip
    manifest = scores.manifest
    if "student" not in manifest.identity:
        raise StudentError(
            f"{scores.id} was imported, and which student made it is not known for sure; score the pool with lark score"
        )
    model = resolve_student(str(manifest.config["student"]), workspace)
    if model.content != manifest.identity["student"]:
        raise StudentError(f"the student in {model.path} is not the one that made {scores.id}; score the pool again")
    config = manifest.config
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    if config["chat_template"] is not None:
        tokenizer.chat_template = config["chat_template"]
    renderer = ChatRenderer(tokenizer, render=config["render"], name=model.name)
    data = PoolData(workspace.resolve("pools", manifest.inputs["pool"].id))
    events = _folder(scores) / "events.jsonl"
    with Progress(EventLog(events, "tokenize"), len(missing), "trajectory") as progress:
        trajectories = data.trajectories(_pool_rows(data, table, missing))
        tokens = tokenize(trajectories, renderer, config["max_length"], folder, progress)
    if (tokens.tokens_hash != table["tokens_hash"].to_numpy()[missing]).any():
        raise StudentError(
            f"student {model.name} renders other tokens today than those that {scores.id} scored (a template that "
            "prints the date does that); score the pool again"
        )
    batches = plan_batches(
        np.arange(len(missing)), tokens.prompt_hash, tokens.num_prompt_tokens, tokens.num_response_tokens,
        batch_tokens=batch_tokens or BATCH_TOKENS[device],
    )  # fmt: skip
    work = Work(
        model=model, dtype=config["dtype"], device=device, top_k=config["top_k"],
        trust_remote_code=trust_remote_code, tokens_dir=folder, keep_tokens=True,
        num_alternatives=alternatives,
    )  # fmt: skip
    total = sum(batch.num_tokens for batch in batches)
    text = TokenText(tokenizer)

    def with_text(part: pa.Table) -> pa.Table:
        return _with_text(part, [missing[row] for row in part["row"].to_pylist()], table, text)

    with Progress(EventLog(events, "score tokens"), total, "token", starts_later=True, resumes=True) as progress, parts:
        keep_results(run(work, batches), batches, parts, progress, with_text)


def _pool_rows(data: PoolData, table: pd.DataFrame, rows: list[int]) -> list[int]:
    """Where the rows of a score table are in their pool; the table keeps the pool's order."""
    keys = ["problem_id", "candidate_id"]
    index = data.index()[keys].reset_index(names="pool_row")
    return [int(row) for row in table.iloc[rows][keys].merge(index, on=keys, how="left")["pool_row"]]


def keep_tokens(folder: Path, parts: Parts, table: pd.DataFrame, rows: pa.Table, tokenizer: Any) -> None:
    """Copy the token statistics of a run that kept them from its parts to where they stay, one part at a time.

    Parts that an earlier process wrote without them are left out.
    """
    target = Parts(folder / TOKEN_STATS_DIR, _stem(0))
    text = TokenText(tokenizer)
    place = {row: number for number, row in enumerate(rows["row"].to_pylist())}
    for part in parts.tables(["row", *TOKEN_COLUMNS]):
        target.add(_with_text(part, [place[row] for row in part["row"].to_pylist()], table, text))
        target.flush()


def _with_text(part: pa.Table, rows: list[int], table: pd.DataFrame, text: TokenText) -> pa.Table:
    """Token columns under rows of the score table, with ids of the candidates and the text of every token."""
    ids = table.iloc[rows]
    columns: dict[str, Any] = {
        "row": pa.array(rows, pa.int64()),
        "problem_id": pa.array(ids["problem_id"]),
        "candidate_id": pa.array(ids["candidate_id"]),
        **{name: part[name] for name in TOKEN_COLUMNS},
        "text": pa.array([text.pieces(tokens) for tokens in part["token_id"].to_pylist()], pa.list_(pa.string())),
        "top_text": pa.array(
            [[text.piece(token) for token in tokens] for tokens in part["top_id"].to_pylist()], pa.list_(pa.string())
        ),
    }
    return pa.table(columns)


def read_tokens(scores: Artifact, row: int) -> pd.DataFrame | None:
    """Every response token of one row of the score table, or None when they were not computed yet.

    Columns: token_id, text, nll, brier, rank, entropy, p_true, top_text and top_p (lists of the same length, the most
    probable first; empty where no alternatives were kept).
    """
    folder = _folder(scores)
    for stem in _stems(folder):
        for path in sorted(folder.glob(f"{stem}-*.parquet")):
            found = pq.read_table(path, filters=[("row", "=", row)]).to_pylist()
            if found:
                return _token_frame(found[0])
    return None


def _token_frame(line: dict[str, Any]) -> pd.DataFrame:
    num_tokens = len(line["token_id"])
    frame = pd.DataFrame({"token_id": line["token_id"], "text": line["text"]})
    for name in TOKEN_STATISTICS:
        frame[name] = np.asarray(line[f"{name}_tokens"], dtype=np.float64)
    size = len(line["top_id"]) // num_tokens
    for name in ("top_text", "top_p"):
        frame[name] = [
            line[name][start : start + size] for start in range(0, num_tokens * size or num_tokens, size or 1)
        ]
    return frame


def read_bins(scores: Artifact, row: int) -> pd.DataFrame:
    """Means over the bins of 64 response tokens of one row of the score table, a column for each token statistic."""
    with pq.ParquetFile(scores.path / BINS) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if row < size:
                [line] = file.read_row_group(group).slice(row, 1).to_pylist()
                return pd.DataFrame({n: np.asarray(line[f"{n}_bins"], np.float64) for n in TOKEN_STATISTICS})
            row -= size
    raise IndexError(f"{scores.id} has no row {row}")


def _folder(scores: Artifact) -> Path:
    return scores.path / TOKEN_STATS_DIR
