"""`lark train full`, `lark train lora` and `lark train merge`."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lark_engine.cli.common import CACHE, OutputDir, WorkspaceOption, done, is_under_supervisor, leave_record, stage
from lark_engine.config import TrainConfig
from lark_engine.errors import StoppedEarly
from lark_engine.options import with_options
from lark_engine.printing import printable
from lark_engine.store.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from lark_engine.training.preflight_record import Preflight as PreflightResult

log = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, help="Fine-tune the student on a selection, honoring its weights.")

Preflight = Annotated[
    bool, typer.Option("--preflight", help="show and measure what training would do, and train nothing")
]
Name = Annotated[str | None, typer.Option("--name", help="name of the checkpoint; by default the recipe's")]
AsJson = Annotated[bool, typer.Option("--json", help="the preflight as JSON")]
_EXCERPT = 160
_SHOWN = 6

_LORA_FIELDS = tuple(name for name in TrainConfig.model_fields if name.startswith("lora_"))


@app.command("full")
@stage("train full", unless=("preflight", "as_json"))
@with_options(TrainConfig, leave_out=("method", "recipe", *_LORA_FIELDS), aliases={"student": ("--model-path",)})
def train_full(
    values: dict[str, Any],
    train_data: Annotated[str, typer.Option("--train-data", help="selection id, or a train.jsonl")],
    recipe: Annotated[str, typer.Option("--recipe", "--sft-config", help="recipe by name, or a YAML")] = "full_5000",
    name: Name = None,
    grad_accum: Annotated[int | None, typer.Option(help="accumulation steps; sets global_batch")] = None,
    preflight: Preflight = False,
    as_json: AsJson = False,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Train all parameters."""
    store = Workspace(workspace)
    config = _config({"method": "full", **values, **_named(name)}, recipe, grad_accum)
    if preflight or as_json:
        _preflight(config, train_data, store, as_json)
    else:
        _train(config, train_data, output_dir, store)


@app.command("lora")
@stage("train lora", unless=("preflight", "as_json"))
@with_options(TrainConfig, leave_out=("method", "recipe"), aliases={"student": ("--model-path",)})
def train_lora(
    values: dict[str, Any],
    train_data: Annotated[str, typer.Option("--train-data", help="selection id, or a train.jsonl")],
    recipe: Annotated[str, typer.Option("--recipe", "--sft-config", help="recipe by name, or a YAML")] = "lora",
    name: Name = None,
    lora_config: Annotated[Path | None, typer.Option(help="YAML or JSON with r, lora_alpha, …, as released")] = None,
    grad_accum: Annotated[int | None, typer.Option(help="accumulation steps; sets global_batch")] = None,
    preflight: Preflight = False,
    as_json: AsJson = False,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Train a LoRA adapter."""
    from lark_engine.recipes import lora_values

    store = Workspace(workspace)
    adapter = lora_values(lora_config) if lora_config else {}
    config = _config({"method": "lora", **adapter, **values, **_named(name)}, recipe, grad_accum)
    if preflight or as_json:
        _preflight(config, train_data, store, as_json)
    else:
        _train(config, train_data, output_dir, store)


@app.command("merge")
@stage("train merge")
def merge_command(
    checkpoint: Annotated[str, typer.Argument(help="LoRA checkpoint, by id or unique name")],
    output_dir: OutputDir = None,
    trust_remote_code: Annotated[bool, typer.Option(help="run Python code that comes with the base's files")] = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Merge a LoRA checkpoint into its base model: whole weights that any program loads."""
    from lark_engine.training.merge import merge

    store = Workspace(workspace)
    adapter = store.resolve("checkpoints", checkpoint)
    _hand_over(merge(adapter, store, trust_remote_code=trust_remote_code), store, output_dir)


def _named(name: str | None) -> dict[str, str]:
    return {"recipe": name} if name else {}


def _config(values: dict[str, Any], recipe: str, grad_accum: int | None) -> TrainConfig:
    """The recipe's values, those given over them, and what follows from the devices."""
    from lark_engine.recipes import train_recipe
    from lark_engine.recipes.batches import with_global_batch

    own = train_recipe(recipe, trust_remote_code=bool(values.get("trust_remote_code")))
    merged = with_global_batch({**own, **values, **_of_torchrun()}, values, grad_accum)
    config = TrainConfig.parse(merged, f"lark train {values['method']}")
    log.info(
        "recipe %s; global batch %d trajectories = %.4g on each of %d process(es)", config.recipe, config.global_batch,
        config.global_batch / config.num_processes, config.num_processes,
    )  # fmt: skip
    return config


def _preflight(config: TrainConfig, data: str, store: Workspace, as_json: bool) -> None:
    from lark_engine.training.plan import train_data
    from lark_engine.training.preflight import preflight
    from lark_engine.training.preflight_record import PREFLIGHT

    found = preflight(config, store, train_data(data, store))
    leave_record(PREFLIGHT, found.as_json())
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        return
    for line in preflight_lines(found):
        typer.echo(line)


def preflight_lines(found: PreflightResult) -> list[str]:
    """A preflight as text."""
    drops = ", ".join(f"{reason} {count:,}" for reason, count in found.drops.items()) or "none"
    lines = ["first forward pass (⟦…⟧ is read, the rest is trained on):"]
    for shown in found.first_batch[:_SHOWN]:
        lines.append(
            f"  {printable(f'{shown.label} ({shown.teacher})')}: {shown.num_prompt_tokens:,} prompt tokens of "
            f"coefficient 0, {shown.num_response_tokens:,} response tokens of {shown.coefficient:.3g}; "
            f"{shown.share:.1%} of its step"
        )
        lines.append(f"    ⟦{_excerpt(shown.prompt)}⟧{_excerpt(shown.response)}")
    if (more := len(found.first_batch) - _SHOWN) > 0:
        lines.append(f"  and {more:,} more; --json shows all of them, whole")
    return [
        *lines,
        f"checkpoint     {found.checkpoint}",
        f"data           {found.num_sequences:,} trajectories, {found.num_truncated:,} cut, dropped: {drops}; "
        f"{found.num_held_out:,} held out",
        f"template       {found.template}",
        f"batches        {found.run}",
        "weights        "
        + (
            "1 for all (--weighting uniform)"
            if found.gradient_ratio is None
            else f"a doubled train_weight makes its share of the gradient {found.gradient_ratio:.4f} times as large"
        ),
        f"parameters     {found.trainable_parameters:,} are trained",
        f"time           about {found.hours:.2f} h for {found.tokens:,} tokens in {found.steps:,} steps "
        f"({found.hours_basis})",
        f"memory         about {found.memory_gb:.2f} GB a device, {found.memory_free_gb:.2f} GB free "
        f"({found.memory_basis})",
        f"disk           at most {found.disk_gb:.2f} GB, {found.disk_free_gb:.2f} GB free",
        f"run            {found.resume}",
        *(f"PROBLEM        {problem}" for problem in found.problems),
        "ready" if not found.problems else f"{len(found.problems)} problem(s)",
    ]


def _excerpt(text: str) -> str:
    """The ends of a text in one line of printable characters."""
    shown = "".join(c if c.isprintable() else "⏎" if c == "\n" else "·" for c in text)
    return shown if len(shown) <= 2 * _EXCERPT else f"{shown[:_EXCERPT]} … {shown[-_EXCERPT:]}"


def _train(config: TrainConfig, data: str, output_dir: Path | None, store: Workspace) -> None:
    from lark_engine.training.plan import train_data
    from lark_engine.training.train import train

    rank = int(os.environ["RANK"]) if "RANK" in os.environ else None
    try:
        checkpoint = train(config, store, train_data(data, store), rank=rank)
    except StoppedEarly as stopped:
        # Another process asked for it, or one looks at the exit status: a job that stopped early has not succeeded.
        if not config.stop_after_checkpoint or is_under_supervisor():
            raise
        typer.echo(str(stopped))
        return
    if checkpoint is None:
        return
    _hand_over(checkpoint, store, output_dir)


def _hand_over(checkpoint: Artifact, store: Workspace, output_dir: Path | None) -> None:
    """Say what was made, and copy its model to where the user wants it."""
    from lark_engine.models import model_of_checkpoint

    if output_dir:
        shutil.copytree(model_of_checkpoint(checkpoint, store).path, output_dir, dirs_exist_ok=True)
        typer.echo(f"wrote {output_dir}")
    done(checkpoint)


def _of_torchrun() -> dict[str, Any]:
    """What torchrun says of the processes that it started, where it started this one."""
    if "RANK" not in os.environ:
        return {}
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    values: dict[str, Any] = {"nproc_per_node": local, "nnodes": world // local}
    if world > local:
        endpoint = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        values |= {"node_rank": int(os.environ["GROUP_RANK"]), "rdzv_endpoint": endpoint}
    return values
