"""Texts that do not go out: what stands in their place, so that every page works and every number stays.

Only problems whose texts were chosen keep them. Of the others a response keeps whether it is empty and whether it has a
boxed answer, an answer keeps which others of its problem it equals, and all else is `WITHHELD`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lark_engine.evaluation.equality import normalize
from lark_engine.evaluation.extract import after_thinking, has_boxed_answer
from lark_engine.sharing.bundle_format import WITHHELD, TextsOut

WITHHELD_BOXED = WITHHELD + " \\boxed{withheld}"
_KEPT_EXTRAS = ("level", "subject", "difficulty")
_MOST_EXTRA_CHARS = 60


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Whose texts go out: `pool` are problem ids of the pool, `benchmarks` those of each benchmark by its name."""

    mode: TextsOut
    pool: frozenset[str] = frozenset()
    benchmarks: Mapping[str, Collection[str]] = field(default_factory=dict)

    def of_pool(self, problem_id: object) -> bool:
        """Whether the texts of a problem of the pool go out."""
        return self.mode == "all" or (self.mode == "chosen" and str(problem_id) in self.pool)

    def of_benchmark(self, name: str, problem_id: object) -> bool:
        """Whether the texts of a problem of a benchmark go out."""
        return self.mode == "all" or (self.mode == "chosen" and str(problem_id) in self.benchmarks.get(name, ()))


def is_withheld(said: str) -> bool:
    """Whether a response is what stands for one that is not part of a bundle."""
    return said in (WITHHELD, WITHHELD_BOXED)


def response(text: str) -> str:
    """What stands for a response: nothing for an empty one, a box where there is a boxed answer."""
    answer = after_thinking(text)
    if not (text if answer is None else answer).strip():
        return ""
    return WITHHELD_BOXED if has_boxed_answer(text) else WITHHELD


def messages(said: list[Any]) -> list[dict[str, str]]:
    """The same turns without what was said; an answer as `response`."""
    return [
        {
            "role": str(turn.get("role")),
            "content": response(str(turn.get("content"))) if turn.get("role") == "assistant" else WITHHELD,
        }
        for turn in said if isinstance(turn, dict)
    ]  # fmt: skip


def extra(text: str | None) -> str | None:
    """Of what else a pool keeps of a problem, what it is sorted by."""
    values = json.loads(text) if text else {}
    kept = {
        name: values[name] for name in _KEPT_EXTRAS
        if isinstance(values.get(name), int | float | str) and len(str(values[name])) <= _MOST_EXTRA_CHARS
    }  # fmt: skip
    return json.dumps(kept, ensure_ascii=False) if kept else None


class AnswerClasses:
    """Names for answers: those of one problem that vote together get one name, so that maj@n stays what it is."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._num: dict[str, int] = {}

    def name(self, problem_id: str, prediction: str | None) -> str | None:
        """`(withheld 1)` for the first answer to a problem and all that equal it; None stays None."""
        if prediction is None:
            return None
        key = (problem_id, normalize(prediction))
        if key not in self._known:
            self._num[problem_id] = self._num.get(problem_id, 0) + 1
            self._known[key] = f"(withheld {self._num[problem_id]})"
        return self._known[key]
