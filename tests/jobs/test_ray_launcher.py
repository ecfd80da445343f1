"""Ray Jobs as a launcher, with a real head: jobs that run, wait, stop and fail there, and addresses where no Ray is."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lark_engine.errors import ConfigError, DeviceError, ServerError
from lark_engine.jobs import ray_launcher
from lark_engine.jobs.folder import MARK, Job, create_job
from lark_engine.jobs.launchers import launcher_of
from lark_engine.jobs.ray_launcher import RayLauncher, RayStatus
from lark_engine.jobs.records import JobSpec
from lark_engine.processes import marked
from tests.scoring.test_ray import RAY, family, free_port, is_listening, is_running, wait_for

TOKEN = "0123456789abcdef" * 2
ASK = """
import sys
from pathlib import Path
from lark_engine.jobs.folder import Job
from lark_engine.jobs.ray_launcher import RayLauncher
print(RayLauncher(sys.argv[1]).ask(Job(Path(sys.argv[2]))))
"""


@contextlib.contextmanager
def running_head(**environment: str) -> Iterator[str]:
    """The job server's address of a cluster of this machine alone, with 4 CPUs and, as it believes, 2 GPUs.

    Nothing of it is left.
    """
    port, client_port, agent_port = (free_port() for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [
            str(RAY), "start", "--head", "--block", "--port=0", "--num-cpus=4", "--num-gpus=2",
            f"--temp-dir={folder}/t", "--include-dashboard=true", f"--dashboard-port={port}",
            f"--dashboard-agent-listen-port={agent_port}", f"--ray-client-server-port={client_port}",
            "--disable-usage-stats", "--node-ip-address=127.0.0.1",
        ]  # fmt: skip
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "LARK_LEASES": f"{folder}/leases", **environment}
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_for(lambda: process.poll() is not None or is_listening(port), 90)
            assert process.poll() is None, Path(folder, "log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            everything = family(process.pid)
            process.kill()
            for member in everything:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait(30)
            wait_for(lambda: not any(map(is_running, everything)), 30)


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, running_head(RAY_JOB_START_TIMEOUT_SECONDS="20") as address:
        patch.setattr(ray_launcher, "_ANSWER_S", 60.0)  # a head that has just started on a busy machine takes its time
        yield address


def job_of(root: Path, code: str, address: str, **options: Any) -> Job:
    needs = {"device_kind": "cpu", "devices": 1, **options}
    command = (sys.executable, "-c", code)
    return create_job(root, JobSpec(stage="demo", command=command, cwd="/", launcher="ray", address=address, **needs))


def verdict_of(job: Job) -> dict[str, Any]:
    wait_for(job.done, 60)
    verdict = job.done()
    assert verdict is not None
    return verdict


def wait_for_output(job: Job, text: str) -> None:
    wait_for(lambda: text in job.log_path.read_text(), 60)


@pytest.mark.slow
def test_a_job_runs_in_its_folder_whatever_shells_and_ray_s_variables_make_of_names(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    root = tmp_path / "it's; $(touch pwned) `touch pwned` work\nspace"
    job = job_of(root, "print('com', 'puted', sep='')", head)
    launcher = launcher_of("ray", head.removeprefix("http://"))
    launcher.launch(job)
    assert verdict_of(job)["state"] == "succeeded"
    launch = job.launch()
    assert launch is not None
    wait_for(lambda: launch.supervisor.liveness() == "gone", 10)
    assert "computed" in job.log_path.read_text()
    assert isinstance(launcher, RayLauncher)
    wait_for(lambda: launcher.ask(job).word == "SUCCEEDED", 20)
    assert "Running entrypoint" in launcher.logs(job)
    assert "computed" not in launcher.logs(job)


@pytest.mark.slow
def test_a_job_that_is_resumed_is_submitted_again(head: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, "print('once')", head, device_kind="none", devices=0)
    for attempt in (1, 2):
        RayLauncher(head).launch(job)
        assert verdict_of(job)["attempt"] == attempt
        if attempt == 1:
            job.begin_again()
    assert job.log_path.read_text().count("\nonce\n") == 2
    wait_for(lambda: RayLauncher(head).ask(job).word == "SUCCEEDED", 20)
    assert f"for job {job.id}-2:" in RayLauncher(head).logs(job)


@pytest.mark.slow
def test_what_the_cluster_has_no_room_for_waits_in_its_queue_until_it_is_ended(head: str, tmp_path: Path) -> None:
    launcher = RayLauncher(head)
    job = job_of(tmp_path, "print('never')", head, devices=99)
    started = time.monotonic()
    assert launcher.launch(job) is None
    assert time.monotonic() - started < 4
    assert launcher.ask(job) == RayStatus("PENDING", "queued", "waits in Ray's queue for 99 CPUs of one machine")
    assert launcher.logs(job) == ""
    launcher.end(job)
    assert time.monotonic() - started < 30
    assert launcher.ask(job).word == "FAILED"
    launcher.end(job)  # again changes nothing
    gpus = job_of(tmp_path, "print('never')", head, device_kind="cuda", devices=3)
    assert launcher.launch(gpus) is None
    assert launcher.ask(gpus).why == "waits in Ray's queue for 3 GPUs of one machine"
    launcher.end(gpus)
    assert job.done() is None
    assert job.launch() is None
    with launcher._client() as client:  # nothing of the removal stays in Ray's list
        assert {said.submission_id for said in client.list_jobs()} >= {job.id, gpus.id}
        assert not [said for said in client.list_jobs() if "ray.kill" in said.entrypoint]


@pytest.mark.slow
def test_what_waits_too_long_for_ray_is_said_to_have_failed_and_what_to_do(head: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, "print('never')", head, devices=99)
    RayLauncher(head).launch(job)
    wait_for(lambda: RayLauncher(head).ask(job).state == "failed", 60)
    assert RayLauncher(head).ask(job).why == (
        "Ray waited for 99 CPUs of one machine in vain; ask for less, or start the head with a higher "
        "RAY_JOB_START_TIMEOUT_SECONDS"
    )


@pytest.mark.slow
def test_a_job_sees_the_gpus_that_ray_has_given_it_and_no_others(head: str, tmp_path: Path) -> None:
    jobs = [
        job_of(
            tmp_path, "import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])", head, device_kind="cuda", **more
        )
        for more in ({"devices": 1}, {"devices": 2})
    ]
    for job, pattern in zip(jobs, (r"^sees [01]$", r"^sees (0,1|1,0)$"), strict=True):
        RayLauncher(head).launch(job)
        assert verdict_of(job)["state"] == "succeeded"
        assert re.search(pattern, job.log_path.read_text(), re.MULTILINE)


@pytest.mark.slow
def test_a_job_does_what_its_folder_asks(head: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, "import time; print('at', 'work', flush=True); time.sleep(300)", head)
    RayLauncher(head).launch(job)
    wait_for_output(job, "at work")
    job.ask("stop")
    assert verdict_of(job)["message"] == "stopped as asked"
    wait_for(lambda: RayLauncher(head).ask(job).word == "SUCCEEDED", 20)


@pytest.mark.slow
def test_a_job_that_ray_ends_has_time_to_end_in_order(head: str, tmp_path: Path) -> None:
    saves = f"""
import pathlib, signal, time
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
print('at', 'work', flush=True)
while not ending: time.sleep(0.1)
until = time.monotonic() + 5  # longer than Ray's own patience
while time.monotonic() < until: time.sleep(0.1)
pathlib.Path({str(tmp_path / "saved")!r}).touch()
"""
    job = job_of(tmp_path, saves, head)
    RayLauncher(head).launch(job)
    wait_for_output(job, "at work")
    RayLauncher(head).end(job)
    assert (tmp_path / "saved").exists()
    assert marked(MARK, job.id) == []
    assert RayLauncher(head).ask(job).word == "STOPPED"


@pytest.mark.slow
def test_a_supervisor_that_hangs_is_ended_with_its_command(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_launcher, "_STOP_WAIT_S", 2)
    job = job_of(tmp_path, "import time; print('at', 'work', flush=True); time.sleep(300)", head)
    RayLauncher(head).launch(job)
    wait_for_output(job, "at work")
    launch = job.launch()
    assert launch is not None and launch.command is not None
    os.kill(launch.supervisor.pid, signal.SIGSTOP)
    job.ask("stop")
    RayLauncher(head).end(job)
    wait_for(lambda: launch.supervisor.liveness() == launch.command.liveness() == "gone", 10)


@pytest.mark.slow
def test_a_supervisor_that_never_comes_up_is_said_to_have_failed_and_why(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_launcher, "supervisor_command", lambda *_: ["/nowhere/python", "-m", "x"])
    monkeypatch.setattr(ray_launcher, "LAUNCH_TIMEOUT_S", 30.0)
    job = job_of(tmp_path, "print('never')", head)
    reason = (
        r"Ray says: its supervisor failed with exit code 127: .*/nowhere/python: .*not found; .* under the same paths"
    )
    with pytest.raises(ServerError, match=f"^{job.id} did not start: {reason}"):
        RayLauncher(head).launch(job)
    found = RayLauncher(head).ask(job)
    assert (found.word, found.state) == ("FAILED", "failed")
    assert "/nowhere/python" in RayLauncher(head).logs(job)


@pytest.mark.slow
def test_a_job_that_ray_does_not_know_was_lost_with_its_cluster(head: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, "print('never')", head)
    found = RayLauncher(head).ask(job)
    assert found == RayStatus(None, "interrupted", f"Ray at {head} does not know it; was it started anew?")
    assert RayLauncher(head).logs(job) == ""
    RayLauncher(head).end(job)


@pytest.mark.slow
def test_a_cluster_that_wants_a_token_gets_the_one_of_the_environment(tmp_path: Path) -> None:
    with running_head(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as address:

        def ask(**environment: str) -> str:
            command = [sys.executable, "-c", ASK, address, str(tmp_path / "jobs" / "a")]
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": "/", **environment}
            )
            return result.stdout or result.stderr.splitlines()[-1]

        assert "word=None" in ask(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
        refused = f"ServerError: Ray's job server at {address} refuses access: "
        remedy = "; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
        for token in ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 32}, {"RAY_AUTH_MODE": "disabled"}):
            said = ask(**token)
            assert refused in said
            assert said.endswith(remedy)


@pytest.mark.parametrize(
    "address", ["ray://host:10001", "host", "http://", "host:port", "http://u:p@host:1", "http://a b:1"]
)
def test_what_is_no_address_of_a_job_server_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address of a job server of Ray; give .* http://HOST:8265$"):
        RayLauncher(address)


@pytest.mark.parametrize("address", [None, ""])
def test_a_cluster_without_an_address_is_refused(address: str | None) -> None:
    with pytest.raises(ConfigError, match=r"^launcher 'ray' needs an address; give that of the cluster's job server"):
        launcher_of("ray", address)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("host:8265", "http://host:8265"),
        ("http://host:8265/", "http://host:8265"),
        ("https://host/ray", "https://host/ray"),
        ("[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses_may_be_written_in_several_ways(address: str, url: str) -> None:
    assert RayLauncher(address).address == url


def test_an_address_where_nobody_listens_gives_one_sentence_soon(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(
        ServerError, match=rf"^Ray's job server cannot be reached at http://{address}: .*refused; it runs"
    ):
        RayLauncher(address).launch(job_of(tmp_path, "", address))
    assert time.monotonic() - started < 10


def test_another_server_at_the_address_gives_one_sentence(tmp_path: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        with pytest.raises(
            ServerError, match=rf"^what answers at http://{address} is no job server of Ray \(.*port 8265$"
        ):
            RayLauncher(address).ask(job_of(tmp_path, "", address))
        server.shutdown()


def test_a_server_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_launcher, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerError, match=r"is no job server of Ray \(.*timed out"):
            RayLauncher(address).ask(job_of(tmp_path, "", address))


def test_ray_that_is_not_installed_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "ray.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match=r"needs Ray; install it with: pip install 'lark-studio\[cluster\]'"):
        RayLauncher("host:8265").ask(job_of(tmp_path, "", "host:8265"))
