"""The records that stages exchange, and the column names of the tables that hold them.

Names follow the glossary: problem_id, candidate_id, teacher, nll, brier, rho, g_hat, selection_prob, …
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict


class Message(TypedDict):
    """One turn of a conversation in the format of the released code."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One candidate solution of a problem.

    `prompt` holds every turn before the answer; `response` is the text of the single assistant turn.
    `extra` holds the keys of the source line that we do not know, so that nothing of the user's is lost.
    """

    problem_id: str
    candidate_id: int
    teacher: str
    prompt: tuple[Message, ...]
    response: str
    answer: str | None = None
    is_correct: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, the assistant's turn last."""
        return [*self.prompt, Message(role="assistant", content=self.response)]


IdType = Literal["int", "str"]


def public_id(problem_id: str, id_type: IdType) -> int | str:
    """The id as the source file wrote it: pools keep ids as text, released files mostly write integers."""
    return int(problem_id) if id_type == "int" else problem_id
