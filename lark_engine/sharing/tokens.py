"""Who may visit a server that asks for a token: names with their roles, and the digests of their tokens.

    access/tokens.json   name → role, digest, since when; the tokens themselves are nowhere
    access/key           what signs the cookies that a token is exchanged for

Both are this user's alone. A running server looks again at each request, so that what is removed is shut out at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, get_args

from itsdangerous import BadData, URLSafeTimedSerializer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lark_engine import access
from lark_engine.access import ROLES, Role
from lark_engine.errors import ConfigError, StoreError, did_you_mean
from lark_engine.store.atomic import disk_errors, make_dir, replacing
from lark_engine.store.lock import lock

log = logging.getLogger(__name__)

TOKENS = "tokens.json"
KEY = "key"
COOKIE_AGE_S = 30 * 24 * 3600
_TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+ -]{0,63}")


class Guest(BaseModel):
    """Somebody who holds a token; the digest is SHA-256 of it, which a random token of 256 bits needs no salt for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    role: Role
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: str


class Issued(NamedTuple):
    """A new token, which is shown once and kept by nobody here."""

    guest: Guest
    token: str


_guests = TypeAdapter(list[Guest])


class Guests:
    """The tokens of one server, in a folder of its own. `root`: where the record of who let whom in lies."""

    def __init__(self, folder: Path, *, root: Path):
        self.folder, self.root = folder, root
        self._seen: tuple[tuple[int, int, int], list[Guest]] = ((0, 0, 0), [])

    def prepare(self) -> None:
        """Make the key that signs cookies, so that a server which writes nothing finds it."""
        self._signer()

    def all(self) -> list[Guest]:
        """Everybody who holds a token, oldest first. Errors: `StoreError` for a file that is none of ours."""
        path = self.folder / TOKENS
        try:
            stat = path.stat()
            if (version := (stat.st_ino, stat.st_mtime_ns, stat.st_size)) != self._seen[0]:
                self._seen = version, _guests.validate_json(path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValidationError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read; remove it, and everybody needs a new token") from error
        return self._seen[1]

    def add(self, name: str, role: str) -> Issued:
        """A token for somebody new. Errors: `ConfigError` for a name that is taken or cannot be one, or no role."""
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:80]!r}: not a name for a token; use letters, digits, spaces and . _ @ + -")
        if role not in ROLES:
            raise ConfigError(f"no role {role!r}{did_you_mean(role, get_args(Role))}")
        return self._change(name, role, must_exist=False)

    def rotate(self, name: str) -> Issued:
        """Another token for the same name and role: the one before, and its cookies, count no more."""
        return self._change(name, None, must_exist=True)

    def remove(self, name: str) -> None:
        """Shut somebody out. Errors: `ConfigError` for a name that holds no token."""
        with access.action(self.root, "admin", "guest.remove", guest=name), lock(self.folder):
            gone = self._find(name)
            self._write([guest for guest in self.all() if guest is not gone])

    def holder(self, token: str) -> Guest | None:
        """Whose token this is. The time it takes tells nothing of how near a wrong one is, or of whom it resembles."""
        digest = _digest(token)
        found = None
        for guest in self.all():
            if hmac.compare_digest(guest.digest, digest):
                found = guest
        return found

    def cookie(self, guest: Guest) -> str:
        """What a browser keeps instead of the token."""
        return self._signer().dumps(guest.digest)

    def of_cookie(self, cookie: str) -> Guest | None:
        """Whose cookie this is: one that we signed, not too old, of a token that still counts."""
        try:
            digest = str(self._signer().loads(cookie, max_age=COOKIE_AGE_S))
        except BadData:
            return None
        return next((guest for guest in self.all() if hmac.compare_digest(guest.digest, digest)), None)

    def _change(self, name: str, role: str | None, *, must_exist: bool) -> Issued:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        what = "guest.rotate" if must_exist else "guest.add"
        with access.action(self.root, "admin", what, guest=name, role=role), lock(self.folder):
            guests = self.all()
            before = self._find(name) if must_exist else None
            if not must_exist and any(guest.name == name for guest in guests):
                raise ConfigError(f"{name} holds a token already; rotate it, or remove it first")
            guest = Guest.model_validate({
                "name": name, "role": role or (before and before.role), "digest": _digest(token),
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            })  # fmt: skip
            self._write([guest if known is before else known for known in guests] + ([] if must_exist else [guest]))
        return Issued(guest, token)

    def _find(self, name: str) -> Guest:
        guests = self.all()
        found = next((guest for guest in guests if guest.name == name), None)
        if found is None:
            known = did_you_mean(name, [guest.name for guest in guests]) if guests else "; nobody does yet"
            raise ConfigError(f"{name[:80]} holds no token here{known}")
        return found

    def _write(self, guests: list[Guest]) -> None:
        self._private(TOKENS, json.dumps([guest.model_dump() for guest in guests], indent=2).encode() + b"\n")

    def _signer(self) -> URLSafeTimedSerializer:
        path = self.folder / KEY
        if not path.is_file():
            with lock(self.folder):
                if not path.is_file():
                    self._private(KEY, secrets.token_bytes(32))
        with disk_errors(path):
            return URLSafeTimedSerializer(
                path.read_bytes(), salt="lark.guest", signer_kwargs={"key_derivation": "hmac"}
            )

    def _private(self, name: str, content: bytes) -> None:
        """Write a file that nobody but this user reads, also while it is being written."""
        make_dir(self.folder)
        with disk_errors(self.folder):
            self.folder.chmod(0o700)
        with replacing(self.folder / name) as partial:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with contextlib.closing(os.fdopen(descriptor, "wb")) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
