"""Disks that are full or become read-only: real file systems in memory, in a mount namespace of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
_UNSHARE = ["unshare", "--map-root-user", "--mount"]


def on_a_small_disk(tmp_path: Path, code: str) -> dict[str, object]:
    """Run code with `root`, a workspace on a file system of 2 MB, and `start` and the rest of the kit; its last line
    is JSON."""
    if shutil.which("unshare") is None or subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("a file system of one's own needs user namespaces, which this machine does not allow")
    disk = tmp_path / "disk"
    disk.mkdir()
    before = (
        "import json, os, subprocess, sys, time; from pathlib import Path; from tests.jobs.kit import *; "
        "from lark_engine.jobs import actions; from lark_engine.jobs.status import list_jobs, view; "
        f"root = Path({str(disk)!r}) / 'workspace'\n"
    )
    script = tmp_path / "script.py"
    script.write_text(before + code)
    mount = f'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" "$3"'  # noqa: F541
    done = subprocess.run(
        [*_UNSHARE, "sh", "-c", mount, "sh", str(disk), sys.executable, str(script)], capture_output=True, text=True,
        cwd=ROOT, timeout=200, env={**_environment(), "LARK_LEASES": str(tmp_path / "leases")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


FULL = """
fill = "open('filler', 'wb').write(b'x' * (16 << 20))"
code = f'''
import pathlib, time
kept = pathlib.Path("kept").exists()
pathlib.Path("kept").write_text("row")
if not pathlib.Path("filler").exists() and not kept:
    {fill}
'''
root.mkdir()
job = new_job(root, python(code))
actions.launch(job)
"""


def test_a_full_disk_ends_in_a_verdict_that_says_so_and_the_job_resumes_when_there_is_room(tmp_path: Path) -> None:
    found = on_a_small_disk(
        tmp_path,
        FULL
        + """
verdict = wait_for_state(job, "failed").verdict
free = os.statvfs(root).f_bavail
(root.parent / "filler").unlink()
job.begin_again()
actions.launch(job)
again = wait_for_state(job, "succeeded", "failed")
print(json.dumps({"verdict": verdict, "free": free, "again": again.state, "kept": (root.parent / "kept").read_text()}))
""",
    )
    verdict = found["verdict"]
    assert isinstance(verdict, dict)
    assert verdict["reason"] == "disk_full"
    assert "lark clean --dry-run" in verdict["remedy"]
    assert (found["again"], found["kept"]) == ("succeeded", "row")


def test_a_disk_that_fills_up_to_the_last_byte_still_takes_the_verdict(tmp_path: Path) -> None:
    """Nothing is freed: the verdict goes where its room was reserved, and heartbeats go on in place."""
    found = on_a_small_disk(
        tmp_path,
        """
root.mkdir()
job = new_job(root, python("import time; print('at', 'work', flush=True); time.sleep(6)"))
actions.launch(job)
wait_for_text(job.log_path, "at work", job)
with open(root.parent / "filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
before = json.loads((job.folder / "heartbeat").read_text())["monotonic"]
time.sleep(3)
beats = json.loads((job.folder / "heartbeat").read_text())["monotonic"] > before
state = wait_for_state(job, "succeeded", "failed").state
print(json.dumps({"beats": beats, "state": state, "free": os.statvfs(root).f_bavail}))
""",
    )
    assert (found["beats"], found["state"]) == (True, "succeeded")


def test_a_submit_to_a_full_disk_is_refused_in_a_sentence_and_leaves_no_half_job(tmp_path: Path) -> None:
    found = on_a_small_disk(
        tmp_path,
        """
root.mkdir()
with open(root.parent / "filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
try:
    actions.submit(root, ["lark", "pool", "import", "x"], cwd=root)
    said = ""
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps({"said": said, "states": [job.state for job in list_jobs(root)]}))
""",
    )
    said = str(found["said"])
    assert said.startswith("StoreError: ") and "the disk is full; free some space" in said
    assert set(found["states"]) <= {"unreadable", "failed"}  # type: ignore[call-overload]


def test_a_workspace_made_read_only_is_still_listed_and_the_verdict_comes_when_it_can_be_written(
    tmp_path: Path,
) -> None:
    found = on_a_small_disk(
        tmp_path,
        """
def remount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(root.parent)], check=True)

root.mkdir()
job = new_job(root, python("import sys, time; print('at', 'work', flush=True); time.sleep(4)"))
actions.launch(job)
wait_for_text(job.log_path, "at work", job)
# Open files for writing keep a file system from becoming read-only; a bind mount over it does not ask.
subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
listed = view(job).state
try:
    actions.stop(job, "stop", timeout_s=1)
    said = ""
except Exception as error:
    said = f"{type(error).__name__}: {error}"
time.sleep(6)
waits = view(job).state
subprocess.run(["mount", "-o", "remount,bind,rw", str(root)], check=True)
state = wait_for_state(job, "succeeded", "failed").state
print(json.dumps({"listed": listed, "said": said, "waits": waits, "state": state}))
""",
    )
    assert found["listed"] == "running"
    assert "the file system is read-only" in str(found["said"])
    assert found["waits"] in ("running", "stopping", "stale")
    assert found["state"] == "succeeded"
