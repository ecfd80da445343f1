"""Correctness labels: given ones kept, the rest found by comparing the response with the reference answer.

A label is true, false, or null with a reason; `label_reason` says where each one comes from:

| is_correct | label_reason | meaning |
|---|---|---|
| true, false | given | the source says so |
| true, false | null | the response's answer was compared with the reference |
| false | no_answer, unfinished_thinking, too_long | the response holds no answer that could be compared |
| null | no_reference | there is nothing to compare with |
| null | timeout, worker_died, error: … | the comparison did not come to an end |
| null | labels_off | labels were not wanted |
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lark_engine.config import PoolConfig
from lark_engine.pool.staging import Row
from lark_engine.store.rows import RowLog, read_rows

LABEL_COLUMNS = ["problem_id", "candidate_id", "response", "answer", "is_correct"]
_NO_ANSWER = ("no_answer", "unfinished_thinking", "too_long")
_BATCH = 64
Key = tuple[str, int]


class Label(NamedTuple):
    """A correctness label and where it comes from (see the table above)."""

    is_correct: bool | None
    reason: str | None


def known_label(config: PoolConfig, answer: str | None, is_correct: bool | None) -> Label | None:
    """The label that needs no comparison, or None when the response must be compared with the answer."""
    if config.labels == "none":
        return Label(None, "labels_off")
    if config.labels == "auto" and is_correct is not None:
        return Label(is_correct, "given")
    return Label(None, "no_reference") if answer is None else None


def label_of_grade(correct: bool, reason: str | None) -> Label:
    """What a grade says: an unfinished comparison is unknown, a response without an answer is wrong."""
    return Label(correct if reason is None or reason in _NO_ANSWER else None, reason)


def verify(log: RowLog, rows: Iterable[Row], config: PoolConfig, done: Callable[[int], None]) -> None:
    """Compare the responses of `rows` with their answers in worker processes and append the labels to `log`.

    Rows whose key the log knows are passed over, so a stopped import goes on where it was. Memory: keys and texts of
    the few rows under way. `done` is told how many were finished each time.
    """
    from lark_engine.evaluation.grading import GradeItem, grade_all  # loads math-verify: only when something needs it

    keys: deque[Key] = deque()

    def items() -> Iterator[GradeItem]:
        for row in rows:
            if known_label(config, row["answer"], row["is_correct"]) is not None:
                continue
            if (key := (row["problem_id"], row["candidate_id"])) not in log.known:
                keys.append(key)
                yield GradeItem(text=row["response"], reference=row["answer"])

    def labeled() -> Generator[dict[str, object], None, None]:
        grading = grade_all(items(), time_limit_s=config.time_limit_s, workers=config.workers)
        with contextlib.closing(grading):  # type: ignore[type-var]  # a generator, whose closing stops the workers
            for grade in grading:
                problem_id, candidate_id = keys.popleft()
                label = label_of_grade(grade.correct, grade.reason)
                yield {"problem_id": problem_id, "candidate_id": candidate_id, **label._asdict()}

    labels = labeled()
    with contextlib.closing(labels):
        while batch := list(islice(labels, _BATCH)):
            log.append(batch)
            done(len(batch))


def read_labels(path: Path) -> dict[Key, Label]:
    """The labels that `verify` has written, by (problem_id, candidate_id)."""
    if not path.exists():
        return {}
    return {(r["problem_id"], r["candidate_id"]): Label(r["is_correct"], r["reason"]) for r in read_rows(path)}


def apply_labels(rows: Iterable[Row], labels: dict[Key, Label], config: PoolConfig) -> Iterator[Row]:
    """The rows with their labels: those that need no comparison, else those from `labels`."""
    for row in rows:
        label = known_label(config, row["answer"], row["is_correct"]) or labels[row["problem_id"], row["candidate_id"]]
        yield {**row, "is_correct": label.is_correct, "label_reason": label.reason}
