"""Folders of jobs from anybody: garbage, links, other people's processes and programs in them do no harm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import fake_jobs as fake
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from app import files, job_log
from app.files import log_path
from lark_engine.errors import ConfigError, StoreError
from lark_engine.jobs import actions, logs, supervise
from lark_engine.jobs.folder import MARK, Job, all_jobs, create_job
from lark_engine.jobs.records import JobSpec, Launch
from lark_engine.jobs.status import list_jobs, show_job, view
from lark_engine.processes import ProcessIdentity, identity_of, own_identity
from tests.jobs.kit import processes_of, python, start, wait_for

ROUTER = Path(__file__).resolve().parents[2] / "app" / "router.py"
FILES = (
    "spec.json", "launch.json", "control.json", "done.json", "heartbeat", "events.jsonl", "output.log", "outcome.json",
    "artifacts.txt", "excerpt.log", "preflight.json", "attempts", ".lock", ".control.lock", ".reserve",
)  # fmt: skip
READ = FILES[:11]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace's folder; the jobs in it are ended with the test."""
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))
    folder = tmp_path / "workspace"
    yield folder
    for job in all_jobs(folder):
        for pid in processes_of(job):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of this user's that is not to be shown to anybody, nor written over."""
    path = tmp_path / "home" / "secret"
    path.parent.mkdir()
    path.write_text('{"state": "failed", "message": "the secret", "request": "kill", "total": 1, "rate": 1}\n' * 20)
    return path


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user's that no job has anything to do with, with a session of its own and a child in it."""
    child = "print(0, flush=True); import time; time.sleep(300)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"0\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def group_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The live processes of the bystander's session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def identity(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    found = identity_of(process.pid)
    assert found is not None
    return found


def gone() -> ProcessIdentity:
    """A process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = identity(child)
    child.communicate(b"\n")
    return found


def lark_job(root: Path, *words: str, **spec: Any) -> Job:
    command = ("lark", *(words or ("pool", "show", "--workspace", str(root))))
    return create_job(root, JobSpec(stage="test", command=command, cwd=str(root.parent), **spec))


def opened(root: Path, monkeypatch: pytest.MonkeyPatch, page: str = "jobs", query: str = "") -> AppTest:
    monkeypatch.setenv("LARK_HOME", str(root))
    app = AppTest.from_file(str(ROUTER), default_timeout=60).run()
    for param, values in parse_qs(query, keep_blank_values=True).items():
        app.query_params[param] = values
    app.switch_page(f"../pages/{page}.py").run()
    assert not app.exception, app.exception
    return app


def all_text(app: AppTest) -> str:
    """All that a page sends to the browser, as one text."""
    return "\n".join(str(element.proto) for element in app.main) + "\n".join(
        str(getattr(element, "proto", ""))
        for kind in ("html", "bidi_component", "markdown")
        for element in app.get(kind)
    )


@pytest.mark.parametrize("name", READ)
def test_a_link_in_place_of_a_file_shows_nothing_of_what_it_leads_to(root: Path, secret: Path, name: str) -> None:
    job = (
        fake.failed(root) if name not in ("launch.json", "heartbeat", "control.json") else fake.living(root, "running")
    )
    (job.folder / name).unlink(missing_ok=True)
    (job.folder / name).symlink_to(secret.parent if name == "attempts" else secret)
    [found] = list_jobs(root)
    said = json.dumps([found.as_json(), show_job(root, job.id).as_json(), job.artifacts(), job.attempts()])
    said += "".join(logs.last_lines(job.log_path, 50)) + logs.excerpt(job.log_path) + logs.read_from(job.log_path).text
    said += "".join(line for choice in ("50", job_log.EXCERPT) for line in job_log.shown(job, choice).lines)
    assert "the secret" not in said
    assert job.request() is None


@pytest.mark.parametrize("name", ["output.log", "done.json", "events.jsonl", "excerpt.log"])
def test_pages_and_downloads_of_a_job_show_nothing_of_what_a_link_leads_to(
    root: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = fake.failed(root, log="said\n")
    (job.folder / name).unlink(missing_ok=True)
    (job.folder / name).symlink_to(secret)
    for query in ("", f"job={job.id}", f"job={job.id}&log=excerpt"):
        assert "the secret" not in all_text(opened(root, monkeypatch, query=query))
    answer = TestClient(Starlette(routes=files.ROUTES)).get(log_path(job.id))
    assert "the secret" not in answer.text
    assert answer.status_code == (404 if name == "output.log" else 200)


@pytest.mark.parametrize("name", [*FILES, "anything"])
def test_nothing_is_written_where_a_link_in_a_job_leads(root: Path, secret: Path, name: str) -> None:
    """A supervisor writes its heartbeat in place, and appends to its log: of whatever file a link leads to."""
    job = lark_job(root)
    before, there = secret.read_bytes(), sorted(secret.parent.iterdir())
    (job.folder / name).unlink(missing_ok=True)
    (job.folder / name).symlink_to(secret.parent if name == "attempts" else secret)
    for act in (
        lambda: actions.launch(job), lambda: actions.resume(job), lambda: actions.stop(job, "kill"),
        lambda: supervise.supervise(job, adopt=False), lambda: supervise.supervise(job, adopt=True),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="is a link, and the files of a job are plain ones; remove it") as error:
            act()
        assert str(job.folder / name) in str(error.value)
    assert secret.read_bytes() == before
    assert sorted(secret.parent.iterdir()) == there


@pytest.mark.parametrize("name", FILES[:7])
def test_a_pipe_in_a_job_holds_nobody_up_who_acts(root: Path, name: str) -> None:
    job = lark_job(root)
    (job.folder / name).unlink(missing_ok=True)
    os.mkfifo(job.folder / name)
    began = time.monotonic()
    for act in (lambda: actions.resume(job), lambda: actions.stop(job, "stop")):
        with pytest.raises(StoreError, match="is a pipe or a device"):
            act()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", [*FILES[2:7], ".lock", "launch.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_plain_job_can_be_removed_all_the_same(root: Path, secret: Path, name: str, kind: str) -> None:
    job = fake.failed(root)
    (job.folder / name).unlink(missing_ok=True)
    os.mkfifo(job.folder / name) if kind == "pipe" else (job.folder / name).symlink_to(secret)
    (job.folder / "sub").mkdir()
    (job.folder / "sub" / "link").symlink_to(secret.parent)
    if name == "done.json":  # it has no verdict now, and no supervisor either
        os.utime(job.folder / "spec.json")
        spec = json.loads((job.folder / "spec.json").read_text())
        (job.folder / "spec.json").write_text(json.dumps({**spec, "submitted_at": 1.0}))
    actions.remove(job)
    assert not job.folder.exists()
    assert secret.exists()


@pytest.mark.slow
@pytest.mark.parametrize("request_", ["stop", "kill"])
@pytest.mark.parametrize("role", ["supervisor", "command", "both", "its session"])
def test_a_process_that_a_launch_record_names_is_not_ended_unless_it_is_the_jobs(
    root: Path, bystander: subprocess.Popen[bytes], request_: Any, role: str
) -> None:
    job = lark_job(root)
    victim, nobody = identity(bystander), gone()
    if role == "its session":  # led by a process that is gone: its number is that of the session all the same
        os.kill(bystander.pid, signal.SIGKILL)
        bystander.wait()
    supervisor = victim if role in ("supervisor", "both") else nobody
    job.write_launch(Launch(supervisor=supervisor, command=None if role == "supervisor" else victim, started_at=1.0))
    alive = group_of(bystander)
    assert len(alive) == (1 if role == "its session" else 2)
    began = time.monotonic()
    found = actions.stop(job, request_)
    assert time.monotonic() - began < 20
    assert group_of(bystander) == alive
    assert found.state == "cancelled"  # the record of it can be removed
    actions.remove(job)


@pytest.mark.slow
def test_a_process_that_is_none_of_the_jobs_is_not_taken_over(root: Path, bystander: subprocess.Popen[bytes]) -> None:
    job = lark_job(root)
    job.write_launch(Launch(supervisor=gone(), command=identity(bystander), started_at=1.0))
    assert view(job).state == "running"  # as far as its record says
    with pytest.raises(StoreError, match=f"names process {bystander.pid}, which is none of this job's"):
        actions.resume(job)
    job.ask("kill")  # whoever asks, and however the supervisor is started
    supervise.Supervisor(job).adopt(None)
    assert len(group_of(bystander)) == 2
    assert job.done() is None


def test_a_process_that_has_the_lock_of_another_job_is_not_ended(
    root: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """The lock may be another name of a file that somebody has open."""
    job = lark_job(root)
    held = root.parent / "held"
    with held.open("w") as file:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[file.fileno()])
    try:
        os.link(held, job.lock_path)
        job.write_launch(Launch(supervisor=identity(child), started_at=1.0))
        actions.stop(job, "kill", timeout_s=0.2)
        assert child.poll() is None
    finally:
        child.communicate(b"\n")


@pytest.mark.slow
@pytest.mark.parametrize("request_", ["stop", "kill"])
def test_a_supervisor_that_is_the_jobs_own_is_still_asked_and_ended(root: Path, request_: Any) -> None:
    """The other side: what is the job's is known as such, also once its supervisor was killed."""
    job = start(root, python("import time; print('at', 'work', flush=True); time.sleep(120)"))
    wait_for(lambda: (launch := job.launch()) and launch.command, job)
    before = processes_of(job)
    if request_ == "kill":
        launch = job.launch()
        assert launch is not None
        os.kill(launch.supervisor.pid, signal.SIGSTOP)  # it hangs
        found = actions.stop(job, "kill", timeout_s=1)
    else:
        found = actions.stop(job, "stop")
    assert found.state == "cancelled"
    wait_for(lambda: not any(Path(f"/proc/{pid}/environ").exists() and _is_alive(pid) for pid in before), job)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


NOT_LARK = (
    ["/bin/sh", "-c", "touch {marker}"], ["python", "-m", "lark_engine.cli"], ["lark"], ["lark;", "touch", "{marker}"],
    ["/tmp/lark", "pool"], ["lark", "jobs", "submit", "x"], ["lark", "serve", "--insecure-no-auth"],
)  # fmt: skip


@pytest.mark.parametrize("command", NOT_LARK, ids=range(len(NOT_LARK)))
@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_command_that_is_none_of_ours_is_neither_resumed_nor_cloned(
    root: Path, tmp_path: Path, command: list[str], state: str
) -> None:
    marker = tmp_path / "marker"
    job = lark_job(root)
    spec = json.loads((job.folder / "spec.json").read_text())
    words = [word.format(marker=marker) for word in command]
    (job.folder / "spec.json").write_text(json.dumps({**spec, "command": words, "submitted_at": 1.0}))
    if state == "failed":
        job.write_done({"state": "failed"})
    assert view(job).state == state
    for act in (lambda: actions.resume(job), lambda: actions.clone(job, root)):
        with pytest.raises(ConfigError, match=r"a job runs a command of lark|is no stage"):
            act()
    assert not marker.exists()
    assert all_jobs(root) == [job]


def test_a_job_of_another_user_is_not_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lark_job(root)
    monkeypatch.setattr(supervise.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(StoreError, match="belongs to another user, whose command is not run; clone the job instead"):
        supervise.supervise(job, adopt=False)


@pytest.mark.slow
def test_modules_that_lie_where_a_job_runs_are_not_imported_by_what_it_starts(tmp_path: Path) -> None:
    """A dataset's folder may hold `json.py`; torchrun, model servers and scans are started with -P or its variable."""
    from lark_engine.training import launch

    marker = tmp_path / "marker"
    for name in ("h2", "psutil", "logging", "tqdm", "torch", "signal", "select"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\nraise SystemExit(7)\n")

    class Config:
        device, nproc_per_node = "cpu", 1

    class Spec:
        config = Config

    environment = launch._environment(Spec)  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--help"], cwd=tmp_path, env=environment, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, marker.exists()) == (0, False)
    leash = [sys.executable, "-P", "-m", "lark_engine.leash", sys.executable, "-c", "print('ran')"]
    with subprocess.Popen(
        leash, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert (process.stdout.read(), process.wait(60), marker.exists()) == (b"ran\n", 0, False)


GARBAGE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"", "zeros": lambda: b"\0" * 5000, "no text": lambda: bytes(range(256)) * 20,
    "deep": lambda: b"[" * 200_000, "a list": lambda: b"[1, 2]", "a number": lambda: b"7",
    "huge number": lambda: b'{"state": "failed", "ended_at": 1' + b"0" * 4000 + b"}",
    "huge": lambda: b'{"state": "failed", "message": "' + b"x" * (5 << 20) + b'"}',
    "odd types": lambda: json.dumps({
        "state": ["failed"], "message": {"a": 1}, "attempt": [1], "artifacts": {"a": 1}, "reason": 7, "place": [1],
        "remedy": {"x": 1}, "ended_at": "x", "wall_s": [1], "excerpt": 7, "supervisor": {"pid": "self"},
        "devices": [None],
    }).encode(),
    "failed with odd types": lambda: json.dumps({
        "state": "failed", "message": {"a": 1}, "attempt": [1], "artifacts": [1, None, {"a": 1}], "reason": 7,
        "place": [1], "remedy": {"x": 1}, "ended_at": "x", "wall_s": [1], "is_transient": "x", "exit_code": {},
        "signal": [9], "processes_left": "x",
    }).encode(),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in READ if name != "attempts"])
def test_garbage_in_a_file_of_a_job_breaks_neither_list_nor_page(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for content in GARBAGE.values():
        job = fake.failed(root, log="said\n") if name != "launch.json" else fake.living(root, "running")
        (job.folder / name).write_bytes(content())
    app = opened(root, monkeypatch)
    assert "This part of the page failed." not in all_text(app)
    for job in all_jobs(root)[:: 3 if name in ("outcome.json", "preflight.json", "control.json") else 1]:
        json.dumps(show_job(root, job.id).as_json())
        app = opened(root, monkeypatch, query=f"job={job.id}")
        assert "This part of the page failed." not in all_text(app), json.dumps(job.id)


MARKUP = (
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 <script>window.__pwned=1</script> <img src=x onerror=alert(1)> "
    "[x](javascript:alert(1)) ![b](http://192.0.2.1/b.png) :material/delete: $x$ \u202eevil \u200b \x00 \x07 {{7*7}}"
)  # fmt: skip


def test_a_hostile_log_is_plain_lines(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = fake.failed(root, log=f"{MARKUP}\n" * 3)
    app = opened(root, monkeypatch, query=f"job={job.id}")
    [view_] = [e.proto for e in app.get("bidi_component") if e.proto.component_name == "lark_log_view"]
    lines = json.loads(view_.json)["lines"]
    assert lines[0].startswith("red  <script>window.__pwned=1</script> <img src=x")  # text of a component, never HTML
    assert all(character.isprintable() for line in lines for character in line)
    markup = "\n".join(element.proto.body for element in app.get("html"))
    assert "<script" not in markup and "<img" not in markup


def test_a_log_of_100_gb_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = fake.failed(root)
    with job.log_path.open("wb") as file:
        file.truncate(100_000_000_000)
    for name in ("events.jsonl", "done.json", "launch.json", "artifacts.txt", "heartbeat"):
        if name != "done.json":
            with (job.folder / name).open("wb") as file:
                file.truncate(100_000_000_000)
    began = time.monotonic()
    opened(root, monkeypatch, query=f"job={job.id}")
    assert time.monotonic() - began < 30
    assert stat.S_ISREG(job.log_path.stat().st_mode)
    shutil.rmtree(job.folder)


def test_the_mark_of_a_copied_folder_is_another_one(root: Path) -> None:
    """Copied into a hostile workspace, the record of a running job does not reach its processes."""
    job = lark_job(root)
    other = root.parent / "theirs" / "jobs" / job.id
    shutil.copytree(job.folder, other)
    assert Job(other).mark != job.mark
    child = subprocess.Popen(
        [sys.executable, "-c", "print(0, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, MARK: job.mark},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        child.stdout.readline()
        Job(other).write_launch(Launch(supervisor=gone(), command=identity(child), started_at=1.0))
        actions.stop(Job(other), "kill")
        assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_own_process_is_never_what_a_record_has_ended(root: Path) -> None:
    job = lark_job(root)
    job.write_launch(Launch(supervisor=gone(), command=own_identity(), started_at=1.0))
    assert actions.stop(job, "kill").state == "cancelled"
