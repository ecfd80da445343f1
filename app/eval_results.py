"""The view Results of the page Evaluate: one metric of all rows and benchmarks, against a reference row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from app import address, eval_table, widgets
from app.address import Codec, bound, flag, many_of, number, one_of, words
from app.components.results_table import results_table
from app.eval_table import Graded
from app.explore_controls import turn_to
from app.loaders import (
    Snapshot,
    Unfinished,
    disputes_version,
    load_results,
    load_snapshot,
    load_unfinished,
    signature,
)
from app.overview import chains
from app.results import (
    OWN_COUNT,
    Cell,
    ResultRow,
    Results,
    metrics_of,
    offered_metrics,
    own_counts,
    results_of,
    with_own_counts,
)
from app.session import shown_line
from lark_engine.errors import LarkError, StoreError
from lark_engine.evaluation.disputes import DISPUTES
from lark_engine.evaluation.intervals import Estimate
from lark_engine.figures import formats
from lark_engine.figures.safe_text import one_line
from lark_engine.results.commands import table_command
from lark_engine.results.differences import ProblemValues, paired_difference, problem_values
from lark_engine.results.export import TEXT_FORMATS
from lark_engine.results.methods import by_method
from lark_engine.results.table import Results as ReadResults
from lark_engine.store.workspace import Workspace, read_artifact

NO_REFERENCE = "none"
# What of the other views makes no sense for what is opened now.
_OF_OTHER_VIEWS = dict.fromkeys(("cell", "cpage", "problem", "sample", "ppage", "beside"))
_PAGE = number(1, 1e9, 1, integer=True)
_TYPES = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex", "html": "text/html"}
_LABELS = {
    "table.csv": "CSV, tidy", "wide.csv": "CSV, wide", "table.md": "Markdown", "table.tex": "LaTeX",
    "table.html": "HTML",
}  # fmt: skip


def show_results(workspace: Workspace, results: ReadResults) -> None:
    """Controls, table, exports, and where the shown results come from. There is at least one grade that can be read."""
    snapshot = load_snapshot(workspace)
    if results.problems:
        st.html(widgets.damaged((), results.problems))
    benchmarks = sorted(results.table["benchmark"].dropna().unique())
    chosen = address.read("benchmark", many_of(benchmarks))
    is_pooled = address.read("by_method", flag())
    table = (
        _pooled(str(workspace.root), (signature(workspace), disputes_version(workspace)))
        if is_pooled
        else results.table
    )
    table = table[table["benchmark"].isin(chosen)] if chosen else table
    counted = with_own_counts(table)
    metrics = metrics_of(counted)
    if not metrics:
        st.html(widgets.note("No share of right answers is left with these filters; the exports hold what there is."))
        return
    codec = one_of(metrics, metrics[0])
    metric = str(address.read("metric", codec))
    address.name_at_once(metric=metric)
    shown = results_of(counted, metric)
    reference = _controls(shown, benchmarks, metrics, codec)
    if metric == OWN_COUNT:
        st.caption(f"n: as many samples as each benchmark has · {formats.plain_markdown(own_counts(counted))}")
    page = eval_table.paged(
        shown, reference, sort=address.read("results_sort", one_of(shown.benchmarks, "")),
        find=address.read("eval_find", words()), number=address.read("page", _PAGE),
    )  # fmt: skip
    graded = eval_table.graded_by_place(snapshot, workspace.root)
    _table(workspace, shown, reference, page, graded)
    _exports(workspace, table, chosen, is_pooled)
    _lineage(snapshot, page.rows, graded)


def _controls(shown: Results, benchmarks: Sequence[str], metrics: Sequence[str], codec: Codec) -> ResultRow | None:
    """Metric, filters and reference row; returns the reference."""
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="results_controls"):
        st.segmented_control(
            "Metric", offered_metrics(metrics, str(address.read("metric", codec))), required=True,
            **bound("metric", codec),
        )  # fmt: skip
        st.multiselect(
            "Benchmarks", benchmarks, placeholder="all", width=230, format_func=one_line,
            **bound("benchmark", many_of(benchmarks), clears=("page",)),
        )  # fmt: skip
        rows = {row.key: row for row in sorted(shown.rows, key=lambda row: not row.is_reference)}
        default = eval_table.default_reference(shown.rows)
        codec = one_of([*rows, NO_REFERENCE], default.key if default else NO_REFERENCE)
        address.name_at_once(reference=codec.default)
        st.selectbox(
            "Reference row", [*rows, NO_REFERENCE], width=300, format_func=lambda key: _label(rows.get(key)),
            help="Differences are paired with this row, problem by problem", **bound("reference", codec),
        )  # fmt: skip
        st.text_input("Model contains", width=170, placeholder="any", **bound("eval_find", words(), clears=("page",)))
        st.toggle(
            "Pool seeds", help="Runs that differ in nothing but the seed as one row, averaged over seeds and problems",
            **bound("by_method", flag(), clears=("page", "reference")),
        )  # fmt: skip
    return rows.get(str(address.read("reference", codec)))


def _label(row: ResultRow | None) -> str:
    return "no reference" if row is None else one_line(f"{row.model} · {row.detail}" if row.detail else row.model, 90)


def _table(
    workspace: Workspace, shown: Results, reference: ResultRow | None, page: eval_table.Paged,
    graded: dict[str, Graded],
) -> None:  # fmt: skip
    metric = str(st.session_state["metric"])
    sort = address.read("results_sort", one_of(shown.benchmarks, shown.benchmarks[0]))

    def difference(a: Cell, b: Cell) -> Estimate | str:
        return _difference(workspace, graded, a, b, metric)

    caption = f"{metric}: {_place(page)}"
    rows = eval_table.rows_of(
        page.rows, shown.benchmarks, reference, difference, graded, _unfinished(workspace), metric
    )  # fmt: skip
    opened = results_table(
        eval_table.columns_of(shown), rows, key="results_table", caption=caption, legend=eval_table.LEGEND, sort=sort,
        shared={**address.shared_params(), "metric": metric},
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(caption, width="content")
        if page.num_pages > 1:
            key = f"results_page.{page.number}.{page.num_pages}"
            st.pagination(page.num_pages, default=page.number, key=key, on_change=turn_to, args=(key,))
    if opened is not None:
        if opened.link is not None:
            address.put(**{**_OF_OTHER_VIEWS, **opened.link})
        else:
            address.put(results_sort=None if opened.sort == shown.benchmarks[0] else opened.sort, page=None)
        st.rerun()


def _place(page: eval_table.Paged) -> str:
    """`rows 1 to 25 of 100, the highest first`."""
    if not page.num_rows:
        return "no other row"
    first = (page.number - 1) * eval_table.PAGE_ROWS + 1
    last = min(first + eval_table.PAGE_ROWS - 1, page.num_rows)
    return f"rows {first} to {last} of {formats.count(page.num_rows)}, the highest first"


def _difference(
    workspace: Workspace, graded: dict[str, Graded], a: Cell, b: Cell, metric: str
) -> Estimate | str:  # fmt: skip
    """b − a, or why there is none."""
    sides = [[graded[place] for place in cell.places if place in graded] for cell in (a, b)]
    asked = {
        str(one.generations.manifest.identity.get("benchmark", {}).get("content")) for side in sides for one in side
    }
    if len(asked) > 1:
        return "other problems than the reference"
    try:
        runs = [[_values(workspace, one, metric) for one in side] for side in sides]
        found = paired_difference(*runs)
    except (LarkError, KeyError):
        return "verdicts not readable"
    return "no problem in common" if found is None else found


def _values(workspace: Workspace, one: Graded, metric: str) -> ProblemValues:
    """The metric of each problem of a grade, read again when a verdict was disputed."""
    disputes = one.generations.path / DISPUTES
    version = (one.grade.manifest.created_at, disputes.stat().st_mtime_ns if disputes.exists() else 0)
    overall = one.grade.manifest.metrics.get("overall", {})
    if metric == OWN_COUNT:
        metric = f"avg@{one.grade.manifest.metrics['n_samples']}"
    # Voting takes ten times as long as the others, and is seldom looked at.
    votes = metric.startswith("maj@")
    names = tuple(n for n in overall if n.partition("@")[0] in (("maj",) if votes else ("avg", "pass")))
    return _cached_values(one.grade.path, version, names)[metric]


@functools.lru_cache(maxsize=3000)  # of hundreds of cells at once: Streamlit's cache hashes its arguments far slower
def _cached_values(grade: Path, version: object, names: tuple[str, ...]) -> dict[str, ProblemValues]:
    artifact = read_artifact(grade)
    if artifact is None:
        raise StoreError(f"{grade}: gone or damaged; grade it again")
    return problem_values(artifact, names)


@st.cache_resource(max_entries=2, show_spinner="Pooling the seeds of each method…")
def _pooled(root: str, version: object) -> pd.DataFrame:
    workspace = Workspace(root)
    return by_method(load_results(workspace).table, workspace)


def _unfinished(workspace: Workspace) -> dict[tuple[str, str], Unfinished]:
    """Generations that are not finished, by the folder of their model and the benchmark."""
    found = [item for item in load_unfinished(workspace) if item.kind == "evals"]
    return {(item.place.split("/")[1], item.name.rpartition("-")[0]): item for item in found}


def _exports(workspace: Workspace, table: pd.DataFrame, chosen: Sequence[str], is_pooled: bool) -> None:
    """The filtered results in each format, and the command that writes the same files."""
    st.subheader("Export", anchor=False)
    num_rows, num_benchmarks = table["row"].nunique(), table["benchmark"].nunique()
    size = f"{formats.count(num_rows)} row{'' if num_rows == 1 else 's'} × {num_benchmarks} benchmark"
    pooled = " and pooled over seeds" if is_pooled else ""
    st.caption(f"{size}{'' if num_benchmarks == 1 else 's'} with all metrics, as filtered above by benchmark{pooled}")
    with st.container(horizontal=True, gap="small", key="exports"):
        for name, text_of in TEXT_FORMATS.items():
            st.download_button(
                _LABELS[name], data=lambda text_of=text_of: text_of(table).encode(), file_name=f"lark_{name}",
                mime=_TYPES[Path(name).suffix[1:]], key=f"export.{name}", icon=":material/download:",
                on_click="ignore",
            )  # fmt: skip
    command = table_command(chosen, workspace, by_method=is_pooled, output_dir="results")
    st.code(shown_line(command), language=None, wrap_lines=True)


def _lineage(snapshot: Snapshot, rows: Sequence[ResultRow], graded: dict[str, Graded]) -> None:
    """What the rows on this page were made from; made only when it is looked at."""
    panel = st.expander("What these results were made from", key="results_lineage", on_change="rerun")
    if not panel.open:
        return
    places = [place for row in rows for cell in row.cells if cell for place in cell.places]
    shown = [graded[place].grade for place in dict.fromkeys(places) if place in graded]
    part = Snapshot({**snapshot.artifacts, "grades": shown}, snapshot.damaged)
    panel.html(widgets.lineages(chains(part), datetime.now(UTC)))
