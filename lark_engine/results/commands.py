"""The command that makes an artifact again, from its manifest: an argument list that anyone may run as it is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lark_engine.config import (
    GenerateConfig,
    GradeConfig,
    PoolConfig,
    ScoreConfig,
    SelectConfig,
    StageConfig,
    TrainConfig,
)
from lark_engine.printing import printable
from lark_engine.recipes import train_recipe
from lark_engine.store.workspace import Artifact, Kind, Workspace

# What the run's place decides and not its result: repeated elsewhere, it may be another.
_OF_THE_PLACE = frozenset({"device", "nproc_per_node", "nnodes", "node_rank", "rdzv_endpoint", "stop_after_checkpoint"})


def command_of(artifact: Artifact, workspace: Workspace) -> list[str] | None:
    """The command whose result is this very artifact, where it is done already; None for a kind without one.

    Options are those that differ from the defaults; inputs are named by id. A chat template is given by the text that
    the manifest keeps, for which a file must be written first: `<TEMPLATE>` stands for it.
    """
    make = _COMMANDS.get(artifact.kind)
    words = make(artifact) if make else None
    return ["lark", *words, "--workspace", str(workspace.root)] if words else None


def select_command(config: SelectConfig, scores: Artifact, pool: Artifact, workspace: Workspace) -> list[str]:
    """The command that makes a selection with these options."""
    return ["lark", *_select_words(scores.id, pool.id, config.identity()), "--workspace", str(workspace.root)]


def shell_line(command: list[str]) -> str:
    """A command as it is typed into a shell, for people: nothing of ours goes through one.

    Characters that are not printable, as in a system prompt of several lines, stand as spaces; the list has them.
    """
    return printable(shlex.join(command))


def _pool(artifact: Artifact) -> list[str]:
    config = artifact.manifest.config
    return ["pool", "import", str(config["source"]), *_options(PoolConfig, config, leave_out={"source"})]


def _scores(artifact: Artifact) -> list[str] | None:
    config = artifact.manifest.config
    if "file" in artifact.manifest.identity:  # the released code's, taken over from its file
        return None
    options = _options(ScoreConfig, config, leave_out={"student"})
    return ["score", "--input", _input(artifact, "pool"), "--student", str(config["student"]), *options]


def _selection(artifact: Artifact) -> list[str]:
    return _select_words(_input(artifact, "scores"), _input(artifact, "pool"), artifact.manifest.config)


def _select_words(scores: str, pool: str, values: Mapping[str, Any]) -> list[str]:
    return ["select", "--scores", scores, "--pool", pool, *_options(SelectConfig, values)]


def _checkpoint(artifact: Artifact) -> list[str]:
    config = artifact.manifest.config
    if adapter := artifact.manifest.inputs.get("adapter"):
        return ["train", "merge", adapter.id]
    method = str(config["method"])
    recipe = "lora" if method == "lora" else "full_5000"
    shipped = train_recipe(recipe)
    leave_out = {"method", "recipe", "student", *_OF_THE_PLACE}
    if method == "full":
        leave_out |= {name for name in TrainConfig.model_fields if name.startswith("lora_")}
    return [
        "train", method, "--train-data", _input(artifact, "selection"), "--student", str(config["student"]),
        "--recipe", recipe, "--name", str(config["recipe"]), *_options(TrainConfig, config, shipped, leave_out),
    ]  # fmt: skip


def _generations(artifact: Artifact) -> list[str]:
    manifest = artifact.manifest
    model, benchmark = manifest.identity["model"], manifest.identity["benchmark"]
    config = {**manifest.config, "limit": benchmark.get("limit")}
    checkpoint = manifest.inputs.get("model")
    name = checkpoint.id if checkpoint else str(model.get("origin") or model["name"])
    endpoint = manifest.identity.get("endpoint")
    # An endpoint's model that the user did not name has no place of its own.
    which = [] if endpoint and not checkpoint and not Path(name).exists() else ["--model-path", name]
    served = ["--endpoint", str(endpoint)] if endpoint else []
    asked = {"benchmark"} | (
        {"system_prompt"} if config.get("system_prompt") == benchmark.get("own_system_prompt") else set()
    )
    options = _options(GenerateConfig, config, leave_out=asked)
    return ["generate", *which, "--benchmark", str(benchmark.get("source")), *served, *options]


def _benchmark(artifact: Artifact) -> list[str]:
    return ["benchmarks", "fetch", artifact.name, "--revision", str(artifact.manifest.identity["revision"])]


def _grade(artifact: Artifact) -> list[str]:
    # By folder: two models of one content have generations of one id.
    return ["grade", "--eval-dir", str(artifact.path.parents[1]), *_options(GradeConfig, artifact.manifest.config)]


_COMMANDS: dict[Kind, Callable[[Artifact], list[str] | None]] = {
    "pools": _pool, "benchmarks": _benchmark, "scores": _scores, "selections": _selection,
    "checkpoints": _checkpoint, "evals": _generations, "grades": _grade,
}  # fmt: skip


def _input(artifact: Artifact, role: str) -> str:
    ref = artifact.manifest.inputs.get(role)
    return ref.id if ref else f"<{role.upper()}>"


def _options(
    config: type[StageConfig],
    values: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    leave_out: Collection[str] = (),
) -> list[str]:
    """The flags of those values that are not what the command would take without them, but for those of the place."""
    return option_words(config, values, defaults, leave_out={*leave_out, *_OF_THE_PLACE})


def option_words(
    config: type[StageConfig],
    values: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    leave_out: Collection[str] = (),
) -> list[str]:
    """The flags of those values that differ from `defaults`, and from the config's own where these say nothing."""
    found: list[str] = []
    for name, field in config.model_fields.items():
        if name in leave_out or name not in values:
            continue
        value = values[name]
        default = (defaults or {}).get(name, None if field.is_required() else field.get_default())
        if _plain(value) == _plain(default) or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            found.append(flag if value else f"--no-{flag[2:]}")
        elif name == "chat_template" and not isinstance(value, Path):
            found += [flag, "<TEMPLATE>"]  # the manifest keeps its text
        elif isinstance(value, list | tuple):
            for item in value:
                found += [flag, str(item)]
        else:
            found += [flag, str(value)]
    return found


def _plain(value: Any) -> Any:
    """A value as JSON would keep it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
