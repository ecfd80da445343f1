"""What the view Problems shows: the problems of a grade, and every answer to one; cached reading.

The cache notices a dispute: it changes verdicts without a new manifest.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from lark_engine.evaluation.disputes import DISPUTES
from lark_engine.evaluation.grade import shown_grades
from lark_engine.explore.flags import file_version
from lark_engine.figures.side_words import grading_words, is_graded_as_usual, made, model_words
from lark_engine.results.answers import (
    Answer,
    GradedProblem,
    Tally,
    graded_problems,
    read_answers,
    sample_places,
    tally,
)
from lark_engine.results.graded import Graded


def grade_labels(graded: list[Graded]) -> dict[str, str]:
    """What each grade is called, by its place; a grading that is not the usual one is named."""
    labels = {}
    for one in graded:
        grading = "" if is_graded_as_usual(one) else grading_words(one)
        parts = [model_words(one), made(one), f"on {one.benchmark}", grading]
        labels[one.place] = " · ".join(part for part in parts if part)
    for one in graded:
        if sum(label == labels[one.place] for label in labels.values()) > 1:
            labels[one.place] += f" · {one.generations.fingerprint[:6]}"
    return labels


def load_problems(one: Graded) -> list[GradedProblem]:
    """Every problem of a grade, disputes applied. Errors: `StoreError` when its files are damaged."""
    return _problems(one.place, _version(one), one)


@st.cache_resource(max_entries=6, show_spinner="Reading the grades…")
def _problems(place: str, version: object, _one: Graded) -> list[GradedProblem]:
    return graded_problems(_one)


def load_tally(one: Graded) -> Tally:
    """How the answers were found and judged."""
    return _tally(one.place, _version(one), one)


@st.cache_resource(max_entries=12, show_spinner=False)
def _tally(place: str, version: object, _one: Graded) -> Tally:
    return tally(_one)


def load_answers(one: Graded, problem_id: str) -> list[Answer]:
    """Every answer to a problem; none where it was not sampled. Errors: `StoreError` when files are damaged."""
    places = _places(str(one.generations.path), one.generations.fingerprint).get(problem_id, [])
    grades = _grades(one.place, _version(one), one)
    return read_answers(one, problem_id, places, grades[grades["problem_id"] == problem_id])


@st.cache_resource(max_entries=6, show_spinner="Reading the answers…")
def _places(path: str, fingerprint: str) -> dict[str, list[int]]:
    return sample_places(Path(path))


@st.cache_resource(max_entries=6, show_spinner=False)
def _grades(place: str, version: object, _one: Graded) -> pd.DataFrame:
    return shown_grades(_one.grade).astype({"problem_id": "str"})


def _version(one: Graded) -> tuple[object, ...]:
    return str(one.grade.path), one.grade.fingerprint, file_version(one.generations.path / DISPUTES)
