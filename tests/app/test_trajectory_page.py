"""Trajectory in each state of a workspace and of an address, run as Streamlit runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest

from app.token_job import tokens_command
from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.cli.words import whole_command
from lark_engine.config import PoolConfig, SelectConfig
from lark_engine.explore.flags import CandidateKey, read_flags, set_flag
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.summaries import TOKEN_STATISTICS
from lark_engine.scoring.table import read_scores
from lark_engine.selection.released import import_scores
from lark_engine.selection.select import read_selection, select
from lark_engine.store.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
ROUTER, PAGE = ROOT / "app" / "router.py", ROOT / "pages" / "trajectory.py"
HELP = (ROOT / "app" / "static" / "help.md").read_text(encoding="utf-8").strip()
OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    return make_scored_pool(Workspace(tmp_path_factory.mktemp("made")), num_problems=12, num_candidates=9, seed=1)


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch, made: ScoredPoolArtifacts) -> OpenPage:
    def run(home: Path | None = None, **query: str) -> AppTest:
        monkeypatch.setenv("LARK_HOME", str(home or made.pool.path.parents[1]))
        return shown_page("trajectory", **query)

    return run


def texts_of(page: AppTest) -> str:
    return re.sub(r"<[^>]*>", " ", html_of(page))


def component(page: AppTest, name: str) -> dict[str, Any]:
    [found] = [c.proto for c in page.get("bidi_component") if c.proto.component_name.endswith(name)]
    return json.loads(found.json)


def problem_shown(page: AppTest) -> str:
    [said] = [heading.value for heading in page.subheader if heading.value.startswith("Problem ")]
    return said.removeprefix("Problem ")


def table_of(made: ScoredPoolArtifacts, problem: str) -> pd.DataFrame:
    table = read_scores(made.scores)
    return table[table["problem_id"] == problem].sort_values("g_hat", ascending=False)


def test_an_empty_workspace_says_what_to_do(open_page: OpenPage, workspace: Workspace) -> None:
    page = open_page(workspace.root)
    assert [heading.value for heading in page.subheader] == ["No pool yet"]


def test_the_first_problem_and_its_best_candidate_are_shown_without_an_address(
    open_page: OpenPage, made: ScoredPoolArtifacts
) -> None:
    listed = component(open_page(), "lark_candidate_list")
    table = table_of(made, "0")
    assert listed["shown"] == str(table.iloc[0]["candidate_id"])
    assert [row["id"] for row in listed["rows"]] == [str(c) for c in table["candidate_id"]]
    assert [row["rank"] for row in listed["rows"]] == [str(r) for r in range(1, 10)]


def test_weights_are_those_that_the_engine_saves_for_the_address(
    open_page: OpenPage, made: ScoredPoolArtifacts
) -> None:
    workspace = Workspace(made.pool.path.parents[1])
    config = SelectConfig(B=4, mode="sharpness", sharpness=2.5, exclude_teachers=["QwQ-32B"])
    kept = read_selection(select(config, workspace, made.scores, made.pool))
    kept = kept[kept["problem_id"] == "3"].set_index("candidate_id")["selection_prob"]
    page = open_page(problem="3", B="4", mode="sharpness", sharpness="2.5", exclude_teachers="QwQ-32B")
    listed = component(page, "lark_candidate_list")["rows"]
    weights = {int(row["id"]): row["weight"] for row in listed if row["weight"] != "–"}
    assert weights == {int(c): f"{prob:.3f}" for c, prob in kept.items()}
    assert {row["energy"] for row in listed if row["teacher"] == "QwQ-32B"} <= {"teacher left out"}


def test_the_score_is_explained_with_its_own_numbers(open_page: OpenPage, made: ScoredPoolArtifacts) -> None:
    table = table_of(made, "2")
    line = table.iloc[1]
    said = texts_of(open_page(problem="2", candidate=str(line["candidate_id"])))
    share, ratio = line["nll"] / table["nll"].sum(), table["brier"].sum() / table["nll"].sum()
    assert "Rank 2 of 9" in said
    assert f"{100 * share:.1f} %" in said and f"(2 · {line['rho']:.3f} − {ratio:.3f})" in said
    assert f"+{line['g_hat']:.4f}" in said and f"+{table['g_hat'].iloc[3]:.4f}" in said


def test_a_candidate_without_a_finite_score_and_one_that_was_not_scored_are_shown(
    open_page: OpenPage, tmp_path: Path
) -> None:
    made = make_scored_pool(Workspace(tmp_path), num_problems=4, num_candidates=6, hostile=True)
    scores = read_scores(made.scores)
    lost = scores[scores["reason"].notna()].iloc[0]
    page = open_page(tmp_path, problem=lost["problem_id"], candidate=str(lost["candidate_id"]))
    assert "No rank: not finite" in texts_of(page)
    unscored = "../../etc/passwd"  # its prompt fills the context: no response token was left to score
    assert unscored not in set(scores["problem_id"])
    page = open_page(tmp_path, problem=unscored, heat="nll")
    assert "was not scored" in texts_of(page)
    assert {row["energy"] for row in component(page, "lark_candidate_list")["rows"]} == {"not scored"}


@pytest.mark.parametrize(
    ("query", "said"),
    [({"problem": "no such"}, "There is no problem 'no such'"), ({"candidate": "99"}, "has no candidate '99'")],
)
def test_what_is_not_there_is_said_with_ways_out(open_page: OpenPage, query: dict[str, str], said: str) -> None:
    page = open_page(**query)
    assert [heading.value for heading in page.subheader] == ["Not in this pool"]
    assert said in texts_of(page).replace("&#x27;", "'")
    labels = [link.proto.label for link in page.get("page_link")]
    assert {"First problem", "Random problem"} <= set(labels)


def test_buttons_go_to_the_next_candidate_and_the_next_problem(open_page: OpenPage, made: ScoredPoolArtifacts) -> None:
    page = open_page(problem="1", versus="0", page="3")
    ranked = [str(c) for c in table_of(made, "1")["candidate_id"]]
    page.button(key="candidate_after").click().run()
    assert page.query_params["candidate"] == ranked[1]
    assert "page" not in page.query_params
    page.button(key="problem_after").click().run()
    assert page.query_params["problem"] == "2"
    assert not {"candidate", "versus"} & set(page.query_params)
    assert component(page, "lark_candidate_list")["shown"] == str(table_of(made, "2").iloc[0]["candidate_id"])


def test_the_order_by_spread_begins_with_the_widest_problem(open_page: OpenPage, made: ScoredPoolArtifacts) -> None:
    page = open_page()
    page.selectbox(key="order").select("spread").run()
    table = read_scores(made.scores)
    spread = table.groupby("problem_id")["g_hat"].agg(lambda g: g.max() - g.min()).sort_values(ascending=False)
    assert problem_shown(page) == spread.index[0] and "problem" not in page.query_params
    assert page.query_params["order"] == "spread"
    page.button(key="problem_after").click().run()
    assert page.query_params["problem"] == spread.index[1]


def test_a_pinned_candidate_is_compared_word_by_word_with_the_next(
    open_page: OpenPage, made: ScoredPoolArtifacts
) -> None:
    page = open_page(problem="1")
    first = component(page, "lark_candidate_list")["shown"]
    page.button(key="pin").click().run()
    assert page.query_params["versus"] == first
    page.button(key="candidate_after").click().run()
    listed = component(page, "lark_candidate_list")
    assert listed["versus"] == first != listed["shown"]
    markup = html_of(page)
    assert "Word for word," in markup and "<del>" in markup and "<ins>" in markup
    page.button(key="pin").click().run()
    assert "versus" not in page.query_params


def test_problems_are_found_by_id_and_by_words(open_page: OpenPage) -> None:
    page = open_page()
    page.text_input(key="find").input("7").run()
    page.button(key="found.0").click().run()
    assert page.query_params["problem"] == "7"
    page.text_input(key="find").input("nothing has these words").run()
    assert "No problem has this id or these words." in [caption.value for caption in page.caption]


def test_a_flag_is_set_with_a_reason_and_taken_back(open_page: OpenPage, made: ScoredPoolArtifacts) -> None:
    page = open_page(problem="4", candidate="2")
    page.button(key="flag").click().run()
    assert "a flag needs its author and a reason" in texts_of(page)
    page.text_input(key="flag_reason.4.2").input("guesses the answer").run()
    command = next(code.value for code in page.code if "pool flag" in code.value)
    assert f"lark pool flag {made.pool.id} --problem=4 --candidate 2 '--reason=guesses the answer'" in command
    page.button(key="flag").click().run()
    [flag] = read_flags(made.pool).values()
    assert (flag.key, flag.reason) == (CandidateKey("4", 2), "guesses the answer")
    row = next(row for row in component(page, "lark_candidate_list")["rows"] if row["id"] == "2")
    assert "⚑" in row["notes"]
    page.text_input(key="flag_reason.4.2").input("it does not").run()
    page.button(key="flag").click().run()
    assert read_flags(made.pool) == {}


def test_a_flag_of_another_process_appears_and_a_damaged_file_is_named(open_page: OpenPage, tmp_path: Path) -> None:
    made = make_scored_pool(Workspace(tmp_path), num_problems=3, num_candidates=4)
    page = open_page(tmp_path)
    set_flag(made.pool, CandidateKey("0", 1), flagged=True, author="ann", reason="<b>wrong</b>")
    page.run()
    assert sum("⚑" in row["notes"] for row in component(page, "lark_candidate_list")["rows"]) == 1
    with (made.pool.path / "flags.jsonl").open("a") as file:
        file.write("[]\n")
    page.run()
    assert "flags.jsonl:2: is no flag" in texts_of(page)
    assert len(component(page, "lark_candidate_list")["rows"]) == 4


@pytest.mark.parametrize(
    ("query", "button", "said"),
    [
        ({"exclude_teachers": "nobody"}, "undo_edits", "no teacher 'nobody' in this pool"),
        ({"max_teacher_share": "0.001"}, "paper_rule", "max_teacher_share 0.001 cannot hold"),
        ({"max_train_tokens": "1"}, "paper_rule", "max_train_tokens 1 is too few"),
        ({"min_response_tokens": "9000000"}, "undo_edits", "No candidate of the pool passes all pool edits."),
    ],
)
def test_a_selection_that_chooses_nothing_is_said_taken_back_and_hides_no_text(
    open_page: OpenPage, query: dict[str, str], button: str, said: str
) -> None:
    page = open_page(problem="2", candidate="3", order="spread", B="4", heat="nll", **query)
    assert "This selection chooses nothing" in [heading.value for heading in page.subheader]
    text = texts_of(page).replace("&#x27;", "'")
    assert said in text and "candidate 3" in text
    assert {row["rank"] for row in component(page, "lark_candidate_list")["rows"]} == {"–"}
    assert {key for key in ("undo_edits", "paper_rule") if any(b.key == key for b in page.button)} == {button}
    page.button(key=button).click().run()
    assert not page.exception
    assert not set(query) & set(page.query_params) and page.query_params["B"] == "4"
    assert {row["rank"] for row in component(page, "lark_candidate_list")["rows"]} > {"1", "2"}


@pytest.mark.parametrize("heat", ["text", "nll", "contribution"])
def test_released_scores_without_token_counts_are_explained(open_page: OpenPage, released: Path, heat: str) -> None:
    newest = max((released / "scores").glob("*released*")).name
    page = open_page(released, scores=newest, problem="1", heat=heat)
    said = texts_of(page)
    assert "This part of the page failed." not in said and "Rank 1 of" in said
    assert {row["tokens"] for row in component(page, "lark_candidate_list")["rows"]} == {"–"}


def test_an_energy_that_released_scores_lack_leaves_the_texts(open_page: OpenPage, released: Path) -> None:
    newest = max((released / "scores").glob("*released*")).name
    page = open_page(released, scores=newest, energy="-rsr", problem="1", order="margin")
    assert "which these scores lack" in texts_of(page) and problem_shown(page) == "1"
    page.selectbox(key="order").select("spread").run()  # in a callback an error would be Streamlit's own
    assert not page.exception
    page.button(key="undo_edits").click().run()
    assert "energy" not in page.query_params
    assert "1" in {row["rank"] for row in component(page, "lark_candidate_list")["rows"]}


def test_the_pool_edits_that_scores_are_computed_under_are_shown_and_undone(
    open_page: OpenPage, made: ScoredPoolArtifacts
) -> None:
    page = open_page(problem="3", exclude_teachers="QwQ-32B", correct_only="true")
    chips = [button for button in page.button if (button.key or "").startswith("edit.")]
    assert [chip.label for chip in chips] == ["without QwQ\\-32B", "only correct"]
    assert {chip.proto.type for chip in chips} == {"primary"}
    chips[1].click().run()
    assert "correct_only" not in page.query_params and page.query_params["exclude_teachers"] == "QwQ-32B"


def test_long_messages_of_a_problem_are_each_turned_alone_and_a_long_system_prompt_says_its_rest(
    open_page: OpenPage, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "ws")
    long = "word " * 5_000
    prompt = [
        {"role": "system", "content": "s" * 4_321}, {"role": "user", "content": f"first {long}"},
        {"role": "user", "content": f"second {long}"}, {"role": "user", "content": "short"},
    ]  # fmt: skip
    lines = [
        {
            "problem_id": "p", "candidate_id": n, "teacher": "t",
            "messages": [*prompt, {"role": "assistant", "content": "yes"}],
        }
        for n in range(2)
    ]  # fmt: skip
    source = tmp_path / "pool.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pool = import_pool(PoolConfig(source=str(source), labels="none"), workspace)
    scored = [{"candidate_id": n, "teacher": "t", "L": 1.0, "Brier": 0.5 + n / 10} for n in range(2)]
    (tmp_path / "scores.json").write_text(json.dumps({"student_model": "s", "scores": {"p": scored}}))
    import_scores(tmp_path / "scores.json", workspace, pool)
    page = open_page(workspace.root, problem="p", prompt_page_2="2")
    said = texts_of(page)
    assert "321 more characters are not shown." in said
    assert "Message 1 of 3" in said and "Message 2 of 3" in said
    assert re.search(r"Characters 1 to (\d\d,\d{3}) of 25,006\.", said)
    assert re.search(r"Characters \d\d,\d{3} to 25,007 of 25,007\.", said)
    page.toggle(key="latex").set_value(True).run()
    assert not page.exception and "prompt_page_2" not in page.query_params


def test_without_tokens_the_strip_shows_and_the_very_command_is_offered(
    open_page: OpenPage, made: ScoredPoolArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[list[str]] = []
    monkeypatch.setattr("app.launch.submit_once", lambda root, command, **_: submitted.append(list(command)))
    page = open_page(problem="5", heat="nll")
    workspace = Workspace(made.pool.path.parents[1])
    command = tokens_command(workspace, made.scores, "5")
    assert " ".join(command) in [code.value for code in page.code]
    strips = [
        json.loads(c.proto.json) for c in page.get("bidi_component") if c.proto.component_name.endswith("lark_board")
    ]
    [card] = [card for strip in strips for card in strip["cards"] if card["key"] == "strip"]
    assert json.loads(card["figure"])["layout"]["meta"]["mode"] == "nll"
    page.button(key="compute_tokens").click().run()
    assert submitted == [command]
    assert whole_command(command, workspace) == command  # the command line takes it as it is


def test_an_id_that_looks_like_an_option_stays_an_id(made: ScoredPoolArtifacts) -> None:
    workspace = Workspace(made.pool.path.parents[1])
    command = tokens_command(workspace, made.scores, "--all")
    assert "--problem=--all" in command
    assert whole_command(command, workspace) == command


def write_tokens(made: ScoredPoolArtifacts, row: int, texts: list[str]) -> None:
    """Token statistics of one row, as `lark score tokens` leaves them."""
    size = len(texts)
    line = read_scores(made.scores).iloc[row]
    values = {"nll": line["nll"], "brier": line["brier"], "rank": 2.0, "entropy": 0.5, "p_true": 0.6}
    columns: dict[str, Any] = {
        "row": pa.array([row], pa.int64()), "problem_id": [line["problem_id"]], "candidate_id": [line["candidate_id"]],
        "token_id": [list(range(size))], "text": [texts],
        **{f"{n}_tokens": pa.array([[np.float16(values[n])] * size], pa.list_(pa.float16())) for n in TOKEN_STATISTICS},
        "top_id": [[7] * size], "top_p": pa.array([[np.float16(0.3)] * size], pa.list_(pa.float16())),
        "top_text": [[" maybe"] * size],
    }  # fmt: skip
    folder = made.scores.path / "token_stats"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"top01-{row + 1:05d}.parquet")


@pytest.mark.parametrize("mode", ["nll", "brier", "contribution"])
def test_tokens_are_shown_on_a_colored_ground(open_page: OpenPage, tmp_path: Path, mode: str) -> None:
    made = make_scored_pool(Workspace(tmp_path), num_problems=3, num_candidates=4)
    line = table_of(made, "1").iloc[0]
    write_tokens(made, int(line.name), [" one", " <b>two</b>", "\n"])
    page = open_page(tmp_path, problem="1", heat=mode)
    markup = html_of(page)
    assert '<div class="lark-text lark-heat' in markup
    assert "&lt;b&gt;two&lt;/b&gt;" in markup and "“␣maybe” 30 %" in markup
    assert not page.code or all("score tokens" not in code.value for code in page.code)
    if mode == "contribution":
        found = re.search(r"3 tokens, sum ([+−][\d.]+)·10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+) = ĝ", markup)
        assert found is not None
        power = int(found[2].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
        assert float(found[1].replace("−", "-")) * 10**power == pytest.approx(line["g_hat"], rel=0.06)


def test_many_tokens_are_shown_by_pages(open_page: OpenPage, tmp_path: Path) -> None:
    made = make_scored_pool(Workspace(tmp_path), num_problems=3, num_candidates=4)
    write_tokens(made, int(table_of(made, "1").index[0]), [f" t{n}" for n in range(10_000)])
    markup = html_of(open_page(tmp_path, problem="1", heat="nll", page="3"))
    assert "tokens 8,193 to 10,000 of 10,000" in markup
    assert "> t8192<" in markup and "> t8191<" not in markup
    assert "> t0<" in html_of(open_page(tmp_path, problem="1", heat="nll", page="junk"))


def test_hostile_texts_make_no_element_and_no_markdown(open_page: OpenPage, tmp_path: Path) -> None:
    make_scored_pool(Workspace(tmp_path), num_problems=4, num_candidates=6, hostile=True)
    page = open_page(tmp_path)
    for _ in range(3):
        text = re.sub(r"<style>.*?</style>", "", html_of(page), flags=re.DOTALL)
        assert set(re.findall(r"<([a-zA-Z]+)", text)) <= {
            "div", "span", "b", "i", "strong", "p", "dl", "dt", "dd", "details", "summary", "table", "thead", "tbody",
            "tr", "th", "td", "small", "code", "h",
        }  # fmt: skip
        assert {element.value for element in page.markdown} <= {HELP}
        page.button(key="problem_after").click().run()
        assert not page.exception


def test_one_candidate_and_a_ragged_problem_are_explained(open_page: OpenPage, tmp_path: Path) -> None:
    made = make_scored_pool(Workspace(tmp_path), num_problems=30, num_candidates=2, seed=3)
    sizes = read_scores(made.scores).groupby("problem_id").size()
    alone = sizes[sizes == 1].index[0]
    said = texts_of(open_page(tmp_path, problem=alone))
    assert "Rank 1 of 1" in said and "100.0 %" in said
    # 2ρ − ρ: alone, ĝ is ρ.


def test_formulas_are_rendered_on_demand_only(open_page: OpenPage) -> None:
    assert {element.value for element in open_page(problem="0").markdown} <= {HELP}
    shown = [element.value for element in open_page(problem="0", latex="true").markdown if element.value != HELP]
    assert len(shown) == 2  # the problem and the response
    assert any("$" in text for text in shown)
