from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from lark_engine.jobs import devices
from lark_engine.jobs.devices import cpu_slots, cuda_devices, machine_devices, processes_on, used_bytes

GB = 10**9
A100, H100 = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"
FIRST, SECOND, DIVIDED = "GPU-aaaa1111", "GPU-aaaa2222", "GPU-bbbb3333"
SMALL, LARGE = "MIG-cccc4444", "MIG-dddd5555"
DEVICE_FUNCTIONS = (
    "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetComputeRunningProcesses",
)  # fmt: skip


@dataclass
class Handle:
    """What NVML knows of a GPU, or of a MIG instance. `instances`: by place, None where a place is free."""

    uuid: str
    name: str
    total: int = 80 * GB
    used: int = GB
    pids: tuple[int, ...] = ()
    mig: bool | None = None
    instances: tuple[Handle | None, ...] = ()
    fails: dict[str, type[Exception]] = field(default_factory=dict)


class Nvml:
    """Stands in for the module pynvml, 12 and 13: functions, constants and exceptions by their names there."""

    NVML_DEVICE_MIG_DISABLE = 0
    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    class NVMLError_NotFound(NVMLError):
        pass

    class NVMLError_InvalidArgument(NVMLError):
        pass

    class NVMLError_GpuIsLost(NVMLError):
        pass

    class NVMLError_Uninitialized(NVMLError):
        pass

    def __init__(self, *gpus: Handle, broken: str = "", text: Callable[[str], Any] = str) -> None:
        self.gpus, self.broken, self.text, self.connections = gpus, broken, text, 0
        for name in DEVICE_FUNCTIONS:
            setattr(self, name, self._guarded(name))

    def _guarded(self, name: str) -> Callable[..., Any]:
        def function(handle: Handle, *arguments: Any) -> Any:
            if not self.connections:
                raise self.NVMLError_Uninitialized("Uninitialized")
            if error := handle.fails.get(name):
                raise error(f"{handle.uuid} fails")
            return getattr(self, f"_{name}")(handle, *arguments)

        return function

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError(self.broken)
        self.connections += 1

    def nvmlShutdown(self) -> None:
        self.connections -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        handle = self.gpus[index]
        if error := handle.fails.get("nvmlDeviceGetHandleByIndex"):
            raise error(f"{handle.uuid} fails")
        return handle

    def _nvmlDeviceGetUUID(self, handle: Handle) -> Any:
        return self.text(handle.uuid)

    def _nvmlDeviceGetName(self, handle: Handle) -> Any:
        return self.text(handle.name)

    def _nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any:
        return SimpleNamespace(total=handle.total, free=handle.total - handle.used, used=handle.used)

    def _nvmlDeviceGetMigMode(self, handle: Handle) -> list[int]:
        if handle.mig is None:
            raise self.NVMLError_NotSupported("Not Supported")
        return [int(handle.mig), int(handle.mig)]

    def _nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int:
        return len(handle.instances)

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle:
        if (instance := handle.instances[index]) is None:
            raise self.NVMLError_NotFound("Not Found")
        return instance

    def _nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in handle.pids]


def machine(**options: Any) -> Nvml:
    """Two GPUs, one that knows no MIG and one with MIG off, and a third that is divided into two instances."""
    small = Handle(SMALL, f"{H100} MIG 1g.10gb", total=10 * GB, used=2 * GB, pids=(31,))
    large = Handle(LARGE, f"{H100} MIG 3g.40gb", total=40 * GB)
    return Nvml(
        Handle(FIRST, A100, used=3 * GB, pids=(22, 21)),
        Handle(SECOND, A100, mig=False),
        Handle(DIVIDED, H100, mig=True, instances=(small, None, large, None), pids=(31,)),
        **options,
    )


def ids(visible: str | None, nvml: Nvml | None = None, **options: Any) -> list[str]:
    return [device.id for device in cuda_devices(visible, nvml or machine(), **options)]


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    devices._say_once.cache_clear()


def test_a_gpu_in_mig_mode_stands_for_its_instances() -> None:
    found = cuda_devices(None, machine())
    assert [(d.kind, d.id, d.name, d.memory_bytes) for d in found] == [
        ("cuda", FIRST, A100, 80 * GB),
        ("cuda", SECOND, A100, 80 * GB),
        ("cuda", SMALL, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GB),
        ("cuda", LARGE, "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40 * GB),
    ]


def test_a_gpu_in_mig_mode_without_instances_is_no_device() -> None:
    assert ids(None, Nvml(Handle(DIVIDED, H100, mig=True, instances=(None, None)))) == []


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", []),
        ("0", [FIRST]),
        ("1,0", [SECOND, FIRST]),
        (" 1 , 0 ", [SECOND, FIRST]),
        ("2", [SMALL, LARGE]),
        (SECOND, [SECOND]),
        ("GPU-aaaa2", [SECOND]),
        ("GPU-b,GPU-aaaa1", [SMALL, LARGE, FIRST]),
        (LARGE, [LARGE]),
        (f"{LARGE},0", [LARGE, FIRST]),
    ],
)
def test_visible_devices_are_numbers_uuids_or_the_beginning_of_one(visible: str, expected: list[str]) -> None:
    assert ids(visible) == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,-1,1", [FIRST]),
        ("0,7,1", [FIRST]),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,,1", [FIRST]),
        ("1,GPU-ffff,0", [SECOND]),
        ("2,GPU-aaaa,1", [SMALL, LARGE]),  # two GPUs begin with it
        ("MIG-ffff,0", []),
    ],
)
def test_the_list_ends_at_the_first_entry_that_is_no_device(visible: str, expected: list[str]) -> None:
    assert ids(visible) == expected


@pytest.mark.parametrize("visible", ["0,1,0", f"0,{FIRST}", f"2,{SMALL}"])
def test_a_device_named_twice_leaves_none(visible: str) -> None:
    assert ids(visible) == []


def test_numbers_are_warned_of_once_where_gpus_differ(caplog: pytest.LogCaptureFixture) -> None:
    for visible in ("0,1", "0,1", FIRST, None):
        cuda_devices(visible, machine())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "CUDA_VISIBLE_DEVICES=0,1 names GPUs by number" in caplog.text
    assert "set CUDA_DEVICE_ORDER=PCI_BUS_ID" in caplog.text


def test_numbers_are_not_warned_of_where_they_can_only_mean_one_gpu(caplog: pytest.LogCaptureFixture) -> None:
    cuda_devices("0", machine(), order="PCI_BUS_ID")
    cuda_devices("0", Nvml(Handle(FIRST, A100), Handle(SECOND, A100)))
    assert caplog.text == ""


def test_older_modules_answer_in_bytes() -> None:
    found = cuda_devices("GPU-aaaa1", machine(text=str.encode))
    assert [(d.id, d.name) for d in found] == [(FIRST, A100)]


def test_without_the_package_no_gpu_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert cuda_devices() == []
    assert used_bytes(FIRST) is None
    assert processes_on(FIRST) == []


@pytest.mark.parametrize(("has_driver", "level"), [(True, "WARNING"), (False, "DEBUG")])
def test_nvml_that_does_not_start_is_said_once_and_loudly_only_where_there_is_a_driver(
    has_driver: bool, level: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "_DRIVER", tmp_path if has_driver else tmp_path / "absent")
    caplog.set_level(logging.DEBUG)
    broken = machine(broken="Driver/library version mismatch")
    assert (cuda_devices(None, broken), used_bytes(FIRST, broken), processes_on(FIRST, broken)) == ([], None, [])
    [record] = caplog.records
    assert record.levelname == level
    assert record.getMessage() == ("no GPU is known, because NVML cannot be used: Driver/library version mismatch")


def test_a_lost_gpu_is_left_out_and_keeps_its_number(caplog: pytest.LogCaptureFixture) -> None:
    lost = Handle(FIRST, A100, fails={"nvmlDeviceGetHandleByIndex": Nvml.NVMLError_GpuIsLost})
    nvml = Nvml(lost, Handle(SECOND, A100))
    assert ids(None, nvml) == [SECOND]
    assert ids("1", nvml) == [SECOND]
    assert ids("0,1", nvml) == []
    assert [r.getMessage() for r in caplog.records] == [
        f"NVML does not answer nvmlDeviceGetHandleByIndex: {FIRST} fails"
    ]


def test_memory_that_nvml_does_not_tell_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    shared = Handle(FIRST, "NVIDIA GB10", fails={"nvmlDeviceGetMemoryInfo": Nvml.NVMLError_NotSupported})
    [device] = cuda_devices(None, Nvml(shared))
    assert (device.id, device.memory_bytes) == (FIRST, None)
    assert caplog.text == ""


def test_an_instance_without_a_name_has_the_name_of_its_gpu() -> None:
    unnamed = Handle(SMALL, "", fails={"nvmlDeviceGetName": Nvml.NVMLError_InvalidArgument})
    [device] = cuda_devices(None, Nvml(Handle(DIVIDED, H100, mig=True, instances=(unnamed,))))
    assert device.name == "NVIDIA H100 80GB HBM3 MIG 0"


def test_memory_and_processes_are_those_of_the_gpu_or_instance() -> None:
    nvml = machine()
    assert [used_bytes(d, nvml) for d in (FIRST, SMALL, LARGE)] == [3 * GB, 2 * GB, GB]
    assert [processes_on(d, nvml) for d in (FIRST, SECOND, SMALL, LARGE)] == [[21, 22], [], [31], []]


@pytest.mark.parametrize("device_id", ["GPU-ffff", DIVIDED, "cpu-0"])
def test_what_is_no_device_has_no_known_memory_and_no_processes(device_id: str) -> None:
    assert used_bytes(device_id, machine()) is None
    assert processes_on(device_id, machine()) == []


def test_every_connection_to_nvml_is_closed() -> None:
    nvml = machine()
    for visible in (None, "0"):
        cuda_devices(visible, nvml)
    used_bytes(SMALL, nvml)
    processes_on("GPU-ffff", nvml)
    assert nvml.connections == 0


def test_a_cpu_has_one_slot_for_every_eight_cores_and_at_least_one() -> None:
    assert [len(cpu_slots(cores)) for cores in (1, 7, 8, 15, 16, 64)] == [1, 1, 1, 1, 2, 8]
    first, second = cpu_slots(16)
    assert (first.kind, first.id, first.name, first.memory_bytes) == ("cpu", "cpu-0", "CPU slot 1 of 2", None)
    assert (second.id, second.name) == ("cpu-1", "CPU slot 2 of 2")


def test_slots_are_of_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(24)))
    assert len(cpu_slots()) == 3


def test_the_devices_of_a_machine_are_those_that_its_environment_shows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", machine())  # type: ignore[arg-type]
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    environment = {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert [device.id for device in machine_devices("cuda", environment)] == [SECOND, FIRST]
    assert [device.id for device in machine_devices("cuda", {})] == [FIRST, SECOND, SMALL, LARGE]
    assert [device.id for device in machine_devices("cpu", environment)] == ["cpu-0"]
    assert caplog.text == ""


@pytest.mark.parametrize("module", ["devices", "needs"])
def test_the_supervisor_imports_it_without_a_heavy_library(module: str) -> None:
    script = (
        f"import sys, lark_engine.jobs.{module}; "
        "print(sorted({'torch', 'pandas', 'pydantic', 'pynvml', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
