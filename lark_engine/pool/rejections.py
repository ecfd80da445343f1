"""Rejected rows: where, which field, what is wrong, an excerpt and the remedy; and text that any file can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EXCERPT_CHARS = 120


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A row that cannot be imported. `reason` is the slug that drops are counted by."""

    place: str
    reason: str
    field: str
    problem: str
    excerpt: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.remedy}"


class BadRow(Exception):
    """Why one row is refused; becomes a `Rejection` where the place is known."""

    def __init__(self, reason: str, field: str, problem: str, value: object, remedy: str):
        self.reason, self.field, self.problem, self.value, self.remedy = reason, field, problem, value, remedy

    def at(self, place: str) -> Rejection:
        return Rejection(
            place=place, reason=self.reason, field=self.field, problem=self.problem,
            excerpt=excerpt(self.value), remedy=self.remedy,
        )  # fmt: skip


def excerpt(value: object) -> str:
    """A value as one short line of valid text, for `rejected.jsonl` and messages."""
    text = value if isinstance(value, str) else json_text(value)
    text = clean_text(text[: EXCERPT_CHARS + 1])
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"


def clean_text(text: str) -> str:
    """The text with every lone surrogate (no Unicode text, and no UTF-8 file can hold it) replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def json_text(value: object) -> str:
    """JSON text of any value: non-finite numbers are null; what JSON does not know is written as its text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def kind_of(value: object) -> str:
    """What a JSON value is, in a user's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "an empty text" if not value.strip() else f"the text {value[:40]!r}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, Sequence) else f"a {type(value).__name__}"
