from __future__ import annotations

import pytest
from graded import evaluated

from lark_engine.config import GradeConfig
from lark_engine.errors import StoreError
from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.evaluation.grade import grade, shown_grades
from lark_engine.results.answers import (
    Answer,
    changed_verdicts,
    graded_problems,
    having,
    read_answers,
    sample_places,
    tally,
)
from lark_engine.results.graded import Graded, read_graded
from lark_engine.store.workspace import Artifact, Workspace


def graded_of(workspace: Workspace, artifact: Artifact) -> Graded:
    (one,) = [one for one in read_graded(workspace).graded if one.grade.path == artifact.path]
    return one


def answers_of(one: Graded, problem_id: str) -> list[Answer]:
    grades = shown_grades(one.grade)
    places = sample_places(one.generations.path)[problem_id]
    return read_answers(one, problem_id, places, grades[grades["problem_id"] == problem_id])


@pytest.fixture
def base(workspace: Workspace, run: dict[str, Artifact]) -> Graded:
    return graded_of(workspace, run["base"])


def test_every_problem_says_what_became_of_its_samples(base: Graded) -> None:
    problems = graded_problems(base)
    assert [(p.problem_id, p.level, p.num_samples, p.mean_tokens) for p in problems] == [
        ("p0", "1", 2, 15.0), ("p1", "1", 2, 15.0), ("p2", "2", 2, 15.0), ("p3", "2", 2, 15.0),
    ]  # fmt: skip
    assert problems[0].num == {"correct": 1, "wrong": 1, "disputed": 0, "no_answer": 0, "truncated": 0}
    assert problems[2].num == {"correct": 0, "wrong": 2, "disputed": 0, "no_answer": 1, "truncated": 1}
    assert [p.problem_id for p in having(problems, "no_answer")] == ["p2", "p3"]
    assert [p.problem_id for p in having(problems, "truncated")] == ["p2"]
    assert having(problems, "disputed") == []
    assert having(problems, None) == problems


def test_an_answer_has_its_text_and_the_rule_that_found_it(base: Graded) -> None:
    first, second = answers_of(base, "p2")
    assert (first.text, first.prediction, first.rule, first.reason) == (r"\boxed{2}", "2", "boxed", None)
    assert (first.correct, first.by_rules, first.dispute, first.num_tokens, first.seed) == (False, False, None, 10, 0)
    assert (second.prediction, second.rule, second.reason, second.finish_reason) == (None, None, "no_answer", "length")


def test_a_dispute_shows_at_once_and_keeps_what_the_rules_said(base: Graded) -> None:
    add_dispute(base.generations, SampleKey("p2", 0), correct=True, author="ann", reason="2 is right")
    answer = answers_of(base, "p2")[0]
    assert (answer.correct, answer.by_rules) == (True, False)
    assert answer.dispute is not None and (answer.dispute.author, answer.dispute.reason) == ("ann", "2 is right")
    assert [p.problem_id for p in having(graded_problems(base), "disputed")] == ["p2"]
    assert tally(base).num_disputed == 1
    add_dispute(base.generations, SampleKey("p2", 0), correct=None, author="ann", reason="no, it is not")
    assert (answers_of(base, "p2")[0].correct, tally(base).num_disputed) == (False, 0)


def test_the_tally_counts_rules_reasons_and_cuts(base: Graded) -> None:
    assert tally(base) == (8, 2, 0, 1, {"boxed": 6}, {"no_answer": 2})


def test_a_sample_without_a_grade_is_refused(base: Graded) -> None:
    with pytest.raises(StoreError, match="sample 0 of 'p2' has no grade"):
        read_answers(base, "p2", sample_places(base.generations.path)["p2"], shown_grades(base.grade).head(0))


def test_two_gradings_of_the_same_answers_say_what_changed(workspace: Workspace, run: dict[str, Artifact]) -> None:
    one = graded_of(workspace, evaluated(workspace, "other", "gsm8k", {"p": "1-", "q": "0-"}))
    again = graded_of(workspace, grade(GradeConfig(rules=("boxed", "last_number")), workspace, one.generations))
    assert changed_verdicts(one, again) == []
    # The phrase "who knows" holds no number; a rule that finds none where another found one changes a verdict.
    phrase = graded_of(workspace, grade(GradeConfig(rules=("answer_phrase",)), workspace, one.generations))
    (changed,) = changed_verdicts(one, phrase)
    assert changed == ("p", 0, "1", "1", "boxed", True, None, None, False)
    add_dispute(one.generations, SampleKey("p", 0), correct=True, author="ann", reason="it is boxed")
    assert changed_verdicts(one, phrase) == []
