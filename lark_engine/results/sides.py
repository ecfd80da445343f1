"""What can be compared, and by which names: a model, a checkpoint, an arm of a sweep, a row of the table, a grade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.results.graded import Graded

# What a name means, by the content of the problems asked; several grades of the same ones are the seeds of an arm.
Side = dict[str, list[Graded]]


class Choice(NamedTuple):
    """Something that can be compared with another: the name that says so, and the grades that it means."""

    name: str
    graded: tuple[Graded, ...]


def find_side(graded: Sequence[Graded], name: str) -> Side:
    """What a name means, by the problems asked; several grades of the same ones only as the seeds of an arm.

    Errors: `ConfigError` when the name is unknown, or has several grades of one benchmark.
    """
    meant = [one for one in graded if name in names_of(one)]
    if not meant:
        known = {known for one in graded for known in names_of(one)}
        near = did_you_mean(name, known) if known else "; the workspace holds no grades yet"
        raise ConfigError(f"nothing graded is called '{name}'{near}")
    side = _by_problems(meant)
    for same in side.values():
        if len(same) > 1 and not (":" in name and len({one.checkpoint_id for one in same}) == len(same)):
            places = ", ".join(one.place for one in same)
            raise ConfigError(f"'{name}' has {len(same)} grades of one benchmark: {places}; name one of these")
    return side


def choices(graded: Sequence[Graded]) -> list[Choice]:
    """All that can be compared, each by the simplest name that means just this, in the order of `graded`.

    A model or checkpoint where it was graded once on each benchmark; otherwise each row of the table, and where a row
    has several grades of one benchmark (with another answer type, say) each grade. Then the arms of sweeps that have
    several seeds.
    """
    found: list[Choice] = []
    models: dict[tuple[object, ...], list[Graded]] = {}
    for one in graded:
        models.setdefault((one.model.get("name"), one.model.get("content"), one.checkpoint_id), []).append(one)
    for (name, _, checkpoint), own in models.items():
        if (whole := _choice(graded, checkpoint or str(name), own)) is not None:
            found.append(whole)
            continue
        rows: dict[str, list[Graded]] = {}
        for one in own:
            rows.setdefault(one.row, []).append(one)
        for row, part in rows.items():
            chosen = _choice(graded, row, part)
            found += [Choice(one.place, (one,)) for one in part] if chosen is None else [chosen]
    arms: dict[str, list[Graded]] = {}
    for one in graded:
        if one.member is not None:
            arms.setdefault(f"{one.member.sweep}:{one.member.arm}", []).append(one)
    for name, part in arms.items():
        if len({one.checkpoint_id for one in part}) > 1 and (arm := _choice(graded, name, part)) is not None:
            found.append(arm)
    return found


def _choice(graded: Sequence[Graded], name: object, wanted: Sequence[Graded]) -> Choice | None:
    """A choice if the name means these grades and no others."""
    try:
        side = find_side(graded, str(name))
    except ConfigError:
        return None
    meant = [one for same in side.values() for one in same]
    return Choice(str(name), tuple(wanted)) if {id(one) for one in meant} == {id(one) for one in wanted} else None


def names_of(one: Graded) -> set[str]:
    """All names by which a user may mean a grade."""
    names = {one.grade.id, one.place, one.generations.id, one.row, str(one.model.get("name"))}
    if (checkpoint := one.checkpoint_id) is not None:
        name, _, content = checkpoint.rpartition("-")
        names |= {checkpoint, name, content}
    if one.member is not None:
        names |= {f"{sweep}:{one.member.arm}" for sweep in (one.member.sweep, one.member.sweep.rpartition("-")[0])}
    return names


def _by_problems(graded: Sequence[Graded]) -> Side:
    side: Side = {}
    for one in graded:
        side.setdefault(one.asked, []).append(one)
    return side
