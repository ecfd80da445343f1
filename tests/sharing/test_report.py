"""A report says what is in the workspace, in one file that loads nothing, and lets out no more than was chosen."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from reported import Parts, html_of, report_of, reported_workspace
from shown_workspace import Shown

from benchmarks.scored_pool import make_scored_pool
from lark_engine import access
from lark_engine.access import Visitor
from lark_engine.config import ReportConfig, SelectConfig
from lark_engine.config.report import BLOCKS
from lark_engine.errors import AccessError, ConfigError, StoreError
from lark_engine.figures import drawing
from lark_engine.pool.dataset import PoolData
from lark_engine.selection.select import select
from lark_engine.sharing.document import rewritten
from lark_engine.sharing.redaction import Redactor
from lark_engine.sharing.report import TITLES, assemble, write_report
from lark_engine.sharing.report_material import Material, unpacked
from lark_engine.sharing.shared import find_shared, remove_shared, shared_files
from lark_engine.store.workspace import Workspace

MOST_BYTES = 6_000_000


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Read, and never changed."""
    return reported_workspace(tmp_path_factory.mktemp("shown") / "w")


@pytest.fixture(scope="module")
def page(shown: Shown) -> str:
    return html_of(shown.workspace)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("hostile"))
    make_scored_pool(workspace, num_problems=12, num_candidates=9, hostile=True)
    return workspace


def test_every_block_is_there_under_its_title_and_in_the_contents(page: str) -> None:
    parts = Parts(page)
    assert [at["id"] for tag, at in parts.elements if tag == "section" and "id" in at] == list(BLOCKS)
    links = [at["href"] for tag, at in parts.elements if tag == "a"]
    assert links == ["#content", *(f"#{block}" for block in BLOCKS)]
    for title in TITLES.values():
        assert f"<h2>{title}</h2>" in page


def test_a_report_holds_the_numbers_of_the_engine(shown: Shown, page: str) -> None:
    text = Parts(page).text
    num_kept = shown.selection.manifest.counts["num_trajectories"]
    assert f"<dt>Selected trajectories</dt><dd>{num_kept}</dd>" in page
    for artifact in (shown.pool, shown.scores, shown.selection, shown.checkpoint, *shown.grades):
        assert f"<td>{artifact.fingerprint}</td>" in page
    # Of p0 one of two samples is right, of p1 too; one verdict of the student's is disputed.
    for value in (25.0, 50.0):
        assert re.search(rf'<td class="number">{value} \[', page)
    assert "The loss fell from 1.95 to 1" in text
    assert "Results · quiz: n = 2" in text


def test_every_figure_has_its_text_and_the_data_of_the_page(page: str) -> None:
    parts = Parts(page)
    plots = [at for _, at in parts.elements if at.get("class") == "lark-board-plot"]
    figures = [json.loads(text) for kind, text in parts.scripts if kind == "application/json"]
    assert len(plots) == len(figures) >= 16
    assert all(at["role"] == "img" and len(at["aria-label"] or "") > 20 for at in plots)
    assert {figure["layout"].get("meta", {}).get("chart") for figure in figures} >= {
        "budget", "teachers", "profile", "robustness", "problem",
    }  # fmt: skip
    packed = [trace["y"] for figure in figures for trace in figure["data"] if isinstance(trace.get("y"), dict)]
    assert packed and all(values["dtype"] == "f4" for values in packed)


def test_nothing_is_loaded_from_outside(page: str) -> None:
    parts = Parts(page)
    for tag, at in parts.elements:
        assert not {"src", "srcset", "action", "poster", "data", "background", "ping"} & at.keys(), (tag, at)
        assert (at.get("href") or "#").startswith(("#", "data:")), (tag, at)
        assert not any(name.startswith("on") for name in at), (tag, at)
        assert "url(" not in (at.get("style") or "")
    assert {tag for tag, _ in parts.elements}.isdisjoint({"iframe", "object", "embed", "img", "form", "base", "input"})
    assert all("url(" not in style and "@import" not in style for style in parts.styles)


def test_the_policy_lets_exactly_the_own_scripts_run(page: str) -> None:
    parts = Parts(page)
    [policy] = [at["content"] for tag, at in parts.elements if at.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "script-src 'unsafe-inline'" not in policy
    run = [text for kind, text in parts.scripts if not kind]
    assert len(run) == 2
    for text in run:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_charts_library_is_in_the_file_once_and_only_where_a_figure_needs_it(shown: Shown, page: str) -> None:
    library = drawing.LIBRARY.read_text(encoding="utf-8")
    assert page.count(library[:200]) == 1
    plain = html_of(shown.workspace, block=["lineage", "versions"])
    assert library[:200] not in plain
    assert len(plain.encode()) < 40_000
    [policy] = [at["content"] for _, at in Parts(plain).elements if "http-equiv" in at]
    assert policy is not None and "script-src 'none'" in policy


def test_a_large_pool_makes_no_large_report(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    make_scored_pool(workspace, num_problems=300, num_candidates=33)
    report = report_of(workspace, selection_a="B=3", selection_b="B=8&sharpness=0.5&mode=sharpness")
    assert len(report.content) == report.preview.num_bytes < MOST_BYTES
    # Bins and lines, never points: what is not the library is small, and hardly grows with the pool.
    assert report.preview.num_bytes - drawing.LIBRARY.stat().st_size < 400_000


def test_texts_stay_at_home_unless_they_are_chosen(shown: Shown) -> None:
    texts = list(PoolData(shown.pool).trajectories())
    problem = texts[0].problem_id
    prompts = {one.problem_id: one.prompt[-1]["content"] for one in texts}

    def out(**options: Any) -> set[str]:
        parts = Parts(html_of(shown.workspace, **options))
        return {name for name, prompt in prompts.items() if " ".join(prompt.split()) in parts.text}

    assert out() == set()
    assert out(texts="chosen", problem=[problem]) == {problem}
    assert len(out(texts="all", num_problems=3)) == 3
    assert len(out(texts="all", num_problems=500)) == len(prompts)
    assert report_of(shown.workspace).preview.num_texts == 0
    chosen = report_of(shown.workspace, texts="chosen", problem=[problem]).preview
    kept = {line.response for line in texts if line.problem_id == problem}
    assert 0 < chosen.num_texts <= 2 + len(kept)


def test_answers_and_prompts_of_benchmarks_stay_at_home(page: str) -> None:
    assert "What is p0?" not in page
    assert "who knows" not in page


def test_kept_responses_go_out_whole_and_as_they_are(shown: Shown) -> None:
    document = assemble(Material(shown.workspace, ReportConfig(texts="all", num_problems=2)))
    [problems] = [section for section in document.sections if section.block == "problems"]
    by_text = {one.response for one in PoolData(shown.pool).trajectories()}
    responses = [p.text for part in problems.parts for p in part.passages if ", candidate " in p.label]  # type: ignore[union-attr]
    assert responses and set(responses) <= by_text


def test_paths_hosts_and_users_are_replaced_and_counted(shown: Shown, page: str) -> None:
    root = str(shown.workspace.root)
    assert root not in page and "/data/x/lora.yaml" not in page
    preview = report_of(shown.workspace).preview
    assert {(what.kind, what.replacement) for what in preview.replaced} >= {("path", "<workspace>")}
    kept = report_of(shown.workspace, redact=False)
    assert root in kept.content.decode()
    assert kept.preview.replaced == {}


def test_redaction_changes_no_number_and_no_figure(shown: Shown) -> None:
    document = assemble(Material(shown.workspace, ReportConfig(block=("teachers", "selection", "comparison"))))
    redacted = rewritten(document, Redactor(shown.workspace).text)
    figures = [[card.figure for part in section.parts for card in getattr(part, "cards", ())]
               for section in (*document.sections, *redacted.sections)]  # fmt: skip
    assert figures[:3] == figures[3:]
    assert len(document.sections) == 3


def test_what_is_not_there_is_left_out_and_said(workspace: Workspace) -> None:
    made = make_scored_pool(workspace, num_problems=6, num_candidates=4)
    report = report_of(workspace)
    assert set(report.preview.left_out) == {"Training", "Results", "B against A"}
    assert "Not in this report: Training (there is no training run" in Parts(report.content.decode()).text
    assert made.scores.fingerprint in report.content.decode()


def test_a_workspace_with_nothing_in_it_is_a_report_of_that(workspace: Workspace) -> None:
    preview = report_of(workspace).preview
    assert [block.block for block in preview.blocks] == ["commands", "versions"]
    assert "lark pool import FILE" in preview.left_out["Lineage"]


def test_hostile_texts_names_and_ids_come_out_as_text(hostile: Workspace) -> None:
    clean = html_of(hostile, block=["lineage"])
    page = html_of(hostile, texts="all", num_problems=12)
    parts = Parts(page)
    names = {tag for tag, _ in parts.elements}
    ours = {tag for tag, _ in Parts(clean).elements} | {
        "script", "article", "details", "summary", "ol", "li", "pre", "code", "b", "noscript", "h3", "dl", "dt", "dd",
        "div",
    }  # fmt: skip
    assert names <= ours, names - ours
    assert all(at.get("class") == "lark-hidden" for tag, at in parts.elements if tag == "b")
    assert not any(name.startswith("on") for _, at in parts.elements for name in at)
    assert [kind for kind, _ in parts.scripts if kind not in ("", "application/json")] == []
    assert len([kind for kind, _ in parts.scripts if not kind]) == 2
    assert "<script>window.__pwned='teacher'</script>" in parts.text
    assert "\u202e" not in page and "⟦RLO⟧" in page


def test_hostile_texts_are_text_in_markdown_too(hostile: Workspace) -> None:
    text = report_of(hostile, format="markdown", texts="all", num_problems=12).content.decode()
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.M | re.S)
    assert not re.search(r"(?<!\\)<\w", outside)
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert [line for line in outside.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]


def test_markdown_and_the_page_say_the_same(shown: Shown, page: str) -> None:
    text = report_of(shown.workspace, format="markdown").content.decode()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(TITLES.values())
    plain = text.replace("\\", "")
    for _, at in Parts(page).elements:
        if at.get("class") == "lark-board-plot":
            assert f"Figure: {at['aria-label']}".replace("<", "") in plain.replace("<", "")
    assert f"| selection | {shown.selection.name} | {shown.selection.fingerprint} |" in plain


def test_the_results_as_csv_and_latex(shown: Shown) -> None:
    rows = list(csv.DictReader(io.StringIO(report_of(shown.workspace, format="csv").content.decode())))
    assert {row["benchmark"] for row in rows} == {"quiz"}
    # The author of a flag is a user, also in the name of a checkpoint.
    assert {row["model"] for row in rows} == {"student", shown.checkpoint.id.replace("quentin", "<user>")}
    latex = report_of(shown.workspace, format="latex").content.decode()
    assert r"\begin{tabular}" in latex and str(shown.workspace.root) not in latex


def test_results_alone_need_results(workspace: Workspace) -> None:
    make_scored_pool(workspace, num_problems=6, num_candidates=4)
    with pytest.raises(ConfigError, match="to write as latex; grade some"):
        report_of(workspace, format="latex")


def test_all_formats_lie_in_one_zip(shown: Shown) -> None:
    report = report_of(shown.workspace, format="all")
    assert report.preview.target.name.endswith(".report.zip")
    with zipfile.ZipFile(io.BytesIO(report.content)) as archive:
        names = archive.namelist()
        assert {"report.html", "report.md", "results-tidy.csv", "results.tex", "tables/teachers.csv"} <= set(names)
        assert all(re.fullmatch(r"[a-z0-9._/-]+", name) and ".." not in name for name in names)
        teachers = list(csv.reader(io.StringIO(archive.read("tables/teachers.csv").decode())))
    assert teachers[0] == [
        "Teacher", "Candidates", "Correct", "Mean tokens", "Median ĝ", "Best of its problem", "Selected",
    ]  # fmt: skip
    assert sum(int(row[1]) for row in teachers[1:]) == shown.pool.manifest.counts["num_trajectories"]


def test_the_commands_make_it_again(shown: Shown) -> None:
    config = ReportConfig(texts="chosen", problem=("0",), selection_a="B=4", num_problems=4)
    document = assemble(Material(shown.workspace, config))
    [section] = [section for section in document.sections if section.block == "commands"]
    [part] = section.parts
    lines = [command.line for command in part.commands]  # type: ignore[union-attr]
    root = shown.workspace.root
    assert lines[-1] == (
        f"lark report --scores {shown.scores.id} --selection-a B=4 --texts chosen --problem 0 --num-problems 4 "
        f"--workspace {root}"
    )
    assert any(line.startswith("lark select --scores") and "--budget 4" in line for line in lines)
    assert any(line.startswith("lark score --input") for line in lines)


def test_a_selection_is_named_by_id_or_written_out(shown: Shown) -> None:
    material = Material(shown.workspace, ReportConfig(selection_a=shown.selection.id, selection_b="B=2"))
    a, b = material.chosen
    assert a.saved is not None and a.saved.id == shown.selection.id
    # What is written out and happens to be saved is the saved one.
    assert b is not None and b.saved is not None and b.saved.id == shown.selection.id
    assert unpacked("B=8&mode=sharpness&sharpness=0.5&exclude_teachers=a&exclude_teachers=b", "x") == SelectConfig(
        budget=8, mode="sharpness", sharpness=0.5, exclude_teachers=("a", "b")
    )
    assert unpacked("default", "x") == SelectConfig()
    with pytest.raises(ConfigError, match="--selection-a: unknown key 'Budget'"):
        report_of(shown.workspace, selection_a="Budget=8")
    with pytest.raises(StoreError, match="no selection 'nowhere'"):
        report_of(shown.workspace, selection_a="nowhere")


def test_of_two_saved_selections_the_newest_is_shown_against_the_one_before(workspace: Workspace) -> None:
    made = make_scored_pool(workspace, num_problems=6, num_candidates=5)
    for budget in (2, 4):
        select(SelectConfig(budget=budget), workspace, made.scores, made.pool)
    text = Parts(html_of(workspace, block=["selection"])).text
    assert "B (χ² · B = 4) against A (χ² · B = 2)" in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"texts": "chosen"}, "texts chosen needs problem"),
        ({"compare_a": "x"}, "compare_a and compare_b go together"),
        ({"selection_b": "B=2"}, "selection_b is shown against selection_a"),
        ({"num_problems": 0}, "num_problems"),
        ({"block": ["nonsense"]}, "block"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ReportConfig.parse(options, "lark report")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"problem": ["no-such-problem"]}, "the pool has no problem 'no-such-problem'"),
        ({"run": "no-such-run"}, "no training run 'no-such-run'"),
        ({"benchmark": ["no-such-benchmark"]}, "no grades of no-such-benchmark"),
        ({"compare_a": "nobody", "compare_b": "student"}, "nothing graded is called 'nobody'"),
        ({"recipe": "no-such-recipe"}, "no-such-recipe"),
    ],
)
def test_a_name_that_is_none_is_said(shown: Shown, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        report_of(shown.workspace, **options)


def test_a_report_is_written_whole_listed_and_removed(workspace: Workspace) -> None:
    make_scored_pool(workspace, num_problems=6, num_candidates=4, name="mine")
    report = report_of(workspace, title="For Ada / and <others>")
    path = write_report(report, workspace)
    assert path == workspace.root / "shared" / "for-ada-and-others.html"
    assert path.read_bytes() == report.content
    [file] = shared_files(workspace)
    assert (file.name, file.num_bytes) == ("for-ada-and-others.html", len(report.content))
    assert "<h1>For Ada / and &lt;others&gt;</h1>" in path.read_text()
    (path.parent / "outside.html").symlink_to("/etc/hostname")
    assert find_shared(workspace, "outside.html") is None
    assert find_shared(workspace, "../pools") is None
    remove_shared(workspace, file.name)
    assert shared_files(workspace) == []
    with pytest.raises(StoreError, match=r"no file 'for-ada-and-others\.html'"):
        remove_shared(workspace, file.name)


def test_who_may_not_save_writes_no_report_and_removes_none(workspace: Workspace) -> None:
    make_scored_pool(workspace, num_problems=6, num_candidates=4)
    report = report_of(workspace, block=["versions"])
    write_report(report, workspace)
    name = report.preview.target.name
    viewer = Visitor(name="v", origin="", may=frozenset(("explore", "tune")), because="This server is read-only.")
    before = access.resolve_with(lambda: viewer)
    try:
        with pytest.raises(AccessError, match="read-only"):
            write_report(report, workspace)
        with pytest.raises(AccessError, match="read-only"):
            remove_shared(workspace, name)
    finally:
        access.resolve_with(before)
    assert [file.name for file in shared_files(workspace)] == [name]


def test_making_a_report_imports_no_heavy_library(shown: Shown) -> None:
    script = f"""
import sys
from lark_engine.config import ReportConfig
from lark_engine.sharing.report import make_report
from lark_engine.sharing.report_material import Material
from lark_engine.store.workspace import Workspace
make_report(Material(Workspace({str(shown.workspace.root)!r}), ReportConfig()))
print(sorted({{"torch", "transformers", "peft", "vllm", "deepspeed", "streamlit"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
