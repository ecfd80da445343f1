"""What to do about a failed job, computed from the options of its command: each number in it is one to type.

The options are those that held: given flags over the recipe over the defaults. A change is proposed only if the stage's
config accepts it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lark_engine.errors import LarkError

if TYPE_CHECKING:
    from lark_engine.config import StageConfig
    from lark_engine.jobs.failures import Ending

RESUME = "run the same command again: it resumes"

# As `scoring.planner.BATCH_TOKENS` and `evaluation.backends` have them, which import heavy libraries.
SCORE_TOKENS = {"cuda": 16384, "cpu": 2048}
IN_FLIGHT = {"vllm": 512, "sglang": 512, "endpoint": 32, "transformers": 16}

# Below these, less would not help.
_FEWEST_TOKENS = 512
_ALTERNATIVES = 3
# With so much room the workspace's disk is not the one that is full.
_MUCH_ROOM = 5e9
_PROMPT_ROOM = 2048
# `models.load_model` says so when the weights alone do not fit: less work at once would not help.
_LOADING = "use a smaller model"
_STAGES = ("pool", "score", "select", "train", "sweep", "generate", "grade", "run")
_GIVEN_TWICE = {"sft_config": "recipe", "model_path": "student"}


@dataclass(frozen=True)
class Stage:
    """A stage with the options that hold in it. `recipe`: the run recipe that they stand in, where no flag gives them.

    `config` is None where the options cannot be told: an unreadable recipe, options that are refused.
    """

    name: str
    config: Any = None
    recipe: str | None = None
    fixed: tuple[str, ...] = ()

    def accepts(self, changes: dict[str, Any]) -> bool:
        """Whether all of these are options of the command, and its config holds with them."""
        fields = type(self.config).model_fields
        if any(name not in fields or name in self.fixed for name in changes):
            return False
        given = {name: getattr(self.config, name) for name in self.config.model_fields_set}
        try:
            type(self.config).parse({**given, **changes}, self.name)
        except LarkError:
            return False
        return True

    def written(self, name: str, value: Any) -> str:
        """An option as the user writes it: a flag, or a line of the recipe."""
        if self.recipe is not None:
            return f"`{name}: {str(value).lower() if isinstance(value, bool) else value}`"
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            return f"--{flag}" if value else f"--no-{flag}"
        return f"--{flag} {value}"

    def makes_anew(self, changes: dict[str, Any]) -> bool:
        """Whether the result is another one with these, so that nothing of the failed job can be resumed."""
        fields = type(self.config).model_fields
        return any((fields[name].json_schema_extra or {}).get("identity") is not False for name in changes)


@dataclass(frozen=True)
class Change:
    """Options to run with instead. `note`: what else to know."""

    options: dict[str, Any]
    note: str = ""


def computed_remedy(ending: Ending, reason: str, text: str, log: str) -> str:
    """The remedy that follows from the options of the failed command, or "" where none does.

    `text`: the sentence or line that the reason was read from.
    """
    remedy = _REMEDIES.get(reason)
    return remedy(_Case(ending, stage_of(ending.command, text), reason, text, log)) if remedy else ""


@dataclass(frozen=True)
class _Case:
    ending: Ending
    stage: Stage
    reason: str
    text: str
    log: str

    def one_of(self, changes: Iterator[Change]) -> str:
        """The first few changes that the config accepts, as one instruction; "" when it accepts none."""
        stage = self.stage
        if stage.config is None:
            return ""
        accepted = [change for change in changes if stage.accepts(change.options)][:_ALTERNATIVES]
        if not accepted:
            return ""
        said = ", or ".join(_said(stage, change) for change in accepted)
        return f"set {said} under {stage.name} in {stage.recipe}" if stage.recipe is not None else f"give {said}"


def _said(stage: Stage, change: Change) -> str:
    """A change with the values of now: `--pack-length 4096 (now 8,192)`."""
    flags = " ".join(stage.written(name, value) for name, value in change.options.items())
    now = [_shown(getattr(stage.config, name)) for name in change.options]
    notes = [f"now {' and '.join(now)}"] if all(now) and not change.note.startswith("now ") else []
    notes += [change.note] if change.note else []
    notes += ["begins anew"] if stage.makes_anew(change.options) else []
    return f"{flags} ({'; '.join(notes)})" if notes else flags


def _shown(value: Any) -> str:
    """A value of now; "" where it is a flag or is not set."""
    if value is None or isinstance(value, bool):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _memory(case: _Case) -> str:
    """Device or host memory: smaller pieces of the stage's work, or fewer at once."""
    name = case.stage.name
    changes = {"train": _train_memory, "sweep": _train_memory, "score": _score_memory, "generate": _generate_memory}
    if name in changes:
        said = case.one_of(changes[name](case))
    else:
        said = case.one_of(_fewer_workers(case)) if name in ("pool", "grade") else ""
    if case.reason == "host_memory" and case.ending.memory_bytes:
        more = f"use a machine with more memory than {case.ending.memory_bytes / 1e9:.1f} GB"
        return f"{said}, or {more}" if said else f"{more}, or run less beside it"
    return said


def _train_memory(case: _Case) -> Iterator[Change]:
    config = case.stage.config
    on_host = case.reason == "host_memory"
    # A process loads the model on the host before the device has it; DeepSpeed resumes only with as many processes.
    if on_host and config.nproc_per_node > 1 and config.deepspeed is None:
        yield Change({"nproc_per_node": config.nproc_per_node // 2})
    if _LOADING in case.text or (on_host and not _is_on_cpu(case)):
        return
    if not config.gradient_checkpointing:
        yield Change({"gradient_checkpointing": True})
    tokens = config.pack_length or config.max_length
    if config.packing and tokens >= 2 * _FEWEST_TOKENS:
        yield Change({"pack_length": tokens // 2}, f"now {tokens:,}")
    if not config.packing and config.batch_size > 1:
        # The global batch is a multiple of the old size, so it is one of any divisor.
        size = next(n for n in range(config.batch_size // 2, 0, -1) if config.batch_size % n == 0)
        yield Change({"batch_size": size})
    if not on_host:
        yield from _more_shards(config)
        if config.dtype == "float32":
            yield Change({"dtype": "bfloat16"})
    if config.max_length >= 2 * _FEWEST_TOKENS:
        yield Change({"max_length": config.max_length // 2}, "longer trajectories are cut")


def _more_shards(config: Any) -> Iterator[Change]:
    """DeepSpeed's next stage; of a LoRA run it would shard the frozen base for nothing beyond stage 2."""
    if config.num_processes > 1:
        if config.method == "full" and config.deepspeed in (None, "zero2", "zero2_bf16"):
            yield Change({"deepspeed": "zero3"}, f"now {config.deepspeed or 'none'}")
        elif config.method == "lora" and config.deepspeed is None:
            yield Change({"deepspeed": "zero2"}, "now none")
    elif config.method == "full":
        yield Change({"nproc_per_node": 2, "deepspeed": "zero3"}, "needs 2 devices")


def _score_memory(case: _Case) -> Iterator[Change]:
    config = case.stage.config
    on_host = case.reason == "host_memory"
    if config.executor == "ray" and on_host and config.num_workers > 1:
        yield Change({"num_workers": config.num_workers // 2})
    if alone := re.search(r"a trajectory of (\d{1,9}) tokens", case.text):
        # Alone in its batch: only a shorter one takes less.
        tokens = min(int(alone[1]), config.max_length) // 2
        if tokens >= 2:
            yield Change({"max_length": tokens}, f"now {config.max_length:,}; longer ones are cut")
    elif _LOADING not in case.text:
        is_on_cpu = on_host and _is_on_cpu(case)
        tokens = config.batch_tokens or SCORE_TOKENS["cpu" if is_on_cpu else "cuda"]
        if tokens >= 2 * _FEWEST_TOKENS and (is_on_cpu or not on_host or "a worker died" in case.text):
            yield Change({"batch_tokens": tokens // 2}, f"now {tokens:,}")
    if config.dtype == "float32":
        yield Change({"dtype": "bfloat16"})


def _generate_memory(case: _Case) -> Iterator[Change]:
    config = case.stage.config
    on_host = case.reason == "host_memory"
    if config.backend == "endpoint":
        return
    if on_host and config.replicas > 1:
        yield Change({"replicas": config.replicas // 2})
    if config.backend == "transformers":
        at_once = config.max_concurrency or IN_FLIGHT[config.backend]
        if at_once > 1 and _LOADING not in case.text:
            yield Change({"max_concurrency": at_once // 2}, f"now {at_once}")
    else:
        yield from _server_memory(case)
    if config.dtype == "float32":
        yield Change({"dtype": "bfloat16"})


def _server_memory(case: _Case) -> Iterator[Change]:
    """A shorter context, and the model over more devices."""
    config = case.stage.config
    fits = re.search(r"estimated maximum model length is (\d{1,9})", f"{case.text}\n{case.log}")
    # What the answers need, in the powers of two that contexts have.
    needed = 1 << (config.max_new_tokens + _PROMPT_ROOM - 1).bit_length()
    length = int(fits[1]) if fits else config.max_model_len // 2 if config.max_model_len else needed
    if length >= _FEWEST_TOKENS:
        yield Change({"max_model_len": length}, "" if config.max_model_len else "now the model's own")
    if case.reason == "device_memory" and config.device != "cpu":
        size = 2 * config.tensor_parallel_size
        if config.replicas > 1:
            yield Change({"tensor_parallel_size": size, "replicas": config.replicas // 2})
        else:
            yield Change({"tensor_parallel_size": size}, f"needs {size} devices")


def _fewer_workers(case: _Case) -> Iterator[Change]:
    workers = case.stage.config.workers or _cores()
    if workers > 1:
        yield Change({"workers": workers // 2}, f"now {workers}")


def _disk(case: _Case) -> str:
    free = case.ending.free_bytes
    needs_more = re.search(r"the disk has [\d.]+ GB left", case.text)
    if free is not None and free > _MUCH_ROOM and not needs_more and "quota" not in case.text.lower():
        return (
            f"free space on another disk (the workspace's has {free / 1e9:.1f} GB left): check /tmp (TMPDIR), the "
            f"Hugging Face cache (HF_HOME) and inodes (df -i), then {RESUME}"
        )
    left = "" if free is None else f"{free / 1e9:.1f} GB are left; "
    fewer = ""
    if case.stage.name in ("train", "sweep") and case.stage.config is not None and case.stage.config.keep > 1:
        fewer = case.one_of(iter([Change({"keep": 1})]))
    fewer = f", or {fewer}" if fewer else ""
    return f"free some space ({left}`lark clean --dry-run` shows what can go){fewer}, then {RESUME}"


def _server(case: _Case) -> str:
    if late := re.search(r"was not healthy within ([\d.]{1,12}) s", case.text):
        log = re.search(r"or read (.+)$", case.text)
        seconds = float(late[1])
        option = case.stage.written("start_timeout_s", f"{2 * seconds:g}")
        where = f" under {case.stage.name} in {case.stage.recipe}" if case.stage.recipe is not None else ""
        verb = "set" if case.stage.recipe is not None else "give"
        return f"{verb} {option} (now {seconds:g}){where}, or read {log[1] if log else 'its log'}"
    if "its whole log is" in case.text:
        return f"read that log; {RESUME}"
    return ""


def _collective(case: _Case) -> str:
    text = f"{case.text}\n{case.log}"
    config = case.stage.config
    nnodes = getattr(config, "nnodes", 1)
    if nnodes > 1 and re.search(r"waiting for clients|client socket has|Rendezvous", text):
        return (
            f"start the same command on all {nnodes} machines, each with its own --node-rank, and check that "
            f"{config.rdzv_endpoint} can be reached from all of them"
        )
    waited = re.search(r"\[Rank (\d{1,6})\] Watchdog caught[^\n]{0,200}?OpType=(\w{1,40})", text)
    who = f"rank {waited[1]} waited in {waited[2]}" if waited else "one rank waited"
    network = " and that the network between the machines works" if nnodes > 1 else ""
    return f"{RESUME}; if it happens again: {who} for the others, so check in their log that none had ended{network}"


def _numbers(case: _Case) -> str:
    config = case.stage.config
    if config is None or case.stage.name not in ("train", "sweep"):
        return ""
    return case.one_of(_gentler(config, case.text))


def _gentler(config: Any, text: str) -> Iterator[Change]:
    if "overflow in bfloat16" not in text:
        yield Change({"lr": float(f"{config.lr / 2:.2g}")})
    # zero2_bf16, and perhaps a JSON of the user's, is for bfloat16 alone.
    if config.dtype != "float32" and "not finite any more" not in text and config.deepspeed in (None, "zero2", "zero3"):
        yield Change({"dtype": "float32"})


def _missing_device(case: _Case) -> str:
    if cores := re.search(r"are more than the (\d{1,6}) cores", case.text):
        return case.one_of(iter([Change({"replicas": int(cores[1])})]))
    if devices := re.search(r"CUDA devices, and (\d{1,6}) are visible", case.text):
        return case.one_of(_fitting_servers(case, int(devices[1])))
    if there := re.search(r"Ray has ([1-9]\d{0,5}) (?:GPU|CPU)s and", case.text):
        return case.one_of(iter([Change({"num_workers": int(there[1])})]))
    return ""


def _fitting_servers(case: _Case, num_devices: int) -> Iterator[Change]:
    size = case.stage.config.tensor_parallel_size
    if num_devices >= size:
        yield Change({"replicas": num_devices // size})
    elif num_devices:
        yield Change({"tensor_parallel_size": 1 << (num_devices.bit_length() - 1), "replicas": 1})


_REMEDIES: dict[str, Callable[[_Case], str]] = {
    "device_memory": _memory, "host_memory": _memory, "disk_full": _disk, "server_start": _server,
    "collective_timeout": _collective, "numbers": _numbers, "device_missing": _missing_device,
}  # fmt: skip


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia").exists()


def _is_on_cpu(case: _Case) -> bool:
    """Whether the model ran on the CPU, so that the machine's memory held what it computed."""
    if re.search(r"on cpu|DefaultCPUAllocator", case.text):
        return True
    device = case.stage.config.device
    return bool(device == "cpu" or (device == "auto" and not _has_gpu()))


def stage_of(command: Sequence[str], text: str = "") -> Stage:
    """The stage that a command runs and its options; of `lark run` the stage that `text` speaks of."""
    place = next((i for i, word in enumerate(command) if word in _STAGES), None)
    if place is None:
        return Stage("")
    name, words = command[place], list(command[place + 1 :])
    try:
        return _of_run(words, text) if name == "run" else _of_flags(name, words)
    except (LarkError, OSError, ValueError, TypeError):  # what the command itself was refused for
        return Stage(name)


def _of_flags(name: str, words: list[str]) -> Stage:
    from lark_engine import config as configs

    models: dict[str, type[StageConfig]] = {
        "pool": configs.PoolConfig, "score": configs.ScoreConfig, "train": configs.TrainConfig,
        "sweep": configs.TrainConfig, "generate": configs.GenerateConfig, "grade": configs.GradeConfig,
    }  # fmt: skip
    model = models.get(name)
    if model is None or words[:1] in (["show"], ["merge"]):
        return Stage(name)
    given = given_options(words, model)
    fixed: tuple[str, ...] = ()
    if name == "pool":
        given.setdefault("source", "pool")
    elif name == "score":
        # Of the options `lark score tokens` has these alone; the others are those that the scores were made with.
        fixed = tuple(set(model.model_fields) - {"batch_tokens", "device"}) if words[:1] == ["tokens"] else ()
    elif name in ("train", "sweep"):
        method = {"method": words[0]} if name == "train" and words else {}
        recipe = given.pop("recipe", "full_5000" if method.get("method") == "full" else "lora")
        fixed = ("nnodes", "node_rank", "rdzv_endpoint") if name == "sweep" else ()
        given = _train_values(recipe, {**method, **given}, {"eval_share": 0.1} if name == "sweep" else {})
    if "student" in model.model_fields:
        given.setdefault("student", "student")
    return Stage(name, model.parse(given, name), fixed=fixed)


def _train_values(recipe: str, given: dict[str, Any], under: dict[str, Any] | None = None) -> dict[str, Any]:
    """Given values over the recipe's over those `under` it. What accumulation makes of the batch changes no remedy."""
    from lark_engine.recipes import train_recipe

    values = {**(under or {}), **train_recipe(recipe, trust_remote_code=True), **given}
    values.pop("grad_accum", None)
    return values


def _of_run(words: list[str], text: str) -> Stage:
    """The section of a run's recipe that an error is of; none where the text does not tell."""
    from lark_engine import config as configs
    from lark_engine.recipes.reading import load_yaml

    sections: tuple[tuple[str, str, type[StageConfig]], ...] = (
        ("train", r"^training |: training |loss|gradient", configs.TrainConfig),
        ("generate", r" server |devices, and \d+ are visible", configs.GenerateConfig),
        ("score", r"^a trajectory of|^a worker died|^Ray ", configs.ScoreConfig),
    )
    path = next((word for word in words if not word.startswith("-")), None)
    found = next(((name, model) for name, sign, model in sections if re.search(sign, text)), None)
    if path is None or found is None:
        return Stage("run")
    name, model = found
    recipe = configs.RunRecipe.parse(load_yaml(Path(path)), path)
    values = {"student": recipe.student, **getattr(recipe, name)}
    if name == "train" and "recipe" in values:
        values = _train_values(str(values["recipe"]), values)
    if name == "generate":
        values.pop("student")
        listed = values.get("benchmark")
        values["benchmark"] = [listed] if isinstance(listed, str) else listed
    values.pop("grad_accum", None)
    return Stage(name, model.parse(values, name), recipe=path)


def given_options(words: Sequence[str], model: type[StageConfig]) -> dict[str, Any]:
    """The options of a config that a command gives, as texts (the config reads numbers from them)."""
    fields = model.model_fields
    values: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            continue
        flag, equals, value = word[2:].partition("=")
        name = flag.replace("-", "_")
        name = _GIVEN_TWICE.get(name, name)
        negated = name.removeprefix("no_")
        if negated in fields and fields[negated].annotation is bool:
            values[negated] = name == negated
        elif name in fields:
            value = value if equals else next(rest, "")
            several = isinstance(fields[name].get_default(), tuple) or name == "benchmark"
            values[name] = [*values.get(name, []), value] if several else value
    return values
