"""`lark jobs`: submit, list, show, logs, stop, resume, clone, remove."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.cli.words import whole_command
from lark_engine.errors import ConfigError
from lark_engine.jobs import actions, logs, records
from lark_engine.jobs.commands import require_lark, stage_of
from lark_engine.jobs.folder import find_job
from lark_engine.jobs.launchers import launcher_of
from lark_engine.jobs.records import LauncherName, Request
from lark_engine.jobs.status import JobView, State, list_jobs, queue, show_job, view
from lark_engine.printing import one_line, printable
from lark_engine.results.commands import shell_line
from lark_engine.store.events import plural
from lark_engine.store.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Long runs that go on without this terminal: queued, watched, resumed.")

AsJson = Annotated[bool, typer.Option("--json", help="all of it as JSON")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="id, a unique part of it, or `last`")]
# What follows is the command's own, options too.
_COMMAND = {"allow_interspersed_args": False, "ignore_unknown_options": True}
_FOLLOW_S = 0.3
_SHOWN_TAIL = 10
_LONGEST_S = 1e9


@app.command("submit", context_settings=_COMMAND)
def submit_command(
    command: Annotated[list[str], typer.Argument(metavar="lark STAGE …", help="the command, as in a terminal")],
    priority: Annotated[int, typer.Option(help="higher ones run before lower ones")] = 0,
    devices: Annotated[int | None, typer.Option(help="wait for so many; by default as the command says")] = None,
    retries: Annotated[int, typer.Option(min=0, max=20, help="run again after failures that may pass")] = 0,
    launcher: Annotated[
        str, typer.Option(metavar="local|ray|script", help="where it runs; script prints one")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="of Ray's job server, http://HOST:8265")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="machines, for --launcher script")] = 1,
    time_limit: Annotated[str | None, typer.Option(help="D-HH:MM:SS, for --launcher script")] = None,
    partition: Annotated[str | None, typer.Option(help="of the cluster, for --launcher script")] = None,
    as_json: AsJson = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Start a command as a job, or put it into the queue; returns as soon as its supervisor has it."""
    store = Workspace(workspace)
    words = whole_command(require_lark(command), store)
    if launcher == "script":
        typer.echo(_script(words, store, nodes, devices, time_limit, partition), nl=False)
        return
    started = actions.submit(
        store.root, words, cwd=Path.cwd(), priority=priority, devices=devices, max_retries=retries,
        launcher=_launcher(launcher), address=address,
    )  # fmt: skip
    _say(started, as_json)


@app.command("list")
def list_command(
    state: Annotated[list[str] | None, typer.Option(help="only these states (repeatable)")] = None,
    number: Annotated[
        int, typer.Option("--number", "-n", min=1, help="so many that have ended; live ones always")
    ] = 30,
    as_json: AsJson = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """What runs, waits, failed, and why; waiting jobs in the order of their turns."""
    found = list_jobs(Workspace(workspace).root)
    if unknown := set(state or ()) - set(get_args(State)):
        raise ConfigError(f"--state {min(unknown)}: known are {', '.join(get_args(State))}")
    fits = [job for job in found if not state or job.state in state]
    if as_json:
        typer.echo(json.dumps([job.as_json() for job in fits], indent=2, ensure_ascii=False))
        return
    if not fits:
        typer.echo("no jobs" + (f" are {' or '.join(state)}" if state else "; start one with: lark jobs submit lark …"))
    live = [job for job in fits if job.is_live]
    ended = [job for job in fits if not job.is_live]
    for line in list_lines([*live, *ended[:number]]):
        typer.echo(line)
    if (more := len(ended) - number) > 0:
        typer.echo(f"and {more:,} older that have ended; --number shows more")


@app.command("show")
def show_command(name: JobName, as_json: AsJson = False, workspace: WorkspaceOption = CACHE) -> None:
    """All that is known of a job: command, state, progress, verdict and remedy."""
    found = show_job(Workspace(workspace).root, name)
    if found.spec:
        found = launcher_of(found.spec.launcher, found.spec.address).status(found)
    if as_json:
        values = {**found.as_json(), "attempts": found.job.attempts()}
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for line in show_lines(found):
        typer.echo(line)


@app.command("logs")
def logs_command(
    name: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the job has ended")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="so many from the end")] = 50,
    as_json: AsJson = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """The end of a job's log, at once however long it is."""
    job = find_job(Workspace(workspace).root, name)
    offset = job.log_path.stat().st_size if job.log_path.exists() else 0
    last = logs.last_lines(job.log_path, lines, end=offset)
    if not last and lines and (spec := view(job).spec):
        last = launcher_of(spec.launcher, spec.address).logs(job).splitlines()[-lines:]
    if as_json:
        typer.echo(json.dumps({"id": job.id, "path": str(job.log_path), "lines": last}, indent=2, ensure_ascii=False))
        return
    for line in last:
        typer.echo(printable(line))
    while follow:
        is_live = view(job).is_live
        piece = logs.read_from(job.log_path, offset)
        offset = piece.offset
        for line in piece.text.splitlines(keepends=True):  # the last one may go on in the next piece
            typer.echo(printable(line.rstrip("\r\n")), nl=line.endswith("\n"))
        if not piece.text and not is_live:
            return
        if not piece.text:
            time.sleep(_FOLLOW_S)


@app.command("stop")
def stop_command(
    name: JobName,
    after_checkpoint: Annotated[
        bool, typer.Option("--after-checkpoint", help="at the next point that it resumes from without loss")
    ] = False,
    kill: Annotated[bool, typer.Option("--kill", help="at once; what was not saved is lost")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="until it has ended")] = True,
    as_json: AsJson = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """End a job: in order (what it has done is kept), after a checkpoint, or at once."""
    if after_checkpoint and kill:
        raise ConfigError("--after-checkpoint and --kill are two ways to stop; choose one")
    request: Request = "after_checkpoint" if after_checkpoint else "kill" if kill else "stop"
    job = find_job(Workspace(workspace).root, name)
    timeout_s = 0.0 if not wait else float("inf") if after_checkpoint else actions.STOP_TIMEOUT_S
    _say(actions.stop(job, request, timeout_s=timeout_s), as_json)


@app.command("resume")
def resume_command(name: JobName, as_json: AsJson = False, workspace: WorkspaceOption = CACHE) -> None:
    """Run the command of an ended or interrupted job again: it takes up what is saved."""
    _say(actions.resume(find_job(Workspace(workspace).root, name)), as_json)


@app.command("clone", context_settings=_COMMAND)
def clone_command(
    name: JobName,
    changes: Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS …]", help="options to change")] = None,
    priority: Annotated[int | None, typer.Option(help="higher ones run before lower ones")] = None,
    as_json: AsJson = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Submit the command of a job again as a new job, with other options: lark jobs clone JOB --lr 1e-5."""
    store = Workspace(workspace)
    job = find_job(store.root, name)
    # Of the options behind the job, this one is ours all the same: nobody clones a preflight.
    words = [word for word in changes or [] if word != "--json"]
    as_json = as_json or "--json" in (changes or [])
    whole_command([*job.spec().command, *words], store)  # a mistake is said before a folder is made
    _say(actions.clone(job, store.root, words, priority=priority), as_json)


@app.command("remove")
def remove_command(name: JobName, as_json: AsJson = False, workspace: WorkspaceOption = CACHE) -> None:
    """Remove the record of a job that has ended; the artifacts that it made stay."""
    job = find_job(Workspace(workspace).root, name)
    actions.remove(job)
    typer.echo(json.dumps({"id": job.id, "removed": True}) if as_json else f"removed {job.id}")


def list_lines(found: Sequence[JobView]) -> list[str]:
    """Jobs as a table in text: the waiting ones first in their order, then newest first."""
    waiting = queue(list(found))
    places = {job.id for job in waiting}
    return [_list_line(job) for job in [*waiting, *(job for job in found if job.id not in places)]]


def _list_line(job: JobView) -> str:
    spec = job.spec
    what = spec.stage if spec else "?"
    said = {
        "queued": f"place {job.place}; waits for {_waits_for(job)}" if job.place else job.why,
        "running": _progress(job) or job.why, "stopping": f"{job.why}; {_progress(job)}".rstrip("; "),
        "failed": f"{(job.verdict or {}).get('reason')}: {job.why}",
    }.get(job.state, job.why)  # fmt: skip
    priority = f" priority {spec.priority}" if spec and spec.priority else ""
    return f"{job.id:<52} {job.state:<11} {what:<12}{priority} {one_line(said, 140)}".rstrip()


def show_lines(found: JobView) -> list[str]:
    """A job as text."""
    spec, launch, verdict = found.spec, found.launch, found.verdict or {}
    why = f" ({one_line(found.why, 400)})" if found.why else ""
    reason = f": {verdict['reason']}" if verdict.get("reason") else ""
    lines = [f"{found.id}: {found.state}{reason}{why}"]
    if spec:
        lines += [f"command    {shell_line(list(spec.command))}", f"in         {printable(spec.cwd)}"]
        needs = f"{spec.devices} × {spec.device_kind}" if spec.device_kind != "none" else "no device"
        by = f"{printable(spec.submitted_by)}, {_time(spec.submitted_at)}"
        lines.append(f"submitted  by {by}; launcher {spec.launcher}; needs {needs}; priority {spec.priority}")
    if launch:
        who = f"supervisor {launch.supervisor.pid} on {printable(launch.supervisor.host)}"
        runs = f", command {launch.command.pid}" if launch.command else ""
        on = f", on {', '.join(launch.devices)}" if launch.devices else ""
        lines.append(f"attempt    {launch.attempt}: {who}{runs}{on}" + (", taken over" if launch.adopted else ""))
    if progress := _progress(found):
        lines.append(f"progress   {progress}")
    for name in ("message", "place", "remedy"):
        if verdict.get(name):
            lines.append(f"{name:<10} {one_line(str(verdict[name]), 600)}")
    if verdict.get("artifacts") and isinstance(verdict["artifacts"], list):
        lines.append(f"made       {', '.join(map(str, verdict['artifacts']))}")
    for number, before in enumerate(found.job.attempts(), start=1):
        lines.append(
            f"before     attempt {number}: {before['state']} {one_line(str(before.get('message') or ''))}".rstrip()
        )
    tail = logs.last_lines(found.job.log_path, _SHOWN_TAIL)
    return [*lines, f"log        {found.job.log_path}", *(f"  {one_line(line, 160)}" for line in tail)]


def _waits_for(job: JobView) -> str:
    return str((job.heartbeat or {}).get("waits_for") or "its turn")


def _progress(job: JobView) -> str:
    event = job.event or {}
    done, total = records.number(event.get("done")) or 0.0, records.number(event.get("total"))
    if not total:
        return ""
    eta_s = records.number(event.get("eta_s")) if job.is_live else None
    left = "" if eta_s is None or not 0 <= eta_s < _LONGEST_S else f", {timedelta(seconds=round(eta_s))} left"
    counted = f"{done:,.0f} of {total:,.0f} {plural(str(event.get('unit', '')))}"
    return f"{event.get('stage')}: {counted} ({done / total:.1%}){left}"


def _say(found: JobView, as_json: bool) -> None:
    """What became of a job, for people or programs; the id alone on the first line, to be copied."""
    found = show_job(found.job.workspace_root, found.id)  # with its place in the queue
    typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False) if as_json else _list_line(found))


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def _launcher(name: str) -> LauncherName:
    if name not in ("local", "ray"):
        raise ConfigError(f"--launcher {name}: known are local, ray and script")
    return "ray" if name == "ray" else "local"


def _script(
    words: Sequence[str], store: Workspace, nodes: int, devices: int | None, time_limit: str | None,
    partition: str | None,
) -> str:  # fmt: skip
    from lark_engine.jobs.batch_script import batch_script
    from lark_engine.jobs.needs import needs_of

    needs = needs_of(words, num_gpus=1)  # of the cluster's machines nothing is known here
    return batch_script(
        words, workspace=store.root, nodes=nodes, time_limit=time_limit, partition=partition,
        devices=devices if devices is not None else needs.count if needs.kind == "cuda" else 0,
        name=stage_of(words), cwd=Path.cwd(),
    )  # fmt: skip
