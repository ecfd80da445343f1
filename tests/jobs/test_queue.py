"""Waiting for devices, with real supervisors: turns, leases, what a job is given, and that it is free afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lark_engine.jobs import actions
from lark_engine.jobs.folder import Job
from lark_engine.jobs.status import list_jobs, view
from tests.jobs.kit import new_job, processes_of, python, start, wait_for, wait_for_state, wait_for_text

pytestmark = pytest.mark.slow

# NVML as files say: two GPUs, how many bytes of each are in use, and by which processes.
PYNVML = """
import json, pathlib
STATE = pathlib.Path({path!r})
class NVMLError(Exception): pass
class NVMLError_NotSupported(NVMLError): pass
class NVMLError_NotFound(NVMLError): pass
NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NOT_FOUND = 3, 6
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(i): return i
def nvmlDeviceGetHandleByUUID(u): return int((u.decode() if isinstance(u, bytes) else u).split("-")[1])
def nvmlDeviceGetUUID(h): return f"GPU-{{h}}"
def nvmlDeviceGetName(h): return "Stand-in"
def nvmlDeviceGetMigMode(h): raise NVMLError_NotSupported()
class Memory:
    def __init__(self, used): self.used, self.total, self.free = used, 80 << 30, (80 << 30) - used
def nvmlDeviceGetMemoryInfo(h): return Memory(json.loads(STATE.read_text())[h])
class Process:
    def __init__(self, pid): self.pid, self.usedGpuMemory = pid, 1
def nvmlDeviceGetComputeRunningProcesses(h):
    path = STATE.with_name("gpu_processes.json")
    return [Process(pid) for pid in json.loads(path.read_text())] if path.exists() else []
"""


def test_jobs_that_start_together_run_one_after_the_other_by_priority(root: Path) -> None:
    """Submitted by processes of their own, as two servers on one workspace would."""
    times = root.parent / "times"
    holds = start(root, python("import time; print('at', 'work', flush=True); time.sleep(99)"), **ONE_SLOT)
    wait_for_text(holds.log_path, "at work", holds)
    code = "import sys, time; from pathlib import Path; f = open({!r}, 'a'); " + (
        "print('begin', sys.argv[1], file=f, flush=True); time.sleep(0.3); print('end', sys.argv[1], file=f)"
    )
    jobs = [
        new_job(root, (*python(code.format(str(times))), str(priority)), priority=priority, **ONE_SLOT)
        for priority in (1, 5, 3, 9)
    ]
    script = (
        "import sys; from pathlib import Path; from lark_engine.jobs import actions; "
        "from lark_engine.jobs.folder import Job; actions.launch(Job(Path(sys.argv[1])))"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, str(job.folder)]) for job in jobs]
    assert [process.wait(60) for process in both] == [0] * 4
    wait_for(lambda: [view(job).state for job in jobs] == ["queued"] * 4)
    places = {found.id: found.place for found in list_jobs(root)}
    assert [places[job.id] for job in jobs] == [4, 2, 3, 1]
    assert f"cpu-0 is held by {holds.id}" in wait_for(lambda: (view(jobs[3]).heartbeat or {}).get("waits_for"))
    actions.stop(holds, "kill")
    for job in jobs:
        wait_for_state(job, "succeeded", "failed")
    assert times.read_text().split() == [word for n in "9531" for word in ("begin", n, "end", n)]


ONE_SLOT = {"device_kind": "cpu", "devices": 1}


def test_a_waiting_job_that_is_stopped_never_runs_and_can_be_put_back(root: Path) -> None:
    holds = start(root, python("import time; print('at', 'work', flush=True); time.sleep(99)"), **ONE_SLOT)
    wait_for_text(holds.log_path, "at work", holds)
    waits = start(root, python("print('ran', 'indeed')"), **ONE_SLOT)
    wait_for_state(waits, "queued")
    assert actions.stop(waits, "after_checkpoint").why == "cancelled while it waited"
    waits.begin_again()
    actions.launch(waits)
    wait_for_state(waits, "queued")
    assert "ran indeed" not in waits.log_path.read_text()
    actions.stop(holds, "kill")
    assert wait_for_state(waits, "succeeded", "failed").state == "succeeded"


def set_memory(state: Path, *used: int) -> None:
    """Whole at every moment: supervisors read it meanwhile."""
    written = state.with_suffix(".new")
    written.write_text(json.dumps(used))
    written.replace(state)


@pytest.fixture
def gpu_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two GPUs of a stand-in for NVML; the file says how many bytes of each are in use."""
    library = root.parent / "library"
    library.mkdir()
    state = root.parent / "gpu_memory.json"
    set_memory(state, 1000, 2000)
    (library / "pynvml.py").write_text(PYNVML.format(path=str(state)))
    monkeypatch.setenv("PYTHONPATH", str(library))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return state


def gpu_job(root: Path, code: str, devices: int = 1) -> Job:
    return start(root, python(code), device_kind="cuda", devices=devices)


def test_a_job_gets_gpus_of_its_own_and_the_verdict_says_that_they_are_free_again(root: Path, gpu_memory: Path) -> None:
    sees = "import os, time; print('sees', os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(99)"
    first, second = gpu_job(root, sees), gpu_job(root, sees)
    wait_for_text(first.log_path, "sees GPU-", first)
    wait_for_text(second.log_path, "sees GPU-", second)
    given = [job.log_path.read_text().split("sees ")[-1].split()[0] for job in (first, second)]
    assert sorted(given) == ["GPU-0", "GPU-1"]
    third = gpu_job(root, sees)
    wait_for_state(third, "queued")
    # Its process ends, and the driver gives the memory back a moment later.
    set_memory(gpu_memory, 9 << 30, 9 << 30)
    memory_back = threading.Timer(2, set_memory, (gpu_memory, 1000, 2000))
    memory_back.start()
    verdict = actions.stop(first, "kill").verdict or {}
    memory_back.join()
    before = {"GPU-0": 1000, "GPU-1": 2000}[given[0]]
    assert verdict["device_memory"] == {given[0]: {"before": before, "after": before}}
    wait_for_text(third.log_path, f"sees {given[0]}", third)
    for job in (second, third):
        actions.stop(job, "kill")


def test_a_device_that_stays_full_is_said_and_nobody_elses_process_is_ended(root: Path, gpu_memory: Path) -> None:
    """Another user's program took the memory meanwhile: it is told, never signalled."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    (root.parent / "gpu_processes.json").write_text(f"[{bystander.pid}]")
    full = gpu_memory.with_suffix(".full")
    full.write_text("[9000000000, 9000000000]")
    job = gpu_job(root, f"import os; os.replace({str(full)!r}, {str(gpu_memory)!r})", devices=2)
    verdict = wait_for_state(job, "succeeded", "failed").verdict or {}
    assert verdict["device_memory"]["GPU-0"] == {"before": 1000, "after": 9000000000}
    said = (
        f"device GPU-0 still holds {9000000000 - 1000} bytes more than before; by processes {bystander.pid}, not ended"
    )
    assert said in job.log_path.read_text()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    wait_for(lambda: processes_of(job) == [], job)
