"""Problems drawn from the families: text, gold answer, level, and the derivation that teachers render."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lark_engine.demo.cast import Cast
from lark_engine.demo.derivation import Derivation, latex, work_out
from lark_engine.demo.families import FAMILIES

Parameters = tuple[str, tuple[str, ...]]
"""What makes two problems the same exercise: the template and the numbers in it, whoever the names are."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A word problem whose answer follows from its derivation."""

    text: str
    answer: str
    family: str
    level: int
    parameters: Parameters
    derivation: Derivation


def draw_problems(rng: random.Random, count: int, taken: set[Parameters] | None = None) -> list[Problem]:
    """`count` different problems, families in turn; their parameters are new to `taken` and added to it."""
    taken = set() if taken is None else taken
    families = list(FAMILIES)
    problems: list[Problem] = []
    while len(problems) < count:
        problem = draw_problem(rng, families[len(problems) % len(families)])
        if problem.parameters not in taken:
            taken.add(problem.parameters)
            problems.append(problem)
    return problems


def draw_problem(rng: random.Random, family: str) -> Problem:
    """One problem of a family."""
    template = rng.choice(FAMILIES[family])
    story = template(Cast(rng))
    numbers = tuple(str(number) for number in story.derivation.literals)
    return Problem(
        text=story.text,
        answer=latex(work_out(story.derivation)[-1].value),
        family=family,
        level=min(3, max(1, len(story.derivation.steps) - 1)),
        parameters=(template.__name__, numbers),
        derivation=story.derivation,
    )
