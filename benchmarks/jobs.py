"""Claims of the jobs: one is started within 3 s, 500 are listed in 300 ms, what is shown of events and logs of any
length is read in 50 ms, and a supervisor costs next to nothing, whether its command is silent or writes 1 MB/s.

    .venv/bin/python benchmarks/jobs.py [--quick] [--repetitions 10] [--log-seconds 60] [--idle-seconds 60]

Everything happens in a temporary workspace with leases of its own; every process is ended. Supervisors, commands and
command lines are real ones. Of the 500 jobs, 4 were run and the others are copies of their folders, 10 of them with
the identities of sleeping processes; cold means that the data of their files, not the names, were dropped from memory.
The long log is real at both ends and sparse between. A budget holds for the median, or for the worst where it says so.
Takes about eight minutes; --quick takes two, too short for the figures of a minute to be exact.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lark_engine.jobs import actions, logs
from lark_engine.jobs.devices import machine_devices
from lark_engine.jobs.folder import JOBS_DIR, Job, create_job
from lark_engine.jobs.launchers import program
from lark_engine.jobs.leases import FOLDER_VARIABLE as LEASES
from lark_engine.jobs.leases import lease
from lark_engine.jobs.records import Heartbeat, JobSpec, read_heartbeat
from lark_engine.jobs.status import STALE_S, list_jobs, view
from lark_engine.processes import identity_of
from lark_engine.store.curves import read_metric
from lark_engine.store.events import EventReader, last_event

SUBMIT_S = 3.0
LIST_MS = 300.0
READ_MS = 50.0
IDLE_PERCENT = 0.5
STATES = {"succeeded": 400, "failed": 50, "cancelled": 20, "interrupted": 20, "running": 10}
NUM_EVENTS = 100_000
NEW_EVENTS = 100
LOG_BYTES = 2_000_000_000
LOG_RATE = 1_000_000
NUM_QUEUED = 20
WAIT_S = 60.0
SETTLE_S = 5.0

# 300 events and 1,000 lines, as of a short training; then it ends as it is told to.
STAGE = """
import os, sys, time
from pathlib import Path
from lark_engine.store.events import EventLog
events = EventLog(Path(os.environ["LARK_JOB_DIR"]) / "events.jsonl", "train lora")
for step in range(1, 301):
    metrics = {"loss": 1 / step, "learning_rate": 1e-5, "grad_norm": 0.5, "tokens_per_s": 4213.7, "memory_gb": 11.52}
    events.write(done=step, total=300, unit="step", rate=0.81234, eta_s=300.0 - step, metrics=metrics)
for line in range(1000):
    print(f"2026-01-01 00:00:00 lark_engine.training: line {line} of what a stage says", flush=line == 999)
if sys.argv[1] == "failed":
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.68 GiB")
if sys.argv[1] != "succeeded":
    time.sleep(3600)
"""
# Numbered lines at an even rate until TERM; then it says how many bytes that were.
CHATTY = """
import os, signal, sys, time
rate, told = int(sys.argv[1]), sys.argv[2]
is_asked = []
signal.signal(signal.SIGTERM, lambda *_: is_asked.append(True))
written = number = 0
start = time.monotonic()
while not is_asked:
    due, lines = int((time.monotonic() - start) * rate) - written, []
    while due > 0:
        lines.append(b"step %09d loss 0.6931 grad_norm 0.4021 tokens_per_s 4213.7 memory_gb 11.5\\n" % number)
        due -= len(lines[-1])
        number += 1
    left = b"".join(lines)
    while left:
        count = os.write(1, left)
        left, written = left[count:], written + count
    time.sleep(0.05)
with open(told, "w") as file:
    file.write(str(written))
sys.exit(130)
"""
_NUMBERED = re.compile(rb"^step (\d{9}) .*\n", re.MULTILINE)


class Row(NamedTuple):
    """One line of the report. `limit` is an upper bound of the median, or of the worst."""

    what: str
    values: list[float]
    unit: str
    limit: float | None = None
    of_worst: bool = False

    @property
    def holds(self) -> bool:
        measured = max(self.values) if self.of_worst else statistics.median(self.values)
        return self.limit is None or measured <= self.limit

    def __str__(self) -> str:
        bound = "" if self.limit is None else f"{'worst ' if self.of_worst else ''}≤ {self.limit:g}"
        verdict = "" if self.limit is None else "holds" if self.holds else "FAILS"
        shown = f"{_figure(statistics.median(self.values))} {_figure(max(self.values))}"
        return f"{self.what:<72} {shown} {self.unit:<4} {len(self.values):>4} {bound:>12}  {verdict}".rstrip()


def _figure(value: float) -> str:
    return f"{value:>11,.0f}" if abs(value) >= 1000 else f"{value:>11.4g}"


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def milliseconds(run: Callable[[], object], repetitions: int) -> list[float]:
    return [1000 * seconds(run)[0] for _ in range(repetitions)]


def wait_for(condition: Callable[[], Any], job: Job) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (met := condition()):
        assert time.monotonic() < deadline, f"waited {WAIT_S:g} s in vain; {view(job)}"
        time.sleep(0.02)
    return met


def started(root: Path, command: tuple[str, ...], **values: Any) -> Job:
    """A job that runs any program, with its supervisor up; `submit` would take commands of lark only."""
    job = create_job(root, JobSpec(stage="train lora", command=command, cwd=str(root.parent), **values))
    actions.launch(job)
    wait_for(job.launch, job)
    return job


def python(code: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *words)


def end_jobs(root: Path) -> None:
    """End every job of a workspace that lives; all are asked before any is waited for."""
    live = [found.job for found in list_jobs(root) if found.is_live]
    for job in live:
        job.ask("kill")
    for job in live:
        if view(job).is_live:
            actions.stop(job, "kill")


class Usage(NamedTuple):
    """What a process has used so far: CPU time, and how often it was woken."""

    cpu_s: float
    wakeups: int


def usage(pid: int) -> Usage:
    # The kernel's clock of another process's CPU time (MAKE_PROCESS_CPUCLOCK, as clock_getcpuclockid gives it); the
    # ticks of /proc/PID/stat are too coarse for a process that sleeps.
    cpu_s = time.clock_gettime((~pid << 3) | 2)
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return Usage(cpu_s, sum(_field(task / "status", "voluntary_ctxt_switches") for task in tasks))


def resident_mb(pid: int) -> float:
    return _field(Path(f"/proc/{pid}/status"), "VmRSS") * 1024 / 1e6


def own_share_mb(pid: int) -> float:
    """Resident memory with every page that n processes share counted as 1/n (PSS)."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss") * 1024 / 1e6


def bytes_read(run: Callable[[], object]) -> int:
    """What this process reads in a call, by the kernel's count."""
    counter = Path("/proc/self/io")
    first = _field(counter, "rchar")
    before = _field(counter, "rchar")
    run()
    return _field(counter, "rchar") - before - (before - first)


def _field(path: Path, name: str) -> int:
    [line] = [line for line in path.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1])


def submit_rows(folder: Path, repetitions: int) -> Iterator[Row]:
    """The command line and the engine's call in turns; the job's own work is waited for in between."""
    root, pool_path = folder / "submitted", folder / "pool.jsonl"
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    row = {"problem_id": 0, "candidate_id": 0, "teacher": "t", "messages": messages}
    pool_path.write_text(json.dumps(row) + "\n")
    command = ["lark", "pool", "import", str(pool_path), "--workspace", str(root)]

    def in_process() -> Any:
        found = actions.submit(root, command, cwd=folder)
        return found.job, found.launch

    def on_command_line() -> Any:
        words = program(["lark", "jobs", "submit", "--json", "--workspace", str(root), *command])
        shown = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=folder).stdout)
        return Job(Path(shown["folder"])), shown["launch"]

    times: dict[str, list[float]] = {"lark jobs submit, a whole process": [], "actions.submit": []}
    num_without = 0
    for _ in range(repetitions):
        for name, submit in zip(times, (on_command_line, in_process), strict=True):
            taken, (job, launch) = seconds(submit)
            times[name].append(taken)
            num_without += launch is None
            wait_for(lambda job=job: view(job).state == "succeeded", job)
    for name, values in times.items():
        yield Row(f"{name}, until it returns", values, "s", SUBMIT_S, of_worst=True)
    yield Row("submitted, and returned without a launch record", [num_without], "jobs", 0)


@contextlib.contextmanager
def many_jobs(root: Path) -> Iterator[list[Job]]:
    """A workspace of 500 jobs in mixed states; gives those that seem to run, by processes that sleep here."""
    real = {state: started(root, python(STAGE, state)) for state in STATES if state != "running"}
    wait_for(lambda: view(real["succeeded"]).state == "succeeded", real["succeeded"])
    wait_for(lambda: view(real["failed"]).state == "failed", real["failed"])
    for state in ("cancelled", "interrupted"):
        wait_for(lambda state=state: real[state].log_path.stat().st_size > 50_000, real[state])
    actions.stop(real["cancelled"], "stop")
    launch = real["interrupted"].launch()
    assert launch is not None and launch.command is not None
    for process in (launch.supervisor, launch.command):
        os.kill(process.pid, 9)
    running = []
    sleeping: list[subprocess.Popen[bytes]] = []
    names = _names()
    try:
        for state, count in STATES.items():
            for _ in range(count - (state in real)):
                job = Job(root / JOBS_DIR / next(names))
                shutil.copytree(real["interrupted" if state == "running" else state].folder, job.folder)
                if state == "running":
                    pair = [subprocess.Popen(["sleep", "3600"]) for _ in range(2)]
                    sleeping += pair
                    supervisor, command = (identity_of(sleeper.pid) for sleeper in pair)
                    assert supervisor is not None
                    job.write_launch(replace(launch, supervisor=supervisor, command=command))
                    running.append(job)
        os.sync()  # what is not on the disk yet cannot be dropped from memory
        yield running
    finally:
        for sleeper in sleeping:
            sleeper.kill()
            sleeper.wait()


def _names() -> Iterator[str]:
    at = datetime.now(UTC) - timedelta(days=90)
    for number in itertools.count():
        yield f"{at + timedelta(hours=number):%Y%m%d-%H%M%S}-train-lora-{secrets.token_hex(4)}"


def beat(running: list[Job]) -> None:
    for job in running:
        heartbeat = Heartbeat(job.folder)
        heartbeat.write("running")
        heartbeat.close()


def forget(folder: Path) -> None:
    """Drop the data of the files below from the system's memory, so that they are read from the disk again."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def list_rows(root: Path, running: list[Job], repetitions: int) -> Iterator[Row]:
    times: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(repetitions):
        beat(running)
        forget(root)
        for values in times.values():
            taken, found = seconds(lambda: list_jobs(root))
            values.append(1000 * taken)
            states = Counter(one.state for one in found)
            assert states == STATES, states
    for name, values in times.items():
        yield Row(f"list_jobs of {sum(STATES.values())} jobs, {name}", values, "ms", LIST_MS)
    words = program(["lark", "jobs", "list", "--json", "--workspace", str(root)])
    whole = []
    for _ in range(repetitions):
        taken, done = seconds(lambda: subprocess.run(words, stdout=subprocess.PIPE, check=True))
        assert len(json.loads(done.stdout)) == sum(STATES.values())
        whole.append(taken)
    yield Row("lark jobs list --json of them, a whole process", whole, "s")


def write_events(path: Path) -> int:
    """A long training's events, as EventLog writes them; gives the byte at which the newest ones begin."""
    offset = 0
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(NUM_EVENTS, 6)).round(6).tolist()
    with path.open("w", encoding="utf-8") as file:
        for done, (loss, norm, speed, ess, memory, power) in enumerate(noise, start=1):
            if done == NUM_EVENTS - NEW_EVENTS + 1:
                offset = file.tell()
            event = {
                "time": 1.76e9 + done, "stage": "train lora", "done": done, "total": NUM_EVENTS, "unit": "step",
                "rate": 0.81234, "eta_s": float(NUM_EVENTS - done), "metrics": {
                    "loss": 0.7 + loss / 10, "learning_rate": 1e-5 * (1 - done / NUM_EVENTS), "grad_norm": 1 + norm,
                    "tokens_per_s": 4000 + speed, "memory_gb": 11.5 + memory, "power_w": 300 + power + ess,
                },
            }  # fmt: skip
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
    return offset


def line_by_line(path: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The oracle of `read_metric`."""
    found = [(event["done"], event["metrics"][metric]) for event in map(json.loads, path.open("rb"))]
    done, values = zip(*found, strict=True)
    return np.array(done, np.int64), np.array(values)


def event_rows(folder: Path, repetitions: int) -> Iterator[Row]:
    path = folder / "events.jsonl"
    offset = write_events(path)
    name = f"{NUM_EVENTS:,} events ({path.stat().st_size / 1e6:.0f} MB)"
    found = last_event(path)
    assert found is not None and found["done"] == NUM_EVENTS
    assert [e["done"] for e in EventReader(path, offset)] == list(range(NUM_EVENTS - NEW_EVENTS + 1, NUM_EVENTS + 1))
    yield Row(f"{name}: last_event", milliseconds(lambda: last_event(path), repetitions), "ms", READ_MS)
    newest = milliseconds(lambda: list(EventReader(path, offset)), repetitions)
    yield Row(f"{name}: the newest {NEW_EVENTS} by EventReader", newest, "ms", READ_MS)
    first = 1000 * seconds(lambda: read_metric(path, "loss"))[0]
    curves, lines = [], []
    for _ in range(repetitions):
        taken, ours = seconds(lambda: read_metric(path, "loss"))
        curves.append(1000 * taken)
        taken, theirs = seconds(lambda: line_by_line(path, "loss"))
        lines.append(1000 * taken)
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    yield Row(f"{name}: read_metric of the whole curve", curves, "ms", READ_MS)
    yield Row(f"{name}: read_metric, the first in a process", [first], "ms")
    yield Row(f"{name}: the same line by line", lines, "ms")
    ratios = [slow / fast for slow, fast in zip(lines, curves, strict=True)]
    yield Row(f"{name}: read_metric is so many times as fast", ratios, "x")


def log_rows(folder: Path, repetitions: int) -> Iterator[Row]:
    path = folder / "long.log"
    lines = [
        f"2026-01-01 00:00:00 lark_engine.scoring: scored {number:,} of 160,000 trajectories, 21.4 a second\n"
        for number in range(50_000)
    ]
    head, tail = "".join(lines[:25_000]).encode(), "".join(lines[25_000:]).encode()
    with path.open("wb") as file:
        file.write(head)
        file.truncate(LOG_BYTES)
        file.seek(LOG_BYTES - len(tail))
        file.write(tail)
    last = [line.rstrip("\n") for line in lines[-logs.LAST_LINES :]]
    assert logs.last_lines(path, logs.LAST_LINES) == last
    assert logs.excerpt(path).splitlines()[-logs.LAST_LINES :] == last
    name = f"a log of {path.stat().st_size / 1e9:.1f} GB"
    for what, read in (
        (f"the last {logs.LAST_LINES} lines", lambda: logs.last_lines(path, logs.LAST_LINES)),
        ("its excerpt", lambda: logs.excerpt(path)),
    ):
        yield Row(f"{name}: {what}", milliseconds(read, repetitions), "ms")
        yield Row(f"{name}: read for {what}", [bytes_read(read) / 1e3], "kB")


def chatty_rows(folder: Path, log_s: float) -> Iterator[Row]:
    """A command that writes and writes, until it is stopped."""
    told = folder / "told"
    job = started(folder / "chatty", python(CHATTY, str(LOG_RATE), str(told)))
    launch = wait_for(lambda: (found := job.launch()) and found.command and found, job)
    pid = launch.supervisor.pid
    wait_for(lambda: job.log_path.stat().st_size > LOG_RATE, job)
    memory_mb, before, begun = [resident_mb(pid)], usage(pid), time.monotonic()
    beats: list[float] = []
    while time.monotonic() < begun + log_s:
        at = (read_heartbeat(job.folder) or {}).get("monotonic")
        if at is not None and at not in beats:
            beats.append(at)
        time.sleep(0.1)
    memory_mb.append(resident_mb(pid))
    cpu_s = usage(pid).cpu_s - before.cpu_s
    stop_s, found = seconds(lambda: actions.stop(job, "stop"))
    assert found.state == "cancelled", found

    text = job.log_path.read_bytes()
    numbers = [int(number) for number in _NUMBERED.findall(text)]
    num_bytes = sum(match.end() - match.start() for match in _NUMBERED.finditer(text))
    num_gaps = int(np.sum(np.diff([-1, *numbers]) != 1))
    name = f"{LOG_RATE / 1e6:g} MB/s of log for {log_s:g} s"
    yield Row(f"{name}: what is in the log", [len(text) / 1e6], "MB")
    yield Row(f"{name}: bytes lost", [abs(num_bytes - int(told.read_text()))], "B", 0)
    yield Row(f"{name}: places where a line is missing", [num_gaps], "", 0)
    yield Row(f"{name}: lines of the excerpt that are not the log's", [wrong_lines(job, text)], "", 0)
    yield Row(f"{name}: resident memory of the supervisor at the start", memory_mb[:1], "MB")
    yield Row(f"{name}: what it grew by", [memory_mb[1] - memory_mb[0]], "MB")
    yield Row(f"{name}: CPU time of the supervisor", [cpu_s], "s")
    yield Row(f"{name}: the same, of a core", [100 * cpu_s / log_s], "%", IDLE_PERCENT)
    gaps = np.diff(beats).tolist()
    yield Row(f"{name}: between two heartbeats", gaps, "s", STALE_S, of_worst=True)
    yield Row(f"{name}: from stop to cancelled", [stop_s], "s")


def wrong_lines(job: Job, text: bytes) -> int:
    """How many lines of the excerpt differ from the first and last ones of the log, with what is between counted."""
    lines = text.splitlines(keepends=True)
    first, last = lines[: logs.FIRST_LINES], lines[-logs.LAST_LINES :]
    between = len(text) - sum(map(len, first)) - sum(map(len, last))
    note = f"[… {between:,} bytes between are in {job.log_path.name} …]\n".encode()
    found = job.excerpt_path.read_bytes().splitlines(keepends=True)
    pairs = itertools.zip_longest(found, [*first, note, *last])
    return sum(ours != theirs for ours, theirs in pairs)


def idle_rows(name: str, jobs: list[Job], idle_s: float, state: str) -> Iterator[Row]:
    """What supervisors use that have nothing to do."""
    for job in jobs:
        wait_for(lambda job=job: view(job).state == state, job)
    time.sleep(min(SETTLE_S, idle_s))
    pids = [launch.supervisor.pid for job in jobs if (launch := job.launch())]
    before, begun = [usage(pid) for pid in pids], time.monotonic()
    time.sleep(idle_s)
    after, minutes = [usage(pid) for pid in pids], (time.monotonic() - begun) / 60
    assert all(view(job).state == state for job in jobs)
    cpu_s = [(b.cpu_s - a.cpu_s) / minutes for a, b in zip(before, after, strict=True)]
    yield Row(f"{name}: resident memory of a supervisor", [resident_mb(pid) for pid in pids], "MB")
    if len(jobs) > 1:
        yield Row(f"{name}: all of them together", [sum(resident_mb(pid) for pid in pids)], "MB")
        yield Row(f"{name}: the same, shared pages once", [sum(own_share_mb(pid) for pid in pids)], "MB")
        yield Row(f"{name}: CPU time of all, a minute", [sum(cpu_s)], "s")
    yield Row(f"{name}: CPU time of one, of a core", [100 * value / 60 for value in cpu_s], "%", IDLE_PERCENT)
    wakeups = [(b.wakeups - a.wakeups) / minutes for a, b in zip(before, after, strict=True)]
    yield Row(f"{name}: wake-ups of one, a minute", wakeups, "")


def waiting_rows(folder: Path, full_root: Path, idle_s: float) -> Iterator[Row]:
    """One that watches a silent command, one in the queue, and 20 in it: alone, and beside 500 other jobs."""
    devices = machine_devices("cpu")
    held = lease(devices, len(devices), "benchmark")
    assert held is not None
    silent = ("sleep", "3600")

    def queued(root: Path, count: int) -> list[Job]:
        return [started(root, silent, device_kind="cpu", devices=1) for _ in range(count)]

    root = folder / "silent"
    yield from idle_rows("a silent command", [started(root, silent)], idle_s, "running")
    end_jobs(root)
    for root, count, name in (
        (folder / "one", 1, "one queued job"),
        (folder / "twenty", NUM_QUEUED, f"{NUM_QUEUED} queued jobs"),
        (full_root, NUM_QUEUED, f"{NUM_QUEUED} queued jobs beside {sum(STATES.values())}"),
    ):
        jobs = queued(root, count)
        yield from idle_rows(name, jobs, idle_s, "queued")
        for job in jobs:
            job.ask("kill")
        for job in jobs:
            wait_for(lambda job=job: view(job).state == "cancelled", job)
    held.free()


def rows(folder: Path, options: argparse.Namespace) -> Generator[Row, None, None]:
    yield from submit_rows(folder, options.repetitions)
    yield from event_rows(folder, options.repetitions)
    yield from log_rows(folder, options.repetitions)
    yield from chatty_rows(folder, options.log_seconds)
    with many_jobs(folder / "many") as running:
        yield from list_rows(folder / "many", running, options.repetitions)
        yield from waiting_rows(folder, folder / "many", options.idle_seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--log-seconds", type=float, default=60)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--quick", action="store_true", help="3 repetitions and 10 seconds each")
    options = parser.parse_args()
    if options.quick:
        options.repetitions, options.log_seconds, options.idle_seconds = 3, 10, 10
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before we begin")
    print(f"{'':<72} {'median':>11} {'worst':>11} {'':<4} {'of':>4} {'budget':>12}")
    holds = True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        os.environ[LEASES] = str(folder / "leases")
        try:
            with contextlib.closing(rows(folder, options)) as found:
                for row in found:
                    print(row, flush=True)
                    holds &= row.holds
        finally:
            for jobs in folder.glob(f"*/{JOBS_DIR}"):
                end_jobs(jobs.parent)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
