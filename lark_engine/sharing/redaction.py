"""What a report or a bundle must not tell: where files lie, on which machine, and who works there.

`Redactor.text` replaces paths, host names and user names in any text, and leaves the rest letter for letter: fractions,
LaTeX, hub ids and public web addresses are no paths. `Redactor.replaced` counts what it replaced, for the preview.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import json
import os
import platform
import pwd
import re
import socket
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lark_engine.sharing.path_patterns import (
    MAY_BE_POSIX,
    MAY_BE_WINDOWS,
    PATH,
    UNDER_A_HOME,
    URL,
    WINDOWS,
    posix_pattern,
)
from lark_engine.store.rows import read_rows
from lark_engine.store.workspace import Workspace

ReplacedKind = Literal["path", "host", "user", "secret"]
_AUTHOR_KEYS = frozenset(("author", "user", "username", "user_name", "who", "owner", "created_by", "made_by"))
_HOST_KEYS = frozenset(("host", "hostname", "host_name", "nodename", "rdzv_endpoint"))
# Names of users and hosts that are also words: replaced where a user or a host stands, and not in running text.
_COMMON = frozenset((
    "root", "user", "users", "admin", "administrator", "guest", "test", "tester", "nobody", "daemon", "ubuntu",
    "debian", "docker", "node", "host", "home", "workspace", "source", "path", "server", "client", "local", "localhost",
    "machine", "computer", "master", "main", "worker", "build", "runner", "ansible", "vagrant", "jenkins", "student",
    "students", "teacher", "teachers", "problem", "problems", "model", "models", "pool", "score", "scores", "author",
    "data", "work", "demo", "lark", "studio", "secret", "anonymous", "colleague", "person", "people", "someone", "name",
    "unknown", "mark", "grace", "hope", "will", "bill", "rose", "frank", "victor", "true", "false", "none", "null",
    "answer", "solution", "number", "point", "line", "plane", "circle", "angle", "value", "step", "that", "this",
    "with", "from", "have", "been", "then", "also", "since", "when", "where", "there", "here", "lets", "given", "find",
    "proof", "prove", "case", "cases", "hence", "thus", "note",
))  # fmt: skip
_SHORTEST_WORD = 4
_INTERNAL = (".local", ".internal", ".lan", ".corp", ".intra", ".intranet", ".home", ".localdomain", ".private")
_SECRET = re.compile(r"(?i)([?&;](?:[a-z_-]*token|[a-z_-]*key|password|passwd|secret|signature)=)([^&;#\s\"'<>]+)")
_AT = re.compile(r"(?<![\w.+-])([\w.+-]+)@([\w-]+)(?=$|[\s:,;'\")\]])")


class Replacement(NamedTuple):
    """What stood there, what stands there now, and which kind of thing it was."""

    kind: ReplacedKind
    original: str
    replacement: str


class Redactor:
    """Replaces paths, hosts and users of one workspace and this machine; applying it again changes nothing.

    A path in the workspace becomes `<workspace>/…`, one in the source tree `<source>/…`; another keeps its last part
    (`…/pool.jsonl`). A user or host whose name is short or a common word is replaced only where a user or host must
    stand: in a path, in an address, in the field of an author.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        enabled: bool = True,
        home: Path | None = None,
        source: Path | None = None,
        users: Iterable[str] | None = None,
        hosts: Iterable[str] | None = None,
    ):
        """`home`, `source`, `users` and `hosts` are this machine's where they are not given; the authors of flags,
        disputes and views in the workspace count as users in any case."""
        self.enabled = enabled
        self.replaced: Counter[Replacement] = Counter()
        self._users = {*(_users_here() if users is None else users), *_authors(workspace.root)} - {"", "<user>"}
        self._hosts = {name.lower() for name in (_hosts_here() if hosts is None else hosts) if name}
        self._roots = _known_roots(
            ("<workspace>", workspace.root),
            ("<source>", Path(__file__).parents[2] if source is None else source),
            ("<home>", Path.home() if home is None else home),
        )
        self._posix = posix_pattern(list(self._roots))
        self._user_words = _word_pattern(self._users)
        self._host_words = _word_pattern(self._hosts, re.IGNORECASE)

    def text(self, text: str) -> str:
        """The text without paths, hosts and users. Letter for letter the same where there are none."""
        if not self.enabled:
            return text
        # What one replacement leaves can stand beside something that was no path before.
        while (redacted := self._once(text)) != text:
            text = redacted
        return text

    def _once(self, text: str) -> str:
        # Web addresses are set apart first: the path of one is no path of this machine.
        parts, end = [], 0
        for found in URL.finditer(text) if "://" in text else ():
            parts += [self._paths(text[end : found.start()]), self._address(found)]
            end = found.end()
        redacted = "".join([*parts, self._paths(text[end:])])
        for root, name in self._roots.items():
            if root.count("/") > 1 and root in redacted:
                redacted = redacted.replace(root, self._note("path", root, name))
        return self._names(redacted)

    def value(self, value: Any, key: str = "") -> Any:
        """The same for every text in a JSON value, keys included.

        A text that is one path as a whole may hold blanks; the text in the field of an author or a host goes whole.
        """
        if not self.enabled:
            return value
        if isinstance(value, str):
            return self._field(value, key.lower())
        if isinstance(value, dict):
            return {self.text(k) if isinstance(k, str) else k: self.value(v, str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(v, key) for v in value]
        return value

    def _field(self, text: str, key: str) -> str:
        if key in _AUTHOR_KEYS and text:
            return self._note("user", text, "<user>")
        if key in _HOST_KEYS and text and "://" not in text and not _is_loopback(text):
            return self._note("host", text, "<host>")
        if PATH.fullmatch(text) and not text.startswith(tuple(self._roots)) and "://" not in text.removeprefix("file:"):
            return self._names(self._last_part(text))
        return self.text(text)

    def _paths(self, text: str) -> str:
        if MAY_BE_WINDOWS.search(text):
            text = WINDOWS.sub(lambda found: self._last_part(found[0]), text)
        if MAY_BE_POSIX.search(text) or any(root in text for root in self._roots):
            text = self._posix.sub(self._posix_path, text)
        return _AT.sub(self._login, text) if "@" in text else text

    def _posix_path(self, found: re.Match[str]) -> str:
        path = "/" + found[0].removeprefix("file:").lstrip("/")
        root = next((known for known in self._roots if path == known or path.startswith(known + "/")), None)
        rest = path.removeprefix(root or "")
        if root is None or (self._roots[root] == "<home>" and rest.strip("/")):
            return self._last_part(found[0])
        return self._note("path", found[0], self._roots[root] + rest)

    def _last_part(self, path: str) -> str:
        """`…/pool.jsonl` of a path of any system; the last part of a home folder is a user."""
        separator = "\\" if "\\" in path else "/"
        inner = path.rstrip("/\\")
        last = "<user>" if UNDER_A_HOME.fullmatch(inner) else re.split(r"[/\\]", inner)[-1]
        scheme = "file:" if path.lower().startswith("file:") else ""
        return self._note("path", path, f"{scheme}…{separator}{last}{path[len(inner) :]}")

    def _address(self, found: re.Match[str]) -> str:
        """A web address without login, without what its query keeps secret, and without a host that is not public."""
        place = found["host"] + (found["port"] or "")
        if found["login"]:
            self._note("secret", found["login"], "")
        if self._is_internal(found["host"].lower().strip("[]"), found["port"] or ""):
            place = self._note("host", place, "<host>")
        rest = _SECRET.sub(lambda part: part[1] + self._note("secret", part[2], "<secret>"), found["rest"])
        return f"{found['scheme']}{place}{rest}"

    def _is_internal(self, host: str, port: str) -> bool:
        """Whether a host is none of the public web: numbers, a name without a dot, a port of its own."""
        if _is_loopback(host):
            return False
        if "." not in host or port not in ("", ":80", ":443") or host in self._hosts:
            return True
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(host))
        return host.endswith((*_INTERNAL, *(f".{known}" for known in self._hosts)))

    def _login(self, found: re.Match[str]) -> str:
        """`alice@gpu-box`, as a shell says it (an e-mail address has a dot behind its @)."""
        user, host = found[1], found[2]
        if user not in self._users and host.lower() not in self._hosts:
            return found[0]
        return f"{self._note('user', user, '<user>')}@{self._note('host', host, '<host>')}"

    def _names(self, text: str) -> str:
        if self._user_words is not None:
            text = self._user_words.sub(lambda found: self._note("user", found[0], "<user>"), text)
        if self._host_words is not None:
            text = self._host_words.sub(lambda found: self._note("host", found[0], "<host>"), text)
        return text

    def _note(self, kind: ReplacedKind, original: str, replacement: str) -> str:
        if original != replacement:
            self.replaced[Replacement(kind, original, replacement)] += 1
        return replacement


def _known_roots(*named: tuple[str, Path]) -> dict[str, str]:
    """Folders by their path, and by the path behind links; the longest first. The top of the disk is none."""
    roots = {str(path): name for name, folder in reversed(named) for path in (folder.absolute(), folder.resolve())}
    return {root: roots[root] for root in sorted(roots, key=len, reverse=True) if root.strip("/")}


def _word_pattern(names: Iterable[str], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str] | None:
    words = sorted({n for n in names if len(n) >= _SHORTEST_WORD and n.lower() not in _COMMON}, key=len, reverse=True)
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, words))})(?![^\W_])", flags) if words else None


def _users_here() -> set[str]:
    """The user of this process: login name and full name, as far as the system knows them."""
    names = set()
    with contextlib.suppress(OSError, KeyError):
        names.add(getpass.getuser())
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(os.getuid())
        names |= {entry.pw_name, entry.pw_gecos.split(",")[0].strip()}
    return names


def _hosts_here() -> set[str]:
    names = {platform.node(), socket.gethostname()}
    return names | {name.split(".")[0] for name in names}


def _authors(root: Path) -> set[str]:
    """Who has flagged, disputed or saved a view here. Lines that are none are left to those who read them for use."""
    authors = set()
    for path in (*root.glob("pools/*/flags.jsonl"), *root.glob("evals/*/*/disputes.jsonl"), *root.glob("views/*.json")):
        with contextlib.suppress(OSError, ValueError, AssertionError):
            rows = read_rows(path) if path.suffix == ".jsonl" else [json.loads(path.read_text(encoding="utf-8"))]
            authors |= {str(row["author"]).strip() for row in rows if isinstance(row, dict) and row.get("author")}
    return authors


def _is_loopback(host: str) -> bool:
    name = host.lower()
    return name in ("localhost", "::1") or re.fullmatch(r"(?:localhost|127(?:\.\d{1,3}){3})(?::\d+)?", name) is not None
