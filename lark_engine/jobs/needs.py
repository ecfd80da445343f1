"""What a command waits for: how many devices of which kind, read from its words as the command line reads them.

Nothing is checked here: what is wrong with a command, the command itself says when it runs. What cannot be read counts
as not given, and an unknown command needs one device: too much waits, too little would share a device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lark_engine.errors import LarkError


@dataclass(frozen=True)
class Needs:
    """Devices that a command must hold while it runs. Kind `none`: it never waits; `cpu`: one slot."""

    kind: Literal["cuda", "cpu", "none"]
    count: int


NOTHING = Needs("none", 0)
_CPU_SLOT = Needs("cpu", 1)
_BY_SIZE = ("none", "cpu", "cuda")

# The options that decide, with the flags that they are given by; a recipe's keys have the same names.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "device": ("device",),
    "executor": ("executor",),
    "ray_address": ("ray-address",),
    "num_workers": ("num-workers",),
    "nproc_per_node": ("nproc-per-node",),
    "backend": ("backend",),
    "replicas": ("replicas",),
    "tensor_parallel_size": ("tensor-parallel-size",),
    "recipe": ("recipe", "sft-config"),
}
_YAML = {".yaml", ".yml"}


class _Asked(NamedTuple):
    """A stage to be run. `values`: its options, from the command or a recipe. `folder`: where relative paths begin."""

    command: Sequence[str]
    values: Mapping[str, Any]
    num_gpus: int
    folder: Path


def needs_of(
    command: Sequence[str], *, num_gpus: int, environment: Mapping[str, str] = {}, cwd: Path = Path()
) -> Needs:
    """The devices that `lark …` needs on a machine with `num_gpus`; more than there are is returned as it is.

    `environment`: variables that the command will run with; where CUDA_VISIBLE_DEVICES hides every GPU, there are none.
    `cwd`: the folder that it will run in, for the recipes that it names. A recipe that cannot be read is left out.
    """
    values = {name: value for name, flags in _OPTIONS.items() if (value := option(command, *flags)) is not None}
    asked = _Asked(command, values, 0 if _hides_all(environment) else num_gpus, cwd)
    words = tuple(command[1:3])
    return (RULES.get(words) or RULES.get(words[:1]) or _one_device)(asked)


def option(command: Sequence[str], *names: str) -> str | None:
    """The value of an option in an argument list, under any of its names: `option(command, "pack-length")`.

    Read as the command line reads it: `--a-b 1`, `--a_b 1` or `--a-b=1`; the last one wins; `--` ends the options. None
    when it is not given. A word that looks like the option is taken for it, also behind an option that takes a value.
    """
    wanted = {_dashed(name) for name in names}
    words = _before_the_arguments(command)
    found = None
    for word, following in itertools.zip_longest(words, words[1:]):
        flag_name, equals, value = word.partition("=")
        if _option_name(flag_name) in wanted:
            found = value if equals else following
    return found


def flag(command: Sequence[str], name: str) -> bool | None:
    """Whether a yes-or-no option is given: `--name` True, `--no-name` False, neither None. The last one wins."""
    meanings = {_dashed(name): True, f"no-{_dashed(name)}": False}
    found = None
    for word in _before_the_arguments(command):
        found = meanings.get(_option_name(word), found)
    return found


def _score(asked: _Asked) -> Needs:
    if asked.values.get("executor") != "ray":
        return _one_device(asked)
    if asked.values.get("ray_address"):
        return NOTHING  # the devices of a cluster are Ray's to give
    return _devices(asked, _number(asked, "num_workers", 0) or asked.num_gpus)


def _train(asked: _Asked) -> Needs:
    """As many devices of this machine as it has processes; other machines of a run have a command of their own."""
    asked = asked._replace(values={**_train_recipe(asked), **asked.values})
    return _devices(asked, _number(asked, "nproc_per_node", 1))


def _generate(asked: _Asked) -> Needs:
    backend = asked.values.get("backend")
    if backend == "endpoint":
        return NOTHING
    if backend == "transformers":
        return _one_device(asked)
    size = max(_number(asked, "tensor_parallel_size", 1), 1)
    replicas = _number(asked, "replicas", 1) or max(asked.num_gpus // size, 1)
    return _devices(asked, replicas * size)


def _run(asked: _Asked) -> Needs:
    """The largest need of the recipe's stages: all of them run under one lease."""
    if flag(asked.command, "dry-run"):
        return NOTHING
    path = asked.folder / _recipe_argument(asked.command)
    recipe = _read(lambda: _load_yaml(path))
    needs = []
    for stage, rule in (("score", _score), ("train", _train), ("generate", _generate)):
        section = recipe.get(stage)
        values = section if isinstance(section, dict) else {}
        needs.append(rule(asked._replace(values=values, folder=path.parent)))
    return max(needs, key=lambda need: (_BY_SIZE.index(need.kind), need.count))


def _one_device(asked: _Asked) -> Needs:
    return _devices(asked, 1)


def _nothing(asked: _Asked) -> Needs:
    return NOTHING


# By the first words of a command; two words go before one. Without a device, but not without work: `grade` and
# `pool import` check answers in many processes, and `train merge` holds a whole model in the memory of the machine.
RULES: dict[tuple[str, ...], Callable[[_Asked], Needs]] = {
    ("pool",): _nothing,
    ("score",): _score,
    ("score", "tokens"): _one_device,
    ("select",): _nothing,
    ("train",): _train,
    ("train", "merge"): _nothing,
    ("sweep",): _train,
    ("benchmarks",): _nothing,
    ("generate",): _generate,
    ("extract",): _nothing,
    ("grade",): _nothing,
    ("dispute",): _nothing,
    ("table",): _nothing,
    ("compare",): _nothing,
    ("lineage",): _nothing,
    ("run",): _run,
    ("demo",): _one_device,
    ("jobs",): _nothing,
    ("serve",): _nothing,
    ("bundle",): _nothing,
    ("report",): _nothing,
    ("views",): _nothing,
    ("access",): _nothing,
    ("clean",): _nothing,
    ("doctor",): _nothing,
}


def _devices(asked: _Asked, count: int) -> Needs:
    """`count` GPUs, or a CPU slot, as the option `device` says; auto is CUDA where there is a GPU.

    `cuda` stays a need for GPUs on a machine without any: it is to be refused, not run on the CPU.
    """
    device = asked.values.get("device")
    on_cuda = device == "cuda" or (device != "cpu" and asked.num_gpus > 0)
    return Needs("cuda", max(count, 1)) if on_cuda else _CPU_SLOT


def _number(asked: _Asked, name: str, default: int) -> int:
    try:
        return int(asked.values.get(name, default))
    except (TypeError, ValueError, OverflowError):
        return default


def _hides_all(environment: Mapping[str, str]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES begins with an entry that is no device, after which CUDA sees none."""
    first = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return not first.isdecimal() and not first.startswith(("GPU-", "MIG-"))


def _train_recipe(asked: _Asked) -> dict[str, Any]:
    """The values of the training recipe that is named. A default one is not read: shipped recipes know no machine."""
    name = asked.values.get("recipe")
    if name is None or {"device", "nproc_per_node"} <= asked.values.keys():
        return {}
    return _read(lambda: _load_train_recipe(str(name), asked.folder))


def _load_train_recipe(name: str, folder: Path) -> dict[str, Any]:
    # Imported here, as is all that reads recipes: it brings pandas and pydantic into a process that needs neither.
    from lark_engine.recipes import train_recipe

    path = Path(name).expanduser()
    own = str(folder / path) if path.suffix in _YAML else name
    return train_recipe(own, trust_remote_code=True)  # of which nothing is run here


def _load_yaml(path: Path) -> dict[str, Any]:
    from lark_engine.recipes.reading import load_yaml

    return load_yaml(path)


def _read(load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A recipe's values; none where it cannot be read, whatever is wrong with the path or with the YAML's own types."""
    try:
        return load()
    except (LarkError, OSError, ValueError, TypeError, RuntimeError):
        return {}


def _recipe_argument(command: Sequence[str]) -> str:
    """The first word after `lark run` that is neither an option nor the value of one."""
    words = iter(command[2:])
    for word in words:
        if word == "--":
            continue
        if not word.startswith("--"):
            return word
        if "=" not in word and _option_name(word) != "dry-run":
            next(words, None)
    return ""


def _before_the_arguments(command: Sequence[str]) -> list[str]:
    return list(itertools.takewhile(lambda word: word != "--", command))


def _option_name(word: str) -> str:
    """`a-b` of `--a_b`; empty for a word that is no option."""
    return _dashed(word[2:]) if word.startswith("--") else ""


def _dashed(name: str) -> str:
    return name.replace("_", "-")
