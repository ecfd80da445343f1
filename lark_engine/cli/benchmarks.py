"""`lark benchmarks list`, `lark benchmarks fetch` and `lark benchmarks check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption, done, stage
from lark_engine.errors import ConfigError, LarkError, did_you_mean
from lark_engine.printing import printable
from lark_engine.store.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from lark_engine.evaluation.check import Check
    from lark_engine.evaluation.registry import Entry

app = typer.Typer(no_args_is_help=True, help="Benchmarks: those known by name, their problems, how they are asked.")

JsonOption = Annotated[bool, typer.Option("--json", help="as JSON")]


@app.command("list")
def list_command(as_json: JsonOption = False, workspace: WorkspaceOption = CACHE) -> None:
    """Show the benchmarks known by name, and which of them are in the workspace."""
    from lark_engine.evaluation.registry import registry

    artifacts = Workspace(workspace).list("benchmarks")
    rows = [_listed(entry, artifacts) for entry in registry().values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    head = ("name", "problems", "answers", "prompt", "on the hub", "in the workspace")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    typer.echo("Any other list: a JSON or JSONL file of {prompt, answer}; see it with: lark benchmarks check FILE")


@app.command("fetch")
@stage("benchmarks fetch")
def fetch_command(
    names: Annotated[list[str] | None, typer.Argument(help="benchmarks by name", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="all that are known by name")] = False,
    revision: Annotated[
        str | None, typer.Option(help="commit of the one dataset; the newest by default", show_default=False)
    ] = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Fetch benchmarks from the Hugging Face hub into the workspace, each at one commit."""
    from lark_engine.evaluation.fetch import REJECTED_FILE, fetch

    if bool(names) == every:
        raise ConfigError("which benchmarks? give names, or --all")
    entries = _entries(names or [])
    if revision and len(entries) != 1:
        raise ConfigError("--revision is a commit of one dataset; fetch its benchmark on its own")
    failed = 0
    for entry in entries:
        try:
            artifact = fetch(entry, Workspace(workspace), revision=revision)
        except LarkError as error:
            if len(entries) == 1:
                raise
            typer.secho(f"lark: {error}", err=True, fg="red")
            failed += 1
            continue
        done(artifact)
        if artifact.manifest.drops:
            typer.echo(f"  rows left out are listed in {artifact.path / REJECTED_FILE}")
    if failed:
        raise ConfigError(f"{failed} of {len(entries)} benchmarks were not fetched, as said above")


@app.command("check")
def check_command(
    names: Annotated[list[str], typer.Argument(help="JSON or JSONL file, NAME=FILE, or a fetched benchmark")],
    as_json: JsonOption = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Show how a benchmark is asked and graded, and its bad rows by index and reason (exit code 2 if it has any)."""
    from lark_engine.evaluation.benchmarks import read_benchmark
    from lark_engine.evaluation.check import check

    store = Workspace(workspace)
    checks = [check(read_benchmark(name, store)) for name in names]
    if as_json:
        typer.echo(json.dumps([asdict(found) for found in checks], indent=2, ensure_ascii=False))
    else:
        typer.echo("\n\n".join("\n".join(_report(found)) for found in checks))
    if any(found.rejected for found in checks):
        raise typer.Exit(2)


def _entries(names: list[str]) -> list[Entry]:
    """The entries of these names, each once; all when there are none."""
    from lark_engine.evaluation.registry import entry_named, registry

    found = {}
    for name in names or registry():
        entry = entry_named(name)
        if entry is None:
            raise ConfigError(f"no benchmark is called '{name}'{did_you_mean(name, registry())}")
        found[entry.name] = entry
    return list(found.values())


def _listed(entry: Entry, artifacts: list[Artifact]) -> dict[str, Any]:
    from lark_engine.evaluation.registry import system_prompt_of
    from lark_engine.store.workspace import slug

    own = [artifact for artifact in artifacts if artifact.name == slug(entry.name)]
    return {
        "name": entry.name, "aliases": list(entry.aliases), "num_problems": entry.num_problems,
        "answer_type": entry.answer_type, "prompt": entry.prompt,
        "system_prompt": system_prompt_of(entry, entry.answer_type), "dataset": entry.hub.dataset,
        "config": entry.hub.config, "split": entry.hub.split, "gated": entry.hub.gated,
        "fetched": [
            {
                "id": artifact.id, "num_problems": artifact.manifest.counts["num_problems"],
                "revision": artifact.manifest.identity["revision"],
            }
            for artifact in own
        ],
    }  # fmt: skip


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    place = "/".join(part for part in (row["dataset"], row["config"], row["split"]) if part)
    state = ", ".join(f"{found['id']} ({found['num_problems']:,} problems)" for found in row["fetched"])
    return (
        row["name"], f"{row['num_problems']:,}", row["answer_type"], row["prompt"],
        place + (" (gated)" if row["gated"] else ""), state or "not fetched",
    )  # fmt: skip


def _report(found: Check) -> list[str]:
    """A check in lines."""
    known = f"asked as {found.known_as}" if found.known_as else "not a name of the registry"
    lines = [
        f"{printable(found.name)} ({found.path}), {known}",
        f"  problems: {found.num_problems:,}; answers: {found.answer_type}",
    ]
    for title, counts in (("levels", found.levels), ("subjects", found.subjects)):
        if counts:
            listed = ", ".join(f"{printable(name)} ({count:,})" for name, count in counts.items())
            lines.append(f"  {title}: {listed}")
    lines.append(f"  system prompt:{_indented(found.system_prompt) or ' none'}")
    if found.example:
        lines.append(
            f"  problem {printable(found.example.problem_id)}, as it is asked:{_indented(found.example.prompt)}"
        )
        lines.append(f"  its reference: {printable(found.example.reference)}")
    lines.append(f"  problems with the same prompt: {len(found.repeated) or 'none'}")
    lines += [f"    {printable(', '.join(ids))}" for ids in found.repeated]
    lines.append(f"  references that would be graded as wrong themselves: {len(found.ungradable) or 'none'}")
    lines += [f"    {printable(bad.problem_id)}: {printable(bad.reference)} ({bad.reason})" for bad in found.ungradable]
    lines.append(f"  bad rows: {len(found.rejected) or 'none'}")
    lines += [f"    {printable(str(row))}; {row.remedy}" for row in found.rejected]
    return lines


def _indented(text: str) -> str:
    return "".join(f"\n    {printable(line)}" for line in text.splitlines())
