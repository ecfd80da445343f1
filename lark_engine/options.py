"""Command-line options made from the config models: one source for command line, recipe and form."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from lark_engine.config import Choices, StageConfig


def with_options(
    config: type[StageConfig], *, leave_out: tuple[str, ...] = (), aliases: Mapping[str, tuple[str, ...]] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field of `config`; its parameter `values` gets those that were given.

    Options that were not given are absent from `values`, so that a recipe's value or the config's default holds.
    `aliases` adds flags to a field's own (the released code's names).
    Every other parameter of the command stays as it is, a `ctx: typer.Context` too.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = {name: p for name, p in inspect.signature(command, eval_str=True).parameters.items() if name != "values"}
        fields = {name: f for name, f in config.model_fields.items() if name not in leave_out}
        parameters = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None,
                annotation=_annotation(name, field, (aliases or {}).get(name, ())),
            )
            for name, field in fields.items()
        ]  # fmt: skip

        def run(**given: Any) -> None:
            values = {name: given[name] for name in fields if given.get(name) not in (None, [])}
            command(values=values, **{name: given[name] for name in own})

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()]
        run.__signature__ = inspect.Signature([*keyword_only, *parameters])  # type: ignore[attr-defined]
        return run

    return decorate


def _annotation(name: str, field: Any, aliases: tuple[str, ...]) -> Any:
    """The typer annotation of a field: optional, with its help, default, choices and bounds in words."""
    kind, choices = _kind(field.annotation)
    choices += [name for mark in field.metadata if isinstance(mark, Choices) for name in mark.names()]
    dashed = name.replace("_", "-")
    flags = [f"--{dashed}/--no-{dashed}"] if kind is bool else [f"--{dashed}", *aliases]
    default = field.get_default()
    shown = "" if field.is_required() or default in (None, (), "") else f" (default: {_shown(default)})"
    text = (field.description or "") + shown
    metavar = "|".join(choices) if choices else None
    annotation = list[str] if kind is tuple else kind
    return Annotated[annotation | None, typer.Option(*flags, help=text, metavar=metavar, show_default=False)]


def _shown(default: Any) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _kind(annotation: Any) -> tuple[type, list[str]]:
    """The plain type behind an annotation, and the choices if it is a Literal."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is Literal:
        return str, [str(a) for a in get_args(annotation)]
    if get_origin(annotation) is tuple:
        return tuple, []
    assert annotation in (str, int, float, bool, Path), annotation
    return annotation, []
