"""The parts of the page Trajectory: which problem and candidate, the list, the score explained, the text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import SystemRandom

import streamlit as st

from app import address, token_heat, trajectory_blocks, widgets
from app.address import SELECT_PARAMS, bound, flag, one_of, page_link, read_config
from app.charts_trajectory import why_card
from app.components.board import PlotEvent, board
from app.components.candidate_list import Picked, candidate_list
from app.flag_menu import flag_menu
from app.pool_edits import pool_edit_chips, undo_edits
from app.scored import ScoredPool
from app.session import current_workspace
from app.token_heat import MODES
from app.trajectory import (
    ORDERS,
    Candidate,
    Problem,
    load_flags,
    load_order,
    load_problem,
    load_solution,
    search_problems,
)
from app.trajectory_text import show_heat, show_one, show_text, show_two
from lark_engine.config import SelectConfig
from lark_engine.errors import LarkError
from lark_engine.explore.explain import Order, without_each_teacher
from lark_engine.explore.flags import CandidateKey, Flag
from lark_engine.figures import formats
from lark_engine.figures.safe_text import label_markdown, one_line

_STYLES = Path(__file__).parent / "static" / "trajectory.css"
VIEWS = {"text": "Text", "nll": "nll", "brier": "Brier", "contribution": "Contribution"}
_OF_PROBLEM = ("candidate", "versus", "page", "page_b")
_PROMPT_PAGE = "prompt_page"  # of the first message; of the others with their number behind it
_random = SystemRandom()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the address says: a problem, one of its candidates, and another one to compare it with, if any."""

    scored: ScoredPool
    config: SelectConfig
    problem: Problem
    chosen: Candidate
    versus: Candidate | None
    order: list[str]
    place: int


def styles() -> None:
    """The style sheet of this page, and the colors of tokens."""
    st.html(_STYLES)
    st.html(token_heat.style())


def choose(scored: ScoredPool) -> Shown | None:
    """What the address names; None, with a card that says what there is, where it names what is not there."""
    config = read_config()
    by: Order = address.read("order", one_of(list(ORDERS), "pool"))
    order = load_order(scored, config, by)
    asked = st.query_params.get("problem")
    solved = load_solution(scored, config)
    if solved.problem:
        _unsolved(solved.problem)
    problem = load_problem(scored, config, solved.solution, order[0] if asked is None else asked, _flags(scored))
    if problem is None:
        _missing(f"There is no problem {one_line(asked or '', 60)!r} in this pool.", scored, order)
        return None
    wanted, other = st.query_params.get("candidate"), st.query_params.get("versus")
    chosen = problem.by_rank[0] if wanted is None else problem.find(wanted)
    if chosen is None:
        said = f"Problem {one_line(problem.id, 60)!r} has no candidate {one_line(wanted or '', 30)!r}."
        _missing(said, scored, order, problem)
        return None
    versus = problem.find(other)
    if other is not None and versus is None:
        st.html(widgets.problem("Nothing to compare with.", f"There is no candidate {one_line(other, 30)} here."))
    return Shown(
        scored=scored, config=config, problem=problem, chosen=chosen,
        versus=versus if versus is not None and versus.id != chosen.id else None, order=order,
        place=order.index(problem.id),
    )  # fmt: skip


def _unsolved(said: str) -> None:
    """Why the selection of the address gives no weight, and what takes it back."""
    edits = SelectConfig().pool_edit
    rule = [param for param in SELECT_PARAMS if param not in edits and param != "B"]
    with st.container(border=True, key="unsolved"):
        st.subheader("This selection chooses nothing", anchor=False)
        st.html(widgets.note(f"{said.rstrip('.')}. The texts are shown without ranks and weights."))
        with st.container(horizontal=True):
            if any(param in st.query_params for param in edits):
                st.button("Undo pool edits", on_click=undo_edits, key="undo_edits", type="primary")
            if any(param in st.query_params for param in rule):
                st.button("Back to the paper rule", on_click=_leave_out, args=(rule,), key="paper_rule", type="primary")


def _leave_out(params: list[str]) -> None:
    address.put(**dict.fromkeys(params))


def _flags(scored: ScoredPool) -> dict[CandidateKey, Flag]:
    """The flags; without them, with a card, where their file is damaged: they change no number."""
    try:
        return load_flags(scored.pool)
    except LarkError as error:
        st.html(widgets.problem("The flags cannot be shown.", str(error)))
        return {}


def _missing(said: str, scored: ScoredPool, order: list[str], problem: Problem | None = None) -> None:
    with st.container(border=True, key="empty_state"):
        st.subheader("Not in this pool", anchor=False)
        st.html(widgets.note(f"{said} The pool {scored.pool.id} has {len(order):,} problems; ids are case-sensitive."))
        if problem is not None:
            page_link("trajectory", "Its best candidate", icon=":material/article:", problem=problem.id)
        page_link("trajectory", "First problem", icon=":material/first_page:", problem=order[0])
        page_link("trajectory", "Random problem", icon=":material/casino:", problem=_random.choice(order))


def _open_problem(problem_id: str | None) -> None:
    """Open a problem, or the first of the order."""
    address.put(problem=problem_id, **dict.fromkeys((*_OF_PROBLEM, *_prompt_pages())))
    st.session_state["find"] = ""


def _prompt_pages() -> list[str]:
    """The parameters of the address that say a page of a message of the problem."""
    return [param for param in st.query_params if param.startswith(_PROMPT_PAGE)]


def _open_candidate(candidate_id: int) -> None:
    address.put(candidate=candidate_id, page=None)


def _compare(candidate_id: int | None) -> None:
    address.put(versus=candidate_id)


def navigation(shown: Shown) -> None:
    """From problem to problem: in an order, at random, by id or words; above it the pool edits that are made."""
    order, place = shown.order, shown.place
    pool_edit_chips(shown.config)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trajectory_nav"):
        before, after = order[max(place - 1, 0)], order[min(place + 1, len(order) - 1)]
        _step("Previous problem", "Shift+ArrowUp", "problem_before", place > 0, partial(_open_problem, before))
        _step("Next problem", "Shift+ArrowDown", "problem_after", place + 1 < len(order), partial(_open_problem, after))
        with st.popover(f"Problem {place + 1:,} of {len(order):,}", icon=":material/search:"):
            _finder(shown)
        st.button(
            "Random", icon=":material/casino:", on_click=_open_random, args=(order,), key="problem_random",
            help="Open a problem at random",
        )  # fmt: skip
        by: Order = address.read("order", one_of(list(ORDERS), "pool"))
        st.session_state["order"] = by
        st.selectbox(
            "Order of problems", list(ORDERS), format_func=lambda name: f"Problems {ORDERS[name]}", width=270,
            label_visibility="collapsed", key="order", on_change=_reorder,
        )  # fmt: skip


def _step(name: str, keys: str, key: str, enabled: bool, act: partial[None], help: str | None = None) -> None:
    st.button(name, shortcut=keys, key=key, disabled=not enabled, on_click=act, help=help)


def _open_random(order: list[str]) -> None:
    _open_problem(_random.choice(order))


def _reorder() -> None:
    """Another order begins with its first problem, which the run that follows finds."""
    by = st.session_state["order"]
    address.put(order=None if by == "pool" else by)
    _open_problem(None)


def _finder(shown: Shown) -> None:
    asked = st.text_input("Problem id, or words of its text", key="find", max_chars=200, width=420)
    if not asked:
        st.caption(f"This is problem {label_markdown(shown.problem.id, 60)}.")
        return
    found = search_problems(shown.scored, asked)
    if not found:
        st.caption("No problem has this id or these words.")
    for number, (problem_id, start) in enumerate(found):
        label = formats.plain_markdown(f"{one_line(problem_id, 30)} · {one_line(start, 60)}")
        st.button(label, key=f"found.{number}", type="tertiary", on_click=_open_problem, args=(problem_id,))


def candidates(shown: Shown) -> None:
    """All candidates of the problem, best first, to choose from and to compare with."""
    problem, config = shown.problem, shown.config
    zero, threshold = trajectory_blocks.axis_places(problem)
    kept = problem.find(st.query_params.get("versus"))
    candidate_list(
        trajectory_blocks.rows(problem), key="candidates", title="Candidates, best first",
        note=trajectory_blocks.list_note(problem, config), symbol_name=trajectory_blocks.energy_symbol(config),
        threshold=threshold, zero=zero, shown=shown.chosen.id, versus=kept.id if kept else None,
        on_pick=partial(_picked, shown),
    )  # fmt: skip


def _picked(shown: Shown, picked: Picked) -> None:
    if shown.problem.find(str(picked.shown)) is None:
        return
    if str(picked.shown) != st.query_params.get("candidate", str(shown.problem.by_rank[0].id)):
        _open_candidate(picked.shown)
    _compare(picked.versus)


def explanation(shown: Shown, chosen: Candidate, role: str = "") -> None:
    """Why this score: in numbers, without each other teacher, and (once) against the others of the problem."""
    problem, config = shown.problem, shown.config
    st.subheader(f"Why this score: {role}" if role else "Why this score", anchor=False)
    st.html(trajectory_blocks.explanation(chosen, problem, config))
    if problem.scores is None:
        return
    lines = list(without_each_teacher(problem.scores, config))
    if without := trajectory_blocks.without_teachers(chosen, lines, shown.scored.slots):
        st.html(without)
    if role == "B":
        return
    if card := why_card(problem, chosen, shown.versus, config.energy):
        board([card], key="why", on_event=partial(_clicked, shown))


def _clicked(shown: Shown, event: PlotEvent) -> None:
    said = event.customdata
    candidate = shown.problem.find(str(said[0])) if isinstance(said, list) and said else None
    if event.kind == "click" and candidate is not None:
        _open_candidate(candidate.id)


def problem(shown: Shown) -> None:
    """The question that all candidates answer."""
    with st.container(key="trajectory_problem"):
        st.subheader(f"Problem {label_markdown(shown.problem.id, 60)}", anchor=False)
        messages = [message for message in shown.problem.prompt if message["role"] != "system"]
        for number, message in enumerate(messages, 1):
            label, param = "problem", _PROMPT_PAGE
            if len(messages) > 1:
                label = f"message {number} of {len(messages)}"
                st.html(widgets.note(label.capitalize()))
            if number > 1:
                param += f"_{number}"
            show_text(message["content"], latex=_wants_latex(), param=param, label=label)
        st.html(trajectory_blocks.answer(shown.problem))


def _wants_latex() -> bool:
    return bool(address.read("latex", flag()))


def controls(shown: Shown) -> None:
    """How the text is shown, the way to the next candidate, the pin for comparison, and the flag."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trajectory_views"):
        st.segmented_control(
            "Show", list(VIEWS), format_func=lambda name: VIEWS[name], required=True, label_visibility="collapsed",
            **bound("heat", one_of(list(VIEWS), "text"), clears=("page", "page_b")),
        )  # fmt: skip
        st.toggle("Render LaTeX", **bound("latex", flag(), clears=("page", "page_b", *_prompt_pages())))
    ranked = shown.problem.by_rank
    at = next(i for i, c in enumerate(ranked) if c.id == shown.chosen.id)
    before, after = ranked[max(at - 1, 0)].id, ranked[min(at + 1, len(ranked) - 1)].id
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trajectory_controls"):
        _step("Previous", "ArrowLeft", "candidate_before", at > 0, partial(_open_candidate, before),
              "The candidate that ranks one higher")  # fmt: skip
        _step("Next", "ArrowRight", "candidate_after", at + 1 < len(ranked), partial(_open_candidate, after),
              "The candidate that ranks one lower")  # fmt: skip
        _pin(shown)
        flag_menu(shown.scored.pool, shown.problem, shown.chosen)


def _pin(shown: Shown) -> None:
    """Keeps a candidate as B, so that the next ones are compared with it."""
    pinned = st.query_params.get("versus") == str(shown.chosen.id)
    name, target = ("Stop comparing", None) if shown.versus or pinned else ("Compare", shown.chosen.id)
    st.button(
        name, icon=":material/keep_off:" if target is None else ":material/keep:", shortcut="P", key="pin",
        on_click=_compare, args=(target,),
        help="Keeps this candidate as B and shows the next one that you choose beside it as A",
    )  # fmt: skip


def texts(shown: Shown) -> None:
    """The response, or two beside each other."""
    view = str(address.read("heat", one_of(list(VIEWS), "text")))
    with st.container(key="trajectory_text"):
        if view != "text":
            pair = [shown.chosen, shown.versus] if shown.versus else [shown.chosen]
            mode = next(mode for mode in MODES if mode == view)
            show_heat(pair, shown.problem, shown.scored.scores, current_workspace(), mode)
        elif shown.versus:
            show_two(shown.chosen, shown.versus, latex=_wants_latex())
        else:
            pinned = st.query_params.get("versus") == str(shown.chosen.id)
            show_one(shown.chosen, latex=_wants_latex(), pinned=pinned)
