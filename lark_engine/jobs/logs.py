"""The ends of a log, however long it is: only what is shown is read."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import IO, NamedTuple

from lark_engine.store.atomic import open_regular

FIRST_LINES = 100
LAST_LINES = 200
_BLOCK = 64 << 10
# A line may be endless, as that of a progress bar; of an excerpt so much of each is kept.
_LINE_BYTES = 2000
_MOST_BYTES = 8 << 20


class Piece(NamedTuple):
    """A part of a log: its text, and the byte at which the next part begins."""

    text: str
    offset: int


def read_from(path: Path, offset: int = 0, most: int = 1 << 20) -> Piece:
    """At most `most` bytes from `offset` on, to the end of a line where there is one. For following a log.

    Without an end of a line: to the end of a character, the rest of which may come yet.
    """
    try:
        with open_regular(path) as file:
            start = _start(file, offset)
            file.seek(start)
            data = file.read(most)
    except OSError:
        return Piece("", 0)
    end = data.rfind(b"\n") + 1
    data = data[:end] if end else data
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    unfinished, _ = decoder.getstate()
    return Piece(text, start + len(data) - len(unfinished))


def last_lines(path: Path, count: int, *, begin: int = 0, end: int | None = None) -> list[str]:
    """The last lines before the byte `end` (by default all), read backwards and not before the byte `begin`."""
    try:
        with open_regular(path) as file:
            return [
                _shortened(line)
                for line in _tail(file, count, _start(file, begin), _size(file) if end is None else end)
            ]
    except OSError:
        return []


def excerpt(path: Path, *, begin: int = 0) -> str:
    """The first 100 and the last 200 lines of a log from the byte `begin` on, with a note of what is between."""
    try:
        with open_regular(path) as file:
            after = _start(file, begin)
            file.seek(after)
            most = after + _MOST_BYTES
            first: list[str] = []
            while len(first) < FIRST_LINES and (line := file.readline(most - after)):
                first.append(_shortened(line))
                after += len(line)
            end = max(_size(file), after)
            last = _tail(file, LAST_LINES, after, end)
            between = end - after - sum(map(len, last))
    except OSError:
        return ""
    note = [f"[… {between:,} bytes between are in {path.name} …]"] if between > 0 else []
    return "".join(f"{line}\n" for line in [*first, *note, *map(_shortened, last)])


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _start(file: IO[bytes], begin: int) -> int:
    """The byte to begin at; a log that is shorter than that was emptied meanwhile, and begins anew."""
    return begin if begin <= _size(file) else 0


def _tail(file: IO[bytes], count: int, begin: int, end: int) -> list[bytes]:
    """The last lines between two bytes with their ends, from the last 8 MiB of these."""
    position = end
    data = b""
    while position > begin and data.count(b"\n") <= count and end - position < _MOST_BYTES:
        step = min(max(_BLOCK, len(data)), position - begin)
        position -= step
        file.seek(position)
        data = file.read(step) + data
    lines = data.splitlines(keepends=True)
    return lines[max(len(lines) - count, 0) :]


def _shortened(line: bytes) -> str:
    line = line.rstrip(b"\r\n")
    if len(line) <= _LINE_BYTES:
        return _text(line)
    return f"{_text(line[:_LINE_BYTES])} [… {len(line):,} bytes]"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
