from __future__ import annotations

import json
from pathlib import Path

import pytest

from lark_engine.evaluation.equality import math_verdict, normalize, quick_verdict, reference_answer


@pytest.mark.parametrize(
    ("prediction", "reference", "answer_type", "verdict"),
    [
        ("25", "025", "number", True),
        ("1,000", "1000", "number", True),
        ("26", "25", "number", False),
        (r"\dfrac{1}{2}", r"\frac12", "auto", None),
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
