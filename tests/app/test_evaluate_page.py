"""The views Results and Run of the page Evaluate, run as Streamlit runs them."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_jobs import living
from graded_workspace import checkpoint_of, compared, evaluated, place_of
from shown_page import html_of, shown_page
from streamlit.testing.v1 import AppTest

from app import eval_choices
from lark_engine.config import GenerateConfig, GradeConfig
from lark_engine.evaluation.benchmarks import load_benchmark
from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.evaluation.generate import GENERATIONS, plan_generation
from lark_engine.evaluation.grade import grade
from lark_engine.evaluation.matrix import model_to_plan
from lark_engine.jobs.folder import create_job
from lark_engine.jobs.records import JobSpec
from lark_engine.results.commands import generate_command
from lark_engine.results.table import results_table
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_artifact

ROOT = Path(__file__).resolve().parents[2]
OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return compared(tmp_path_factory.mktemp("results") / "workspace")


@pytest.fixture
def graded(made: dict[str, Artifact], tmp_path: Path) -> Workspace:
    """A copy of a workspace with results that a test may change."""
    return Workspace(shutil.copytree(made["base"].path.parents[4], tmp_path / "graded"))


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    def run(workspace: Workspace, **query: str | list[str]) -> AppTest:
        monkeypatch.setenv("LARK_HOME", str(workspace.root))
        return shown_page("evaluate", **query)

    return run


def headings(page: AppTest) -> list[str]:
    return [element.value for element in page.subheader]


def table(page: AppTest) -> dict[str, Any]:
    (found,) = (e for e in page.get("bidi_component") if e.proto.component_name == "lark_results_table")
    return dict(json.loads(found.proto.json))


def row(page: AppTest, label: str) -> dict[str, Any]:
    (found,) = (row for row in table(page)["rows"] if row["label"]["text"] == label)
    return dict(found)


def texts(cell: dict[str, Any]) -> list[str]:
    return [cell["value"]["text"], cell["note"], *(line["text"] for line in cell["lines"])]


def badges(cell: dict[str, Any]) -> list[tuple[str, str]]:
    return [(badge["text"], badge["help"]) for badge in cell["badges"]]


def test_a_cell_has_its_interval_its_pass_at_k_and_the_paired_difference(
    open_page: OpenPage, graded: Workspace, made: dict[str, Artifact]
) -> None:
    page = open_page(graded, metric="avg@2")
    assert [c["label"] for c in table(page)["columns"]] == ["gsm8k"]
    assert [r["label"]["text"] for r in table(page)["rows"]] == ["tiny", made["checkpoint"].id]  # the reference on top
    base, trained = (r["cells"][0] for r in table(page)["rows"])
    assert texts(base) == ["25.0%", "0.0 – 70.9 · n = 4", "pass@2 50.0%", "the reference"]
    assert texts(trained) == ["62.5%", "0.0 – 100.0 · n = 4", "pass@2 75.0%", "+37.5 [−38.7, +113.7]"]
    assert table(page)["rows"][0]["reference"] is True


def test_figures_open_their_problems_and_differences_the_comparison(
    open_page: OpenPage, graded: Workspace, made: dict[str, Artifact]
) -> None:
    found = row(open_page(graded, metric="avg@2"), made["checkpoint"].id)
    (cell,) = found["cells"]
    place = place_of(made["trained"]).replace("/", "%2F")
    assert cell["value"]["query"].endswith(f"view=problems&grade={place}")
    compare = f"view=compare&a=tiny&b={made['checkpoint'].id}&cmp_metric=avg"
    assert compare in found["label"]["query"]
    assert f"{compare}&on=gsm8k" in cell["lines"][1]["query"]


def test_the_metric_and_the_reference_are_those_of_the_address(
    open_page: OpenPage, graded: Workspace, made: dict[str, Artifact]
) -> None:
    page = open_page(graded, metric="avg@4")
    assert [c["label"] for c in table(page)["columns"]] == ["aime"]
    assert texts(row(page, made["checkpoint"].id)["cells"][0])[0] == "12.5%"
    keys = page.selectbox(key="reference").options
    assert len(keys) == 3 and keys[-1] == "no reference"
    without = open_page(graded, metric="avg@2", reference="none")
    assert all("+37.5" not in line for r in table(without)["rows"] for line in texts(r["cells"][0]))
    chosen = page.session_state["reference"]
    (other,) = (key for key in _row_keys(graded, made) if key != chosen)
    turned = row(open_page(graded, metric="avg@2", reference=other), "tiny")
    assert texts(turned["cells"][0])[-1] == "−37.5 [−113.7, +38.7]"


def _row_keys(workspace: Workspace, made: dict[str, Artifact]) -> list[str]:
    return list(dict.fromkeys(results_table(workspace)["row"]))


def test_each_benchmark_is_shown_by_its_own_number_of_samples(
    open_page: OpenPage, graded: Workspace, made: dict[str, Artifact]
) -> None:
    page = open_page(graded)
    assert [c["label"] for c in table(page)["columns"]] == ["aime", "gsm8k"]
    aime, gsm8k = row(page, made["checkpoint"].id)["cells"]
    assert (texts(aime)[0], texts(aime)[-1][:5]) == ("12.5%", "+12.5")
    assert (texts(gsm8k)[0], texts(gsm8k)[-1][:5]) == ("62.5%", "+37.5")
    assert any(r"aime avg\@4 · gsm8k avg\@2" in c.value.replace("\u2060", "") for c in page.caption)


def test_nothing_is_bold_while_intervals_meet(open_page: OpenPage, graded: Workspace) -> None:
    assert not any(cell["best"] for r in table(open_page(graded, metric="avg@2"))["rows"] for cell in r["cells"])
    evaluated(graded, "champion", "gsm8k", dict.fromkeys(("p0", "p1", "p2", "p3"), "11"))
    evaluated(graded, "loser", "math", {f"q{i}": "00" for i in range(20)})
    evaluated(graded, "winner", "math", {f"q{i}": "11" for i in range(20)})
    page = open_page(graded, metric="avg@2")
    best = {r["label"]["text"]: [cell["best"] for cell in r["cells"]] for r in table(page)["rows"]}
    assert best["champion"] == [False, False]  # 100 % of four problems is not above 0 – 100
    assert best["winner"] == [False, True]


def test_stale_disputed_and_limited_results_say_so(open_page: OpenPage, graded: Workspace) -> None:
    generations = read_artifact(graded.root / "evals" / "tiny" / _only(graded.root / "evals" / "tiny", "gsm8k"))
    assert generations is not None
    add_dispute(generations, SampleKey("p1", 0), correct=True, author="me", reason="right")
    manifest = generations.path / "manifest.json"
    said = json.loads(manifest.read_text())
    said["identity"]["benchmark"]["limit"] = 4
    manifest.write_text(json.dumps(said))
    shutil.rmtree(next(graded.root.glob("selections/*")))
    page = open_page(graded, metric="avg@2")
    assert ("1 disputed", "Verdicts that a person has overruled, counted as the person says") in badges(
        row(page, "tiny")["cells"][0]
    )
    assert ("first 4 of 1,319 problems", "Sampled with a limit of problems") in badges(row(page, "tiny")["cells"][0])
    trained = next(r for r in table(page)["rows"] if r["label"]["text"] != "tiny")
    ((badge, why),) = badges(trained["cells"][0])
    assert badge == "stale" and "is gone" in why


def _only(folder: Path, name: str) -> str:
    (found,) = (path.name for path in folder.iterdir() if path.name.startswith(name))
    return found


def test_an_unfinished_sampling_is_shown_where_its_result_will_stand(open_page: OpenPage, graded: Workspace) -> None:
    evaluated(graded, "tiny", "math", {"q": "10"})
    folder = graded.root / "evals" / next(p.name for p in (graded.root / "evals").iterdir() if p.name != "tiny")
    unfinished = folder / "math-0123456789ab"
    unfinished.mkdir()
    (unfinished / ".lock").touch()
    event = {"stage": "generate", "done": 3, "total": 8, "unit": "sample", "rate": 1.0}
    (unfinished / "events.jsonl").write_text(json.dumps(event) + "\n")
    page = open_page(graded, metric="avg@2")
    cell = next(r for r in table(page)["rows"] if r["label"]["text"] != "tiny")["cells"][1]
    assert texts(cell) == ["sampling unfinished", "", "3 of 8 samples"]
    assert cell["share"] == 0.375


def test_results_on_other_problems_are_not_subtracted(open_page: OpenPage, graded: Workspace) -> None:
    evaluated(graded, "stranger", "gsm8k", {"z": "11"})
    assert (
        texts(row(open_page(graded, metric="avg@2"), "stranger")["cells"][0])[-1] == "other problems than the reference"
    )


def test_a_hundred_rows_are_paged_filtered_and_sorted(open_page: OpenPage, graded: Workspace) -> None:
    for number in range(30):
        evaluated(
            graded, f"m{number:02d}", "gsm8k", {"p0": "1" if number % 2 else "0", "p1": "0", "p2": "0", "p3": "0"}
        )
    page = open_page(graded, metric="pass@1")
    assert len(table(page)["rows"]) == 26  # the reference and a page
    assert any("rows 1 to 25 of 31" in caption.value for caption in page.caption)
    assert len(table(open_page(graded, metric="pass@1", page="2"))["rows"]) == 7
    found = open_page(graded, metric="pass@1", eval_find="M07")
    assert [r["label"]["text"] for r in table(found)["rows"]] == ["tiny", "m07"]


def test_seeds_are_pooled_on_demand(open_page: OpenPage, graded: Workspace, made: dict[str, Artifact]) -> None:
    (selection,) = graded.list("selections")
    other = checkpoint_of(graded, selection, seed=1)
    evaluated(graded, other.id, "gsm8k", {"p0": "11", "p1": "00", "p2": "00", "p3": "00"}, other)
    pooled = next(
        r for r in table(open_page(graded, metric="avg@2", by_method="true"))["rows"] if r["label"]["text"] != "tiny"
    )
    assert pooled["label"]["text"] == "lora-quick on chi2 B=3 (all seeds)"
    assert ("2 seeds", "Pooled over seeds and problems") in badges(pooled["cells"][0])
    # base ½ 0 0 ½, the mean of both seeds 1 ½ 0 ¼
    assert texts(pooled["cells"][0])[-1].startswith("+18.8 [")


def test_the_export_command_says_what_is_filtered(open_page: OpenPage, graded: Workspace) -> None:
    page = open_page(graded, benchmark="aime", by_method="true")
    assert page.code[0].value == (
        f"lark table --benchmark aime --by-method --output-dir results --workspace {graded.root}"
    )


def test_where_results_come_from_waits_until_it_is_opened(open_page: OpenPage, graded: Workspace) -> None:
    page = open_page(graded, metric="avg@2")
    assert "<details>" not in html_of(page)
    page.session_state["results_lineage"] = True
    page.run()
    assert html_of(page).count("<details>") == 2


def test_markup_in_names_stays_text(open_page: OpenPage, graded: Workspace) -> None:
    evaluated(graded, "<img src=x>", "<b>y", {"q": "10"})
    page = open_page(graded)
    assert "<img" not in html_of(page)
    assert "<img src=x>" in [r["label"]["text"] for r in table(page)["rows"]]  # the component puts it in as text


def student_in(workspace: Workspace) -> Artifact:
    """A student with the files of a model, which are never loaded."""

    def make(draft: Draft) -> None:
        (draft.path / "model").mkdir()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (draft.path / "model" / name).write_text("{}")

    return workspace.build(Plan(kind="students", name="tiny", fingerprint="aaaaaaaaaaaa", config={}), make)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.json"
    path.write_text(json.dumps([{"prompt": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(3)]))
    return path


def test_an_empty_workspace_leads_to_training(open_page: OpenPage, workspace: Workspace) -> None:
    for view in ("results", "run", "compare", "problems"):
        assert headings(open_page(workspace, view=view)) == ["No model to evaluate yet"]
    assert not workspace.root.exists()


def test_without_grades_the_page_leads_to_running(open_page: OpenPage, workspace: Workspace) -> None:
    student = student_in(workspace)
    page = open_page(workspace)
    assert headings(page) == ["Nothing is graded yet"]
    assert f"lark generate --model-path {student.id} --benchmark FILE.json --grade" in page.code[0].value
    page.button(key="to_run").click().run()
    assert page.query_params["view"] == "run"
    assert "No benchmark is chosen." in html_of(page)
    assert any("lark benchmarks fetch MATH-500" in code.value for code in page.code)


def test_a_bad_benchmark_is_explained_and_hides_no_other(
    open_page: OpenPage, workspace: Workspace, sums: Path, tmp_path: Path
) -> None:
    student_in(workspace)
    (tmp_path / "bad.json").write_text(json.dumps([{"prompt": "1+1=?"}]))
    page = open_page(workspace, view="run", eval_benchmark=[str(tmp_path / "bad.json"), "MATH-500", str(sums)])
    text = html_of(page)
    assert "problem 0: has no answer; give text or a number under &#x27;answer&#x27;" in text
    assert "MATH-500 is not in the workspace; fetch it with `lark benchmarks fetch MATH-500`" in text
    assert [c["label"] for c in table(page)["columns"]] == ["sums"]


def test_a_model_that_is_not_there_is_explained(open_page: OpenPage, workspace: Workspace, sums: Path) -> None:
    student_in(workspace)
    page = open_page(workspace, view="run", eval_model=["owner/name"], eval_benchmark=str(sums))
    assert "no model of this workspace and no folder; give the whole id or a path" in html_of(page)


def test_an_adapter_on_a_model_of_the_hub_downloads_nothing(
    open_page: OpenPage, workspace: Workspace, sums: Path, tmp_path: Path
) -> None:
    student_in(workspace)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    page = open_page(workspace, view="run", eval_model=[str(adapter)], eval_benchmark=str(sums))
    assert "its base model owner/name is not on this machine" in html_of(page)


@pytest.mark.parametrize("said", ["{}", "[]", "{"])
def test_a_damaged_adapter_and_a_home_that_is_not_there_are_explained(
    open_page: OpenPage, workspace: Workspace, sums: Path, tmp_path: Path, said: str
) -> None:
    student_in(workspace)
    (tmp_path / "adapter_config.json").write_text(said)
    names = [str(tmp_path), "~nobody-of-this-name/model"]
    page = open_page(workspace, view="run", eval_model=names, eval_benchmark=[str(sums), "~nobody-of-this-name/b.json"])
    assert html_of(page).count("is left out.") == 3


def test_a_checkpoint_by_its_folder_is_planned_without_its_base_model(
    open_page: OpenPage, graded: Workspace, sums: Path
) -> None:
    (checkpoint,) = graded.list("checkpoints")
    (checkpoint.path / "adapter").mkdir(exist_ok=True)
    page = open_page(graded, view="run", eval_model=[str(checkpoint.path)], eval_benchmark=str(sums))
    assert [r["label"]["text"] for r in table(page)["rows"]] == [checkpoint.id]


@pytest.mark.parametrize("name", ["{0}", "A={0}", "A=B={0}"])
def test_a_huge_benchmark_is_not_read_by_the_page(
    open_page: OpenPage, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    student_in(workspace)
    huge = tmp_path / "a=huge.jsonl"
    with huge.open("wb") as file:
        file.truncate(150_000_000)  # sparse
    page = open_page(workspace, view="run", eval_benchmark=name.format(huge))
    assert "holds 150 MB, and this page reads at most 100 MB; run lark generate in a terminal" in html_of(page)


def test_a_benchmark_is_read_again_only_when_its_file_has_changed(
    open_page: OpenPage, workspace: Workspace, sums: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student_in(workspace)
    reads: list[str] = []
    monkeypatch.setattr(eval_choices, "load_benchmark", lambda *a, **k: reads.append(a[0]) or load_benchmark(*a, **k))
    page = open_page(workspace, view="run", eval_benchmark=str(sums))
    page.run()
    assert reads == [str(sums)]
    sums.write_text(json.dumps([{"prompt": "1+1=?", "answer": "2"}]))
    page.run()
    assert table(page)["columns"][0]["note"] == "1 problems"


def test_a_page_runs_no_interpreter_that_its_address_names(
    open_page: OpenPage, workspace: Workspace, sums: Path, tmp_path: Path
) -> None:
    student_in(workspace)
    script, trace = tmp_path / "python", tmp_path / "ran"
    script.write_text(f"#!/bin/sh\ntouch {trace}\n")
    script.chmod(0o755)
    query = {"view": "run", "eval_benchmark": str(sums), "gen.backend": "vllm", "gen.server_python": str(script)}
    page = open_page(workspace, **query)
    assert f"--server-python {script}" in page.code[0].value
    assert not trace.exists()


def sampled(workspace: Workspace, student: Artifact, sums: Path, config: GenerateConfig) -> Artifact:
    benchmark = load_benchmark(str(sums))
    plan = plan_generation(config, workspace, model_to_plan(student, workspace), benchmark)

    def make(draft: Draft) -> None:
        problems = [{"problem_id": p.problem_id, "prompt": p.prompt, "reference": p.reference, "level": None,
                     "subject": None} for p in benchmark.problems]  # fmt: skip
        samples = [{"problem_id": p.problem_id, "sample_index": 0, "text": r"\boxed{2}", "num_tokens": 100, "seed": 0,
                    "finish_reason": "stop"} for p in benchmark.problems]  # fmt: skip
        for name, rows in (("problems.jsonl", problems), (GENERATIONS, samples)):
            (draft.path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        draft.counts, draft.tokens = {"num_generations": 3}, 300

    return workspace.build(plan, make)


RUN = {"view": "run", "gen.n_samples": "1", "gen.backend": "transformers", "gen.max_new_tokens": "200"}
CONFIG = GenerateConfig(benchmark=("sums",), n_samples=1, backend="transformers", max_new_tokens=200)


def test_a_path_with_a_space_is_quoted_in_the_first_command(open_page: OpenPage, tmp_path: Path, sums: Path) -> None:
    workspace = Workspace(tmp_path / "my work")
    made = sampled(workspace, student_in(workspace), sums, CONFIG)
    assert f"lark grade --eval-dir '{made.path}'" in open_page(workspace).code[0].value


def test_only_what_is_missing_is_run_by_a_command_that_samples_and_grades(
    open_page: OpenPage, workspace: Workspace, sums: Path, tmp_path: Path
) -> None:
    student = student_in(workspace)
    other = Path(shutil.copy(sums, tmp_path / "others.json"))
    on_cpu = CONFIG.model_copy(update={"dtype": "float32"})
    grade(GradeConfig(), workspace, sampled(workspace, student, sums, on_cpu))
    query = {**RUN, "eval_benchmark": [str(sums), f"Other={other}"]}
    page = open_page(workspace, **query)
    done, missing = table(page)["rows"][0]["cells"]
    assert texts(done)[:3] == ["33.3%", "6.1 – 79.2", "avg@1 · 3 samples"]
    assert texts(missing) == ["missing", "", "3 samples to make"]
    assert "benchmark=sums" in done["value"]["query"] and "view=results" in done["value"]["query"]
    expected = [
        "lark", "generate", "--model-path", student.id, "--benchmark", f"Other={other}", "--backend", "transformers",
        "--n-samples", "1", "--max-new-tokens", "200", "--grade", "--workspace", str(workspace.root),
    ]  # fmt: skip
    assert shlex.split(page.code[0].value) == expected
    assert "<dt>Samples</dt><dd>3 · 1 of each problem</dd>" in html_of(page)
    assert "<dt>Tokens, at most</dt><dd>600 · 200 a sample</dd>" in html_of(page)


def test_time_is_measured_on_earlier_generations_or_not_said(
    open_page: OpenPage, workspace: Workspace, sums: Path, tmp_path: Path
) -> None:
    student = student_in(workspace)
    other = Path(shutil.copy(sums, tmp_path / "others.json"))
    query = {**RUN, "eval_benchmark": f"Other={other}"}
    assert "not measured yet" in html_of(open_page(workspace, **query))
    made = sampled(workspace, student, sums, CONFIG.model_copy(update={"dtype": "float32"}))
    manifest = made.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "wall_s": 3.0}))
    text = html_of(open_page(workspace, **query))
    assert "about 3.0 s, at most 6.0 s · at 100 tokens/s and 100 tokens a sample, measured on 1 earlier" in text
    assert "1 earlier generation of these models" in text


def test_what_is_sampled_and_not_graded_so_has_its_own_command(
    open_page: OpenPage, workspace: Workspace, sums: Path
) -> None:
    student = student_in(workspace)
    made = sampled(workspace, student, sums, CONFIG.model_copy(update={"dtype": "bfloat16"}))
    query = {**RUN, "eval_benchmark": str(sums)}
    page = open_page(workspace, **query)
    assert texts(table(page)["rows"][0]["cells"][0]) == ["not graded", "", "3 of 3 samples"]
    assert [code.value for code in page.code] == [f"lark grade --eval-dir {made.path} --workspace {workspace.root}"]
    grade(GradeConfig(), workspace, made)
    assert "Every cell is done with these options" in html_of(open_page(workspace, **query))
    otherwise = open_page(workspace, **{**query, "grade.rules": "boxed"})
    assert badges(table(otherwise)["rows"][0]["cells"][0])[0][0] == "graded by other rules"
    assert "--rules boxed" in otherwise.code[0].value


def test_partial_and_running_cells_say_how_far_they_are(open_page: OpenPage, workspace: Workspace, sums: Path) -> None:
    student = student_in(workspace)
    config = CONFIG.model_copy(update={"dtype": "float32"})
    plan = plan_generation(config, workspace, model_to_plan(student, workspace), load_benchmark(str(sums)))
    folder = workspace.folder(plan)
    folder.mkdir(parents=True)
    event = {"stage": "generate", "done": 2, "total": 3, "unit": "sample", "rate": 1.0, "eta_s": 4.0}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    query = {**RUN, "eval_benchmark": str(sums)}
    page = open_page(workspace, **query)
    assert texts(table(page)["rows"][0]["cells"][0]) == ["partial", "", "2 of 3 samples · resumes"]
    assert "<dt>Samples</dt><dd>1 · 1 of each problem</dd>" in html_of(page)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        page = open_page(workspace, **query)
    assert texts(table(page)["rows"][0]["cells"][0]) == ["running", "", "2 of 3 samples · 4.0 s left"]
    assert page.code == []  # what runs is not run again


def test_options_that_are_not_valid_are_explained_in_place_of_the_matrix(
    open_page: OpenPage, workspace: Workspace, sums: Path
) -> None:
    student_in(workspace)
    page = open_page(workspace, view="run", eval_benchmark=str(sums), **{"gen.n_samples": "0"})
    assert "input should be greater than or equal to 1" in html_of(page)
    assert "The matrix follows once the options above are valid." in html_of(page)


def test_the_options_of_earlier_results_are_taken_over_by_a_button(
    open_page: OpenPage, workspace: Workspace, sums: Path
) -> None:
    student = student_in(workspace)
    grade(GradeConfig(), workspace, sampled(workspace, student, sums, CONFIG.model_copy(update={"dtype": "float32"})))
    page = open_page(workspace, view="run")
    assert texts(table(page)["rows"][0]["cells"][0])[0] == "missing"
    page.button(key="as_before").click().run()
    assert page.query_params["gen.max_new_tokens"] == "200"
    assert texts(table(page)["rows"][0]["cells"][0])[0] == "33.3%"
    assert "as_before" not in [button.key for button in page.button]


def job_of(workspace: Workspace, student: Artifact, benchmarks: list[str], **verdict: Any) -> None:
    """A job that samples and grades with the options of `RUN`: a living one, or one that ended with a verdict."""
    config = CONFIG.model_copy(update={"benchmark": tuple(benchmarks)})
    command = generate_command(config, [student.id], workspace, grading=GradeConfig())
    if not verdict:
        living(workspace.root, "running", stage=" ".join(command[1:-2]))
        return
    job = create_job(workspace.root, JobSpec(stage="generate", command=tuple(command), cwd=str(workspace.root)))
    job.write_done({"attempt": 1, "started_at": 1.0, "ended_at": 2.0, "wall_s": 1.0, **verdict})


def test_what_a_living_job_will_come_to_is_not_run_twice(
    open_page: OpenPage, workspace: Workspace, sums: Path, tmp_path: Path
) -> None:
    student = student_in(workspace)
    other = Path(shutil.copy(sums, tmp_path / "others.json"))
    job_of(workspace, student, [f"sums={sums}", "more=/elsewhere.json"])
    page = open_page(workspace, **{**RUN, "eval_benchmark": [str(sums), f"Other={other}"]})
    assert [texts(cell)[0] for cell in table(page)["rows"][0]["cells"]] == ["waits in a job", "missing"]
    assert html_of(page).count('<div class="lark-run"') == 1
    assert f"--benchmark Other={other}" in page.code[0].value and "sums=" not in page.code[0].value
    only_waiting = open_page(workspace, **{**RUN, "eval_benchmark": str(sums)})
    assert only_waiting.code == []


def test_a_job_that_failed_says_why_beside_what_is_left_of_it(
    open_page: OpenPage, workspace: Workspace, sums: Path
) -> None:
    student = student_in(workspace)
    job_of(
        workspace, student, [f"sums={sums}", "more=/elsewhere.json"], state="failed", message="the server did not start"
    )
    page = open_page(workspace, **{**RUN, "eval_benchmark": str(sums)})
    assert "the server did not start" in html_of(page)
    assert texts(table(page)["rows"][0]["cells"][0])[0] == "missing"
    assert len(page.code) == 1


def test_looking_up_what_is_there_imports_no_heavy_library(workspace: Workspace, sums: Path) -> None:
    student_in(workspace)
    query = {**RUN, "eval_benchmark": str(sums)}
    script = f"""
import os, sys
os.environ["LARK_HOME"] = {str(workspace.root)!r}
sys.path.insert(0, {str(ROOT)!r})
from streamlit.testing.v1 import AppTest
page = AppTest.from_file({str(ROOT / "pages" / "evaluate.py")!r}, default_timeout=60)
for key, value in {query!r}.items():
    page.query_params[key] = value
page.run()
assert not page.exception, page.exception
assert "lark generate" in page.code[0].value
print(sorted({{"torch", "transformers", "deepspeed", "peft", "vllm"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
