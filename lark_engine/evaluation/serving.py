"""A model server of our own: started as a child, health-checked, and gone when we are, however we end.

One server holds a base model and any number of LoRA adapters for it, unmerged. It listens on the loopback interface
only and answers only to a key made for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import httpx
import psutil

from lark_engine.errors import ServerError
from lark_engine.evaluation.client import API_KEY_VARIABLE
from lark_engine.evaluation.engines import HOST, Engine, ServerOptions, device_groups
from lark_engine.evaluation.server_log import LogTail, last_meaningful_line
from lark_engine.leash import GRACE_S
from lark_engine.processes import end_all, marked
from lark_engine.store.atomic import open_in_place

log = logging.getLogger(__name__)

# Carried by every process of a server, also by one that leaves its session.
MARK = "LARK_SERVER_ID"
_RESTARTS = 1
_POLL_S = 0.25
_DYING_S = 10.0
_STOP_TIMEOUT_S = GRACE_S + 5


@dataclass
class ModelServer:
    """Context manager around one server. `base` and `adapters` are folders; adapters are served by name.

    A server that crashes is started again once, by `recover`. `report` gets a sentence when it starts or ends.
    Errors: `ServerError` when the server dies, or is not healthy in time; the message quotes the last meaningful line
    of its log and names the log.
    """

    engine: Engine
    base: Path
    adapters: Mapping[str, Path]
    log_path: Path
    options: ServerOptions = field(default_factory=ServerOptions)
    report: Callable[[str], None] = lambda _: None
    name: str = ""
    api_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    num_restarts: int = 0
    _mark: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _port: int = 0
    _session: int | None = None
    _looked_at: float = -math.inf
    _stopped: bool = False
    _recovering: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ending: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _tail: LogTail | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-compatible interface."""
        return f"http://{HOST}:{self._port}/v1"

    @property
    def label(self) -> str:
        return f"the {self.engine.name} server {self.name}for {self.base}"

    def __enter__(self) -> Self:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._tail = LogTail(self.log_path, self.engine.name, secret=self.api_key)
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def processes(self) -> list[psutil.Process]:
        """The live processes of this server, wherever they have gone."""
        found = []
        for pid in self._pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def check(self) -> None:
        """Raise `ServerError` when the server's process has ended."""
        if self._process is None:
            raise ServerError(f"{self.label} is stopped")
        if (status := self._process.poll()) is not None:
            raise ServerError(
                f"{self.label} ended with status {status}: {last_meaningful_line(self.log_path)}; "
                f"its whole log is {self.log_path}; run the same command again, it resumes"
            )

    def recover(self) -> None:
        """After trouble: start the server again if it has ended, once; leave one that lives alone.

        Waits a little for one that is ending, so that nobody asks it in vain. Errors: `ServerError` as `check`.
        """
        with self._recovering:
            # Of many requests in trouble, the first looks what becomes of the server, and not each in turn.
            if not self._has_ended() and time.monotonic() > self._looked_at + _DYING_S:
                deadline = time.monotonic() + _DYING_S
                while not self._has_ended() and not self._is_healthy() and time.monotonic() < deadline:
                    time.sleep(_POLL_S)
                self._looked_at = time.monotonic()
            if not self._has_ended() or self._stopped or self.num_restarts >= _RESTARTS:
                self.check()
                return
            self.num_restarts += 1
            cause = last_meaningful_line(self.log_path)
            message = f"{self.label} ended ({cause}); starting it again, what is sampled is kept"
            log.warning("%s", message)
            self.report(message)
            self._end()
            self._start()

    def stop(self) -> None:
        """Stop the server and every process of it, for good. Errors: `ServerError` when one cannot be ended."""
        self._stopped = True
        try:
            self._end()
        finally:
            if self._tail is not None:
                self._tail.close()

    def _start(self) -> None:
        self._port = free_port()
        command = self.engine.command(self.base, self.adapters, self._port, self.options, self.api_key)
        log.info("starting %s (log: %s)", self.label, self.log_path)
        self.report(f"starting {self.label}")
        started = time.monotonic()
        # The key of somebody else's server is none of this one's business.
        inherited = {name: value for name, value in os.environ.items() if name != API_KEY_VARIABLE}
        # A process that gives itself a title would otherwise overwrite the environment that it is known by; and what
        # lies in the folder that it runs in is not imported.
        marked = {MARK: self._mark, "SPT_NOENV": "1", "PYTHONSAFEPATH": "1"}
        environment = self.engine.environment(self.base, self.options, self.api_key)
        with open_in_place(self.log_path, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lark_engine.leash", *command],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env={**inherited, **environment, **marked},
            )  # fmt: skip
        self._process, self._session = process, process.pid
        try:
            self._wait_until_healthy(started + self.options.start_timeout_s)
        except BaseException:  # Ctrl-C too: nobody else can stop the server
            self.stop()
            raise
        message = f"{self.label} is up after {time.monotonic() - started:.0f} s"
        log.info("%s", message)
        self.report(message)

    def _end(self) -> None:
        with self._ending:  # who comes second waits until the first has ended it
            process, self._process = self._process, None
            if process is not None:
                self._end_process(process)

    def _end_process(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop when asked; killing it", self.label)
        left = end_all(self._pids, grace_s=0)
        self._session = None  # its number may be given to another one now
        if left:
            raise ServerError(f"processes {left} of {self.label} do not end; end them by hand (kill -9)")
        process.wait()

    def _pids(self) -> list[int]:
        return marked(MARK, self._mark, session=self._session)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _is_healthy(self) -> bool:
        health = f"http://{HOST}:{self._port}/health"
        try:
            return httpx.get(health, timeout=5, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _wait_until_healthy(self, deadline: float) -> None:
        while True:
            if self._stopped:  # while it was being started
                self._end()
            self.check()
            if self._is_healthy() and not self._stopped:
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.label} was not healthy within {self.options.start_timeout_s:g} s: "
                    f"{last_meaningful_line(self.log_path)}; raise --start-timeout-s, or read {self.log_path}"
                )
            time.sleep(_POLL_S)


@contextlib.contextmanager
def model_servers(
    engine: Engine, base: Path, adapters: Mapping[str, Path], log_dir: Path, options: ServerOptions, *, replicas: int,
    report: Callable[[str], None],
) -> Iterator[Sequence[ModelServer]]:  # fmt: skip
    """Replicas of a server, each on devices of its own (`device_groups`), started side by side; all stopped at the end.

    Errors: `DeviceError` when there are too few devices; `ServerError` of the first that does not start.
    """
    groups = device_groups(engine, replicas, options.tensor_parallel_size)
    servers = [
        ModelServer(
            engine=engine, base=base, adapters=adapters, options=replace(options, devices=devices), report=report,
            log_path=log_dir / (f"server-{index}.log" if len(groups) > 1 else "server.log"),
            name=f"{index} " if len(groups) > 1 else "",
        )
        for index, devices in enumerate(groups)
    ]  # fmt: skip
    # The stack ends first: a server that is stopped while it starts frees the thread that starts it.
    with ThreadPoolExecutor(len(servers)) as starting, contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
        for started in [starting.submit(server.__enter__) for server in servers]:
            started.result()
        yield servers


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
