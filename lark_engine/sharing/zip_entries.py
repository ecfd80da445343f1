"""Reading a zip that a stranger made: its table is checked before anything is written, and its content while it is.

`zipfile` reads the table of contents and nothing else: the bytes are inflated here, counted, and compared with what was
declared. What is refused: more entries or bytes than the limits, names that are no plain relative path, links and
devices, names twice or alike but for case, encryption, methods but stored and deflated, entries that overlap or whose
own header says something else, and content that is longer or shorter than declared or packed absurdly tight.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lark_engine.errors import StoreError
from lark_engine.figures import formats
from lark_engine.printing import one_line

_CHUNK = 1 << 20
_END, _END_SIZE, _MOST_COMMENT = b"PK\x05\x06", 22, 1 << 16
_END_64, _LOCATOR_64_SIZE = b"PK\x06\x07", 20
_LOCAL, _LOCAL_SIZE = b"PK\x03\x04", 30
_MOST_NAME, _MOST_PART = 700, 255
_MOST_TABLE_BYTES_A_NAME = 1024
# Small content may be nothing but blanks; a ratio says something of large content only.
_NO_RATIO_BELOW = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a bundle may be: `most_bytes` unpacked, `most_files`, and how many times smaller a file may be packed."""

    most_bytes: int = 20_000_000_000
    most_files: int = 20_000
    most_ratio: float = 250.0


@dataclass(frozen=True)
class Entry:
    """A file of a zip whose place and sizes hold together: where its packed bytes begin, and how many there are."""

    name: str
    size: int
    packed: int
    is_deflated: bool
    start: int


def read_entries(file: IO[bytes], place: Path, limits: Limits) -> list[Entry]:
    """The files of a zip in the order of their bytes. Errors: `StoreError` with the first thing that is wrong."""
    table_start = _check_table(file, place, limits)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise _refused(place, f"its table of contents is damaged ({one_line(str(error), 80)})") from error
    except (NotImplementedError, RuntimeError) as error:
        raise _refused(place, f"it is packed in a way that no bundle is ({one_line(str(error), 80)})") from error
    if len(infos) > limits.most_files:
        raise _too_many(place, len(infos), limits)
    _check_names(infos, place)
    _check_sizes(infos, place, limits)
    entries = []
    end = 0
    for info in infos:
        entry = _entry(file, info, place)
        if info.header_offset < end:
            raise _refused(place, f"{_shown(entry.name)} overlaps another file in it")
        end = entry.start + entry.packed
        if end > table_start:
            raise _refused(place, f"{_shown(entry.name)} reaches into its table of contents")
        entries.append(entry)
    return entries


def content_of(file: IO[bytes], entry: Entry, place: Path) -> Iterator[bytes]:
    """The unpacked content of a file in parts, no byte more than was declared. Errors: `StoreError`."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.is_deflated else None
    file.seek(entry.start)
    left, given = entry.packed, 0
    while left > 0:
        packed = file.read(min(_CHUNK, left))
        if not packed:
            raise _refused(place, f"{_shown(entry.name)} ends before its declared end")
        left -= len(packed)
        for part in _inflated(inflate, packed, entry, place) if inflate else (packed,):
            given += len(part)
            if given > entry.size:
                raise _refused(place, f"{_shown(entry.name)} holds more than the {entry.size:,} bytes that it declares")
            yield part
    if given != entry.size or (inflate and (not inflate.eof or inflate.unused_data)):
        raise _refused(place, f"{_shown(entry.name)} holds other than the {entry.size:,} bytes that it declares")


def _inflated(inflate: zlib._Decompress, packed: bytes, entry: Entry, place: Path) -> Iterator[bytes]:
    try:
        while packed and not inflate.eof:
            if part := inflate.decompress(packed, _CHUNK):
                yield part
            packed = inflate.unconsumed_tail
    except zlib.error as error:
        raise _refused(place, f"{_shown(entry.name)} cannot be unpacked ({error})") from error


def name_problem(name: str) -> str:
    """Why a name is no plain path below a folder; empty when it is one."""
    if not name or len(name.encode("utf-8", "replace")) > _MOST_NAME:
        return "is longer than any name in a bundle" if name else "is empty"
    if any(not character.isprintable() for character in name):
        return "holds control characters"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "begins at the top of the disk"
    if len(name) > 1 and name[1] == ":":
        return "begins with a drive"
    parts = name.split("/")
    if ".." in parts or "." in parts:
        return "leads out of its folder"
    if any(len(part.encode("utf-8", "replace")) > _MOST_PART for part in parts):
        return "is longer than any name in a bundle"
    return "is no name of a file" if "" in parts else ""


def _check_table(file: IO[bytes], place: Path, limits: Limits) -> int:
    """Where the table of contents begins. It is measured here, before the library reads it whole into memory."""
    size = file.seek(0, 2)
    tail_start = max(0, size - _END_SIZE - _MOST_COMMENT)
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise _refused(place, "it is no zip, or was cut off when it was copied")
    number, table_size, table_start = struct.unpack("<H2L", tail[at + 10 : at + 20])
    if 0xFFFF in (number,) or 0xFFFFFFFF in (table_size, table_start):
        number, table_size, table_start = _large_table(file, tail_start + at, place)
    if number > limits.most_files:
        raise _too_many(place, number, limits)
    if table_size > limits.most_files * _MOST_TABLE_BYTES_A_NAME or table_start + table_size > size:
        raise _refused(place, "its table of contents cannot be as large as it says")
    return int(table_start)


def _large_table(file: IO[bytes], end: int, place: Path) -> tuple[int, int, int]:
    """Number of entries, size and start of the table of a zip64."""
    file.seek(max(0, end - _LOCATOR_64_SIZE))
    locator = file.read(_LOCATOR_64_SIZE)
    if len(locator) == _LOCATOR_64_SIZE and locator.startswith(_END_64):
        file.seek(struct.unpack("<Q", locator[8:16])[0])
        record = file.read(56)
        if len(record) == 56 and record.startswith(b"PK\x06\x06"):
            number, table_size, table_start = struct.unpack("<3Q", record[32:56])
            return number, table_size, table_start
    raise _refused(place, "its table of contents is damaged")


def _check_names(infos: Sequence[zipfile.ZipInfo], place: Path) -> None:
    seen: dict[str, str] = {}
    for info in infos:
        name = info.orig_filename
        if problem := name_problem(name):
            raise _refused(place, f"the name {_shown(name)} {problem}")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or kind not in (0, stat.S_IFREG) or info.external_attr & 0x10:
            raise _refused(place, f"{_shown(name)} is no file but a {_kind_word(kind)}")
        folded = name.casefold()
        if folded in seen:
            alike = "is in it twice" if seen[folded] == name else f"differs from {_shown(seen[folded])} by case only"
            raise _refused(place, f"{_shown(name)} {alike}")
        seen[folded] = name
        if info.flag_bits & 0x2041:
            raise _refused(place, f"{_shown(name)} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(place, f"{_shown(name)} is packed by method {info.compress_type}, which no bundle uses")


def _kind_word(kind: int) -> str:
    words = {
        stat.S_IFLNK: "link", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
    }  # fmt: skip
    return words.get(kind, "folder")


def _check_sizes(infos: Sequence[zipfile.ZipInfo], place: Path, limits: Limits) -> None:
    total = sum(info.file_size for info in infos)
    if total > limits.most_bytes:
        raise StoreError(
            f"{place}: unpacked it takes {formats.size(total)}, and the limit is {formats.size(limits.most_bytes)}; if "
            "you trust who made it, allow more with --bundle-limit"
        )
    for info in infos:
        if info.file_size > max(_NO_RATIO_BELOW, limits.most_ratio * info.compress_size):
            raise _refused(
                place, f"{_shown(info.filename)} unpacks to more than {limits.most_ratio:.0f} times its size"
            )
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise _refused(place, f"{_shown(info.filename)} is not packed, and declares two sizes")


def _entry(file: IO[bytes], info: zipfile.ZipInfo, place: Path) -> Entry:
    """Where the content of a file begins, by its own header. Errors: `StoreError` when that contradicts the table."""
    if info.header_offset < 0:
        raise _refused(place, f"{_shown(info.filename)} begins before the file does")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_SIZE)
    if len(header) != _LOCAL_SIZE or not header.startswith(_LOCAL):
        raise _refused(place, f"there is no {_shown(info.filename)} where its table of contents says")
    flags, method = struct.unpack("<2H", header[6:10])
    name_size, extra_size = struct.unpack("<2H", header[26:30])
    name = file.read(name_size).decode("utf-8", "replace")
    if name != info.orig_filename or method != info.compress_type or flags & 0x2041:
        raise _refused(place, f"{_shown(info.filename)} says something else of itself than its table of contents")
    start = info.header_offset + _LOCAL_SIZE + name_size + extra_size
    return Entry(name, info.file_size, info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED, start)


def _shown(name: str) -> str:
    return f"'{one_line(name, 80)}'"


def _too_many(place: Path, number: int, limits: Limits) -> StoreError:
    return _refused(place, f"it holds {number:,} files, and a bundle holds at most {limits.most_files:,}")


def _refused(place: Path, why: str) -> StoreError:
    """The sentence of every refusal: where, why, and what to do."""
    return StoreError(f"{place}: nothing of it is opened: {why}; ask who made it for a bundle of lark bundle")
