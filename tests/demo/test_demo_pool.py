"""The embedded pool: the same bytes everywhere, right where it claims to be right, and apart from its benchmark."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from lark_engine.demo.derivation import Derivation, Slip, latex, work_out, work_out_wrongly
from lark_engine.demo.families import FAMILIES
from lark_engine.demo.pool import write_demo, write_up
from lark_engine.demo.problems import draw_problem, draw_problems
from lark_engine.demo.teachers import TEACHERS, Teacher


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the default pool and the problems of the default benchmark."""
    files = write_demo(tmp_path_factory.mktemp("demo"))
    rows = [json.loads(line) for line in files.pool_path.read_text("utf-8").splitlines()]
    return rows, json.loads(files.benchmark_path.read_text("utf-8"))


def response(row: dict[str, Any]) -> str:
    return row["messages"][-1]["content"]


def boxed(text: str) -> str:
    return re.findall(r"\\boxed\{(.*)\}", text)[-1]


def test_the_default_demo_is_the_same_bytes_everywhere(tmp_path: Path) -> None:
    files = write_demo(tmp_path)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files]
    assert digests == ["1c6d336655186c48", "733c7dc1c8223fdf"]


def test_another_seed_makes_another_demo(tmp_path: Path) -> None:
    first, second = write_demo(tmp_path / "a", seed=1), write_demo(tmp_path / "b", seed=2)
    assert first.pool_path.read_bytes() != second.pool_path.read_bytes()
    assert first.benchmark_path.read_bytes() != second.benchmark_path.read_bytes()


def test_sizes_are_as_asked(tmp_path: Path) -> None:
    files = write_demo(tmp_path, num_problems=3, num_benchmark=2)
    assert len(files.pool_path.read_text().splitlines()) == 3 * len(TEACHERS)
    assert len(json.loads(files.benchmark_path.read_text())) == 2


def test_the_pool_is_in_the_released_format(demo: Any) -> None:
    rows, _ = demo
    assert len(rows) == 24 * 7
    assert [(row["problem_id"], row["candidate_id"]) for row in rows] == [(p, c) for p in range(24) for c in range(7)]
    for row in rows:
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert (
            row["messages"][0]["content"] == "Please reason step by step, and put your final answer within \\boxed{}."
        )
        assert "is_correct" not in row
    assert {row["level"] for row in rows} == {1, 2, 3}
    assert len({row["subject"] for row in rows}) >= 8


def test_no_benchmark_problem_is_in_the_pool(demo: Any) -> None:
    rows, benchmark = demo
    assert {problem["prompt"] for problem in benchmark}.isdisjoint(row["messages"][1]["content"] for row in rows)
    taken: set[Any] = set()
    pool = draw_problems(random.Random("0/pool"), 24, taken)
    held_out = draw_problems(random.Random("0/benchmark"), 12, taken)
    assert [p.text for p in held_out] == [p["prompt"] for p in benchmark]
    assert {p.parameters for p in pool}.isdisjoint(p.parameters for p in held_out)
    assert len({p.parameters for p in pool}) == 24 and len({p.parameters for p in held_out}) == 12


def test_teachers_are_wrong_about_as_often_as_they_should_be(demo: Any) -> None:
    rows, _ = demo
    wrong = Counter(row["teacher"] for row in rows if boxed(response(row)) != row["answer"])
    assert 3 <= wrong["hasty-3b"] <= 9  # a quarter of 24, give or take
    assert all(wrong[teacher.name] <= 4 for teacher in TEACHERS if teacher.error_rate < 0.1)
    assert 1 <= sum(wrong.values()) <= 20


@pytest.mark.parametrize("teacher", TEACHERS, ids=lambda teacher: teacher.name)
def test_a_right_teacher_boxes_the_gold_answer_of_every_family(teacher: Teacher) -> None:
    always_right = teacher._replace(error_rate=0.0)
    rng = random.Random(7)
    for family in FAMILIES:
        for number in range(12):
            problem = draw_problem(rng, family)
            text = write_up(problem, always_right, f"{family}/{number}")
            assert boxed(text) == problem.answer, text
            assert text.count("\\boxed{") == 1


@pytest.mark.parametrize("teacher", TEACHERS, ids=lambda teacher: teacher.name)
def test_a_wrong_teacher_boxes_another_answer(teacher: Teacher) -> None:
    always_wrong = teacher._replace(error_rate=1.0)
    rng = random.Random(8)
    for family in FAMILIES:
        for number in range(12):
            problem = draw_problem(rng, family)
            assert boxed(write_up(problem, always_wrong, f"{family}/{number}")) != problem.answer


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_positive_and_simple(family: str) -> None:
    rng = random.Random(9)
    for _ in range(60):
        problem = draw_problem(rng, family)
        value = work_out(problem.derivation)[-1].value
        assert value > 0 and value.denominator <= 200
        assert problem.answer == latex(value)


def test_texts_are_between_a_few_lines_and_a_page(demo: Any) -> None:
    rows, _ = demo
    lengths = [len(response(row)) for row in rows]
    assert min(lengths) > 40 and max(lengths) < 1600
    assert len({response(row) for row in rows}) == len(rows)


def derivation() -> Derivation:
    """3 × 4 = 12, then 20 − 12 = 8."""
    d = Derivation()
    cost = d.add("the cost", 3, "*", 4, "dollars")
    d.add("the change", 20, "-", cost, "dollars")
    return d


def test_a_derivation_is_worked_out_in_order() -> None:
    assert [line.value for line in work_out(derivation())] == [12, 8]
    assert derivation().literals == (3, 4, 20)


def test_a_slip_is_carried_on_and_marked_where_it_happened() -> None:
    lines = work_out(derivation(), Slip(0, offset=Fraction(1)))
    assert [(line.value, line.slipped) for line in lines] == [(13, True), (7, False)]
    lines = work_out(derivation(), Slip(0, operator="+"))
    assert [(line.operator, line.value) for line in lines] == [("+", 7), ("-", 13)]


def test_wrong_work_has_one_slip_and_another_answer() -> None:
    for seed in range(50):
        lines = work_out_wrongly(derivation(), random.Random(seed))
        assert [line.slipped for line in lines].count(True) == 1
        assert lines[-1].value != 8
        assert all(line.value > 0 for line in lines)


def test_fractions_are_written_as_latex() -> None:
    assert [latex(Fraction(n)) for n in ("12", "3/4", "-3/4")] == ["12", r"\frac{3}{4}", r"-\frac{3}{4}"]
