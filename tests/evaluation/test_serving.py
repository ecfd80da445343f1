"""The server's life, with a small stand-in for vLLM; the real one is in test_vllm.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from lark_engine.errors import DeviceError, ServerError
from lark_engine.evaluation import serving
from lark_engine.evaluation.serving import (
    ServerOptions,
    VllmServer,
    cpu_cache_gib,
    last_meaningful_line,
    max_lora_rank,
    session_processes,
    vllm_command,
)

# A server with a child that ignores TERM, as a hanging engine would.
_STAND_IN = """
import http.server, subprocess, sys
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", stubborn])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(serving, "require_vllm", lambda: None)
    monkeypatch.setattr(
        serving, "vllm_command", lambda _base, _adapters, port, _o: [sys.executable, "-c", code, str(port)]
    )


def server(tmp_path: Path, start_timeout_s: float = 20.0) -> VllmServer:
    options = ServerOptions(start_timeout_s=start_timeout_s)
    return VllmServer(base=tmp_path, adapters={}, log_path=tmp_path / "logs" / "server.log", options=options)


@pytest.mark.slow
def test_server_is_healthy_inside_and_gone_after_with_all_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, _STAND_IN)
    monkeypatch.setattr(serving, "_STOP_TIMEOUT_S", 0.5)
    with pytest.raises(KeyboardInterrupt), server(tmp_path) as running:
        assert httpx.get(running.url.removesuffix("/v1") + "/health").status_code == 200
        assert running._process is not None
        session = running._process.pid
        assert len(session_processes(session)) == 3
        assert session != os.getsid(0)
        raise KeyboardInterrupt
    assert session_processes(session) == []
    with pytest.raises(ServerError, match="is stopped"):
        running.check()


def test_a_server_that_dies_is_quoted_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "raise ValueError('no such architecture: Foo')")
    with pytest.raises(ServerError, match=r"ValueError: no such architecture: Foo; its whole log is .*server\.log"):
        server(tmp_path).__enter__()


def test_a_server_that_is_never_healthy_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import time; print('loading', flush=True); time.sleep(60)")
    slow = server(tmp_path, start_timeout_s=1.0)
    with pytest.raises(ServerError, match="not healthy within 1 s: loading; raise --start-timeout-s"):
        slow.__enter__()
    assert not [p for p in psutil.process_iter(["cmdline"]) if "print('loading'" in " ".join(p.info["cmdline"] or [])]


_PARENT = """
import subprocess, sys, time
command = [sys.executable, "-m", "lark_engine.leash", sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_the_server_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    session = int(parent.stdout.readline())
    deadline = time.monotonic() + 10
    while len(session_processes(session)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(session_processes(session)) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while session_processes(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session_processes(session) == []


def test_the_leash_passes_on_the_exit_status() -> None:
    command = [sys.executable, "-m", "lark_engine.leash", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(20) == 7


def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ServerError, match=r"lark-studio\[gpu\].*--backend transformers"):
        server(tmp_path).__enter__()


def test_a_device_that_the_build_does_not_run_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "vllm_device", lambda: "cpu")
    serving.check_device("auto")
    serving.check_device("cpu")
    with pytest.raises(DeviceError, match="--device cuda was asked for"):
        serving.check_device("cuda")


def adapter(folder: Path, **config: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_the_smallest_allowed_rank_that_holds_every_adapter(tmp_path: Path) -> None:
    small, large = adapter(tmp_path / "a", r=4), adapter(tmp_path / "b", r=8, rank_pattern={"q_proj": 40})
    assert max_lora_rank([small]) == 8
    assert max_lora_rank([small, large]) == 64
    with pytest.raises(ServerError, match="rank 1000 is more than vLLM serves"):
        max_lora_rank([adapter(tmp_path / "c", r=1000)])
    with pytest.raises(ServerError, match="no readable adapter_config"):
        max_lora_rank([tmp_path])


def test_command_is_an_argument_list_with_adapters_by_name(tmp_path: Path) -> None:
    odd = adapter(tmp_path / "odd; name=x", r=16)
    options = ServerOptions(dtype="float16", max_model_len=512, tensor_parallel_size=2)
    command = vllm_command(Path("/m"), {"one": odd}, 8000, options)
    text = " ".join(command)
    assert "--host 127.0.0.1 --port 8000 --dtype float16 --tensor-parallel-size 2" in text
    assert "--max-model-len 512" in text
    assert "--enable-lora --max-lora-rank 16 --max-loras 1" in text
    assert json.loads(command[-1]) == {"name": "one", "path": str(odd)}
    assert "--trust-remote-code" not in command
    assert "--enable-lora" not in vllm_command(Path("/m"), {}, 8000, options)


def test_cache_size_follows_the_model(tmp_path: Path) -> None:
    config = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "num_hidden_layers": 32}
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8192}))
    assert cpu_cache_gib(tmp_path, 1024) == 1
    assert cpu_cache_gib(tmp_path, 4096) == 4
    assert cpu_cache_gib(tmp_path / "absent", None) == 4


def test_the_last_meaningful_line_is_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        "(EngineCore pid=5) ERROR 11-23 06:15:34 [core.py:1] Traceback (most recent call last):\n"
        "(EngineCore pid=5) ERROR 11-23 06:15:34 [core.py:1] ValueError: max seq len 8192 needs 2 GiB: too much\n"
        "(APIServer pid=4) RuntimeError: Engine core initialization failed. See root cause above.\n\n"
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace above.\n"
    )
    assert last_meaningful_line(path) == "ValueError: max seq len 8192 needs 2 GiB: too much"
    assert last_meaningful_line(tmp_path / "absent") == "it wrote no log"
