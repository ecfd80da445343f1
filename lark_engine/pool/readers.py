"""Streaming readers of source files: never more than one bounded row, chunk or row group in memory.

Each yields `SourceRow`s. A row that cannot be read is a `Rejection` and the reading goes on; a file whose remainder
cannot be read at all (torn compression, a broken JSON list) is a `PoolError`, because skipping it would lose rows
uncounted.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lark_engine.errors import PoolError
from lark_engine.pool.rejections import BadRow, Rejection

# Longest row in bytes (of one JSON line, or characters of one list element). A 32k-token answer is about 0.15 MB.
MAX_ROW_BYTES = 16 << 20
# Key in the schema metadata of our own parquet files.
POOL_MARK = b"lark_pool"
_CHUNK = 1 << 20
# What unpacks to more than so many bytes, and more than so many times its size, is no data of anybody's: reading it
# would take hours and fill the disk. Small answers to one long system prompt, packed with zstd, reach 660 times.
_FREE_BYTES, _MOST_RATIO = 64 << 20, 1000
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_UTF8_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_BLANK, _MANY_BLANKS = re.compile(rb"\s*"), 100
_NO_SPACE = re.compile(r"[^ \t\r\n]")


class SourceRow(NamedTuple):
    """One row of a source: its place for people, its value (or why it has none), and how much has been read so far.

    `position` is in the unit of the source's total: bytes on disk for files, rows for datasets.
    """

    place: str
    value: Any | Rejection
    position: int


class EndOfLook(Exception):
    """As much was read as there is a budget for."""


class Budget:
    """How many unpacked bytes may still be read, for those who look at the beginning of a source only."""

    def __init__(self, num_bytes: int):
        self._left = num_bytes

    def take(self, num_bytes: int) -> None:
        """Errors: `EndOfLook` when it is used up."""
        self._left -= num_bytes
        if self._left < 0:
            raise EndOfLook


class OpenFile(NamedTuple):
    """Decompressed bytes, and a function that tells how many bytes of the file on disk have been read."""

    stream: io.BufferedReader
    position: Callable[[], int]


# NaN and Infinity are no JSON: they are read as null, like every non-finite number here.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def magic(path: Path) -> bytes:
    """The first bytes of a file, which tell its format better than its name."""
    with path.open("rb") as file:
        return file.read(4)


def is_parquet(path: Path) -> bool:
    return magic(path) == _PARQUET


class _Counted(io.RawIOBase):
    """A decompressed stream that knows how much has come out of it, and refuses to go on where that cannot be data."""

    def __init__(self, unpacked: Any, raw: IO[bytes], label: str, budget: Budget | None):
        self._unpacked, self._raw, self._label, self._budget = unpacked, raw, label, budget
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._unpacked.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._count += len(chunk)
        if self._budget:
            self._budget.take(len(chunk))
        if is_bomb(self._count, self._raw.tell()):
            raise PoolError(_BOMB.format(place=self._label, times=_MOST_RATIO))
        return len(chunk)


_BOMB = (
    "{place}: unpacks to more than {times:,} times its size, as no texts do and decompression bombs do; check where it "
    "comes from, and if you trust it unpack it first"
)


def is_bomb(unpacked: int, packed: int) -> bool:
    """Whether so many bytes that come out of so many others are beyond what texts can be packed to."""
    return unpacked > _FREE_BYTES and unpacked > _MOST_RATIO * packed


@contextlib.contextmanager
def open_bytes(path: Path, label: str, budget: Budget | None = None) -> Iterator[OpenFile]:
    """Open a file, decompressing gzip and zstd by content.

    Errors: `PoolError` for UTF-16, for torn compression, and for what unpacks to a thousand times its size;
    `EndOfLook` when the budget is used up, here and in the readers.
    """
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        start = magic(path)
        unpacked: Any = raw
        if start.startswith(_GZIP):
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=raw))
        elif start == _ZSTD:
            # The reader of `zstandard` takes a torn file for a whole one; this one says so.
            unpacked = stack.enter_context(pa.CompressedInputStream(raw, "zstd"))
        stream: Any = raw
        if unpacked is not raw or budget:
            stream = stack.enter_context(io.BufferedReader(_Counted(unpacked, raw, label, budget), _CHUNK))
        try:
            if stream.peek(2).startswith(_UTF16_BOMS):
                raise PoolError(f"{label}: UTF-16 text; convert it: iconv -f utf-16 -t utf-8 {path.name} > new.jsonl")
            yield OpenFile(stream, raw.tell)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _torn(label, error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise _torn(label, error) from error


def _torn(label: str, error: Exception) -> PoolError:
    return PoolError(f"{label}: the compressed data is cut off or damaged ({error}); copy or compress the file again")


def read_jsonl(path: Path, label: str, budget: Budget | None = None) -> Iterator[SourceRow]:
    """Rows of a JSONL file, plain or compressed. Blank lines are passed over; CRLF and a byte order mark are fine.

    A line over `MAX_ROW_BYTES` is rejected with its size, without being held in memory.
    """
    with open_bytes(path, label, budget) as (stream, position):
        number = blanks = 0
        while line := stream.readline(MAX_ROW_BYTES + 1):
            number += 1
            place = f"{label}:{number}"
            if number == 1:
                line = line.removeprefix(_UTF8_BOM)
            if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
                yield SourceRow(place, _too_long(place, line, stream), position())
            elif line.strip():
                yield SourceRow(place, parse_line(place, line), position())
                blanks = 0
            elif (blanks := blanks + 1) >= _MANY_BLANKS:
                number += _pass_blank_lines(stream)


def _pass_blank_lines(stream: io.BufferedReader) -> int:
    """Pass over the blank lines that are in the buffer, all at once; returns how many. One by one a file that holds
    nothing else would take minutes."""
    ahead = stream.peek(1)
    blank = _BLANK.match(ahead)
    end = ahead.rfind(b"\n", 0, blank.end() if blank else 0) + 1
    stream.read(end)
    return ahead.count(b"\n", 0, end)


def _too_long(place: str, start: bytes, stream: io.BufferedReader) -> Rejection:
    """Pass over the rest of the line, chunk by chunk."""
    size = len(start)
    while chunk := stream.readline(_CHUNK):
        size += len(chunk)
        if chunk.endswith(b"\n"):
            break
    problem = f"the line has {size / 1e6:.1f} MB; the limit is {MAX_ROW_BYTES / 1e6:.1f} MB"
    remedy = "shorten or remove it; if rows are joined, put each on its own line"
    return BadRow("line_too_long", "line", problem, start[:200].decode("utf-8", "replace"), remedy).at(place)


def parse_line(place: str, line: bytes) -> Any | Rejection:
    """The JSON value of one line, or why there is none."""
    try:
        return _DECODER.decode(line.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        shown = line[max(error.start - 40, 0) : error.start + 40].decode("utf-8", "replace")
        problem = f"byte {error.start + 1} of the line is not UTF-8 text"
        remedy = "save the file as UTF-8 (for example: iconv -f latin1 -t utf-8)"
        return BadRow("not_utf8", "line", problem, shown, remedy).at(place)
    except json.JSONDecodeError as error:
        shown = error.doc[max(error.pos - 60, 0) : error.pos + 60]
        problem = f"not valid JSON: {error.msg} at column {error.colno}"
        return BadRow("broken_json", "line", problem, shown, "write one whole JSON object on each line").at(place)
    except (ValueError, RecursionError) as error:
        shown = line[:200].decode("utf-8", "replace")
        return BadRow("broken_json", "line", f"not readable JSON: {error}", shown, "mend or remove the line").at(place)


def read_json_list(path: Path, label: str, budget: Budget | None = None) -> Iterator[SourceRow]:
    """Elements of one JSON list, one at a time; place `file[i]`, i from 0.

    Errors: `PoolError` when the file is no list, is not UTF-8, breaks off, or holds an element over `MAX_ROW_BYTES`.
    """
    with open_bytes(path, label, budget) as (stream, position):
        scanner = _ListScanner(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), label)
        for i, value in enumerate(scanner.elements()):
            yield SourceRow(f"{label}[{i}]", value, position())


class _ListScanner:
    """Decodes the elements of a JSON list from a text stream through a buffer that grows only for long elements."""

    def __init__(self, text: io.TextIOWrapper, label: str):
        self._text, self._label = text, label
        self._buffer, self._pos = "", 0

    def elements(self) -> Iterator[Any]:
        if self._next_char() != "[":
            raise PoolError(f"{self._label}: no JSON list; each file of a teacher is one list, element i for problem i")
        self._pos += 1
        count = 0
        if self._next_char() == "]":
            return
        while True:
            self._next_char()
            yield self._element(count)
            count += 1
            end = self._next_char()
            if end not in (",", "]"):
                raise self._broken(count - 1, f"'{end}' follows it, no comma" if end else "the file ends here")
            self._pos += 1
            if end == "]":
                return

    def _more(self, count: int) -> bool:
        try:
            chunk = self._text.read(max(_CHUNK, len(self._buffer) - self._pos))
        except UnicodeDecodeError as error:
            raise self._broken(count, f"not UTF-8 text ({error.reason})") from error
        self._buffer, self._pos = self._buffer[self._pos :] + chunk, 0
        return bool(chunk)

    def _next_char(self) -> str:
        """The next character that is no space, unread; "" at the end."""
        while True:
            if found := _NO_SPACE.search(self._buffer, self._pos):
                self._pos = found.start()
                return found[0]
            self._pos = len(self._buffer)
            if not self._more(0):
                return ""

    def _element(self, count: int) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._pos)
            except (ValueError, RecursionError) as error:
                # It may only be cut by the buffer's end: read on, up to the longest element.
                if len(self._buffer) - self._pos > MAX_ROW_BYTES:
                    problem = f"not valid JSON, or longer than {MAX_ROW_BYTES / 1e6:.1f} MB"
                    raise self._broken(count, problem) from error
                if not self._more(count):
                    raise self._broken(count, str(getattr(error, "msg", error))) from error
                continue
            if end == len(self._buffer) and self._more(count):
                continue  # a number may go on in the next chunk
            self._pos = end
            return value

    def _broken(self, index: int, problem: str) -> PoolError:
        return PoolError(f"{self._label}[{index}]: {problem}; mend the file, nothing after this place can be read")


def read_parquet(path: Path, label: str, budget: Budget | None = None) -> Iterator[SourceRow]:
    """Rows of a Parquet file; place `file:row`, row from 1. A row over `MAX_ROW_BYTES` is rejected with its size.

    Errors: `PoolError` when it is damaged, unpacks to a thousand times its size, or is our own.
    """
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path, buffer_size=_CHUNK, pre_buffer=False) as file:
            if POOL_MARK in (file.schema_arrow.metadata or {}):
                raise PoolError(f"{label}: already a pool of a workspace; name it by its id instead of importing it")
            _refuse_parquet_bomb(file.metadata, label)
            num_rows = max(file.metadata.num_rows, 1)
            # One row at a time: of a text that is written once and pointed at by every row, a file of a few kilobytes
            # would else become gigabytes.
            for number, batch in enumerate(file.iter_batches(batch_size=1, use_threads=False), start=1):
                place = f"{label}:{number}"
                if budget:
                    budget.take(batch.nbytes)
                value = _too_large(place, batch.nbytes) if batch.nbytes > MAX_ROW_BYTES else batch.to_pylist()[0]
                yield SourceRow(place, value, size * number // num_rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PoolError(f"{label}: no readable Parquet file ({error}); copy or write it again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise PoolError(f"{label}: the Parquet data is damaged ({error}); copy or write it again") from error


def _refuse_parquet_bomb(metadata: pq.FileMetaData, label: str) -> None:
    """Errors: `PoolError`. A page is unpacked whole, so that this is known before anything is."""
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if is_bomb(column.total_uncompressed_size, column.total_compressed_size):
                raise PoolError(_BOMB.format(place=f"{label}: {column.path_in_schema}", times=_MOST_RATIO))


def _too_large(place: str, size: int) -> Rejection:
    problem = f"the row has {size / 1e6:.1f} MB; the limit is {MAX_ROW_BYTES / 1e6:.1f} MB"
    return BadRow("line_too_long", "row", problem, "", "shorten or remove it").at(place)
