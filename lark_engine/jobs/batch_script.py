"""A command as a batch script for Slurm: ready for sbatch, put back into the queue before its time is up."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lark_engine.errors import ConfigError
from lark_engine.jobs.folder import JOBS_DIR
from lark_engine.jobs.launchers import program
from lark_engine.jobs.needs import flag, option

# What torchrun says to the processes that it starts; beside that, the command must not say it too.
_OF_TORCHRUN = ("nproc-per-node", "nnodes", "node-rank", "rdzv-endpoint")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_PARTITION = r"[A-Za-z0-9][A-Za-z0-9._-]*(,[A-Za-z0-9][A-Za-z0-9._-]*)*"
_TIME = r"[0-9]+(-[0-9]+(:[0-9]+){0,2}|(:[0-9]+){0,2})"
# Inside quotes sbatch takes these as they are; it has its own meanings for %, \ and quotes.
_PATH = r"/[^\x00-\x1f\x7f\"'\\%#]*"

_RUN = """
# Slurm sends it before the time is up. The processes of the step get TERM, with which they end in order and keep what
# they have; not srun, which would kill them.
is_time_up=false
was_interrupted=false
end_step() {
  is_time_up=true
  was_interrupted=true
  scancel --signal=TERM "$SLURM_JOB_ID" || true
}
trap end_step USR1

"""

_WAIT = """step=$!

# `wait` returns for the signal too, before the step has ended.
while :; do
  was_interrupted=false
  status=0
  wait "$step" || status=$?
  "$was_interrupted" || break
done

if "$is_time_up" && [ "$status" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
"""


def batch_script(
    command: Sequence[str], *, workspace: Path, nodes: int = 1, devices: int, cpus: int | None = None,
    time_limit: str | None = None, partition: str | None, name: str, signal_s: int = 120, cwd: Path | None = None,
) -> str:  # fmt: skip
    """The script that runs `lark …` on `nodes` machines with `devices` GPUs each; `devices` 0 is without any.

    Training runs under torchrun, one process a GPU; other stages run once, on one machine. `cpus`: cores on each
    machine; `time_limit`: in a format of Slurm's --time; `signal_s`: seconds before its end at which the run ends in
    order and goes back into the queue; `cwd`: where relative paths begin, by default where sbatch is called. Errors:
    `ConfigError` for what Slurm would misread, and for devices or machines that contradict the command.
    """
    name = "-".join(name.split(" "))
    _require(name, _NAME, "name", "letters, digits, '.', '_' and '-'")
    _require(partition, _PARTITION, "partition", "names of partitions, with commas between them")
    _require(time_limit, _TIME, "time limit", "a time as MINUTES, HH:MM:SS or D-HH:MM:SS")
    _require(str(workspace.absolute()), _PATH, "workspace", "a path without quotes, \\, %, # and line breaks")
    for what, value, least in (
        ("nodes", nodes, 1),
        ("devices", devices, 0),
        ("cpus", cpus, 1),
        ("signal", signal_s, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"a batch script with {what} {value}: give {least} or more")
    log_dir = workspace.absolute() / JOBS_DIR
    options = [
        f"--job-name={name}", f"--nodes={nodes}", "--ntasks-per-node=1",
        *([f"--gpus-per-node={devices}"] if devices else []),
        *([f"--cpus-per-task={cpus}"] if cpus else []),
        *([f"--time={time_limit}"] if time_limit else []),
        *([f"--partition={partition}"] if partition else []),
        f'--output="{log_dir}/slurm-%j.log"', "--open-mode=append", "--requeue", f"--signal=B:USR1@{signal_s}",
    ]  # fmt: skip
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {value}" for value in options),
        "#",
        "# Save this on the cluster as lark.sbatch and submit it; Slurm does not make the folder of its log:",
        f"#   mkdir -p {shlex.quote(str(log_dir))} && sbatch lark.sbatch",
        f"# {signal_s} s before its time is up the run ends in order and goes back into the queue. Run again, by Slurm",
        "# or by hand, this script resumes: it goes on from what is saved. So its time must be long enough to save",
        "# something.",
        "",
        "set -euo pipefail",
        "export PYTHONSAFEPATH=1",
        *([f"cd -- {shlex.quote(str(cwd.absolute()))}"] if cwd else []),
    ]
    # srun does not take over the number of cores by itself.
    srun = f"srun --cpus-per-task={cpus}" if cpus else "srun"
    step = _training(command, srun, nodes, devices) if _is_training(command) else _stage(command, srun, nodes)
    return "\n".join(lines) + "\n" + _RUN + step + " &\n" + _WAIT


def _is_training(command: Sequence[str]) -> bool:
    is_preflight = flag(command, "preflight") or flag(command, "json")
    return tuple(command[1:3]) in (("train", "full"), ("train", "lora")) and not is_preflight


def _stage(command: Sequence[str], srun: str, nodes: int) -> str:
    if nodes > 1:
        raise ConfigError(f"'{shlex.join(command[:3])}' runs on one machine; only training runs on {nodes}")
    return f"{srun} --nodes=1 --ntasks=1 {shlex.join(program(command))}"


def _training(command: Sequence[str], srun: str, nodes: int, devices: int) -> str:
    """The line that starts torchrun on every machine, and before it where they meet."""
    said_nodes, said_processes = option(command, "nnodes"), option(command, "nproc-per-node")
    if said_nodes not in (None, str(nodes)):
        raise ConfigError(f"the command says --nnodes {said_nodes} and the batch script is for {nodes}; give --nodes")
    if devices and said_processes not in (None, str(devices)):
        raise ConfigError(
            f"the command says --nproc-per-node {said_processes} and the batch script has {devices} GPUs on each "
            "machine; give --devices"
        )
    train = ["--nproc_per_node", str(devices or said_processes or 1), "-m", "lark_engine.cli"]
    train += _without(command, *_OF_TORCHRUN)[1:]
    torchrun = f"{shlex.quote(sys.executable)} -m torch.distributed.run"
    if nodes == 1:
        return f"{srun} {torchrun} --standalone {shlex.join(train)}"
    return (
        "# The machines meet at the first of them, on a port that two jobs do not share.\n"
        'hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")\n'
        "head=${hosts%%$'\\n'*}\n"
        "port=$((20000 + SLURM_JOB_ID % 10000))\n"
        f"{srun} --kill-on-bad-exit=1 {torchrun} --nnodes {nodes} --rdzv_backend c10d \\\n"
        f'  --rdzv_endpoint "$head:$port" --rdzv_id "$SLURM_JOB_ID" {shlex.join(train)}'
    )


def _without(command: Sequence[str], *options: str) -> list[str]:
    """The command without these options and their values, however they are written."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word == "--":
            return [*kept, word, *words]
        name, equals, _ = word.partition("=")
        if name.startswith("--") and name[2:].replace("_", "-") in options:
            if not equals:
                next(words, None)
            continue
        kept.append(word)
    return kept


def _require(value: str | None, pattern: str, what: str, hint: str) -> None:
    """Errors: `ConfigError` for a value that a line of #SBATCH cannot hold as it is."""
    if value is not None and not re.fullmatch(pattern, value):
        raise ConfigError(f"{what} {value!r} cannot stand in a batch script; give {hint}")
