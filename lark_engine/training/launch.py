"""Starts training processes: in this process for one device, through torchrun for several or for DeepSpeed."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from lark_engine import errors
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, TrainingError
from lark_engine.store.atomic import open_in_place
from lark_engine.store.events import EventReader, ProgressLines
from lark_engine.training.checkpoints import newest_complete_checkpoint
from lark_engine.training.sft import run
from lark_engine.training.spec import EVENTS, RESUME_DIR, SPEC, TrainSpec, error_file

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.5


def launch(spec: TrainSpec, *, joined: bool) -> None:
    """Train as the spec says. `joined`: this process is itself a rank that torchrun started.

    Errors: what the training process reports as a `LarkError`; `TrainingError` with the log's path when it died.
    """
    if joined or (spec.config.num_processes == 1 and spec.deepspeed is None):
        if not joined:
            spec.write()  # what is trained here, for whoever looks at the unfinished run
        run(spec)
        return
    _check_resume(spec)
    machine = spec.config.node_rank
    path = spec.write()
    error_path = error_file(path)
    error_path.unlink(missing_ok=True)
    command = torchrun(spec.config, path)
    log.info("starting: %s", shlex.join(command))
    log_path = spec.folder / (f"train-{machine}.log" if machine else "train.log")
    with open_in_place(log_path, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lark_engine.leash", *command], stdin=subprocess.PIPE, stdout=output,
            stderr=subprocess.STDOUT, env=_environment(spec), start_new_session=True,
        )  # fmt: skip
        try:
            code = _follow(process, spec.folder / EVENTS)
        except BaseException:
            _stop(process)
            raise
    if code:
        raise _error(error_path, log_path, code)


def torchrun(config: TrainConfig, spec_path: Path) -> list[str]:
    """The command that starts this machine's training processes; on several machines they meet at the endpoint."""
    meeting = ["--standalone"]
    if config.rdzv_endpoint:
        meeting = [
            "--nnodes", str(config.nnodes), "--node_rank", str(config.node_rank), "--rdzv_backend", "c10d",
            "--rdzv_endpoint", config.rdzv_endpoint, "--rdzv_id", spec_path.parent.parent.name,
        ]  # fmt: skip
    return [
        sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc_per_node", str(config.nproc_per_node),
        "-m", "lark_engine.training.sft", str(spec_path),
    ]  # fmt: skip


def _check_resume(spec: TrainSpec) -> None:
    """DeepSpeed saves one part of its state for each process, which only as many processes can take up again."""
    path = spec.folder / RESUME_DIR / SPEC
    if spec.deepspeed is None or not path.exists() or newest_complete_checkpoint(path.parent) is None:
        return
    before = TrainSpec.read(path).config.num_processes
    if before != spec.config.num_processes:
        raise ConfigError(
            f"this run was begun with {before} processes and DeepSpeed can resume it only with as many; give "
            f"--nproc-per-node {before // spec.config.nnodes}, or remove {path.parent} to begin anew"
        )


def _follow(process: subprocess.Popen[bytes], events_path: Path) -> int:
    """Wait for the training processes, with their progress on the terminal; returns their exit status."""
    lines = ProgressLines()
    events = EventReader(events_path, events_path.stat().st_size if events_path.exists() else 0)
    with tqdm(desc="train", unit="step", disable=not sys.stderr.isatty()) as bar:
        while True:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                pass
            for event in events:
                for said in (event.get("note"), event.get("alert")):
                    if said:
                        log.info("%s", said)
                bar.total, bar.n = event["total"], event["done"]
                if "loss" in event["metrics"]:
                    bar.set_postfix(loss=event["metrics"]["loss"])
                if bar.disable and "rate" in event:
                    lines.say(event)


def _environment(spec: TrainSpec) -> dict[str, str]:
    """The parent's environment, with the accelerator that was decided on.

    And what lies in the folder that it runs in is not imported, by the ranks that torchrun starts neither.
    """
    on_cpu = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""} if spec.config.device == "cpu" else {}
    threads = max(1, (os.cpu_count() or 1) // spec.config.nproc_per_node)
    return {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": str(threads), **on_cpu}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the leash to end torchrun and its ranks, and wait until it has."""
    process.terminate()
    process.wait(timeout=_STOP_TIMEOUT_S)


def _error(error_path: Path, log_path: Path, code: int) -> errors.LarkError:
    if error_path.exists():
        values = json.loads(error_path.read_text())
        kind = getattr(errors, values["error"], TrainingError)
        error: errors.LarkError = kind(values["message"])
        return error
    tail = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()][-400:]
    causes = [line.strip() for line in tail if "Error" in line and "ChildFailedError" not in line]
    cause = causes[-1] if causes else (tail[-1].strip() if tail else "no output")
    return TrainingError(f"training ended with exit code {code}: {cause[:300]}; the whole log is {log_path}")
