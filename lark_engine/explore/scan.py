"""What only the texts of a pool can tell: read once for each pool, streamed, and remembered under its fingerprint.

A pool of 165,000 responses takes longer than a page may: the page starts `start_scan`, a process of its own, and shows
the rest. The memo may be deleted at any time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lark_engine.errors import StoreError
from lark_engine.evaluation.extract import RULES_VERSION, after_thinking, has_boxed_answer
from lark_engine.pool.staging import TRAJECTORIES
from lark_engine.store.atomic import replacing
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.lock import is_held_lock, lock
from lark_engine.store.workspace import Artifact, read_artifact

SMALL_POOL_BYTES = 4 << 20  # of parquet: read within a tenth of a second or so
# To be raised when a change of the flags changes what a memo would hold.
SCAN_VERSION = 2
_BATCH = 256


class TextScan(NamedTuple):
    """For every row of a pool: whether nothing but white space answers, and whether a boxed answer does."""

    empty: NDArray[np.bool_]
    boxed: NDArray[np.bool_]


def read_scan(pool: Artifact, memo_dir: Path) -> TextScan | None:
    """The remembered scan of a pool; None when there is none yet, or it is not of this pool's length."""
    try:
        table = pq.read_table(_path(pool, memo_dir))
        found = TextScan(*(table[name].to_numpy() for name in TextScan._fields))
    except (OSError, ValueError, KeyError):
        return None
    return found if len(found.empty) == pool.manifest.counts.get("num_trajectories") else None


def is_small(pool: Artifact) -> bool:
    """Whether the texts can be read while a page waits."""
    return (pool.path / TRAJECTORIES).stat().st_size <= SMALL_POOL_BYTES


def scan_texts(pool: Artifact) -> TextScan:
    """Read all responses, a few at a time. Errors: `StoreError` when the pool's table cannot be read."""
    flags: list[tuple[bool, bool]] = []
    try:
        with pq.ParquetFile(pool.path / TRAJECTORIES, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH, columns=["response"], use_threads=False):
                flags.extend(_flags(text) for text in batch.column(0).to_pylist())
    except (OSError, ValueError) as error:
        raise StoreError(f"{pool.path}: the texts cannot be read ({error}); import the pool again") from error
    empty_and_boxed = np.array(flags, dtype=bool).reshape(-1, 2)
    return TextScan(empty_and_boxed[:, 0], empty_and_boxed[:, 1])


def remember_scan(pool: Artifact, memo_dir: Path) -> TextScan:
    """The remembered scan, or a new one that is remembered; two processes do not read the same pool at once."""
    path = _path(pool, memo_dir)
    with lock(path.parent / path.stem):
        if (known := read_scan(pool, memo_dir)) is not None:
            return known
        found = scan_texts(pool)
        with replacing(path) as partial:
            pq.write_table(pa.table(found._asdict()), partial)
    return found


def is_scanning(pool: Artifact, memo_dir: Path) -> bool:
    """Whether a live process reads the texts now."""
    path = _path(pool, memo_dir)
    return is_held_lock(path.parent / path.stem / ".lock")


def start_scan(pool: Artifact, memo_dir: Path) -> subprocess.Popen[bytes]:
    """Scan in a process of its own, which gives way to others and outlives this one."""
    command = [sys.executable, "-P", "-m", "lark_engine.explore.scan", str(pool.path), str(memo_dir)]
    quiet = subprocess.DEVNULL
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        command, cwd=root, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True,
    )  # fmt: skip


def _path(pool: Artifact, memo_dir: Path) -> Path:
    key = {"pool": pool.manifest.fingerprint, "rules": RULES_VERSION, "scan": SCAN_VERSION}
    return memo_dir / "texts" / f"{fingerprint(key)}.parquet"


def _flags(text: str) -> tuple[bool, bool]:
    answer = after_thinking(text)
    # Thinking that was never closed is all there is; thinking that was closed answers nothing.
    return not (text if answer is None else answer).strip(), has_boxed_answer(text)


def main() -> None:
    """`python -m lark_engine.explore.scan POOL_FOLDER MEMO_FOLDER`."""
    os.nice(10)
    pool = read_artifact(Path(sys.argv[1]))
    assert pool is not None, f"no pool at {sys.argv[1]}"
    remember_scan(pool, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
