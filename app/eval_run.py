"""The view Run of the page Evaluate: a matrix of models and benchmarks, what is missing of it, and what that costs."""

from __future__ import annotations

import shlex
from typing import cast

import streamlit as st

from app import address, eval_matrix, widgets
from app.address import bound, page_link
from app.boundary import guarded, reported
from app.components.results_table import results_table
from app.config_form import ConfigForm, form_params
from app.eval_choices import (
    Found,
    benchmark_options,
    chosen_of,
    default_models,
    look_up,
    model_options,
    sampling_of,
)
from app.launch import job_panel, launch_panel
from app.loaders import Snapshot, load_snapshot, signature
from app.session import shell_command
from lark_engine.config import GenerateConfig, GradeConfig
from lark_engine.errors import LarkError
from lark_engine.evaluation.backends import check_backend
from lark_engine.evaluation.matrix import matrix_cell, measured_speed
from lark_engine.figures import formats
from lark_engine.figures.safe_text import one_line
from lark_engine.jobs.status import list_jobs
from lark_engine.results.commands import generate_command, grade_command
from lark_engine.store.workspace import Artifact, Workspace

FIRST = ("n_samples", "temperature", "max_new_tokens", "limit", "backend", "device")
_FOLLOW_S = 2.0
_HINTS = {
    "vllm": "vLLM is started once for each base model and serves its adapters too; on a CPU that takes about a minute",
    "sglang": "SGLang is started once for each base model and serves its adapters too; it needs a GPU",
    "transformers": "In process, without a server: nothing to start, and slower for many samples",
    "endpoint": "Nothing is started: the server of the URL is asked; its key is read from LARK_API_KEY",
}


def show_run(workspace: Workspace) -> None:
    """Choose models, benchmarks and options; see what is there; run what is missing."""
    snapshot = load_snapshot(workspace)
    options = model_options(snapshot)
    if not options:
        _no_model()
        return
    known = benchmark_options(snapshot)
    model_codec, benchmark_codec = chosen_of(default_models(snapshot, options)), chosen_of(known[:6])
    models, benchmarks = address.read("eval_model", model_codec), address.read("eval_benchmark", benchmark_codec)
    address.name_at_once(eval_model=models, eval_benchmark=benchmarks)
    left, right = st.columns(2, gap="medium")
    left.multiselect(
        "Models", list(dict.fromkeys([*options, *models])), accept_new_options=True, format_func=one_line,
        placeholder="choose, or type the folder of a model", **bound("eval_model", model_codec),
    )  # fmt: skip
    right.multiselect(
        "Benchmarks", list(dict.fromkeys([*known, *benchmarks])), accept_new_options=True, format_func=one_line,
        placeholder="choose, or type a file (or NAME=FILE)", **bound("eval_benchmark", benchmark_codec),
    )  # fmt: skip
    if not benchmarks:
        _no_benchmark()
    sampling = ConfigForm(
        config=GenerateConfig, prefix="gen", base={}, fixed={"benchmark": tuple(benchmarks) or ("none",)}
    )
    rules = ConfigForm(config=GradeConfig, prefix="grade", base={}, fixed={})
    asked, graded_by = sampling.values(), rules.values()
    with st.container(border=True, key="eval_options"):
        if snapshot.artifacts["evals"]:
            _as_before(sampling, snapshot.artifacts["evals"][0])
        sampling.draw(asked, first=FIRST)
        rules.draw(graded_by)
    if asked.config is None or graded_by.config is None:
        st.html(widgets.note("The matrix follows once the options above are valid."))
        return
    config, grading = cast(GenerateConfig, asked.config), cast(GradeConfig, graded_by.config)
    found = look_up(workspace, snapshot, models, benchmarks, config.limit)
    for name, why in found.problems.items():
        st.html(widgets.problem(f"{one_line(name, 100)} is left out.", why))
    if found.models and found.benchmarks:
        _matrix_and_actions(workspace, snapshot, config, grading, found)


def _as_before(form: ConfigForm, newest: Artifact) -> None:
    """A button that takes over the options of the newest generations: what was sampled alike is compared fairly."""
    before = sampling_of(newest)
    params = form_params(form, before)
    if any(st.query_params.get_all(name) != (texts or []) for name, texts in params.items()):
        st.button(
            "Sample as the newest results were", icon=":material/history:", type="tertiary", key="as_before",
            on_click=reported(form.put), args=(before,),
            help=f"Options of {formats.plain_markdown(newest.id)}; results are compared fairly when sampled alike",
        )  # fmt: skip


def _matrix_and_actions(
    workspace: Workspace, snapshot: Snapshot, config: GenerateConfig, grading: GradeConfig, found: Found
) -> None:
    # By source, which is the same in whatever folder the job runs.
    config = config.model_copy(update={"benchmark": tuple(b.source for b in found.benchmarks.values())})
    names = {id(model): model.artifact.id if model.artifact else str(model.path) for model in found.models.values()}

    def look() -> eval_matrix.Matrix:
        cells = [
            [matrix_cell(config, grading, workspace, model, benchmark) for benchmark in found.benchmarks.values()]
            for model in found.models.values()
        ]
        return eval_matrix.matrix_of(cells, names, config, grading, list_jobs(workspace.root), workspace)

    matrix, began = look(), signature(workspace)

    @st.fragment(run_every=_FOLLOW_S if matrix.is_live else None)
    @guarded
    def table() -> None:
        now = look() if matrix.is_live else matrix
        if matrix.is_live and (now.is_live != matrix.is_live or signature(workspace) != began):
            st.rerun()
        opened = results_table(
            eval_matrix.columns_of(now), eval_matrix.rows_of(now), key="run_matrix", legend=eval_matrix.LEGEND,
            caption=f"{len(now.cells)} models × {len(now.cells[0])} benchmarks: what is there and what is missing",
            shared=address.shared_params(),
        )  # fmt: skip
        if opened is not None and opened.link is not None:
            address.put(**opened.link)
            st.rerun()

    st.subheader("What is there, and what is missing", anchor=False)
    table()
    for job in matrix.jobs:
        if job.spec is not None:
            job_panel(workspace, job.spec.command)
    _generate(workspace, snapshot, config, grading, matrix)
    _grade(workspace, grading, matrix)


def _generate(
    workspace: Workspace, snapshot: Snapshot, config: GenerateConfig, grading: GradeConfig, matrix: eval_matrix.Matrix
) -> None:
    """The command for the cells that are missing and that no job is at, with what it costs."""
    part = matrix.missing
    if not part.models:
        if not matrix.jobs and not matrix.to_grade:
            st.html(widgets.note("Every cell is done with these options; nothing is left to run."))
            st.button(
                "See the results", icon=":material/leaderboard:", on_click=address.put, kwargs={"view": None},
                key="see_results",
            )  # fmt: skip
        return
    st.subheader("Sample and grade what is missing", anchor=False)
    names = {cell.model.name for cell in part.cells}
    speed = measured_speed(snapshot.artifacts["evals"], config.backend, names)
    st.html(eval_matrix.cost_html(part, config, speed))
    st.caption(f"{_HINTS[config.backend]}. Resumes where it was stopped; each benchmark is graded once it is sampled.")
    command = generate_command(
        config.model_copy(update={"benchmark": part.benchmarks}), part.models, workspace, grading=grading
    )
    launch_panel(
        workspace, command, "Run what is missing", key="eval_generate", disabled_because=_refusal(config, part)
    )


def _refusal(config: GenerateConfig, part: eval_matrix.Missing) -> str:
    """Why what is missing cannot be run here."""
    if config.backend == "endpoint" and len(part.models) > 1:
        return "An endpoint serves one model at a time: choose the one that it serves."
    # Whose device it is, is for the job to find: asking torch would load it here. Nor does a page run another
    # interpreter because its address names one.
    if config.backend != "transformers" and config.server_python is None:
        try:
            check_backend(config)
        except LarkError as error:
            return str(error)
    return ""


def _grade(workspace: Workspace, grading: GradeConfig, matrix: eval_matrix.Matrix) -> None:
    """The command for the cells that are sampled and not graded so."""
    if not matrix.to_grade:
        return
    number = len(matrix.to_grade)
    st.subheader("Grade what is sampled", anchor=False)
    st.caption(
        f"{number} cell{' is' if number == 1 else 's are'} sampled with these options and not graded by these rules. "
        "Grading needs no model and changes only grades."
    )
    command = grade_command(grading, [c.generations for c in matrix.to_grade if c.generations], workspace)
    launch_panel(workspace, command, "Grade", key="eval_grade", icon=":material/grading:", is_primary=False)


def nothing_graded(workspace: Workspace) -> None:
    """In place of results: what to do for some."""
    snapshot = load_snapshot(workspace)
    if not model_options(snapshot):
        _no_model()
        return
    with st.container(border=True, key="empty_state"):
        st.subheader("Nothing is graded yet", anchor=False)
        st.html(
            widgets.note("Choose models and benchmarks, sample answers and grade them. This page follows by itself.")
        )
        st.button(
            "Choose what to run", icon=":material/play_arrow:", type="primary", on_click=address.put,
            kwargs={"view": "run"}, key="to_run",
        )  # fmt: skip
        ungraded = snapshot.artifacts["evals"]
        command = (
            f"lark grade --eval-dir {shlex.quote(str(ungraded[0].path))}" if ungraded
            else f"lark generate --model-path {shlex.quote(model_options(snapshot)[0])} --benchmark FILE.json --grade"
        )  # fmt: skip
        st.code(shell_command(command), language=None, wrap_lines=True)


def _no_model() -> None:
    with st.container(border=True, key="empty_state"):
        st.subheader("No model to evaluate yet", anchor=False)
        st.html(
            widgets.note(
                "Train a checkpoint, or evaluate a student as it is: name its folder once on the command line."
            )
        )
        st.code(
            shell_command("lark generate --model-path STUDENT --benchmark FILE.json --grade"), language=None,
            wrap_lines=True,
        )  # fmt: skip
        page_link("train", "Train", icon=":material/model_training:")


def _no_benchmark() -> None:
    with st.container(border=True, key="no_benchmark"):
        st.html(
            widgets.note(
                "No benchmark is chosen. Type the path of a JSON or JSONL file with {prompt, answer} rows above, or "
                "fetch a known one:"
            )
        )
        st.code(shell_command("lark benchmarks fetch MATH-500"), language=None, wrap_lines=True)
