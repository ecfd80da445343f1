"""The devices that jobs are given: GPUs and their MIG instances as NVML knows them, and slots of CPU cores.

NVML (package nvidia-ml-py) is asked and not CUDA: looking on takes no memory of a GPU and needs no torch. What NVML
does not say is not known, and never an error: without the package or the driver no GPU is known.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

log = logging.getLogger(__name__)

# A stage on a CPU uses all cores that it may, and is bound by memory, not by arithmetic: beyond about 8 cores one job
# gains little, and below 8 two jobs side by side take longer than one after the other.
_CORES_OF_A_SLOT = 8
_DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True, kw_only=True)
class Device:
    """Something that one job at a time may hold.

    `id`: what CUDA_VISIBLE_DEVICES takes, `GPU-…` or `MIG-…`; `cpu-0` for a CPU slot. `name`: for people.
    `memory_bytes`: the device's own memory; None where it has none or NVML does not say.
    """

    kind: Literal["cuda", "cpu"]
    id: str
    name: str
    memory_bytes: int | None


class _Known(NamedTuple):
    """A device, and NVML's handle of it, which is good as long as the connection."""

    device: Device
    handle: Any


class _Gpu(NamedTuple):
    """A GPU by its place in NVML's order, and what it is used as: itself, or its MIG instances. Of a GPU that NVML
    cannot reach, only the place is left."""

    id: str
    name: str
    known: Sequence[_Known]

    @property
    def devices(self) -> list[Device]:
        return [known.device for known in self.known]


def machine_devices(kind: Literal["cuda", "cpu"], environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The devices of a kind that this process may use, and so the jobs that it runs."""
    if kind == "cpu":
        return cpu_slots()
    return cuda_devices(environment.get("CUDA_VISIBLE_DEVICES"), order=environment.get("CUDA_DEVICE_ORDER"))


def cuda_devices(visible: str | None = None, nvml: Any = None, *, order: str | None = None) -> list[Device]:
    """The GPUs that a program would see; a GPU in MIG mode stands for its instances. None are known without NVML.

    `visible`: the value of CUDA_VISIBLE_DEVICES (None = all, in NVML's order; "" = none). It is read as CUDA reads it:
    numbers, UUIDs or the beginning of one, MIG UUIDs; in the order of the list, which ends at the first entry that is
    no device, and is empty if it names one twice. `order`: the value of CUDA_DEVICE_ORDER. NVML counts as
    `PCI_BUS_ID` does; CUDA by itself begins with the fastest GPU. So a number may mean another GPU than the user thinks
    where GPUs differ: this is warned of. UUIDs always mean one device. `nvml`: the module, `pynvml` by default.

    CUDA shows a process one MIG instance at most, whatever it is given: a job on several devices needs whole GPUs.
    """
    with _connected(nvml) as library:
        gpus = [_gpu(library, index) for index in range(_ask(library, "nvmlDeviceGetCount") or 0)]
    if visible is None:
        return [device for gpu in gpus for device in gpu.devices]
    entries = [entry.strip() for entry in visible.split(",")]
    differ = len({gpu.name for gpu in gpus if gpu.id}) > 1
    if differ and order != "PCI_BUS_ID" and any(entry.isdecimal() for entry in entries):
        _say_once(
            logging.WARNING,
            f"CUDA_VISIBLE_DEVICES={visible} names GPUs by number; they are counted by PCI bus here, while CUDA begins "
            "with the fastest: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID",
        )
    return _chosen(entries, gpus)


def cpu_slots(cores: int | None = None) -> list[Device]:
    """Slots for jobs that run on the CPU: one for every 8 of the `cores` (those that this process may use), at least 1.

    A slot only limits how many such jobs run at once; it binds nobody to any cores.
    """
    count = max((len(os.sched_getaffinity(0)) if cores is None else cores) // _CORES_OF_A_SLOT, 1)
    return [
        Device(kind="cpu", id=f"cpu-{index}", name=f"CPU slot {index + 1} of {count}", memory_bytes=None)
        for index in range(count)
    ]


def used_bytes(device_id: str, nvml: Any = None) -> int | None:
    """Memory in use on a GPU or MIG instance; None where NVML does not say, and for a CPU slot.

    The driver's own share is in it, hundreds of MB on an idle GPU: compare with what it was before the job.
    """
    memory = _ask_of_device(device_id, "nvmlDeviceGetMemoryInfo", nvml)
    return None if memory is None else int(memory.used)


def processes_on(device_id: str, nvml: Any = None) -> list[int]:
    """Ids of the processes that compute on a GPU or MIG instance, in ascending order.

    Ids are the driver's: in a container they may be the host's, or missing. The list is empty too where NVML does not
    say; then `used_bytes` is None.
    """
    processes = _ask_of_device(device_id, "nvmlDeviceGetComputeRunningProcesses", nvml)
    return sorted({int(process.pid) for process in processes or ()})


def _chosen(entries: Sequence[str], gpus: Sequence[_Gpu]) -> list[Device]:
    """The devices that the entries of CUDA_VISIBLE_DEVICES mean."""
    found: list[Device] = []
    for entry in entries:
        meant = _meant(entry, gpus)
        if not meant:
            break
        if any(device in found for device in meant):
            return []
        found += meant
    return found


def _meant(entry: str, gpus: Sequence[_Gpu]) -> list[Device]:
    """The devices of one entry; none for an entry that is no device, or that several UUIDs begin with."""
    if entry.isdecimal():
        return gpus[int(entry)].devices if int(entry) < len(gpus) else []
    if not entry.startswith(("GPU-", "MIG-")):
        return []
    by_id = {gpu.id: gpu.devices for gpu in gpus} | {d.id: [d] for gpu in gpus for d in gpu.devices}
    matches = [devices for device_id, devices in by_id.items() if device_id.startswith(entry)]
    return matches[0] if len(matches) == 1 else []


def _gpu(nvml: Any, index: int) -> _Gpu:
    handle = _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
    gpu_id = "" if handle is None else _text(_ask(nvml, "nvmlDeviceGetUUID", handle))
    if not gpu_id:
        return _Gpu("", "", [])
    name = _text(_ask(nvml, "nvmlDeviceGetName", handle)) or "NVIDIA GPU"
    mode = _ask(nvml, "nvmlDeviceGetMigMode", handle)  # [now, after the next reset]; None where there is no MIG
    if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return _Gpu(gpu_id, name, [_known(nvml, handle, gpu_id, name)])
    return _Gpu(gpu_id, name, list(_mig_instances(nvml, handle, name)))


def _mig_instances(nvml: Any, gpu: Any, gpu_name: str) -> Iterator[_Known]:
    for index in range(_ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", gpu) or 0):
        # None: a place that holds no instance; later ones may.
        handle = _ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", gpu, index)
        instance_id = "" if handle is None else _text(_ask(nvml, "nvmlDeviceGetUUID", handle))
        if instance_id:
            name = _text(_ask(nvml, "nvmlDeviceGetName", handle)) or f"{gpu_name} MIG {index}"
            yield _known(nvml, handle, instance_id, name)


def _known(nvml: Any, handle: Any, device_id: str, name: str) -> _Known:
    memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    total = None if memory is None else int(memory.total)
    return _Known(Device(kind="cuda", id=device_id, name=name, memory_bytes=total), handle)


def _ask_of_device(device_id: str, function: str, nvml: Any) -> Any:
    """What an NVML function says of a device; None where there is no such device, or no answer."""
    with _connected(nvml) as library:
        for index in range(_ask(library, "nvmlDeviceGetCount") or 0):
            for device, handle in _gpu(library, index).known:
                if device.id == device_id:
                    return _ask(library, function, handle)
    return None


@contextlib.contextmanager
def _connected(nvml: Any) -> Iterator[Any]:
    """NVML's module, connected to the driver while the block lasts; None where that cannot be."""
    try:
        library = nvml or importlib.import_module("pynvml")
    except ImportError as error:
        _say_absent(f"{error}; install nvidia-ml-py")
        yield None
        return
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        _say_absent(str(error))
        yield None
        return
    try:
        yield library
    finally:
        with contextlib.suppress(library.NVMLError):
            library.nvmlShutdown()


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """What an NVML function answers; None without NVML, and for an error."""
    if nvml is None:
        return None
    try:
        return getattr(nvml, function)(*arguments)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_NotFound):
        return None  # an answer too: a GPU without MIG, a place without an instance
    except nvml.NVMLError as error:
        _say_once(logging.WARNING, f"NVML does not answer {function}: {error}")
        return None


def _text(value: Any) -> str:
    """A string of NVML: bytes in older versions of its module."""
    return value.decode() if isinstance(value, bytes) else value or ""


def _say_absent(reason: str) -> None:
    # Nothing to say on a machine without GPUs; where there is a driver, its GPUs would stay idle without a word.
    level = logging.WARNING if _DRIVER.exists() else logging.DEBUG
    _say_once(level, f"no GPU is known, because NVML cannot be used: {reason}")


@functools.cache
def _say_once(level: int, message: str) -> None:
    """Devices are looked at again and again; what is wrong with one is said once in a process."""
    log.log(level, "%s", message)
