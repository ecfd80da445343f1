"""How names and texts leave: redacted the same way everywhere, so that what belongs together still does.

An artifact, a problem or a teacher whose name tells too much gets another name in every file of the bundle at once; two
that would become one stay two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lark_engine.sharing.redaction import Redactor
from lark_engine.store.workspace import Artifact


class Leaving:
    """What artifacts of a workspace are called outside, and their values as they go out."""

    def __init__(self, artifacts: Sequence[Artifact], root: Path, redactor: Redactor):
        self.root = root
        self.redactor = redactor
        self._words: dict[str, str] = {}
        self._taken: set[str] = set()
        self._ids = {a.id: f"{self.folder_name(a.name)}-{a.fingerprint}" for a in artifacts}
        renamed = sorted((old for old, new in self._ids.items() if old != new), key=len, reverse=True)
        self._renamed = re.compile("|".join(map(re.escape, renamed))) if renamed else None

    def folder_name(self, name: str) -> str:
        """A part of a path, outside."""
        redacted = self.redactor.text(name)
        if redacted == name:
            return name
        return re.sub(r"[^A-Za-z0-9._@+-]+", "-", re.sub(r"[<>…]", "", redacted)).strip("-._") or "unnamed"

    def place(self, artifact: Artifact) -> str:
        """The folder of an artifact in the bundle, from its root."""
        parts = artifact.path.relative_to(self.root).parts
        return "/".join(self._ids.get(part) or self.folder_name(part) for part in parts)

    def word(self, name: str) -> str:
        """A problem's id or a teacher's name; different ones stay different."""
        if name not in self._words:
            new = redacted = self.text(name)
            number = 2
            while new in self._taken:
                new, number = f"{redacted} ({number})", number + 1
            self._taken.add(new)
            self._words[name] = new
        return self._words[name]

    def text(self, text: str) -> str:
        """Any text."""
        return self.redactor.text(self._with_ids(text))

    def value(self, value: Any) -> Any:
        """Any value of JSON."""
        return self.redactor.value(self._ids_in(value) if self._renamed else value)

    def _ids_in(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._with_ids(value)
        if isinstance(value, dict):
            return {self._with_ids(str(key)): self._ids_in(item) for key, item in value.items()}
        return [self._ids_in(item) for item in value] if isinstance(value, list | tuple) else value

    def _with_ids(self, text: str) -> str:
        return self._renamed.sub(lambda found: self._ids[found[0]], text) if self._renamed else text
