"""`lark select`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lark_engine.cli.common import (
    CACHE,
    OutputFile,
    WorkspaceOption,
    command_group,
    copy_file,
    done,
    open_pool,
    refuse_absent_file,
    required,
    runs_subcommand,
)
from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.options import with_options
from lark_engine.store.workspace import Artifact, Workspace

app = command_group()


@app.callback()
@with_options(SelectConfig, aliases={"budget": ("--B",), "sharpness": ("--s",)})
def select_command(
    ctx: typer.Context,
    values: dict[str, Any],
    scores: Annotated[
        str | None, typer.Option("--scores", help="scores: id, or a released score file (.json) (required)")
    ] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="pool of a released score file: id or file")] = None,
    output: OutputFile = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Select a weighted training set from scores, by the chi2 rule or another."""
    if runs_subcommand(ctx):
        return
    scores = required(ctx, "scores", scores)
    from lark_engine.selection.select import TRAIN, select

    store = Workspace(workspace)
    config = SelectConfig.parse(values, "lark select")
    score_artifact, pool_artifact = _scores_and_pool(scores, pool, store)
    selection = select(config, store, score_artifact, pool_artifact)
    if output:
        copy_file(selection.path / TRAIN, output)
        copy_file(selection.path / "manifest.json", output.with_name(output.stem + ".manifest.json"))
    done(selection)


def _scores_and_pool(scores: str, pool: str | None, store: Workspace) -> tuple[Artifact, Artifact]:
    from lark_engine.selection.released import find_exported, import_scores

    path = Path(scores).expanduser()
    given_pool = open_pool(pool, store) if pool else None
    if path.is_file():
        known = find_exported(path, store)
        if known and (given_pool is None or given_pool.ref == known.manifest.inputs["pool"]):
            return known, given_pool or store.resolve("pools", known.manifest.inputs["pool"].id)
        if given_pool is None:
            raise ConfigError(f"{scores} holds scores but no texts; say which pool they are of with --pool POOL")
        return import_scores(path, store, given_pool), given_pool
    refuse_absent_file(scores)
    artifact = store.resolve("scores", scores)
    return artifact, given_pool or store.resolve("pools", artifact.manifest.inputs["pool"].id)
