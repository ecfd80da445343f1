"""The charts of the page Tune: their numbers are the engine's, their axes stand still, and names in them are text."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lark_engine.config import SelectConfig
from lark_engine.figures.chart_parts import Chart
from lark_engine.figures.charts_tune import budget_chart, problem_chart, teacher_chart
from lark_engine.figures.charts_weights import kept_chart, profile_chart, robustness_chart, tau_chart
from lark_engine.figures.palette import slots
from lark_engine.figures.tuning import Outcome, budget_curve, outcome, problem_view
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.profile import tau_histogram, weight_profile
from lark_engine.selection.robustness import neighbors, other_criteria, robustness
from tests.selection.scored_pools import random_table, ranked_by_rho

NAN = float("nan")
HOSTILE = ("<script>alert(1)</script>", "<a href='javascript:x'>&</a>", "%{x}<extra></extra>", "x" * 60)


def numbers(values: Any) -> list[float]:
    """What plotly.js reads: a list, or a typed array."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), "<f4").astype(float).tolist()
    return [float(value) for value in values]


def frame_of(candidates: Candidates) -> Callable[[SelectConfig], SelectionFrame]:
    return lambda config: SelectionFrame(candidates, config)


def outcome_of(candidates: Candidates, **options: Any) -> Outcome:
    return outcome(frame_of(candidates), SelectConfig(**options))


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    return Candidates(random_table(6))


def fixed_shares(now: Outcome, candidates: Candidates) -> dict[str, dict[str, float]]:
    edit = {name: value for name, value in now.config.pool_edit.items() if value is not None}
    shares: dict[str, dict[str, float]] = outcome_of(candidates, **edit, budget=1).figures["teachers"]
    return shares


def all_charts(candidates: Candidates, now: Outcome, pinned: Outcome | None = None) -> dict[str, Chart]:
    """Every chart that the page can show of one selection."""
    frame, config = now.frame, now.config
    unit = frame.median_tau()
    rows = robustness(
        now.solution,
        neighbors(config, frame.ranked.num_columns) + other_criteria(config, max(1, round(now.mean_kept))),
        frame_of(candidates),
    )
    charts = {
        "budget": budget_chart(budget_curve(frame, config), now, pinned),
        "teachers": teacher_chart(now, pinned, slots(candidates.teachers), fixed_shares(now, candidates)),
        "profile": profile_chart(
            weight_profile(now.solution), weight_profile(pinned.solution) if pinned else None,
            frame.ranked.num_columns, now,
        ),
        "kept": kept_chart(now, pinned, frame.ranked.num_columns),
        "tau": tau_chart(
            tau_histogram(frame, config.budget), frame.median_tau(config.budget) / unit if unit else 0.0, now
        ),
        "robustness": robustness_chart(rows, now),
    }  # fmt: skip
    if len(frame.keep_NK):
        charts["problem"] = chart_of_problem(candidates, now, pinned, 0)
    return charts


def chart_of_problem(candidates: Candidates, now: Outcome, pinned: Outcome | None, row: int) -> Chart:
    view = problem_view(now, row)
    table = candidates.table.iloc[candidates.row_NK[row, view.columns]]
    keys = [
        (str(problem), int(place)) for problem, place in zip(table["problem_id"], table["candidate_id"], strict=True)
    ]
    return problem_chart(
        view, problem_view(pinned, row) if pinned else None, table["teacher"].tolist(), keys,
        slots(candidates.teachers), now,
    )  # fmt: skip


def trace(chart: Chart, **wanted: Any) -> dict[str, Any]:
    """The one trace with these properties."""
    (found,) = [t for t in chart.figure["data"] if all(t.get(name) == value for name, value in wanted.items())]
    return dict(found)


def marks(chart: Chart, symbol: str) -> list[float]:
    (found,) = [t for t in chart.figure["data"] if t.get("marker", {}).get("symbol") == symbol]
    return numbers(found["x"])


def test_the_budget_chart_shows_the_engines_curve_and_the_place_on_it(candidates: Candidates) -> None:
    now, pinned = outcome_of(candidates, budget=3), outcome_of(candidates, budget=5)
    curve = budget_curve(now.frame, now.config)
    chart = budget_chart(curve, now, pinned)
    for name, values in (("captured utility", curve.captured), ("training tokens", curve.tokens), ("ess", curve.ess)):
        line = trace(chart, name=name)
        assert numbers(line["x"]) == pytest.approx(curve.mean_kept, rel=1e-6)
        assert numbers(line["y"]) == pytest.approx(values, rel=1e-6)
    dots = [t for t in chart.figure["data"] if t["mode"] == "markers"]
    assert [t["x"] for t in dots] == [[pinned.mean_kept]] * 3 + [[now.mean_kept]] * 3
    # The dots lie on the lines: the same numbers by another way.
    assert [t["y"][0] for t in dots[3:]] == pytest.approx([curve.captured[2], curve.tokens[2], curve.ess[2]])
    assert [t["y"][0] for t in dots[:3]] == pytest.approx([curve.captured[4], curve.tokens[4], curve.ess[4]])
    meta = chart.figure["layout"]["meta"]
    assert (meta["B"], meta["knee"], meta["mean_kept"]) == (3, curve.knee, now.mean_kept)
    assert f"Now {now.mean_kept:.2f} are kept of a problem" in chart.alt
    assert f"ess {now.figures['ess']['mean']:.2f}" in chart.alt
    assert f"{100 * (now.captured_share or 0):.1f}%" in chart.alt
    assert f"The knee is at B = {curve.knee}." in chart.alt


def test_the_teacher_chart_shows_the_reports_shares(candidates: Candidates) -> None:
    now, pinned = outcome_of(candidates, budget=3), outcome_of(candidates, budget=6)
    fixed = fixed_shares(now, candidates)
    chart = teacher_chart(now, pinned, slots(candidates.teachers), fixed)
    teachers = now.figures["teachers"]
    bars = trace(chart, type="bar")
    names = bars["customdata"]
    assert sorted(names) == sorted(teachers) == ["a", "b", "c", "d"]
    assert names[::-1] == sorted(names, key=lambda name: (-fixed[name]["q"], name))  # the largest at the top
    assert bars["x"] == [teachers[name]["q"] for name in names]
    assert marks(chart, "line-ns") == [teachers[name]["pool"] for name in names]
    assert marks(chart, "diamond-open") == [teachers[name]["count"] for name in names]
    assert marks(chart, "circle-open") == [pinned.figures["teachers"][name]["q"] for name in names]
    assert trace(chart, mode="text")["text"] == [f"{100 * teachers[name]['q']:.1f}%" for name in names]
    assert bars["marker"]["color"] == [f"@c{'abcd'.index(name)}.85" for name in names]
    for name in names:
        assert f"{name}: {100 * teachers[name]['q']:.1f}% of the weight" in chart.alt


def test_a_teacher_without_weight_in_the_pinned_selection_is_at_zero(candidates: Candidates) -> None:
    now, pinned = outcome_of(candidates), outcome_of(candidates, exclude_teachers=("b",))
    chart = teacher_chart(now, pinned, slots(candidates.teachers), fixed_shares(now, candidates))
    names = trace(chart, type="bar")["customdata"]
    assert marks(chart, "circle-open")[names.index("b")] == 0.0


def test_teachers_whose_names_are_cut_alike_have_rows_of_their_own() -> None:
    names = ("Llama-Nemotron-Super-49B-v1", "Llama-Nemotron-Super-49B-v1.5")
    found = ranked_by_rho([[(names[0], 3.0), (names[1], 1.0), (names[1], 0.0)]])
    now = outcome_of(found, energy="+rho", budget=2)
    chart = teacher_chart(now, None, slots(found.teachers), fixed_shares(now, found))
    bars = trace(chart, type="bar")
    assert bars["customdata"] == list(names)[::-1]
    assert len(set(bars["y"])) == 2
    axis = chart.figure["layout"]["yaxis"]
    assert (axis["tickvals"], axis["ticktext"]) == (bars["y"], ["Llama-Nemotron-Super-49…"] * 2)


def test_of_many_teachers_the_largest_are_named() -> None:
    found = ranked_by_rho([[(f"t{n:02}", float(n)), ("other", -1.0)] for n in range(60)])
    now = outcome_of(found, energy="+rho", budget=1)
    chart = teacher_chart(now, None, slots(found.teachers), fixed_shares(now, found))
    assert len(trace(chart, type="bar")["y"]) == 40


def test_the_profile_chart_shows_mean_and_band(candidates: Candidates) -> None:
    now, pinned = outcome_of(candidates, budget=3), outcome_of(candidates, budget=2)
    profile = weight_profile(now.solution)
    chart = profile_chart(profile, weight_profile(pinned.solution), 7, now)
    band, mean, dashed = chart.figure["data"]
    assert numbers(mean["x"]) == [1, 2, 3]
    assert numbers(mean["y"]) == pytest.approx(profile.mean, rel=1e-6)
    assert numbers(band["x"]) == [1, 2, 3, 3, 2, 1]
    assert numbers(band["y"]) == pytest.approx(
        [*np.maximum(profile.high, 1e-3), *np.maximum(profile.low, 1e-3)[::-1]], rel=1e-6
    )
    assert numbers(dashed["y"]) == pytest.approx(weight_profile(pinned.solution).mean, rel=1e-6)
    assert ", ".join(f"{q:.3f}" for q in profile.mean) in chart.alt
    assert chart.figure["layout"]["meta"]["weights"] == pytest.approx(profile.mean, abs=1e-6)


def test_weights_below_the_end_of_the_axis_have_no_point() -> None:
    found = ranked_by_rho([[("a", 5.0), ("a", 1e-4), ("a", 0.0)]])
    now = outcome_of(found, energy="+rho", budget=3)
    mean = profile_chart(weight_profile(now.solution), None, 3, now).figure["data"][1]
    assert numbers(mean["y"])[0] > 0.99
    assert np.isnan(numbers(mean["y"])[1:]).all()


def test_the_kept_chart_shows_shares_of_problems(candidates: Candidates) -> None:
    now = outcome_of(candidates, mode="temperature", tau=0.01)
    pinned = outcome_of(candidates, budget=2)
    chart = kept_chart(now, pinned, 7)
    kept, total = now.figures["kept_per_problem"], now.figures["num_problems"]
    first, second = chart.figure["data"]
    assert dict(zip(first["x"], first["y"], strict=True)) == {int(n): count / total for n, count in kept.items()}
    assert sum(second["y"]) == pytest.approx(1.0)
    for n, count in kept.items():
        assert f"{n} in {count} problems" in chart.alt


def test_the_tau_chart_shows_the_histogram_and_the_median(candidates: Candidates) -> None:
    now = outcome_of(candidates, budget=2)
    histogram = tau_histogram(now.frame, 2)
    median = now.frame.median_tau(2) / now.frame.median_tau()
    chart = tau_chart(histogram, median, now)
    bars = trace(chart, type="bar")
    assert numbers(bars["y"]) == pytest.approx(histogram.counts / histogram.counts.sum(), rel=1e-6)
    assert numbers(bars["x"]) == pytest.approx((histogram.edges[1:] + histogram.edges[:-1]) / 2, rel=1e-6)
    assert chart.figure["layout"]["shapes"][0]["x0"] == pytest.approx(np.log10(median))
    assert chart.figure["layout"]["meta"]["median"] == median
    assert f"over {histogram.counts.sum()} problems" in chart.alt
    assert f"the median is {median:.2f}" in chart.alt


def test_the_robustness_chart_shows_what_is_shared(candidates: Candidates) -> None:
    now = outcome_of(candidates, budget=3)
    variants = neighbors(now.config, 7) + other_criteria(now.config, 3)
    rows = robustness(now.solution, variants, frame_of(candidates))
    chart = robustness_chart(rows, now)
    bars = trace(chart, type="bar")
    names = ["B = 2", "B = 4", "s ÷ 1.25", "s × 1.25", "by −L", "by −RSR", "by ρ", "by −Tokens", "by random"]
    assert bars["y"][::-1] == names
    assert bars["x"][::-1] == [row.overlap for row in rows]
    assert marks(chart, "diamond-open")[::-1] == [row.same_weight for row in rows]
    assert chart.figure["layout"]["meta"]["overlap"]["B = 4"] == rows[1].overlap
    for name, row in zip(names, rows, strict=True):
        assert f"{name} {100 * row.overlap:.1f}%" in chart.alt
    assert robustness_chart([], now).alt == "This selection has no neighbors."


def test_the_problem_chart_shows_energies_weights_and_the_cut(candidates: Candidates) -> None:
    now, pinned = outcome_of(candidates, budget=2), outcome_of(candidates, budget=4)
    row = int(np.argmax(now.frame.ranked.num_valid_N))
    view, of_pinned = problem_view(now, row), problem_view(pinned, row)
    chart = chart_of_problem(candidates, now, pinned, row)
    energy, weight, outline = chart.figure["data"]
    num_ranks = len(view.columns)
    assert energy["x"] == weight["x"] == [str(rank) for rank in range(1, num_ranks + 1)]
    assert numbers(energy["y"]) == pytest.approx(view.energy, rel=1e-6)
    assert numbers(weight["y"]) == pytest.approx(view.prob, rel=1e-6)
    assert numbers(outline["y"]) == pytest.approx(of_pinned.prob, rel=1e-6)
    rows = candidates.row_NK[row, view.columns]
    ids = candidates.table[["problem_id", "candidate_id"]].iloc[rows].to_numpy().tolist()
    assert energy["customdata"] == weight["customdata"] == ids
    layout = chart.figure["layout"]
    assert layout["shapes"][0]["y0"] == layout["meta"]["cut"] == pytest.approx(view.energy[2])
    assert (layout["meta"]["row"], layout["meta"]["kept"]) == (row, 2)
    teachers = candidates.table["teacher"].iloc[rows].tolist()
    assert chart.alt.startswith(f"{num_ranks} candidates by rank; kept: ")
    for rank in (1, 2):
        assert f"rank {rank} {teachers[rank - 1]} weight {view.prob[rank - 1]:.3f}" in chart.alt
    assert "rank 3 " not in chart.alt


def ranges(chart: Chart) -> dict[str, Any]:
    """Everything about the axes that would make a chart jump."""
    axes = {name: axis for name, axis in chart.figure["layout"].items() if name[1:5] == "axis"}
    keys = ("range", "tickvals", "ticktext", "dtick", "domain", "type")
    return {name: {key: axis.get(key) for key in keys} for name, axis in axes.items()}


@pytest.mark.parametrize("options", [{}, {"mode": "sharpness", "sharpness": 0.5}, {"rule": "top_b"}], ids=str)
def test_axes_stand_still_while_the_budget_moves(candidates: Candidates, options: dict[str, Any]) -> None:
    few, many = (all_charts(candidates, outcome_of(candidates, budget=budget, **options)) for budget in (1, 7))
    for name in few:
        assert ranges(few[name]) == ranges(many[name]), name
        if name not in ("problem", "robustness"):
            assert all(axis["range"] for axis in ranges(few[name]).values()), name
    order = [trace(charts["teachers"], type="bar")["customdata"] for charts in (few, many)]
    assert order[0] == order[1]


@pytest.mark.parametrize("budget", [1, 2, 4, 7])
def test_shares_fit_into_their_axis(candidates: Candidates, budget: int) -> None:
    chart = all_charts(candidates, outcome_of(candidates, budget=budget))["teachers"]
    low, high = chart.figure["layout"]["xaxis"]["range"]
    for found in chart.figure["data"]:
        assert all(low <= x <= high for x in numbers(found["x"]))


def test_hostile_names_are_text_in_every_chart() -> None:
    found = ranked_by_rho([[(name, float(4 - n)) for n, name in enumerate(HOSTILE)] for _ in range(3)])
    now = outcome_of(found, energy="+rho", budget=3)
    for name, chart in all_charts(found, now, now).items():
        for part in chart.figure["data"]:
            shown = [*part.get("hovertext", []), *part.get("text", []), str(part.get("hovertemplate", ""))]
            shown += [text for text in part["y"] if isinstance(text, str)]
            text = " ".join(shown).replace("<br>", "").replace("<extra></extra>", "")
            assert "<" not in text, name
        axes = chart.figure["layout"]
        assert not any("<" in text for axis in ("xaxis", "yaxis") for text in axes[axis].get("ticktext") or ())
    teachers = all_charts(found, now)["teachers"].figure
    assert "&lt;a href='javascript:x'&gt;…" in teachers["layout"]["yaxis"]["ticktext"]
    # A click must give the name itself.
    assert set(teachers["data"][0]["customdata"]) == set(HOSTILE)


@pytest.mark.parametrize("budget", [1, 3])
def test_one_candidate_and_an_empty_selection_have_charts(budget: int) -> None:
    one = ranked_by_rho([[("a", 1.0)]])
    nothing = Candidates(random_table(1).assign(nll=NAN))
    none_left = Candidates(random_table(1).iloc[:0])
    for found, options in ((one, {"energy": "+rho"}), (nothing, {}), (none_left, {})):
        now = outcome_of(found, budget=budget, **options)
        for name, chart in all_charts(found, now, now).items():
            text = json.dumps(chart.figure, allow_nan=False)  # a browser cannot read NaN
            assert len(text) < 20_000, name
            assert chart.alt, name
            assert "nan" not in chart.alt, (name, chart.alt)


@pytest.mark.parametrize(
    "options",
    [{}, {"rule": "all"}, {"rule": "best_teacher"}, {"rule": "softmax", "tau": 0.1},
     {"mode": "temperature", "tau": 0.01}, {"max_teacher_share": 0.4}, {"energy": "random", "seed": 3}],
    ids=str,
)  # fmt: skip
def test_every_rule_has_charts_that_a_browser_can_read(candidates: Candidates, options: dict[str, Any]) -> None:
    now = outcome_of(candidates, **options)
    charts = all_charts(candidates, now, outcome_of(candidates))
    assert sum(len(json.dumps(chart.figure, allow_nan=False)) for chart in charts.values()) < 80_000
    assert all(chart.alt for chart in charts.values())


def test_scores_without_token_counts_have_a_chart_without_that_line() -> None:
    found = Candidates(random_table(6).assign(num_prompt_tokens=NAN))
    now = outcome_of(found)
    chart = budget_chart(budget_curve(now.frame, now.config), now, None)
    json.dumps(chart.figure, allow_nan=False)
    assert " tokens " not in [note["text"] for note in chart.figure["layout"]["annotations"]]
    assert len([t for t in chart.figure["data"] if t["mode"] == "markers"]) == 2


def test_the_names_of_lines_stand_apart_where_there_are_two_budgets() -> None:
    now = outcome_of(Candidates(random_table(6, most=2)))
    curve = budget_curve(now.frame, now.config)
    first, last = curve.mean_kept
    chart = budget_chart(curve, now, None)
    notes = {note["text"].strip(): note for note in chart.figure["layout"]["annotations"]}
    named = [notes[name]["x"] for name in ("captured utility", "tokens", "ess")]
    assert named == pytest.approx([first + share * (last - first) for share in (0.3, 0.62, 0.85)])
