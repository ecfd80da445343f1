"""`lark report`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.config import ReportConfig
from lark_engine.errors import StoreError
from lark_engine.options import with_options
from lark_engine.printing import one_line
from lark_engine.store.workspace import KINDS, Workspace

if TYPE_CHECKING:
    from lark_engine.sharing.report import Preview

app = typer.Typer()
_MOST_REPLACED = 20


@app.command("report")
@with_options(ReportConfig)
def report_command(
    values: dict[str, Any],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go out; write nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="say it as JSON")] = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """One file for a colleague that loads nothing: lineage, scores, selection, curves, results, and the commands."""
    from lark_engine.sharing.report import make_report, write_report
    from lark_engine.sharing.report_material import Material

    store = Workspace(workspace)
    if not any(store.list(kind) for kind in KINDS):
        raise StoreError(f"{store.root}: holds nothing to report of; is this the right workspace?")
    report = make_report(Material(store, ReportConfig.parse(values, "lark report")))
    if not dry_run:
        write_report(report, store)
    if as_json:
        typer.echo(json.dumps(_as_json(report.preview), indent=2, ensure_ascii=False))
        return
    for line in _lines(report.preview):
        typer.echo(line)
    typer.echo(f"{'would write' if dry_run else 'wrote'} {report.preview.target}")


def _lines(preview: Preview) -> list[str]:
    """What goes out, in lines."""
    lines = [one_line(preview.title)]
    for block in preview.blocks:
        what = [f"{block.num_figures} figures", f"{block.num_tables} tables", f"{block.num_texts} texts"]
        lines.append(f"  {block.title:<22} {block.num_bytes / 1e3:>8,.0f} kB   {', '.join(what)}")
    lines += [f"  left out: {name}: {one_line(why)}" for name, why in preview.left_out.items()]
    lines.append(f"  in all {preview.num_bytes / 1e6:.2f} MB, {preview.num_texts} texts of problems")
    lines += [
        f"  replaced {count} ×: {one_line(what.original, 80)} → {what.replacement}"
        for what, count in list(preview.replaced.items())[:_MOST_REPLACED]
    ]
    if len(preview.replaced) > _MOST_REPLACED:
        lines.append(f"  and {len(preview.replaced) - _MOST_REPLACED} more; --json lists all")
    return lines


def _as_json(preview: Preview) -> dict[str, Any]:
    return {
        "title": preview.title, "target": str(preview.target), "num_bytes": preview.num_bytes,
        "num_texts": preview.num_texts, "blocks": [vars(block) for block in preview.blocks],
        "left_out": dict(preview.left_out),
        "replaced": [{**what._asdict(), "count": count} for what, count in preview.replaced.items()],
    }  # fmt: skip
