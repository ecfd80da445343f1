"""`lark serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.store.workspace import Workspace

app = typer.Typer()


@app.command("serve")
def serve_command(
    workspace: WorkspaceOption = CACHE,
    port: Annotated[int, typer.Option(help="port; the next free one when it is taken")] = 8501,
    stop: Annotated[bool, typer.Option("--stop", help="end the dashboard that runs for this workspace")] = False,
    background: Annotated[bool, typer.Option("--background", help="return when it answers, leave it running")] = False,
) -> None:
    """Show the workspace in the browser, on this machine only."""
    from lark_engine import serve as dashboard

    store = Workspace(workspace)
    if stop:
        typer.echo("stopped" if dashboard.stop(store) else f"no dashboard runs for {store.root}")
        return
    running = dashboard.serve(store, port=port, open_in_background=background)
    typer.echo(f"The dashboard runs at {running.address} (process {running.pid}).")
