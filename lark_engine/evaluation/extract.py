"""From generated text to a prediction, by named rules: pure text, linear time, no mathematics.

1. `boxed`: the last complete, non-empty `\\boxed{}` or `\\fbox{}` after the last `</think>`. A thinking block that is
   never closed holds no answer.
2. For multiple choice only, when there is no box: `answer_phrase` ("the answer is (B)"), then `last_line` ("**B**").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

AnswerType = Literal["auto", "number", "expression", "letter", "text"]
ANSWER_TYPES: tuple[AnswerType, ...] = ("auto", "number", "expression", "letter", "text")
NO_ANSWER = "no_answer"
UNFINISHED_THINKING = "unfinished_thinking"

_THINK = re.compile(r"</?think>")
# An escaped brace or backslash is no brace: its alternative comes before the brace's.
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\\{}]|[{}]")
_NOT_SPACE = re.compile(r"\S")
_WRAPPED_BOX = re.compile(r"^\$*\s*\\(?:boxed|fbox)\s*\{(.*)\}\s*\$*$", re.DOTALL)
_WRAPPED_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|textrm)\s*\{([^{}]*)\}")
_BARE_LETTER = re.compile(r"^[\s*_$({\[]*([A-Ja-j])[\s*_$)}\].]*$")
_LETTER_AND_TEXT = re.compile(r"^[\s*_$({\[]*([A-J])[\s*_$}]*[).:\]]")
_PHRASE = re.compile(
    r"\b(?:answer|choice|option)\s*(?:is|are|would be|should be|:|=)[\s:*_$({\[]*(?:(?:option|choice)\s+)?[\s*_$({\[]*"
    r"(?:\\(?:text|mathrm|textbf)\{\(?)?([A-J])(?![A-Za-z0-9'])",
    re.IGNORECASE,
)
# A final answer stands near the end; what comes before is reasoning about the other choices.
_TAIL_CHARS = 2000
_MAX_UNWRAPPED_CHARS = 2000


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """A prediction and the rule that found it, or None for both and the reason why not."""

    prediction: str | None
    rule: str | None
    reason: str | None = None


def extract(text: str, answer_type: AnswerType = "auto", reference: str = "") -> Extraction:
    """The prediction in `text`. With `auto`, a reference that is one letter A–J makes it multiple choice."""
    answer = after_thinking(text)
    if answer is None:
        return Extraction(prediction=None, rule=None, reason=UNFINISHED_THINKING)
    boxed = last_boxed(answer)
    is_letter = answer_type == "letter" or (answer_type == "auto" and is_choice(reference))
    if boxed is not None:
        return Extraction(prediction=(letter_of(boxed) or boxed) if is_letter else boxed, rule="boxed")
    if is_letter:
        if letter := _phrase_letter(answer):
            return Extraction(prediction=letter, rule="answer_phrase")
        if letter := _last_line_letter(answer):
            return Extraction(prediction=letter, rule="last_line")
    return Extraction(prediction=None, rule=None, reason=NO_ANSWER)


def after_thinking(text: str) -> str | None:
    """What follows the last `</think>`; the whole text when there is none; None when a block is never closed."""
    tags = list(_THINK.finditer(text))
    if not tags:
        return text
    last = tags[-1]
    return text[last.end() :] if last.group() == "</think>" else None


def last_boxed(text: str) -> str | None:
    """Content of the last complete, non-empty box, braces balanced; None when there is none.

    One pass with a stack of open braces, so that thousands of unclosed boxes cost no more than plain text.
    """
    open_braces: list[tuple[bool, int]] = []
    last: tuple[int, int] | None = None
    for token in _BRACES.finditer(text):
        sign = token.group()
        if sign.endswith("{") and sign != "\\{":
            open_braces.append((sign != "{", token.end()))
        elif sign == "}" and open_braces:
            is_box, start = open_braces.pop()
            if is_box and _NOT_SPACE.search(text, start, token.start()):
                last = (start, token.start())
    return _unwrap(text[slice(*last)].strip()) if last else None


def _unwrap(content: str) -> str | None:
    """The content of boxes that hold nothing but one box."""
    while len(content) <= _MAX_UNWRAPPED_CHARS and (inner := _WRAPPED_BOX.match(content)):
        if not _is_balanced(inner.group(1)):
            break
        content = inner.group(1).strip()
    return content or None


def _is_balanced(text: str) -> bool:
    """Whether every closing brace has its opening one in `text`."""
    depth = 0
    for token in _BRACES.finditer(text):
        sign = token.group()
        depth += 1 if sign.endswith("{") and sign != "\\{" else -1 if sign == "}" else 0
        if depth < 0:
            return False
    return depth == 0


def letter_of(text: str, *, bare: bool = False) -> str | None:
    """The choice that `text` names: `B`, `(B)`, `\\text{(B)}`, and unless `bare` also `B. Linnaeus`; else None."""
    plain = strip_text_commands(text[:400])
    match = _BARE_LETTER.match(plain) or (None if bare else _LETTER_AND_TEXT.match(plain))
    return match.group(1).upper() if match else None


def is_choice(reference: str) -> bool:
    """Whether a reference is one capital letter A–J, as in multiple choice (a lower-case e is a number)."""
    return letter_of(reference, bare=True) is not None and strip_text_commands(reference).isupper()


def strip_text_commands(text: str) -> str:
    """`\\text{east}` and its relatives become their content."""
    return _WRAPPED_TEXT.sub(r"\1", text)


def _phrase_letter(answer: str) -> str | None:
    # "the answer is a prime": a lower-case letter after the phrase is mostly an article.
    letters = [m.group(1) for m in _PHRASE.finditer(answer[-_TAIL_CHARS:]) if m.group(1).isupper()]
    return letters[-1] if letters else None


def _last_line_letter(answer: str) -> str | None:
    lines = answer[-_TAIL_CHARS:].strip().splitlines()
    return letter_of(lines[-1], bare=True) if lines and len(lines[-1]) < 40 else None
