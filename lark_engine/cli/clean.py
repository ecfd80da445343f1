"""`lark clean`: what would go from the workspace, how much room that makes, and the removal."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.errors import ConfigError, StoreError
from lark_engine.jobs.status import list_jobs
from lark_engine.printing import printable
from lark_engine.store.atomic import existing_parent
from lark_engine.store.retention import DAY_S, Policy, plan_cleaning
from lark_engine.store.workspace import Workspace

if TYPE_CHECKING:
    from lark_engine.store.retention import JobRecord, Removal, Survey

app = typer.Typer()


@dataclass(frozen=True)
class _Proposal:
    """What lies in the workspace, and what of it is to go."""

    found: Survey
    removals: list[Removal]

    @property
    def going(self) -> list[Removal]:
        """Without links, which are only named."""
        return [removal for removal in self.removals if removal.entry.link_to is None]


@app.command("clean")
def clean_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list what would go")] = False,
    older_than: Annotated[float, typer.Option(metavar="DAYS", help="what changed since then stays")] = 7.0,
    keep_jobs: Annotated[int, typer.Option(metavar="N", help="newest ended jobs that stay, however old")] = 200,
    memo: Annotated[bool, typer.Option("--memo", help="also the derived data in memo/")] = False,
    unused: Annotated[bool, typer.Option("--unused", help="also finished artifacts that no result needs")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="with --unused only these, as scores; by default all but pools, students "
                     "and benchmarks"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON and remove nothing")] = False,
    workspace: WorkspaceOption = CACHE,
) -> None:  # fmt: skip
    """Remove what nothing needs: unfinished artifacts, leftovers of kills, old jobs; on request memo and unused ones.

    Nothing that a kept result was made from ever goes. Without --yes it lists all and asks.
    """
    if yes and (dry_run or as_json):
        raise ConfigError("--yes removes, and --dry-run and --json do not; give one of them")
    store = Workspace(workspace)
    policy = Policy(
        older_than_s=older_than * DAY_S, keep_jobs=keep_jobs, memo=memo, unused=unused, kinds=tuple(kind or ())
    )
    proposal = _propose(store, policy)
    if as_json:
        typer.echo(json.dumps(_as_json(proposal, store), indent=2, ensure_ascii=False))
        return
    for line in [*plan_lines(proposal.found, proposal.removals), *_kept_lines(proposal, unused)]:
        typer.echo(printable(line))
    typer.echo(_total(proposal.going, "would go", store))
    if dry_run or not proposal.going:
        return
    if not yes:
        if not _on_terminal():
            raise ConfigError("there is no terminal to ask on, and nothing was removed; give --yes to remove all this")
        if not typer.confirm("Remove all this?"):
            typer.echo("nothing was removed")
            return
        # The answer may come after an hour: only what was listed, was old enough then, and may still go.
        listed = {removal.path for removal in proposal.going}
        proposal = _propose(store, policy, now=proposal.found.now)
        proposal = _Proposal(proposal.found, [removal for removal in proposal.going if removal.path in listed])
    _remove(proposal.going, store)


def _propose(store: Workspace, policy: Policy, now: float | None = None) -> _Proposal:
    from lark_engine.sharing.views import names_shown, read_views
    from lark_engine.store.cleaning import survey

    found = survey(store, _job_records(store), shown=names_shown(read_views(store.root).views), now=now)
    return _Proposal(found, plan_cleaning(found, policy))


def _job_records(store: Workspace) -> list[JobRecord]:
    from lark_engine.store.retention import JobRecord

    return [
        JobRecord(path=found.job.folder, state=found.state, ended_at=found.ended_at, is_live=found.is_live)
        for found in list_jobs(store.root)
    ]


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _remove(removals: Sequence[Removal], store: Workspace) -> None:
    from lark_engine.store.cleaning import remove

    done = remove(store, removals)
    for line in done.left:
        typer.echo(f"left: {printable(line)}")
    for line in done.failures:
        typer.secho(f"not removed: {printable(line)}", err=True, fg="red")
    typer.echo(_total(done.removed, "removed", store))
    if done.failures:
        raise StoreError(f"{len(done.failures)} of {len(removals)} could not be removed; why is said above")


def plan_lines(found: Survey, removals: Sequence[Removal]) -> list[str]:
    """A plan as text, a line for each thing: kind of waste, room, age, place and reason."""
    lines = []
    for removal in removals:
        link = removal.entry.link_to
        why = removal.why if link is None else f"{removal.why}, but it is a link to {link}; remove it yourself"
        place = removal.path.relative_to(found.root)
        lines.append(f"{removal.waste:<10} {size(removal.num_bytes):>8} {_age(removal.age_s):>9}  {place}: {why}")
    return lines


def _kept_lines(proposal: _Proposal, unused: bool) -> list[str]:
    """What stays although it could seem to go."""
    found, going = proposal.found, {removal.path for removal in proposal.going}
    damaged = [str(f.path.relative_to(found.root)) for f in found.folders if f.state == "damaged"]
    resumable = sum(f.state == "unfinished" and f.path not in going for f in found.folders)
    lines = [f"damaged, and left for you to look at: {', '.join(damaged)}"] if damaged else []
    if unused and resumable:
        lines.append(f"{resumable} unfinished may be resumed; what they could be made from stays")
    return lines


def size(num_bytes: int) -> str:
    """`512 B`, `3.4 GB`."""
    number, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.0f} B" if units[0] == "B" else f"{number:.1f} {units[0]}"


def _age(age_s: float) -> str:
    hours = age_s / 3600
    return f"{hours / 24:,.0f} days" if hours >= 48 else f"{hours:.0f} hours" if hours >= 2 else "new"


def _total(removals: Sequence[Removal], what: str, store: Workspace) -> str:
    """`12 folders, 3.4 GB would go; 120.3 GB are free now.`"""
    counts = Counter("folder" if removal.entry.is_folder else "file" for removal in removals)
    things = [f"{counts[name]:,} {name}{'s' * (counts[name] != 1)}" for name in ("folder", "file") if counts[name]]
    named = f"{', '.join(things)}, {size(sum(r.num_bytes for r in removals))}" if things else "nothing"
    free = shutil.disk_usage(existing_parent(store.root)).free
    return f"{named} {what}; {size(free)} are free now."


def _as_json(proposal: _Proposal, store: Workspace) -> dict[str, Any]:
    return {
        "removals": [
            {
                "path": str(r.path), "waste": r.waste, "why": r.why, "num_bytes": r.num_bytes,
                "age_s": round(r.age_s, 3), "link_to": None if r.entry.link_to is None else str(r.entry.link_to),
            }
            for r in proposal.removals
        ],
        "damaged": [str(f.path) for f in proposal.found.folders if f.state == "damaged"],
        "num_bytes": sum(r.num_bytes for r in proposal.going),
        "free_bytes": shutil.disk_usage(existing_parent(store.root)).free,
    }  # fmt: skip
