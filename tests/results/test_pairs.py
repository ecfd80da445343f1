from __future__ import annotations

import pytest

from lark_engine.evaluation.paired import compare_paired, holm
from lark_engine.results.compare import compare, compare_graded
from lark_engine.results.graded import read_graded
from lark_engine.results.pairs import ProblemPair, slices, sort_pairs
from lark_engine.store.workspace import Artifact, Workspace


def pair(
    name: str, a: float, b: float, *, level: str | None = None, subject: str | None = None, tokens: float = 10.0
) -> ProblemPair:  # fmt: skip
    """A problem with four samples of each side; `a` and `b` are shares of correct ones."""
    return ProblemPair(
        problem_id=name, prompt="", reference="1", level=level, subject=subject, correct_a=round(4 * a), num_a=4,
        correct_b=round(4 * b), num_b=4, tokens_a=tokens, tokens_b=tokens, value_a=a, value_b=b,
    )  # fmt: skip


def test_a_comparison_keeps_both_sides_counts_of_each_problem(workspace: Workspace, run: dict[str, Artifact]) -> None:
    found = compare_graded(read_graded(workspace).graded, "tiny", "lora-quick")
    (detail,) = found.details
    assert [(p.problem_id, p.level, p.correct_a, p.num_a, p.correct_b, p.num_b) for p in detail.problems] == [
        ("p0", "1", 1, 2, 2, 2), ("p1", "1", 0, 2, 2, 2), ("p2", "2", 0, 2, 0, 2), ("p3", "2", 1, 2, 1, 2),
    ]  # fmt: skip
    assert [(p.value_a, p.value_b) for p in detail.problems] == [(0.5, 1.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.5)]
    assert {(p.tokens_a, p.tokens_b, p.prompt[:7], p.reference) for p in detail.problems} == {(15, 15, "What is", "1")}
    assert [one.place for one in detail.graded_a] == [str(run["base"].path.relative_to(workspace.root))]
    assert found.comparison == compare(workspace, "tiny", "lora-quick")


def test_slices_are_paired_differences_with_holm_over_them() -> None:
    pairs = [
        *(pair(f"e{n}", 0.0, 1.0, level="1") for n in range(6)),
        *(pair(f"m{n}", 0.5, 0.5, level="2") for n in range(3)),
        pair("h", 1.0, 0.0, level="10"), pair("x", 1.0, 1.0),
    ]  # fmt: skip
    found = slices(pairs, "level")
    assert [(part.name, part.paired.num_problems, part.paired.difference) for part in found.parts] == [
        ("1", 6, 1.0), ("2", 3, 0.0), ("10", 1, -1.0),
    ]  # fmt: skip
    assert found.parts[0].paired == compare_paired([0.0] * 6, [1.0] * 6)
    assert [part.paired.p_value for part in found.parts] == [0.03125, 1.0, 1.0]
    assert [part.p_adjusted for part in found.parts] == [3 * 0.03125, 1.0, 1.0]
    assert [part.p_adjusted for part in found.parts] == holm([0.03125, 1.0, 1.0])
    assert found.num_without == 1


def test_slices_by_length_are_quarters_by_the_mean_of_both_sides_tokens() -> None:
    pairs = [pair(f"p{n}", 0.0, n / 8, tokens=100.0 * (n + 1)) for n in range(8)]
    found = slices(pairs, "length")
    assert [part.name for part in found.parts] == [
        "100 – 200 tokens", "300 – 400 tokens", "500 – 600 tokens", "700 – 800 tokens",
    ]  # fmt: skip
    assert [part.paired.difference for part in found.parts] == pytest.approx([0.0625, 0.3125, 0.5625, 0.8125])


def test_problems_of_one_length_are_never_parted() -> None:
    pairs = [pair(f"p{n}", 0.0, 0.5, tokens=10) for n in range(9)] + [pair("long", 0.0, 0.5, tokens=99)]
    assert [(part.name, part.paired.num_problems) for part in slices(pairs, "length").parts] == [
        ("10 – 10 tokens", 9), ("99 – 99 tokens", 1),
    ]  # fmt: skip
    assert slices([], "length") == ([], 0)


def test_a_benchmark_without_subjects_has_no_slices_by_subject() -> None:
    assert slices([pair("p", 0.0, 1.0)], "subject") == ([], 1)


def test_problems_sort_by_flips_first_and_by_any_column() -> None:
    pairs = [
        pair("same", 1.0, 1.0), pair("big", 0.0, 0.5), pair("lost", 1.0, 0.25), pair("gained", 0.5, 0.75, level="2"),
        pair("z", 0.25, 0.25, level="10"),
    ]  # fmt: skip
    names = [p.problem_id for p in sort_pairs(pairs, "flipped", descending=False)]
    assert names == ["lost", "gained", "big", "same", "z"]
    assert [p.problem_id for p in sort_pairs(pairs, "difference", descending=True)][:2] == ["big", "gained"]
    assert [p.problem_id for p in sort_pairs(pairs, "level", descending=False)][:2] == ["gained", "z"]
