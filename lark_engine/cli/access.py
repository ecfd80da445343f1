"""`lark access`: who may visit a server that asks for a token, and who has changed what through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.printing import printable
from lark_engine.store.workspace import Workspace

if TYPE_CHECKING:
    from lark_engine.sharing.tokens import Guests, Issued

app = typer.Typer(no_args_is_help=True, help="Tokens of a server, and the record of what was changed through it.")

Name = Annotated[str, typer.Argument(help="whose token")]
BundleOption = Annotated[Path | None, typer.Option("--bundle", help="of the server of this bundle")]


@app.command("add")
def add_command(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, editor (saves), operator (starts and stops), admin")] = "viewer",
    bundle: BundleOption = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """A token for somebody. It is shown once."""
    _say(_guests(workspace, bundle).add(name, role))


@app.command("rotate")
def rotate_command(name: Name, bundle: BundleOption = None, workspace: WorkspaceOption = CACHE) -> None:
    """Another token for the same name: the one before counts no more, at once."""
    _say(_guests(workspace, bundle).rotate(name))


@app.command("remove")
def remove_command(name: Name, bundle: BundleOption = None, workspace: WorkspaceOption = CACHE) -> None:
    """Shut somebody out, at once."""
    _guests(workspace, bundle).remove(name)
    typer.echo(f"{name} is not let in any more")


@app.command("list")
def list_command(bundle: BundleOption = None, workspace: WorkspaceOption = CACHE) -> None:
    """Who holds a token, with which role, since when."""
    known = _guests(workspace, bundle).all()
    if not known:
        typer.echo("nobody holds a token; give one: lark access add NAME --role viewer")
    for guest in known:
        typer.echo(f"{guest.name:<24} {guest.role:<9} since {guest.created_at}")


@app.command("log")
def log_command(
    most: Annotated[int, typer.Option(metavar="N", help="how many of the newest")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="print them as JSON, one a line")] = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Who changed what, when, and from where; newest first."""
    from lark_engine.access import read_audit

    rows = read_audit(Workspace(workspace).root, most=most)
    if not rows and not as_json:
        typer.echo("nothing was changed yet")
    for row in rows:
        if as_json:
            typer.echo(json.dumps(row, ensure_ascii=False))
            continue
        about = " ".join(f"{n}={v}" for n, v in row.items() if n not in ("at", "who", "from", "what", "outcome"))
        line = f"{row['at']}  {row['who']} ({row['from']})  {row['what']} {about}: {row['outcome']}"
        typer.echo(printable(line))


def _guests(workspace: Path, bundle: Path | None) -> Guests:
    from lark_engine.cli.serve import access_dir, open_store
    from lark_engine.sharing.tokens import Guests

    folder = access_dir(open_store(workspace, bundle), is_bundle=bundle is not None)
    return Guests(folder, root=folder.parent)


def _say(issued: Issued) -> None:
    typer.echo(f"{issued.guest.name} ({issued.guest.role}): {issued.token}")
    typer.echo("This is the only time that it is shown. As a link: the server's address with ?token= and it.")
