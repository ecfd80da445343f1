"""What the tests of hostile input share: rows of a pool, a marker that only code would write, and memory by a child."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any


def row(problem_id: Any = 0, response: str = "2", **more: Any) -> dict[str, Any]:
    """A sound row of a pool, with what `more` adds or changes."""
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": response}]
    return {"problem_id": problem_id, "teacher": "t", "messages": messages, **more}


def with_raw(key: str, raw: str) -> bytes:
    """A sound row as one line of JSON, with a value as it stands."""
    return json.dumps({name: value for name, value in row().items() if name != key})[:-1].encode() + (
        f', "{key}": {raw}}}'.encode()
    )


class _WritesAMarker:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "the payload ran")


def payload(marker: Path) -> object:
    """An object whose unpickling writes a file."""
    return _WritesAMarker(marker)


def runs(marker: Path) -> bool:
    """Whether the payload works at all: a test whose payload could not run would prove nothing."""
    pickle.loads(pickle.dumps(payload(marker)))
    there = marker.exists()
    marker.unlink()
    return there


_MEASURED = """
import resource, sys
import pyarrow.parquet
from lark_engine.config import PoolConfig
from lark_engine.errors import LarkError
from lark_engine.pool.importer import import_pool
from lark_engine.pool.preview import preview
from lark_engine.store.workspace import Workspace
what, source, folder = sys.argv[1:]
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak_mb()
try:
    config = PoolConfig(source=source)
    found = preview(config) if what == "preview" else import_pool(config, Workspace(folder))
    said = f"{found.num_rows} rows" if what == "preview" else found.id
except LarkError as error:
    said = str(error)
print(peak_mb() - before)
print(said)
"""


def memory_of(what: str, source: Path, folder: Path) -> tuple[int, str]:
    """MB that a preview or an import takes at most in a process of its own, and what comes of it."""
    arguments = [sys.executable, "-c", _MEASURED, what, str(source), str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    memory, said = done.stdout.split("\n", 1)
    return int(memory), said.strip()
