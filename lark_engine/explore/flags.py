"""Candidates that a person has flagged, each with a reason: notes beside a pool that change no number.

`flags.jsonl` is only ever appended to; the last line of a candidate counts. A flag belongs to the pool, whatever
student scores it. It is a note, not a verdict: to keep a candidate out of a selection, gate it or mend the pool.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from lark_engine import access
from lark_engine.errors import ConfigError, StoreError
from lark_engine.pool.staging import TRAJECTORIES
from lark_engine.store.atomic import disk_errors
from lark_engine.store.lock import lock
from lark_engine.store.rows import append_durably, read_rows
from lark_engine.store.workspace import Artifact

FLAGS = "flags.jsonl"
LONGEST_REASON = 2000


class CandidateKey(NamedTuple):
    """Which candidate of which problem."""

    problem_id: str
    candidate_id: int


class Flag(BaseModel):
    """A person's note on one candidate; `flagged` False takes an earlier one back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem_id: str
    candidate_id: int
    flagged: bool
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    created_at: str = ""

    @property
    def key(self) -> CandidateKey:
        return CandidateKey(self.problem_id, self.candidate_id)


def set_flag(pool: Artifact, key: CandidateKey, *, flagged: bool, author: str, reason: str) -> Flag:
    """Flag a candidate of this pool, or take its flag back.

    Errors: `ConfigError` for a candidate that is not there, without author or reason, and for a flag to take back that
    there is not; `StoreError` when the pool's folder cannot be written.
    """
    assert pool.kind == "pools", f"{pool.id} is of kind {pool.kind}"
    access.require("save")
    _require_candidate(pool, key)
    if not author.strip() or not reason.strip():
        raise ConfigError("a flag needs its author and a reason; give --author and --reason")
    if len(reason) > LONGEST_REASON:
        raise ConfigError(f"the reason is longer than {LONGEST_REASON:,} characters; shorten it")
    flag = Flag(
        problem_id=key.problem_id, candidate_id=key.candidate_id, flagged=flagged, author=author.strip(),
        reason=reason.strip(), created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    path, root = pool.path / FLAGS, pool.path.parents[1]
    details: dict[str, str | int] = {"pool": pool.id, "problem": key.problem_id, "candidate": key.candidate_id}
    what = "flag.set" if flagged else "flag.remove"
    with access.action(root, "save", what, **details), disk_errors(path), lock(pool.path):
        if not flagged and key not in read_flags(pool):
            raise ConfigError(f"{pool.id}: candidate {key.candidate_id} of problem {key.problem_id!r} has no flag")
        append_durably(path, flag.model_dump())
    return flag


def read_flags(pool: Artifact) -> dict[CandidateKey, Flag]:
    """The flags that stand, by candidate. Errors: `StoreError` for a line that is none, with its number, and
    for a file that cannot be read."""
    path = pool.path / FLAGS
    found: dict[CandidateKey, Flag] = {}
    if not path.is_file():
        return {}
    number = 1
    try:
        for row in read_rows(path):
            flag = Flag.model_validate(row)
            found[flag.key] = flag
            number += 1
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, AssertionError) as error:
        raise StoreError(f"{path}:{number}: is no flag; mend or remove this line") from error
    return {key: flag for key, flag in found.items() if flag.flagged}


def flags_version(pool: Artifact) -> tuple[int, int]:
    """A value that changes whenever a flag is added or taken back: time and size of the file."""
    return file_version(pool.path / FLAGS)


def file_version(path: Path) -> tuple[int, int]:
    """Time and size of a file; zeros when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


def _require_candidate(pool: Artifact, key: CandidateKey) -> None:
    path = pool.path / TRAJECTORIES
    try:
        rows = pq.read_table(path, columns=["candidate_id"], filters=[("problem_id", "=", key.problem_id)])
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: the pool's table cannot be read ({error}); import it again") from error
    known = sorted(rows["candidate_id"].to_pylist())
    if key.candidate_id not in known:
        place = f"its candidates are {known[0]} to {known[-1]}" if known else "the pool has no such problem"
        raise ConfigError(f"{pool.id}: no candidate {key.candidate_id} of problem {key.problem_id!r}; {place}")
