"""The view Compare of the page Evaluate: is B better than A, by how much, and on which problems?"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from app import address, widgets
from app.address import Codec, bound, flag, number, one_of
from app.boundary import guarded
from app.compare_exports import export_panel
from app.compare_tables import (
    FIRST_SORT,
    PAGE_SIZE,
    changed_cells,
    changed_columns,
    pair_cells,
    pair_columns,
)
from app.comparing import Sides, load_changed, load_compared, load_sides, load_slices, other_name
from app.components.board import PlotEvent, board
from app.components.row_table import TableEvent, row_table
from app.eval_run import nothing_graded
from app.session import shown_line
from lark_engine.errors import ConfigError
from lark_engine.figures import compare_figures
from lark_engine.figures.compare_words import METRICS, cautions, many_sentence, mean_sentence, verdict
from lark_engine.figures.formats import count
from lark_engine.figures.safe_text import label_markdown, one_line
from lark_engine.figures.side_words import first_sides, share
from lark_engine.results.compare import Compared, Detail
from lark_engine.results.graded import Graded
from lark_engine.results.pairs import PAIR_SORTS, SLICES, SliceBy, sort_pairs
from lark_engine.results.sides import names_of
from lark_engine.store.workspace import Workspace

_STYLES = Path(__file__).parent / "static" / "compare.css"
_OF_TABLE = ("cpage", "cell")


def _read_cell(said: list[str]) -> tuple[int, int] | None:
    a, _, b = said[-1].partition("-")
    return (int(a), int(b)) if a.isdecimal() and b.isdecimal() and len(said[-1]) < 12 else None


_CELL = Codec(read=_read_cell, write=lambda cell: [f"{cell[0]}-{cell[1]}"] if cell else [], default=None)


@guarded
def show_compare(workspace: Workspace) -> None:
    """Choose two sides; their difference, its parts, and the problems behind it."""
    st.html(_STYLES)
    sides = load_sides(workspace)
    if len(sides.choices) < 2:
        _too_few(workspace, sides)
        return
    a, b, metric = _choose(workspace, sides)
    if a == b:
        st.html(widgets.problem("A and B are the same.", "Choose another side to compare with."))
        return
    try:
        found = load_compared(workspace, a, b, metric)
    except ConfigError as error:
        _nothing_shared(sides, a, b, str(error))
        return
    names = benchmark_names(found)
    chosen = names.index(address.read("on", one_of(names, names[0])))
    one, detail = found.comparison.benchmarks[chosen], found.details[chosen]
    _verdict(found, chosen)
    left, right = st.columns([11, 9], gap="large")
    with left:
        card = compare_figures.forest(found.comparison.benchmarks, found.comparison.macro, chosen)
        board([card], key="compare_forest", on_event=partial(_choose_benchmark, names))
        by: SliceBy = address.read("slice_by", one_of(SLICES, "length"))
        st.segmented_control(
            "Slice by", SLICES, required=True, format_func=str.capitalize, **bound("slice_by", one_of(SLICES, "length"))
        )
        parts = load_slices(workspace, (a, b, metric, names[chosen]), detail.problems, by)
        board([compare_figures.slice_forest(parts, by, one.metric, one.paired)], key="compare_slices")
    with right:
        if len(names) > 1:
            st.selectbox(
                "Benchmark", names, format_func=partial(one_line, most=60),
                **bound("on", one_of(names, names[0]), clears=_OF_TABLE),
            )  # fmt: skip
        cell = address.read("cell", _CELL)
        cell = cell if cell in one.matrix else None
        board([compare_figures.matrix(one, cell)], key="compare_matrix", on_event=_choose_cell)
    if [x.generations.path for x in detail.graded_a] == [x.generations.path for x in detail.graded_b]:
        _changed(workspace, detail)
    _problems(detail, one.metric, cell)
    export_panel(workspace, found, chosen, metric)


def benchmark_names(found: Compared) -> list[str]:
    """The benchmarks by name; two of one name (of some of its problems, say) with their number of problems."""
    names: list[str] = []
    for one in found.comparison.benchmarks:
        name = one.benchmark
        while name in names:
            name = f"{name}, n = {one.paired.num_problems}" if name == one.benchmark else f"{name}′"
        names.append(name)
    return names


def _choose(workspace: Workspace, sides: Sides) -> tuple[str, str, str]:
    """A, B and the metric, as the address says."""
    default_a, default_b = first_sides(sides.choices)
    for param, default in (("a", default_a), ("b", default_b)):
        if not st.query_params.get(param):  # named at once, so that the address stays right when newer grades come
            st.query_params[param] = default
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="compare_sides"):
        a = _side(workspace, sides, "a")
        st.button(
            "Swap", icon=":material/swap_horiz:", key="compare_swap", on_click=_swap,
            args=(st.query_params["b"], st.query_params["a"]), help="A becomes B, and B becomes A",
        )  # fmt: skip
        b = _side(workspace, sides, "b")
        asked = st.query_params.get("cmp_metric", "avg")
        known = list(METRICS) if asked in METRICS else [*METRICS, asked[:20]]
        st.selectbox(
            "Metric", known, width=140, format_func=lambda name: METRICS.get(name) or one_line(name, 20),
            help="n and k: as many samples as both sides have",
            **bound("cmp_metric", one_of(known, "avg"), clears=("cell",)),
        )  # fmt: skip
        metric = str(address.read("cmp_metric", one_of(known, "avg")))
    return a, b, metric


def _side(workspace: Workspace, sides: Sides, param: str) -> str:
    """One side. What the address calls by another of its names stays as it is said."""
    asked = st.query_params[param]
    labels = sides.labels if asked in sides.labels else {**sides.labels, asked: other_name(workspace, asked)}
    st.selectbox(
        param.upper(), list(labels), format_func=lambda name: one_line(labels[name], 110), width=352,
        **bound(param, one_of(list(labels), None), clears=_OF_TABLE),
    )  # fmt: skip
    return asked


def _swap(a: str, b: str) -> None:
    address.put(a=a, b=b, cell=None, cpage=None)


def _verdict(found: Compared, chosen: int) -> None:
    """What was found in one sentence, the mean over benchmarks, and what to be careful about."""
    comparison = found.comparison
    one = comparison.benchmarks[chosen]
    number_of = len(comparison.benchmarks)
    lines = [f"<p class='verdict'>{widgets.text(verdict(one, number_of))}</p>"]
    rest = [mean_sentence(comparison.macro, one.metric, number_of)] if comparison.macro else []
    rest += [text] if (text := many_sentence(number_of)) else []
    lines += [f"<p class='muted'>{widgets.text(' '.join(rest))}</p>"] if rest else []
    st.html(widgets.block("".join(lines), "lark-verdict"))
    for text in cautions(one):
        st.html(widgets.problem("Caution.", text))


def _choose_benchmark(names: list[str], event: PlotEvent) -> None:
    said = event.customdata
    is_row = event.kind == "click" and isinstance(said, list) and bool(said) and isinstance(said[0], int)
    if is_row and 0 <= said[0] < len(names):
        address.put(on=names[said[0]] if said[0] else None, cell=None, cpage=None)


def _choose_cell(event: PlotEvent) -> None:
    """A click lists the problems of a square, a second one all again."""
    said = event.customdata
    if event.kind == "click" and isinstance(said, list) and len(said) == 2 and all(isinstance(n, int) for n in said):
        text = f"{said[0]}-{said[1]}"
        address.put(cell=None if st.query_params.get("cell") == text else text, cpage=None)


def _problems(detail: Detail, metric: str, cell: tuple[int, int] | None) -> None:
    """The problems of the chosen square, or all, flipped ones first; a row opens both sides' answers."""
    pairs = [p for p in detail.problems if cell is None or (p.correct_a, p.correct_b) == cell]
    sort = str(address.read("csort", one_of(PAIR_SORTS, FIRST_SORT)))
    descending = bool(address.read("cdesc", flag()))
    ordered = sort_pairs(pairs, sort, descending=descending)
    num_pages = max(1, -(-len(ordered) // PAGE_SIZE))
    page = min(int(address.read("cpage", number(1, 1e9, 1, integer=True))), num_pages)
    rows = ordered[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    st.subheader("Problems", anchor=False)
    if cell is not None:
        st.button(
            f"A {cell[0]}, B {cell[1]} correct · {count(len(pairs))} problem{'s' if len(pairs) != 1 else ''}",
            key="clear_cell", icon=":material/close:", icon_position="right", on_click=address.put,
            kwargs={"cell": None, "cpage": None}, help="Show all problems",
        )  # fmt: skip
    caption = (
        f"Problems {page * PAGE_SIZE - PAGE_SIZE + 1} to {(page - 1) * PAGE_SIZE + len(rows)} of {count(len(pairs))}"
    )
    row_table(
        pair_columns(metric), [pair_cells(pair, metric) for pair in rows], key="compare_problems", caption=caption,
        sort=sort, descending=descending, open_label="Open problem",
        on_event=partial(_act, detail, [pair.problem_id for pair in rows], sort, descending),
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        flipped = sum(pair.is_flipped for pair in pairs)
        said = f"{caption} · flipped: {flipped} (more than half correct on one side only) · a row opens its answers"
        said += " of the first seed" if len(detail.graded_a) > 1 or len(detail.graded_b) > 1 else ""
        st.caption(said, width="content")
        if num_pages > 1:
            key = f"cpage.{page}.{num_pages}"
            st.pagination(num_pages, default=page, key=key, on_change=_turn, args=(key,))


def _act(detail: Detail, problem_ids: list[str], sort: str, descending: bool, event: TableEvent) -> None:
    """Open a row's problem, or sort by a column."""
    if event.kind == "open":
        open_problem(detail.graded_a[0], detail.graded_b[0], problem_ids[event.row])
        return
    turned = event.column == sort and not descending
    starts_high = event.column not in (FIRST_SORT, "problem", sort)
    address.put(
        csort=None if event.column == FIRST_SORT else event.column, cdesc="true" if turned or starts_high else None,
        cpage=None,
    )  # fmt: skip


def open_problem(a: Graded, b: Graded | None, problem_id: str, sample: int | None = None) -> None:
    """Show the answers to a problem, those of B beside A's; what Compare shows stays in the address."""
    beside = None if b is None or b.place == a.place else b.place
    address.put(
        view="problems", grade=a.place, beside=beside, problem=problem_id, sample=sample, verdict=None, ppage=None
    )


def _turn(key: str) -> None:
    page = int(st.session_state[key])
    address.put(cpage=None if page == 1 else page)


def _changed(workspace: Workspace, detail: Detail) -> None:
    """The same answers graded by other rules: which verdicts changed."""
    a, b = detail.graded_a[0], detail.graded_b[0]
    changed = load_changed(workspace, a, b)
    st.subheader("Verdicts that changed", anchor=False)
    if not changed:
        st.html(widgets.note("A and B grade the same answers, and agree on every one."))
        return
    gained = sum(one.correct_b for one in changed)
    st.html(widgets.note(f"A and B grade the same answers. {count(len(changed))} verdicts differ: {count(gained)} are "
                         f"correct by B only, {count(len(changed) - gained)} by A only."))  # fmt: skip
    rows = changed[: 2 * PAGE_SIZE]
    row_table(
        changed_columns(), [changed_cells(one) for one in rows], key="compare_changed", sort="", descending=False,
        caption=f"The first {len(rows)} of {len(changed)} changed verdicts", open_label="Open problem",
        on_event=lambda event: open_problem(a, b, rows[event.row].problem_id, rows[event.row].sample_index),
    )  # fmt: skip
    if len(rows) < len(changed):
        st.caption(f"The first {len(rows)} of {count(len(changed))}.")


def _too_few(workspace: Workspace, sides: Sides) -> None:
    """With nothing or one thing graded: what to evaluate next."""
    if not sides.choices:
        nothing_graded(workspace)
        return
    [(name, choice)] = sides.choices.items()
    one = choice.graded[0]
    source = str(one.generations.manifest.identity["benchmark"].get("source") or one.benchmark)
    with st.container(border=True, key="empty_state"):
        st.subheader("One result has nothing to be compared with", anchor=False)
        said = f"{sides.labels[name]} is graded on {one.benchmark}."
        st.html(widgets.note(f"{said} Evaluate its student or another checkpoint on the same."))
        st.code(
            shown_line(["lark", "generate", "--model-path", "OTHER", "--benchmark", source, "--grade"]), language=None,
            wrap_lines=True,
        )  # fmt: skip
        st.button("Choose what to run", key="to_run", icon=":material/play_arrow:", on_click=address.put,
                  kwargs={"view": "run"})  # fmt: skip


def _nothing_shared(sides: Sides, a: str, b: str, reason: str) -> None:
    """Why these two cannot be compared; which gradings a name means by now, and what A can be compared with."""
    st.html(widgets.problem("These two cannot be compared.", f"{reason}."))
    for param, said in (("a", a), ("b", b)):
        if said in sides.choices:
            continue
        meant = [n for n, choice in sides.choices.items() if any(said in names_of(one) for one in choice.graded)]
        for name in meant[:5]:
            st.button(
                f"{param.upper()} is {label_markdown(sides.labels[name], 80)}", key=f"meant.{param}.{name}",
                on_click=address.put, kwargs={param: name, **dict.fromkeys(_OF_TABLE)}, type="tertiary",
            )  # fmt: skip
    if a not in sides.choices:
        return
    others = [n for n, other in sides.choices.items() if n != a and share(sides.choices[a], other)]
    for name in others[:5]:
        st.button(
            f"Compare A with {label_markdown(sides.labels[name], 80)}", key=f"instead.{name}", on_click=address.put,
            kwargs={"b": name, **dict.fromkeys(_OF_TABLE)}, type="tertiary",
        )  # fmt: skip
