"""Ray Jobs as a launcher: a cluster's job server starts the supervisor on a machine that has what the job needs.

The workspace and this Python environment lie on a file system that all machines of the cluster share, under the same
paths. Once the supervisor is up, the job's folder says all, as for every launcher; before that, Ray is asked.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from lark_engine.errors import ConfigError, DeviceError, LarkError, ServerError, first_line
from lark_engine.jobs.folder import Job
from lark_engine.jobs.launchers import LAUNCH_TIMEOUT_S, supervisor_command
from lark_engine.jobs.logs import last_lines
from lark_engine.jobs.records import JobSpec, Launch, LauncherName
from lark_engine.jobs.status import JobView, State

RayWord = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
_CONNECT_S = 2.0
_ANSWER_S = 10.0
_POLL_S = 0.1
# Ray kills what has not ended so long after its TERM, by default 3 s: too soon for a stage that ends in order.
_STOP_WAIT_S = 60
_END_TIMEOUT_S = _STOP_WAIT_S + 15.0
_ENDED = ("STOPPED", "SUCCEEDED", "FAILED")
_NOT_FOUND = "status code 404"
_START_TIMEOUT = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
# Ray stops only what runs. Of what waits, it is the actor that waits; to remove it takes a process of the cluster.
_REMOVAL = """
import ray, sys
ray.init(log_to_driver=False)
ray.kill(ray.get_actor(sys.argv[1], namespace=sys.argv[2]))
"""


class RayStatus(NamedTuple):
    """What Ray says of a job whose supervisor has not come up. `word`: Ray's own, None for a job that it does not know.

    `state`: what that is in our words; `why`: the reason, in a sentence.
    """

    word: RayWord | None
    state: State
    why: str


class _Submissions(NamedTuple):
    """A job's submissions, oldest first, as Ray knows them, and the name of the next one."""

    known: list[Any]
    next_id: str


class RayLauncher:
    """The cluster whose job server is at `address`: http://HOST:8265, or HOST:PORT.

    A cluster that wants a token gets the one of RAY_AUTH_MODE, RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH. Errors:
    `ConfigError` for no address, or what is none.
    """

    name: LauncherName = "ray"

    def __init__(self, address: str | None):
        self.address = _url(address)

    def launch(self, job: Job) -> Launch | None:
        """Submit the supervisor; returns its launch record, or None while Ray has it in its queue or starts it.

        Every attempt is a submission of its own. Errors: `ServerError`; `DeviceError` when Ray is not installed.
        """
        deadline = time.monotonic() + LAUNCH_TIMEOUT_S
        spec, before = job.spec(), job.launch()
        with self._client() as client:
            submission = client.submit_job(
                # Ray has this line run by a shell: the one place where a command is not a list.
                entrypoint=shlex.join(supervisor_command(job, "--own-log")),
                submission_id=_submissions(client, job).next_id, metadata={"job": job.id},
                runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S)}}, **_resources(spec),
            )  # fmt: skip
            while time.monotonic() < deadline:
                said = client.get_job_info(submission)
                if (launch := job.launch()) is not None and launch != before:
                    return launch
                if said.status in ("STOPPED", "FAILED"):
                    raise ServerError(f"{job.id} did not start: {_why(said, job)}")
                time.sleep(_POLL_S)
        return None

    def status(self, found: JobView) -> JobView:
        """The job with Ray's word for the time before its supervisor is up; then, the folder says all."""
        if found.launch is not None or not found.is_live:
            return found
        try:
            said = self.ask(found.job)
        except LarkError as error:
            return replace(found, why=str(error))
        return replace(found, state=said.state, why=said.why)

    def ask(self, job: Job) -> RayStatus:
        """What Ray says of the job's newest attempt. Errors: as `launch`."""
        with self._client() as client:
            known = _submissions(client, job).known
        if not known:
            return RayStatus(None, "interrupted", f"Ray at {self.address} does not know it; was it started anew?")
        word = cast(RayWord, str(known[-1].status))
        return RayStatus(word, _STATES[word], _why(known[-1], job))

    def logs(self, job: Job) -> str:
        """What was said before the supervisor opened the job's log, in the newest attempt. Errors: as `launch`."""
        with self._client() as client:
            known = _submissions(client, job).known
            return client.get_job_logs(known[-1].submission_id) if known else ""

    def end(self, job: Job) -> None:
        """Have Ray end the job, running or in its queue, and wait until it has.

        Its supervisor gets TERM and time to write the verdict; of a job that waits, the verdict is the caller's to
        write. Errors: as `launch`; `ServerError` when Ray does not end it.
        """
        deadline = time.monotonic() + _END_TIMEOUT_S
        with self._client() as client:
            left = [said for said in _submissions(client, job).known if said.status not in _ENDED]
            for said in left:
                client.stop_job(said.submission_id)
                if said.status == "PENDING":
                    _remove_waiting(client, said.submission_id, deadline)
            for said in left:
                if (word := _wait_for_end(client, said.submission_id, deadline)) not in _ENDED:
                    raise ServerError(f"{job.id} does not end: after {_END_TIMEOUT_S:.0f} s Ray says that it is {word}")

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        """A client of the job server. Errors, also of what is done with it: `ServerError`, `DeviceError`."""
        try:
            from ray.exceptions import AuthenticationError
            from requests import RequestException
        except ImportError as error:
            raise DeviceError(
                "launcher 'ray' needs Ray; install it with: pip install 'lark-studio[cluster]'"
            ) from error
        self._check_listening()
        try:
            yield _client_class()(self.address)
        except AuthenticationError as error:
            raise ServerError(
                f"Ray's job server at {self.address} refuses access: {_first_sentence(error)}; set "
                "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
            ) from error
        except (RequestException, ConnectionError, KeyError, ValueError) as error:
            raise ServerError(
                f"what answers at {self.address} is no job server of Ray ({first_line(error)}); give the address "
                "of the cluster's dashboard, by default port 8265"
            ) from error
        except RuntimeError as error:
            raise ServerError(f"Ray's job server at {self.address} refuses: {_last_line(str(error))}") from error

    def _check_listening(self) -> None:
        """The client itself waits for minutes where nobody answers. Errors: `ServerError`."""
        parts = urlsplit(self.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((str(parts.hostname), port), timeout=_CONNECT_S).close()
        except OSError as error:
            raise ServerError(
                f"Ray's job server cannot be reached at {self.address}: {error}; it runs where the head was started "
                "with --include-dashboard=true and ray[default] is installed"
            ) from error


@functools.cache
def _client_class() -> Any:
    """Ray's client for exactly the address that it is given, whose requests end."""
    import ray
    from ray.dashboard.modules.dashboard_sdk import SubmissionClient
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def __init__(self, address: str):
            # Not JobSubmissionClient's own: there, RAY_ADDRESS would stand above the address of the job.
            SubmissionClient.__init__(self, address)
            self._client_ray_version = ray.__version__
            try:
                self._check_connection_and_version()
            except RuntimeError as error:  # another server, which knows no such page
                raise ConnectionError(first_line(error)) from error

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=_ANSWER_S, **options)

    return Client


def _url(address: str | None) -> str:
    """The address as a URL without a slash at its end. Errors: `ConfigError`."""
    example = "give that of the cluster's job server (its dashboard), as http://HOST:8265"
    if not address:
        raise ConfigError(f"launcher 'ray' needs an address; {example}")
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        is_one = is_one and ("://" in address or parts.port is not None) and not (parts.query or parts.fragment)
    except ValueError:  # a port that is none
        is_one = False
    if not is_one or re.search(r"[\s\x00-\x1f]", url):
        raise ConfigError(f"'{address}' is no address of a job server of Ray; {example}")
    return url


def _resources(spec: JobSpec) -> dict[str, int]:
    """What Ray keeps free for the job; a job that needs no device runs beside others, on the head."""
    if spec.device_kind == "none":
        return {}
    return {f"entrypoint_num_{'gpus' if spec.device_kind == 'cuda' else 'cpus'}": max(spec.devices, 1)}


def _wants(spec: JobSpec) -> str:
    """The resources in words: `2 GPUs`."""
    if spec.device_kind == "none":
        return "its head"
    kind = "GPU" if spec.device_kind == "cuda" else "CPU"
    return f"{spec.devices} {kind}{'s' if spec.devices != 1 else ''} of one machine"


def _submissions(client: Any, job: Job) -> _Submissions:
    known: list[Any] = []
    for number in itertools.count(1):
        # Ray takes a name only once, and a job that is resumed is submitted again.
        name = job.id if number == 1 else f"{job.id}-{number}"
        try:
            known.append(client.get_job_info(name))
        except RuntimeError as error:
            if _NOT_FOUND not in str(error):
                raise
            return _Submissions(known, name)
    raise AssertionError("unreachable")


def _remove_waiting(client: Any, submission: str, deadline: float) -> None:
    """Take a submission out of Ray's queue."""
    from ray.dashboard.modules.job.common import JOB_ACTOR_NAME_TEMPLATE, SUPERVISOR_ACTOR_RAY_NAMESPACE

    actor = JOB_ACTOR_NAME_TEMPLATE.format(job_id=submission)
    command = [sys.executable, "-c", _REMOVAL, actor, SUPERVISOR_ACTOR_RAY_NAMESPACE]
    removal = client.submit_job(entrypoint=shlex.join(command))
    # It fails when the actor is gone already, which is as good.
    if _wait_for_end(client, removal, deadline) in _ENDED:
        client.delete_job(removal)


def _wait_for_end(client: Any, submission: str, deadline: float) -> str:
    """Ray's word for a submission that has ended, or at the deadline."""
    while (word := str(client.get_job_info(submission).status)) not in _ENDED and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return word


_STATES: dict[RayWord, State] = {
    "PENDING": "queued", "RUNNING": "starting", "STOPPED": "cancelled", "SUCCEEDED": "interrupted", "FAILED": "failed",
}  # fmt: skip


def _why(said: Any, job: Job) -> str:
    """What Ray says of a submission, in a sentence."""
    if said.status == "PENDING":
        return f"waits in Ray's queue for {_wants(job.spec())}"
    if said.status == "STOPPED":
        return "was stopped in Ray before it began"
    if said.status == "SUCCEEDED":
        return "its supervisor has ended in Ray without a verdict"
    if said.status != "FAILED":
        return ""
    if said.error_type == _START_TIMEOUT:
        return (
            f"Ray waited for {_wants(job.spec())} in vain; ask for less, or start the head with a higher "
            "RAY_JOB_START_TIMEOUT_SECONDS"
        )
    return f"Ray says: {_reason(str(said.message), job)}"


def _reason(message: str, job: Job) -> str:
    """The line that says most of Ray's report of a failure, which may hold a whole log."""
    report, _, log = message.partition("\n")
    own = [line for line in log.splitlines() if line.strip() and not line.startswith("Running entrypoint")]
    own = [line for line in own if "Runtime env is setting up" not in line]
    if not report.startswith("Job entrypoint command failed"):
        return _last_line(message)
    said = own[-1:] or last_lines(job.log_path, 1)
    exit_code = report.partition(",")[0].removeprefix("Job entrypoint command ")
    return (
        f"its supervisor {exit_code}: {said[0].strip() if said else 'no output'}; {job.folder} and {sys.executable} "
        "must be there on all machines of the cluster, under the same paths"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    return lines[-1] if lines else "nothing"


def _first_sentence(error: BaseException) -> str:
    return first_line(error).split(". ")[0].rstrip(".")
