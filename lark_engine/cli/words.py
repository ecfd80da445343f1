"""Commands as lists of words: checked without being run, and completed by what decides where they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.exceptions import Exit, TyperException

from lark_engine.errors import ConfigError
from lark_engine.store.workspace import Workspace


def whole_command(command: Sequence[str], store: Workspace) -> list[str]:
    """The command with its workspace in it, so that it means the same wherever it is run.

    Errors: `ConfigError` for a command or an option that there is not, for a value that is none of its option's, and
    for another workspace than the job's.
    """
    found = _parsed(command)
    if "workspace" not in {option.name for option in found.command.params}:
        raise ConfigError(f"'{' '.join(command[:3])}' makes nothing in a workspace; run it without a job")
    source = found.get_parameter_source("workspace")
    if source is not None and source.name == "COMMANDLINE":
        if Workspace(found.params["workspace"]).root != store.root:
            theirs = found.params["workspace"]
            raise ConfigError(f"the job's workspace is {store.root} and the command's is {theirs}; give one of them")
        return list(command)
    # Before what ends the options, if anything does.
    place = list(command).index("--") if "--" in command else len(command)
    return [*command[:place], "--workspace", str(store.root), *command[place:]]


def _parsed(command: Sequence[str]) -> Any:
    """The context of the innermost command. Errors: `ConfigError` with what the command line would say."""
    from lark_engine.cli import app

    group: Any = typer.main.get_command(app)
    words = list(command[1:])
    try:
        context = group.make_context("lark", words)
        while hasattr(context.command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
            name, sub, rest = context.command.resolve_command(context, rest)
            context = sub.make_context(name, rest, parent=context)
    except Exit as error:
        raise ConfigError(f"'{' '.join(command)}' only shows something; run it without a job") from error
    except TyperException as error:
        said = getattr(error, "format_message", error.__str__)()
        raise ConfigError(f"{' '.join(command[:3])}: {said}") from error
    return context
