"""Logging in to a server that asks who comes: a token is exchanged for a cookie, or the organization says who it is."""

from __future__ import annotations

import html
import logging
import time
from collections import OrderedDict, deque
from pathlib import Path
from string import Template
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import Receive, Scope
from streamlit.auth_util import encode_provider_token

from app.visitors import cookie_name, exposure, guests
from lark_engine.access import Visitor
from lark_engine.sharing.tokens import COOKIE_AGE_S

log = logging.getLogger(__name__)

LOGIN, LOGOUT = "/lark/login", "/lark/logout"
_MOST_FORM_BYTES = 10_000
_PAGE = Path(__file__).parent / "static" / "login.html"


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


class Login:
    """Lets people in: by the token of a link or of the form, or at the organization."""

    def __init__(self) -> None:
        self.attempts = Attempts()

    async def answer(self, scope: Scope, receive: Receive, visitor: Visitor | None) -> Response | None:
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
        return self._exchange(token.strip(), local(target), scope, visitor)

    def _exchange(self, token: str, target: str, scope: Scope, visitor: Visitor | None) -> Response:
        """A cookie for a token. Who is known already comes through, whatever others at that address have tried."""
        address = address_of(scope)
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


def not_logged_in(scope: Scope, headers: Headers) -> Response:
    if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
        query = scope["query_string"].decode("latin-1")
        return login_page(local(quote(scope["path"]) + (f"?{query}" if query else "")))
    return PlainTextResponse("not logged in", status_code=401)


def local(target: str) -> str:
    """A place on this server; anything else becomes its first page, so that a link leads nowhere else."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    is_here = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return target if is_here and target.isprintable() else "/"


def address_of(scope: Scope) -> str:
    """Where a request comes from."""
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
