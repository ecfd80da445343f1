"""A command that writes a lot: as much as 1 MB/s for a minute, in a fifth of the time."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lark_engine.jobs import logs
from lark_engine.jobs.status import view
from tests.jobs.kit import processes_of, python, start, wait_for

NUM_LINES = 600_000
# Numbered lines at 5 MB/s, in writes of whole lines; at the end it says how many bytes that were.
CHATTY = textwrap.dedent("""
    import os, pathlib, sys, time
    line = b"step %09d loss 0.6931 grad_norm 0.4021 tokens_per_s 4213.7 memory_gb 11.52 and what a stage says\\n"
    count, per_write = int(sys.argv[1]), 500
    written, start = 0, time.monotonic()
    for first in range(0, count, per_write):
        left = b"".join(line % number for number in range(first, first + per_write))
        while left:
            size = os.write(1, left)
            left, written = left[size:], written + size
        time.sleep(max(0, start + written / 5e6 - time.monotonic()))
    pathlib.Path("told").write_text(str(written))
""")


def bytes_read(run: Callable[[], object]) -> int:
    """What this process reads in a call, by the kernel's count."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    first = so_far()
    before = so_far()
    run()
    return so_far() - before - (before - first)


@pytest.mark.slow
def test_of_60_mb_of_log_nothing_is_lost_and_its_ends_are_read_without_the_rest(root: Path) -> None:
    job = start(root, (*python(CHATTY), str(NUM_LINES)))
    seen: set[str] = set()

    def has_ended() -> bool:
        seen.add(view(job).state)
        return job.done() is not None

    wait_for(has_ended, timeout_s=180)  # not with the job: each look would read its log
    assert view(job).state == "succeeded"
    assert not seen & {"stale", "interrupted", "unreadable"}  # it never seemed dead

    said = job.log_path.read_bytes()
    lines = said.splitlines(keepends=True)
    ours = [line for line in lines if line.startswith(b"step ")]
    assert sum(map(len, ours)) == int((root.parent / "told").read_text()) >= 60_000_000
    assert [int(line[5:14]) for line in ours] == list(range(NUM_LINES))

    first, last = lines[:100], lines[-200:]
    between = len(said) - sum(map(len, first)) - sum(map(len, last))
    note = f"[… {between:,} bytes between are in output.log …]\n".encode()
    assert job.excerpt_path.read_bytes() == b"".join([*first, note, *last])

    assert logs.last_lines(job.log_path, 200) == b"".join(last).decode().splitlines()
    assert bytes_read(lambda: logs.last_lines(job.log_path, 200)) <= 128 << 10
    assert bytes_read(lambda: logs.excerpt(job.log_path)) <= 256 << 10
    wait_for(lambda: processes_of(job) == [])
