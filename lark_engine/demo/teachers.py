r"""Seven teachers that write up the same derivation the way different models do, each with its own rate of mistakes.

Every text ends with the final answer in `\boxed{}`. A teacher never says that a wrong line is wrong: it believes it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from lark_engine.demo.derivation import Line, Operator, latex, plain
from lark_engine.demo.problems import Problem

Writer = Callable[[Problem, list[Line], random.Random], str]

_PLAIN: dict[Operator, str] = {"+": "+", "-": "-", "*": "×", "/": "÷"}
_LATEX: dict[Operator, str] = {"+": "+", "-": "-", "*": r"\times", "/": r"\div"}
_VERBS: dict[Operator, str] = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


class Teacher(NamedTuple):
    """A model that writes trajectories: its name, how often it slips, and its style."""

    name: str
    error_rate: float
    write: Writer


def terse(_: Problem, lines: list[Line], rng: random.Random) -> str:
    """Bare equations and the answer."""
    marker = rng.choice(("", "- ", "• "))
    rows = [f"{marker}{line.goal}: {sum_of(line)}" for line in lines]
    return "\n".join([*rows, f"{rng.choice(('Answer', 'So the answer is', 'Result'))}: {boxed(lines)}"])


def stepwise(_: Problem, lines: list[Line], rng: random.Random) -> str:
    """Numbered steps, one sentence each."""
    opening = rng.choice(("Let's solve this step by step.", "We solve the problem step by step.", "Step by step:"))
    steps = [
        f"Step {number}: Find {line.goal}.\n{sum_of(line)}, so {line.goal} is {quantity(line)}."
        for number, line in enumerate(lines, start=1)
    ]
    return "\n\n".join([opening, *steps, f"The final answer is {boxed(lines)}."])


def verifier(problem: Problem, lines: list[Line], rng: random.Random) -> str:
    """Long: restates the question, explains each step, then checks the lines by the inverse operation."""
    opening = rng.choice(("First, let me restate the problem.", "Let me make sure I understand the question."))
    steps = [
        f"**{sentence(line.goal)}.** To find it we {_VERBS[line.operator]} "
        f"{rng.choice(('the two quantities', 'what we know', 'these numbers'))}: ${sum_of(line, _LATEX)}$. "
        f"{rng.choice(('This gives', 'We get', 'That makes'))} {quantity(line)}."
        for line in lines
    ]
    checks = "\n".join(f"- ${undo(line)}$ ✓" for line in lines if not line.slipped)
    return "\n\n".join([
        f"{opening} {question_of(problem.text)} We are looking for {lines[-1].goal}.",
        *steps,
        f"**Verification.** Let me undo the steps:\n{checks}\nEverything is consistent.",
        f"Therefore {lines[-1].goal} is {boxed(lines)}.",
    ])  # fmt: skip


def equations(_: Problem, lines: list[Line], rng: random.Random) -> str:
    """Names the unknowns first, then solves in displayed formulas."""
    letters = rng.choice(("abcdefgh", "xyzuvwst"))
    names = "\n".join(f"- ${letter}$: {line.goal}" for letter, line in zip(letters, lines, strict=False))
    formulas = "\n".join(
        rf"\[ {letter} = {sum_of(line, _LATEX)} \]" for letter, line in zip(letters, lines, strict=False)
    )
    ask = letters[len(lines) - 1]
    opening = rng.choice(("Let us define the unknowns.", "We set up equations. Let", "Notation:"))
    closing = f"Hence ${ask} = {latex(lines[-1].value)}$ and the answer is {boxed(lines)}."
    return f"{opening}\n{names}\n\nThen\n{formulas}\n\n{closing}"


def meandering(problem: Problem, lines: list[Line], rng: random.Random) -> str:
    """Thinks aloud, doubts itself, and corrects one line on the way (not the one that it gets wrong)."""
    sound = [index for index, line in enumerate(lines) if not line.slipped]
    doubted = rng.choice(sound) if sound else -1
    thoughts = [
        f"Okay, so the question is: {question_of(problem.text)} "
        f"{rng.choice(('Hmm, let me think.', 'Let me see.', 'Alright.'))}"
    ]
    for index, line in enumerate(lines):
        start = "First I need" if index == 0 else rng.choice(("Now for", "Next comes", "And then there is"))
        if index == doubted:
            first_try = line._replace(value=line.value + Fraction(rng.choice((1, 2, 10)), line.value.denominator))
            thoughts.append(
                f"{start} {line.goal}. That would be {sum_of(first_try)}... "
                f"{rng.choice(('wait, that is not right', 'hold on', 'no, I miscounted'))}. "
                f"Let me redo it: {sum_of(line)}. Yes, {quantity(line)}."
            )
        else:
            doubt = rng.choice((" I think that's fine.", " Does that make sense? Yes.", " Good.", ""))
            thoughts.append(f"{start} {line.goal}. That is {sum_of(line)}.{doubt}")
    closing = rng.choice(("So, putting it all together,", "Okay, I'm fairly confident now:", "Right, so"))
    return "\n\n".join([*thoughts, f"{closing} {lines[-1].goal} should be {quantity(lines[-1])}.\n\n{boxed(lines)}"])


def hasty(_: Problem, lines: list[Line], rng: random.Random) -> str:
    """One quick paragraph."""
    parts = [f"{line.goal} is {sum_of(line)}" for line in lines]
    opening = rng.choice(("Easy one.", "Quick calculation:", "Sure!"))
    return f"{opening} {sentence(', then '.join(parts))}. So the answer is {boxed(lines)}."


def tutor(_: Problem, lines: list[Line], rng: random.Random) -> str:
    """Warm and explaining: a plan, the reason for each operation, a last sentence in words."""
    plan = ", then ".join(line.goal for line in lines)
    body = "\n".join(
        f"{number}. We want {line.goal}. {sentence(reason(line))}: {sum_of(line)}"
        + (f" ({line.unit})." if line.unit else ".")
        for number, line in enumerate(lines, start=1)
    )
    opening = rng.choice(("What a nice problem!", "Good question, let's work through it together."))
    closing = rng.choice(("And that is what we were asked for.", "Try to estimate the size first next time!"))
    ending = f"So {lines[-1].goal} is {quantity(lines[-1])}. {closing}\n\nAnswer: {boxed(lines)}"
    return f"{opening} Our plan: find {plan}.\n\n{body}\n\n{ending}"


TEACHERS: tuple[Teacher, ...] = (
    Teacher("terse-7b", 0.06, terse),
    Teacher("stepwise-32b", 0.03, stepwise),
    Teacher("verifier-70b", 0.02, verifier),
    Teacher("equation-14b", 0.05, equations),
    Teacher("meander-32b", 0.08, meandering),
    Teacher("hasty-3b", 0.25, hasty),
    Teacher("tutor-9b", 0.04, tutor),
)


def sum_of(line: Line, symbols: dict[Operator, str] = _PLAIN) -> str:
    """`3 × 4 = 12`, or the same in LaTeX."""
    number = latex if symbols is _LATEX else plain
    left, right = number(line.left), number(line.right)
    if symbols is _PLAIN and line.operator in "*/":
        left, right = (f"({n})" if "/" in n else n for n in (left, right))
    return f"{left} {symbols[line.operator]} {right} = {number(line.value)}"


def reason(line: Line) -> str:
    """Why a line does what it does, in words for beginners."""
    if line.operator == "*" and line.right < 1:
        return "a part of a whole is the whole times the fraction"
    return {
        "+": "the parts belong together, so we add them",
        "-": "we take away what does not count, so we subtract",
        "*": "the same amount comes again and again, so we multiply",
        "/": "we share equally, so we divide",
    }[line.operator]


def undo(line: Line) -> str:
    """The inverse operation of a right line, in LaTeX: `12 \\div 4 = 3`."""
    inverse: dict[Operator, Operator] = {"+": "-", "-": "+", "*": "/", "/": "*"}
    return sum_of(line._replace(left=line.value, operator=inverse[line.operator], value=line.left), _LATEX)


def quantity(line: Line) -> str:
    """`12 dollars`, or `12` when the goal already says of what."""
    return plain(line.value) if line.unit in line.goal else f"{plain(line.value)} {line.unit}"


def boxed(lines: list[Line]) -> str:
    r"""`\boxed{12}`."""
    return rf"\boxed{{{latex(lines[-1].value)}}}"


def question_of(text: str) -> str:
    """The sentence of a problem that asks."""
    return next(s for s in reversed(text.replace("? ", "?\n").replace(". ", ".\n").split("\n")) if s.endswith("?"))


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
