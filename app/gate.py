"""What stands before every route, Streamlit's own included: who is let in, from where, and what browsers are told.

In this order, for HTTP and websockets alike: the name by which the server is called; requests that another site makes a
browser send; the login; and uploads, which only those who may start something can make. What is refused reaches nothing
behind it.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg

from app.components.board import PLOTLY_ROUTE
from app.login import LOGIN, LOGOUT, Login, address_of, not_logged_in
from app.visitors import exposure, identify
from lark_engine.access import Visitor
from lark_engine.errors import StoreError

log = logging.getLogger(__name__)

# What says nothing about the workspace: whether the server lives, and Streamlit's part of logging in elsewhere.
_OPEN = {"/_stcore/health", LOGIN, LOGOUT}
_OPEN_WITH_OIDC = {"/auth/login", "/auth/logout", "/oauth2callback"}
_UPLOADS = "/_stcore/upload_file"
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
# Of one message of a page: the state of its widgets. A session holds the last ones.
_MOST_MESSAGE_BYTES = 1 << 20
_SMALL_MESSAGE_BYTES = 200
# Streamlit's page begins with a script in it and loads components from blobs; nothing comes from anywhere else.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "connect-src 'self' {sockets}; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-frame-options": "DENY", "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}  # fmt: skip


class SafeHeaders:
    """Headers that keep a browser from being used against the page, on every answer; and the chart library with it."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                host = Headers(scope=scope).get("host", "")
                # Browsers differ in whether 'self' means the sockets of this server too.
                sockets = f"ws://{host} wss://{host}" if _is_plain(host) else ""
                headers["content-security-policy"] = _POLICY.format(sockets=sockets)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if headers.get("content-type", "").startswith("text/html"):
                    headers.append("link", f"<{PLOTLY_ROUTE}>; rel=preload; as=script")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Gate:
    """Lets in who may come in; see the module."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.login = Login()
        self.open_sockets = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        found = await self._admit(scope, receive)
        if isinstance(found, Response):
            if scope["type"] == "http":
                await found(scope, receive, send)
            else:  # before it is accepted: the client sees the status 403
                await send({"type": "websocket.close", "code": 1008, "reason": "not let in"})
        elif scope["type"] == "websocket" and found is not None:
            await self._follow(scope, receive, send, found)
        else:
            await self.app(scope, receive, send)

    async def _follow(self, scope: Scope, receive: Receive, send: Send, visitor: Visitor) -> None:
        """A session of a page, unless there are as many as memory was measured for.

        Who only looks leaves some places to those who have work to do.
        """
        most = exposure().most_viewers
        if visitor.is_remote and not {"save", "launch"} & visitor.may:
            most -= max(1, most // 10)
        if self.open_sockets >= most:
            log.warning("refused: %d sessions are open", self.open_sockets)
            await send({"type": "websocket.close", "code": 1013, "reason": "too many visitors"})
            return
        self.open_sockets += 1

        async def limited() -> Message:
            while True:
                message = await receive()
                said = message.get("bytes") or b""
                if len(said) > _MOST_MESSAGE_BYTES:
                    log.warning("ended: a message of %d bytes from %s", len(said), visitor.name)
                    await send({"type": "websocket.close", "code": 1009})
                    return {"type": "websocket.disconnect", "code": 1009}
                # What is computed is everybody's: a message that drops it is not for whoever visits.
                if not (_drops_caches(said) and "admin" not in visitor.may):
                    return message

        try:
            await self.app(scope, limited, send)
        finally:
            self.open_sockets -= 1

    async def _admit(self, scope: Scope, receive: Receive) -> Response | Visitor | None:
        """Who comes in; None for somebody unknown at what is open to all; or what is answered instead of the route."""
        headers = Headers(scope=scope)
        method, path = scope.get("method", "GET"), scope["path"]
        if not is_allowed_host(headers.get("host")):
            return PlainTextResponse("Invalid host header", status_code=400)
        is_change = scope["type"] == "websocket" or method not in _SAFE_METHODS or path == LOGOUT
        if is_foreign(headers, is_change=is_change):
            log.warning("refused: a request that another site made a browser send")
            return PlainTextResponse("another site may not do this", status_code=403)
        try:
            visitor = identify(_cookies(headers), address_of(scope))
            if exposure().auth != "none" and scope["type"] == "http":
                answer = await self.login.answer(scope, receive, visitor)
                if answer is not None:
                    return answer
        except StoreError as error:
            log.error("nobody can be let in: %s", error)
            return PlainTextResponse("nobody can be let in: see the log of the server", status_code=503)
        if visitor is None:
            return None if _is_open(path) else not_logged_in(scope, headers)
        if path.startswith(_UPLOADS) and method not in _SAFE_METHODS and "launch" not in visitor.may:
            return PlainTextResponse(f"no uploads: {visitor.why_not('launch')}", status_code=403)
        return visitor


def is_allowed_host(host: str | None) -> bool:
    """Whether the server was called by a name of its own: one that only points here is none of them."""
    try:
        name = (urlsplit(f"//{host or ''}").hostname or "").rstrip(".")
    except ValueError:
        return False
    known = exposure().allowed_hosts
    return name in known or any(name.endswith(pattern[1:]) for pattern in known if pattern.startswith("*."))


def is_foreign(headers: Headers, *, is_change: bool) -> bool:
    """Whether a page of another site made the browser send this.

    Browsers name the origin of every websocket and of every request that changes something; programs name none.
    """
    if not is_change:
        return False
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True


def _is_open(path: str) -> bool:
    return path in _OPEN or (exposure().auth == "oidc" and path in _OPEN_WITH_OIDC)


def _cookies(headers: Headers) -> dict[str, str]:
    """As Streamlit's sessions read them, so that the gate and the page see the same visitor."""
    return cookie_parser(headers.get("cookie", ""))


def _drops_caches(said: bytes) -> bool:
    if not 0 < len(said) < _SMALL_MESSAGE_BYTES:
        return False
    message = BackMsg()
    try:
        message.ParseFromString(said)
    except DecodeError:
        return False
    return message.WhichOneof("type") == "clear_cache"


def _is_plain(host: str) -> bool:
    return bool(host) and all(letter.isalnum() or letter in ".-:[]" for letter in host)


MIDDLEWARE = [Middleware(SafeHeaders), Middleware(Gate)]
