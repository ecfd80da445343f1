"""Who acts, and what they may do: asked by every function that changes something, whatever interface called it.

On the command line the user of the machine acts, who may do everything. A server installs `resolve_with` once, and from
then on every action in its process is somebody's: who that is and what they may do follows from how the server was
started and whom it let in. Where nobody can be told, nothing is allowed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from lark_engine.errors import AccessError, ConfigError, StoreError
from lark_engine.people import user_name
from lark_engine.store.atomic import disk_errors, make_dir, open_in_place
from lark_engine.store.rows import append_durably, read_rows
from lark_engine.store.shown import require_own

log = logging.getLogger(__name__)

Capability = Literal["explore", "tune", "save", "launch", "cancel", "delete", "admin"]
"""explore: see everything; tune: solve selections; save: keep views, flags and disputes; launch: start jobs and upload;
cancel: stop jobs; delete: remove what is there; admin: tokens, and the record of who did what."""
Role = Literal["viewer", "editor", "operator", "admin"]
ALL: frozenset[Capability] = frozenset(get_args(Capability))
ROLES: dict[Role, frozenset[Capability]] = {
    "viewer": frozenset(("explore", "tune")),
    "editor": frozenset(("explore", "tune", "save")),
    "operator": frozenset(("explore", "tune", "save", "launch", "cancel")),
    "admin": ALL,
}
AUDIT = Path("logs") / "audit.jsonl"
# What a refusal says could not be done.
_VERBS: dict[Capability, str] = {
    "explore": "look at this workspace", "tune": "tune selections", "save": "save anything", "launch": "start anything",
    "cancel": "stop anything", "delete": "remove anything", "admin": "change who may do what",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Somebody who acts: a name, where from, what they may do, and a sentence why nobody here may do more, if so.

    `role`: of who was let in by a login; None is the user of this machine.
    """

    name: str
    origin: str
    may: frozenset[Capability]
    because: str = ""
    role: Role | None = None

    @property
    def is_remote(self) -> bool:
        """Whether they were let in by a login, and are not the user of this machine."""
        return self.role is not None

    def why_not(self, capability: Capability) -> str:
        """The sentence that a disabled button says; empty for what they may do."""
        if capability in self.may:
            return ""
        if self.because:
            return self.because
        needed = next(role for role, may in ROLES.items() if capability in may)
        return f"This takes the role {needed}, and you visit as {self.role}; ask whoever sent you the link."


Resolver = Callable[[], Visitor]
NOBODY = Visitor(name="nobody", origin="", may=frozenset(), because="You are not logged in.")


def _owner() -> Visitor:
    try:
        name = user_name()
    except ConfigError:
        name = "user without a name"
    return Visitor(name=name, origin="command line", may=ALL)


_resolver: Resolver = _owner
_inside: ContextVar[bool] = ContextVar("inside_an_audited_action", default=False)


def resolve_with(resolver: Resolver) -> Resolver:
    """Have this process ask `resolver` who acts. Returns the resolver before, which a test puts back."""
    global _resolver
    before, _resolver = _resolver, resolver
    return before


def visitor() -> Visitor:
    """Who acts now."""
    return _resolver()


def author_name() -> str:
    """Who says what is noted now. Errors: `ConfigError` in a container whose user has none."""
    who = visitor()
    return who.name if who.is_remote else user_name()


def require(capability: Capability) -> Visitor:
    """Who acts now, if they may do this. Errors: `AccessError`, with the reason."""
    who = visitor()
    if capability not in who.may:
        log.warning("refused: %s (%s) may not %s", who.name, who.origin or "no address", capability)
        raise AccessError(f"you cannot {_VERBS[capability]} here: {who.why_not(capability)}")
    return who


@contextlib.contextmanager
def action(root: Path, capability: Capability, what: str, **details: str | int | None) -> Iterator[Visitor]:
    """The block changes something in the workspace at `root`: refused before it begins, recorded when it is done.

    `what`: the verb, as `job.submit`; `details`: what it was done to. One that failed is recorded with its reason. What
    it does by other actions is part of it and makes no line of its own. Errors: `AccessError`; `StoreError` when it
    cannot be recorded, before anything is done.
    """
    who = require(capability)
    require_own(root)
    if _inside.get():
        yield who
        return
    _record(root, None)
    inside = _inside.set(True)
    outcome = "done"
    try:
        yield who
    except BaseException as error:
        outcome = f"failed: {type(error).__name__}: {str(error)[:200]}"
        raise
    finally:
        _inside.reset(inside)
        given = {name: value for name, value in details.items() if value is not None}
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        row = {"at": now, "who": who.name, "from": who.origin, "what": what, **given, "outcome": outcome}
        _record(root, row)


def read_audit(root: Path, *, most: int = 200) -> list[dict[str, Any]]:
    """The last actions that changed something, newest first.

    Errors: `AccessError` without the right to see them; `StoreError` for a line that we did not write.
    """
    require("admin")
    path = root / AUDIT
    try:
        return list(deque(read_rows(path), maxlen=most))[::-1] if path.is_file() else []
    except (ValueError, AssertionError) as error:
        raise StoreError(f"{path}: holds a line that is no record of ours; mend it, or put the file aside") from error


def _record(root: Path, row: dict[str, Any] | None) -> None:
    """Append a row, one process at a time; None only finds out whether that could be done."""
    path = root / AUDIT
    make_dir(path.parent)
    try:
        with disk_errors(path), open_in_place(path, "ab") as file:
            if row is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
                append_durably(path, row)
    except OSError as error:
        raise StoreError(f"{path}: what is changed cannot be recorded ({error.strerror}); mend the file") from error
