"""The problems of a comparison, and the verdicts that two gradings disagree on, as rows of a table. Pure."""

from __future__ import annotations

from app.components.row_table import Cell, Column
from lark_engine.figures.compare_words import unit_of
from lark_engine.figures.formats import count
from lark_engine.figures.safe_text import one_line
from lark_engine.results.answers import ChangedVerdict
from lark_engine.results.pairs import ProblemPair

PAGE_SIZE = 20
FIRST_SORT = "flipped"


def pair_columns(metric: str) -> list[Column]:
    """What a problem's row says; the keys are `PAIR_SORTS`."""
    return [
        Column(label="Problem", key="problem", is_number=False),
        Column(label="A", key="a", help="correct samples of A"),
        Column(label="B", key="b", help="correct samples of B"),
        Column(label="B − A", key="difference", help=f"by {metric}, in {unit_of(metric).name}"),
        Column(label="Flipped", key=FIRST_SORT, is_number=False, help="flipped first, the largest difference first"),
        Column(label="Reference", is_number=False),
        Column(label="Level", key="level", is_number=False),
        Column(label="Tokens A", key="tokens_a", help="mean length of a sample"),
        Column(label="Tokens B", key="tokens_b"),
        Column(label="Prompt", is_number=False),
    ]  # fmt: skip


def pair_cells(pair: ProblemPair, metric: str) -> list[Cell]:
    flip = "" if not pair.is_flipped else "gained" if pair.share_b > pair.share_a else "lost"
    return [
        Cell(pair.problem_id), Cell(f"{pair.correct_a} of {pair.num_a}"), Cell(f"{pair.correct_b} of {pair.num_b}"),
        Cell(unit_of(metric).say(pair.difference) if pair.difference else "0"), Cell(flip),
        Cell(one_line(pair.reference, 24)), Cell(pair.level or "–"), Cell(count(pair.tokens_a)),
        Cell(count(pair.tokens_b)), Cell(one_line(pair.prompt, 60)),
    ]  # fmt: skip


def changed_columns() -> list[Column]:
    return [
        Column(label="Problem", is_number=False), Column(label="Sample"), Column(label="Reference", is_number=False),
        Column(label="A", is_number=False), Column(label="found by A", is_number=False),
        Column(label="B", is_number=False), Column(label="found by B", is_number=False),
    ]  # fmt: skip


def changed_cells(one: ChangedVerdict) -> list[Cell]:
    return [
        Cell(one.problem_id), Cell(str(one.sample_index)), Cell(one_line(one.reference, 24)), Cell(sign(one.correct_a)),
        Cell(found(one.prediction_a, one.rule_a)), Cell(sign(one.correct_b)), Cell(found(one.prediction_b, one.rule_b)),
    ]  # fmt: skip


def sign(correct: bool) -> str:
    return "✓" if correct else "✗"


def found(prediction: str | None, rule: str | None) -> str:
    """`42 · boxed`: what was taken as the answer, and by which rule."""
    return "no answer" if prediction is None else f"{one_line(prediction, 24)} · {(rule or '').replace('_', ' ')}"
