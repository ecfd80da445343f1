"""`lark pool import` and `lark pool show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption, done, stage
from lark_engine.config import PoolConfig
from lark_engine.options import with_options
from lark_engine.store.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Import a pool of candidate trajectories, or look at one.")


@app.command("import")
@stage("pool import")
@with_options(PoolConfig, leave_out=("source",))
def pool_import(
    values: dict[str, Any], source: Annotated[str, typer.Argument(help="file, folder or Hugging Face dataset id")],
    workspace: WorkspaceOption = CACHE,
) -> None:  # fmt: skip
    """Import a pool; every bad line is listed, and the import refused unless --skip-bad."""
    from lark_engine.pool.importer import import_pool

    done(import_pool(PoolConfig.parse({"source": source, **values}, "lark pool import"), Workspace(workspace)))


@app.command("show")
def pool_show(
    pool: Annotated[str | None, typer.Argument(help="pool by id or name; all when left out")] = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Show the pools of the workspace, or one in numbers."""
    store = Workspace(workspace)
    pools = [store.resolve("pools", pool)] if pool else store.list("pools")
    if not pools:
        typer.echo(f"no pool in {store.root} yet; import one with: lark pool import FILE")
    for artifact in pools:
        done(artifact)
