"""What the views Compare and Problems show: the grades of the workspace, what can be compared, and a comparison.

All of it is read once for each state of the manifests and of the disputes: a dispute changes verdicts, and no manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from app.loaders import disputes_version, signature
from lark_engine.config import GradeConfig
from lark_engine.errors import ConfigError
from lark_engine.figures import formats
from lark_engine.results.answers import ChangedVerdict, changed_verdicts
from lark_engine.results.compare import Compared, compare_graded
from lark_engine.results.graded import Found, Graded, read_graded
from lark_engine.results.pairs import ProblemPair, SliceBy, Slices, slices
from lark_engine.results.sides import Choice, choices, find_side
from lark_engine.store.workspace import Workspace

_RULES = {"boxed": "boxed", "answer_phrase": "phrase", "letter": "letter", "last_number": "last number"}


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


def first_sides(sides: Sides) -> tuple[str, str]:
    """What is compared when the address says nothing: the newest that was trained, with an untrained student if one
    was asked the same, else with the next newest that was."""
    names = list(sides.choices)
    trained = [name for name in names if not _is_untrained(sides.choices[name])] or names
    for b in trained:
        others = sorted((n for n in names if n != b), key=lambda n: not _is_untrained(sides.choices[n]))
        for a in others:
            if share(sides.choices[a], sides.choices[b]):
                return a, b
    return names[0], names[-1]


def share(a: Choice, b: Choice) -> bool:
    """Whether two sides were asked the same problems."""
    return bool({one.asked for one in a.graded} & {one.asked for one in b.graded})


def _is_untrained(choice: Choice) -> bool:
    return made(choice.graded[0]) == "untrained"


def labels_of(found: Sequence[Choice]) -> dict[str, str]:
    """`lora-quick · LoRA · χ², B = 3`: names that people tell apart."""
    labels = {choice.name: _label(choice) for choice in found}
    same: dict[str, list[Choice]] = {}
    for choice in found:
        same.setdefault(labels[choice.name], []).append(choice)
    for label, alike in same.items():
        samplings = {choice.graded[0].sampling for choice in alike}
        for choice in alike if len(alike) > 1 else ():
            told = len(samplings) == len(alike)
            labels[choice.name] = f"{label} · {choice.graded[0].sampling if told else choice.name.rpartition('-')[2]}"
    return labels


def _label(choice: Choice) -> str:
    one = choice.graded[0]
    parts = [choice.name if ":" in choice.name else model_words(one)]
    parts += [made(one)] if made(one) else []
    if choice.name == one.place:
        parts.append(f"on {one.benchmark}")
    parts += [] if is_graded_as_usual(one) else [grading_words(one)]
    return " · ".join(parts)


def model_words(one: Graded) -> str:
    """The student, or the recipe of a checkpoint."""
    return one.checkpoint_id.rpartition("-")[0] if one.checkpoint_id else str(one.model.get("name"))


def made(one: Graded) -> str:
    """`LoRA · χ², B = 3`: how a model was made, as far as its lineage says."""
    if one.checkpoint_id is None and not one.model.get("is_adapter"):
        return "untrained"
    checkpoint, selection = one.sources.get("checkpoints"), one.sources.get("selections")
    parts = [formats.method(str(checkpoint.manifest.config.get("method", "")))] if checkpoint else []
    if selection is not None and (rule := selection.manifest.config.get("rule")):
        budget = selection.manifest.config.get("budget")
        parts.append(formats.rule(str(rule)) + (f", B = {budget}" if budget and rule != "all" else ""))
    return " · ".join(part for part in parts if part)


def is_graded_as_usual(one: Graded) -> bool:
    """Whether the grading is what one gets without asking for another."""
    return {**GradeConfig().identity(), **one.grade.manifest.config} == GradeConfig().identity()


def grading_words(one: Graded) -> str:
    """`boxed, phrase, letter`: the rules of extraction in their order, and what else of the grading was chosen."""
    config = one.grade.manifest.config
    rules = [_RULES.get(str(rule), str(rule)) for rule in config.get("rules") or [one.grade.name]]
    extra = [f"as {config['answer_type']}"] if config.get("answer_type") else []
    extra += ["math-verify"] if config.get("equality") not in (None, "strict") else []
    return "graded by " + ", ".join(rules) + "".join(f" ({word})" for word in extra)


def other_name(workspace: Workspace, name: str) -> str:
    """What a side is called that the address names otherwise than the page does; as it is said where it is unknown."""
    try:
        side = find_side(load_graded(workspace).graded, name)
    except ConfigError:
        return name
    meant = tuple(one for same in side.values() for one in same)
    return _label(Choice(name, meant))


def load_changed(workspace: Workspace, a: Graded, b: Graded) -> list[ChangedVerdict]:
    """The verdicts in which two gradings of the same answers differ."""
    return _changed(str(workspace.root), version_of(workspace), a.place, b.place, a, b)


@st.cache_resource(max_entries=6, show_spinner=False)
def _changed(root: str, version: object, place_a: str, place_b: str, _a: Graded, _b: Graded) -> list[ChangedVerdict]:
    return changed_verdicts(_a, _b)
