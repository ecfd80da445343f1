"""The view Compare of the page Evaluate, run as Streamlit runs it: its numbers are those of `compare`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graded_workspace import BASE, LEVELS, compared, evaluated, place_of
from streamlit.testing.v1 import AppTest

from lark_engine.config import GradeConfig
from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.evaluation.grade import grade as regrade
from lark_engine.results.compare import compare
from lark_engine.store.workspace import Artifact, Workspace, read_artifact

PAGE = Path(__file__).resolve().parents[2] / "pages" / "evaluate.py"
OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return compared(tmp_path_factory.mktemp("compared") / "workspace")


@pytest.fixture
def root(made: dict[str, Artifact], tmp_path: Path) -> Path:
    """A copy of the workspace that a test may change."""
    return Path(shutil.copytree(made["base"].path.parents[4], tmp_path / "workspace"))


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    def run(workspace: Path, **query: str) -> AppTest:
        monkeypatch.setenv("LARK_HOME", str(workspace))
        page = AppTest.from_file(str(PAGE), default_timeout=60)
        for key, value in {"view": "compare", **query}.items():
            page.query_params[key] = value
        return ran(page)

    return run


def ran(page: AppTest) -> AppTest:
    page.run()
    assert not page.exception, page.exception
    assert "This part of the page failed" not in text_of(page)
    return page


def text_of(page: AppTest) -> str:
    return " ".join(element.proto.body for element in page.get("html"))


def cards(page: AppTest) -> dict[str, dict[str, Any]]:
    found = {}
    for element in page.get("bidi_component"):
        if element.proto.component_name == "lark_board":
            for card in json.loads(element.proto.json)["cards"]:
                found[card["key"]] = {**card, "figure": json.loads(card["figure"]) if "figure" in card else None}
    return found


def meta(page: AppTest, card: str) -> dict[str, Any]:
    return dict(cards(page)[card]["figure"]["layout"]["meta"])


def tables(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(e.proto.json) for e in page.get("bidi_component") if e.proto.component_name == "lark_row_table"]


def column(table: dict[str, Any], label: str) -> list[str]:
    place = [c["label"] for c in table["columns"]].index(label)
    return [row[place][0] for row in table["rows"]]


def test_an_untrained_student_and_the_newest_checkpoint_are_compared_unless_the_address_says_otherwise(
    open_page: OpenPage, root: Path, made: dict[str, Artifact]
) -> None:
    page = open_page(root)
    assert (page.query_params["a"], page.query_params["b"]) == ("tiny", made["checkpoint"].id)
    assert page.selectbox(key="a").options == ["lora-quick · LoRA · χ², B = 3", "tiny · untrained"]


def test_the_numbers_are_those_of_the_comparison(open_page: OpenPage, root: Path, made: dict[str, Artifact]) -> None:
    page = open_page(root, a="tiny", b=made["checkpoint"].id, on="gsm8k")
    forest, matrix = meta(page, "forest"), meta(page, "matrix")
    differences = dict(zip([*forest["benchmarks"], "mean"], forest["differences"], strict=True))
    assert differences == {"gsm8k": 37.5, "aime": 12.5, "mean": 25.0}
    assert matrix["cells"] == [[0, 0, 1], [0, 2, 1], [1, 1, 1], [1, 2, 1]]
    assert (
        "No difference is shown on gsm8k: B − A = +37.5 points (95 %: −38.7 to 113.7), p = 0.50 (1.00 by Holm over 2 "
        "benchmarks), exact permutation, n = 4. A difference of 99.6 points would be found with 80 % power."
    ) in text_of(page)
    assert "Mean over 2 benchmarks: B − A = +25.0 points" in text_of(page)
    assert all(card["alt"] for card in cards(page).values() if card["figure"])


def test_a_square_of_the_matrix_lists_its_problems(open_page: OpenPage, root: Path) -> None:
    page = open_page(root, on="gsm8k")
    assert column(tables(page)[0], "Problem") == ["p1", "p0", "p2", "p3"]
    assert column(tables(page)[0], "Flipped") == ["gained", "gained", "", ""]
    page.query_params["cell"] = "0-2"
    ran(page)
    assert column(tables(page)[0], "Problem") == ["p1"]
    assert [button.label for button in page.button if button.key == "clear_cell"] == ["A 0, B 2 correct · 1 problem"]
    page.button(key="clear_cell").click()
    assert column(tables(ran(page))[0], "A") == ["0 of 2", "1 of 2", "0 of 2", "1 of 2"]


@pytest.mark.parametrize("cell", ["9-9", "x", "-1-2", "1", "1-2-3", "９-2"])
def test_a_square_that_is_not_there_lists_all_problems(open_page: OpenPage, root: Path, cell: str) -> None:
    assert len(tables(open_page(root, on="gsm8k", cell=cell))[0]["rows"]) == 4


def test_slices_are_by_level_or_length(open_page: OpenPage, root: Path) -> None:
    said = meta(open_page(root, on="gsm8k", slice_by="level"), "slices")
    assert (said["names"], said["n"], said["differences"]) == (["1", "2"], [2, 2], [75.0, 0.0])
    assert meta(open_page(root, on="gsm8k"), "slices")["names"] == ["15 – 15 tokens"]
    assert (
        cards(open_page(root, on="gsm8k", slice_by="subject"))["slices"]["title"] == "This benchmark names no subjects"
    )


def test_swapping_turns_the_sign(open_page: OpenPage, root: Path) -> None:
    page = open_page(root, on="gsm8k")
    a, b = page.query_params["a"], page.query_params["b"]
    page.button(key="compare_swap").click()
    ran(page)
    assert (page.query_params["a"], page.query_params["b"]) == (b, a)
    assert sorted(meta(page, "forest")["differences"]) == [-37.5, -25.0, -12.5]


def test_lengths_are_compared_in_tokens(open_page: OpenPage, root: Path) -> None:
    page = open_page(root, on="gsm8k", cmp_metric="mean_tokens")
    assert "B − A = 0.0 tokens" in text_of(page)
    assert cards(page)["forest"]["figure"]["layout"]["xaxis"]["title"]["text"] == "B − A (tokens)"


def test_an_unknown_metric_or_name_is_explained(open_page: OpenPage, root: Path) -> None:
    assert "unknown metric &#x27;best&#x27;" in text_of(open_page(root, cmp_metric="best"))
    assert "nothing graded is called &#x27;tinny&#x27;; did you mean &#x27;tiny&#x27;" in text_of(
        open_page(root, a="tinny")
    )


def test_sides_that_were_sampled_otherwise_are_compared_with_a_caution(open_page: OpenPage, root: Path) -> None:
    evaluated(Workspace(root), "cold", "gsm8k", BASE, levels=LEVELS, config={"temperature": 0.0})
    assert "Sampled or graded otherwise (A / B): temperature: 0.6 / 0.0." in text_of(
        open_page(root, a="tiny", b="cold")
    )


def test_two_gradings_of_the_same_answers_list_what_changed(
    open_page: OpenPage, root: Path, made: dict[str, Artifact]
) -> None:
    again = evaluated(Workspace(root), "tiny", "gsm8k", BASE, levels=LEVELS, rules=["answer_phrase"])
    page = open_page(root, a=place_of(made["base"]), b=place_of(again))
    changed = tables(page)[0]
    assert (column(changed, "Problem"), column(changed, "found by A")) == (["p0", "p3"], ["1 · boxed", "1 · boxed"])
    assert "2 verdicts differ: 0 are correct by B only, 2 by A only" in text_of(page)
    assert "graded by phrase" in page.selectbox(key="b").value or "graded by phrase" in str(
        page.selectbox(key="b").options
    )


def test_a_dispute_changes_the_comparison(open_page: OpenPage, root: Path, made: dict[str, Artifact]) -> None:
    page = open_page(root, on="gsm8k")
    assert meta(page, "matrix")["cells"][0] == [0, 0, 1]
    generations = read_artifact(root / Path(*made["trained"].path.parents[1].parts[-3:]))
    assert generations is not None
    add_dispute(generations, SampleKey("p2", 0), correct=True, author="ann", reason="2 is right")
    assert meta(ran(page), "matrix")["cells"] == [[0, 1, 1], [0, 2, 1], [1, 1, 1], [1, 2, 1]]
    (gsm8k, _) = compare(Workspace(root), "tiny", made["checkpoint"].id).benchmarks
    assert meta(page, "forest")["differences"][0] == pytest.approx(100 * gsm8k.paired.difference)


def test_the_comparison_can_be_taken_away(open_page: OpenPage, root: Path, made: dict[str, Artifact]) -> None:
    page = open_page(root, a="tiny", b=made["checkpoint"].id)
    labels = [element.proto.label for element in page.get("download_button")]
    assert labels == ["JSON", "CSV", "Markdown", "Problems (CSV)"]
    assert page.code[-1].value == f"lark compare tiny {made['checkpoint'].id} --json --workspace {root}"


def test_one_result_alone_says_what_to_evaluate_next(open_page: OpenPage, tmp_path: Path) -> None:
    evaluated(Workspace(tmp_path), "tiny", "gsm8k", BASE)
    page = open_page(tmp_path)
    assert [heading.value for heading in page.subheader] == ["One result has nothing to be compared with"]
    assert "lark generate --model-path OTHER --benchmark gsm8k=/absent/gsm8k.json --grade" in page.code[0].value


def test_two_results_of_other_problems_say_why_and_what_fits(open_page: OpenPage, root: Path) -> None:
    evaluated(Workspace(root), "other", "else", {"x": "1"})
    page = open_page(root, a="tiny", b="other")
    assert "tiny and other share no graded benchmark; generate and grade one for both." in text_of(page)
    page.button(key=next(b.key for b in page.button if b.key and b.key.startswith("instead."))).click()
    assert meta(ran(page), "forest")["benchmarks"]


def test_a_name_that_means_two_gradings_by_now_offers_both(root: Path, open_page: OpenPage) -> None:
    """A link from before the answers were graded again names the model, and goes on by a click."""
    grade = next(one for one in Workspace(root).list("grades") if one.path.parents[2].name == "tiny")
    generations = read_artifact(grade.path.parents[1])
    assert generations is not None
    regrade(GradeConfig(rules=("boxed", "last_number")), Workspace(root), generations)
    trained = next(one for one in Workspace(root).list("grades") if one.path.parents[2].name != "tiny")
    page = open_page(root, a="tiny", b=place_of(trained))
    assert "These two cannot be compared." in text_of(page)
    offered = [button for button in page.button if (button.key or "").startswith("meant.a.")]
    assert len(offered) == 2
    assert "compare_forest" not in cards(page)
    offered[0].click().run()
    assert not page.exception
    assert "These two cannot be compared." not in text_of(page)
