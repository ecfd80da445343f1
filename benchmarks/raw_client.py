"""A client of a running dashboard without a browser: what anybody could send who reaches the port.

It speaks Streamlit's own protocol over a websocket, so that it can do what no page offers: press buttons that are
disabled or were never drawn, and open addresses with any parameters.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

TIMEOUT_S = 60.0


@dataclass
class Session:
    """A session with the server: what its page holds, and what has come so far, as bytes to look for things in."""

    socket: ClientConnection
    raw: list[bytes] = field(default_factory=list)
    widgets: dict[str, Any] = field(default_factory=dict)
    page_hash: str = ""

    def open(self, page: str = "", **params: object) -> None:
        """Run a page with these parameters of the address, until its script has ended."""
        self.widgets, self.raw = {}, []
        message = BackMsg()
        message.rerun_script.query_string = urlencode(params, doseq=True)
        message.rerun_script.page_name = page
        self._send(message)

    def press(self, widget_id: str) -> None:
        """Press a button, whether it is there, disabled or made up."""
        message = BackMsg()
        message.rerun_script.page_script_hash = self.page_hash
        state = message.rerun_script.widget_states.widgets.add()
        state.id, state.trigger_value = widget_id, True
        self._send(message)

    def says(self, text: str) -> bool:
        """Whether a text came anywhere in what the server sent since the page was opened."""
        return any(text.encode() in part for part in self.raw)

    def button(self, label: str) -> Any:
        """The button with this label as the server sent it."""
        found = [widget for widget in self.widgets.values() if widget.label == label]
        assert found, f"no button {label!r} among {sorted(w.label for w in self.widgets.values())}"
        return found[0]

    def _send(self, message: BackMsg) -> None:
        self.socket.send(message.SerializeToString())
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            data = self.socket.recv(timeout=TIMEOUT_S)
            assert isinstance(data, bytes)
            self.raw.append(data)
            answer = ForwardMsg()
            answer.ParseFromString(data)
            kind = answer.WhichOneof("type")
            if kind == "new_session":
                self.page_hash = answer.new_session.page_script_hash
            if kind == "delta" and answer.delta.WhichOneof("type") == "new_element":
                element = answer.delta.new_element
                if element.WhichOneof("type") == "button":
                    self.widgets[element.button.id] = element.button
            if kind == "script_finished" and answer.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return
        raise AssertionError("the page did not come to an end")


@contextlib.contextmanager
def session(address: str, *, cookie: str = "", **headers: str) -> Iterator[Session]:
    """A session with the dashboard at this address."""
    parts = urlsplit(address)
    scheme = "wss" if parts.scheme == "https" else "ws"
    sent = {**({"Cookie": cookie} if cookie else {}), **headers}
    with connect(
        f"{scheme}://{parts.netloc}/_stcore/stream", additional_headers=sent, subprotocols=["streamlit"],
        max_size=None, open_timeout=30, proxy=None,
    ) as socket:  # fmt: skip
        yield Session(socket)
