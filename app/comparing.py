"""What the views Compare and Problems show: the grades of the workspace, what can be compared, and a comparison.

All of it is read once for each state of the manifests and of the disputes: a dispute changes verdicts, and no manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from app.loaders import disputes_version, signature
from lark_engine.errors import ConfigError
from lark_engine.figures.side_words import labels_of, side_label
from lark_engine.results.answers import ChangedVerdict, changed_verdicts
from lark_engine.results.compare import Compared, compare_graded
from lark_engine.results.graded import Found, Graded, read_graded
from lark_engine.results.pairs import ProblemPair, SliceBy, Slices, slices
from lark_engine.results.sides import Choice, choices, find_side
from lark_engine.store.workspace import Workspace


class Sides(NamedTuple):
    """All that can be compared, by the name that the address holds, each with what it is called on the page."""

    choices: dict[str, Choice]
    labels: dict[str, str]


def version_of(workspace: Workspace) -> tuple[object, object]:
    """A value that changes whenever a result or a verdict does."""
    return signature(workspace), disputes_version(workspace)


def load_graded(workspace: Workspace) -> Found:
    """Every grade, oldest first, and a sentence for each that cannot be read."""
    return _graded(str(workspace.root), signature(workspace))


@st.cache_resource(max_entries=3, show_spinner=False)
def _graded(root: str, version: object) -> Found:
    return read_graded(Workspace(root))


def load_sides(workspace: Workspace) -> Sides:
    """What can be compared, newest first."""
    return _sides(str(workspace.root), signature(workspace))


@st.cache_resource(max_entries=3, show_spinner=False)
def _sides(root: str, version: object) -> Sides:
    graded = load_graded(Workspace(root)).graded
    found = {choice.name: choice for choice in choices(graded[::-1])}
    return Sides(found, labels_of(list(found.values())))


def load_compared(workspace: Workspace, a: str, b: str, metric: str) -> Compared:
    """The comparison as of now. Errors: `LarkError` as `compare`, `StoreError` for a damaged grade."""
    return _compared(str(workspace.root), version_of(workspace), a, b, metric)


@st.cache_resource(max_entries=12, show_spinner="Comparing…")
def _compared(root: str, version: object, a: str, b: str, metric: str) -> Compared:
    return compare_graded(load_graded(Workspace(root)).graded, a, b, metric=metric)


def load_slices(workspace: Workspace, key: tuple[str, ...], pairs: Sequence[ProblemPair], by: SliceBy) -> Slices:
    """The difference within parts of the problems; `key` says of which comparison and benchmark they are."""
    return _slices(str(workspace.root), version_of(workspace), key, by, pairs)


@st.cache_resource(max_entries=24, show_spinner=False)
def _slices(root: str, version: object, key: tuple[str, ...], by: SliceBy, _pairs: Sequence[ProblemPair]) -> Slices:
    return slices(_pairs, by)


def other_name(workspace: Workspace, name: str) -> str:
    """What a side is called that the address names otherwise than the page does; as it is said where it is unknown."""
    try:
        side = find_side(load_graded(workspace).graded, name)
    except ConfigError:
        return name
    meant = tuple(one for same in side.values() for one in same)
    return side_label(Choice(name, meant))


def load_changed(workspace: Workspace, a: Graded, b: Graded) -> list[ChangedVerdict]:
    """The verdicts in which two gradings of the same answers differ."""
    return _changed(str(workspace.root), version_of(workspace), a.place, b.place, a, b)


@st.cache_resource(max_entries=6, show_spinner=False)
def _changed(root: str, version: object, place_a: str, place_b: str, _a: Graded, _b: Graded) -> list[ChangedVerdict]:
    return changed_verdicts(_a, _b)
