"""Explore: what is in the pool, which teachers does my student learn from, is the data sane?"""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import streamlit as st

from app import address, explore_controls, explore_tables, widgets
from app.address import bound, flag, go, number, one_of
from app.boundary import guarded
from app.components.board import board
from app.components.row_table import row_table
from app.explore_checks import Checks, load_checks, load_scan
from app.explore_controls import CHECK_LABELS, PLANES, QUALITY, SCALES, SHAPES, TABLES, THIRDS, TOPS
from app.explore_scene import Scene, load_scene
from app.pool_edits import pool_edit_controls, undo_edits
from app.scored import ScoredPool
from app.session import current_scored, current_workspace
from app.shell import nothing_scored
from lark_engine.errors import ConfigError
from lark_engine.explore.tables import CANDIDATE_SORTS, PAGE_SIZE, PROBLEM_SORTS, candidate_page, problem_page
from lark_engine.explore.view import METRICS, is_known
from lark_engine.figures import explore_cards
from lark_engine.figures.formats import count
from lark_engine.figures.metric_words import METRIC_WORDS, energy_words

FIRST_COLUMN = "pool"


def choose(
    label: str, param: str, options: dict[str, str], *, help: str | None = None, clears: tuple[str, ...] = ()
) -> str:
    """One of a few words, the first by default, bound to the address."""
    codec = one_of(list(options), next(iter(options)))
    st.segmented_control(
        label,
        list(options),
        format_func=options.__getitem__,
        required=True,
        help=help,
        **bound(param, codec, clears=clears),
    )
    return str(address.read(param, codec))


def quality_panel(checks: Checks) -> None:
    """What is wrong, and with how many: each count is a filter."""

    def text(name: str) -> str:
        number_of = checks.found[name].count
        return f"{CHECK_LABELS[name]} · {'…' if number_of is None else count(number_of)}"

    st.pills(
        "Is the data sane? Each count filters the page", list(checks.found), format_func=text,
        help=explore_controls.meanings(checks.found), **bound("quality", QUALITY, clears=("page",)),
    )  # fmt: skip
    if checks.found["flagged"].mask_NK is None:
        st.html(widgets.problem("The flags cannot be counted.", checks.found["flagged"].unknown))


@st.fragment(run_every=1.0)
@guarded
def wait_for_texts(scored: ScoredPool) -> None:
    """Run the page again once another process has read the texts."""
    st.caption("Reading the texts for “empty” and “no boxed answer”; everything else is ready.")
    if load_scan(scored, current_workspace()) is not None:
        st.rerun()


def dead_end(title: str, sentence: str) -> NoReturn:
    """In place of the figures: what happened, and what takes it back."""
    with st.container(border=True, key="dead_end"):
        st.subheader(title, anchor=False)
        st.html(widgets.note(sentence))
        with st.container(horizontal=True):
            st.button("Clear view filters", on_click=explore_controls.clear, key="clear_view")
            st.button("Undo pool edits", on_click=undo_edits, key="undo_edits", type="primary")
    st.stop()


def tables(scored: ScoredPool, scene: Scene) -> None:
    """A page of problems or candidates; a row opens its trajectory."""
    kind = choose("Table", "table", TABLES, clears=("sort", "desc", "page"))
    is_problems = kind == "problems"
    sort = address.read("sort", one_of(PROBLEM_SORTS if is_problems else CANDIDATE_SORTS, FIRST_COLUMN))
    descending, asked = address.read("desc", flag()), address.read("page", number(1, 1e9, 1, integer=True))
    config, energy = scene.config, energy_words(scene.config.energy)
    if is_problems:
        page = problem_page(
            scene.frame, scene.seen, budget=config.budget, sort=sort, descending=descending, number=asked
        )
        columns = explore_tables.problem_columns(energy, config.budget)
        cells = [explore_tables.problem_cells(row, scored.slots, energy) for row in page.rows]
    else:
        page = candidate_page(scene.frame, scene.seen, sort=sort, descending=descending, number=asked)
        known = {name: is_known(scored.candidates, name) for name in METRICS}
        columns = explore_tables.candidate_columns(known)
        cells = [explore_tables.candidate_cells(row, scored.slots, columns) for row in page.rows]
    first = PAGE_SIZE * (page.number - 1) + 1
    caption = f"{TABLES[kind]} {count(first)} to {count(first + len(cells) - 1)} of {count(page.num_rows)}"
    event = row_table(
        columns, cells, key=f"rows_{kind}", caption=caption, sort=sort, descending=descending,
        open_label="Open problem" if is_problems else "Open candidate",
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{caption} · a row opens its trajectory", width="content")
        if page.num_pages > 1:
            key = f"page.{page.number}.{page.num_pages}"
            st.pagination(page.num_pages, default=page.number, key=key, on_change=explore_controls.turn_to, args=(key,))
    if event is not None and event.kind == "open":
        row = page.rows[event.row]
        go("trajectory", problem=row.problem_id, candidate=explore_tables.candidate_of(row))
    elif event is not None:
        turned = event.column == sort and not descending
        starts_high = event.column != FIRST_COLUMN and event.column != sort
        address.put(
            sort=None if event.column == FIRST_COLUMN else event.column, desc="true" if turned or starts_high else None,
            page=None,
        )  # fmt: skip
        st.rerun()


st.title("Explore", anchor=False)
scored = current_scored()
if scored is None:
    nothing_scored()
    st.stop()

candidates = scored.candidates
st.caption(f"{explore_controls.sizes(scored)}: which teachers does the student learn from, and is the data sane?")
with st.container(border=True, key="explore_controls"):
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        metric = choose("Metric", "metric", {name: METRIC_WORDS[name].symbol for name in METRICS})
        scale = choose("Scale", "scale", SCALES, help="Within problem: (value − mean) / deviation in each problem")
        shape = choose("Shape", "shape", SHAPES)
        top = choose("Places", "top", TOPS)
    with st.container(horizontal=True, gap="medium", vertical_alignment="top"):
        with st.container(width="content"):
            config = pool_edit_controls(scored)
        quality = address.read("quality", QUALITY)
        asked = explore_controls.read_filter()
        explore_controls.filter_controls(scored, asked, quality)

try:
    checks = load_checks(scored, config, current_workspace())
except ConfigError as error:
    dead_end("This cannot be computed", str(error))
quality_panel(checks)
if checks.is_waiting:
    wait_for_texts(scored)

only = checks.found[quality] if quality and checks.found[quality].mask_NK is not None else None
known_metric = metric if is_known(candidates, metric) else "g_hat"
scene = load_scene(scored, config, asked, only, checks.version, known_metric, scale == "within")
if not scene.seen.shown_NK.any():
    dead_end("Nothing is left to show", "No candidate passes all pool edits and view filters at once.")

plane, third = (address.read(name, one_of(list(words), next(iter(words)))) for name, words in
                  (("plane", PLANES), ("third", THIRDS)))  # fmt: skip
act = partial(explore_controls.act_on, teachers=candidates.teachers, plane=plane, third=third)
first_card = explore_cards.by_teacher(scene, shape) if known_metric == metric else explore_cards.missing_metric(metric)
board([first_card, explore_cards.win_share(scene, int(top))], key="explore_top", on_event=act)
if scene.problem:
    st.caption(f"Nothing is drawn as selected: {scene.problem}")
with st.container(horizontal=True, gap="medium"):
    choose("Why it scores high", "plane", PLANES)
    choose("Third chart", "third", THIRDS)
board(
    [
        explore_cards.why_high(scene, plane, repr((asked, quality))),
        explore_cards.length_bias(scene),
        explore_cards.third(scene, third),
    ],
    key="explore_low", on_event=act,
)  # fmt: skip
tables(scored, scene)
