"""A killed, interrupted, raced or disk-starved import never leaves anything that is taken for a finished pool."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from pool_sources import pool_row

from lark_engine.config import PoolConfig
from lark_engine.errors import StoreError
from lark_engine.pool.dataset import PoolData
from lark_engine.pool.importer import import_pool, plan_pool
from lark_engine.store.workspace import Workspace

IMPORT = """
import sys
from lark_engine.config import PoolConfig
from lark_engine.pool.importer import import_pool
from lark_engine.store.workspace import Workspace
if __name__ == "__main__":
    config = PoolConfig(source=sys.argv[1], labels=sys.argv[3], workers=1)
    print(import_pool(config, Workspace(sys.argv[2])).id)
"""


def start_import(path, workspace, labels="auto"):
    command = [sys.executable, "-c", IMPORT, str(path), str(workspace.root), labels]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"ended too early: {process.stderr.read()}"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_import_goes_on_and_gives_the_same_pool(write, tmp_path, workspace, signal_number):
    text = "A long way around, then \\boxed{{\\frac{{{i}}}{{7}}}}."
    rows = [
        pool_row(i, 0, answer=f"\\frac{{{2 * i}}}{{14}}", messages=[
            {"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": text.format(i=i)},
        ]) for i in range(1, 700)
    ]  # fmt: skip
    path = write("pool.jsonl", *rows)
    config = PoolConfig(source=str(path), labels="verify")
    folder = workspace.folder(plan_pool(config, workspace))
    log = folder / "resume" / "labels.jsonl"
    process = start_import(path, workspace, "verify")
    wait_for(lambda: log.exists() and log.stat().st_size > 0, process)
    process.send_signal(signal_number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert workspace.list("pools") == []
    known = log.read_text().count("\n")
    assert 0 < known < len(rows)
    (folder / "resume" / "runs" / "run-00099.parquet").write_bytes(b"left behind")
    resumed = import_pool(config, workspace)
    clean = import_pool(config, Workspace(tmp_path / "clean"))
    assert resumed.manifest.counts == clean.manifest.counts
    assert resumed.manifest.counts["num_correct"] == len(rows)
    same = [a == b for a, b in zip(PoolData(resumed).trajectories(), PoolData(clean).trajectories(), strict=True)]
    assert all(same)
    assert not (resumed.path / "resume").exists()


@pytest.mark.slow
def test_two_processes_that_want_the_same_pool_get_one(write, workspace):
    path = write("pool.jsonl", *[pool_row(i, c, is_correct=True) for c in range(10) for i in range(500)])
    processes = [start_import(path, workspace) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({stdout for stdout, _ in results}) == 1
    (pool,) = workspace.list("pools")
    assert PoolData(pool).num_trajectories == 5000
    assert len(list((workspace.root / "pools").iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system needs root and the right to mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("num_rows", [250, 450, 900])
def test_a_full_disk_is_one_sentence_and_nothing_is_taken_for_complete(write, small_disk, num_rows):
    rng = random.Random(0)
    rows = []
    for i in range(num_rows):
        text = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(2000))
        rows.append(pool_row(i, 0, messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]))
    path = write("pool.jsonl", *rows)
    workspace = Workspace(small_disk)
    with pytest.raises(StoreError, match="the disk is full; free some space and run the same command again"):
        import_pool(PoolConfig(source=str(path)), workspace)
    assert workspace.list("pools") == []
    assert not list(small_disk.rglob("trajectories.parquet"))
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert PoolData(import_pool(PoolConfig(source=str(path)), workspace)).num_trajectories == num_rows
