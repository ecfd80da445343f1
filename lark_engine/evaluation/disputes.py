"""Verdicts that a person disagrees with: an overlay beside the generations that changes what is shown.

`disputes.jsonl` is only ever appended to; the last line of a sample counts. It belongs to the generations, not to one
way of grading them: what a person has decided about an answer holds however it is graded. grades.parquet keeps what the
rules said.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from lark_engine import access
from lark_engine.errors import ConfigError, StoreError
from lark_engine.store.atomic import disk_errors
from lark_engine.store.lock import lock
from lark_engine.store.rows import append_durably, read_rows
from lark_engine.store.workspace import Artifact

DISPUTES = "disputes.jsonl"
_LOCK_DIR = "resume"


class SampleKey(NamedTuple):
    """Which sample of which problem."""

    problem_id: str
    sample_index: int


class Dispute(BaseModel):
    """A person's verdict on one sample; `correct` None takes an earlier one back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem_id: str
    sample_index: int = Field(ge=0)
    correct: bool | None
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    created_at: str = ""

    @property
    def key(self) -> SampleKey:
        return SampleKey(self.problem_id, self.sample_index)


def add_dispute(
    generations: Artifact, key: SampleKey, *, correct: bool | None, author: str, reason: str
) -> Dispute:  # fmt: skip
    """Record a person's verdict on a sample of these generations, or with None take it back.

    Errors: `ConfigError` for a sample that is not there, and without author or reason.
    """
    from lark_engine.evaluation.generate import GENERATIONS

    access.require("save")
    known = {SampleKey(row["problem_id"], row["sample_index"]) for row in read_rows(generations.path / GENERATIONS)}
    if key not in known:
        of_problem = sorted(k.sample_index for k in known if k.problem_id == key.problem_id)
        place = f"its samples are {of_problem[0]} to {of_problem[-1]}" if of_problem else "it has no such problem"
        raise ConfigError(f"{generations.id}: no sample {key.sample_index} of problem {key.problem_id!r}; {place}")
    if not author.strip() or not reason.strip():
        raise ConfigError("a dispute needs its author and a reason; give --author and --reason")
    dispute = Dispute(
        problem_id=key.problem_id, sample_index=key.sample_index, correct=correct, author=author.strip(),
        reason=reason.strip(), created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    path, root = generations.path / DISPUTES, generations.path.parents[2]
    details: dict[str, str | int] = {
        "generations": generations.id, "problem": key.problem_id, "sample": key.sample_index,
        "verdict": {True: "correct", False: "wrong", None: "as-graded"}[correct],
    }  # fmt: skip
    with (
        access.action(root, "save", "dispute.record", **details), lock(generations.path / _LOCK_DIR), disk_errors(path)
    ):  # fmt: skip
        append_durably(path, dispute.model_dump())
    return dispute


def read_disputes(generations_dir: Path) -> dict[SampleKey, Dispute]:
    """The disputes that stand, by sample. Errors: `StoreError` for a line that is none, with its number."""
    path = generations_dir / DISPUTES
    if not path.is_file():
        return {}
    found: dict[SampleKey, Dispute] = {}
    number = 0
    try:
        for row in read_rows(path):
            number += 1
            dispute = Dispute.model_validate(row)
            found[dispute.key] = dispute
    except (ValueError, AssertionError) as error:
        raise StoreError(f"{path}:{max(number, 1)}: is no dispute; mend or remove this line") from error
    return {key: dispute for key, dispute in found.items() if dispute.correct is not None}


def apply_disputes(grades: pd.DataFrame, disputes: dict[SampleKey, Dispute]) -> pd.DataFrame:
    """The grades with `correct` as the disputes say, and `disputed`: where they say otherwise than the rules."""
    keys = [SampleKey(str(p), int(i)) for p, i in zip(grades["problem_id"], grades["sample_index"], strict=True)]
    correct = [
        bool(disputes[key].correct) if key in disputes else bool(by_rule)
        for key, by_rule in zip(keys, grades["correct"], strict=True)
    ]
    return grades.assign(
        correct=correct, disputed=[new != bool(old) for new, old in zip(correct, grades["correct"], strict=True)]
    )
