"""Texts of a generated pool: problems and reasoning of realistic look and length, and texts that attack a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHARS_PER_TOKEN = 3.6
_PROBLEMS = (
    "Find the number of ordered pairs $(x, y)$ of positive integers with $x^2 + {a}y = {b}$ and $x \\le {c}$.",
    "A circle of radius ${a}$ is tangent to both legs of a right triangle with hypotenuse ${b}$. Find its perimeter.",
    "Let $f(x) = x^3 - {a}x^2 + {b}x - {c}$. What is the sum of the squares of its roots?",
    "How many subsets of $\\{{1, 2, \\dots, {a}\\}}$ have a sum that is divisible by ${b}$, but not by ${c}$?",
    "A bag holds {a} red and {b} blue marbles. {c} are drawn without replacement. What is the expected number of red "
    "ones?",
    "Evaluate $\\sum_{{k=1}}^{{{a}}} \\frac{{k}}{{k^2 + {b}k + {c}}}$ to the nearest integer.",
    "The sequence starts with $a_1 = {a}$ and goes on with $a_{{n+1}} = a_n^2 - {b}$. Find the remainder of $a_{{{c}}}$"
    " when it is divided by 1000.",
)
_STEPS = (
    "Let me set this up carefully before computing anything.",
    "Let {m} denote the quantity we want, and note that {m} = {a}{m}' + {b} with 0 ≤ {b} < {c}.",
    "Substituting gives \\( {a}{m}^2 - {b}{m} + {c} = 0 \\), so \\( {m} = \\frac{{{b} \\pm \\sqrt{{{c}}}}}{{2}} \\).",
    "We have ${a} \\cdot {b} = {p}$, and therefore ${p} + {c} = {q}$.",
    "\\[ \\sum_{{i=1}}^{{{a}}} \\binom{{{b}}}{{i}} = 2^{{{b}}} - 1 - \\sum_{{i>{a}}} \\binom{{{b}}}{{i}} \\]",
    "Wait, I should double-check the case {m} = {a}, because dividing by zero is not allowed there.",
    "By symmetry the two cases contribute equally, so it is enough to count one of them.",
    "Hmm, {p} mod {c} is {r}. Let me verify: {c} × {a} + {r}. That matches.",
    "- Case {a}: the remainder is {r}, which contributes {b} pairs.",
    "So far the answer would be {q}, but it may depend on whether {m} is even.",
    "By Cauchy–Schwarz, $(\\sum x_i y_i)^2 \\le \\sum x_i^2 \\sum y_i^2$, with equality at {m} = {b}.",
    "Alternatively, think of it as a path from (0, 0) to ({a}, {b}) that never crosses the diagonal.",
    "```python\nprint(sum(1 for {m} in range({a}, {q}) if {m} % {c} == {r}))\n```",
    "| {m} | {m}² | remainder |\n|---|---|---|\n| {a} | {p} | {r} |\n| {b} | {q} | {c} |",
)
_OPENINGS = ("<think>\nOkay, so I need to solve this. ", "### Step 1\n\n", "We are asked for a number. ")
_CLOSINGS = (
    "\n</think>\n\nThe answer is $\\boxed{{{}}}$.",
    "\n\n**Answer:** \\boxed{{{}}}",
    "\n\nHence \\(\\boxed{{{}}}\\).",
)
SHORT = ("…", "I", "Sorry.")  # answers that say next to nothing

BEACON = "http://192.0.2.1/beacon.png"  # an address of documentation: nothing answers there
_SCRIPTS = (
    '<script>window.__pwned = "script"</script>',
    f"<img src=x onerror=\"window.__pwned='img'\"><img src='{BEACON}'><svg onload=\"window.__pwned='svg'\"></svg>",
    "</style></script></div></div></div><style>*{display:none!important}</style><b id=pwned>bold</b>",
)
HOSTILE_TEXTS = (
    *_SCRIPTS,
    f"![beacon]({BEACON}) [click](javascript:window.__pwned=1) <a href='{BEACON}'>link</a> {BEACON} www.example.com",
    "# Heading\n\n:red[red] :material/delete: :streamlit: -> <- ==\n\n---\n\n> quote\n\n1. one\n   - two",
    "$" * 5000 + " $5 and $10 \\( x^2 \\) $$ \\frac{1}{2} $$ " + "$x$ " * 400,
    "$$\\rule{2000em}{2000em}$$ $\\href{javascript:window.__pwned=1}{x}$ $\\includegraphics{" + BEACON + "}$"
    " $\\def\\x{\\x\\x}\\x$",
    "\u202eright to left \u2066override\u2069 \u200f\u061c \ufeff\u200b\u200d zero width",
    "null \x00 bytes \x1b[31mescape\x1b[0m \x07 \x7f \x85 \u2028 \u2029 end",
    "Z\u0351\u036b\u0343\u036a\u0302a\u030a\u0341\u0357l\u0321\u034a\u0353g\u0321\u0352\u0302o\u0329 " * 50
    + "🏳️‍🌈👩‍👩‍👧‍👦",
    "=cmd|' /C calc'!A0\n@SUM(1+1)*cmd\n+1\n-1\t,;\"'`",
    "{{ 7 * 7 }} ${7*7} %s %(x)s {0} {x} \\u0000 &lt;b&gt; &amp; %3Cscript%3E \ud83d",
    "<think>\n" * 200,
    "\n" * 3000 + "far below",
)  # fmt: skip
HOSTILE_TEACHERS = (
    "<b>bold</b> & <i>co</i>", "<script>window.__pwned='teacher'</script>", f"![x]({BEACON})", "$x^2$ :red[t]",
    "\u202ereversed \u05d0\u05d1", "a'\"`\\,;|teacher", "null\x00teacher", "very long teacher " * 30,
    "[link](javascript:window.__pwned=1)", "{{7*7}} %s", "g&h=1#?/../ 老师",
)  # fmt: skip
HOSTILE_PROBLEM_IDS = (
    "<img src=x onerror=\"window.__pwned='id'\">", "../../etc/passwd", "a&b=c#d?e%00 +", "id\x00null", "long id " * 400,
    "\u202eid", "$1", "'; DROP TABLE problems; --", "**bold** [x](javascript:window.__pwned=1)",
)  # fmt: skip
LONG_LINE = "<b>word</b> $x$ " * 12_500  # 200 kB without a line break


class Bank(NamedTuple):
    """Steps of reasoning end to end, and where each of them starts."""

    text: str
    starts: NDArray[np.int64]


def problem_texts(rng: np.random.Generator, num_problems: int) -> list[str]:
    """Problem statements, all different."""
    numbers = rng.integers(2, 400, (num_problems, 3)).tolist()
    return [
        _PROBLEMS[n % len(_PROBLEMS)].format(a=a, b=b, c=c) + f" (Problem {n + 1}.)"
        for n, (a, b, c) in enumerate(numbers)
    ]


def step_bank(rng: np.random.Generator, num_steps: int = 12_000) -> Bank:
    """Reasoning to cut responses from, of about a million characters."""
    numbers = rng.integers(2, 60, (num_steps, 3)).tolist()
    kinds = rng.integers(len(_STEPS), size=num_steps).tolist()
    steps = []
    for (a, b, c), kind in zip(numbers, kinds, strict=True):
        line = _STEPS[kind].format(a=a, b=b, c=c, m="nxkt"[a % 4], p=a * b, q=a * b + c, r=a * b % c)
        steps.append(line + ("\n\n" if kind % 4 == 0 or line.startswith(("|", "`", "\\[")) else "\n"))
    starts = np.cumsum([0, *map(len, steps)])
    return Bank("".join(steps), starts)


def responses(
    bank: Bank, rng: np.random.Generator, num_chars: NDArray[np.int64], style: NDArray[np.int64],
    answers: Sequence[str], boxed: NDArray[np.bool_],
) -> list[str]:  # fmt: skip
    """One response a row of about `num_chars` characters; `style` is how a teacher opens and closes.

    A response ends with its answer in a box where `boxed`, else in the middle of its reasoning.
    """
    room = len(bank.text) - int(num_chars.max(initial=0)) - 1
    assert room > 0, "a response is longer than the bank of steps"
    first = bank.starts[rng.integers(np.searchsorted(bank.starts, room), size=len(num_chars))]
    texts = []
    for start, length, kind, answer, is_boxed in zip(
        first.tolist(), num_chars.tolist(), style.tolist(), answers, boxed.tolist(), strict=True
    ):
        closing = _CLOSINGS[kind].format(answer) if is_boxed else ""
        body = bank.text[start : start + max(length - len(_OPENINGS[kind]) - len(closing), 1)]
        texts.append(_OPENINGS[kind] + body + closing)
    return texts
