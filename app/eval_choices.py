"""What can be evaluated on what: the models and benchmarks that the Run view offers, and those that one types."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import streamlit as st

from app.address import Codec
from app.loaders import Snapshot, signature
from lark_engine.config import GenerateConfig
from lark_engine.errors import ConfigError, LarkError
from lark_engine.evaluation.benchmarks import Benchmark, file_of, load_benchmark
from lark_engine.evaluation.matrix import model_to_plan
from lark_engine.figures import formats
from lark_engine.models import ModelRef, base_of_adapter, find_student, resolve_model
from lark_engine.store.atomic import user_path
from lark_engine.store.workspace import Artifact, Workspace

_MOST_BY_DEFAULT = 6
# A benchmark is some thousand problems; what is larger is a pool, or a mistake, and nothing for the server's memory.
_MOST_BENCHMARK_BYTES = 100_000_000
T = TypeVar("T")


class Found(NamedTuple):
    """What the names mean, in their order, and for each that means nothing why."""

    models: dict[str, ModelRef]
    benchmarks: dict[str, Benchmark]
    problems: dict[str, str]


def chosen_of(default: Sequence[str]) -> Codec:
    """Any number of names or paths, also such as are not offered; those given where the address says nothing."""
    return Codec(
        read=lambda said: [word[:1000] for word in dict.fromkeys(said) if word],
        write=lambda value: [] if list(value or ()) == list(default) else list(map(str, value or ())) or [""],
        default=list(default),
    )


def model_options(snapshot: Snapshot) -> list[str]:
    """Checkpoints and students of the workspace by id, newest first, then folders outside that it has used."""
    own = sorted(
        (*snapshot.artifacts["checkpoints"], *snapshot.artifacts["students"]),
        key=lambda artifact: artifact.manifest.created_at, reverse=True,
    )  # fmt: skip
    names = [
        str(a.manifest.config.get("student")) for kind in ("checkpoints", "scores") for a in snapshot.artifacts[kind]
    ]
    names += [str(a.manifest.identity.get("model", {}).get("origin")) for a in snapshot.artifacts["evals"]]
    known = {word for artifact in own for word in (artifact.id, artifact.name, str(artifact.path / "model"))}
    outside = [name for name in dict.fromkeys(names) if name not in known and _is_model_folder(name)]
    return [*(artifact.id for artifact in own), *outside]


def _is_model_folder(name: str) -> bool:
    folder = Path(name)
    return folder.is_absolute() and any((folder / f).is_file() for f in ("config.json", "adapter_config.json"))


def default_models(snapshot: Snapshot, options: Sequence[str]) -> list[str]:
    """The newest checkpoints and the newest student, which they are compared with."""
    checkpoints = {artifact.id for artifact in snapshot.artifacts["checkpoints"]}
    newest = [name for name in options if name in checkpoints][: _MOST_BY_DEFAULT - 1]
    return [*newest, *[name for name in options if name not in checkpoints][:1]]


def benchmark_options(snapshot: Snapshot) -> list[str]:
    """The fetched benchmarks of the workspace by id, then the sources of earlier evaluations that are still there."""
    fetched = [artifact.id for artifact in snapshot.artifacts["benchmarks"]]
    asked = [str(a.manifest.identity.get("benchmark", {}).get("source")) for a in snapshot.artifacts["evals"]]
    files = [source for source in dict.fromkeys(asked) if "=" in source and Path(source.partition("=")[2]).is_file()]
    return [*fetched, *files]


def look_up(
    workspace: Workspace, snapshot: Snapshot, models: Sequence[str], benchmarks: Sequence[str], limit: int | None
) -> Found:
    """What the chosen names mean."""
    problems: dict[str, str] = {}

    def each(names: Sequence[str], find: Callable[[str], T]) -> dict[str, T]:
        found = {}
        for name in names:
            try:
                found[name] = find(name)
            except (LarkError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
                problems[name] = str(error)
        return found

    own = {
        key: a for kind in ("checkpoints", "students") for a in snapshot.artifacts[kind] for key in (a.id, str(a.path))
    }

    def model(name: str) -> ModelRef:
        folder = user_path(name)
        if (artifact := own.get(name) or own.get(str(folder.absolute()))) is not None:
            return model_to_plan(artifact, workspace)
        if not folder.is_dir():
            # A name of the hub would be downloaded by looking it up.
            raise LarkError("no model of this workspace and no folder; give the whole id or a path")
        _stay_here(folder, workspace)
        return _outside(str(workspace.root), name, signature(workspace))

    def benchmark(name: str) -> Benchmark:
        path = file_of(name, workspace)
        said = path.stat()
        if not stat.S_ISREG(said.st_mode):
            raise ConfigError(f"{path}: is no regular file; give a benchmark's JSON or JSONL")
        if said.st_size > _MOST_BENCHMARK_BYTES:
            raise ConfigError(
                f"{path}: holds {formats.size(said.st_size)}, and this page reads at most "
                f"{formats.size(_MOST_BENCHMARK_BYTES)}; run lark generate in a terminal"
            )
        return _loaded(str(workspace.root), name, str(path), (said.st_mtime_ns, said.st_size), limit)

    found_models = each(models, model)
    found_benchmarks = each(benchmarks, benchmark)
    return Found(found_models, found_benchmarks, problems)


def _stay_here(folder: Path, workspace: Workspace) -> None:
    """Errors: `ConfigError` for an adapter whose base model would have to be downloaded; a page downloads nothing."""
    path = folder / "adapter_config.json"
    if path.is_file():
        base = base_of_adapter(folder)
        if find_student(base, workspace) is None:
            raise ConfigError(f"{folder}: its base model {base} is not on this machine; fetch it, and say where it is")


def sampling_of(generations: Artifact) -> dict[str, Any]:
    """The options that generations were sampled with, as the form holds them: what follows from others is left out."""
    manifest = generations.manifest
    benchmark = manifest.identity.get("benchmark", {})
    values = {**manifest.config, "limit": benchmark.get("limit"), "endpoint": manifest.identity.get("endpoint")}
    if values.get("system_prompt") == benchmark.get("own_system_prompt"):
        values.pop("system_prompt", None)
    if values.get("backend") in ("vllm", "sglang") and values.get("dtype") == "bfloat16":
        values.pop("dtype")
    values.pop("chat_template", None)  # the manifest has its text, the option takes a file
    return {name: value for name, value in values.items() if name in GenerateConfig.model_fields and value is not None}


@st.cache_resource(max_entries=50, show_spinner="Reading the model’s files…")
def _outside(root: str, name: str, version: object) -> ModelRef:
    return resolve_model(name, Workspace(root))


@st.cache_resource(max_entries=12, show_spinner="Reading the benchmark…")
def _loaded(root: str, name: str, path: str, version: tuple[int, int], limit: int | None) -> Benchmark:
    return load_benchmark(name, limit=limit, workspace=Workspace(root))
