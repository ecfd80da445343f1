"""One problem as the page Trajectory shows it: its candidates with texts, scores and flags; cached reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from app.scored import ScoredPool, load_frame
from lark_engine.config import SelectConfig
from lark_engine.errors import LarkError
from lark_engine.explore.explain import Order, ProblemScores, explain_problem, gate_reasons, problem_order
from lark_engine.explore.flags import CandidateKey, Flag, file_version, flags_version, read_flags
from lark_engine.figures import formats
from lark_engine.pool.dataset import RowGroup
from lark_engine.records import Message, Trajectory
from lark_engine.scoring.token_view import TOKEN_STATS_DIR, read_bins, read_tokens
from lark_engine.selection.frame import Solution
from lark_engine.store.workspace import Artifact

ORDERS: dict[Order, str] = {
    "pool": "in pool order", "spread": "largest ĝ spread first", "margin": "closest call at B first",
}  # fmt: skip
_SEARCHED_CHARS = 2000  # of a problem's text
NO_RANK = "no rank"  # in place of a rank where the selection cannot be solved
GATES = {
    "teacher": "not a chosen teacher", "excluded_teacher": "teacher left out", "not_known_correct": "not known correct",
    "truncated": "truncated", "too_short": "too short", "too_long": "too long",
    "duplicate_response": "repeated response",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One candidate: its text, and its place in the scores. What is not known is None; rank 0 says that it has none.

    `place` counts the problem's candidates in the pool, `scored` those with scores; `why_not` says why it has no rank.
    """

    place: int
    trajectory: Trajectory
    slot: int
    scored: int | None = None
    table_row: int | None = None
    rank: int = 0
    energy: float = float("nan")
    weight: float = 0.0
    num_tokens: int | None = None
    truncated: bool = False
    why_not: str = ""
    flag: Flag | None = None

    @property
    def id(self) -> int:
        return self.trajectory.candidate_id

    @property
    def teacher(self) -> str:
        return self.trajectory.teacher

    @property
    def verdict(self) -> str:
        """`correct`, `wrong` or `unknown`."""
        return {True: "correct", False: "wrong", None: "unknown"}[self.trajectory.is_correct]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A problem with all its candidates. `scores` is None when none was scored, or the selection cannot be solved."""

    id: str
    place: int
    candidates: list[Candidate]
    scores: ProblemScores | None

    @property
    def prompt(self) -> Sequence[Message]:
        return self.candidates[0].trajectory.prompt

    @property
    def answer(self) -> str | None:
        return next((c.trajectory.answer for c in self.candidates if c.trajectory.answer is not None), None)

    @property
    def by_rank(self) -> list[Candidate]:
        """Best first; those without a rank last, in the order of the pool."""
        return sorted(self.candidates, key=lambda candidate: (candidate.rank == 0, candidate.rank, candidate.place))

    def find(self, candidate_id: str | None) -> Candidate | None:
        return next((candidate for candidate in self.candidates if str(candidate.id) == candidate_id), None)


def load_problem_ids(scored: ScoredPool) -> pd.Index:
    """All problems of the pool in its order, also those of which nothing was scored."""
    return _first_rows(scored.version, scored).index


def load_order(scored: ScoredPool, config: SelectConfig, by: Order) -> list[str]:
    """The problems in the order in which they are gone through; what was not scored comes last.

    It is the order of the pool where the energies of this selection are not known.
    """
    everything = list(load_problem_ids(scored))
    if by == "pool":
        return everything
    try:
        return _order(scored.version, repr(sorted(config.pool_edit.items())), by, config.budget, scored, config)
    except LarkError:
        return everything


@st.cache_resource(max_entries=12, show_spinner=False)
def _order(version: str, edit: str, by: Order, budget: int, _scored: ScoredPool, _config: SelectConfig) -> list[str]:
    places = problem_order(load_frame(_scored, _config), by, budget)
    ranked = _scored.problem_ids.take(places)
    return [*ranked, *load_problem_ids(_scored).difference(ranked, sort=False)]


def load_problem(
    scored: ScoredPool, config: SelectConfig, solution: Solution | None, problem_id: str,
    flags: dict[CandidateKey, Flag],
) -> Problem | None:  # fmt: skip
    """A problem under a selection, or None when the pool has none of this id. Errors: `StoreError`.

    Without a solution its candidates have no scores.
    """
    first_rows = _first_rows(scored.version, scored)
    if problem_id not in first_rows.index:
        return None
    place = int(first_rows.index.get_loc(problem_id))
    start = int(first_rows.iloc[place])
    stop = int(first_rows.iloc[place + 1]) if place + 1 < len(first_rows) else scored.data.num_trajectories
    texts = _texts(scored, start, stop)
    scores, reasons, why_not = None, [], "not scored"
    if problem_id in scored.problem_ids:
        row = int(scored.problem_ids.get_loc(problem_id))
        if solution is None:
            why_not = NO_RANK
        else:
            scores = explain_problem(solution, config, row)
            reasons = gate_reasons(solution.frame, config, row)
    return Problem(
        id=problem_id, place=place, scores=scores,
        candidates=_candidates(scored, problem_id, texts, start, scores, reasons, why_not, flags),
    )  # fmt: skip


def search_problems(scored: ScoredPool, said: str, most: int = 8) -> list[tuple[str, str]]:
    """Problems (id, text) whose id is, begins with or holds what is said, then those whose text has all its words."""
    texts = _problem_texts(scored.version, scored)
    wanted = said.strip().lower()
    ids = texts.index.str.lower()
    order = [ids == wanted, ids.str.startswith(wanted), ids.str.contains(wanted, regex=False)]
    has_words = np.ones(len(texts), dtype=bool)
    for word in wanted.split()[:8]:
        has_words &= texts.str.contains(word, regex=False, case=False).to_numpy(bool)
    places = dict.fromkeys(int(place) for mask in (*order, has_words) for place in np.flatnonzero(mask)[:most])
    return [(str(texts.index[place]), texts.iloc[place]) for place in list(places)[:most]]


@st.cache_resource(max_entries=2, show_spinner="Reading the problems…")
def _problem_texts(version: str, _scored: ScoredPool) -> pd.Series:
    rows = _first_rows(version, _scored)
    found = [prompt[-1]["content"][:_SEARCHED_CHARS] for prompt in _scored.data.prompts(rows.to_numpy())]
    return pd.Series(found, index=rows.index, dtype="str")


class Solved(NamedTuple):
    """A selection's weights of the whole pool, None where there are none; `problem` says why, or that all are gone."""

    solution: Solution | None
    problem: str = ""


def load_solution(scored: ScoredPool, config: SelectConfig) -> Solved:
    """The weights of the whole pool; a frame is solved once for each selection that is looked at."""
    try:
        solution = _solution(scored.version, config.model_dump_json(), scored, config)
    except LarkError as error:
        return Solved(None, str(error))
    return Solved(solution, "" if solution.frame.keep_NK.any() else "No candidate of the pool passes all pool edits.")


@st.cache_resource(max_entries=8, show_spinner=False)
def _solution(version: str, said: str, _scored: ScoredPool, _config: SelectConfig) -> Solution:
    return load_frame(_scored, _config).solve(_config)


def load_tokens(scores: Artifact, row: int) -> pd.DataFrame | None:
    """Every response token of a row of the score table, None when they were not computed yet."""
    version = file_version(scores.path / TOKEN_STATS_DIR)
    return None if version == (0, 0) else _tokens(str(scores.path), scores.fingerprint, version, row, scores)


@st.cache_resource(max_entries=24, show_spinner=False)
def _tokens(path: str, fingerprint: str, version: object, row: int, _scores: Artifact) -> pd.DataFrame | None:
    return read_tokens(_scores, row)


def load_bins(scores: Artifact, row: int) -> pd.DataFrame:
    """Means over the bins of 64 response tokens."""
    return _bins(str(scores.path), scores.fingerprint, row, scores)


@st.cache_resource(max_entries=64, show_spinner=False)
def _bins(path: str, fingerprint: str, row: int, _scores: Artifact) -> pd.DataFrame:
    return read_bins(_scores, row)


def load_flags(pool: Artifact) -> dict[CandidateKey, Flag]:
    """The flags of a pool as of now. Errors: `StoreError` when the file is damaged."""
    return _flags(str(pool.path), flags_version(pool), pool)


@st.cache_resource(max_entries=4, show_spinner=False)
def _flags(path: str, version: object, _pool: Artifact) -> dict[CandidateKey, Flag]:
    return read_flags(_pool)


@st.cache_resource(max_entries=3, show_spinner=False)
def _first_rows(version: str, _scored: ScoredPool) -> pd.Series:
    return _scored.data.first_rows()


def _texts(scored: ScoredPool, start: int, stop: int) -> list[Trajectory]:
    groups = range(scored.data.group_of(start), scored.data.group_of(stop - 1) + 1)
    return [text for number in groups for text in _group(scored.version, number, scored).trajectories(start, stop)]


@st.cache_resource(max_entries=3, show_spinner=False)
def _group(version: str, number: int, _scored: ScoredPool) -> RowGroup:
    return _scored.data.group(number)


def _candidates(
    scored: ScoredPool, problem_id: str, texts: list[Trajectory], start: int, scores: ProblemScores | None,
    reasons: list[str], why_not: str, flags: dict[CandidateKey, Flag],
) -> list[Candidate]:  # fmt: skip
    places = {} if scores is None else {int(row): k for k, row in enumerate(scores.pool_row)}
    found = []
    for number, trajectory in enumerate(texts):
        k = places.get(start + number)
        said: dict[str, Any] = {"why_not": why_not}
        if k is not None and scores is not None:
            said = _scored_values(scored, scores, k, reasons[k])
        found.append(
            Candidate(
                place=number, trajectory=trajectory, slot=scored.slots.get(trajectory.teacher, len(scored.slots)),
                flag=flags.get(CandidateKey(problem_id, trajectory.candidate_id)), **said,
            )
        )  # fmt: skip
    return found


def _scored_values(scored: ScoredPool, scores: ProblemScores, k: int, gate: str) -> dict[str, Any]:
    row = int(scores.table_row[k])
    line = scored.candidates.table.iloc[row]
    reason = line.get("reason")
    why_not = GATES.get(gate, formats.words(gate))
    if not why_not and scores.rank[k] == 0:
        why_not = "score is not finite" if pd.isna(reason) else formats.words(str(reason))
    if not why_not and scores.gave_way[k]:
        why_not = "gave way to the teacher quota"
    num_tokens, truncated = scores.num_response_tokens[k], line.get("truncated")
    return {
        "scored": k, "table_row": row, "rank": int(scores.rank[k]), "energy": float(scores.energy[k]),
        "weight": float(scores.weight[k]), "num_tokens": None if np.isnan(num_tokens) else int(num_tokens),
        "truncated": not pd.isna(truncated) and bool(truncated), "why_not": why_not,
    }  # fmt: skip
