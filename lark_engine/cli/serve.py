"""`lark serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.store.workspace import Workspace

if TYPE_CHECKING:
    from lark_engine.sharing.exposure import Exposure

app = typer.Typer()
BUNDLE_GB = 20.0


@app.command("serve")
def serve_command(
    bundle: Annotated[
        Path | None, typer.Argument(help="a bundle that lark bundle made: it is unpacked and shown read-only")
    ] = None,
    workspace: WorkspaceOption = CACHE,
    port: Annotated[int, typer.Option(help="port; the next free one when it is taken", min=1, max=65535)] = 8501,
    stop: Annotated[bool, typer.Option("--stop", help="end the dashboard that runs for this workspace")] = False,
    background: Annotated[bool, typer.Option("--background", help="return when it answers")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="explore and tune; nothing changes or starts")] = False,
    address: Annotated[str, typer.Option(help="where to listen; other than this machine needs --auth")] = "127.0.0.1",
    auth: Annotated[str, typer.Option(help="who is let in: none, token, oidc (an organization's login)")] = "none",
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="let everybody who reaches the address do everything")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="another name by which browsers call this server")
    ] = None,
    most_viewers: Annotated[int, typer.Option(metavar="N", help="open pages at once; others have to wait")] = 300,
    roles: Annotated[Path | None, typer.Option(help="with oidc: YAML of emails, groups, domains")] = None,
    secrets: Annotated[Path | None, typer.Option(help="with oidc: TOML whose section auth names the provider")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="certificate: the server speaks https")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its key")] = None,
    bundle_limit: Annotated[float, typer.Option(metavar="GB", help="what a bundle may take unpacked")] = BUNDLE_GB,
) -> None:  # fmt: skip
    """Show a workspace or a bundle in the browser: on this machine only, unless an address and --auth are given."""
    from lark_engine import serve as dashboard
    from lark_engine.sharing.exposure import Exposure, check_secrets, read_roles
    from lark_engine.sharing.tokens import Guests

    store = open_store(workspace, bundle, bundle_limit)
    if stop:
        typer.echo("stopped" if dashboard.stop(store) else f"no dashboard runs for {store.root}")
        return
    is_read_only = read_only or bundle is not None
    exposure = _checked(
        Exposure,
        address=address.strip("[]"), auth=auth, insecure_no_auth=insecure_no_auth, read_only=is_read_only,
        hosts=tuple(allow_host or ()), most_viewers=most_viewers, roles=read_roles(roles) if roles else None,
        tls_cert=tls_cert and tls_cert.absolute(), tls_key=tls_key and tls_key.absolute(),
        secrets=secrets and secrets.absolute(),
        access_dir=access_dir(store, is_bundle=bundle is not None) if auth == "token" else None,
        memo_dir=dashboard.scratch_dir(store) / "memo" if is_read_only else None,
    )  # fmt: skip
    if secrets and auth == "oidc":
        check_secrets(secrets)
    if exposure.access_dir is not None:  # before anything listens: without a place for tokens nobody could come in
        Guests(exposure.access_dir, root=exposure.access_dir.parent).prepare()
    if auth == "token" and not background:  # this process becomes the server and says nothing more
        _say_tokens(exposure, dashboard.address_of(exposure, dashboard.free_port(port, exposure.address)))
    running = dashboard.serve(store, port=port, open_in_background=background, exposure=exposure)
    typer.echo(f"The dashboard runs at {running.address} (process {running.pid}).")
    if auth == "token" and background:
        _say_tokens(exposure, running.address)


def _checked(model: type[Exposure], **values: object) -> Exposure:
    from pydantic import ValidationError

    from lark_engine.errors import ConfigError

    try:
        return model.model_validate(values).check()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error


def open_store(workspace: Path, bundle: Path | None, bundle_limit: float = BUNDLE_GB) -> Workspace:
    """The workspace that is meant, or the one that a bundle unpacks to, which takes at most so many GB."""
    if bundle is None:
        return Workspace(workspace)
    from lark_engine.serve import user_cache
    from lark_engine.sharing.unpack import open_bundle
    from lark_engine.sharing.zip_entries import Limits

    return open_bundle(bundle, user_cache() / "bundles", Limits(most_bytes=int(bundle_limit * 1e9)))


def access_dir(store: Workspace, *, is_bundle: bool) -> Path:
    """Where the tokens of a server lie: in the workspace, or beside an unpacked bundle, which is not written to."""
    return store.root.with_name(f"{store.root.name}.server") / "access" if is_bundle else store.root / "access"


def _say_tokens(exposure: Exposure, at: str) -> None:
    """Who is let in; the first time, a link for a viewer, whose token is shown once."""
    from lark_engine.sharing.tokens import Guests

    assert exposure.access_dir is not None
    guests = Guests(exposure.access_dir, root=exposure.access_dir.parent)
    if known := guests.all():
        typer.echo("Let in by token: " + ", ".join(f"{guest.name} ({guest.role})" for guest in known))
        return
    issued = guests.add("guest", "viewer")
    typer.echo(f"A link for viewers, whose token is shown this once:\n  {at}/?token={issued.token}")
    typer.echo(
        "Others: lark access add NAME --role viewer|editor|operator|admin; another token: lark access rotate guest"
    )
