"""A small OpenAI-compatible server for tests: as fast, as slow and as faulty as a test wants it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class FakeServer:
    """Answers every chat with `\\boxed{<seed>}`, or with the next of `failures` (status, body) first."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: ["fake"])
    failures: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    message: dict[str, Any] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    pieces: list[str | dict[str, str]] = field(default_factory=list)
    broken_streams: int = 0
    retry_after: str | None = None
    most_in_flight: int = 0
    in_flight: int = 0
    pause_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.requests.append(body)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            failure = self.failures.pop(0) if self.failures else None
        threading.Event().wait(self.pause_s)
        with self.lock:
            self.in_flight -= 1
        if failure:
            return failure
        message = self.message or {"content": rf"\boxed{{{body['seed']}}}"}
        return 200, {
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": {"completion_tokens": 7},
        }

    def stream(self, body: dict[str, Any]) -> Iterator[str]:
        """The pieces of a streamed answer, one token each; a broken stream ends after the first."""
        self.requests.append(body)
        broken, self.broken_streams = self.broken_streams > 0, self.broken_streams - 1
        for count, piece in enumerate(self.pieces, start=1):
            delta = {"content": piece} if isinstance(piece, str) else piece
            choice = {"delta": delta, "finish_reason": None}
            yield json.dumps({"choices": [choice], "usage": {"completion_tokens": count}})
            if broken:
                return
        yield json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        yield json.dumps({"choices": [], "usage": {"completion_tokens": len(self.pieces)}})
        yield "[DONE]"


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _send(self, status: int, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if fake.retry_after:
                self.send_header("Retry-After", fake.retry_after)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": name} for name in fake.models]})

        def do_POST(self) -> None:
            fake.keys[str(self.headers.get("Authorization"))] += 1
            fake.hosts[str(self.headers.get("Host"))] += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not body.get("stream"):
                return self._send(*fake.answer(body))
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(ConnectionError):  # the client may hang up
                for event in fake.stream(body):
                    self.wfile.write(f"data: {event}\n\n".encode())
                    self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed on purpose
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    server.shutdown()
    server.server_close()
