"""`lark sweep`: one budget, several ways of selecting, several seeds, compared."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption, done, stage
from lark_engine.config import SweepConfig, TrainConfig
from lark_engine.errors import ConfigError
from lark_engine.options import with_options
from lark_engine.store.workspace import Workspace, read_json

app = typer.Typer()

# What the sweep itself decides of every run.
_DECIDED = (
    "recipe", "seed", "eval_data", "weighting", "stop_after_checkpoint", "nnodes", "node_rank", "rdzv_endpoint",
)  # fmt: skip


@app.command("sweep")
@stage("sweep")
@with_options(TrainConfig, leave_out=_DECIDED, aliases={"student": ("--model-path",)})
def sweep_command(
    values: dict[str, Any],
    scores: Annotated[str, typer.Option("--scores", help="scores, by id or unique name")],
    budget: Annotated[int, typer.Option("--budget", "--B", help="trajectories kept for each problem")] = 3,
    arm: Annotated[list[str] | None, typer.Option(help="chi2, uniform, random; all by default")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="one run of every arm for each; 0, 1, 2 by default")] = None,
    correct_only: Annotated[bool, typer.Option("--correct-only", help="only candidates known to be correct")] = False,
    drop_truncated: Annotated[
        bool, typer.Option("--drop-truncated", help="leave out what was cut when scored")
    ] = False,
    deduplicate: Annotated[bool, typer.Option("--deduplicate", help="one of several identical responses")] = False,
    recipe: Annotated[str, typer.Option("--recipe", help="training recipe by name, or a YAML")] = "lora",
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Train on chi2 weights, uniform weights and a random selection of one budget, and compare held-out losses."""
    from lark_engine.recipes import train_recipe
    from lark_engine.recipes.batches import with_global_batch
    from lark_engine.training.sweep import COMPARISON, sweep

    store = Workspace(workspace)
    given = {"arms": arm, "seeds": seed}
    config = SweepConfig.parse(
        {
            "budget": budget, "correct_only": correct_only, "drop_truncated": drop_truncated,
            "deduplicate": deduplicate, **{name: value for name, value in given.items() if value},
        },
        "lark sweep",
    )  # fmt: skip
    own = train_recipe(recipe, trust_remote_code=bool(values.get("trust_remote_code")))
    merged = with_global_batch({"eval_share": 0.1, **own, **values}, values)
    train_config = TrainConfig.parse(merged, "lark sweep")
    if not train_config.eval_share:
        raise ConfigError("lark sweep: runs are compared on held-out problems; give --eval-share above 0")
    score_artifact = store.resolve("scores", scores)
    pool = store.resolve("pools", score_artifact.manifest.inputs["pool"].id)
    artifact = sweep(config, train_config, store, score_artifact, pool)
    for line in comparison_lines(read_json(artifact.path / COMPARISON)):
        typer.echo(line)
    done(artifact)


def comparison_lines(arms: list[dict[str, Any]]) -> list[str]:
    """The comparison as a table in text."""
    lines = [f"{'arm':8} {'seeds':>5} {'tokens':>10}  {'held-out loss':26} difference to uniform"]
    for arm in arms:
        loss, difference = _interval(arm["loss"]), _interval(arm["difference"]) if arm["difference"] else ""
        lines.append(f"{arm['arm']:8} {arm['num_seeds']:5} {arm['tokens']:10,.0f}  {loss:26} {difference}".rstrip())
    return [*lines, "  95 % intervals: of a loss over seeds, of a difference over problems"]


def _interval(interval: dict[str, Any]) -> str:
    if interval["low"] is None:
        return f"{interval['value']:.4f}"
    return f"{interval['value']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"
