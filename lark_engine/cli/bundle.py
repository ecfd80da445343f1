"""`lark bundle`: a read-only part of a workspace as one zip, for `lark serve BUNDLE.zip` elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lark_engine.cli.common import CACHE, WorkspaceOption
from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.printing import one_line
from lark_engine.store.workspace import Workspace, slug

if TYPE_CHECKING:
    from collections import Counter

    from lark_engine.sharing.bundle import BundlePreview
    from lark_engine.sharing.bundle_choice import Depth
    from lark_engine.sharing.bundle_format import TextsOut
    from lark_engine.sharing.redaction import Replacement

app = typer.Typer()

Names = list[str] | None
_MOST_REPLACED = 20


@app.command("bundle")
def bundle_command(
    scores: Annotated[str, typer.Option(help="scores that it begins with: id or unique name", show_default="newest")]
    = "",
    selection: Annotated[Names, typer.Option(help="only this selection, and what was made from it; repeatable")] = None,
    checkpoint: Annotated[Names, typer.Option(help="only this checkpoint, and its results; repeatable")] = None,
    evals: Annotated[Names, typer.Option("--eval", help="only these generations and their grades; repeatable")] = None,
    up_to: Annotated[str, typer.Option(help="last stage in it: scores, selections, checkpoints, results")] = "results",
    texts: Annotated[str, typer.Option(help="problems, responses, answers in it: none, chosen, all")] = "none",
    problem: Annotated[
        Names, typer.Option(metavar="ID", help="with --texts chosen: of the pool, or BENCHMARK:ID; repeatable")
    ] = None,
    token_stats: Annotated[bool, typer.Option("--token-stats", help="with the tokens of those texts")] = False,
    no_redact: Annotated[bool, typer.Option("--no-redact", help="with paths, host and user names as they are")] = False,
    title: Annotated[str, typer.Option(help="what is to be seen in it")] = "",
    output: Annotated[Path | None, typer.Option(help="where to write it", show_default="shared/ in the workspace")]
    = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list what would go out")] = False,
    workspace: WorkspaceOption = CACHE,
) -> None:  # fmt: skip
    """A read-only part of a workspace as one zip with checksums: no weights, no texts unless asked, nothing private."""
    from lark_engine.sharing.bundle import plan_bundle, preview_bundle, write_bundle
    from lark_engine.sharing.bundle_choice import DEPTHS, BundleChoice
    from lark_engine.sharing.bundle_format import TEXTS
    from lark_engine.sharing.shared import shared_dir

    for option, given, known in (("--texts", texts, TEXTS), ("--up-to", up_to, DEPTHS)):
        if given not in known:
            raise ConfigError(f"{option} {one_line(given, 40)}: is none of its values{did_you_mean(given, known)}")
    choice = BundleChoice(
        scores=scores, selections=tuple(selection or ()), checkpoints=tuple(checkpoint or ()),
        evals=tuple(evals or ()), up_to=cast("Depth", up_to), texts=cast("TextsOut", texts),
        problems=tuple(problem or ()), token_stats=token_stats, redact=not no_redact, title=title[:200],
    )  # fmt: skip
    store = Workspace(workspace)
    plan = plan_bundle(choice, store)
    if dry_run:
        _say_preview(preview_bundle(plan, is_exact=True))
        return
    made = write_bundle(plan, output or shared_dir(store) / f"{slug(title or plan.scores.name)}.zip")
    _say_replaced(made.replaced)
    typer.echo(f"{made.path}: {len(made.record.files) + 1} files, {made.num_bytes / 1e6:.2f} MB, texts: {texts}")
    typer.echo(f"  sha256 {made.sha256}")
    typer.echo("  open it with: lark serve " + made.path.name)


def _say_preview(preview: BundlePreview) -> None:
    for file in preview.files:
        typer.echo(f"{file.num_bytes:>14,}  {file.how:<21}  {one_line(file.name)}")
    total = sum(file.num_bytes for file in preview.files)
    stays = f"; {preview.left_out_bytes / 1e6:.2f} MB stay (weights, logs, what a stage resumes from)"
    typer.echo(f"{total:>14,}  bytes before packing, {len(preview.files)} files{stays}")
    texts = preview.num_problems_with_texts
    typer.echo(f"texts of {texts:,} problems go out" if texts else "no texts go out")
    _say_replaced(preview.replaced)


def _say_replaced(replaced: Counter[Replacement]) -> None:
    if not replaced:
        typer.echo("nothing was replaced")
    for (kind, original, replacement), number in replaced.most_common(_MOST_REPLACED):
        now = one_line(replacement, 60) or "(nothing)"
        typer.echo(f"replaced {number:>5,}  {kind:<6}  {one_line(original, 90)}  ->  {now}")
    if len(replaced) > _MOST_REPLACED:
        typer.echo(f"and {len(replaced) - _MOST_REPLACED:,} other paths, hosts and users")
