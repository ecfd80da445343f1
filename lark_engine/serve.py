"""The dashboard as a process: Streamlit on the loopback interface unless told otherwise, in the foreground or detached.

A detached dashboard is known by `dashboard.json` in `<workspace>/logs` (pid and create time, so that a reused pid is no
dashboard); a second call finds it there instead of starting another one. What is shown read-only is not written to: the
state of its server lies in a folder of the user's cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from lark_engine.errors import ServerError
from lark_engine.jobs.folder import FOLDER_MARKS
from lark_engine.sharing.exposure import ANYWHERE, LOOPBACK, Exposure
from lark_engine.store.atomic import disk_errors, write_json
from lark_engine.store.workspace import Workspace

log = logging.getLogger(__name__)

HOME_VARIABLE = "LARK_HOME"
# A move of a slider makes and drops arrays of a megabyte each. Given back to the system every time, they cost as much
# to fault in again as the selection itself; with these the C library keeps them. Pages run in ever new threads: with an
# arena for each, and a pool of Arrow's own beside them, the server would hold a third more than it uses.
SERVER_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20), "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}  # fmt: skip
SOURCE_TREE = Path(__file__).resolve().parents[1]
_PORTS_TO_TRY = 100
_START_TIMEOUT_S = 60.0


class Dashboard(NamedTuple):
    """A dashboard that answers: its address, its process, and whether it was already there."""

    address: str
    pid: int
    reused: bool


def serve(
    workspace: Workspace, *, port: int = 8501, open_in_background: bool, exposure: Exposure | None = None
) -> Dashboard:  # fmt: skip
    """Show a workspace in the browser's reach, on `port` or the next free one: this machine's, unless told otherwise.

    In the background, returns when the dashboard answers; one that already runs for this workspace is reused. In the
    foreground, this process becomes Streamlit's and does not return, unless there is a dashboard to reuse. Errors:
    `ConfigError` for an exposure that would let anybody in; `ServerError` when the source tree with the pages is
    absent, no port is free, another dashboard of this workspace runs with other options, or Streamlit does not start.
    """
    main, how = find_app(), (exposure or Exposure()).check()
    with _one_at_a_time(workspace, how):
        if found := _find(workspace):
            running, digest = found
            if digest != _digest(how):
                raise ServerError(
                    f"a dashboard of {workspace.root} runs at {running.address} with other options of access; end it "
                    "first, with the same words and --stop"
                )
            return running
        port = free_port(port, how.address)
        if open_in_background:
            return _start_detached(workspace, main, port, how)
    os.chdir(SOURCE_TREE)
    command = streamlit_command(main, port, how)
    log.info("the dashboard of %s: %s", workspace.root, address_of(how, port))
    os.execve(command[0], command, _environment(workspace, how))


def stop(workspace: Workspace) -> bool:
    """End the detached dashboard of a workspace; False when none runs."""
    running = find_dashboard(workspace)
    if running is None:
        return False
    process = psutil.Process(running.pid)
    process.terminate()
    try:
        process.wait(10)
    except psutil.TimeoutExpired:
        process.kill()
    for path in _state_paths(workspace):
        path.unlink(missing_ok=True)
    return True


def find_dashboard(workspace: Workspace) -> Dashboard | None:
    """The detached dashboard of this workspace, if its process lives and answers."""
    found = _find(workspace)
    return None if found is None else found[0]


def _find(workspace: Workspace) -> tuple[Dashboard, str] | None:
    """The running dashboard, and a digest of the options that it was started with."""
    for path in _state_paths(workspace):
        try:
            state = json.loads(path.read_text())
            pid, created, port = int(state["pid"]), float(state["create_time"]), int(state["port"])
            address = str(state["at"])
            alive = abs(psutil.Process(pid).create_time() - created) < 1
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            continue
        if alive and is_healthy(port, address):
            return Dashboard(address, pid, reused=True), str(state.get("exposure"))
    return None


def address_of(how: Exposure, port: int) -> str:
    """Where a browser of this machine finds the dashboard."""
    host = LOOPBACK if how.address in ANYWHERE else how.address
    return f"{'https' if how.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def find_app() -> Path:
    """The Streamlit entry script of the source tree."""
    main = SOURCE_TREE / "app" / "main.py"
    if not main.is_file() or not (SOURCE_TREE / "pages").is_dir():
        raise ServerError(
            f"{main}: not there; the dashboard's pages are part of the source tree, so run `lark serve` from an "
            "editable install of a checkout (pip install -e .)"
        )
    return main


def streamlit_command(main: Path, port: int, how: Exposure) -> list[str]:
    """The command that serves the app; what keeps it private is said here too, so that no other config undoes it."""
    options = {
        "server.port": port, "server.address": how.address, "server.headless": "true", "server.baseUrlPath": "",
        "server.enableXsrfProtection": "true", "server.enableCORS": "true", "browser.gatherUsageStats": "false",
        **({"server.sslCertFile": how.tls_cert, "server.sslKeyFile": how.tls_key} if how.tls_cert else {}),
        **({"secrets.files": how.secrets} if how.secrets else {}),
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    hosts = [word for host in how.allowed_hosts for word in ("--server.allowedHosts", host)]
    return [sys.executable, "-m", "streamlit", "run", str(main), *words, *hosts]


def free_port(first: int, address: str = LOOPBACK) -> int:
    """The first free port from `first` on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in range(first, min(first + _PORTS_TO_TRY, 65536)):
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.strip("[]"), port))
            return port
    raise ServerError(
        f"no free port between {first} and {first + _PORTS_TO_TRY - 1} at {address}; choose another with --port"
    )


def is_healthy(port: int, address: str = f"http://{LOOPBACK}", timeout_s: float = 2.0) -> bool:
    """Whether a Streamlit server answers on this port; its certificate is not ours to judge here."""
    parts = urlsplit(address)
    host = parts.hostname or LOOPBACK
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl._create_unverified_context())
        if parts.scheme == "https" else http.client.HTTPConnection(host, port, timeout=timeout_s)
    )  # fmt: skip
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _start_detached(workspace: Workspace, main: Path, port: int, how: Exposure) -> Dashboard:
    log_path = state_dir(workspace, how) / "dashboard.log"
    address = address_of(how, port)
    with disk_errors(log_path), log_path.open("wb") as output:
        process = subprocess.Popen(
            streamlit_command(main, port, how), cwd=SOURCE_TREE, env=_environment(workspace, how),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not is_healthy(port, address) or process.poll() is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            last = log_path.read_text(errors="replace").strip().splitlines()[-3:]
            raise ServerError(
                f"the dashboard did not start on port {port}: {' / '.join(last) or 'no output'}; the whole output is "
                f"in {log_path}"
            )
        time.sleep(0.1)
    created = psutil.Process(process.pid).create_time()
    state = {"pid": process.pid, "create_time": created, "port": port, "at": address, "exposure": _digest(how)}
    write_json(log_path.with_suffix(".json"), state)
    log.debug("dashboard of %s at %s (process %d)", workspace.root, address, process.pid)
    return Dashboard(address, process.pid, reused=False)


def _environment(workspace: Workspace, how: Exposure) -> dict[str, str]:
    # It outlives the job that it may be started from, and what is started from it is none of that job's.
    inherited = {name: value for name, value in os.environ.items() if name not in FOLDER_MARKS}
    return {**SERVER_MEMORY, **inherited, HOME_VARIABLE: str(workspace.root), **how.as_environment()}


def user_cache() -> Path:
    """Where what belongs to no workspace is kept: unpacked bundles, and servers of what is read-only."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lark-studio"


def scratch_dir(workspace: Workspace) -> Path:
    """The folder in the user's cache for a workspace that is not written to."""
    return user_cache() / "servers" / hashlib.sha256(os.fsencode(workspace.root)).hexdigest()[:16]


def state_dir(workspace: Workspace, how: Exposure) -> Path:
    """Where the server's own log and state lie."""
    return scratch_dir(workspace) if how.read_only else workspace.root / "logs"


def _state_paths(workspace: Workspace) -> list[Path]:
    return [folder / "dashboard.json" for folder in (workspace.root / "logs", scratch_dir(workspace))]


def _digest(how: Exposure) -> str:
    return hashlib.sha256(how.model_dump_json().encode()).hexdigest()


@contextlib.contextmanager
def _one_at_a_time(workspace: Workspace, how: Exposure) -> Iterator[None]:
    """Two commands that want the same dashboard start one."""
    path = state_dir(workspace, how) / "dashboard.lock"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
