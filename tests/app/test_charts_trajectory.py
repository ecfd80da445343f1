from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.charts_trajectory import Window, bin_sizes, strip_card, why_card
from app.trajectory import Candidate, Problem
from lark_engine.explore.explain import ProblemScores, Threshold
from lark_engine.records import Trajectory

# ΣL = 4, Σbrier = 1.6, R = 0.4: ĝ = (2·brier − 0.4·L) / 4.
NLL, BRIER = np.array([1.0, 2.0, 1.0]), np.array([0.5, 0.6, 0.5])
G_HAT = np.array([0.15, 0.1, 0.15])


def problem(**changes: Any) -> Problem:
    values: dict[str, Any] = {
        "table_row": np.arange(3), "pool_row": np.arange(3), "teacher": ("a", "<b>", "a"), "nll": NLL, "brier": BRIER,
        "num_response_tokens": np.full(3, 100.0), "is_kept": np.ones(3, bool), "g_hat": G_HAT, "energy": G_HAT,
        "rank": np.array([1, 3, 2]), "weight": np.array([1.0, 0.0, 0.0]), "gave_way": np.zeros(3, bool),
        "threshold": Threshold(0.15, 2),
    }  # fmt: skip
    scores = ProblemScores(**{**values, **changes})
    candidates = [
        Candidate(
            place=k, slot=k % 2, scored=k, table_row=k, rank=int(scores.rank[k]), weight=float(scores.weight[k]),
            trajectory=Trajectory(problem_id="p", candidate_id=k, teacher=scores.teacher[k], prompt=(), response=""),
        )
        for k in range(3)
    ]  # fmt: skip
    return Problem(id="p", place=0, candidates=candidates, scores=scores)


def test_a_point_stands_above_its_line_of_equal_score() -> None:
    shown = problem()
    card = why_card(shown, shown.candidates[0], None, "g_hat")
    assert card is not None and card.figure is not None
    *lines, points = card.figure["data"]
    for line in lines:  # slope R/2 = 0.2
        rise = (line["y"][1] - line["y"][0]) / (line["x"][1] - line["x"][0])
        # ΣL is 4 and Σbrier 1.6 in this problem.
        assert rise == pytest.approx(0.2)
    threshold = lines[-1]
    # On the threshold's line lies who has its ĝ: brier = 0.15·4/2 + 0.2·L.
    assert threshold["y"][0] == pytest.approx(0.3 + 0.2 * threshold["x"][0])
    assert (points["x"], points["y"]) == ([1.0, 2.0, 1.0], [0.5, 0.6, 0.5])
    assert points["customdata"] == [["0"], ["1"], ["2"]]
    assert "&lt;b&gt; · candidate 1<br>ĝ +0.1000 · rank 3" in points["text"][1]
    assert card.figure["layout"]["meta"] == {"problem": "p", "n": 3, "candidate": 0}
    assert "3 candidates; R is 0.400" in card.alt and "ĝ +0.1500" in card.alt
    assert card.note.startswith("n = 3 scored candidates")


def test_chosen_and_compared_ones_are_ringed_and_those_without_weight_are_pale() -> None:
    shown = problem()
    card = why_card(shown, shown.candidates[1], shown.candidates[2], "g_hat")
    assert card is not None and card.figure is not None
    marker = card.figure["data"][-1]["marker"]
    assert marker["size"] == [10, 15, 15]
    assert marker["opacity"] == [1.0, 1.0, 1.0]
    assert marker["line"]["color"] == ["@bg", "@ink", "@ink"]
    assert marker["color"] == ["@c0", "@c1", "@c0"] and marker["symbol"] == ["circle", "square", "circle"]


def test_who_has_no_score_is_not_drawn_and_nobody_gives_no_chart() -> None:
    partial = problem(nll=np.array([1.0, np.nan, 1.0]))
    card = why_card(partial, partial.candidates[1], None, "-nll")
    assert card is not None and card.figure is not None
    assert card.figure["layout"]["meta"]["n"] == 2
    assert all(
        line["line"].get("dash") is None for line in card.figure["data"][:-1]
    )  # no ĝ threshold for another energy
    nobody = problem(is_kept=np.zeros(3, bool))
    assert why_card(nobody, nobody.candidates[0], None, "g_hat") is None


def bins() -> pd.DataFrame:
    return pd.DataFrame({"nll": [1.0, 0.5, 2.0], "brier": [0.5, 0.2, 0.0]})


def test_the_strip_has_a_bar_for_64_tokens_and_a_shorter_last_one() -> None:
    assert bin_sizes(3, 150).tolist() == [64, 64, 22]
    card = strip_card("strip", bins(), 150, "nll", None, None, "Candidate 4")
    assert card.figure is not None
    [bars] = card.figure["data"]
    assert bars["customdata"] == [[0], [64], [128]]
    assert bars["text"] == ["tokens 1–64", "tokens 65–128", "tokens 129–150"]
    assert bars["marker"]["color"] == ["@accent", "@accent", "@accent"]
    assert card.figure["layout"]["meta"] == {"mode": "nll", "n": 150, "bins": 3}
    # (64 + 32 + 44) / 150 nats per token
    assert "mean 0.933; highest 2 at tokens 129 to 150" in card.alt


def test_what_is_not_on_the_page_is_pale_in_the_strip() -> None:
    card = strip_card("strip", bins(), 150, "nll", None, Window(64, 128), "Candidate 4")
    assert card.figure is not None
    assert card.figure["data"][0]["marker"]["color"] == ["@accent.35", "@accent", "@accent.35"]


def test_contributions_in_the_strip_have_their_sign_and_sum() -> None:
    card = strip_card("strip", bins(), 150, "contribution", problem().scores, None, "Candidate 4")
    assert card.figure is not None
    # (2·brier − 0.4·nll)·size / (150·4): 0.6·64, 0.2·64, −0.8·22 over 600
    assert card.figure["data"][0]["marker"]["color"] == ["@accent", "@accent", "@warn"]
    assert "they sum to +5.6·10⁻²" in card.alt
    low, high = card.figure["layout"]["yaxis"]["range"]
    assert low < 0 < high


def test_a_response_without_bins_is_a_chart_too() -> None:
    card = strip_card("strip", bins().iloc[:0], 0, "nll", None, None, "Candidate 4")
    assert card.alt == "Candidate 4: no response token."
