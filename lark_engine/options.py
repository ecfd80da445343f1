"""Command-line options made from the config models: one source for command line, recipe and form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lark_engine.config import StageConfig
from lark_engine.config.fields import Field, Kind, fields_of


def with_options(
    config: type[StageConfig], *, leave_out: tuple[str, ...] = (), aliases: Mapping[str, tuple[str, ...]] | None = None,
    into: str = "values",
) -> Callable[[Callable[..., None]], Callable[..., None]]:  # fmt: skip
    """Give a command one option for each field of `config`; its parameter `into` gets those that were given.

    Options that were not given are absent from it, so that a recipe's value or the config's default holds.
    `aliases` adds flags to a field's own (the released code's names).
    Every other parameter of the command stays as it is, a `ctx: typer.Context` too, so that a command may have the
    options of several configs.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = {name: p for name, p in inspect.signature(command, eval_str=True).parameters.items() if name != into}
        fields = {name: f for name, f in fields_of(config).items() if name not in leave_out}
        parameters = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None,
                annotation=_annotation(field, (aliases or {}).get(name, ())),
            )
            for name, field in fields.items()
        ]  # fmt: skip

        def run(**given: Any) -> None:
            values = {name: given[name] for name in fields if given.get(name) not in (None, [])}
            command(**{into: values}, **{name: given[name] for name in own})

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()]
        run.__signature__ = inspect.Signature([*keyword_only, *parameters])  # type: ignore[attr-defined]
        return run

    return decorate


_TYPES: Mapping[Kind, Any] = {
    "text": str, "whole": int, "real": float, "flag": bool, "path": Path, "words": list[str],
}  # fmt: skip


def _annotation(field: Field, aliases: tuple[str, ...]) -> Any:
    """The typer annotation of a field: optional, with its help, default, choices and group."""
    dashed = field.name.replace("_", "-")
    flags = [f"--{dashed}/--no-{dashed}"] if field.kind == "flag" else [f"--{dashed}", *aliases]
    shown = "" if field.is_required or field.default in (None, (), "") else f" (default: {_shown(field.default)})"
    metavar = "|".join(field.choices) if field.choices else None
    return Annotated[
        _TYPES[field.kind] | None,
        typer.Option(
            *flags, help=field.help + shown, metavar=metavar, show_default=False, rich_help_panel=field.group or None
        ),
    ]


def _shown(default: Any) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
