from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lark_engine.evaluation.equality import math_verdict, normalize, quick_verdict, reference_answer
from lark_engine.evaluation.extract import ANSWER_TYPES, last_boxed
from tests.evaluation.answer_pairs import PAIRS, Pair

# 1e-3 may also be Euler's number minus 3.
KNOWN_FALSE_REJECTS = [("1e-3", "0.001")]
ALL_PAIRS = [pair for group in PAIRS.values() for pair in group]


def verdict_on(pair: Pair) -> bool:
    """As `grade_all` finds it, without worker processes."""
    prediction = last_boxed(rf"\boxed{{{pair.prediction}}}")
    if prediction is None:
        return False
    quick = quick_verdict(prediction, pair.reference, pair.answer_type)
    return math_verdict(prediction, pair.reference) if quick is None else quick


@pytest.mark.parametrize(
    "pair", [p for p in ALL_PAIRS if p[:2] not in KNOWN_FALSE_REJECTS], ids=lambda p: " = ".join(p[:2])
)
def test_verdicts_are_those_of_a_human_grader(pair: Pair) -> None:
    assert verdict_on(pair) is pair.equal


def test_known_false_rejects_are_still_rejected() -> None:
    known = [pair for pair in ALL_PAIRS if pair[:2] in KNOWN_FALSE_REJECTS]
    assert len(known) == len(KNOWN_FALSE_REJECTS)
    assert [(pair.equal, verdict_on(pair)) for pair in known] == [(True, False)] * len(known)


def test_pairs_are_many_different_and_balanced() -> None:
    assert len({(p.prediction, p.reference, p.answer_type) for p in ALL_PAIRS}) == len(ALL_PAIRS) >= 170
    assert 0.45 < sum(pair.equal for pair in ALL_PAIRS) / len(ALL_PAIRS) < 0.6


@pytest.mark.parametrize(
    ("prediction", "reference", "answer_type", "verdict"),
    [
        ("25", "025", "number", True),
        ("1,000", "1000", "number", True),
        ("26", "25", "number", False),
        (r"\dfrac{1}{2}", r"\frac12", "auto", True),
        ("18.00", "18", "auto", True),
        ("18 dollars", "18", "number", True),
        ("5 cm", r"5 \text{ m}", "auto", False),
        ("52_9", "52_8", "auto", False),
        ("(1,2)", "12", "number", False),
        (r"\pm 5", "5", "number", False),
        ("west", r"\text{east}", "auto", False),
        (r"$\dfrac{1}{2}$", r"\frac{1}{2}", "auto", True),
        ("0.5", r"\frac{1}{2}", "auto", None),
        ("B", r"\text{(B)}", "auto", True),
        ("(B) 12", "B", "letter", True),
        ("C", "B", "letter", False),
        ("12", "B", "letter", False),
        ("East", r"\text{east}", "auto", True),
        ("the  Red fox.", "The red fox", "text", True),
        ("red", "fox", "text", False),
    ],
)
def test_quick_verdicts(prediction: str, reference: str, answer_type: str, verdict: bool | None) -> None:
    assert quick_verdict(prediction, reference, answer_type) is verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("0.5", r"\frac{1}{2}", True),
        (r"\frac12", r"\frac{1}{2}", True),
        ("90", r"90^\circ", True),
        ("5", "x=5", True),
        ("-2, 1", "1,-2", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("q - p", "p - q", False),
        ("(0,1)", "(0,1]", False),
        (r"\text{Debra}", r"\text{Evelyn}", False),
        ("$18", "18", True),
    ],
)
def test_mathematics_decides_what_text_cannot(prediction: str, reference: str, verdict: bool) -> None:
    assert math_verdict(prediction, reference) is verdict


def test_reference_may_be_a_whole_solution() -> None:
    assert reference_answer("He has 9 * 2 = <<9*2=18>>18\n#### 18") == "18"
    assert reference_answer(r"We get \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert reference_answer(" 7 ") == "7"


def test_normalize_joins_spellings_of_one_answer() -> None:
    assert normalize("025") == normalize("25") == "25"
    assert normalize(r"$\dfrac{1}{2}$") == normalize(r"\frac{1}{2} ")
    assert normalize(r"\left( 3, \frac{\pi}{2} \right)") == normalize(r"(3,\frac{\pi}{2})")
    assert normalize("x") != normalize("X")


def test_every_reference_of_the_real_benchmarks_equals_itself(shared_dir: Path) -> None:
    references = [
        row["answer"]
        for file in sorted((shared_dir / "data" / "benchmarks").glob("*.json"))
        for row in json.loads(file.read_text())
    ]
    assert len(references) == 1870
    assert [r for r in references if not quick_verdict(r, reference_answer(r))] == []


def test_answers_of_one_class_vote_together_and_others_do_not() -> None:
    assert normalize(r"\tfrac12") == normalize(r"\frac{1}{2}")
    assert normalize("5 cm") == normalize(r"5 \text{ centimeters}")
    assert normalize(r"\$18.00") == normalize("18 dollars")
    assert normalize(r"90^\circ") == normalize("90°")
    classes = ["1 2", "12", "1,2", "(1,2)", "{1}{2}", "5 cm", "5 m", "5", "x2", "x^2", "52_8", "52", "-12", "1.2"]
    assert len({normalize(answer) for answer in classes}) == len(classes)


def test_different_references_of_the_real_benchmarks_are_not_equal(shared_dir: Path) -> None:
    rows = json.loads((shared_dir / "data" / "benchmarks" / "MATH-L5.json").read_text())
    references = sorted({row["answer"] for row in rows})
    assert [(a, b) for a in references for b in references if a < b and quick_verdict(a, b)] == [("36", r"\$36")]


REPEATED = [
    *("{", "}", "\\", "1,", "(((", "[", "^", "_", "$", "-", " ", "\n", "a", "1", "a/", "cm ", "½", "²", "\0", "\ud800"),
    *("\\text{", "\\text{a}", "\\text{ ", "\\text   ", "\\frac", "\\sqrt", "\\sqrt[", "\\left(", "\\pm", "\\!", "\\$"),
    *("^{", "^ ", "1 1/", "111,", "5cm^2", "1e1", "{,}", "1:", "=", "<", "''", "and ", "^\\circ", "\\begin{pmatrix}"),
]
HOSTILE = [
    *(unit * (2000 // len(unit)) for unit in REPEATED),
    "{" * 10_000 + "1" + "}" * 10_000,
    "\\frac{1}{" * 200 + "2" + "}" * 200,
    "\\sqrt{" * 300 + "2" + "}" * 300,
    "9^{9^{9^{9^{9}}}}",
    "9" * 2000,
    "-" + "9" * 1999 + ".5",
    "(10^{10})!!!",
    "9" * 20 + "!",
    "\\begin{pmatrix} 1 & 2 \\\\",
    "0x" + "f" * 500,
    "1_{" + "9" * 1000 + "}",
    "5 cm^{" + "9" * 1000 + "}",
    "๕" * 1000 + "_๕",
    "ﷺ" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_quick_verdicts_take_linear_time_and_raise_nothing(text: str) -> None:
    for prediction, reference in ((text, r"\frac{1}{2}"), (text, "5 cm"), ("5", text), (text, text + "1")):
        for answer_type in ANSWER_TYPES:
            started = time.process_time()
            quick_verdict(prediction, reference, answer_type)
            normalize(prediction)
            assert time.process_time() - started < 0.1


def test_sympy_stays_out_of_the_calling_process() -> None:
    code = (
        "import sys; from lark_engine.evaluation.equality import quick_verdict; "
        "quick_verdict('x+1', '1+x'); sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
