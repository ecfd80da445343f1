"""Whether a prediction equals a reference: letters, plain integers, text, and mathematics (math-verify).

`quick_verdict` decides what needs no mathematics, in the calling process. `math_verdict` runs sympy on untrusted text:
call it only where it can be killed (`grading.py`).
"""

from __future__ import annotations

import re
import unicodedata

from lark_engine.evaluation.extract import AnswerType, is_choice, last_boxed, letter_of, strip_text_commands

MAX_ANSWER_CHARS = 2000
TOO_LONG = "too_long"
NO_REFERENCE = "no_reference"
_INTEGER = re.compile(r"^[+-]?(?:\d{1,300}|\d{1,3}(?:,\d{3}){1,99})$")
_SPACE = re.compile(r"\s+")
_NOISE = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle)(?![A-Za-z])|\$")
_DFRAC = re.compile(r"\\[dt]frac(?![A-Za-z])")


def reference_answer(reference: str) -> str:
    """The answer inside a reference that is a whole solution: after GSM8K's `####`, or in the last box; else itself."""
    if "####" in reference:
        return reference.rpartition("####")[2].strip()
    if "\\boxed" in reference or "\\fbox" in reference:
        return last_boxed(reference) or reference.strip()
    return reference.strip()


def quick_verdict(prediction: str, reference: str, answer_type: AnswerType = "auto") -> bool | None:
    """The verdict when text alone decides it, else None: then `math_verdict` has to."""
    if answer_type == "letter" or (answer_type == "auto" and is_choice(reference)):
        letter = letter_of(reference)
        return letter is not None and letter == letter_of(prediction)
    if (equal := normalize(prediction) == normalize(reference)) or answer_type == "text":
        return equal
    ours, theirs = _integer(prediction), _integer(reference)
    return None if ours is None or theirs is None else ours == theirs


def normalize(answer: str) -> str:
    """One spelling for answers that differ only in white space, case of words, dollars and LaTeX layout commands.

    Also the class of a prediction in majority voting: `\\dfrac{1}{2}` and `$\\frac{1}{2}$` vote together, and so do
    `025` and `25`.
    """
    if (value := _integer(answer)) is not None:
        return str(value)
    text = unicodedata.normalize("NFKC", answer)
    is_words = "\\text" in text or re.fullmatch(r"[A-Za-z][A-Za-z .'-]+", text.strip()) is not None
    text = strip_text_commands(_DFRAC.sub(r"\\frac", _NOISE.sub(" ", text)))
    text = _SPACE.sub(" " if is_words else "", text).strip().rstrip(".")
    return text.casefold() if is_words else text


def math_verdict(prediction: str, reference: str) -> bool:
    """Whether math-verify holds the two for equal. May take for ever or raise anything: run it in a worker."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    configs = [LatexExtractionConfig(), ExprExtractionConfig()]
    gold, answer = (
        # math-verify's own limits use signals with whole seconds; the worker's limit replaces them.
        parse(f"${text.replace('$', ' ').strip()}$", configs, parsing_timeout=None)
        for text in (reference, prediction)
    )
    return bool(gold and answer and verify(gold, answer, timeout_seconds=None))


def _integer(text: str) -> int | None:
    plain = text.strip().strip("$").strip()
    return int(plain.replace(",", "")) if _INTEGER.match(plain) else None
