"""The command that makes an artifact again, from its manifest: an argument list that anyone may run as it is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
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
from lark_engine.recipes.batches import with_global_batch
from lark_engine.store.atomic import user_path
from lark_engine.store.workspace import Artifact, Kind, Workspace

# What the run's place decides and not its result: repeated elsewhere, it may be another.
OF_THE_PLACE = frozenset({"device", "nproc_per_node", "nnodes", "node_rank", "rdzv_endpoint", "stop_after_checkpoint"})
# What a batch of accumulation steps is made of.
_BATCH_OF = ("nproc_per_node", "nnodes", "batch_size")


def command_of(artifact: Artifact, workspace: Workspace) -> list[str] | None:
    """The command whose result is this very artifact, where it is done already; None for a kind without one.

    Options are those that differ from the defaults; inputs are named by id. A chat template is given by the text that
    the manifest keeps, for which a file must be written first: `<TEMPLATE>` stands for it.
    """
    make = _COMMANDS.get(artifact.kind)
    words = make(artifact) if make else None
    return ["lark", *words, "--workspace", str(workspace.root)] if words else None


def import_command(config: PoolConfig, workspace: Workspace) -> list[str]:
    """The command that imports a pool with these options, from whichever folder it is run. Errors: `ConfigError`."""
    path = user_path(config.source)
    source = str(path.absolute()) if path.exists() else config.source
    options = option_words(PoolConfig, dict(config), leave_out=("source",))
    return ["lark", "pool", "import", source, *options, "--workspace", str(workspace.root)]


def score_command(config: ScoreConfig, students: Sequence[str], pool: Artifact, workspace: Workspace) -> list[str]:
    """The command that scores a pool under these students one by one; the config's own student is not asked."""
    which = [word for name in students for word in ("--student", name)]
    options = option_words(ScoreConfig, dict(config), leave_out=("student",))
    return ["lark", "score", "--input", pool.id, *which, *options, "--workspace", str(workspace.root)]


def select_command(config: SelectConfig, scores: Artifact, pool: Artifact, workspace: Workspace) -> list[str]:
    """The command that makes a selection with these options."""
    return ["lark", *_select_words(scores.id, pool.id, config.identity()), "--workspace", str(workspace.root)]


def generate_command(
    config: GenerateConfig, models: Sequence[str], workspace: Workspace, *, grading: GradeConfig | None = None
) -> list[str]:
    """The command that samples the benchmarks of the config from these models, and with `grading` grades them too."""
    which = [word for name in models for word in ("--model-path", name)]
    which += [word for name in config.benchmark for word in ("--benchmark", name)]
    options = option_words(GenerateConfig, dict(config), leave_out=("benchmark",))
    graded = [] if grading is None else ["--grade", *option_words(GradeConfig, dict(grading))]
    return ["lark", "generate", *which, *options, *graded, "--workspace", str(workspace.root)]


def grade_command(config: GradeConfig, generations: Sequence[Artifact], workspace: Workspace) -> list[str]:
    """The command that grades these generations; by folder, as two models of one content have one id."""
    which = [word for artifact in generations for word in ("--eval-dir", str(artifact.path))]
    return ["lark", "grade", *which, *option_words(GradeConfig, dict(config)), "--workspace", str(workspace.root)]


def table_command(benchmarks: Sequence[str], workspace: Workspace, *, by_method: bool, output_dir: str) -> list[str]:
    """The command that writes the results of these benchmarks (none: of all) in every format to a folder."""
    which = [word for name in benchmarks for word in ("--benchmark", name)]
    pooled = ["--by-method"] if by_method else []
    return ["lark", "table", *which, *pooled, "--output-dir", output_dir, "--workspace", str(workspace.root)]


def compare_command(
    a: str, b: str, workspace: Workspace, *, metric: str = "avg", options: Sequence[str] = ()
) -> list[str]:  # fmt: skip
    """The command that compares two sides; `options` come before the workspace."""
    by = [] if metric == "avg" else ["--metric", metric]
    return ["lark", "compare", a, b, *by, *options, "--workspace", str(workspace.root)]


def dispute_command(
    generations: Artifact, problem_id: str, sample_index: int, verdict: str, reason: str, author: str,
    workspace: Workspace,
) -> list[str]:  # fmt: skip
    """The command that records a person's verdict on a sample; by folder, as two models of one content have one id."""
    return [
        "lark", "dispute", f"--eval-dir={generations.path}", f"--problem={problem_id}", "--sample", str(sample_index),
        "--verdict", verdict, f"--reason={reason}", f"--author={author}", "--workspace", str(workspace.root),
    ]  # fmt: skip


def train_command(config: TrainConfig, data: str, workspace: Workspace, *, recipe: str) -> list[str]:
    """The command that trains with exactly these options on a selection (by id) or a train.jsonl.

    `recipe`: by name, or a YAML file, whose values the command leaves to it. One that sets what no option can take back
    is not named: the shipped one of the method stands in its place, with what differs from that.
    Errors: those of reading the recipe.
    """
    for name in (recipe, shipped_recipe(config.method)):
        words = _train_words(dict(config), data, name)
        if words is not None:
            return ["lark", *words, "--workspace", str(workspace.root)]
    raise AssertionError("a shipped recipe sets nothing that cannot be taken back")


def preflight_command(command: Sequence[str]) -> list[str]:
    """The command that only looks at what a command of `train_command` would train."""
    return [*command[:-2], "--preflight", "--json", *command[-2:]]


def shipped_recipe(method: str) -> str:
    """The recipe that a command of this method begins with where it names none."""
    return "lora" if method == "lora" else "full_5000"


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
    words = _train_words(
        config, _input(artifact, "selection"), shipped_recipe(str(config["method"])), leave_out=OF_THE_PLACE
    )
    assert words is not None, "a shipped recipe sets nothing that cannot be taken back"
    return words


def _train_words(
    values: Mapping[str, Any], data: str, recipe: str, leave_out: Collection[str] = ()
) -> list[str] | None:
    """The words of a training command; None where the recipe sets something that no option takes back."""
    own = train_recipe(recipe, trust_remote_code=bool(values.get("trust_remote_code")))
    devices = {name: values[name] for name in _BATCH_OF if name in values and name not in leave_out}
    # Where a recipe gives accumulation steps, the batch follows from the devices.
    batch = with_global_batch({**own, **devices}).get("global_batch")
    defaults = own if batch is None else {**own, "global_batch": batch}
    method = str(values["method"])
    hidden = {"method", "recipe", "student", *leave_out}
    if method == "full":
        hidden |= {name for name in TrainConfig.model_fields if name.startswith("lora_")}
    taken_back = [name for name in values if name not in hidden and not _is_given(values[name]) and
                  _is_given(defaults.get(name))]  # fmt: skip
    if set(taken_back) - {"deepspeed"}:
        return None
    named = [] if values["recipe"] == defaults["recipe"] else ["--name", str(values["recipe"])]
    return [
        "train", method, "--train-data", data, "--student", str(values["student"]), "--recipe", recipe, *named,
        *option_words(TrainConfig, values, defaults, leave_out=hidden),
        *(["--deepspeed", "none"] if taken_back else []),
    ]  # fmt: skip


def _is_given(value: Any) -> bool:
    return value is not None and value != [] and value != () and value != "none"


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
    return option_words(config, values, defaults, leave_out={*leave_out, *OF_THE_PLACE})


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
