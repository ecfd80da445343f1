"""The page Tune as Streamlit runs it: the address decides, the engine computes, contradictions resolve themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_workspace import add
from safetensors.numpy import save_file
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest

from app.components import live_slider
from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.compare import compare
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.select import candidate_table, plan_select, select
from lark_engine.store.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
OpenTune = Callable[..., AppTest]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    return make_scored_pool(Workspace(tmp_path_factory.mktemp("original")), num_problems=24, num_candidates=8)


@pytest.fixture
def scored(original: ScoredPoolArtifacts, workspace: Workspace) -> ScoredPoolArtifacts:
    """A workspace of the test's own that holds a copy of the scored pool."""
    shutil.copytree(original.pool.path.parents[1], workspace.root)
    [pool], [scores] = workspace.list("pools"), workspace.list("scores")
    return ScoredPoolArtifacts(pool=pool, scores=scores)


@pytest.fixture
def tune(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> OpenTune:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))

    def run(**query: Any) -> AppTest:
        return shown_page("tune", **query)

    return run


def cards_of(page: AppTest) -> dict[str, dict[str, Any]]:
    """What the board was told to show, by card; figures decoded."""
    [said] = [
        json.loads(element.proto.json)
        for element in page.get("bidi_component")
        if element.proto.component_name == "lark_board"
    ]
    cards = {card["key"]: card for card in said["cards"]}
    for card in cards.values():
        if "figure" in card:
            card["figure"] = json.loads(card["figure"])
    return cards


def said(page: AppTest, param: str) -> list[str]:
    """The values of a parameter of the address."""
    value = page.query_params[param]
    return value if isinstance(value, list) else [value]


def stats_of(page: AppTest, card: str = "figures") -> dict[str, str]:
    return {stat["label"]: stat["value"] for stat in cards_of(page)[card]["stats"]}


def engine(scored: ScoredPoolArtifacts, config: SelectConfig) -> dict[str, Any]:
    """What the engine reports of a selection, without the page."""
    frame = SelectionFrame(Candidates(candidate_table(scored.scores, scored.pool)), config)
    return diagnose(frame.solve(config))


CONFIGS: dict[str, tuple[dict[str, Any], SelectConfig]] = {
    "the paper rule": ({}, SelectConfig()),
    "another budget": ({"B": "5"}, SelectConfig(budget=5)),
    "sharpness": (
        {"mode": "sharpness", "B": "5", "sharpness": "0.3"},
        SelectConfig(mode="sharpness", budget=5, sharpness=0.3),
    ),
    "temperature": ({"mode": "temperature", "tau": "0.004"}, SelectConfig(mode="temperature", tau=0.004)),
    "uniform": ({"rule": "top_b", "B": "2"}, SelectConfig(rule="top_b", budget=2)),
    "softmax": ({"rule": "softmax", "tau": "0.05"}, SelectConfig(rule="softmax", tau=0.05)),
    "another energy": ({"energy": "-nll"}, SelectConfig(energy="-nll")),
    "the best teacher": ({"rule": "best_teacher"}, SelectConfig(rule="best_teacher")),
    "all": ({"rule": "all"}, SelectConfig(rule="all")),
    "a teacher's quota": ({"max_teacher_share": "0.4"}, SelectConfig(max_teacher_share=0.4)),
    "a pool edit": ({"correct_only": "true"}, SelectConfig(correct_only=True)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_address_is_solved_by_the_engine(tune: OpenTune, scored: ScoredPoolArtifacts, name: str) -> None:
    query, config = CONFIGS[name]
    page = tune(**query)
    expected = engine(scored, config)
    stats, cards = stats_of(page), cards_of(page)
    assert stats["Selected trajectories"] == f"{expected['num_trajectories']:,}"
    assert stats["Problems"] == f"{expected['num_problems']:,}"
    assert stats["Effective per problem"] == f"{expected['ess']['mean']:.2f}"
    bars = cards["teachers"]["figure"]["data"][0]
    assert dict(zip(bars["customdata"], bars["x"], strict=True)) == pytest.approx(
        {teacher: shares["q"] for teacher, shares in expected["teachers"].items()}
    )


@pytest.mark.parametrize("query", [{}, {"B": "8"}, {"rule": "all"}, {"mode": "temperature", "tau": "0.001"}])
def test_all_figures_of_a_step_weigh_less_than_80_kb(
    tune: OpenTune, scored: ScoredPoolArtifacts, query: dict[str, str]
) -> None:
    page = tune(**query, pin_a="B=2", against="A")
    [said] = [e.proto.json for e in page.get("bidi_component") if e.proto.component_name == "lark_board"]
    assert len(said.encode()) < 80_000


def test_no_axis_moves_with_the_budget(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    def ranges(budget: str) -> dict[str, Any]:
        return {
            f"{key}.{axis}": layout.get("range")
            for key, card in cards_of(tune(B=budget)).items() if "figure" in card and key != "problem"
            for axis, layout in card["figure"]["layout"].items() if "axis" in axis
        }  # fmt: skip

    few = ranges("1")
    assert few == ranges("8")
    assert len(few) >= 9


def test_values_that_are_not_valid_are_ignored_and_hide_no_others(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune(B="many", energy="-nll", sharpness="NaN", mode="quantum")
    assert (
        stats_of(page)["Effective per problem"] == f"{engine(scored, SelectConfig(energy='-nll'))['ess']['mean']:.2f}"
    )


def test_the_mode_temperature_begins_at_the_temperature_of_the_budget(
    tune: OpenTune, scored: ScoredPoolArtifacts
) -> None:
    page = tune(B="4")
    page.segmented_control(key="mode").set_value("temperature").run()
    frame = SelectionFrame(Candidates(candidate_table(scored.scores, scored.pool)), SelectConfig())
    assert said(page, "tau") == [f"{frame.median_tau(4):.4g}"]
    assert said(page, "mode") == ["temperature"]
    assert "B" not in page.query_params
    assert "kept" in cards_of(page)["spread"]["figure"]["layout"]["meta"]["chart"]


def test_a_preset_replaces_rule_energy_and_strength_and_keeps_budget_and_edits(
    tune: OpenTune, scored: ScoredPoolArtifacts
) -> None:
    page = tune(B="4", mode="sharpness", sharpness="0.3", correct_only="true")
    [presets] = [group for group in page.button_group if group.key == "preset"]
    presets.set_value("RSR").run()
    found = {key: said(page, key) for key in ("B", "rule", "energy", "correct_only")}
    assert found == {"B": ["4"], "rule": ["top_b"], "energy": ["-rsr"], "correct_only": ["true"]}
    assert "sharpness" not in page.query_params and "mode" not in page.query_params


def test_a_pin_shows_the_engines_difference(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune(B="3")
    assert "difference" not in cards_of(page)
    page.button(key="pin.A").click().run()
    assert said(page, "pin_a") == ["default"]
    same = stats_of(page, "difference")
    assert (same["Overlap with A"], same["Weight that moved"]) == ("100.0%", "0.0%")
    page.query_params["B"] = "6"
    page.run()
    frame = SelectionFrame(Candidates(candidate_table(scored.scores, scored.pool)), SelectConfig())
    figures = compare(*(frame.solve(SelectConfig(budget=budget)).kept for budget in (3, 6)))
    assert stats_of(page, "difference")["Only now"] == f"{figures['num_only_b']:,}"
    assert stats_of(page, "difference")["Overlap with A"] == f"{100 * figures['overlap']:.1f}%"
    assert "against A (χ² · B = 3)" in cards_of(page)["difference"]["title"]


def test_every_label_of_a_comparison_names_the_pin_that_is_compared_with(
    tune: OpenTune, scored: ScoredPoolArtifacts
) -> None:
    cards = cards_of(tune(B="3", pin_a="B=5", pin_b="B=1", against="B"))
    assert cards["difference"]["title"] == "Now (χ² · B = 3) against B (χ² · B = 1)"
    details = [stat["detail"] for key in ("figures", "cost") for stat in cards[key]["stats"]]
    assert sum(detail.startswith("B: ") for detail in details) == 9
    notes = " ".join(card["note"] for card in cards.values())
    assert "A" not in notes.split() and "○ B" in notes and "dashed: B" in notes


def test_a_pin_that_these_scores_cannot_give_is_explained_and_hides_nothing(
    tune: OpenTune, scored: ScoredPoolArtifacts
) -> None:
    page = tune(pin_a="exclude_teachers=nobody", against="A")
    assert "A cannot be compared with here." in html_of(page)
    assert "difference" not in cards_of(page)
    assert [button.key for button in page.button if button.key == "save"] == ["save"]


@pytest.mark.parametrize("devices", ["64", "65", "1024"])
def test_more_devices_than_trajectories_of_a_step_are_explained_on_the_cost_card_alone(
    tune: OpenTune, scored: ScoredPoolArtifacts, devices: str
) -> None:
    cards = cards_of(tune(devices=devices, device="A100", billions="1"))
    assert ("global_batch 64 leaves some" in cards["cost"]["note"]) == (devices != "64")
    assert "figure" in cards["teachers"]


@pytest.mark.parametrize("tau", ["1e300", "1.5e308", "1e999", "-1", "1000000"])
def test_absurd_temperatures_never_take_the_page_away(tune: OpenTune, scored: ScoredPoolArtifacts, tau: str) -> None:
    page = tune(mode="temperature", tau=tau)
    assert int(stats_of(page)["Selected trajectories"].replace(",", "")) > 0
    assert all(len(stat["value"]) < 20 for stat in cards_of(page)["figures"]["stats"])


def test_a_change_that_cannot_be_made_is_refused_in_a_sentence(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune(exclude_teachers="nobody")
    page.segmented_control(key="mode").set_value("temperature").run()
    assert not page.exception
    assert "This was not done." in html_of(page) and "no teacher &#x27;nobody&#x27;" in html_of(page)


def test_a_slider_left_before_it_rests_says_what_the_address_says(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune(B="3")
    page.session_state["moving.B"] = live_slider._Moving(6, ["3"], 3)
    page.run()  # of the whole page, as a link or a button makes it
    assert said(page, "B") == ["6"]
    assert cards_of(page)["profile"]["figure"]["layout"]["meta"]["B"] == 6
    page.session_state["moving.B"] = live_slider._Moving(8, ["3"], 3)  # the address has changed since
    page.run()
    assert said(page, "B") == ["6"]
    assert cards_of(page)["profile"]["figure"]["layout"]["meta"]["B"] == 6


def test_the_problem_stays_the_same_and_so_does_its_axis_while_a_slider_moves(
    tune: OpenTune, scored: ScoredPoolArtifacts
) -> None:
    def problem(sharpness: str) -> dict[str, Any]:
        query = {"mode": "sharpness", "sharpness": sharpness, "problem": "3"}
        return cards_of(tune(**query))["problem"]

    flat, sharp = problem("20"), problem("0.5")
    assert flat["title"] == sharp["title"] == "One problem in full: 3"
    assert flat["figure"]["layout"]["yaxis"]["range"] == sharp["figure"]["layout"]["yaxis"]["range"]


def test_scores_whose_pool_is_gone_are_named(tune: OpenTune, scored: ScoredPoolArtifacts, workspace: Workspace) -> None:
    shutil.rmtree(scored.pool.path)
    page = tune()
    assert [heading.value for heading in page.subheader] == ["The pool of these scores is gone"]
    assert scored.pool.id in html_of(page)


def test_a_random_problem_is_in_the_address_and_shown(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune()
    [button] = [button for button in page.button if button.label == "Random problem"]
    button.click().run()
    [problem] = said(page, "problem")
    assert cards_of(page)["problem"]["title"] == f"One problem in full: {problem}"


def test_the_cost_card_says_what_its_hours_rest_on(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    assert stats_of(tune(), "cost")["Time"] == "–"
    priced = cards_of(tune(device="A100", devices="8", billions="1.5"))["cost"]
    assert "8 × A100 at 35% of 312 TFLOP/s (data sheet)" in priced["note"]
    assert {stat["label"]: stat["value"] for stat in priced["stats"]}["Time"] != "–"


def test_a_run_of_this_student_is_the_measure_of_time(
    tune: OpenTune, scored: ScoredPoolArtifacts, workspace: Workspace
) -> None:
    run = add(
        workspace, "checkpoints", "lora-x", "0123456789ab", config={"method": "lora"}, device="cpu",
        identity={"student": scored.scores.manifest.identity["student"]}, counts={"tokens_seen": 1_000_000},
    )  # fmt: skip
    manifest = run.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "wall_s": 100.0}))
    note = cards_of(tune())["cost"]["note"]
    assert note == "measured: 10,000 tokens/s in lora-x-0123456789ab on cpu"


def test_the_size_of_a_student_of_the_workspace_is_read_from_its_files(
    tune: OpenTune, scored: ScoredPoolArtifacts, workspace: Workspace
) -> None:
    student = add(workspace, "students", "tiny", "0123456789ab")
    (student.path / "model").mkdir()
    weights = {"model.layers.0.self_attn.q_proj.weight": np.zeros((500, 400), np.float32)}
    save_file(weights, student.path / "model" / "model.safetensors")
    (student.path / "model" / "config.json").write_text('{"model_type": "llama"}')
    manifest = scored.scores.path / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "config": {**content["config"], "student": student.id}}))
    # LoRA of rank 64: 200,000 frozen weights in 2 bytes, 57,600 trained ones in 16.
    assert stats_of(tune(), "cost")["Memory of a device"] == "1.3 MB"


def test_a_saved_selection_is_recognized_and_offers_its_file(
    tune: OpenTune, scored: ScoredPoolArtifacts, workspace: Workspace
) -> None:
    page = tune(B="2")
    assert [button.label for button in page.button if button.key == "save"] == ["Save this selection"]
    command = next(code.value for code in page.code if code.value.startswith("lark select"))
    assert command == (
        f"lark select --scores {scored.scores.id} --pool {scored.pool.id} --budget 2 --workspace {workspace.root}"
    )
    saved = select(SelectConfig(budget=2), workspace, scored.scores, scored.pool)
    page = tune(B="2")
    assert [button for button in page.button if button.key == "save"] == []
    assert f'href="/lark/selections/{saved.id}/train.jsonl?format=messages"' in html_of(page)
    assert saved.id == plan_select(SelectConfig(budget=2), scored.scores, scored.pool).id


def test_without_scores_the_page_says_what_to_do(tune: OpenTune, workspace: Workspace) -> None:
    assert [heading.value for heading in tune().subheader] == ["No pool yet"]
    add(workspace, "pools", "lonely", "0a0b0c0d0e0f", counts={"num_trajectories": 3})
    page = tune()
    assert [heading.value for heading in page.subheader] == ["Nothing is scored yet"]
    assert any("lark score --pool lonely-0a0b0c0d0e0f" in code.value for code in page.code)


def test_an_edit_that_leaves_nothing_is_explained(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune(min_response_tokens="9999999")
    assert stats_of(page)["Selected trajectories"] == "0"


def test_a_limit_that_cannot_hold_is_explained_and_can_be_undone(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune(max_teacher_share="0.2")
    assert "max_teacher_share 0.2 cannot hold with 3 teachers" in html_of(page)
    assert [widget.value for widget in page.number_input if widget.key == "max_teacher_share"] == [0.2]


def test_scores_that_are_gone_are_named_and_the_newest_are_shown(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    page = tune(scores="gone@student-0123456789ab")
    assert said(page, "scores") == [scored.scores.id]
    assert page.toast and "not here" in page.toast[0].value


def test_a_damaged_score_file_is_one_clear_card(tune: OpenTune, scored: ScoredPoolArtifacts) -> None:
    path = scored.scores.path / "scores.parquet"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert "damaged; remove the folder" in html_of(tune())
