"""The whole examination of a machine, in the order of importance."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

import lark_engine
from lark_engine.doctor.checks import Check, by_importance
from lark_engine.doctor.devices import find_gpus, fit_checks, gpu_checks
from lark_engine.doctor.disk import disk_checks
from lark_engine.doctor.imports import Tried, try_imports
from lark_engine.doctor.interpreters import Interpreter, broken_check, look_into, own_check
from lark_engine.doctor.limits import cgroup_limits, cores_check, memory_check, open_files_check
from lark_engine.doctor.versions import (
    Declared,
    build_checks,
    declared,
    distribution_check,
    extra_check,
    extras_in,
    names_in,
    requirement_checks,
    server_check,
)

_TREE = Path(lark_engine.__file__).resolve().parents[1]


def examine(
    workspace: Path, *, server_pythons: Sequence[Path] = (), quick: bool = False, environment: Mapping[str, str]
) -> list[Check]:
    """Everything that is looked at, sorted by importance; the first problem in it is the first conflict.

    `quick` leaves out the imports. Nothing heavy is imported here and nothing is changed: a file is made in the
    workspace, or the folder that it would be in, and removed again.
    """
    known = declared(_TREE)
    own_python = Path(sys.executable)
    others = [python.expanduser().absolute() for python in server_pythons]
    pythons = list(dict.fromkeys((own_python, *others)))
    looks = dict(zip(pythons, look_into(pythons, names_in(known.requirements)), strict=True))
    answering = [look for look in looks.values() if isinstance(look, Interpreter)]
    own = looks[own_python]
    gpus = find_gpus(answering)
    checks, tried = [], Tried([], {})
    if isinstance(own, Interpreter):
        checks = [own_check(own, known.python), *_versions(known, own)]
        if not quick:
            tried = try_imports(own, [look for look in answering if look is not own])
            checks += tried.checks
        if not gpus.any:
            # Where CUDA comes without the driver's files, as under Windows, torch is the one who knows.
            gpus = gpus._replace(num_reachable=max((facts.num_devices for facts in tried.torch.values()), default=0))
        checks += gpu_checks(gpus, own)
    else:
        checks = [broken_check(own_python, own.failure or "", own=True)]
    for python in dict.fromkeys(others):
        look = looks[python]
        if isinstance(look, Interpreter):
            checks.append(server_check(look, known.requirements, has_gpu=gpus.any))
        else:
            checks.append(broken_check(python, look.failure or "", own=False))
    for look in answering:
        torch = tried.torch.get(str(look.python))
        checks += build_checks(look, known.requirements, has_gpu=gpus.any, own=look is own)
        checks += fit_checks(look, torch, known.requirements, gpus, own=look is own)
    limits, memory = cgroup_limits(), psutil.virtual_memory()
    checks.append(cores_check(len(os.sched_getaffinity(0)), limits, environment))
    checks.append(memory_check(memory.total, memory.available, limits))
    checks += disk_checks(workspace, Path(environment.get("TMPDIR") or "/tmp"))
    checks.append(open_files_check())
    return by_importance(checks)


def _versions(known: Declared, own: Interpreter) -> list[Check]:
    return [
        distribution_check(known, own),
        *requirement_checks(known.requirements, own),
        *(extra_check(known.requirements, own, extra) for extra in extras_in(known.requirements)),
    ]
