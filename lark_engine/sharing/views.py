"""Saved views: addresses of pages kept in the workspace under a short id, to be opened again and sent to others.

    views/<id>.json   {id, name, page, params, author, created_at, note}

Anybody who may write into that folder may have written anything into it: what is read is checked as a stranger's.
Who may save may also rename any view, and remove what they saved themselves; what others saved takes `delete`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import string
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lark_engine import access
from lark_engine.errors import ConfigError, LarkError, StoreError
from lark_engine.store.atomic import disk_errors, fsync_dir, open_regular, write_text
from lark_engine.store.lock import lock

VIEWS = "views"
Page = Literal["overview", "score", "explore", "trajectory", "tune", "train", "evaluate", "jobs", "share"]
PAGES: tuple[Page, ...] = get_args(Page)
SAVED = "saved"
"""The parameter of an address that opens a saved view."""
MOST_VIEWS = 1000
MOST_BYTES = 64_000
MOST_PARAMS = 300
MOST_QUERY = 32_000
"""Letters of the address that a view opens; the server reads twice as many."""
MOST_NAME = 120
# Parameters that are no part of what a page shows: which view to open, who comes, and how Streamlit frames itself.
_RESERVED = (SAVED, "token", "embed", "embed_options")
_ID = re.compile(r"[a-z]{8,32}")
_ID_LETTERS = 12

Value = Annotated[str, StringConstraints(max_length=MOST_QUERY)]
ParamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.]{0,79}$")]


class SavedView(BaseModel):
    """A view of a page: its parameters in their order, one entry for each value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[a-z]{8,32}$")]
    name: Annotated[str, StringConstraints(min_length=1, max_length=MOST_NAME)]
    page: Page
    params: Annotated[tuple[tuple[ParamName, Value], ...], Field(max_length=MOST_PARAMS)]
    author: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    created_at: AwareDatetime
    note: Annotated[str, StringConstraints(max_length=1000)] = ""

    @model_validator(mode="after")
    def _opens(self) -> SavedView:
        for name, _ in self.params:
            if name in _RESERVED:
                raise ValueError(f"the parameter {name} is no part of a view")
        if len(self.query) > MOST_QUERY:
            raise ValueError(f"its address is longer than {MOST_QUERY:,} letters")
        return self

    @property
    def query(self) -> str:
        """The parameters as they stand in an address."""
        return urlencode(self.params)

    @property
    def link(self) -> str:
        """The address that opens this view, from the root of the server."""
        return f"{_path_of(self.page)}?{SAVED}={self.id}"


class Views(NamedTuple):
    """The saved views, newest first, and a sentence for each file that is none."""

    views: list[SavedView]
    problems: list[str]


class Place(NamedTuple):
    """What an address shows: a page and its parameters."""

    page: Page
    params: tuple[tuple[str, str], ...]

    @property
    def address(self) -> str:
        """The address, from the root of the server."""
        return f"/{_path_of(self.page)}?{urlencode(self.params)}"


def place_of(address: str) -> Place:
    """The page and the parameters of an address, with or without its host. Errors: `ConfigError`."""
    try:
        parts = urlsplit(address.strip())
        params = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=MOST_PARAMS)
    except ValueError as error:
        raise ConfigError(
            f"{address[:120]}: cannot be read as an address ({error}); copy it from the browser"
        ) from error
    last = parts.path.rstrip("/").rpartition("/")[2] or "overview"
    page = next((page for page in PAGES if page == last), None)
    if page is None:
        raise ConfigError(f"{address[:120]}: {last[:40]!r} is no page; pages are {', '.join(PAGES)}")
    return Place(page, in_order(params))


def _path_of(page: Page) -> str:
    return "" if page == "overview" else page


def in_order(params: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Parameters by name, the values of each in their order: two addresses that show the same are equal."""
    return tuple(sorted(params, key=lambda param: param[0]))


def save_view(root: Path, *, name: str, page: str, params: Sequence[tuple[str, str]], note: str = "") -> SavedView:
    """Keep a view in the workspace. Its author is who acts.

    Errors: `AccessError` without `save`; `ConfigError` for what cannot be one; `StoreError` when there are too many.
    """
    view_id = "".join(secrets.choice(string.ascii_lowercase) for _ in range(_ID_LETTERS))
    with access.action(root, "save", "view.save", view=view_id, page=page) as who:
        view = _checked({
            "id": view_id, "name": " ".join(name.split()), "page": page, "params": in_order(params),
            "author": who.name, "created_at": datetime.now(UTC).replace(microsecond=0), "note": note.strip(),
        })  # fmt: skip
        folder = root / VIEWS
        with lock(folder):
            if len(_files(folder)) >= MOST_VIEWS:
                raise StoreError(f"{folder}: holds {MOST_VIEWS:,} views; remove some: lark views list")
            _write(folder, view)
    return view


def rename_view(root: Path, view_id: str, name: str) -> SavedView:
    """Give a view another name; its links stay. Errors: as `save_view`, and `StoreError` for one that is not there."""
    with access.action(root, "save", "view.rename", view=view_id[:40]):
        _path(root, view_id)
        with lock(root / VIEWS):
            view = _checked({**dict(find_view(root, view_id)), "name": " ".join(name.split())})
            _write(root / VIEWS, view)
    return view


def remove_view(root: Path, view_id: str) -> None:
    """Remove a view for good: its links say then that it is gone. A damaged one takes `delete`, as those of others do.

    Errors: `AccessError`; `StoreError` for one that is not there.
    """
    path = _path(root, view_id)
    needed = capability_to_remove(root, view_id)
    with access.action(root, needed, "view.remove", view=view_id), lock(root / VIEWS), disk_errors(path):
        try:
            path.unlink(missing_ok=True)
        except IsADirectoryError:
            raise StoreError(f"{path}: is a folder, which no view is; remove it yourself") from None
        fsync_dir(path.parent)


def capability_to_remove(root: Path, view_id: str) -> Literal["save", "delete"]:
    """What one must be allowed to remove this view. Errors: `StoreError` for one that is not there."""
    try:
        return _needed(find_view(root, view_id))
    except StoreError:
        _path(root, view_id)
        return "delete"


def why_not_remove(view: SavedView) -> str:
    """Why the one who acts may not remove this view; empty when they may."""
    return access.visitor().why_not(_needed(view))


def find_view(root: Path, view_id: str) -> SavedView:
    """The view of an id. Errors: `StoreError` for one that is not there or is damaged."""
    return _read(_path(root, view_id))


def read_views(root: Path) -> Views:
    """All views, newest first; a file that is none is named, and the others are read."""
    folder = root / VIEWS
    names = _files(folder)
    views, problems = [], []
    for name in names[:MOST_VIEWS]:
        try:
            views.append(_read(folder / name))
        except LarkError as error:
            problems.append(str(error))
    if len(names) > MOST_VIEWS:
        problems.append(f"{folder}: of {len(names):,} files the first {MOST_VIEWS:,} by name are read; remove some")
    return Views(sorted(views, key=lambda view: (view.created_at, view.id), reverse=True), problems)


def names_shown(views: Iterable[SavedView]) -> set[str]:
    """What the parameters of views name, with the parts of paths: the ids of artifacts among them."""
    values = [value for view in views for _, value in view.params]
    return {part for value in values for part in re.split(r"[/=&]", value) if part}


def _needed(view: SavedView) -> Literal["save", "delete"]:
    return "save" if view.author == access.visitor().name else "delete"


def _path(root: Path, view_id: str) -> Path:
    """The file of a view. Errors: `StoreError` when there is none."""
    path = root / VIEWS / f"{view_id}.json"
    if not _ID.fullmatch(view_id) or not os.path.lexists(path):
        raise StoreError(
            f"no view {view_id[:40]!r} is in this workspace: it was removed, or its link is of another one; those that "
            "are here: lark views list"
        )
    return path


def _files(folder: Path) -> list[str]:
    """The names of the files that could be views."""
    try:
        with disk_errors(folder), os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name.endswith(".json") and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> SavedView:
    """Errors: `StoreError` with the place for a file that is no view, whatever it is."""
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); mend or remove it") from error
    if len(content) > MOST_BYTES:
        raise StoreError(f"{path}: holds more than {MOST_BYTES:,} bytes, and no view does; remove it")
    try:
        view = SavedView.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(f"{path}: is no view ({_first(error)}); remove it") from error
    if path.name != f"{view.id}.json":
        raise StoreError(f"{path}: says that it is {view.id}.json; give it that name, or remove it")
    return view


def _checked(values: dict[str, Any]) -> SavedView:
    """Errors: `ConfigError` with what is wrong."""
    try:
        return SavedView.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"this cannot be saved as a view: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """The first mistake in words of the model, without what was given."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"]).removeprefix("Value error, ")


def _write(folder: Path, view: SavedView) -> None:
    """Errors: `ConfigError` for one that would be too large to be read again."""
    text = json.dumps(view.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    if len(text.encode()) > MOST_BYTES:
        raise ConfigError(f"this cannot be saved as a view: it takes more than {MOST_BYTES:,} bytes")
    write_text(folder / f"{view.id}.json", text)
