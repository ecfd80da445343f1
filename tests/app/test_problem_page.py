"""The view Problems of the page Evaluate: every answer with its verdict, disputes, and grading again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from graded_workspace import BASE, LEVELS, compared, evaluated, place_of
from streamlit.testing.v1 import AppTest
from test_compare_page import OpenPage, column, ran, tables, text_of

from app import problem_blocks
from lark_engine.evaluation.disputes import read_disputes
from lark_engine.results.answers import Answer
from lark_engine.store.workspace import Artifact, Workspace

PAGE = Path(__file__).resolve().parents[2] / "pages" / "evaluate.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return compared(tmp_path_factory.mktemp("problems") / "workspace")


@pytest.fixture
def root(made: dict[str, Artifact], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["base"].path.parents[4], tmp_path / "workspace"))


@pytest.fixture
def open_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    def run(**query: str) -> AppTest:
        monkeypatch.setenv("LARK_HOME", str(root))
        page = AppTest.from_file(str(PAGE), default_timeout=60)
        for key, value in {"view": "problems", **query}.items():
            page.query_params[key] = value
        return ran(page)

    return run


def answer(**said: object) -> Answer:
    usual = {
        "sample_index": 0, "text": "", "prediction": "1", "rule": "boxed", "reason": None, "correct": True,
        "by_rules": True, "dispute": None, "num_tokens": 5, "finish_reason": "stop", "seed": 7,
    }  # fmt: skip
    return Answer(**{**usual, **said})  # type: ignore[arg-type]


def test_problems_are_filtered_by_what_became_of_an_answer(open_page: OpenPage, made: dict[str, Artifact]) -> None:
    page = open_page(grade=place_of(made["base"]))
    assert page.button_group(key="verdict").options[:6] == [
        "All · 4", "Wrong · 4", "Correct · 2", "Disputed ‡ · 0", "No answer · 2", "Truncated · 1",
    ]  # fmt: skip
    assert column(tables(page)[0], "Correct") == ["1 of 2", "0 of 2", "0 of 2", "1 of 2"]
    page = open_page(grade=made["base"].id, verdict="no_answer")
    assert column(tables(page)[0], "Problem") == ["p2", "p3"]
    assert "No problem has such an answer." in text_of(open_page(grade=place_of(made["base"]), verdict="disputed"))


def test_the_card_says_how_answers_were_found(open_page: OpenPage, made: dict[str, Artifact]) -> None:
    said = text_of(open_page(grade=place_of(made["base"])))
    assert "<strong>2</strong> of 8 answers are correct (25.0%)." in said
    assert "<dt>found by boxed</dt><dd>6</dd>" in said
    assert "<dt>no rule found an answer</dt><dd>2</dd>" in said
    assert "<dt>cut by the token limit</dt><dd>1</dd>" in said


def test_an_opened_problem_shows_every_answer_with_its_rule_and_verdict(
    open_page: OpenPage, made: dict[str, Artifact]
) -> None:
    page = open_page(grade=place_of(made["base"]), problem="p2")
    said = text_of(page)
    assert "What is p2?" in said and "<code>1</code>" in said and "level 2" in said
    assert '<strong>Sample 0</strong><span class="verdict wrong">✗ wrong</span>' in said
    assert '<code>2</code> <span class="muted">by boxed</span>' in said
    assert "20 tokens · cut by the token limit · seed 1" in said and "no rule found an answer" in said
    assert [b.key for b in page.button if b.key and ".open." in b.key] == ["atext.open.1"]
    assert page.button_group(key="sample").options == ["0 ✗", "1 ✗"]


def test_another_models_answers_stand_beside(open_page: OpenPage, made: dict[str, Artifact]) -> None:
    page = open_page(grade=place_of(made["base"]), beside=place_of(made["trained"]), problem="p1", sample="1")
    said = text_of(page)
    assert "tiny · untrained · on gsm8k" in said and "lora-quick · LoRA · χ², B = 3 · on gsm8k" in said
    assert "0 of 2 correct" in said and "2 of 2 correct" in said
    assert page.button_group(key="sample").options == ["0 ✗✓", "1 ✗✓"]
    assert page.selectbox(key="beside_menu").options == ["nothing", "lora-quick · LoRA · χ², B = 3 · on gsm8k"]


def test_the_way_to_the_next_problem_keeps_to_the_filter(open_page: OpenPage, made: dict[str, Artifact]) -> None:
    page = open_page(grade=place_of(made["base"]), verdict="no_answer", problem="p2", sample="1")
    assert page.button(key="graded_before").disabled
    page.button(key="graded_after").click()
    assert ran(page).query_params["problem"] == "p3"
    assert "sample" not in page.query_params
    page.button(key="sample_after").click()
    assert ran(page).query_params["sample"] == "1"
    page.button(key="all_problems").click()
    assert column(tables(ran(page))[0], "Problem") == ["p2", "p3"]


def test_a_dispute_changes_the_verdict_at_once_and_can_be_taken_back(
    open_page: OpenPage, root: Path, made: dict[str, Artifact]
) -> None:
    page = open_page(grade=place_of(made["base"]), problem="p2")
    page.text_input(key="atext.dispute.p2.0.reason").input("two is right")
    page.text_input(key="atext.dispute.author").input("ann")
    ran(page)
    folder = root / Path(*made["base"].path.parents[1].parts[-3:])
    assert page.code[0].value == (
        f"lark dispute --eval-dir={folder} --problem=p2 --sample 0 --verdict correct '--reason=two is right' "
        f"--author=ann --workspace {root}"
    )
    page.button(key="atext.dispute.record").click()
    said = text_of(ran(page))
    assert "✓ correct ‡" in said and "1 of 2 correct" in said
    assert page.button_group(key="sample").options == ["0 ✓‡", "1 ✗"]
    assert "‡ correct: two is right" in said and "the rules say wrong" in said
    assert column(tables(open_page(grade=place_of(made["base"]), verdict="disputed"))[0], "Correct") == ["1 of 2 ‡"]
    page.selectbox(key="atext.dispute.p2.0.verdict").select("as-graded")
    page.text_input(key="atext.dispute.p2.0.reason").input("a slip")
    page.button(key="atext.dispute.record").click()
    assert "‡" not in text_of(ran(page))
    assert read_disputes(folder) == {}


def test_a_dispute_needs_a_reason(open_page: OpenPage, root: Path, made: dict[str, Artifact]) -> None:
    page = open_page(grade=place_of(made["base"]), problem="p2")
    page.button(key="atext.dispute.record").click()
    assert "a dispute needs its author and a reason" in text_of(ran(page))
    assert read_disputes(root / Path(*made["base"].path.parents[1].parts[-3:])) == {}


def test_what_is_not_there_is_said(open_page: OpenPage, made: dict[str, Artifact]) -> None:
    assert "No grade is called &#x27;nothing&#x27;" in text_of(open_page(grade="nothing"))
    assert "There is no problem &#x27;p9&#x27;" in text_of(open_page(grade=place_of(made["base"]), problem="p9"))


def test_a_damaged_grade_is_an_explanation(open_page: OpenPage, root: Path, made: dict[str, Artifact]) -> None:
    file = root / Path(place_of(made["base"])) / "grades.parquet"
    file.write_bytes(b"?" * file.stat().st_size)
    assert "This cannot be shown." in text_of(open_page(grade=place_of(made["base"])))
    page = open_page(view="compare", a="tiny")
    assert "This cannot be shown." in text_of(page)
    assert page.selectbox(key="a").options  # another one can be chosen


def test_other_rules_make_another_command(open_page: OpenPage, root: Path, made: dict[str, Artifact]) -> None:
    page = open_page(grade=place_of(made["base"]))
    assert page.button(key="regrade_job").disabled
    page.multiselect(key="regrade.rules").set_value(["boxed", "last_number"])
    folder = root / Path(*made["base"].path.parents[1].parts[-3:])
    ran(page)
    assert page.code[0].value == (
        f"lark grade --eval-dir {folder} --rules boxed --rules last_number --workspace {root}"
    )
    assert not page.button(key="regrade_job").disabled


def test_another_grading_is_one_click_from_a_comparison(
    open_page: OpenPage, root: Path, made: dict[str, Artifact]
) -> None:
    again = evaluated(Workspace(root), "tiny", "gsm8k", BASE, levels=LEVELS, rules=["answer_phrase"])
    page = open_page(grade=place_of(made["base"]))
    page.button(key=f"regraded.{place_of(again)}").click()
    assert "2 verdicts differ" in text_of(ran(page))
    assert page.query_params["view"] == "compare"


def test_a_hostile_answer_is_text() -> None:
    said = problem_blocks.heading(answer(prediction="<img src=x onerror=alert(1)>", reason="error: <b>", correct=False))
    assert "<img" not in said and "&lt;img src=x" in said and "error: &lt;b&gt;" in said
    assert "&lt;script&gt;" in problem_blocks.end_of(answer(text="<script>alert(1)</script>"))


def test_of_a_long_answer_the_end_is_shown() -> None:
    said = problem_blocks.end_of(answer(text="x" * 200_000 + "\nso it is\n" + r"\boxed{1}"))
    assert "… 199,619 characters before" in said and len(said) < 800
    lines = problem_blocks.end_of(answer(text="first line\n" * 100 + "last"))
    assert "… 704 characters before" in lines and ">first line\n" in lines
    assert "Empty: there is no text." in problem_blocks.end_of(answer(text=""))
