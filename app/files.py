"""Files that the browser loads by themselves: the chart library; as streams training sets, logs, reports and bundles.

A download through Streamlit is read into the memory of the server and stays there; these routes send a file in parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import plotly
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from app.components.board import PLOTLY_ROUTE
from app.session import current_workspace
from lark_engine.jobs.folder import all_jobs
from lark_engine.selection.export import as_prompt_completion
from lark_engine.selection.select import TRAIN
from lark_engine.sharing.shared import find_shared
from lark_engine.store.atomic import open_regular
from lark_engine.store.workspace import slug

_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_FOREVER = {"cache-control": "public, max-age=31536000, immutable"}
_ID = re.compile(r"[A-Za-z0-9._@+-]{1,200}")
EXPORT = "/lark/selections/{selection}/train.jsonl"
LOG = "/lark/jobs/{job}/output.log"
SHARED_FILE = "/lark/shared/{name}"
# What is handed on is saved, never shown: a report is a page, and ours must not be its origin.
_SHARED_TYPES = {
    ".zip": "application/zip", ".html": "text/html; charset=utf-8", ".md": "text/markdown; charset=utf-8",
    ".csv": "text/csv; charset=utf-8", ".tex": "application/x-tex; charset=utf-8",
}  # fmt: skip


def export_path(selection: str, train_format: str = "messages") -> str:
    """The address of a saved selection's training set, from the server's root."""
    return EXPORT.replace("{selection}", selection) + f"?format={train_format}"


def log_path(job_id: str) -> str:
    """The address of the whole log of a job, from the server's root."""
    return LOG.replace("{job}", job_id)


def shared_path(name: str) -> str:
    """The address of a report or bundle, from the server's root."""
    return SHARED_FILE.replace("{name}", quote(name, safe=""))


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


def shared_file(request: Request) -> Response:
    """A report or bundle that was made in this workspace, to be saved by the browser."""
    name = request.path_params["name"]
    found = find_shared(current_workspace(), name) if _ID.fullmatch(name) else None
    media_type = _SHARED_TYPES.get(found.path.suffix) if found else None
    try:
        file = open_regular(found.path) if found and media_type else None
    except OSError:
        file = None
    if file is None:
        return PlainTextResponse("no such file is shared from this workspace", status_code=404)
    headers = {
        "content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff",
        "content-length": str(os.fstat(file.fileno()).st_size),
    }  # fmt: skip
    return StreamingResponse(_bytes_of(file), media_type=media_type, headers=headers)


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


ROUTES = [
    Route(PLOTLY_ROUTE, plotly_library), Route(EXPORT, train_file), Route(LOG, job_log),
    Route(SHARED_FILE, shared_file),
]  # fmt: skip
