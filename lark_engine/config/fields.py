"""The fields of a config model as command line and forms show them: kind, choices, bounds, help and group."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from lark_engine.config.base import StageConfig
from lark_engine.config.selection import Choices

Kind = Literal["text", "whole", "real", "flag", "path", "words"]
_KINDS: dict[type, Kind] = {str: "text", int: "whole", float: "real", bool: "flag", Path: "path"}
_BOUNDS: tuple[tuple[type, str, str], ...] = (
    (annotated_types.Gt, "gt", ">"), (annotated_types.Ge, "ge", "≥"), (annotated_types.Lt, "lt", "<"),
    (annotated_types.Le, "le", "≤"),
)  # fmt: skip


class Field(NamedTuple):
    """One field of a config. `choices`: the valid words, empty where any are. `bounds`: `≥ 0, < 1`; empty without.

    `kind` "words" is a tuple of words; `is_optional`: None is valid; `default` is None too where there is none.
    """

    name: str
    kind: Kind
    choices: tuple[str, ...]
    bounds: str
    help: str
    group: str
    default: Any
    is_required: bool
    is_optional: bool


def fields_of(config: type[StageConfig]) -> dict[str, Field]:
    """The fields of a config, by name, in the order of its groups."""
    group_of = {name: group for group, names in config.groups.items() for name in names}
    order = [*group_of, *(name for name in config.model_fields if name not in group_of)]
    return {name: _field(name, config.model_fields[name], group_of.get(name, "")) for name in order}


def _field(name: str, info: FieldInfo, group: str) -> Field:
    annotation = info.annotation
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    plain = next(part for part in parts if part is not type(None))
    choices = tuple(word for mark in info.metadata if isinstance(mark, Choices) for word in mark.names())
    kind: Kind
    if get_origin(plain) is Literal:
        kind, choices = "text", tuple(map(str, get_args(plain)))
    elif get_origin(plain) is tuple:
        inner = get_args(plain)[0]
        kind, choices = "words", tuple(map(str, get_args(inner))) if get_origin(inner) is Literal else ()
    else:
        assert isinstance(plain, type) and plain in _KINDS, plain
        kind = _KINDS[plain]
    return Field(
        name=name, kind=kind, choices=choices, bounds=_bounds(info), help=info.description or "", group=group,
        default=None if info.is_required() else info.get_default(), is_required=info.is_required(),
        is_optional=type(None) in parts,
    )  # fmt: skip


def _bounds(info: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(mark, attribute):g}"
        for kind, attribute, sign in _BOUNDS for mark in info.metadata if isinstance(mark, kind)
    ]  # fmt: skip
    return ", ".join(found)


def problems_with(check: Callable[[], object], names: Mapping[str, Any]) -> dict[str, str]:
    """What a check of a config refuses: a sentence by field; under "" what is about several of them.

    `check` builds the config and raises pydantic's `ValidationError`; `names`: the fields that there are. A sentence
    about several fields that names one of them is given under each that it names.
    """
    try:
        check()
    except ValidationError as error:
        found: dict[str, str] = {}
        for one in error.errors(include_url=False):
            message = str(one["msg"]).removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            place = str(one["loc"][0]) if one["loc"] else ""
            named = [name for name in names if f" {name} " in f" {message} ".replace(";", " ").replace(",", " ")]
            for name in [place] if place else named or [""]:
                found.setdefault(name, message)
        return found
    return {}
