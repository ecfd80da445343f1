"""`lark train full` and `lark train lora`."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from lark_engine.cli.common import CACHE, OutputDir, WorkspaceOption, done
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError
from lark_engine.options import with_options
from lark_engine.store.workspace import Workspace

log = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, help="Fine-tune the student on a selection, honoring its weights.")

_LORA_FIELDS = tuple(name for name in TrainConfig.model_fields if name.startswith("lora_"))


@app.command("full")
@with_options(TrainConfig, leave_out=("method", "recipe", *_LORA_FIELDS), aliases={"student": ("--model-path",)})
def train_full(
    values: dict[str, Any],
    train_data: Annotated[str, typer.Option("--train-data", help="selection id, or a train.jsonl")],
    recipe: Annotated[str, typer.Option("--recipe", "--sft-config", help="recipe by name, or a YAML")] = "full_5000",
    grad_accum: Annotated[int | None, typer.Option(help="accumulation steps; sets global_batch")] = None,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Train all parameters."""
    _train({"method": "full", **values}, train_data, recipe, grad_accum, output_dir, Workspace(workspace))


@app.command("lora")
@with_options(TrainConfig, leave_out=("method", "recipe"), aliases={"student": ("--model-path",)})
def train_lora(
    values: dict[str, Any],
    train_data: Annotated[str, typer.Option("--train-data", help="selection id, or a train.jsonl")],
    recipe: Annotated[str, typer.Option("--recipe", "--sft-config", help="recipe by name, or a YAML")] = "lora",
    lora_config: Annotated[Path | None, typer.Option(help="YAML or JSON with r, lora_alpha, …, as released")] = None,
    grad_accum: Annotated[int | None, typer.Option(help="accumulation steps; sets global_batch")] = None,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Train a LoRA adapter."""
    from lark_engine.recipes import lora_values

    adapter = lora_values(lora_config) if lora_config else {}
    merged = {"method": "lora", **adapter, **values}
    _train(merged, train_data, recipe, grad_accum, output_dir, Workspace(workspace))


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
    done(checkpoint)
