"""`lark generate`, `lark extract`, `lark grade` and `lark dispute`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lark_engine.cli.common import CACHE, OutputDir, WorkspaceOption, copy_file, done, stage
from lark_engine.config import GenerateConfig, GradeConfig
from lark_engine.errors import ConfigError
from lark_engine.options import with_options
from lark_engine.people import user_name
from lark_engine.printing import one_line
from lark_engine.store.workspace import Artifact, Workspace, read_json

app = typer.Typer()

_POINTER = "lark_artifact.json"
Verdict = Literal["correct", "wrong", "as-graded"]


@app.command("generate")
@stage("generate")
@with_options(GradeConfig, into="grading")
@with_options(GenerateConfig, leave_out=("benchmark",))
def generate_command(
    values: dict[str, Any],
    grading: dict[str, Any],
    benchmark: Annotated[list[str], typer.Option("--benchmark", help="file, NAME=FILE, or the name of a fetched one")],
    model_path: Annotated[list[str] | None, typer.Option("--model-path", "--model", help="checkpoint or model")] = None,
    benchmark_path: Annotated[Path | None, typer.Option(help="file of the one named benchmark")] = None,
    with_grades: Annotated[
        bool, typer.Option("--grade/--no-grade", help="also grade, each benchmark of a model once it is sampled")
    ] = False,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Sample answers to benchmark problems from checkpoints or students; with --grade, grade them as `lark grade` does.

    What is finished is skipped, so that after an error the same command makes only what is missing.
    """
    from lark_engine.evaluation.generate import generate
    from lark_engine.evaluation.grade import METRICS, grade
    from lark_engine.models import resolve_model

    store = Workspace(workspace)
    names = [f"{benchmark[0]}={benchmark_path}"] if benchmark_path and len(benchmark) == 1 else benchmark
    if benchmark_path and len(benchmark) > 1:
        raise ConfigError("--benchmark-path goes with one --benchmark; write several as --benchmark NAME=FILE each")
    config = GenerateConfig.parse({"benchmark": names, **values}, "lark generate")
    rules = GradeConfig.parse(grading, "lark generate")
    if grading and not with_grades:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in grading)
        raise ConfigError(f"{given}: says how to grade, which is not asked for; add --grade")
    models = [resolve_model(name, store) for name in model_path or []]
    if not models and config.backend != "endpoint":
        raise ConfigError("which model? give --model-path with a checkpoint id, a student or a folder")

    def finish(artifact: Artifact) -> None:
        folder = None
        if output_dir:
            folder = (output_dir / artifact.path.parent.name if len(models) > 1 else output_dir) / artifact.name
            _publish(artifact, folder)
        done(artifact)
        if with_grades:
            graded = grade(rules, store, artifact)
            if folder:
                copy_file(graded.path / METRICS, folder / METRICS)
            done(graded)

    generate(config, store, models, api_key=os.environ.get("LARK_API_KEY"), on_finished=finish)


@app.command("extract")
@with_options(GradeConfig, leave_out=("equality", "time_limit_s", "workers"))
def extract_command(
    values: dict[str, Any],
    eval_dir: Annotated[list[str], typer.Option(help="generations: id, or a folder that `lark generate` wrote")],
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Show what would be graded: the answer extracted from every sample, and by which rule."""
    from lark_engine.evaluation.grade import extract_answers
    from lark_engine.store.atomic import write_text

    store = Workspace(workspace)
    config = GradeConfig.parse(values, "lark extract")
    for name in eval_dir:
        for artifact, folder in find_generations(name, store):
            rows = list(extract_answers(artifact, store, config))
            target = folder / "extracted.jsonl"
            write_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            found = sum(row["prediction"] is not None for row in rows)
            typer.echo(f"{artifact.id}: {found} of {len(rows)} samples have an answer; wrote {target}")


@app.command("grade")
@stage("grade")
@with_options(GradeConfig)
def grade_command(
    values: dict[str, Any],
    eval_dir: Annotated[list[str], typer.Option(help="generations: id, or a folder that `lark generate` wrote")],
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Extract and grade answers, with intervals; needs no model and changes only grades."""
    from lark_engine.evaluation.grade import METRICS, grade

    store = Workspace(workspace)
    config = GradeConfig.parse(values, "lark grade")
    for name in eval_dir:
        for artifact, folder in find_generations(name, store):
            graded = grade(config, store, artifact)
            if folder != artifact.path:
                copy_file(graded.path / METRICS, folder / METRICS)
            done(graded)


@app.command("dispute")
def dispute_command(
    eval_dir: Annotated[str, typer.Option(help="generations by id, name or folder")],
    problem: Annotated[str | None, typer.Option(help="problem id; without it the disputes are listed")] = None,
    sample: Annotated[int, typer.Option(help="index of the sample", min=0)] = 0,
    verdict: Annotated[Verdict | None, typer.Option(help="what is right; 'as-graded' takes a dispute back")] = None,
    reason: Annotated[str, typer.Option(help="why")] = "",
    author: Annotated[str | None, typer.Option(help="who says so; by default your user name")] = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Overrule a verdict: what is shown changes, what the rules said is kept."""
    from lark_engine.evaluation.disputes import SampleKey, add_dispute, read_disputes

    store = Workspace(workspace)
    generations = store.resolve("evals", eval_dir)
    if problem is None and (verdict or reason):
        raise ConfigError("which answer? give --problem, and --sample if it is not the first")
    if problem is not None:
        if verdict is None:
            raise ConfigError("what is right? give --verdict correct, wrong or as-graded")
        correct = {"correct": True, "wrong": False, "as-graded": None}[verdict]
        key = SampleKey(problem, sample)
        add_dispute(generations, key, correct=correct, author=author or user_name(), reason=reason)
    disputes = read_disputes(generations.path)
    typer.echo(f"{generations.id}: {len(disputes)} disputed verdict(s)")
    for dispute in disputes.values():
        said = "correct" if dispute.correct else "wrong"
        typer.echo(
            f"  {one_line(dispute.problem_id)}:{dispute.sample_index} {said}, says {one_line(dispute.author)} "
            f"({dispute.created_at[:10]}): {one_line(dispute.reason)}"
        )


def _publish(artifact: Artifact, folder: Path) -> None:
    """Copy generations to where the user wants them, with the id by which later commands find the artifact."""
    from lark_engine.store.atomic import write_json

    for name in ("generations.jsonl", "problems.jsonl"):
        copy_file(artifact.path / name, folder / name)
    write_json(folder / _POINTER, {"id": artifact.id, "path": str(artifact.path)})


def find_generations(name: str, store: Workspace) -> list[tuple[Artifact, Path]]:
    """Generations that a user means, each with the folder that results are also written to."""
    folder = Path(name).expanduser()
    pointers = sorted(folder.rglob(_POINTER)) if folder.is_dir() else []
    if pointers:
        found = [(read_json(pointer), pointer.parent) for pointer in pointers]
        paths = [(str(values.get("path")) if isinstance(values, dict) else "", place) for values, place in found]
        return [(store.resolve("evals", path), place) for path, place in paths]
    if folder.is_dir() and not (folder / "manifest.json").exists():
        inside = [a for a in store.list("evals") if folder.absolute() in a.path.parents]
        if not inside:
            raise ConfigError(f"{folder}: no finished generations in or below this folder")
        return [(a, a.path) for a in inside]
    artifact = store.resolve("evals", name)
    return [(artifact, artifact.path)]
