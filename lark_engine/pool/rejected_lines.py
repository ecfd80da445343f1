"""The reader of `rejected.jsonl`: how many lines were refused for which reason, and a page of them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from lark_engine.errors import StoreError
from lark_engine.pool.rejections import Rejection

_NAMES = tuple(field.name for field in fields(Rejection))
# Of a line of ours far less is written; what is longer is none of ours, and is not held.
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class RejectedLines:
    """Where in the file the rejections of each reason are, in bytes; the text itself stays on the disk."""

    path: Path
    offsets: dict[str, array[int]]

    @property
    def reasons(self) -> dict[str, int]:
        """How many lines each reason has, the most frequent first."""
        counts = {reason: len(found) for reason, found in self.offsets.items()}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def page(self, start: int, size: int, reason: str | None = None) -> list[Rejection]:
        """Some rejections in the order of the file, of one reason or of all. Errors: `StoreError`."""
        chosen = self.offsets.get(reason, array("Q")) if reason is not None else self._all()
        found = []
        try:
            with self.path.open("rb") as file:
                for offset in chosen[start : start + size]:
                    file.seek(offset)
                    if (rejection := _parsed(file.readline(_MOST_BYTES))) is not None:
                        found.append(rejection)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read any more ({error.strerror}); import again") from error
        return found

    def _all(self) -> Sequence[int]:
        return sorted(offset for found in self.offsets.values() for offset in found)


def read_rejected(path: Path) -> RejectedLines:
    """Index a `rejected.jsonl`; lines that are no rejection (torn by a kill) are left out. Errors: `StoreError`."""
    offsets: dict[str, array[int]] = {}
    try:
        with path.open("rb") as file:
            offset = 0
            while line := file.readline(_MOST_BYTES):
                if (rejection := _parsed(line)) is not None:
                    offsets.setdefault(rejection.reason, array("Q")).append(offset)
                offset += len(line)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); import again") from error
    return RejectedLines(path, offsets)


def _parsed(line: bytes) -> Rejection | None:
    try:
        values = json.loads(line)
        return Rejection(**{name: str(values[name]) for name in _NAMES})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
