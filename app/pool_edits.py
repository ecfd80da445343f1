"""Pool edits: the colored controls that change which candidates there are. ĝ and the selection are recomputed.

Filters of a view, which hide points and change no number, are the pages' own and are drawn in gray.
"""

from __future__ import annotations

import streamlit as st

from app import address
from app.address import bound, flag, many_of, number
from app.scored import ScoredPool
from lark_engine.config import SelectConfig
from lark_engine.figures import formats
from lark_engine.figures.safe_text import label_markdown

_LONGEST = 10_000_000


def pool_edit_controls(scored: ScoredPool) -> SelectConfig:
    """Draw the pool edits, bound to the address, and return the selection of the address with them."""
    config = address.read_config()
    candidates = scored.candidates
    has_labels = bool((candidates.flag_NK("is_correct") >= 0).any())
    has_lengths = "num_response_tokens" in candidates.table and candidates.table["num_response_tokens"].notna().all()
    edits = describe(config)
    name = f"Pool edits · {len(edits)}" if edits else "Pool edits"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="pool_edits", width="content"):
        with st.popover(name, icon=":material/content_cut:", help="Take candidates out; ĝ is computed anew"):
            st.caption("Edits take candidates out of the pool: ĝ, ranks and the selection are computed anew.")
            st.multiselect(
                "Leave out teachers", candidates.teachers, **bound("exclude_teachers", many_of(candidates.teachers))
            )
            st.toggle(
                "Only correct answers", disabled=not has_labels, **bound("correct_only", flag()),
                help=None if has_labels else "This pool has no correctness labels.",
            )  # fmt: skip
            st.toggle("Drop truncated", disabled=not has_lengths, **bound("drop_truncated", flag()))
            st.toggle("Drop repeated responses", **bound("deduplicate", flag()))
            left, right = st.columns(2)
            for column, label, param, low, default in (
                (left, "Least tokens", "min_response_tokens", 0, 0),
                (right, "Most tokens", "max_response_tokens", 1, None),
            ):
                codec = number(low, _LONGEST, default, integer=True)
                column.number_input(
                    label, min_value=low, max_value=_LONGEST, step=64, disabled=not has_lengths, **bound(param, codec)
                )
        _chips(edits)
    return config


def pool_edit_chips(config: SelectConfig) -> None:
    """Only the edits that are made, each with what undoes it; nothing where there is none."""
    if edits := describe(config):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="pool_edits"):
            st.caption("ĝ, ranks and weights under", width="content")
            _chips(edits)


def undo_edits() -> None:
    """Take all pool edits back, and rank by ĝ again."""
    address.put(**dict.fromkeys(SelectConfig().pool_edit))


def _chips(edits: list[tuple[str, dict[str, object]]]) -> None:
    for place, (text, params) in enumerate(edits):
        st.button(
            text, key=f"edit.{place}", icon=":material/close:", icon_position="right", type="primary",
            help="Undo this edit", on_click=address.put, kwargs=params,
        )  # fmt: skip


def describe(config: SelectConfig) -> list[tuple[str, dict[str, object]]]:
    """Each edit in words, with the parameters that undo it."""
    edits: list[tuple[str, dict[str, object]]] = []
    if config.teachers:
        names = label_markdown(config.teachers[0]) if len(config.teachers) == 1 else f"{len(config.teachers)} teachers"
        edits.append((f"only {names}", {"teachers": None}))
    for teacher in config.exclude_teachers:
        rest = [name for name in config.exclude_teachers if name != teacher]
        edits.append((f"without {label_markdown(teacher)}", {"exclude_teachers": rest or None}))
    if config.correct_only:
        edits.append(("only correct", {"correct_only": None}))
    if config.drop_truncated:
        edits.append(("not truncated", {"drop_truncated": None}))
    if config.deduplicate:
        edits.append(("no repeats", {"deduplicate": None}))
    if config.min_response_tokens:
        edits.append((f"≥ {formats.count(config.min_response_tokens)} tokens", {"min_response_tokens": None}))
    if config.max_response_tokens is not None:
        edits.append((f"≤ {formats.count(config.max_response_tokens)} tokens", {"max_response_tokens": None}))
    return edits
