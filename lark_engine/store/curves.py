"""The numbers of a whole event log at once, for curves: read by DuckDB, several times as fast as line by line."""

from __future__ import annotations

import functools
import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lark_engine.store.atomic import open_regular

# Of every event, beside its metrics.
NUMBERS = ("time", "done", "total", "rate", "eta_s")
_EVALUATION = re.compile(rb'"(eval_(?:[^"\\]|\\.)*_loss)" ?:')


class EventTable(NamedTuple):
    """The events of a log as columns (float64, NaN where an event says nothing), and the byte where they end.

    Columns are `NUMBERS` and the metrics; `alerts` are by the place of their event.
    """

    columns: dict[str, np.ndarray]
    alerts: dict[int, str]
    offset: int


def read_metric(path: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """`done` (int64) and a metric (float64) of every event that has it, in the order of the log.

    Lines that a kill tore are left out. Errors: `FileNotFoundError`.
    """
    # DuckDB gets the open file: in a path it would read patterns, columns (`done=5/`) and kinds of compression.
    with path.open("rb") as file:
        found = _query(
            file.fileno(), ["done", f"metrics.{_name(metric)} AS value"],
            f"done: 'BIGINT', metrics: {_struct([metric])}",
            f"WHERE done IS NOT NULL AND metrics.{_name(metric)} IS NOT NULL",
        )  # fmt: skip
    return np.asarray(found["done"], np.int64), np.asarray(found["value"], np.float64)


def read_metrics(path: Path, metrics: Sequence[str]) -> EventTable:
    """Some metrics, and the losses of all held-out sets (`eval_…_loss`), of all events that the log holds now.

    Whole lines only: the rest is read on from `offset` with an `EventReader`. Errors: `OSError` for no such log.
    """
    with open_regular(path) as log, _whole_lines(log.fileno()) as (lines, offset):
        names = [*metrics, *_evaluations(lines, offset)]
        wanted = [*NUMBERS, "alert", *(f"metrics.{_name(name)} AS m{place}" for place, name in enumerate(names))]
        kinds = ", ".join(f"{name}: 'DOUBLE'" for name in NUMBERS)
        kinds = f"{kinds}, alert: 'VARCHAR', metrics: {_struct(names)}"
        found = _query(lines, wanted, kinds, "WHERE time IS NOT NULL")
    alerts = _masked(found["alert"])
    return EventTable(
        columns={
            **{name: _floats(found[name]) for name in NUMBERS},
            **{name: _floats(found[f"m{place}"]) for place, name in enumerate(names)},
        },
        alerts={int(place): str(alerts[place]) for place in np.flatnonzero(~alerts.mask)},
        offset=offset,
    )  # fmt: skip


def _query(file: int, columns: Sequence[str], kinds: str, where: str) -> Mapping[str, Any]:
    with _database().cursor() as connection:
        found: Mapping[str, Any] = connection.execute(
            f"SELECT {', '.join(columns)} FROM read_json(?, format='newline_delimited', ignore_errors=true, "
            f"columns={{{kinds}}}) {where}",
            [f"/proc/self/fd/{file}"],
        ).fetchnumpy()
    return found


@contextmanager
def _whole_lines(log: int) -> Iterator[tuple[int, int]]:
    """A file in memory with the whole lines of a log as it is now, and their size: what is appended meanwhile, not."""
    size = os.fstat(log).st_size
    lines = os.memfd_create("lines", os.MFD_CLOEXEC)
    try:
        copied = 0
        while copied < size and (part := os.sendfile(lines, log, copied, size - copied)):
            copied += part
        os.ftruncate(lines, _end_of_lines(lines, copied))
        yield lines, os.fstat(lines).st_size
    finally:
        os.close(lines)


def _end_of_lines(file: int, size: int) -> int:
    """Where the last whole line ends."""
    if not size:
        return 0
    with mmap.mmap(file, size, prot=mmap.PROT_READ) as content:
        return content.rfind(b"\n") + 1


def _evaluations(file: int, size: int) -> list[str]:
    """The names of all held-out losses, in the order of the log; of two that differ in case only (one to SQL) one."""
    found: dict[str, str] = {}
    if not size:
        return []
    with mmap.mmap(file, size, prot=mmap.PROT_READ) as content:
        place = content.find(b'"eval_')
        while place >= 0:
            if (said := _EVALUATION.match(content, place)) is not None:
                try:
                    name = str(json.loads(b'"' + said[1] + b'"'))
                    found.setdefault(name.lower(), name)
                except ValueError:  # no text: of a torn line
                    pass
            place = content.find(b'"eval_', place + 1)
    return list(found.values())


def _struct(names: Sequence[str]) -> str:
    """The type of `metrics`, as a text of SQL."""
    fields = ", ".join(f"{_name(name)} DOUBLE" for name in names)
    return "'" + f"STRUCT({fields})".replace("'", "''") + "'"


def _name(name: str) -> str:
    """A name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def _floats(column: Any) -> np.ndarray:
    values: np.ndarray = _masked(column).astype(np.float64).filled(np.nan)
    return values


def _masked(column: Any) -> Any:
    """A column with a mask of what is null: DuckDB leaves it out where nothing is."""
    masked: Any = np.ma.MaskedArray
    return masked(column, mask=getattr(column, "mask", np.zeros(len(column), bool)))


@functools.cache
def _database() -> Any:
    """An empty database in memory: one for the process, since to make it takes as long as to read a curve."""
    import duckdb

    return duckdb.connect()
