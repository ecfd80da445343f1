"""`lark views`: saved views of the dashboard, which links open."""

from __future__ import annotations

from typing import Annotated

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.printing import one_line, printable
from lark_engine.store.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Saved views of the dashboard: short links to exactly what a page shows.")

ViewId = Annotated[str, typer.Argument(metavar="VIEW", help="id of the view, as lark views list says it")]


@app.command("save")
def save_command(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="of a page, copied from the browser; in quotes")],
    name: Annotated[str, typer.Option(help="what it is called in the list")],
    note: Annotated[str, typer.Option(help="what there is to see")] = "",
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Keep what an address shows under a short link."""
    from lark_engine.sharing.views import place_of, save_view

    page, params = place_of(address)
    view = save_view(Workspace(workspace).root, name=name, page=page, params=params, note=note)
    typer.echo(f"{view.id}: {one_line(view.name)}")
    typer.echo(f"  /{view.link}")


@app.command("list")
def list_command(workspace: WorkspaceOption = CACHE) -> None:
    """The saved views, newest first, each with its link from the root of the dashboard."""
    from lark_engine.sharing.views import read_views

    store = Workspace(workspace)
    found = read_views(store.root)
    if not found.views:
        typer.echo(f"no view is saved in {store.root}; save one: lark views save ADDRESS --name NAME")
    for view in found.views:
        typer.echo(f"{view.id}  {one_line(view.name)}")
        note = f" · {one_line(view.note)}" if view.note else ""
        typer.echo(f"  /{view.link}  by {one_line(view.author)}, {view.created_at:%Y-%m-%d}{note}")
    for problem in found.problems:
        typer.secho(f"left out: {printable(problem)}", err=True, fg="yellow")


@app.command("rename")
def rename_command(
    view: ViewId, name: Annotated[str, typer.Argument(help="its new name")], workspace: WorkspaceOption = CACHE
) -> None:
    """Give a view another name; its link stays."""
    from lark_engine.sharing.views import rename_view

    renamed = rename_view(Workspace(workspace).root, view, name)
    typer.echo(f"{renamed.id}: {one_line(renamed.name)}")


@app.command("remove")
def remove_command(view: ViewId, workspace: WorkspaceOption = CACHE) -> None:
    """Remove a view for good; its link says then that it is gone."""
    from lark_engine.sharing.views import remove_view

    remove_view(Workspace(workspace).root, view)
    typer.echo(f"{view} is removed")
