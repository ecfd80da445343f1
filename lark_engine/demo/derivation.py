"""Derivations: named arithmetic steps that can be worked out rightly, or with one slip that is carried on.

Texts rendered from a derivation are right by construction, and wrong ones are wrong the way people are: one step fails
and everything after it is consistent with the failed value.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

Operator = Literal["+", "-", "*", "/"]
_CONFUSED: dict[Operator, Operator] = {"+": "-", "-": "+", "*": "+"}  # nobody divides by mistake for long


class Ref(NamedTuple):
    """The result of an earlier step, by its position."""

    position: int


Operand = int | Fraction | Ref


@dataclass(frozen=True)
class Step:
    """One operation: what it finds (a noun phrase), and from what."""

    goal: str
    left: Operand
    operator: Operator
    right: Operand
    unit: str = ""


@dataclass
class Derivation:
    """Steps in order; the value of the last one is the answer."""

    steps: list[Step] = field(default_factory=list)

    def add(self, goal: str, left: Operand, operator: Operator, right: Operand, unit: str = "") -> Ref:
        """Append a step and return a reference to its result."""
        self.steps.append(Step(goal, left, operator, right, unit))
        return Ref(len(self.steps) - 1)

    @property
    def literals(self) -> tuple[int | Fraction, ...]:
        """The numbers of the story in the order of use: its parameter set."""
        operands = [operand for step in self.steps for operand in (step.left, step.right)]
        return tuple(operand for operand in operands if not isinstance(operand, Ref))


class Line(NamedTuple):
    """A step worked out: numbers in place of references, and the value that the writer believes."""

    goal: str
    left: Fraction
    operator: Operator
    right: Fraction
    value: Fraction
    unit: str
    slipped: bool


class Slip(NamedTuple):
    """A mistake in one step: the wrong operation, or a result that is off by some amount."""

    position: int
    operator: Operator | None = None
    offset: Fraction = Fraction(0)


def work_out(derivation: Derivation, slip: Slip | None = None) -> list[Line]:
    """All lines of a derivation, with at most one slip carried on. Errors: `ZeroDivisionError` after an unlucky one."""
    lines: list[Line] = []
    for position, step in enumerate(derivation.steps):
        left, right = (lines[o.position].value if isinstance(o, Ref) else Fraction(o) for o in (step.left, step.right))
        slipped = slip is not None and slip.position == position
        operator = slip.operator if slip and slipped and slip.operator else step.operator
        value = apply(operator, left, right) + (slip.offset if slip and slipped else Fraction(0))
        lines.append(Line(step.goal, left, operator, right, value, step.unit, slipped))
    return lines


def apply(operator: Operator, left: Fraction, right: Fraction) -> Fraction:
    """`left operator right`, exactly."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left / right


def work_out_wrongly(derivation: Derivation, rng: random.Random) -> list[Line]:
    """Lines with one believable slip: all values positive and as simple as before, and another answer in the end."""
    right = work_out(derivation)
    largest = max(line.value.denominator for line in right)
    for _ in range(100):
        slip = _draw_slip(right, rng)
        try:
            lines = work_out(derivation, slip)
        except ZeroDivisionError:
            continue
        believable = all(line.value > 0 and line.value.denominator <= 2 * largest - 1 for line in lines)
        if believable and lines[-1].value != right[-1].value:
            return lines
    return work_out(derivation, Slip(len(right) - 1, offset=Fraction(1)))  # one too many at the end is always there


def _draw_slip(right: list[Line], rng: random.Random) -> Slip:
    position = rng.randrange(len(right))
    line = right[position]
    if rng.random() < 0.4 and line.operator in _CONFUSED:
        return Slip(position, operator=_CONFUSED[line.operator])
    offset = rng.choice((-10, -2, -1, 1, 2, 10) if line.value >= 20 else (-2, -1, 1, 2))
    return Slip(position, offset=Fraction(offset, line.value.denominator))


def plain(value: Fraction) -> str:
    """`12` or `3/4`."""
    return str(value)


def latex(value: Fraction) -> str:
    r"""`12` or `\frac{3}{4}`: the form of gold and boxed answers."""
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
