"""`lark`: every stage as a command, the whole run, the demo and the dashboard. The only module that prints.

Flags may be written with dashes or underscores, so that the released code's command lines work.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lark_engine import __version__
from lark_engine.config import GenerateConfig, GradeConfig, PoolConfig, ScoreConfig, SelectConfig, TrainConfig
from lark_engine.errors import ConfigError, LarkError
from lark_engine.options import with_options
from lark_engine.store.workspace import Artifact, Workspace

log = logging.getLogger(__name__)

INTERRUPTED = 130


class _Guarded(TyperGroup):
    """Turns errors for the user into one sentence and exit code 2, and Ctrl-C into exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LarkError as error:
            typer.secho(f"lark: {error}", err=True, fg="red")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.secho("lark: interrupted; run the same command again, it resumes", err=True, fg="yellow")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Guarded, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
    help="Score candidate trajectories by how learnable they are, select, train, evaluate.",
)  # fmt: skip
pool_app = typer.Typer(no_args_is_help=True, help="Import a pool of candidate trajectories, or look at one.")
train_app = typer.Typer(no_args_is_help=True, help="Fine-tune the student on a selection, honoring its weights.")
app.add_typer(pool_app, name="pool")
app.add_typer(train_app, name="train")

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", envvar="LARK_HOME", help="folder of all artifacts", show_default="./cache")
]
OutputFile = Annotated[Path | None, typer.Option("--output", help="also write the released format here")]
OutputDir = Annotated[Path | None, typer.Option("--output-dir", help="also put the result here")]
_CACHE = Path("cache")
_LORA_FIELDS = tuple(name for name in TrainConfig.model_fields if name.startswith("lora_"))


def main() -> None:
    """Entry point of the console script."""
    # Libraries' own bars and advice would bury ours; both are read when they are first imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lark_engine").setLevel(logging.INFO)
    # It warns of a missing GPU on every machine without one, also when nobody asked for DeepSpeed.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lark {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="show it")] = False,
) -> None:
    pass


@pool_app.command("import")
@with_options(PoolConfig, leave_out=("source",))
def pool_import(
    values: dict[str, Any], source: Annotated[str, typer.Argument(help="file, folder or Hugging Face dataset id")],
    workspace: WorkspaceOption = _CACHE,
) -> None:  # fmt: skip
    """Import a pool; every bad line is listed, and the import refused unless --skip-bad."""
    from lark_engine.pool.importer import import_pool

    _done(import_pool(PoolConfig.parse({"source": source, **values}, "lark pool import"), Workspace(workspace)))


@pool_app.command("show")
def pool_show(
    pool: Annotated[str | None, typer.Argument(help="pool by id or name; all when left out")] = None,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Show the pools of the workspace, or one in numbers."""
    store = Workspace(workspace)
    pools = [store.resolve("pools", pool)] if pool else store.list("pools")
    if not pools:
        typer.echo(f"no pool in {store.root} yet; import one with: lark pool import FILE")
    for artifact in pools:
        _done(artifact)


@app.command("score")
@with_options(ScoreConfig, aliases={"student": ("--student-model", "--model-path")})
def score_command(
    values: dict[str, Any],
    input: Annotated[str, typer.Option("--input", "--pool", help="pool: id, or a file to import first")],
    output: OutputFile = None,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Score every candidate of a pool under the student: nll, Brier, rho, g_hat, RSR, entropy."""
    from lark_engine.scoring.score import released_scores, score
    from lark_engine.store.atomic import write_json

    store = Workspace(workspace)
    config = ScoreConfig.parse(values, "lark score")
    scores = score(config, store, _pool(input, store))
    if output:
        write_json(output, released_scores(scores))
        typer.echo(f"wrote {output}")
    _done(scores)


@app.command("select")
@with_options(SelectConfig, aliases={"budget": ("--B",), "sharpness": ("--s",)})
def select_command(
    values: dict[str, Any],
    scores: Annotated[str, typer.Option("--scores", help="scores: id, or a released score file (.json)")],
    pool: Annotated[str | None, typer.Option("--pool", help="pool of a released score file: id or file")] = None,
    output: OutputFile = None,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Select a weighted training set from scores, by the chi2 rule or another."""
    from lark_engine.selection.select import TRAIN, select

    store = Workspace(workspace)
    config = SelectConfig.parse(values, "lark select")
    score_artifact, pool_artifact = _scores_and_pool(scores, pool, store)
    selection = select(config, store, score_artifact, pool_artifact)
    if output:
        _copy(selection.path / TRAIN, output)
        _copy(selection.path / "manifest.json", output.with_name(output.stem + ".manifest.json"))
    _done(selection)


@train_app.command("full")
@with_options(TrainConfig, leave_out=("method", "recipe", *_LORA_FIELDS), aliases={"student": ("--model-path",)})
def train_full(
    values: dict[str, Any],
    train_data: Annotated[str, typer.Option("--train-data", help="selection id, or a train.jsonl")],
    recipe: Annotated[str, typer.Option("--recipe", "--sft-config", help="recipe by name, or a YAML")] = "full_5000",
    grad_accum: Annotated[int | None, typer.Option(help="accumulation steps; sets global_batch")] = None,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Train all parameters."""
    _train({"method": "full", **values}, train_data, recipe, grad_accum, output_dir, Workspace(workspace))


@train_app.command("lora")
@with_options(TrainConfig, leave_out=("method", "recipe"), aliases={"student": ("--model-path",)})
def train_lora(
    values: dict[str, Any],
    train_data: Annotated[str, typer.Option("--train-data", help="selection id, or a train.jsonl")],
    recipe: Annotated[str, typer.Option("--recipe", "--sft-config", help="recipe by name, or a YAML")] = "lora",
    lora_config: Annotated[Path | None, typer.Option(help="YAML or JSON with r, lora_alpha, …, as released")] = None,
    grad_accum: Annotated[int | None, typer.Option(help="accumulation steps; sets global_batch")] = None,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Train a LoRA adapter."""
    from lark_engine.recipes import lora_values

    adapter = lora_values(lora_config) if lora_config else {}
    merged = {"method": "lora", **adapter, **values}
    _train(merged, train_data, recipe, grad_accum, output_dir, Workspace(workspace))


@app.command("generate")
@with_options(GenerateConfig, leave_out=("benchmark",))
def generate_command(
    values: dict[str, Any],
    benchmark: Annotated[list[str], typer.Option("--benchmark", help="JSON file, NAME=FILE, or a name with its path")],
    model_path: Annotated[list[str] | None, typer.Option("--model-path", "--model", help="checkpoint or model")] = None,
    benchmark_path: Annotated[Path | None, typer.Option(help="file of the one named benchmark")] = None,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Sample answers to benchmark problems from checkpoints or students."""
    from lark_engine.evaluation.generate import generate
    from lark_engine.models import resolve_model

    store = Workspace(workspace)
    names = [f"{benchmark[0]}={benchmark_path}"] if benchmark_path and len(benchmark) == 1 else benchmark
    if benchmark_path and len(benchmark) > 1:
        raise ConfigError("--benchmark-path goes with one --benchmark; write several as --benchmark NAME=FILE each")
    config = GenerateConfig.parse({"benchmark": names, **values}, "lark generate")
    models = [resolve_model(name, store) for name in model_path or []]
    if not models and config.backend != "endpoint":
        raise ConfigError("which model? give --model-path with a checkpoint id, a student or a folder")
    for artifact in generate(config, store, models, api_key=os.environ.get("LARK_API_KEY")):
        if output_dir:
            several = output_dir / artifact.path.parent.name if len(models) > 1 else output_dir
            _publish(artifact, several / artifact.name)
        _done(artifact)


@app.command("extract")
def extract_command(
    eval_dir: Annotated[list[str], typer.Option(help="generations: id, or a folder that `lark generate` wrote")],
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Show what would be graded: the answer extracted from every sample, and by which rule."""
    from lark_engine.evaluation.grade import extract_answers
    from lark_engine.store.atomic import write_text

    store = Workspace(workspace)
    for name in eval_dir:
        for artifact, folder in _generations(name, store):
            rows = list(extract_answers(artifact))
            target = folder / "extracted.jsonl"
            write_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            found = sum(row["prediction"] is not None for row in rows)
            typer.echo(f"{artifact.id}: {found} of {len(rows)} samples have an answer; wrote {target}")


@app.command("grade")
@with_options(GradeConfig)
def grade_command(
    values: dict[str, Any],
    eval_dir: Annotated[list[str], typer.Option(help="generations: id, or a folder that `lark generate` wrote")],
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Extract and grade answers, with intervals; needs no model and changes only grades."""
    from lark_engine.evaluation.grade import METRICS, grade

    store = Workspace(workspace)
    config = GradeConfig.parse(values, "lark grade")
    for name in eval_dir:
        for artifact, folder in _generations(name, store):
            graded = grade(config, store, artifact)
            if folder != artifact.path:
                _copy(graded.path / METRICS, folder / METRICS)
            _done(graded)


@app.command("table")
def table_command(
    eval_root: Annotated[str | None, typer.Option(help="only what `lark generate` wrote below this folder")] = None,
    output_csv: Annotated[Path | None, typer.Option(help="also write the wide table here")] = None,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """The results table with intervals, from the finished grades."""
    from lark_engine.results.table import results_table, to_markdown, wide, write_table
    from lark_engine.store.atomic import write_text

    store = Workspace(workspace)
    ids = None
    if eval_root:
        wanted = {artifact.id for artifact, _ in _generations(eval_root, store)}
        ids = [g.id for g in store.list("grades") if g.manifest.inputs["generations"].id in wanted]
    table = results_table(store, ids=ids)
    if table.empty:
        typer.echo(f"no grades in {store.root} yet; make some with: lark generate …, then lark grade …")
        return
    typer.echo(to_markdown(table))
    if output_csv:
        write_text(output_csv, wide(table).to_csv(index=False))
    if output_dir or ids is None:
        for path in write_table(table, output_dir or store.root / "tables"):
            typer.echo(f"wrote {path}")


@app.command("run")
def run_command(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe of all stages")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan with fingerprints, make nothing")] = False,
    workspace: WorkspaceOption = _CACHE,
) -> None:
    """Run all stages of a recipe; what is done already is skipped, and said."""
    from lark_engine.pipeline import plan_run, read_recipe

    store = Workspace(workspace)
    configs = read_recipe(recipe)
    if dry_run:
        for step in plan_run(configs, store):
            typer.echo(f"{step.stage:<9} {step.state:<7} {step.plan.id:<58} {step.why}")
        return
    _run(configs, store)


@app.command("demo")
def demo_command(
    workspace: WorkspaceOption = _CACHE,
    port: Annotated[int, typer.Option(help="port of the dashboard; the next free one when it is taken")] = 8501,
    dashboard: Annotated[bool, typer.Option("--dashboard/--no-dashboard", help="leave the dashboard running")] = True,
) -> None:
    """The whole pipeline on the embedded pool with a real 135M student; leaves the dashboard running."""
    from lark_engine.demo.recipe import write_demo_run
    from lark_engine.demo.student import convert_student
    from lark_engine.pipeline import read_recipe

    store = Workspace(workspace)
    started = time.monotonic()
    student = convert_student(store)
    typer.echo(f"student   {student.id:<58} {student.manifest.wall_s:7.1f} s")
    recipe = write_demo_run(store)
    typer.echo(f"recipe    {recipe}")
    _run(read_recipe(recipe), store)
    typer.echo(f"\nThe whole run took {time.monotonic() - started:.0f} s.")
    if dashboard:
        from lark_engine.serve import serve

        running = serve(store, port=port, open_in_background=True)
        typer.echo(f"The dashboard runs at {running.address} (process {running.pid}; end it with: lark serve --stop).")


@app.command("serve")
def serve_command(
    workspace: WorkspaceOption = _CACHE,
    port: Annotated[int, typer.Option(help="port; the next free one when it is taken")] = 8501,
    stop: Annotated[bool, typer.Option("--stop", help="end the dashboard that runs for this workspace")] = False,
    background: Annotated[bool, typer.Option("--background", help="return when it answers, leave it running")] = False,
) -> None:
    """Show the workspace in the browser, on this machine only."""
    from lark_engine import serve as dashboard

    store = Workspace(workspace)
    if stop:
        typer.echo("stopped" if dashboard.stop(store) else f"no dashboard runs for {store.root}")
        return
    running = dashboard.serve(store, port=port, open_in_background=background)
    typer.echo(f"The dashboard runs at {running.address} (process {running.pid}).")


def _done(artifact: Artifact) -> None:
    """Say what an artifact holds: id, counts, drops, and where it lies."""
    manifest = artifact.manifest
    counts = ", ".join(f"{name} {value:,}" for name, value in manifest.counts.items())
    drops = ", ".join(f"{reason} {count:,}" for reason, count in manifest.drops.items())
    typer.echo(f"{artifact.id}: {counts}" + (f"; left out: {drops}" if drops else ""))
    typer.echo(f"  {artifact.path}")


def _run(configs: Any, store: Workspace) -> None:
    """Run a recipe, print a line a stage, the table, and where it was written."""
    from lark_engine.pipeline import run
    from lark_engine.results.table import results_table, to_markdown, write_table

    table = run(configs, store, typer.echo)
    typer.echo("\n" + to_markdown(table))
    for path in write_table(results_table(store), store.root / "tables"):
        typer.echo(f"wrote {path}")


def _pool(name: str, store: Workspace) -> Artifact:
    """A pool of the workspace, or a file or folder that is imported first."""
    from lark_engine.pool.importer import import_pool

    path = Path(name).expanduser()
    if path.exists() and not (path / "manifest.json").exists():
        return import_pool(PoolConfig.parse({"source": name}, name), store)
    _refuse_absent_file(name)
    return store.resolve("pools", name)


def _scores_and_pool(scores: str, pool: str | None, store: Workspace) -> tuple[Artifact, Artifact]:
    from lark_engine.selection.released import find_exported, import_scores

    path = Path(scores).expanduser()
    given_pool = _pool(pool, store) if pool else None
    if path.is_file():
        known = find_exported(path, store)
        if known and (given_pool is None or given_pool.ref == known.manifest.inputs["pool"]):
            return known, given_pool or store.resolve("pools", known.manifest.inputs["pool"].id)
        if given_pool is None:
            raise ConfigError(f"{scores} holds scores but no texts; say which pool they are of with --pool POOL")
        return import_scores(path, store, given_pool), given_pool
    _refuse_absent_file(scores)
    artifact = store.resolve("scores", scores)
    return artifact, given_pool or store.resolve("pools", artifact.manifest.inputs["pool"].id)


def _refuse_absent_file(name: str) -> None:
    """What looks like a file is not looked up as an artifact: the user would be told of the wrong thing."""
    if Path(name).suffix in {".json", ".jsonl", ".gz", ".zst", ".parquet"} and not Path(name).expanduser().exists():
        raise ConfigError(f"{name}: no such file")


def _train(
    values: dict[str, Any], data: str, recipe: str, grad_accum: int | None, output_dir: Path | None, store: Workspace
) -> None:
    from lark_engine.models import model_of_checkpoint
    from lark_engine.recipes import train_recipe
    from lark_engine.training.train import train, train_data

    merged = {**train_recipe(recipe), **values}
    world_size = int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ else None
    if world_size:
        merged["nproc_per_node"] = world_size
    if merged.get("deepspeed") == "none":
        merged["deepspeed"] = None
    processes = merged.get("nproc_per_node", 1)
    grad_accum = grad_accum or merged.pop("grad_accum", None)
    if grad_accum is not None:
        if "global_batch" in values:
            raise ConfigError("--grad-accum and --global-batch say the same thing; give one of them")
        merged["global_batch"] = grad_accum * processes * merged.get("batch_size", 1)
    config = TrainConfig.parse(merged, f"lark train {values['method']}")
    log.info(
        "recipe %s; global batch %d = %d process(es) × %d × %d accumulation steps", config.recipe, config.global_batch,
        processes, config.batch_size, config.grad_accum,
    )  # fmt: skip
    rank = int(os.environ["RANK"]) if world_size else None
    checkpoint = train(config, store, train_data(data, store), rank=rank)
    if checkpoint is None:
        return
    if output_dir:
        shutil.copytree(model_of_checkpoint(checkpoint, store).path, output_dir, dirs_exist_ok=True)
        typer.echo(f"wrote {output_dir}")
    _done(checkpoint)


_POINTER = "lark_artifact.json"


def _publish(artifact: Artifact, folder: Path) -> None:
    """Copy generations to where the user wants them, with the id by which later commands find the artifact."""
    from lark_engine.store.atomic import write_json

    for name in ("generations.jsonl", "problems.jsonl"):
        _copy(artifact.path / name, folder / name)
    write_json(folder / _POINTER, {"id": artifact.id, "path": str(artifact.path)})


def _generations(name: str, store: Workspace) -> list[tuple[Artifact, Path]]:
    """Generations that a user means, each with the folder that results are also written to."""
    folder = Path(name).expanduser()
    pointers = sorted(folder.rglob(_POINTER)) if folder.is_dir() else []
    if pointers:
        found = [(json.loads(pointer.read_text()), pointer.parent) for pointer in pointers]
        return [(store.resolve("evals", str(values.get("path"))), place) for values, place in found]
    if folder.is_dir() and not (folder / "manifest.json").exists():
        inside = [a for a in store.list("evals") if folder.absolute() in a.path.parents]
        if not inside:
            raise ConfigError(f"{folder}: no finished generations in or below this folder")
        return [(a, a.path) for a in inside]
    artifact = store.resolve("evals", name)
    return [(artifact, artifact.path)]


def _copy(source: Path, target: Path) -> None:
    from lark_engine.store.atomic import replacing

    with replacing(target) as partial:
        shutil.copyfile(source, partial)
    typer.echo(f"wrote {target}")


if __name__ == "__main__":
    main()
