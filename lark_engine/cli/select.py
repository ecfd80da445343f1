"""`lark select`, and `lark select compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast, get_args

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
    stage,
)
from lark_engine.config import SelectConfig, TrainFormat
from lark_engine.errors import ConfigError
from lark_engine.options import with_options
from lark_engine.store.workspace import Artifact, Workspace

app = command_group()


@app.callback()
@stage("select")
@with_options(SelectConfig, aliases={"budget": ("--B",), "sharpness": ("--s",)})
def select_command(
    ctx: typer.Context,
    values: dict[str, Any],
    scores: Annotated[
        str | None, typer.Option("--scores", help="scores: id, or a released score file (.json) (required)")
    ] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="pool of a released score file: id or file")] = None,
    output: OutputFile = None,
    train_format: Annotated[
        str | None, typer.Option("--format", help="lines of --output: messages (default) or prompt-completion")
    ] = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Select a weighted training set from scores, by the chi2 rule or another."""
    if runs_subcommand(ctx):
        return
    scores = required(ctx, "scores", scores)
    from lark_engine.selection.export import export
    from lark_engine.selection.select import TRAIN, select

    if train_format not in (None, *get_args(TrainFormat)):
        raise ConfigError(f"--format '{train_format}': choose one of {', '.join(get_args(TrainFormat))}")
    if train_format and not output:
        raise ConfigError("--format has no effect here; it is for the file that --output names")
    store = Workspace(workspace)
    config = SelectConfig.parse(values, "lark select")
    score_artifact, pool_artifact = _scores_and_pool(scores, pool, store)
    selection = select(config, store, score_artifact, pool_artifact)
    if output:
        export(selection.path / TRAIN, output, cast(TrainFormat, train_format or "messages"))
        typer.echo(f"wrote {output}")
        copy_file(selection.path / "manifest.json", output.with_name(output.stem + ".manifest.json"))
    done(selection)
    if config.mode == "temperature":
        assert config.tau is not None
        unit = selection.manifest.metrics.get("median_tau_3")
        typer.echo(f"  tau {config.tau:g}" + (f" is {config.tau / unit:.3g} times the median tau_3" if unit else ""))


@app.command("compare")
def compare_command(
    first: Annotated[str, typer.Argument(help="selection A by id or name")],
    second: Annotated[str, typer.Argument(help="selection B by id or name")],
    as_json: Annotated[bool, typer.Option("--json", help="print all figures as JSON")] = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Compare two selections of one pool: overlap, teacher mix, tokens, and how much the weights differ."""
    from lark_engine.selection.select import compare_selections

    store = Workspace(workspace)
    a, b = (store.resolve("selections", name) for name in (first, second))
    figures = compare_selections(a, b)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    tokens, change = figures["tokens"], figures["weight_change"]
    typer.echo(f"A {a.id}\nB {b.id}")
    typer.echo(
        f"overlap {figures['overlap']:.3f}: {figures['num_both']:,} in both, {figures['num_only_a']:,} only in A, "
        f"{figures['num_only_b']:,} only in B"
    )
    if tokens is not None:
        typer.echo(f"tokens: A {tokens['a']:,}, B {tokens['b']:,}, difference {tokens['difference']:+,}")
    typer.echo(
        f"weights: {change['share_changed']:.0%} of the problems changed, by {change['mean']:.3f} on average "
        f"(90 % by less than {change['p90']:.3f}); 0 = same, 1 = nothing in common"
    )
    for name, shares in figures["teachers"].items():
        typer.echo(f"  {name:<30} share of weight A {shares['q']['a']:.3f}, B {shares['q']['b']:.3f}")


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
