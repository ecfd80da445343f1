"""Files that the browser loads by themselves: the chart library, and training sets and logs of jobs as streams.

A download through Streamlit is read into the memory of the server and stays there; these routes send a file in parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import plotly
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import config

from app.components.board import PLOTLY_ROUTE
from app.session import current_workspace
from lark_engine.jobs.folder import all_jobs
from lark_engine.selection.export import as_prompt_completion
from lark_engine.selection.select import TRAIN
from lark_engine.store.atomic import open_regular
from lark_engine.store.workspace import slug

_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_FOREVER = {"cache-control": "public, max-age=31536000, immutable"}
_ID = re.compile(r"[A-Za-z0-9._@+-]{1,200}")
EXPORT = "/lark/selections/{selection}/train.jsonl"
LOG = "/lark/jobs/{job}/output.log"


def export_path(selection: str, train_format: str = "messages") -> str:
    """The address of a saved selection's training set, from the server's root."""
    return EXPORT.replace("{selection}", selection) + f"?format={train_format}"


def log_path(job_id: str) -> str:
    """The address of the whole log of a job, from the server's root."""
    return LOG.replace("{job}", job_id)


def plotly_library(request: Request) -> Response:
    """The chart library of the installed package; its version is part of the address."""
    return FileResponse(_PLOTLY, media_type="text/javascript", headers=_FOREVER)


def train_file(request: Request) -> Response:
    """train.jsonl of a selection of this workspace, as it lies there or as prompt and completion."""
    name, train_format = request.path_params["selection"], request.query_params.get("format", "messages")
    if not _ID.fullmatch(name) or train_format not in ("messages", "prompt-completion"):
        return PlainTextResponse("no such selection or format", status_code=404)
    known = {artifact.id: artifact.path / TRAIN for artifact in current_workspace().list("selections")}
    if name not in known or not known[name].is_file():
        return PlainTextResponse(f"no selection {name} in this workspace", status_code=404)
    path, shown = known[name], f"{slug(name, 100)}.jsonl"
    if train_format == "messages":
        return FileResponse(path, media_type="application/jsonl", filename=shown)
    headers = {"content-disposition": f'attachment; filename="{shown}"'}
    return StreamingResponse(_blocks(as_prompt_completion(path)), media_type="application/jsonl", headers=headers)


def job_log(request: Request) -> Response:
    """The log of a job of this workspace, as long as it is when it is asked for."""
    name = request.path_params["job"]
    job = next((job for job in all_jobs(current_workspace().root) if job.id == name), None)
    try:
        file = open_regular(job.log_path) if job and _ID.fullmatch(name) else None
    except OSError:
        file = None
    if file is None:
        return PlainTextResponse(f"no log of a job {name} in this workspace", status_code=404)
    headers = {"content-disposition": f'attachment; filename="{slug(name, 100)}.log"'}
    return StreamingResponse(_bytes_of(file), media_type="text/plain; charset=utf-8", headers=headers)


def _bytes_of(file: IO[bytes], size: int = 1 << 20) -> Iterator[bytes]:
    """What a file holds now, in parts; what a live job adds meanwhile is not waited for."""
    with file:
        left = os.fstat(file.fileno()).st_size
        while left > 0 and (part := file.read(min(size, left))):
            left -= len(part)
            yield part


def _blocks(lines: Iterator[str], size: int = 1 << 20) -> Iterator[bytes]:
    """Lines joined to parts of about a megabyte: a message for each line would take a hundred times as long."""
    part, length = [], 0
    for line in lines:
        part.append(line)
        length += len(line)
        if length >= size:
            yield "".join(part).encode()
            part, length = [], 0
    yield "".join(part).encode()


def _allowed_hosts() -> list[str]:
    return list(config.get_option("server.allowedHosts") or ["*"])


ROUTES = [Route(PLOTLY_ROUTE, plotly_library), Route(EXPORT, train_file), Route(LOG, job_log)]
# Streamlit checks the Host of its websocket only; a name that an attacker points at 127.0.0.1 must get no file either.
HOST_CHECK = Middleware(TrustedHostMiddleware, allowed_hosts=_allowed_hosts(), www_redirect=False)


class _AnnounceLibrary:
    """Tells the browser of the chart library with the page itself: it arrives while Streamlit's scripts start."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def announce(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.append("link", f"<{PLOTLY_ROUTE}>; rel=preload; as=script")
            await send(message)

        await self.app(scope, receive, announce if scope["type"] == "http" else send)


MIDDLEWARE = [HOST_CHECK, Middleware(_AnnounceLibrary)]
