"""A look at a source before it is imported: what it is, its first problem, and mistakes in its first rows.

Whatever the size of the source, only its beginning is read; nothing is fetched from a hub.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lark_engine import access
from lark_engine.config import PoolConfig
from lark_engine.errors import PoolError
from lark_engine.pool.checks import PoolChecks
from lark_engine.pool.readers import MAX_ROW_BYTES, Budget, EndOfLook, SourceRow, is_parquet, magic, open_bytes
from lark_engine.pool.rejections import BadRow, Rejection
from lark_engine.pool.sources import HUB_ID, SUFFIXES, Source, is_json_list, read_source, resolve_source
from lark_engine.records import Trajectory
from lark_engine.store.atomic import user_path

_MOST_ROWS = 50
_MOST_BYTES = 8 << 20
_MOST_UNPACKED_BYTES = 32 << 20  # in which the longest row fits
_MOST_ENTRIES = 20_000
_MOST_REJECTED = 5


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What the beginning of a source shows. `first`: the candidates of its first sound problem among the rows read.

    `rejected`: mistakes in them; `num_rows`: how many were read; `is_whole`: there are no more.
    """

    kind: str
    num_files: int
    num_bytes: int
    num_rows: int = 0
    is_whole: bool = False
    first: tuple[Trajectory, ...] = ()
    rejected: tuple[Rejection, ...] = ()


def preview(config: PoolConfig) -> Preview:
    """Look at the first rows of a source. Errors: `PoolError` when it is absent, unreadable or of no known format.

    A source is any file of this machine: `AccessError` for those who may not import it.
    """
    access.require("launch")
    path = user_path(config.source)
    try:
        if path.is_dir():
            _refuse_many(path)
        elif path.exists() and not path.is_file():
            raise PoolError(f"{config.source}: is no regular file; give a file, a folder of teachers, or a dataset id")
        elif not path.exists() and is_hub_id(config.source):
            return Preview(kind="Hugging Face dataset, read when it is imported", num_files=0, num_bytes=0)
        source = resolve_source(config)
        kind = _kind(source)
        if source.format == "arrow":  # its library takes seconds to load, and reads it at the import
            return Preview(kind=kind, num_files=len(source.files), num_bytes=source.total)
        if (endless := _endless_line(source)) is not None:
            return Preview(kind=kind, num_files=len(source.files), num_bytes=source.total, rejected=(endless,))
        return _look(source, kind)
    except (OSError, ValueError) as error:  # a null byte in a path, a folder that may not be entered
        raise PoolError(f"{config.source}: cannot be read ({error}); check the path and its permissions") from error


def is_hub_id(source: str) -> bool:
    """Whether a source that is no path here would be looked for on the hub."""
    return HUB_ID.fullmatch(source) is not None and not source.lower().endswith(SUFFIXES)


def _refuse_many(folder: Path) -> None:
    """A folder of a whole disk is a slip of the finger; to go through it would take minutes."""
    entries = 0
    for _, subfolders, files in os.walk(folder):
        entries += len(subfolders) + len(files)
        if entries > _MOST_ENTRIES:
            raise PoolError(
                f"{folder}: holds more than {_MOST_ENTRIES:,} files and folders; give that of the pool alone"
            )


def _endless_line(source: Source) -> Rejection | None:
    """A first line that no import takes: its end could be at the end of the file, gigabytes away."""
    file = source.files[0]
    place = source.place(file)
    if source.format != "files" or is_parquet(file) or is_json_list(file, place):
        return None
    with open_bytes(file, place) as (stream, _):
        start = stream.readline(MAX_ROW_BYTES + 1)
    if len(start) <= MAX_ROW_BYTES or start.endswith(b"\n"):
        return None
    problem = f"the first line is longer than {MAX_ROW_BYTES / 1e6:.1f} MB"
    remedy = "check that this is the right file; if rows are joined, put each on its own line"
    return BadRow("line_too_long", "line", problem, start[:200].decode("utf-8", "replace"), remedy).at(f"{place}:1")


def _look(source: Source, kind: str) -> Preview:
    checks = PoolChecks()
    rejected: list[Rejection] = []
    problems: dict[str, list[Trajectory]] = {}
    num_rows, is_whole = 0, False
    with contextlib.suppress(EndOfLook), contextlib.closing(_rows(source)) as rows:
        for row in islice(rows, _MOST_ROWS):
            num_rows += 1
            result = row.value if isinstance(row.value, Rejection) else checks.check(row.place, row.value)
            if isinstance(result, Rejection):
                rejected.append(result)
            else:
                problems.setdefault(result.trajectory.problem_id, []).append(result.trajectory)
            # A read may take in much more than its row; beyond this the rows are large themselves.
            if row.position > _MOST_BYTES and num_rows >= _MOST_REJECTED:
                break
        else:
            is_whole = next(rows, None) is None
    return Preview(
        kind=kind, num_files=len(source.files), num_bytes=source.total, num_rows=num_rows, is_whole=is_whole,
        first=tuple(next(iter(problems.values()), ())), rejected=tuple(rejected[:_MOST_REJECTED]),
    )  # fmt: skip


def _rows(source: Source) -> Generator[SourceRow, None, None]:
    yield from read_source(source, Budget(_MOST_UNPACKED_BYTES))


def _kind(source: Source) -> str:
    """The format in words: `JSON Lines (gzip)`, `Parquet`, `folder of 3 teachers`."""
    if source.format == "teachers":
        teachers = len({file.parent.name for file in source.files})
        return f"folder of {teachers} teacher{'s' * (teachers != 1)}"
    if source.format == "arrow":
        return "saved dataset, read when it is imported"
    file = source.files[0]
    if is_parquet(file):
        return "Parquet"
    start = magic(file)
    packed = " (gzip)" if start.startswith(b"\x1f\x8b") else " (zstd)" if start == b"\x28\xb5\x2f\xfd" else ""
    return ("JSON list" if is_json_list(file, source.place(file)) else "JSON Lines") + packed
