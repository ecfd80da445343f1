"""The dashboard's process: private, found again, and honest when it cannot start."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from lark_engine import serve as serving
from lark_engine.errors import ServerError
from lark_engine.serve import find_dashboard, free_port, is_healthy, serve, stop, streamlit_command
from lark_engine.sharing.exposure import Exposure
from lark_engine.store.workspace import Workspace


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert port < free_port(port) < port + 100


def test_the_command_listens_on_the_loopback_interface_only() -> None:
    command = streamlit_command(Path("/x/app/main.py"), 8501, Exposure())
    assert command[1:5] == ["-m", "streamlit", "run", "/x/app/main.py"]
    assert command[command.index("--server.address") + 1] == "127.0.0.1"


def test_without_the_source_tree_the_error_says_what_to_install(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serving, "SOURCE_TREE", tmp_path)
    with pytest.raises(ServerError, match="editable"):
        serve(workspace, open_in_background=True)


def test_a_reused_process_id_is_no_dashboard(workspace: Workspace) -> None:
    state = workspace.root / "logs" / "dashboard.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"pid": os.getpid(), "create_time": 1.0, "port": 1, "at": "http://127.0.0.1:1"}))
    assert find_dashboard(workspace) is None
    assert stop(workspace) is False


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": -1, "create_time": 0, "port": 1}'])
def test_a_damaged_state_file_is_no_dashboard(workspace: Workspace, content: str) -> None:
    state = workspace.root / "logs" / "dashboard.json"
    state.parent.mkdir(parents=True)
    state.write_text(content)
    assert find_dashboard(workspace) is None


def test_a_dashboard_that_dies_at_once_is_reported_with_its_last_words(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_words = [sys.executable, "-c", "raise SystemExit('no room on the ark')"]
    monkeypatch.setattr(serving, "streamlit_command", lambda main, port, how: last_words)
    with pytest.raises(ServerError, match="no room on the ark"):
        serve(workspace, open_in_background=True)


@pytest.mark.slow
def test_a_detached_dashboard_is_started_once_survives_its_starter_and_is_stopped(
    workspace: Workspace, tmp_path: Path
) -> None:
    script = (
        "from lark_engine.serve import serve; from lark_engine.store.workspace import Workspace;"
        f"d = serve(Workspace({str(workspace.root)!r}), port=8730, open_in_background=True); print(d.pid, d.address)"
    )
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=90)
    assert started.returncode == 0, started.stderr
    pid, address = started.stdout.split()
    try:
        again = serve(workspace, open_in_background=True)
        assert (str(again.pid), again.address, again.reused) == (pid, address, True)
        port = urlsplit(address).port
        assert port is not None and is_healthy(port)
        listening = [c.laddr.ip for c in psutil.Process(int(pid)).net_connections("tcp") if c.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/app/static/lark.css")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        assert stop(workspace) is True
    assert find_dashboard(workspace) is None
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == "zombie"
