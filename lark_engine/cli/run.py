"""`lark run` and `lark demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption, stage
from lark_engine.store.workspace import Workspace

app = typer.Typer()


@app.command("run")
@stage("run", unless=("dry_run",))
def run_command(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe of all stages")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan with fingerprints, make nothing")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option(help="run Python code that comes with the student's files")
    ] = False,
    server_python: Annotated[Path | None, typer.Option(help="interpreter that vllm or sglang is in")] = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Run all stages of a recipe; what is done already is skipped, and said."""
    from lark_engine.pipeline import plan_run, read_recipe

    store = Workspace(workspace)
    configs = read_recipe(recipe, trust_remote_code=trust_remote_code, server_python=server_python)
    if dry_run:
        for step in plan_run(configs, store):
            typer.echo(f"{step.stage:<9} {step.state:<7} {step.plan.id:<58} {step.why}")
        return
    _run(configs, store)


@app.command("demo")
@stage("demo")
def demo_command(
    workspace: WorkspaceOption = CACHE,
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


def _run(configs: Any, store: Workspace) -> None:
    """Run a recipe, print a line a stage, the table, and where it was written."""
    from lark_engine.pipeline import run
    from lark_engine.results.export import to_markdown, write_table
    from lark_engine.results.table import results_table

    table = run(configs, store, typer.echo)
    typer.echo("\n" + to_markdown(table))
    for path in write_table(results_table(store), store.root / "tables"):
        typer.echo(f"wrote {path}")
