"""`lark doctor`."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption

if TYPE_CHECKING:
    from lark_engine.doctor.checks import Check

app = typer.Typer()

_COLORS = {"ok": "green", "warning": "yellow", "problem": "red", "unknown": "yellow"}
_WIDTHS = (80, 120)
_NAME_WIDTH = 14


@app.command("doctor")
def doctor_command(
    workspace: WorkspaceOption = CACHE,
    server_python: Annotated[
        list[Path] | None,
        typer.Option("--server-python", help="an interpreter that vllm or sglang is in; may be repeated"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="import nothing, read versions only")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Look for what keeps LARK from running here; exit code 1 when there is a problem, with the cure of the first."""
    from lark_engine.doctor.checks import first_conflict, summary
    from lark_engine.doctor.examine import examine

    checks = examine(workspace, server_pythons=server_python or (), quick=quick, environment=os.environ)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        width = min(max(shutil.get_terminal_size((100, 24)).columns, _WIDTHS[0]), _WIDTHS[1])
        typer.echo("\n".join([*_lines(checks, width), "", summary(checks)]))
    if first_conflict(checks):
        raise typer.Exit(1)


def _lines(checks: Sequence[Check], width: int) -> list[str]:
    """The checks under the names of their groups. Cures are not broken into lines: they are there to be copied."""
    lines: list[str] = []
    margin = " " * 11
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(typer.style(group, bold=True))
        state = typer.style(f"{check.state:<9}", fg=_COLORS[check.state])
        text = f"{check.name.ljust(_NAME_WIDTH)}  {check.found}"
        wrapped = textwrap.wrap(
            text, width, initial_indent=margin, subsequent_indent=margin + " " * (_NAME_WIDTH + 2),
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        lines += [f"  {state}{wrapped[0].removeprefix(margin)}", *wrapped[1:]]
        if check.cure:
            lines.append(f"{margin}{' ' * (_NAME_WIDTH + 2)}cure: {check.cure}")
    return lines
