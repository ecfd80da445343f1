"""What the commands share: errors as one sentence, stages as jobs, common options, subcommands, and what is said."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup
from typer.exceptions import Exit, TyperException

from lark_engine.access import ALL, Resolver, Visitor, resolve_with
from lark_engine.config import PoolConfig
from lark_engine.errors import ConfigError, LarkError, StoppedEarly
from lark_engine.jobs.folder import FOLDER_VARIABLE, Job
from lark_engine.jobs.membership import Membership, join
from lark_engine.store.atomic import write_json
from lark_engine.store.events import finite
from lark_engine.store.workspace import Artifact, Workspace

INTERRUPTED = 130
_WORDS = "lark.words"
CACHE = Path("cache")

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", envvar="LARK_HOME", help="folder of all artifacts", show_default="./cache")
]
OutputFile = Annotated[Path | None, typer.Option("--output", help="also write the released format here")]
OutputDir = Annotated[Path | None, typer.Option("--output-dir", help="also put the result here")]

Value = TypeVar("Value")


class Guarded(TyperGroup):
    """Turns errors for the user into one sentence and exit code 2, and Ctrl-C into exit code 130.

    In a process that a job's supervisor started, how it ended is left in the job's folder too.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        words = list(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[_WORDS] = words
        return context

    def invoke(self, ctx: Any) -> Any:
        membership = join(os.environ) if FOLDER_VARIABLE in os.environ else None
        _run.words, _run.membership = ctx.meta[_WORDS], membership
        before = _act_for(membership.job) if membership is not None else None
        try:
            result = super().invoke(ctx)
            _tell(membership, None)
            return result
        except StoppedEarly as stopped:
            _tell(membership, stopped)
            typer.secho(str(stopped), err=True, fg="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except LarkError as error:
            _tell(membership, error)
            typer.secho(f"lark: {error}", err=True, fg="red")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.secho("lark: interrupted; run the same command again, it resumes", err=True, fg="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if not isinstance(error, Exit):
                _tell(membership, error)
            raise
        finally:
            if before is not None:
                resolve_with(before)


@dataclass
class _Run:
    """The command line of this process: its words, and the job that it belongs to."""

    words: list[str] = field(default_factory=list)
    membership: Membership | None = None


_run = _Run()


def is_under_supervisor() -> bool:
    """Whether a job's supervisor started this process, to which its exit status means how the job ended."""
    return _run.membership is not None and _run.membership.is_command


def leave_record(name: str, values: dict[str, Any]) -> None:
    """Leave what a command found in the folder of its job, where it is the command of one; pages read it there."""
    if is_under_supervisor():
        assert _run.membership is not None
        write_json(_run.membership.job.folder / name, finite(values))


def _act_for(job: Job) -> Resolver:
    """What the command of a job changes is recorded under whoever started the job. Returns who acted before."""
    try:
        name = job.spec().submitted_by
    except LarkError:  # damaged: the command goes on, and whoever started it is not known
        name = "somebody"
    return resolve_with(lambda: Visitor(name=name or "somebody", origin=f"job {job.id}", may=ALL))


def _tell(membership: Membership | None, error: Exception | None) -> None:
    if membership is not None:
        membership.tell(error)


def stage(name: str, *, unless: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a command seen as a job of its workspace also when it is started in a terminal.

    Stands between `@app.command` and `@with_options`. `unless`: flags with which it makes nothing.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            context = given.get("ctx")
            runs_another = context is not None and context.invoked_subcommand is not None
            # Of the processes that torchrun starts, the first speaks for all.
            is_first = os.environ.get("RANK", "0") == "0"
            if _run.membership or runs_another or not is_first or any(given.get(flag) for flag in unless):
                command(**given)
                return
            from lark_engine.cli.words import whole_command
            from lark_engine.jobs.foreground import foreground_job

            store = Workspace(given["workspace"])
            words = whole_command(["lark", *_run.words], store)
            with foreground_job(store.root, name, words, mistakes=(TyperException,)) as _run.membership:
                try:
                    command(**given)
                finally:
                    _run.membership = None

        return run

    return decorate


def command_group() -> typer.Typer:
    """A command that has subcommands too, as `lark score --input …` beside `lark score tokens …`.

    Its callback is the command. It begins with `if runs_subcommand(ctx): return`, and asks for each option that it
    cannot do without by `required`: typer itself would ask for them before a subcommand as well.
    """
    return typer.Typer(invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")


def runs_subcommand(ctx: typer.Context) -> bool:
    """Whether a subcommand is to run instead of the group's own command.

    Options of the command itself are refused before a subcommand, which would not see them.
    """
    name = ctx.invoked_subcommand
    if name is None:
        return False
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name)
        if source is not None and source.name == "COMMANDLINE":
            ctx.fail(f"Option {_flags(option)} is of '{ctx.command_path}' itself; write it after '{name}'.")
    return True


def required(ctx: typer.Context, name: str, value: Value | None) -> Value:
    """The value of an option of a command with subcommands; without one, the error of any missing option."""
    if value is None:
        option = next(option for option in ctx.command.params if option.name == name)
        ctx.fail(f"Missing option {_flags(option)}.")
    return value


def _flags(option: Any) -> str:
    return " / ".join(f"'{flag}'" for flag in option.opts)


def done(artifact: Artifact) -> None:
    """Say what an artifact holds: id, counts, drops, and where it lies; its job notes it."""
    manifest = artifact.manifest
    if _run.membership:
        _run.membership.made(f"{artifact.kind}/{artifact.id}")
    counts = ", ".join(f"{name} {value:,}" for name, value in manifest.counts.items())
    drops = ", ".join(f"{reason} {count:,}" for reason, count in manifest.drops.items())
    typer.echo(f"{artifact.id}: {counts}" + (f"; left out: {drops}" if drops else ""))
    typer.echo(f"  {artifact.path}")


def open_pool(name: str, store: Workspace) -> Artifact:
    """A pool of the workspace, or a file or folder that is imported first."""
    from lark_engine.pool.importer import import_pool

    path = Path(name).expanduser()
    if path.exists() and not (path / "manifest.json").exists():
        return import_pool(PoolConfig.parse({"source": name}, name), store)
    refuse_absent_file(name)
    return store.resolve("pools", name)


def refuse_absent_file(name: str) -> None:
    """What looks like a file is not looked up as an artifact: the user would be told of the wrong thing."""
    if Path(name).suffix in {".json", ".jsonl", ".gz", ".zst", ".parquet"} and not Path(name).expanduser().exists():
        raise ConfigError(f"{name}: no such file")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to where the user wants it, whole or not at all, and say so."""
    from lark_engine.store.atomic import replacing

    with replacing(target) as partial:
        shutil.copyfile(source, partial)
    typer.echo(f"wrote {target}")
