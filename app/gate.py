"""What stands before every route, Streamlit's own included: who is let in, from where, and what browsers are told.

In this order, for HTTP and websockets alike: the name by which the server is called; requests that another site makes a
browser send; the login; and uploads, which only those who may start something can make. What is refused reaches nothing
behind it.
"""

from __future__ import annotations

import html
import logging
import time
from collections import OrderedDict, deque
from pathlib import Path
from string import Template
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from google.protobuf.message import DecodeError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.auth_util import encode_provider_token
from streamlit.proto.BackMsg_pb2 import BackMsg

from app.components.board import PLOTLY_ROUTE
from app.visitors import cookie_name, exposure, guests, identify
from lark_engine.access import Visitor
from lark_engine.errors import StoreError
from lark_engine.sharing.tokens import COOKIE_AGE_S

log = logging.getLogger(__name__)

LOGIN, LOGOUT = "/lark/login", "/lark/logout"
# What says nothing about the workspace: whether the server lives, and Streamlit's part of logging in elsewhere.
_OPEN = {"/_stcore/health", LOGIN, LOGOUT}
_OPEN_WITH_OIDC = {"/auth/login", "/auth/logout", "/oauth2callback"}
_UPLOADS = "/_stcore/upload_file"
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_MOST_FORM_BYTES = 10_000
# Of one message of a page: the state of its widgets. A session holds the last ones.
_MOST_MESSAGE_BYTES = 1 << 20
_SMALL_MESSAGE_BYTES = 200
_PAGE = Path(__file__).parent / "static" / "login.html"
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


class Attempts:
    """Wrong tokens of each address within a minute: ten, and then none is looked at for a while."""

    MOST, WINDOW_S, _MOST_ADDRESSES = 10, 60.0, 10_000

    def __init__(self) -> None:
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long this address has to wait; 0 when it need not."""
        times = self._failed.get(address, deque())
        now = time.monotonic()
        while times and now - times[0] > self.WINDOW_S:
            times.popleft()
        return self.WINDOW_S - (now - times[0]) if len(times) >= self.MOST else 0.0

    def failed(self, address: str) -> None:
        """Count one."""
        self._failed.setdefault(address, deque(maxlen=self.MOST)).append(time.monotonic())
        self._failed.move_to_end(address)
        while len(self._failed) > self._MOST_ADDRESSES:  # addresses cost an attacker with IPv6 nothing
            self._failed.popitem(last=False)


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
        self.attempts = Attempts()
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
            visitor = identify(_cookies(headers), _address(scope))
            if exposure().auth != "none" and scope["type"] == "http":
                answer = await self._login(scope, receive, visitor)
                if answer is not None:
                    return answer
        except StoreError as error:
            log.error("nobody can be let in: %s", error)
            return PlainTextResponse("nobody can be let in: see the log of the server", status_code=503)
        if visitor is None:
            return None if _is_open(path) else _not_logged_in(scope, headers)
        if path.startswith(_UPLOADS) and method not in _SAFE_METHODS and "launch" not in visitor.may:
            return PlainTextResponse(f"no uploads: {visitor.because}", status_code=403)
        return visitor

    async def _login(self, scope: Scope, receive: Receive, visitor: Visitor | None) -> Response | None:
        """Log in or out: by the token of a link or of the form, or at the organization. None: this is neither."""
        request = Request(scope, receive)
        if scope["path"] == LOGOUT:
            answer: Response = RedirectResponse("/", status_code=303)
            answer.delete_cookie(cookie_name())
            return answer
        if exposure().auth == "oidc":
            return _to_provider(visitor) if scope["path"] == LOGIN else None
        token, target = request.query_params.get("token"), "/"
        if scope["path"] == LOGIN and request.method == "POST":
            form = dict(parse_qsl((await _body(request)).decode("utf-8", "replace")))
            token, target = form.get("token", ""), form.get("next", "/")
        elif token is not None and request.method == "GET":
            kept = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
            target = quote(scope["path"]) + (f"?{urlencode(kept)}" if kept else "")
        else:
            return login_page("/", status=200) if scope["path"] == LOGIN else None
        return self._exchange(token.strip(), _local(target), scope, visitor)

    def _exchange(self, token: str, target: str, scope: Scope, visitor: Visitor | None) -> Response:
        """A cookie for a token. Who is known already comes through, whatever others at that address have tried."""
        address = _address(scope)
        if visitor is None and (wait_s := self.attempts.wait_s(address)) > 0:
            after = {"retry-after": str(int(wait_s) + 1)}
            return PlainTextResponse("too many wrong tokens; wait a minute", status_code=429, headers=after)
        guest = guests().holder(token)
        if guest is None:
            self.attempts.failed(address)
            log.warning("refused: a wrong token from %s", address)
            return login_page(target, "This token is not valid, or was replaced by another one.", 403)
        answer = RedirectResponse(target, status_code=303, headers={"cache-control": "no-store"})
        answer.set_cookie(
            cookie_name(), guests().cookie(guest), max_age=COOKIE_AGE_S, httponly=True, samesite="lax",
            secure=scope["scheme"] == "https",
        )  # fmt: skip
        log.info("%s (%s) came in from %s", guest.name, guest.role, address)
        return answer


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


def login_page(target: str, said: str = "", status: int = 401) -> Response:
    """The form for a token, or the way to the organization's login."""
    if exposure().auth == "oidc":
        how, way = "Log in with the account of your organization.", f'<a class="button" href="{LOGIN}">Log in</a>'
    else:
        how = "Open the link that you were sent, or type the token that came with it."
        way = (
            f'<form method="post" action="{LOGIN}"><label for="token">Token</label>'
            '<input id="token" name="token" type="password" autocomplete="off" required autofocus>'
            f'<input type="hidden" name="next" value="{html.escape(target)}"><button>Open</button></form>'
        )
    alert = f'<p role="alert">{html.escape(said)}</p>' if said else ""
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(how=how, said=alert, way=way)
    return HTMLResponse(page, status_code=status, headers={"cache-control": "no-store"})


def _to_provider(known: Visitor | None) -> Response:
    """Begin the login of an organization, which Streamlit does; it takes the way to it as a token of two minutes."""
    if known is not None:
        return RedirectResponse("/", status_code=303)
    return RedirectResponse(f"/auth/login?provider={quote(encode_provider_token('default'))}", status_code=303)


def _not_logged_in(scope: Scope, headers: Headers) -> Response:
    if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
        query = scope["query_string"].decode("latin-1")
        return login_page(_local(quote(scope["path"]) + (f"?{query}" if query else "")))
    return PlainTextResponse("not logged in", status_code=401)


def _is_open(path: str) -> bool:
    return path in _OPEN or (exposure().auth == "oidc" and path in _OPEN_WITH_OIDC)


def _local(target: str) -> str:
    """A place on this server; anything else becomes its first page, so that a link leads nowhere else."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    is_here = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return target if is_here and target.isprintable() else "/"


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


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "this machine"


async def _body(request: Request) -> bytes:
    """A small form; what is longer is cut, and is then no token."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_FORM_BYTES:
            return b""
    return body


def _is_plain(host: str) -> bool:
    return bool(host) and all(letter.isalnum() or letter in ".-:[]" for letter in host)


MIDDLEWARE = [Middleware(SafeHeaders), Middleware(Gate)]
