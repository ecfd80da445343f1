"""The trajectories that a selection keeps, as flat arrays: what reports and comparisons of selections are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lark_engine.scoring.matrix import Floats, Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """What one selection keeps, one entry a trajectory, [M].

    `key` numbers the candidates, `problem` the problems and `teacher` the teachers (an index into `teachers`); two
    selections are comparable when these numbers mean the same. Token counts are NaN where they are not known. Sums are
    made when first asked for, and kept.
    """

    teachers: tuple[str, ...]
    key: Ints
    problem: Ints
    teacher: Ints
    prob: Floats
    num_prompt_tokens: Floats
    num_response_tokens: Floats

    @cached_property
    def prompt_tokens(self) -> int | None:
        """The total; None where a count is not known (released score files hold none), not 0."""
        return _total(self.num_prompt_tokens)

    @cached_property
    def response_tokens(self) -> int | None:
        """The total; None where a count is not known."""
        return _total(self.num_response_tokens)

    @property
    def train_tokens(self) -> int | None:
        """Prompt and response tokens of all; None where a count is not known."""
        if self.prompt_tokens is None or self.response_tokens is None:
            return None
        return self.prompt_tokens + self.response_tokens

    @cached_property
    def shares(self) -> dict[str, Floats]:
        """Each teacher's share of the trajectories (`count`), of the weight (`q`), and of weight · response tokens."""
        known = (
            self.num_response_tokens if self.response_tokens is not None else np.nan_to_num(self.num_response_tokens)
        )
        weights = {"count": None, "q": self.prob, "q_tokens": self.prob * known}
        teacher = self.teacher.astype(np.intp)  # once; bincount would do it each time
        sums = {name: np.bincount(teacher, part, minlength=len(self.teachers)) for name, part in weights.items()}
        return {name: sum_T / (sum_T.sum() or 1.0) for name, sum_T in sums.items()}

    @cached_property
    def num_kept_N(self) -> Ints:
        """Trajectories of each problem, up to the last problem that has any."""
        return np.bincount(self.problem)

    @cached_property
    def prob_by_key(self) -> Floats:
        """selection_prob by candidate, -1 where it is not kept; the last place stands for all keys above."""
        prob = np.full(int(self.key.max(initial=-1)) + 2, -1.0)
        prob[self.key] = self.prob
        return prob


def _total(num_tokens: Floats) -> int | None:
    total = num_tokens.sum()
    return None if np.isnan(total) else int(total)
