"""One finding about this machine, and which of several conflicts comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lark_engine.printing import one_line, printable

State = Literal["ok", "warning", "problem", "unknown"]
Group = Literal["interpreters", "versions", "imports", "devices", "disk", "limits"]
# By importance: what stands further up breaks what stands below it.
GROUPS: tuple[Group, ...] = ("interpreters", "versions", "imports", "devices", "disk", "limits")
_MOST_FOUND = 400


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was looked at and found, in one line of printable text.

    `cure`: one command or action; there for every warning and problem, and only for those.
    """

    group: Group
    name: str
    state: State
    found: str
    cure: str | None = None

    def __post_init__(self) -> None:
        assert (self.cure is not None) == (self.state in ("warning", "problem")), self
        object.__setattr__(self, "name", one_line(self.name))
        object.__setattr__(self, "found", one_line(self.found, _MOST_FOUND))
        # Never cut: half a command is no cure.
        object.__setattr__(self, "cure", None if self.cure is None else printable(self.cure))


def by_importance(checks: Sequence[Check]) -> list[Check]:
    """The checks by group, in the order of `GROUPS`; inside a group as they came."""
    return sorted(checks, key=lambda check: GROUPS.index(check.group))


def first_conflict(checks: Sequence[Check]) -> Check | None:
    """The problem to solve first: of the most important group, the earliest. None without a problem."""
    return next((check for check in by_importance(checks) if check.state == "problem"), None)


def summary(checks: Sequence[Check]) -> str:
    """How many problems and warnings there are; then the first problem, and its cure on a line of its own."""
    counts = [(state, sum(check.state == state for check in checks)) for state in ("problem", "warning")]
    said = " and ".join(f"{count or 'no'} {state}{'' if count == 1 else 's'}" for state, count in counts)
    first = first_conflict(checks)
    text = said[0].upper() + said[1:] + "."
    return f"{text} First: {first.name}: {first.found}.\nCure: {first.cure}" if first else text
