"""Where batches are scored: in this process, or by a pool of Ray actors, one for each device.

Both run the same `Scorer` over the same batches and yield one table a batch, in any order. Rows are known by number
and a batch is finished or not, so a lost worker costs at most the batches that it held.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from lark_engine.errors import DeviceError, LarkError, first_line
from lark_engine.models import ModelRef, free_device_memory
from lark_engine.scoring.parts import Parts
from lark_engine.scoring.planner import Batch
from lark_engine.scoring.summaries import batch_table
from lark_engine.scoring.tokenized import TokenizedPool
from lark_engine.store.events import Progress

log = logging.getLogger(__name__)

# A batch whose worker dies more often (it does not fit the machine, say) ends the run instead of trying for ever.
_RETRIES = 3
_CONNECT_S = 10.0
_RAY_ADVICE = "\nFailed to apply UDF transform"  # begins the lines that Ray adds to what a worker says
_WARNINGS = b"lark_warnings"
# Nothing is reported to anyone, and of Ray's own lines only what it says of a dead worker reaches our standard error.
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a scorer needs to know; it travels to workers, which read the student and `tokens_dir` by path."""

    model: ModelRef
    dtype: str
    device: str
    top_k: int
    trust_remote_code: bool
    tokens_dir: Path
    keep_tokens: bool = False
    num_alternatives: int = 0


class Scorer:
    """A student and a tokenized pool: rows in, their table out."""

    def __init__(self, work: Work):
        # A worker process comes here first; planning and the command line must not load torch.
        from lark_engine.scoring.student import Student

        self._work = work
        self._tokens = TokenizedPool.open(work.tokens_dir)
        self.student = Student(
            work.model, dtype=work.dtype, device=work.device, top_k=work.top_k,
            trust_remote_code=work.trust_remote_code,
        )  # fmt: skip

    def __call__(self, batch: Batch) -> pa.Table:
        """The batch's rows as `batch_table` makes them. Errors: `DeviceError` when a trajectory does not fit."""
        from lark_engine.scoring.student import Responses

        tokens = self._tokens
        groups = [
            Responses(tokens.prompt(rows[0]), tuple(tokens.response(row) for row in rows)) for rows in batch.groups
        ]
        scored = self.student.score(
            groups, prompt_apart=batch.prompt_apart, num_alternatives=self._work.num_alternatives
        )
        ids = np.concatenate([ids for group in groups for ids in group.responses]) if self._work.keep_tokens else None
        return batch_table(batch.rows, scored.stats, scored.lengths, ids)


Executor = Callable[[Work, Sequence[Batch]], Generator[pa.Table, None, None]]


def run_here(work: Work, batches: Sequence[Batch]) -> Generator[pa.Table, None, None]:
    """Score in this process, on its one device."""
    scorer = Scorer(work)
    try:
        for batch in batches:
            yield scorer(batch)
    finally:
        del scorer
        free_device_memory()


def keep_results(
    tables: Generator[pa.Table, None, None], batches: Sequence[Batch], parts: Parts, progress: Progress,
    convert: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> None:  # fmt: skip
    """Add the table of every batch to the parts, converted, as soon as it is there.

    Ends the executor when it is done or fails: workers stop at once, also when a table cannot be written.
    """
    tokens_of_row = {row: batch.num_tokens / len(batch.rows) for batch in batches for row in batch.rows}
    with contextlib.closing(tables):
        for number, table in enumerate(tables):
            parts.add(convert(table))
            num_tokens = round(sum(tokens_of_row[row] for row in table["row"].to_pylist()))
            progress.update(num_tokens, trajectories=len(parts.known))
            if number == 0:
                progress.begin()  # workers have started by now, and students are loaded


class _RayScorer:
    """The scorer as an actor of Ray Data: a batch's place in the plan comes in, its table goes out."""

    def __init__(self, work: Work, batches: Sequence[Batch]):
        self._work, self._batches = work, batches
        self._scorer: Scorer | None = None

    def __call__(self, items: dict[str, Any]) -> pa.Table:
        with _Warnings() as warnings:
            # Loaded in the first call: Ray counts the deaths of calls, and would start a dying constructor for ever.
            if self._scorer is None:
                self._scorer = Scorer(self._work)
            [place] = items["place"]
            table = self._scorer(self._batches[place])
        return table.replace_schema_metadata({_WARNINGS: json.dumps(warnings.said)})


class _Warnings(logging.Handler):
    """What our own modules warn of in a worker, whose log no one reads; it travels with the table."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("lark_engine").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("lark_engine").removeHandler(self)


def run_on_ray(
    work: Work, batches: Sequence[Batch], *, address: str | None, num_workers: int
) -> Generator[pa.Table, None, None]:
    """Score with a pool of Ray actors: one for each GPU of the cluster (on CPUs one), or `num_workers`.

    Without an `address` a Ray of its own is started on this machine and ended with the run. On several machines the
    workspace and the student must lie on a shared file system. Errors: `DeviceError` when Ray is not installed, cannot
    be reached or has no such device, and when a batch's worker died several times; what a worker says to the user.
    """
    os.environ |= _RAY_ENVIRONMENT
    if address:
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")  # of 20 s each, to reach the head; by default 20
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
        from ray.exceptions import RayError
    except ImportError as error:
        raise DeviceError("executor 'ray' needs Ray; install it with: pip install 'lark-studio[cluster]'") from error
    with _connected(address, num_workers):
        size, share = _devices(ray.nodes(), work.device, num_workers)  # type: ignore[no-untyped-call]
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.raise_original_map_exception = True  # Ray's wrapper travels without the sentence that it wraps
        for handler in logging.getLogger("ray.data").handlers:
            if handler.get_name() == "console":
                handler.setLevel(logging.CRITICAL + 1)
        # One block a batch: a finished batch is there at once, and a lost worker gives back single batches.
        places = ray.data.from_items([{"place": p} for p in range(len(batches))], override_num_blocks=len(batches))
        with warnings.catch_warnings():  # max_task_retries has no other place in this version of Ray
            warnings.simplefilter("ignore")
            tables = places.map_batches(
                _RayScorer, batch_size=1, fn_constructor_args=(work, list(batches)),
                compute=ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2), max_task_retries=_RETRIES,
                **share,
            )  # fmt: skip
        said: set[str] = set()
        try:
            # Not iter_batches: its prefetching thread outlives it, and Ray ends a process that calls it after shutdown.
            for bundle in tables.iter_internal_ref_bundles():
                for block in bundle.blocks:
                    table = ray.get(block.ref)
                    for sentence in json.loads(table.schema.metadata[_WARNINGS]):
                        if sentence not in said:  # every worker says it
                            log.warning("%s", sentence)
                        said.add(sentence)
                    # A copy: Ray's shared memory ends with the run.
                    yield table.replace_schema_metadata(None).take(np.arange(len(table)))
        except RayError as error:
            raise _in_words(error) from error


@contextlib.contextmanager
def _connected(address: str | None, num_workers: int) -> Iterator[None]:
    """A connection to the Ray at `address`, to this process's own, or to a new one that ends with the block."""
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        if address is None:
            # Only this process and its workers know the token; Ray's own choice would be a file in the home folder.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lark-ray-", ignore_cleanup_errors=True))
            options = {"num_cpus": max(_cores(), num_workers), "include_dashboard": False, "_temp_dir": folder}
        else:
            _check_address(address)
        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # Ray sets its own
        stack.callback(ray.shutdown, wait_for_processes=True)
        try:
            with _no_stderr():
                ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **options)
        except (ConnectionError, RayError, RuntimeError, ValueError) as error:
            if address is None:
                raise DeviceError(f"Ray cannot be started here: {first_line(error)}") from error
            raise DeviceError(
                f"Ray cannot be reached at {address}: {first_line(error)}; check that its head listens there, and if "
                "it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            ) from error
        yield


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's core says there, below Python, that it was told to be quiet."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_address(address: str) -> None:
    """Ray itself waits for a minute and more where nobody listens. Errors: `DeviceError`."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise DeviceError(f"'{address}' is no address of a Ray cluster; give host:port of its head, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise DeviceError(
            f"Ray cannot be reached at {address}: {error}; start it with: ray start --head, or give its address"
        ) from error


def _devices(nodes: list[dict[str, Any]], device: str, num_workers: int) -> tuple[int, dict[str, Any]]:
    """How many actors, and what each of them holds: a GPU, or an equal share of CPUs (its number of threads)."""
    kind = "GPU" if device == "cuda" else "CPU"
    there = [int(node["Resources"].get(kind, 0)) for node in nodes if node["Alive"]]
    size = num_workers or (sum(there) if kind == "GPU" else 1)
    if sum(there) < max(size, 1):
        raise DeviceError(f"Ray has {sum(there)} {kind}s and {max(size, 1)} are needed; lower --num-workers")
    if kind == "GPU":
        return size, {"num_gpus": 1}
    return size, {"num_cpus": max(s for s in range(1, max(there) + 1) if sum(n // s for n in there) >= size)}


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _in_words(error: BaseException) -> BaseException:
    """Ray wraps what a worker raised; a user wants the sentence that the worker said. Others stay as they are."""
    from ray.exceptions import RayActorError, WorkerCrashedError

    # The wrapper is an instance of the class that it wraps, with a whole traceback as its text.
    cause = getattr(error, "cause", error)
    if isinstance(cause, LarkError):
        return type(cause)(str(cause).partition(_RAY_ADVICE)[0])
    if isinstance(cause, RayActorError | WorkerCrashedError):
        return DeviceError(
            f"a worker died {_RETRIES + 1} times on the same batch; if its memory was too small, lower --batch-tokens "
            "or --num-workers; the same command resumes"
        )
    return error
