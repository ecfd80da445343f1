"""Checks of source rows: a raw value becomes a `Trajectory`, or a `Rejection` that says where, what and what to do.

No input/output here. `check_row` looks at one row alone; `PoolChecks` adds what only the rows before it can tell:
repeated ids, a second prompt under one problem_id, candidate ids that are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from lark_engine.pool.conversations import FORMAT, read_messages, split_answer, unread_keys
from lark_engine.pool.rejections import BadRow, Rejection, clean_text, json_text, kind_of
from lark_engine.records import IdType, Message, Trajectory

_MAX_CANDIDATE_ID = 2**31 - 1
# Python reads and writes nested JSON by recursion: what it could read here it might not write, nor read on a page.
_MAX_DEPTH = 64
_KNOWN_KEYS = frozenset({"problem_id", "candidate_id", "teacher", "messages", "answer", "is_correct"})


class CheckedRow(NamedTuple):
    """One row that is sound by itself. `candidate_id` is None when the source left it out."""

    problem_id: str
    problem_id_is_int: bool
    candidate_id: int | None
    teacher: str
    prompt: tuple[Message, ...]
    response: str
    answer: str | None
    is_correct: bool | None
    extra: dict[str, Any]


def check_row(raw: object) -> CheckedRow:
    """One source row, checked by itself.

    Accepted shapes of the conversation, the first that is there: `messages` (role, content); `conversations`
    (from, value, as ShareGPT writes them); a prompt key (prompt, problem, question, instruction with an optional
    input) with a response key (response, output, completion, solution, generation) and an optional `system`.
    `answer` is always the reference answer, never the response. Keys that are not read are kept in `extra`.

    Errors: `BadRow`.
    """
    if _is_deeper(raw, _MAX_DEPTH):
        raise BadRow(
            "nested_too_deep", "line", f"the row is nested more than {_MAX_DEPTH} levels deep", "",
            "write nested values as text, or leave them out",
        )  # fmt: skip
    if not isinstance(raw, Mapping):
        raise BadRow(
            "not_an_object", "line", f"the row is {kind_of(raw)}, no JSON object", raw,
            f'each row must be an object like {{"problem_id": 0, "teacher": "…", {FORMAT}}}',
        )  # fmt: skip
    problem_id, is_int = _problem_id(raw)
    candidate_id, teacher = _candidate_id(raw), _teacher(raw)
    messages, used = read_messages(raw)
    prompt, response = split_answer(messages)
    extra = {str(key): value for key, value in raw.items() if key not in _KNOWN_KEYS and key not in used}
    if unread := unread_keys(raw.get("messages")):
        extra["message_keys"] = unread
    return CheckedRow(
        problem_id, is_int, candidate_id, teacher, prompt, response, _answer(raw), _is_correct(raw), extra
    )


def _is_deeper(value: object, most: int) -> bool:
    """Whether a value is nested in more levels of lists and objects; found level by level, without recursion."""
    level = [value]
    for _ in range(most + 1):
        nested = [v for v in level if isinstance(v, Mapping | list | tuple)]
        level = [item for v in nested for item in (v.values() if isinstance(v, Mapping) else v)]
        if not nested:
            return False
    return True


def _problem_id(raw: Mapping[str, Any]) -> tuple[str, bool]:
    value = raw.get("problem_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), True
    if isinstance(value, str) and value.strip():
        return clean_text(value), False
    problem = "problem_id is missing" if value is None else f"problem_id is {kind_of(value)}"
    remedy = "give each row the integer or text that names its problem"
    raise BadRow("bad_problem_id", "problem_id", problem, raw if value is None else value, remedy)


def _candidate_id(raw: Mapping[str, Any]) -> int | None:
    value = raw.get("candidate_id")
    if value is None:
        return None
    is_digits = isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit()
    number = int(value) if is_digits else value
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _MAX_CANDIDATE_ID:
        return number
    problem = f"candidate_id is {kind_of(value)}, no integer from 0 to {_MAX_CANDIDATE_ID}"
    remedy = "number the candidates of each problem 0, 1, 2, …, or leave candidate_id out of all its rows"
    raise BadRow("bad_candidate_id", "candidate_id", problem, value, remedy)


def _teacher(raw: Mapping[str, Any]) -> str:
    value = raw.get("teacher")
    if isinstance(value, str) and value.strip():
        return clean_text(value)
    problem = "teacher is missing" if value is None else f"teacher is {kind_of(value)}"
    remedy = "give the name of the model that wrote the answer as text"
    raise BadRow("bad_teacher", "teacher", problem, raw if value is None else value, remedy)


def _answer(raw: Mapping[str, Any]) -> str | None:
    value = raw.get("answer")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return clean_text(value) if value.strip() else None
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if is_number and (isinstance(value, int) or math.isfinite(value)):
        return str(value)
    remedy = "give the reference answer as text or a number, or leave it out"
    raise BadRow("bad_answer", "answer", f"answer is {kind_of(value)}", value, remedy)


def _is_correct(raw: Mapping[str, Any]) -> bool | None:
    value = raw.get("is_correct")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    remedy = "write true, false or null, or leave it out and let --labels verify find it from the answer"
    raise BadRow("bad_is_correct", "is_correct", f"is_correct is {kind_of(value)}", value, remedy)


@dataclass
class _Problem:
    order: int
    prompt_hash: bytes
    first_place: str
    places: dict[int, str] = field(default_factory=dict)


class PlacedTrajectory(NamedTuple):
    """A trajectory, and the position of its problem in order of first appearance."""

    trajectory: Trajectory
    problem_order: int


class PoolChecks:
    """Checks the rows of one pool in order. Memory: one small record for each candidate, no text.

    A rejected row leaves no trace: it neither takes its id nor counts for the ids that are left out.
    """

    def __init__(self) -> None:
        self._problems: dict[str, _Problem] = {}
        self._num_text_ids = 0

    @property
    def id_type(self) -> IdType:
        """ "int" when every accepted problem_id was a JSON integer."""
        return "str" if self._num_text_ids else "int"

    @property
    def candidate_counts(self) -> list[int]:
        """Number of candidates of each problem, in order of first appearance."""
        return [len(problem.places) for problem in self._problems.values()]

    def check(self, place: str, raw: object) -> PlacedTrajectory | Rejection:
        """The row as a trajectory, or why not. A candidate_id that is left out is its order within the problem."""
        try:
            return self._place(place, check_row(raw))
        except BadRow as bad:
            return bad.at(place)

    def _place(self, place: str, row: CheckedRow) -> PlacedTrajectory:
        digest = hashlib.blake2b(json_text(row.prompt).encode(), digest_size=16).digest()
        known = self._problems.get(row.problem_id)
        problem = known or _Problem(len(self._problems), digest, place)
        if problem.prompt_hash != digest:
            raise BadRow(
                "different_prompt", "messages",
                f"problem {row.problem_id[:60]} has another prompt here than at {problem.first_place}",
                row.prompt[-1]["content"],
                "give all candidates of a problem the same system and user turns, or give this row its own problem_id",
            )  # fmt: skip
        candidate_id = len(problem.places) if row.candidate_id is None else row.candidate_id
        if (first := problem.places.get(candidate_id)) is not None:
            raise BadRow(
                "duplicate", "candidate_id",
                f"candidate {candidate_id} of problem {row.problem_id[:60]} is already at {first}",
                {"problem_id": row.problem_id, "candidate_id": candidate_id},
                "remove one of the two rows or renumber it",
            )  # fmt: skip
        self._problems[row.problem_id] = problem
        problem.places[candidate_id] = place
        self._num_text_ids += not row.problem_id_is_int
        trajectory = Trajectory(
            problem_id=row.problem_id, candidate_id=candidate_id, teacher=row.teacher, prompt=row.prompt,
            response=row.response, answer=row.answer, is_correct=row.is_correct, extra=row.extra,
        )  # fmt: skip
        return PlacedTrajectory(trajectory, problem.order)
