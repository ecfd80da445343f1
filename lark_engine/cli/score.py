"""`lark score`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lark_engine.cli.common import (
    CACHE,
    OutputFile,
    WorkspaceOption,
    command_group,
    done,
    open_pool,
    required,
    runs_subcommand,
)
from lark_engine.config import ScoreConfig
from lark_engine.options import with_options
from lark_engine.store.workspace import Workspace

app = command_group()


@app.callback()
@with_options(ScoreConfig, aliases={"student": ("--student-model", "--model-path")})
def score_command(
    ctx: typer.Context,
    values: dict[str, Any],
    input: Annotated[
        str | None, typer.Option("--input", "--pool", help="pool: id, or a file to import first (required)")
    ] = None,
    output: OutputFile = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Score every candidate of a pool under the student: nll, Brier, rho, g_hat, RSR, entropy."""
    if runs_subcommand(ctx):
        return
    input = required(ctx, "input", input)
    from lark_engine.scoring.score import released_scores, score
    from lark_engine.store.atomic import write_json

    store = Workspace(workspace)
    config = ScoreConfig.parse(values, "lark score")
    scores = score(config, store, open_pool(input, store))
    if output:
        write_json(output, released_scores(scores))
        typer.echo(f"wrote {output}")
    done(scores)
