"""The rows of Evaluate's results table: figures, badges, paired differences to the reference row. No Streamlit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from app.components.results_table import Line, Range, TableCell, TableColumn, TableRow
from app.loaders import Snapshot, Unfinished
from app.results import Cell, ResultRow, Results
from lark_engine.evaluation.intervals import Estimate
from lark_engine.evaluation.registry import entry_named
from lark_engine.figures import formats
from lark_engine.results.table import MACRO
from lark_engine.store.workspace import Artifact

PAGE_ROWS = 25
LEGEND = (
    "Line: 95 % interval over problems, from 0 to 100 %. Bold: above the interval of every other row. Differences to "
    "the reference are paired by problem, in points, with their 95 % interval; a difference opens the comparison, a "
    "figure its problems."
)


class Graded(NamedTuple):
    """A grade with the generations that it is of."""

    grade: Artifact
    generations: Artifact


# The paired difference of two cells; a text where there is none, which says why.
Difference = Callable[[Cell, Cell], Estimate | str]


class Paged(NamedTuple):
    """A page of rows, the reference before them, and how many rows (without it) and pages there are."""

    rows: list[ResultRow]
    number: int
    num_pages: int
    num_rows: int


def graded_by_place(snapshot: Snapshot, root: Path) -> dict[str, Graded]:
    """All grades by their folders below the workspace."""
    generations = {artifact.path: artifact for artifact in snapshot.artifacts["evals"]}
    return {
        str(grade.path.relative_to(root)): Graded(grade, generations[grade.path.parents[1]])
        for grade in snapshot.artifacts["grades"]
        if grade.path.parents[1] in generations
    }


def default_reference(rows: Sequence[ResultRow]) -> ResultRow | None:
    """The untrained student that most of the others were trained from; of several the one on more benchmarks."""

    def rank(student: ResultRow) -> tuple[int, int]:
        from_it = sum(Path(row.student).name.startswith(student.model) for row in rows if not row.is_reference)
        return from_it, sum(cell is not None for cell in student.cells)

    return max((row for row in rows if row.is_reference), key=rank, default=None)


def paged(shown: Results, reference: ResultRow | None, *, sort: str, find: str, number: int) -> Paged:
    """A page of the rows whose model holds `find`, the highest on benchmark `sort` first; the reference on top."""
    column = shown.benchmarks.index(sort) if sort in shown.benchmarks else 0
    rows = [row for row in shown.rows if row is not reference and find.casefold() in row.model.casefold()]
    rows.sort(key=lambda row: -_value(row, column))
    num_pages = max(1, -(-len(rows) // PAGE_ROWS))
    number = min(max(number, 1), num_pages)
    page = rows[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]
    return Paged([*([reference] if reference else []), *page], number, num_pages, len(rows))


def _value(row: ResultRow, column: int) -> float:
    cell = row.cells[column] if column < len(row.cells) else None
    return -1.0 if cell is None or cell.value is None else cell.value


def columns_of(shown: Results) -> list[TableColumn]:
    return [
        TableColumn(name, f"n = {formats.count(n)}", name)
        for name, n in zip(shown.benchmarks, shown.num_problems, strict=True)
    ]


def rows_of(
    rows: Sequence[ResultRow], benchmarks: Sequence[str], reference: ResultRow | None, difference: Difference,
    graded: Mapping[str, Graded], unfinished: Mapping[tuple[str, str], Unfinished], metric: str,
) -> list[TableRow]:  # fmt: skip
    """The rows as the table draws them."""
    found = []
    for row in rows:
        link = _compare_link(reference, row, metric)
        folder = next((c.places[0].split("/")[1] for c in row.cells if c and c.places), "")
        cells = []
        for column, benchmark in enumerate(benchmarks):
            cell = row.cells[column]
            if cell is None or cell.value is None:
                cells.append(_absent(unfinished.get((folder, benchmark))))
                continue
            against = reference.cells[column] if reference and reference is not row else None
            lines = [*_others(cell, metric)]
            if row is reference:
                lines.append(Line(text="the reference", tone="muted"))
            elif against is not None and against.value is not None:
                lines.append(_difference_line(difference(against, cell), link and {**link, "on": benchmark}))
            cells.append(_cell(cell, lines, _badges(cell, benchmark, graded)))
        label = Line(text=row.model, link=link, help="Compare with the reference" if link else "")
        found.append(TableRow(label=label, detail=row.detail, cells=cells, is_reference=row is reference))
    return found


def _compare_link(reference: ResultRow | None, row: ResultRow, metric: str) -> dict[str, str] | None:
    if reference is None or reference is row or not reference.name or not row.name:
        return None
    # Of pass@k it matters which k; of the others as many samples as both sides have are compared.
    compared = metric if metric.startswith("pass@") else metric.partition("@")[0]
    return {"view": "compare", "a": reference.name, "b": row.name, "cmp_metric": compared}


def _cell(cell: Cell, lines: Sequence[Line], badges: Sequence[Line]) -> TableCell:
    low, high, value = cell.low, cell.high, cell.value
    is_known = low is not None and high is not None and value is not None
    link = {"view": "problems", "grade": cell.places[0]} if len(cell.places) == 1 else None
    note = " · ".join(p for p in (formats.interval(low, high), f"n = {formats.count(cell.num_problems)}") if p)
    return TableCell(
        value=Line(text=formats.percent(value), link=link, help="Its problems and answers" if link else ""), note=note,
        is_best=cell.best, range=Range(low, value, high) if is_known else None, lines=lines, badges=badges,
    )  # type: ignore[arg-type]  # fmt: skip


def _others(cell: Cell, metric: str) -> list[Line]:
    """The pass@k of all samples below an average, the average below a pass@k; all others on hover."""
    kind = "avg" if metric.startswith("pass@") else "pass"
    same = [(name, value) for name, value in cell.others if name.startswith(f"{kind}@")]
    if not same:
        return []
    name, value = same[-1]
    help = " · ".join(f"{other} {formats.percent(v)}" for other, v in cell.others)
    return [Line(text=f"{name} {formats.percent(value)}", help=help, tone="muted")]


def _difference_line(found: Estimate | str, link: Mapping[str, str] | None) -> Line:
    if isinstance(found, str):
        return Line(text=found, tone="muted")
    text = f"{formats.signed(100 * found.value, 1)} to the reference"
    tone: str = ""
    if found.low is not None and found.high is not None:
        text = f"{formats.signed(100 * found.value, 1)} [{_points(found.low)}, {_points(found.high)}]"
        tone = "good" if found.low > 0 else "warn" if found.high < 0 else ""
    help = f"Paired difference to the reference over {formats.count(found.num_problems)} problems, in points"
    return Line(text=text, help=help, link=link, tone=tone)  # type: ignore[arg-type]


def _points(value: float) -> str:
    return formats.signed(100 * value, 1)


def _badges(cell: Cell, benchmark: str, graded: Mapping[str, Graded]) -> list[Line]:
    """What to know before the figure is believed."""
    found = []
    if cell.stale:
        found.append(Line(text="stale", help=cell.stale, tone="warn"))
    asked = [
        graded[place].generations.manifest.identity.get("benchmark", {}) for place in cell.places if place in graded
    ]
    limits = {one.get("limit") for one in asked} - {None}
    if limits and benchmark != MACRO:
        entry = entry_named(benchmark)
        whole = f" of {formats.count(entry.num_problems)}" if entry else ""
        found.append(
            Line(text=f"first {max(limits)}{whole} problems", help="Sampled with a limit of problems", tone="warn")
        )
    if cell.num_disputed:
        help = "Verdicts that a person has overruled, counted as the person says"
        found.append(Line(text=f"{formats.count(cell.num_disputed)} disputed", help=help))
    if cell.num_seeds > 1:
        found.append(Line(text=f"{cell.num_seeds} seeds", help="Pooled over seeds and problems"))
    return found


def _absent(unfinished: Unfinished | None) -> TableCell:
    if unfinished is None:
        return TableCell(value=Line(text="not evaluated", tone="muted"))
    state = "being sampled" if unfinished.running else "sampling unfinished"
    done, total = unfinished.done, unfinished.total
    is_known = done is not None and total is not None and total > 0
    lines = [Line(text=formats.progress(done, total, "sample"), tone="muted")] if is_known else []  # type: ignore[arg-type]
    share = done / total if is_known else None  # type: ignore[operator]
    return TableCell(value=Line(text=state, tone="muted", link={"view": "run"}), share=share, lines=lines)
