"""Explore on small scored pools, run as Streamlit runs it: the address decides, and the numbers are the engine's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.explore.flags import CandidateKey, set_flag
from lark_engine.scoring.table import read_scores
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.select import candidate_table
from lark_engine.store.workspace import Workspace

PAGE = Path(__file__).resolve().parents[2] / "pages" / "explore.py"
OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    return make_scored_pool(Workspace(tmp_path_factory.mktemp("explore")), num_problems=40, num_candidates=9)


@pytest.fixture(scope="module")
def frame(made: ScoredPoolArtifacts) -> SelectionFrame:
    return SelectionFrame(Candidates(candidate_table(made.scores, made.pool)), SelectConfig())


@pytest.fixture
def open_page(made: ScoredPoolArtifacts, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    def run(workspace: Path | None = None, **query: str | list[str]) -> AppTest:
        monkeypatch.setenv("LARK_HOME", str(workspace or made.pool.path.parents[1]))
        page = AppTest.from_file(str(PAGE), default_timeout=60)
        for key, value in query.items():
            page.query_params[key] = value
        return ran(page)

    return run


def ran(page: AppTest) -> AppTest:
    page.run()
    assert not page.exception, page.exception
    return page


def cards(page: AppTest) -> dict[str, dict[str, Any]]:
    """All cards of the page's boards by key, their figures read."""
    found = {}
    for element in page.get("bidi_component"):
        for card in (
            json.loads(element.proto.json).get("cards", []) if element.proto.component_name == "lark_board" else []
        ):
            found[card["key"]] = {**card, "figure": json.loads(card["figure"]) if "figure" in card else None}
    return found


def meta(page: AppTest, card: str) -> dict[str, Any]:
    return dict(cards(page)[card]["figure"]["layout"]["meta"])


def table(page: AppTest) -> dict[str, Any]:
    [element] = [e for e in page.get("bidi_component") if e.proto.component_name == "lark_row_table"]
    return dict(json.loads(element.proto.json))


def column(page: AppTest, label: str) -> list[str]:
    shown = table(page)
    place = [c["label"] for c in shown["columns"]].index(label)
    return [row[place][0] for row in shown["rows"]]


def counts(page: AppTest) -> dict[str, str]:
    """The quality panel: what each pill says, by its label."""
    return dict(text.rsplit(" · ", 1) for text in page.pills(key="quality").options)


def test_an_empty_workspace_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARK_HOME", str(tmp_path))
    router = AppTest.from_file(str(PAGE.parents[1] / "app" / "router.py"), default_timeout=60)
    page = ran(router.run().switch_page("../pages/explore.py"))
    assert [heading.value for heading in page.subheader] == ["No pool yet"]
    assert page.code[0].value.endswith("make demo")
    assert not cards(page)


def test_five_charts_are_shown_each_with_its_text(open_page: OpenPage) -> None:
    shown = cards(open_page())
    assert list(shown) == ["by_teacher", "wins", "plane", "length", "third"]
    assert all(card["alt"] and card["title"] and "n = " in card["note"] for card in shown.values())


def test_the_medians_by_teacher_are_the_engines(open_page: OpenPage, frame: SelectionFrame) -> None:
    said = meta(open_page(), "by_teacher")
    teacher_NK, names = frame.candidates.teacher_NK, frame.candidates.teachers
    expected = {
        name: float(np.nanmedian(np.where(teacher_NK == code, frame.energy_NK, np.nan)))
        for code, name in enumerate(names)
    }
    assert dict(zip(said["teachers"], said["medians"], strict=True)) == pytest.approx(expected, abs=1e-6)
    assert said["medians"] == sorted(said["medians"], reverse=True)
    assert said["n"] == int((~np.isnan(frame.energy_NK)).sum())


def test_the_address_chooses_metric_shape_places_and_third_chart(open_page: OpenPage) -> None:
    page = open_page(metric="nll", shape="box", top="3", third="duels", plane="rho")
    shown = cards(page)
    assert shown["by_teacher"]["figure"]["layout"]["xaxis"]["title"]["text"] == "L (nats per token)"
    assert any(trace["type"] == "bar" and "base" in trace for trace in shown["by_teacher"]["figure"]["data"])
    assert meta(page, "wins")["top"] == 3 and meta(page, "third")["grid"] == "duels"
    assert shown["plane"]["figure"]["layout"]["yaxis"]["title"]["text"].startswith("ρ")
    assert page.segmented_control(key="metric").value == "nll"


def test_a_control_writes_the_address_and_its_default_takes_it_out(open_page: OpenPage) -> None:
    page = open_page()
    page.segmented_control(key="metric").set_value("rho")
    ran(page)
    assert page.query_params["metric"] == "rho"
    page.segmented_control(key="metric").set_value("g_hat")
    ran(page)
    assert "metric" not in page.query_params


def test_what_is_not_valid_in_an_address_is_left_out(open_page: OpenPage) -> None:
    page = open_page(
        metric="<b>", shape="pie", top="4", g_min="nan", difficulty="9", page="-3", sort="x", quality="odd"
    )
    assert meta(page, "by_teacher") == meta(open_page(), "by_teacher")


def test_within_problems_the_mean_of_every_problem_is_zero(open_page: OpenPage) -> None:
    shown = cards(open_page(scale="within"))["by_teacher"]
    assert shown["figure"]["layout"]["xaxis"]["title"]["text"] == "ĝ (standard deviations from the problem’s mean)"
    assert shown["figure"]["layout"]["shapes"][0]["x0"] == 0.0


def test_a_view_filter_hides_points_and_changes_no_number(open_page: OpenPage) -> None:
    before, after = meta(open_page(), "by_teacher"), meta(open_page(teacher="QwQ-32B"), "by_teacher")
    assert after["teachers"] == ["QwQ-32B"]
    assert after["medians"] == [before["medians"][before["teachers"].index("QwQ-32B")]]
    assert meta(open_page(teacher="QwQ-32B"), "wins")["n"] == meta(open_page(), "wins")["n"]


def test_a_pool_edit_recomputes_g_hat_and_ranks(open_page: OpenPage, frame: SelectionFrame) -> None:
    edited = SelectionFrame(frame.candidates, SelectConfig(exclude_teachers=("QwQ-32B",)))
    said = meta(open_page(exclude_teachers="QwQ-32B"), "by_teacher")
    teacher_NK = frame.candidates.teacher_NK
    for name, median in zip(said["teachers"], said["medians"], strict=True):
        code = frame.candidates.teachers.index(name)
        assert median == pytest.approx(np.nanmedian(np.where(teacher_NK == code, edited.energy_NK, np.nan)), abs=1e-6)
    assert "QwQ-32B" not in said["teachers"]


def test_chips_of_filters_and_of_edits_do_not_look_alike_and_take_back_one_thing(open_page: OpenPage) -> None:
    page = open_page(teacher="QwQ-32B", quality="wrong_answer", correct_only="true")
    kinds = {button.label: button.proto.type for button in page.button}
    assert kinds["only QwQ\\-32B"] == "secondary" and kinds["wrong answer"] == "secondary"
    assert kinds["only correct"] == "primary"
    page = open_page(teacher="QwQ-32B", g_min="0.01")
    page.button(key="chip.only QwQ\\-32B").click()
    ran(page)
    assert "teacher" not in page.query_params and page.query_params["g_min"] == "0.01"


def test_each_count_of_quality_is_a_filter(open_page: OpenPage, frame: SelectionFrame) -> None:
    said = counts(open_page())
    wrong = int((frame.candidates.flag_NK("is_correct") == 0).sum())
    assert said["Wrong answer"] == str(wrong)
    assert said["Truncated"] == str(int((frame.candidates.flag_NK("truncated") == 1).sum()))
    assert int(said["No boxed answer"]) > 0 and "…" not in said.values()
    page = open_page(quality="wrong_answer", table="candidates")
    assert table(page)["caption"].endswith(f"of {wrong}")
    assert set(column(page, "Correct")) == {"✗"}


def test_a_new_flag_is_counted_at_the_next_run(open_page: OpenPage, made: ScoredPoolArtifacts, tmp_path: Path) -> None:
    own = make_scored_pool(Workspace(tmp_path), num_problems=4, num_candidates=3)
    page = open_page(tmp_path)
    assert counts(page)["Flagged"] == "0"
    row = read_scores(own.scores).iloc[0]
    key = CandidateKey(str(row["problem_id"]), int(row["candidate_id"]))
    set_flag(own.pool, key, flagged=True, author="me", reason="odd")
    assert counts(ran(page))["Flagged"] == "1"


def test_a_damaged_line_of_flags_takes_only_their_count_away(open_page: OpenPage, tmp_path: Path) -> None:
    own = make_scored_pool(Workspace(tmp_path), num_problems=4, num_candidates=3)
    (own.pool.path / "flags.jsonl").write_text("[]\n")
    page = open_page(tmp_path, quality="flagged")
    assert len(cards(page)) == 5
    said = counts(page)
    assert said["Flagged"] == "…" and said["Truncated"] != "…"
    assert any("flags.jsonl:1: is no flag; mend or remove this line" in e.proto.body for e in page.get("html"))


def test_another_table_begins_at_its_start(open_page: OpenPage) -> None:
    page = open_page(sort="mean_nll", desc="true", page="2")
    page.segmented_control(key="table").set_value("candidates")
    ran(page)
    assert page.query_params["table"] == "candidates"
    assert not {"sort", "desc", "page"} & set(page.query_params)


def test_the_plane_has_a_parameter_of_its_own_beside_the_pin_of_tune(open_page: OpenPage) -> None:
    page = open_page(against="B", pin_b="B=2")
    assert cards(page)["plane"]["figure"]["layout"]["yaxis"]["title"]["text"].startswith("Brier")
    page.segmented_control(key="plane").set_value("rho")
    ran(page)
    assert (page.query_params["plane"], page.query_params["against"]) == ("rho", "B")
    assert cards(page)["plane"]["figure"]["layout"]["yaxis"]["title"]["text"].startswith("ρ")


def test_filters_that_leave_nothing_say_so_and_can_be_cleared(open_page: OpenPage) -> None:
    page = open_page(g_min="5", teacher="QwQ-32B", metric="nll")
    assert [heading.value for heading in page.subheader] == ["Nothing is left to show"] and not cards(page)
    page.button(key="clear_view").click()
    ran(page)
    assert len(cards(page)) == 5
    assert page.query_params["metric"] == "nll" and "g_min" not in page.query_params


def test_pool_edits_that_leave_nothing_can_be_undone(open_page: OpenPage) -> None:
    page = open_page(min_response_tokens="9000000")
    assert [heading.value for heading in page.subheader] == ["Nothing is left to show"]
    page.button(key="undo_edits").click()
    ran(page)
    assert len(cards(page)) == 5 and "min_response_tokens" not in page.query_params


def test_problems_and_candidates_are_sorted_and_paged_on_the_server(open_page: OpenPage) -> None:
    page = open_page(sort="mean_nll", desc="true", page="2")
    assert table(page)["caption"] == "Problems 21 to 40 of 40"
    first = [float(value) for value in column(open_page(sort="mean_nll", desc="true"), "Mean L")]
    second = [float(value) for value in column(page, "Mean L")]
    assert first + second == sorted(first + second, reverse=True)
    ranks = [int(value) for value in column(open_page(table="candidates", sort="rank"), "Rank")]
    assert ranks == [1] * 20
    assert column(open_page(page="99"), "Problem") == column(open_page(page="2"), "Problem")


def test_the_margin_follows_the_budget_of_the_address(open_page: OpenPage, frame: SelectionFrame) -> None:
    said = meta(open_page(B="5"), "third")
    assert said["B"] == 5 and said["n"] == int((frame.ranked.num_valid_N > 5).sum())
    assert cards(open_page(B="50"))["third"]["title"] == "Nothing is cut at B = 50"


@pytest.mark.parametrize("metric", ["rsr", "num_response_tokens"])
def test_what_released_scores_lack_is_said_instead_of_drawn(open_page: OpenPage, released: Path, metric: str) -> None:
    newest = max((released / "scores").glob("*released*")).name
    page = open_page(released, scores=newest, metric=metric)
    shown = cards(page)
    assert shown["by_teacher"]["title"].startswith("These scores hold no ") and shown["by_teacher"]["figure"] is None
    assert "lark score" in shown["by_teacher"]["note"]
    assert shown["length"]["title"] == "These scores hold no token counts"
    assert shown["wins"]["figure"] and shown["plane"]["figure"] and shown["third"]["figure"]
    assert counts(page)["Truncated"] == "…"


def test_an_energy_that_the_scores_lack_says_what_to_do(open_page: OpenPage, released: Path) -> None:
    newest = max((released / "scores").glob("*released*")).name
    page = open_page(released, scores=newest, energy="-rsr")
    assert [heading.value for heading in page.subheader] == ["This cannot be computed"]
    page.button(key="undo_edits").click()
    ran(page)
    assert len(cards(page)) == 5


def test_one_teacher_with_one_candidate_a_problem_works(open_page: OpenPage, tmp_path: Path) -> None:
    make_scored_pool(Workspace(tmp_path), num_problems=8, num_candidates=1)
    for query in ({}, {"scale": "within"}, {"third": "duels"}, {"third": "difficulty"}, {"metric": "rank"}):
        assert len(cards(open_page(tmp_path, **query))) == 5


def test_hostile_names_are_escaped_in_figures_and_whole_in_their_data(open_page: OpenPage, tmp_path: Path) -> None:
    make_scored_pool(Workspace(tmp_path), num_problems=12, num_candidates=12, hostile=True)
    page = open_page(tmp_path, third="duels", table="candidates")
    for card in cards(page).values():
        shown = [card["figure"]["layout"]["yaxis"].get("ticktext")]
        shown += [trace.get(part) for trace in card["figure"]["data"] for part in ("hovertext", "text")]
        texts = json.dumps(shown).replace("<b>", "").replace("</b>", "").replace("<br>", "")
        assert "<" not in texts
    for button in page.button:
        assert "](" not in button.label


def test_the_figures_of_the_page_stay_small(open_page: OpenPage) -> None:
    page = open_page()
    assert sum(len(element.proto.json) for element in page.get("bidi_component")) < 300_000


@pytest.mark.slow
def test_long_texts_are_read_by_another_process_and_the_page_does_not_wait(
    open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lark_engine.explore.scan.SMALL_POOL_BYTES", 0)
    make_scored_pool(Workspace(tmp_path), num_problems=5, num_candidates=4)
    page = open_page(tmp_path)
    said = counts(page)
    assert said["Empty"] == said["No boxed answer"] == "…" and "…" not in (said["Duplicated"], said["Wrong answer"])
    assert any("Reading the texts" in caption.value for caption in page.caption)
    assert len(cards(page)) == 5
    deadline = time.monotonic() + 60
    while "…" in counts(ran(page)).values() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert int(counts(page)["No boxed answer"]) >= 1
    assert not any("Reading the texts" in caption.value for caption in page.caption)
