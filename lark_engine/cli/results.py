"""`lark table`, `lark compare` and `lark lineage`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lark_engine.cli.common import CACHE, OutputDir, WorkspaceOption
from lark_engine.cli.evaluate import find_generations
from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.printing import one_line
from lark_engine.store.shown import require_own
from lark_engine.store.workspace import KINDS, Artifact, Workspace, read_artifact

if TYPE_CHECKING:
    from lark_engine.results.compare import BenchmarkComparison, Comparison

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="print all of it as JSON")]
_MOST_FLIPS = 10


@app.command("table")
def table_command(
    eval_root: Annotated[str | None, typer.Option(help="only what `lark generate` wrote below this folder")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="only these benchmarks")] = None,
    output_csv: Annotated[Path | None, typer.Option(help="also write the released table (pass@n) here")] = None,
    methods: Annotated[bool, typer.Option("--by-method", help="runs that differ in the seed only as one row")] = False,
    output_dir: OutputDir = None,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """The results table with intervals, from the finished grades; as CSV, Parquet, Markdown, LaTeX and HTML."""
    from lark_engine.evaluation.registry import key
    from lark_engine.results.export import inert, released_csv, to_markdown, write_table
    from lark_engine.results.methods import by_method
    from lark_engine.results.table import results_table
    from lark_engine.store.atomic import write_text

    store = Workspace(workspace)
    grades = None
    if eval_root:
        wanted = {artifact.path for artifact, _ in find_generations(eval_root, store)}
        grades = [grade for grade in store.list("grades") if grade.path.parents[1] in wanted]
    table = results_table(store, grades=grades)
    if benchmark:
        known = set(table["benchmark"])
        chosen = {name for name in known for asked in benchmark if key(name) == key(asked)}
        if unknown := sorted(asked for asked in benchmark if key(asked) not in map(key, chosen)):
            raise ConfigError(f"no grades of {', '.join(unknown)}" + (did_you_mean(unknown[0], known) if known else ""))
        table = table[table["benchmark"].isin(chosen)]
    if methods:
        table = by_method(table, store)
    if table.empty:
        typer.echo(f"no grades in {store.root} yet; make some with: lark generate …, then lark grade …")
        return
    typer.echo(to_markdown(table))
    if output_csv:
        write_text(output_csv, inert(released_csv(table)).to_csv(index=False))
        typer.echo(f"wrote {output_csv}")
    if output_dir or (grades is None and not benchmark):
        if output_dir is None:
            require_own(store.root)
        for path in write_table(table, output_dir or store.root / "tables"):
            typer.echo(f"wrote {path}")


@app.command("compare")
def compare_command(
    first: Annotated[str, typer.Argument(help="A: a model, checkpoint, grade, row of the table, or SWEEP:ARM")],
    second: Annotated[str, typer.Argument(help="B")],
    metric: Annotated[str, typer.Option(help="avg, pass, maj, or one by its whole name, as pass@1")] = "avg",
    benchmark: Annotated[list[str] | None, typer.Option(help="only these benchmarks")] = None,
    as_json: AsJson = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """Is B better than A, by how much, on which problems: paired differences with exact tests."""
    from lark_engine.results.compare import compare
    from lark_engine.results.compare_export import comparison_json

    found = compare(Workspace(workspace), first, second, metric=metric, benchmarks=benchmark or [])
    if as_json:
        typer.echo(comparison_json(found))
        return
    for line in comparison_lines(found):
        typer.echo(line)


@app.command("lineage")
def lineage_command(
    artifact: Annotated[str, typer.Argument(help="any artifact: id, unique name or folder")],
    as_json: AsJson = False,
    workspace: WorkspaceOption = CACHE,
) -> None:
    """What an artifact was made from, the command that makes each part again, and what has changed since."""
    from lark_engine.results.commands import command_of, shell_line
    from lark_engine.results.lineage import Lineage
    from lark_engine.results.stale import Staleness

    store = Workspace(workspace)
    found = _any_artifact(artifact, store)
    lineage = Lineage(store)
    stale = Staleness(lineage)
    chain = [found, *lineage.of(found)]
    if as_json:
        parts = [
            {
                "kind": a.kind, "id": a.id, "created_at": a.manifest.created_at, "path": str(a.path),
                "command": command_of(a, store), "stale": stale.of(a), "git_commit": a.manifest.git_commit,
            }
            for a in chain
        ]  # fmt: skip
        typer.echo(json.dumps(parts, indent=2, ensure_ascii=False))
        return
    for part in chain:
        reasons = stale.of(part)
        typer.echo(
            f"{part.kind.removesuffix('s'):<10} {part.id}  {part.manifest.created_at[:19]}Z"
            + (f"  STALE: {one_line('; '.join(reasons))}" if reasons else "")
        )
        if command := command_of(part, store):
            typer.echo(f"           {shell_line(command)}")


def comparison_lines(found: Comparison) -> list[str]:
    """A comparison as text."""
    from lark_engine.evaluation.paired import MANY_COMPARISONS

    lines = [f"A {found.a}", f"B {found.b}"]
    for one in found.benchmarks:
        lines += ["", *_benchmark_lines(one, adjusted=len(found.benchmarks) > 1)]
    if (macro := found.macro) is not None:
        scale, unit = (1.0, "tokens") if found.benchmarks[0].metric == "mean_tokens" else (100.0, "points")
        ends = (macro.low, macro.high)
        interval = "" if None in ends else f" [{', '.join(_signed(end or 0.0, scale) for end in ends)}]"
        mean = f"B - A = {_signed(macro.value, scale)}{interval} {unit}"
        lines += ["", f"mean over {len(found.benchmarks)} benchmarks: {mean}"]
    if len(found.benchmarks) > MANY_COMPARISONS:
        lines.append(
            f"{len(found.benchmarks)} comparisons were made: of that many, one in twenty is below 0.05 by chance; read "
            "the p-values adjusted by Holm"
        )
    return lines


def _benchmark_lines(one: BenchmarkComparison, *, adjusted: bool) -> list[str]:
    p = one.paired
    scale = 100.0 if one.metric != "mean_tokens" else 1.0
    interval = "" if p.low is None or p.high is None else f" [{_signed(p.low, scale)}, {_signed(p.high, scale)}]"
    holm = f", {one.p_adjusted:.3g} by Holm" if adjusted else ""
    detectable = (
        "" if p.smallest_detectable is None
        else f"; a difference of {p.smallest_detectable * scale:.1f} would be found with 80 % power"
    )  # fmt: skip
    gained = [flip for flip in one.flips if flip.gained]
    lines = [
        f"{one.benchmark} {one.metric}: A {p.mean_a * scale:.1f}, B {p.mean_b * scale:.1f}, "
        f"B - A = {_signed(p.difference, scale)}{interval}",
        f"  {p.num_problems} problems: B higher on {p.num_better}, lower on {p.num_worse}, same on {p.num_tied}; "
        f"p = {p.p_value:.3g} ({p.test}{holm}){detectable}",
        *(f"  CAUTION  sampled or graded otherwise: {one_line(text)}" for text in one.differences),
        *(f"  STALE    {one_line(text)}" for text in one.stale),
        *_matrix_lines(one),
        f"  flipped: {len(gained)} gained, {len(one.flips) - len(gained)} lost",
    ]
    for flip in one.flips[:_MOST_FLIPS]:
        lines.append(
            f"    {'+' if flip.gained else '-'} {one_line(flip.problem_id)}: {flip.a:.0%} -> {flip.b:.0%} correct; "
            f"answer {one_line(flip.reference, 30)}; {one_line(flip.prompt, 70)}"
        )
    if len(one.flips) > _MOST_FLIPS:
        lines.append(f"    and {len(one.flips) - _MOST_FLIPS} more; --json lists all")
    return lines


def _matrix_lines(one: BenchmarkComparison) -> list[str]:
    """How many problems have so many correct samples of A (rows) and of B (columns)."""
    rows, columns = range(one.num_samples_a + 1), range(one.num_samples_b + 1)
    width = max(len(str(n)) for n in [*one.matrix.values(), one.num_samples_b]) + 2
    if len(rows) > 33 or len(columns) > 33:
        return [f"  problem matrix {len(rows)} x {len(columns)}: see --json"]
    lines = ["  correct samples of A (rows) and B (columns), in problems:"]
    lines.append("      " + "".join(f"{j:>{width}}" for j in columns))
    for i in rows:
        cells = (one.matrix.get((i, j), 0) for j in columns)
        lines.append(f"    {i:>2}" + "".join(f"{n or '.':>{width}}" for n in cells))
    return lines


def _signed(value: float, scale: float = 100.0) -> str:
    return f"{value * scale:+.1f}"


def _any_artifact(name: str, store: Workspace) -> Artifact:
    """The artifact of any kind that a name means. Errors: `ConfigError` when none or several do."""
    if (found := read_artifact(Path(name).expanduser().absolute())) is not None:
        return found
    known = [artifact for kind in KINDS for artifact in store.list(kind)]
    meant = [a for a in known if name in (a.id, a.fingerprint)] or [a for a in known if a.name == name]
    if len(meant) != 1:
        several = ", ".join(str(a.path) for a in meant)
        raise ConfigError(
            f"'{name}' names several artifacts; give the folder of one: {several}" if meant
            else f"no artifact '{name}' in workspace {store.root}; ids stand in `lark table` and in the folders"
        )  # fmt: skip
    return meant[0]
