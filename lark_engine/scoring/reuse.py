"""Scores that exist already: a pool that grew by a teacher has only its new candidates scored.

What a student says of a trajectory depends on its tokens alone, so finished scores of the same student, whatever pool
they are of, are taken over by a hash of the tokens. g_hat, which depends on the other candidates, is made anew.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lark_engine.scoring.parts import BINS, SCORES
from lark_engine.scoring.summaries import BIN_COLUMNS, MEANS, take_rows
from lark_engine.scoring.tokenized import TokenizedPool
from lark_engine.store.atomic import replacing
from lark_engine.store.workspace import Artifact, Plan, Workspace

log = logging.getLogger(__name__)

# What of a score's options changes the numbers of a single trajectory whose tokens are given.
SAME_CONFIG = ("top_k", "dtype", "trust_remote_code")
# Rows of other pools are known by these: the hash, and two lengths against the odds of a chance equality.
_KEYS = ["tokens_hash", "num_prompt_tokens", "num_response_tokens"]
_COUNTS = b"lark_reused"


def take_over(
    path: Path, plan: Plan, workspace: Workspace, tokens: TokenizedPool, wanted: NDArray[np.int64]
) -> pa.Table:
    """Means and bins of those `wanted` rows that finished scores of this student hold; kept in `path`.

    A resumed run reads what the first one decided: the plan of its batches must not change.
    """
    if not path.exists():
        table = _find(plan, workspace, tokens, wanted)
        with replacing(path) as partial:
            pq.write_table(table, partial, compression="zstd")
    return pq.read_table(path)


def counts(table: pa.Table) -> dict[str, int]:
    """How many rows were taken from which scores, by id."""
    return dict(json.loads((table.schema.metadata or {}).get(_COUNTS, b"{}")))


def _find(plan: Plan, workspace: Workspace, tokens: TokenizedPool, wanted: NDArray[np.int64]) -> pa.Table:
    missing = pd.DataFrame({"row": wanted, **{name: getattr(tokens, name)[wanted] for name in _KEYS}})
    found: list[pa.Table] = []
    taken: dict[str, int] = {}
    for source in workspace.list("scores"):
        if source.fingerprint == plan.fingerprint or not _same_student(source, plan):
            continue
        scores = pq.read_table(source.path / SCORES, columns=[*_KEYS, *MEANS])
        known = scores.select(_KEYS).to_pandas().reset_index(names="place").drop_duplicates(_KEYS)
        match = missing.merge(known, on=_KEYS)
        if not len(match):
            continue
        table = scores.select(list(MEANS))
        bins = pq.read_table(source.path / BINS, columns=list(BIN_COLUMNS))
        for name in BIN_COLUMNS:
            table = table.append_column(name, bins[name])
        found.append(take_rows(table, match["place"]).add_column(0, "row", pa.array(match["row"])))
        taken[source.id] = len(match)
        missing = missing[~missing["row"].isin(match["row"])]
        log.info("%d of %d candidates are scored already, in %s", len(match), len(wanted), source.id)
    result = pa.concat_tables(found) if found else pa.table({"row": pa.array([], pa.int64())})
    return result.replace_schema_metadata({_COUNTS: json.dumps(taken)})


def _same_student(source: Artifact, plan: Plan) -> bool:
    manifest = source.manifest
    return manifest.identity == plan.identity and all(
        manifest.config.get(name) == plan.config[name] for name in SAME_CONFIG
    )
