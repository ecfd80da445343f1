"""Memory and waiting times of a read-only server while many people look at it at once.

    .venv/bin/python -m benchmarks.viewers [--viewers 200] [--problems 5000] [--candidates 33]

Each viewer is a session of its own over Streamlit's websocket, as a browser keeps one: it opens Tune, Explore and
Trajectory, moves the budget, and stays until all have done so. Waves follow each other: what one leaves behind, the
next would add to. Prints the server's resident memory and the times from a request to the end of its run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from benchmarks.raw_client import session
from benchmarks.scored_pool import make_scored_pool
from lark_engine.serve import find_dashboard, serve, stop
from lark_engine.sharing.exposure import Exposure
from lark_engine.store.workspace import Workspace

# Of each viewer: a page, then moves on it. Not all look at the same.
VISITS = (("tune", {"mode": "budget"}), ("explore", {}), ("trajectory", {}), ("", {}))


class Wave(NamedTuple):
    """What one wave of viewers saw and cost. Memory in MB, times in seconds."""

    num_viewers: int
    num_pages: int
    failures: list[str]
    waits: list[float]
    memory_mb: float
    peak_mb: float


@contextmanager
def read_only_server(workspace: Workspace, scratch: Path, port: int = 8900) -> Iterator[tuple[str, psutil.Process]]:
    """A read-only server of a workspace, and its process."""
    how = Exposure(read_only=True, memo_dir=scratch / "memo")
    address = serve(workspace, port=port, open_in_background=True, exposure=how).address
    try:
        running = find_dashboard(workspace)
        assert running is not None
        yield address, psutil.Process(running.pid)
    finally:
        stop(workspace)


def wave(address: str, server: psutil.Process, num_viewers: int, *, moves: int = 3) -> Wave:
    """Let so many viewers come at once, each look at its pages, and stay until the last one is done."""
    assert urlsplit(address).hostname == "127.0.0.1"
    waits: list[float] = []
    failures: list[str] = []
    peak = [memory_mb(server)]
    all_done = threading.Barrier(num_viewers + 1)

    def look(number: int) -> None:
        try:
            with session(address) as viewer:
                for page, params in VISITS:
                    for move in range(moves if page == "tune" else 1):
                        began = time.monotonic()
                        viewer.open(page, **params, **({"B": 1 + (number + move) % 8} if page == "tune" else {}))
                        waits.append(time.monotonic() - began)
                        if viewer.says("This part of the page failed"):
                            failures.append(f"viewer {number}: {page} failed")
                viewer.raw.clear()
                all_done.wait(600)
                all_done.wait(600)  # the memory is read while all are there
        except Exception as error:
            failures.append(f"viewer {number}: {type(error).__name__}: {error}")
            all_done.abort()

    with ThreadPoolExecutor(num_viewers) as pool, ExitStack() as stack:
        watching = threading.Event()
        watcher = threading.Thread(target=_watch, args=(server, peak, watching), daemon=True)
        watcher.start()
        stack.callback(watching.set)
        for number in range(num_viewers):
            pool.submit(look, number)
        try:
            all_done.wait(600)
            while_all_are_there = memory_mb(server)
            all_done.wait(600)
        except threading.BrokenBarrierError:
            while_all_are_there = memory_mb(server)
    return Wave(num_viewers, len(waits), failures, waits, while_all_are_there, max(peak))


def memory_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children."""
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 1e6


def _watch(server: psutil.Process, peak: list[float], ended: threading.Event) -> None:
    while not ended.wait(0.25):
        peak.append(memory_mb(server))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--waves", type=int, default=3)
    parser.add_argument("--problems", type=int, default=5000)
    parser.add_argument("--candidates", type=int, default=33)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        workspace = Workspace(Path(folder) / "workspace")
        make_scored_pool(workspace, num_problems=asked.problems, num_candidates=asked.candidates)
        with read_only_server(workspace, Path(folder)) as (address, server):
            with session(address) as first:
                for page, params in VISITS:
                    first.open(page, **params)
            print(f"{asked.problems:,} × {asked.candidates} candidates; one viewer: {memory_mb(server):.0f} MB")
            print("wave  viewers  pages  failures  wait median    p95   memory with all there   peak")
            for number in range(asked.waves):
                seen = wave(address, server, asked.viewers)
                p95 = statistics.quantiles(seen.waits, n=20)[-1]
                median = statistics.median(seen.waits)
                print(
                    f"{number + 1:4}  {seen.num_viewers:7}  {seen.num_pages:5}  {len(seen.failures):8}  {median:9.2f} s"
                    f"{p95:7.2f} s {seen.memory_mb:18.0f} MB {seen.peak_mb:6.0f} MB"
                )
                for failure in seen.failures[:3]:
                    print("     ", failure)


if __name__ == "__main__":
    main()
