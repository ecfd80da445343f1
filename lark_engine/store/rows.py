"""Keyed rows appended to a JSONL file: what a killed run has finished is known, and a torn last line is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from lark_engine.store.atomic import disk_errors, make_dir, open_in_place, open_regular


class RowLog:
    """An append-only JSONL file whose rows are known by a key.

    Opening it drops a torn last line, so the file is whole again before the first new row. `append` writes each batch
    of rows with one call and flushes it; with `durable` it is also fsynced.
    """

    def __init__(self, path: Path, key: tuple[str, ...], *, durable: bool = False):
        self.path = path
        self.key = key
        self.durable = durable
        make_dir(path.parent)
        with disk_errors(path):
            drop_torn_line(path)
            self.known = {self.key_of(row) for row in read_rows(path)} if path.exists() else set()
            self._file = open_in_place(path, "ab")

    def key_of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        """The row's key, as in `known`."""
        return tuple(row[name] for name in self.key)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows whose keys are new; a row with a known key is left out."""
        lines = []
        for row in rows:
            if (key := self.key_of(row)) not in self.known:
                self.known.add(key)
                lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n")
        with disk_errors(self.path):
            self._file.write(b"".join(lines))
            self._file.flush()
            if self.durable:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def append_durably(path: Path, row: dict[str, Any]) -> None:
    """Append one row behind the last whole one, and have it on the disk before this returns. Hold the folder's lock."""
    drop_torn_line(path)
    with open_in_place(path, "ab") as file:
        file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def drop_torn_line(path: Path) -> None:
    """Cut an unfinished last line (no newline at its end) off a file; a missing file is left missing."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with open_in_place(path, "r+b") as file:
        file.seek(0, os.SEEK_END)
        end = position = file.tell()
        while position > 0:
            step = min(1 << 16, position)
            file.seek(position - step)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                whole = position - step + newline + 1
                break
            position -= step
        else:
            whole = 0
        if whole < end:
            file.truncate(whole)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file that we wrote; a torn last line is passed over. Errors: `ValueError` for what we did not
    write.
    """
    with open_regular(path) as file:
        for line in file:
            if line.endswith(b"\n"):
                try:
                    row = json.loads(line)
                except RecursionError as error:
                    raise ValueError(f"{path}: nested too deep") from error
                assert isinstance(row, dict)
                yield row
