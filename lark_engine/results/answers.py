"""What a model answered, and how it was graded: the problems of a grade, every answer to one, and what two grades of
the same answers say differently."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pandas as pd

from lark_engine.errors import StoreError
from lark_engine.evaluation.disputes import Dispute, SampleKey, read_disputes
from lark_engine.evaluation.generate import GENERATIONS, PROBLEMS
from lark_engine.evaluation.grade import shown_grades
from lark_engine.evaluation.sampling import TRUNCATED, text_with_thinking
from lark_engine.results.graded import Graded
from lark_engine.store.rows import read_rows

Verdict = Literal["wrong", "correct", "disputed", "no_answer", "truncated"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, kw_only=True)
class GradedProblem:
    """A problem and what became of its samples; `num` says how many have each verdict (several can hold)."""

    problem_id: str
    prompt: str
    reference: str
    level: str | None
    subject: str | None
    num_samples: int
    num: Mapping[Verdict, int]
    mean_tokens: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One sample: its text, what was found in it by which rule, and the verdict.

    `correct` is the verdict that counts, `by_rules` the one of the rules; they differ where `dispute` says so.
    """

    sample_index: int
    text: str
    prediction: str | None
    rule: str | None
    reason: str | None
    correct: bool
    by_rules: bool
    dispute: Dispute | None
    num_tokens: int
    finish_reason: str
    seed: int | None


class Tally(NamedTuple):
    """How the answers of a grade were found and judged, in samples: by rule, and by what was wrong with them."""

    num_samples: int
    num_correct: int
    num_disputed: int
    num_truncated: int
    by_rule: dict[str, int]
    by_reason: dict[str, int]


class ChangedVerdict(NamedTuple):
    """A sample that two gradings of the same answers judge differently, each with what it found."""

    problem_id: str
    sample_index: int
    reference: str
    prediction_a: str | None
    rule_a: str | None
    correct_a: bool
    prediction_b: str | None
    rule_b: str | None
    correct_b: bool


def graded_problems(one: Graded) -> list[GradedProblem]:
    """Every problem of a grade in the benchmark's order, disputes applied. Errors: `StoreError` when it is damaged."""
    table = shown_grades(one.grade)
    signs = pd.DataFrame(_signs(table))
    signs = signs.assign(problem_id=table["problem_id"].astype(str), num_tokens=table["num_tokens"])
    by_problem = signs.groupby("problem_id", sort=False)
    sums = by_problem[list(VERDICTS)].sum().to_dict("index")
    means, sizes = by_problem["num_tokens"].mean().to_dict(), by_problem.size().to_dict()
    found = []
    for row in read_rows(one.generations.path / PROBLEMS):
        problem_id = str(row["problem_id"])
        if problem_id not in sizes:
            continue
        found.append(
            GradedProblem(
                problem_id=problem_id, prompt=str(row["prompt"]), reference=str(row["reference"]),
                level=None if row.get("level") is None else str(row["level"]),
                subject=None if row.get("subject") is None else str(row["subject"]),
                num_samples=int(sizes[problem_id]), num={name: int(sums[problem_id][name]) for name in VERDICTS},
                mean_tokens=float(means[problem_id]),
            )
        )  # fmt: skip
    return found


def having(problems: Sequence[GradedProblem], verdict: Verdict | None) -> list[GradedProblem]:
    """The problems with at least one sample of this verdict; all for None."""
    return [problem for problem in problems if verdict is None or problem.num[verdict]]


def tally(one: Graded) -> Tally:
    """How the answers were found and judged, disputes applied."""
    table = shown_grades(one.grade)
    return Tally(
        num_samples=len(table), num_correct=int(table["correct"].sum()), num_disputed=int(table["disputed"].sum()),
        num_truncated=int((table["finish_reason"] == TRUNCATED).sum()),
        by_rule={str(rule): int(number) for rule, number in table["rule"].value_counts().items()},
        by_reason={str(reason): int(number) for reason, number in table["reason"].value_counts().items()},
    )  # fmt: skip


def sample_places(generations: Path) -> dict[str, list[int]]:
    """Where in the file of generations the rows of each problem begin, in bytes: one is read without the others."""
    found: dict[str, list[int]] = {}
    place = 0
    with (generations / GENERATIONS).open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                found.setdefault(str(json.loads(line)["problem_id"]), []).append(place)
            place += len(line)
    return found


def read_answers(one: Graded, problem_id: str, places: Sequence[int], grades: pd.DataFrame) -> list[Answer]:
    """Every sample of a problem with its grade, by index.

    `places`: as `sample_places` says. `grades`: the rows of `shown_grades` of this problem.
    Errors: `StoreError` when a sample was not graded.
    """
    disputes = read_disputes(one.generations.path)
    verdicts = {int(row["sample_index"]): row for row in grades.to_dict("records")}
    found = []
    with (one.generations.path / GENERATIONS).open("rb") as file:
        for place in places:
            file.seek(place)
            sample = json.loads(file.readline())
            row = verdicts.get(int(sample["sample_index"]))
            if row is None:
                raise StoreError(f"{one.place}: sample {sample['sample_index']} of {problem_id!r} has no grade")
            found.append(_answer(sample, row, disputes.get(SampleKey(problem_id, int(sample["sample_index"])))))
    return sorted(found, key=lambda answer: answer.sample_index)


def changed_verdicts(a: Graded, b: Graded) -> list[ChangedVerdict]:
    """The samples that two grades of the same generations judge differently, in the order of A, disputes applied."""
    keys = ["problem_id", "sample_index"]
    both = shown_grades(a.grade).merge(shown_grades(b.grade), on=keys, suffixes=("_a", "_b"))
    changed = both[both["correct_a"] != both["correct_b"]]
    return [
        ChangedVerdict(
            str(row["problem_id"]), int(row["sample_index"]), str(row["reference_a"]), _text(row["prediction_a"]),
            _text(row["rule_a"]), bool(row["correct_a"]), _text(row["prediction_b"]), _text(row["rule_b"]),
            bool(row["correct_b"]),
        )
        for row in changed.to_dict("records")
    ]  # fmt: skip


def _signs(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Of each sample whether it has each verdict."""
    correct = table["correct"].astype(bool)
    return {
        "wrong": ~correct, "correct": correct, "disputed": table["disputed"].astype(bool),
        "no_answer": table["prediction"].isna(), "truncated": table["finish_reason"] == TRUNCATED,
    }  # fmt: skip


def _answer(sample: dict[str, Any], row: dict[Any, Any], dispute: Dispute | None) -> Answer:
    return Answer(
        sample_index=int(sample["sample_index"]),
        text=text_with_thinking(str(sample["text"]), bool(sample.get("starts_in_thinking", False))),
        prediction=_text(row["prediction"]), rule=_text(row["rule"]), reason=_text(row["reason"]),
        correct=bool(row["correct"]), by_rules=bool(row["correct"]) != bool(row["disputed"]), dispute=dispute,
        num_tokens=int(sample["num_tokens"]), finish_reason=str(sample["finish_reason"]), seed=sample.get("seed"),
    )  # fmt: skip


def _text(value: object) -> str | None:
    return None if value is None or value is pd.NA or value != value else str(value)
