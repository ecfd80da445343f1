"""A response as text, as formulas, as heat over its tokens, or against another one: how the page shows it."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from app import address, trajectory_blocks, widgets
from app.address import number
from app.charts_trajectory import Window, strip_card
from app.components.board import PlotEvent, board
from app.latex import LATEX_PAGE_CHARS, latex_markdown
from app.token_heat import PAGE_TOKENS, Mode, heat_html, heat_of, legend_html, scientific
from app.token_job import compute_tokens
from app.trajectory import NO_RANK, Candidate, Problem, load_bins, load_tokens
from app.word_diff import Difference, word_diff
from lark_engine.figures import formats
from lark_engine.figures.safe_text import PAGE_CHARS, block_html, cuts
from lark_engine.sharing.bundle_format import WITHHELD
from lark_engine.sharing.withheld import is_withheld
from lark_engine.store.workspace import Artifact, Workspace

_MOST_PAGES = 100_000
_ROLES = (("A", "page"), ("B", "page_b"))  # of one or two candidates, each with its parameter


def show_text(text: str, *, latex: bool, param: str, label: str) -> None:
    """A page of a text, as it is or with its formulas rendered; the number of the page is the parameter `param`."""
    if not text:
        st.html(widgets.block('<span class="muted">Empty: there is no text.</span>'))
        return
    pages = cuts(text, LATEX_PAGE_CHARS if latex else PAGE_CHARS)
    start, stop = pages[_page(param, len(pages), f"{label}: {formats.count(len(text))} characters") - 1]
    if not latex:
        st.html(block_html(text[start:stop], label))
    else:
        rendered = latex_markdown(text[start:stop])
        st.markdown(rendered.markdown)
        if rendered.num_as_code:
            said = (
                f"{rendered.num_as_code} of {rendered.num_as_code + rendered.num_formulas} formulas are shown as code:"
            )
            st.html(widgets.note(f"{said} they use commands that are not rendered here, or are too long."))
    if len(pages) > 1:
        said = f"Characters {start + 1:,} to {stop:,} of {len(text):,}."
        st.html(widgets.block(f'<span class="muted">{said}</span>'))


def _page(param: str, num_pages: int, what: str) -> int:
    """Which page the address says, with the control that turns pages where there are several."""
    if num_pages == 1:
        return 1
    codec = number(1, _MOST_PAGES, 1, integer=True)
    page = min(int(address.read(param, codec)), num_pages)
    with st.container(horizontal=True, vertical_alignment="center", key=f"pages.{param}"):
        st.html(widgets.block(f'<span class="muted">{widgets.text(what)}, {num_pages} pages</span>'), width="content")
        if st.session_state.get(param, page) != page:
            st.session_state[param] = page
        st.pagination(num_pages, default=page, key=param, max_visible_pages=7, on_change=partial(_turn, param))
    return page


def _turn(param: str) -> None:
    page = int(st.session_state[param])
    address.put(**{param: None if page == 1 else page})


def show_one(c: Candidate, *, latex: bool, pinned: bool) -> None:
    """One response. `pinned`: it waits for another to be compared with."""
    st.html(trajectory_blocks.heading(c, "B, pinned: choose another to compare" if pinned else ""))
    if is_withheld(c.trajectory.response):  # of what stands for it, no more than the sentence
        st.html(widgets.note(WITHHELD))
        return
    show_text(c.trajectory.response, latex=latex, param="page", label=f"response of candidate {c.id}")


def show_two(chosen: Candidate, versus: Candidate, *, latex: bool) -> None:
    """Two responses beside each other: word by word, or with their formulas rendered."""
    if latex:
        _beside([chosen, versus], latex=True)
        return
    found = _diff(chosen.trajectory.response, versus.trajectory.response)
    st.html(trajectory_blocks.difference(found))
    sides = zip((chosen, versus), (found.first, found.second), _ROLES, st.columns(2, gap="medium"), strict=True)
    for c, side, (role, _), column in sides:
        with column:
            st.html(trajectory_blocks.heading(c, role))
            st.html(trajectory_blocks.compared(side, c))


def _beside(shown: list[Candidate], *, latex: bool) -> None:
    """One response, or two beside each other, each with its pages."""
    for column, c, (role, param) in zip(st.columns(len(shown), gap="medium"), shown, _ROLES, strict=False):
        with column:
            st.html(trajectory_blocks.heading(c, role if len(shown) > 1 else ""))
            show_text(c.trajectory.response, latex=latex, param=param, label=f"response of candidate {c.id}")


@st.cache_data(max_entries=32, show_spinner=False)
def _diff(first: str, second: str) -> Difference:
    return word_diff(first, second)


def show_heat(
    shown: list[Candidate], problem: Problem, scores: Artifact, workspace: Workspace, mode: Mode
) -> None:  # fmt: skip
    """Tokens on a colored ground below the strip of the whole response; where they are not there, how to get them."""
    if "student" not in scores.manifest.identity:
        said = (
            "These scores were imported, and hold nothing of single tokens: score the pool with lark score to see them."
        )
        st.html(widgets.note(said))
        _beside(shown, latex=False)
        return
    tokens = [None if c.table_row is None else load_tokens(scores, c.table_row) for c in shown]
    if any(c.table_row is not None and t is None for c, t in zip(shown, tokens, strict=True)):
        compute_tokens(workspace, scores, problem.id)
    columns = st.columns(len(shown), gap="medium")
    for column, c, found, (role, param) in zip(columns, shown, tokens, _ROLES, strict=False):
        with column:
            _heat(c, found, problem, scores, mode, role if len(shown) > 1 else "", param)


def _heat(
    c: Candidate, tokens: pd.DataFrame | None, problem: Problem, scores: Artifact, mode: Mode, role: str, param: str
) -> None:  # fmt: skip
    st.html(trajectory_blocks.heading(c, role))
    if c.table_row is None or c.scored is None or problem.scores is None:
        said = "This candidate was not scored: the student has not read it, and there are no tokens."
        st.html(widgets.note("Nothing is colored: the selection chooses nothing." if c.why_not == NO_RANK else said))
        show_text(c.trajectory.response, latex=False, param=param, label=f"response of candidate {c.id}")
        return
    if mode == "contribution" and not problem.scores.in_sums[c.scored]:
        st.html(widgets.note(f"It adds nothing to ĝ ({c.why_not}): only what passes the pool edits has a part in ΣL."))
        show_text(c.trajectory.response, latex=False, param=param, label=f"response of candidate {c.id}")
        return
    num_pages = 1 if tokens is None else max(-(-len(tokens) // PAGE_TOKENS), 1)
    codec = number(1, _MOST_PAGES, 1, integer=True)
    page = min(int(address.read(param, codec)), num_pages)
    window = Window((page - 1) * PAGE_TOKENS, page * PAGE_TOKENS) if num_pages > 1 else None
    card = strip_card(
        "strip" + role.lower(), load_bins(scores, c.table_row), c.num_tokens, mode, problem.scores, window,
        f"Candidate {c.id}",
    )  # fmt: skip
    board([card], key=f"strip{role}", on_event=partial(_turn_to, param))
    if tokens is None:
        show_text(c.trajectory.response, latex=False, param=param, label=f"response of candidate {c.id}")
        return
    heat = heat_of(tokens, mode, problem.scores)
    note = f"{formats.count(len(tokens))} tokens"
    if mode == "contribution":
        note += f", sum {scientific(float(heat.values.sum()))} = ĝ"
    st.html(legend_html(heat.scale, note))
    start, stop = (window.start, min(window.stop, len(tokens))) if window else (0, len(tokens))
    _page(param, num_pages, f"tokens {start + 1:,} to {stop:,} of {len(tokens):,}")
    st.html(heat_html(tokens, heat, start, stop, f"tokens of candidate {c.id}"))


def _turn_to(param: str, event: PlotEvent) -> None:
    """Show the tokens of the bin that was clicked."""
    said = event.customdata
    if event.kind == "click" and isinstance(said, list) and said and isinstance(said[0], int):
        page = 1 + said[0] // PAGE_TOKENS
        address.put(**{param: None if page == 1 else page})
