"""The dashboard as a process: Streamlit on the loopback interface, in the foreground or detached with a log file.

A detached dashboard is known by `<workspace>/logs/dashboard.json` (pid and create time, so that a reused pid is no
dashboard); a second call finds it there instead of starting another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from lark_engine.errors import ServerError
from lark_engine.jobs.folder import FOLDER_MARKS
from lark_engine.store.atomic import disk_errors, write_json
from lark_engine.store.workspace import Workspace

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
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


def serve(workspace: Workspace, *, port: int = 8501, open_in_background: bool) -> Dashboard:
    """Show a workspace in the browser's reach: loopback only, on `port` or the next free one.

    In the background, returns when the dashboard answers; one that already runs for this workspace is reused. In the
    foreground, this process becomes Streamlit's and does not return, unless there is a dashboard to reuse. Errors:
    `ServerError` when the source tree with the pages is absent, no port is free, or Streamlit does not start.
    """
    main = find_app()
    with _one_at_a_time(workspace):
        if running := find_dashboard(workspace):
            return running
        if open_in_background:
            return _start_detached(workspace, main, port)
    os.chdir(SOURCE_TREE)
    command = streamlit_command(main, free_port(port))
    os.execve(command[0], command, _environment(workspace))


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
    _state_path(workspace).unlink(missing_ok=True)
    return True


def find_dashboard(workspace: Workspace) -> Dashboard | None:
    """The detached dashboard of this workspace, if its process lives and answers."""
    try:
        state = json.loads(_state_path(workspace).read_text())
        pid, created, port = int(state["pid"]), float(state["create_time"]), int(state["port"])
        alive = abs(psutil.Process(pid).create_time() - created) < 1
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return Dashboard(f"http://{HOST}:{port}", pid, reused=True) if alive and is_healthy(port) else None


def find_app() -> Path:
    """The Streamlit entry script of the source tree."""
    main = SOURCE_TREE / "app" / "main.py"
    if not main.is_file() or not (SOURCE_TREE / "pages").is_dir():
        raise ServerError(
            f"{main}: not there; the dashboard's pages are part of the source tree, so run `lark serve` from an "
            "editable install of a checkout (pip install -e .)"
        )
    return main


def streamlit_command(main: Path, port: int) -> list[str]:
    """The command that serves the app; what keeps it private is said here too, so that no other config undoes it."""
    return [
        sys.executable, "-m", "streamlit", "run", str(main), "--server.port", str(port), "--server.address", HOST,
        "--server.headless", "true", "--browser.gatherUsageStats", "false",
    ]  # fmt: skip


def free_port(first: int) -> int:
    """The first free port from `first` on."""
    for port in range(first, min(first + _PORTS_TO_TRY, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise ServerError(f"no free port between {first} and {first + _PORTS_TO_TRY - 1}; choose another with --port")


def is_healthy(port: int, timeout_s: float = 2.0) -> bool:
    """Whether a Streamlit server answers on this port of the loopback interface."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _start_detached(workspace: Workspace, main: Path, port: int) -> Dashboard:
    log_path = workspace.root / "logs" / "dashboard.log"
    port = free_port(port)
    with disk_errors(log_path), log_path.open("wb") as output:
        process = subprocess.Popen(
            streamlit_command(main, port), cwd=SOURCE_TREE, env=_environment(workspace), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not is_healthy(port) or process.poll() is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            last = log_path.read_text(errors="replace").strip().splitlines()[-3:]
            raise ServerError(
                f"the dashboard did not start on port {port}: {' / '.join(last) or 'no output'}; the whole output is "
                f"in {log_path}"
            )
        time.sleep(0.1)
    created = psutil.Process(process.pid).create_time()
    write_json(_state_path(workspace), {"pid": process.pid, "create_time": created, "port": port})
    log.debug("dashboard of %s at http://%s:%d (process %d)", workspace.root, HOST, port, process.pid)
    return Dashboard(f"http://{HOST}:{port}", process.pid, reused=False)


def _environment(workspace: Workspace) -> dict[str, str]:
    # It outlives the job that it may be started from, and what is started from it is none of that job's.
    inherited = {name: value for name, value in os.environ.items() if name not in FOLDER_MARKS}
    return {**SERVER_MEMORY, **inherited, HOME_VARIABLE: str(workspace.root)}


def _state_path(workspace: Workspace) -> Path:
    return workspace.root / "logs" / "dashboard.json"


@contextlib.contextmanager
def _one_at_a_time(workspace: Workspace) -> Iterator[None]:
    """Two commands that want the same dashboard start one."""
    path = _state_path(workspace).with_name("dashboard.lock")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
