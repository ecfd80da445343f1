"""`lark pool import`, `lark pool show` and `lark pool flag`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption, done, stage
from lark_engine.config import PoolConfig
from lark_engine.errors import ConfigError
from lark_engine.options import with_options
from lark_engine.people import user_name
from lark_engine.printing import one_line
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


@app.command("flag")
def pool_flag(
    pool: Annotated[str, typer.Argument(help="pool by id or name")],
    problem: Annotated[str | None, typer.Option(help="problem id; without it the flags are listed")] = None,
    candidate: Annotated[int | None, typer.Option(help="candidate id")] = None,
    reason: Annotated[str, typer.Option(help="why")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="take the flag back")] = False,
    author: Annotated[str | None, typer.Option(help="who says so; by default your user name")] = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Flag a candidate with a reason for others to see, or list the flags of a pool. A flag changes no number."""
    from lark_engine.explore.flags import CandidateKey, read_flags, set_flag

    artifact = Workspace(workspace).resolve("pools", pool)
    if problem is None:
        if candidate is not None or reason or remove:
            raise ConfigError("which candidate? give --problem and --candidate")
    elif candidate is None:
        raise ConfigError("which candidate? give --candidate")
    else:
        key = CandidateKey(problem, candidate)
        set_flag(artifact, key, flagged=not remove, author=author or user_name(), reason=reason)
    flags = read_flags(artifact)
    typer.echo(f"{artifact.id}: {len(flags)} flagged candidate(s)")
    for flag in flags.values():
        typer.echo(
            f"  {one_line(flag.problem_id)}:{flag.candidate_id} flagged by {one_line(flag.author)} "
            f"({flag.created_at[:10]}): {one_line(flag.reason)}"
        )
