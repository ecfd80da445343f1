"""The controls of Explore: what its parameters of the address mean, the gray view filters, and clicks on its charts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import address
from app.address import bound, many_of, number, one_of, words
from app.components.board import PlotEvent
from app.scored import ScoredPool
from lark_engine.explore.quality import NAMES as CHECKS
from lark_engine.explore.quality import Check
from lark_engine.explore.view import METRICS, NUM_DIFFICULTIES, Range, ViewFilter
from lark_engine.figures.formats import count, numeral, plain_markdown
from lark_engine.figures.metric_words import METRIC_WORDS
from lark_engine.figures.safe_text import label_markdown

METRIC = one_of(METRICS, "g_hat")
SCALES = {"pooled": "Pooled", "within": "Within problem"}
SHAPES = {"ridge": "Ridges", "box": "Boxes", "ecdf": "ECDF"}
TOPS = {"1": "Top 1", "3": "Top 3", "5": "Top 5"}
PLANES = {"brier": "L × Brier", "rho": "L × ρ"}
THIRDS = {"margin": "Margin", "difficulty": "Difficulty", "duels": "Head to head"}
TABLES = {"problems": "Problems", "candidates": "Candidates"}
# The prefix of the parameters of a range → what it bounds.
RANGES = {
    "g": "g_hat", "nll": "nll", "brier": "brier", "rho": "rho", "rsr": "rsr", "tokens": "num_response_tokens",
    "rank": "rank", "margin": "margin",
}  # fmt: skip
QUALITY = one_of(CHECKS, None)
CHECK_LABELS = {
    "truncated": "Truncated", "empty": "Empty", "duplicated": "Duplicated", "no_boxed_answer": "No boxed answer",
    "wrong_answer": "Wrong answer", "no_score": "No score", "too_few_candidates": "Too few candidates",
    "flagged": "Flagged",
}  # fmt: skip
DIFFICULTY_NAMES = {"1": "1 lowest", "2": "2", "3": "3", "4": "4", "5": "5 highest"}
DIFFICULTY = one_of(list(DIFFICULTY_NAMES), None)
_END = number(-1e12, 1e12, None)
_IN_MENU = ("g", "nll", "brier", "tokens", "margin")  # ranges with fields of their own


def read_filter() -> ViewFilter:
    """The view filters that the address describes."""
    ranges = []
    for prefix, metric in RANGES.items():
        low, high = address.read(f"{prefix}_min", _END), address.read(f"{prefix}_max", _END)
        if low is not None or high is not None:
            ranges.append(Range(metric, -math.inf if low is None else low, math.inf if high is None else high))
    duel = st.query_params.get_all("beats")
    difficulty = address.read("difficulty", DIFFICULTY)
    return ViewFilter(
        teachers=tuple(dict.fromkeys(st.query_params.get_all("teacher"))), ranges=tuple(ranges),
        difficulty=None if difficulty is None else int(difficulty),
        beats=(duel[0], duel[1]) if len(duel) == 2 else None, problem=address.read("find", words()),
    )  # fmt: skip


def filter_params() -> dict[str, None]:
    """All parameters of view filters, each to be taken out of the address."""
    ends = [f"{prefix}_{end}" for prefix in RANGES for end in ("min", "max")]
    return dict.fromkeys(["teacher", "quality", "difficulty", "beats", "find", "page", *ends])


def filter_controls(scored: ScoredPool, asked: ViewFilter, quality: str | None) -> None:
    """A menu of the filters, and a gray chip for each that is set, which takes it back."""
    chips = describe(asked, quality)
    name = f"View filters · {len(chips)}" if chips else "View filters"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="view_filters"):
        with st.popover(name, icon=":material/filter_alt:", help="Hide candidates; no number of a candidate changes"):
            st.caption("Filters hide candidates. ĝ, ranks and the selection stay as they are.")
            teachers = scored.candidates.teachers
            st.multiselect("Show teachers", teachers, **bound("teacher", many_of(teachers), clears=("page",)))
            st.text_input("Problem id contains", **bound("find", words(), clears=("page",)))
            st.segmented_control(
                "Difficulty: fifth of problems by mean L", DIFFICULTY_NAMES, format_func=DIFFICULTY_NAMES.get,
                **bound("difficulty", DIFFICULTY, clears=("page",)),
            )  # fmt: skip
            st.multiselect(
                "Problems in which the first of two teachers beats the second", teachers, max_selections=2,
                **bound("beats", many_of(teachers), clears=("page",)),
            )  # fmt: skip
            for prefix in _IN_MENU:
                symbol = METRIC_WORDS[RANGES[prefix]].symbol
                step = {"tokens": 50.0, "g": 0.005, "margin": 0.0005}.get(prefix, 0.05)
                for column, end, word in zip(st.columns(2), ("min", "max"), ("least", "most"), strict=True):
                    column.number_input(
                        f"{symbol}, {word}", step=step, format="%.0f" if prefix == "tokens" else "%.4g",
                        placeholder="any", **bound(f"{prefix}_{end}", _END, clears=("page",)),
                    )  # fmt: skip
        for text, params in chips:
            st.button(
                text, key=f"chip.{text}", icon=":material/close:", icon_position="right", help="Take this filter back",
                on_click=address.put, kwargs={**params, "page": None},
            )  # fmt: skip
        if len(chips) > 1:
            st.button("Clear filters", key="clear_filters", type="tertiary", on_click=clear)


def clear() -> None:
    """Take all view filters back."""
    address.put(**filter_params())


def turn_to(key: str) -> None:
    """Write the page of a table that a widget shows."""
    page = st.session_state[key]
    address.put(page=None if page == 1 else page)


def sizes(scored: ScoredPool) -> str:
    """`500 candidates of 100 problems by 5 teachers`."""
    numbers = (len(scored.candidates.table), len(scored.problem_ids), len(scored.candidates.teachers))
    texts = [f"{count(n)} {noun}{'' if n == 1 else 's'}" for n, noun in zip(
        numbers, ("candidate", "problem", "teacher"), strict=True
    )]  # fmt: skip
    return f"{texts[0]} of {texts[1]} by {texts[2]}"


def describe(asked: ViewFilter, quality: str | None) -> list[tuple[str, dict[str, object]]]:
    """Each filter in words (Markdown, escaped), with the parameters that take it back."""
    chips: list[tuple[str, dict[str, object]]] = []
    for teacher in asked.teachers:
        rest = [name for name in asked.teachers if name != teacher]
        chips.append((f"only {label_markdown(teacher)}", {"teacher": rest or None}))
    if quality is not None:
        chips.append((CHECK_LABELS[quality].lower(), {"quality": None}))
    prefixes = {metric: prefix for prefix, metric in RANGES.items()}
    for metric, low, high in asked.ranges:
        prefix = prefixes[metric]
        chips.append((_bounds(metric, low, high), {f"{prefix}_min": None, f"{prefix}_max": None}))
    if asked.difficulty is not None:
        chips.append((f"difficulty {asked.difficulty} of {NUM_DIFFICULTIES}", {"difficulty": None}))
    if asked.beats is not None:
        chips.append((" beats ".join(map(label_markdown, asked.beats)), {"beats": None}))
    if asked.problem:
        chips.append((f"problem has “{label_markdown(asked.problem)}”", {"find": None}))
    return chips


def meanings(checks: Mapping[str, Check]) -> str:
    """What each check looks for, as Markdown."""
    lines = [
        f"- {CHECK_LABELS[name]}: {plain_markdown(check.meaning)}"
        + (f" ({plain_markdown(check.unknown)})" if check.unknown else "")
        for name, check in checks.items()
    ]
    return "\n".join(lines)


def act_on(event: PlotEvent, teachers: tuple[str, ...], *, plane: str, third: str) -> None:
    """Turn a click or a box on a chart into filters of the view. `event` comes from the browser: it may be anything."""
    if event.card == "plane" and event.kind == "box":
        _put_ranges({"nll": event.x_range, plane: event.y_range})
        return
    said = event.customdata if isinstance(event.customdata, list) else []
    if event.kind != "click" or not said:
        return
    if event.card != "third":
        if said[0] in teachers:
            address.put(teacher=[said[0]], page=None)
    elif len(said) == 2 and third == "margin":
        if all(isinstance(end, int | float) and math.isfinite(end) for end in said):
            _put_ranges({"margin": (float(said[0]), float(said[1]))})
    elif len(said) == 2 and isinstance(said[0], int) and 0 <= said[0] < len(teachers):
        other = said[1]
        if third == "difficulty" and str(other) in DIFFICULTY_NAMES:
            address.put(teacher=[teachers[said[0]]], difficulty=other, page=None)
        elif third == "duels" and isinstance(other, int) and 0 <= other < len(teachers) and other != said[0]:
            address.put(beats=[teachers[said[0]], teachers[other]], page=None)


def _put_ranges(bounds: Mapping[str, tuple[float, float] | None]) -> None:
    params: dict[str, Any] = {"page": None}
    for prefix, ends in bounds.items():
        if ends is not None:
            params |= {f"{prefix}_min": f"{ends[0]:.6g}", f"{prefix}_max": f"{ends[1]:.6g}"}
    address.put(**params)


def _bounds(metric: str, low: float, high: float) -> str:
    """`ĝ ≥ 0.01`, `L 0.5 to 0.9`."""
    symbol = METRIC_WORDS[metric].symbol
    said = [count(end) if metric == "num_response_tokens" else numeral(end, ".4g") for end in (low, high)]
    if math.isinf(high):
        return f"{symbol} ≥ {said[0]}"
    if math.isinf(low):
        return f"{symbol} ≤ {said[1]}"
    return f"{symbol} {said[0]} to {said[1]}"
