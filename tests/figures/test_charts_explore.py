"""Explore's charts as dictionaries: their numbers, words and marks, from aggregates of literal pools."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from app.explore_controls import describe
from lark_engine.explore import distributions, wins
from lark_engine.explore.distributions import MedianSums, Span
from lark_engine.explore.view import Range, ViewFilter
from lark_engine.figures.cards import Card
from lark_engine.figures.charts_explore import Distribution, Reference, Rows, boxes, ecdfs, ridges, rows_by_median
from lark_engine.figures.charts_relations import iso_levels, length_bias, why_high
from lark_engine.figures.charts_wins import difficulty_grid, duel_grid, margin_histogram, win_bars
from lark_engine.figures.metric_words import METRIC_WORDS, energy_words, margin_words, metric_words

TEACHERS = ("a", "<b>bold</b>", "c")
SLOTS = {"a": 0, "<b>bold</b>": 1, "c": 2}
VALUES = np.array([[1.0, 4.0, 9.0], [2.0, 6.0, np.nan], [3.0, 5.0, np.nan]])
CODES = np.tile(np.array([0, 1, 2], dtype=np.int16), (3, 1))
ALL = np.ones((3, 3), dtype=bool)
WORDS = METRIC_WORDS["nll"]


def shown(num_teachers: int = 3, **more: Any) -> Distribution:
    found = distributions.by_teacher(VALUES, ALL & np.less(CODES, num_teachers), CODES, 3)
    rows = rows_by_median(found, TEACHERS, SLOTS)
    return Distribution(rows=rows, found=found, words=WORDS, span=Span(0.0, 10.0), **more)


def check(card: Card) -> dict[str, Any]:
    """The figure of a card that may go to the browser: JSON without NaN, axes with titles, text for a screen reader."""
    assert card.figure is not None and card.title and card.note and len(card.alt) > 30
    assert "nan" not in card.title + card.note and "nan" not in card.alt.lower()
    json.dumps(card.figure, allow_nan=False)
    assert "<b>bold" not in json.dumps([trace.get("hovertext") for trace in card.figure["data"]])
    assert card.figure["layout"]["xaxis"]["title"]["text"]
    assert "meta" in card.figure["layout"]
    return card.figure


def densities() -> distributions.Densities:
    return distributions.densities(VALUES, ALL, CODES == 0, CODES, 3, Span(0.0, 10.0))


def test_teachers_stand_in_the_order_of_their_medians_and_those_without_are_left_out() -> None:
    found = distributions.by_teacher(VALUES, ALL & (CODES < 2), CODES, 3)
    assert rows_by_median(found, TEACHERS, SLOTS).names == ("<b>bold</b>", "a")
    assert rows_by_median(found, TEACHERS, SLOTS, is_ascending=True).names == ("a", "<b>bold</b>")


@pytest.mark.parametrize("shape", ["ridge", "box", "ecdf"])
def test_a_metric_by_teacher_says_its_finding_and_its_medians(shape: str) -> None:
    given = shown(reference=Reference(value=4.0, text="mean R/K 4.000"), kept_T=[3, 0, 0])
    quantiles = distributions.ecdfs(VALUES, ALL, CODES, 3)
    made = {
        "ridge": lambda: ridges(given, densities()),
        "box": lambda: boxes(given),
        "ecdf": lambda: ecdfs(given, quantiles),
    }
    card = made[shape]()
    figure = check(card)
    assert card.title == "c has the highest median L, a the lowest"
    assert "n = 7 candidates of 3 teachers" in card.note
    assert "a: median 2.000, middle half 1.500 to 2.500, n = 3" in card.alt and "mean R/K 4.000" in card.alt
    assert figure["layout"]["meta"] == {"teachers": ["c", "<b>bold</b>", "a"], "n": 7, "medians": [9.0, 5.0, 2.0]}
    assert figure["layout"]["shapes"][0]["x0"] == 4.0


def test_ridges_do_not_overlap_and_selected_candidates_are_a_part_of_them() -> None:
    figure = check(ridges(shown(kept_T=[3, 0, 0]), densities()))
    areas = [trace for trace in figure["data"] if trace.get("fill") == "toself"]
    assert len(areas) == 4  # one for each teacher, and the selected ones of a
    import base64

    for area, place in zip(areas, (2, 1, 0, 0), strict=True):
        y = np.frombuffer(base64.b64decode(area["y"]["bdata"]), "<f4")
        assert y.min() == pytest.approx(place) and y.max() < place + 0.96
        assert area["x0"] == 0.0 and area["dx"] == pytest.approx(10 / 119)


def test_a_row_can_be_clicked_and_names_in_it_are_escaped() -> None:
    figure = check(ridges(shown(), densities()))
    bars = next(trace for trace in figure["data"] if trace["type"] == "bar")
    assert bars["customdata"] == [["c"], ["<b>bold</b>"], ["a"]]
    assert "&lt;b&gt;bold&lt;/b&gt;" in bars["hovertext"][1]
    assert figure["layout"]["yaxis"]["ticktext"] == ["c", "&lt;b&gt;bold&lt;/b&gt;", "a"]
    assert figure["layout"]["yaxis"]["tickvals"] == [2, 1, 0]


def test_one_teacher_has_a_median_instead_of_an_order() -> None:
    assert ridges(shown(1), densities()).title == "a: median L 2.000"


def test_a_reference_beyond_the_axis_is_not_drawn() -> None:
    assert not boxes(shown(reference=Reference(value=99.0, text="far"))).figure["layout"]["shapes"]  # type: ignore[index]


def test_forty_teachers_fit_and_stay_small() -> None:
    names = tuple(f"teacher {n:02d}" for n in range(40))
    rng = np.random.default_rng(0)
    values, codes = rng.normal(size=(50, 40)), np.tile(np.arange(40, dtype=np.int16), (50, 1))
    everything = np.ones_like(values, dtype=bool)
    found = distributions.by_teacher(values, everything, codes, 40)
    rows = rows_by_median(found, names, {name: n for n, name in enumerate(names)})
    given = Distribution(rows=rows, found=found, words=WORDS, span=Span(-4, 4), kept_T=[1] * 40)
    density = distributions.densities(values, everything, everything, codes, 40, Span(-4, 4))
    assert len(json.dumps(ridges(given, density).figure)) < 90_000
    grid = wins.duels(values, np.ones(50, dtype=bool))
    assert len(json.dumps(duel_grid(grid, rows, energy="ĝ", height=500).figure)) < 130_000


def test_win_shares_have_intervals_and_the_share_by_chance() -> None:
    found = wins.win_shares(
        np.array([[3.0, 2.0, 1.0], [2.0, 1.0, np.nan], [2.0, 1.0, np.nan]]), ~np.isnan(VALUES), ALL,
        np.ones(3, dtype=bool), CODES, 3, 1,
    )  # fmt: skip
    card = win_bars(found, shown().rows, top=1, energy="ĝ", height=300, is_filtered=False)
    figure = check(card)
    assert card.title == "<b>bold</b> holds the first place in 66.7% of problems"
    assert card.note.startswith("n = 3 problems ranked by ĝ")
    assert figure["layout"]["meta"]["shares"] == [0.333333, 0.666667, 0.0]
    bars, chance = figure["data"][:2]
    assert bars["error_x"]["array"][1] == pytest.approx(0.9385 - 0.6667, abs=1e-4)
    assert bars["error_x"]["arrayminus"][2] == 0.0
    assert chance["x"] == [0.111111, 0.444444, 0.444444]
    assert "a 0.0% (0.0% to 56.1%), by chance 44.4%" in card.alt


def test_margins_say_how_often_the_cut_is_a_coin_flip() -> None:
    found = wins.Margins(np.array([0.0, 0.1, 0.2]), np.array([3, 1]), 1, 5, 2, 2, 0.05)
    card = margin_histogram(found, budget=3, energy=METRIC_WORDS["g_hat"], height=300)
    figure = check(card)
    assert card.title == "At B = 3, 40.0% of cuts are coin flips"
    assert "n = 5 problems (2 more have too few)" in card.note and "median 0.05000" in card.note
    assert figure["data"][0]["customdata"] == [[0.0, 0.1], [0.1, 0.2]] and figure["data"][0]["y"] == [3, 1]
    assert figure["layout"]["meta"] == {"n": 5, "B": 3, "coin_flips": 2, "above": 1}
    assert figure["layout"]["xaxis"]["range"] == [0, 0.2]


def test_without_a_cut_there_is_no_histogram() -> None:
    found = wins.Margins(np.array([0.0, 1.0]), np.array([0]), 0, 0, 4, 0, float("nan"))
    card = margin_histogram(found, budget=9, energy=METRIC_WORDS["g_hat"], height=300)
    assert card.figure is None and card.note == "None of the 4 problems in sight has more than 9 candidates."


def test_a_grid_of_difficulty_is_made_of_cells_that_can_be_clicked() -> None:
    values = np.array([[0.010, 0.011, 0.012, 0.013, 0.014], [0.02, np.nan, 0.02, 0.02, 0.019], [0.0] * 5])
    rows = Rows(codes=(1, 0), names=("<b>bold</b>", "a"), slots=(1, 0))
    card = difficulty_grid(wins.Grid(values, np.full((3, 5), 7)), rows, METRIC_WORDS["g_hat"], height=300)
    figure = check(card)
    cells = figure["data"][0]
    assert card.title == "ĝ of a rises most with difficulty" and "cell: mean ĝ × 1,000" in card.note
    assert cells["text"] == [
        "20.0",
        "20.0",
        "20.0",
        "19.0",
        "10.0",
        "11.0",
        "12.0",
        "13.0",
        "14.0",
    ]  # the unknown cell is not there
    assert cells["customdata"][0] == [1, 1] and cells["customdata"][-1] == [0, 5]
    assert (cells["y"][0], cells["base"][0], cells["y"][-1], cells["base"][-1]) == (1, 0.02, 0, 4.02)


def test_duels_stand_in_the_order_of_wins() -> None:
    found = wins.Grid(np.array([[np.nan, 0.2, 0.1], [0.8, np.nan, 0.3], [0.9, 0.7, np.nan]]), np.full((3, 3), 10))
    card = duel_grid(found, Rows(codes=(0, 1, 2), names=TEACHERS, slots=(0, 1, 2)), energy="ĝ", height=300)
    figure = check(card)
    assert card.title == "c wins 80.0% of its duels"
    assert figure["layout"]["meta"]["teachers"] == ["c", "<b>bold</b>", "a"]
    assert figure["data"][0]["text"] == ["70", "90", "30", "80", "10", "20"]
    assert figure["data"][0]["customdata"][0] == [2, 1]
    alone = duel_grid(found, Rows(codes=(0,), names=("a",), slots=(0,)), energy="ĝ", height=300)
    assert alone.figure is None and alone.title == "There is no duel"


def plane_card(of_rho: bool) -> Card:
    nll, brier = np.array([[1.0, 2.0, 3.0]] * 3), np.array([[0.5, 0.7, 0.6]] * 3)
    y = brier / nll if of_rho else brier
    cells = distributions.plane(nll, y, ALL, Span(0.5, 3.5), Span(0.0, 1.0), num_bins=4)
    x_found, y_found = (distributions.by_teacher(v, ALL, CODES, 3) for v in (nll, y))
    rows = rows_by_median(x_found, TEACHERS, SLOTS)
    return why_high(
        cells,
        rows,
        x_found,
        y_found,
        MedianSums(6.0, 1.8),
        [0.1],
        of_rho=of_rho,
        word=METRIC_WORDS["g_hat"],
        height=300,
    )


def test_lines_of_equal_g_hat_are_those_of_the_median_problem() -> None:
    card = plane_card(of_rho=False)
    figure = check(card)
    line = next(trace for trace in figure["data"] if trace.get("mode") == "lines")
    assert line["x"] == [0.5, 3.5]
    assert line["y"] == pytest.approx([(0.1 * 6 + 0.5 * 0.3) / 2, (0.1 * 6 + 3.5 * 0.3) / 2])
    assert "equal ĝ at the median problem’s ΣL = 6.0, ΣBrier = 1.8" in card.note and "n = 9" in card.note
    assert figure["layout"]["dragmode"] == "select"
    label = figure["layout"]["annotations"][0]
    assert (label["text"], label["x"], label["y"]) == ("+0.1000", 3.5, pytest.approx(0.825))


def test_against_rho_the_same_lines_bend() -> None:
    figure = check(plane_card(of_rho=True))
    line = next(trace for trace in figure["data"] if trace.get("mode") == "lines")
    middle = line["x"].index(next(x for x in line["x"] if x > 2))
    x = line["x"][middle]
    assert line["y"][middle] == pytest.approx((0.1 * 6 / x + 0.3) / 2, rel=1e-4)


def test_levels_of_lines_are_round_and_lie_in_the_bulk() -> None:
    assert iso_levels(np.linspace(0.0, 0.1, 101)) == [0.02, 0.04, 0.06, 0.08]
    assert iso_levels(np.full(3, np.nan)) == [] and iso_levels(np.full(3, 0.5)) == []


def test_length_bias_is_said_with_its_correlation() -> None:
    tokens = np.repeat(np.geomspace(100, 1000, 10), 5).reshape(-1, 1)
    values = np.log10(tokens)
    codes = np.zeros(tokens.shape, dtype=np.int16)
    everything = np.ones(tokens.shape, dtype=bool)
    found = distributions.along_length(values, tokens, everything, codes, 1, np.geomspace(90, 1100, 6))
    whole = distributions.by_teacher(values, everything, codes, 1)
    rows = rows_by_median(whole, ("a",), {"a": 0})
    card = length_bias(found, whole, rows, WORDS, 0.62, height=300, number=50)
    figure = check(card)
    assert card.title == "L rises with length: +0.62"
    line = next(trace for trace in figure["data"] if trace["mode"] == "lines+markers")
    assert line["y"] == sorted(line["y"]) and line["y"][0] < 0 < line["y"][-1] and max(map(abs, line["y"])) <= 0.5
    assert figure["layout"]["xaxis"]["ticktext"] == ["100", "200", "500", "1k"]
    assert (
        length_bias(found, whole, rows, WORDS, -0.05, height=300, number=50).title
        == "L hardly depends on length: −0.05"
    )
    assert length_bias(found, whole, rows, WORDS, 0.0, height=300, number=0).figure is None


def test_numbers_are_written_with_a_real_minus_and_a_dash_for_what_is_not_known() -> None:
    assert METRIC_WORDS["g_hat"].say(-0.01234) == "−0.0123"
    assert METRIC_WORDS["num_response_tokens"].say(1234.4) == "1,234"
    assert METRIC_WORDS["rho"].say(float("nan")) == "–"
    assert metric_words("g_hat", within=True).axis == "ĝ (standard deviations from the problem’s mean)"
    assert metric_words("rank", within=True) == METRIC_WORDS["rank"]
    assert [energy_words(name).symbol for name in ("g_hat", "-nll", "+rho", "random")] == ["ĝ", "−L", "ρ", "random"]
    assert margin_words(METRIC_WORDS["g_hat"]).say(0.00041) == "0.00041"
    assert margin_words(METRIC_WORDS["num_response_tokens"]).say(12.0) == "12"


def test_filters_are_said_in_words_and_taken_back_one_by_one() -> None:
    inf = float("inf")
    asked = ViewFilter(
        teachers=("a", "c"), ranges=(Range("g_hat", 0.01, inf), Range("num_response_tokens", -inf, 2000)), difficulty=5,
        beats=("a", "*c*"), problem="x_1",
    )  # fmt: skip
    assert describe(asked, "wrong_answer") == [
        ("only a", {"teacher": ["c"]}),
        ("only c", {"teacher": ["a"]}),
        ("wrong answer", {"quality": None}),
        ("ĝ ≥ 0.01", {"g_min": None, "g_max": None}),
        ("Tokens ≤ 2,000", {"tokens_min": None, "tokens_max": None}),
        ("difficulty 5 of 5", {"difficulty": None}),
        ("a beats \\*c\\*", {"beats": None}),
        ("problem has “x\\_1”", {"find": None}),
    ]
    assert describe(ViewFilter(), None) == []
