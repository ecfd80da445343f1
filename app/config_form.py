"""A form made from a config model: one widget for each field, bound to the address, with what is changed and wrong.

The address holds only what differs from the base values (a recipe's, or the config's own), under `prefix.field`, as it
was typed: also what is not valid, so that a link shows the same mistake with the same explanation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import streamlit as st

from app import address, widgets
from app.address import Codec, bound
from lark_engine.config import StageConfig
from lark_engine.config.fields import Field, fields_of, problems_with
from lark_engine.errors import ConfigError
from lark_engine.figures import formats

_COLUMNS = 3
# How an empty text is typed where nothing typed means None, as in a shell.
_EMPTY = "''"


@dataclass(frozen=True, kw_only=True)
class FormValues:
    """What a form says. `changed`: the fields that differ from the base, as plain values.

    `problems`: what is not valid, a sentence by field, under "" what is about several; `config` is None then.
    """

    base: dict[str, Any]
    changed: dict[str, Any]
    problems: dict[str, str]
    config: StageConfig | None


@dataclass(frozen=True, kw_only=True)
class ConfigForm:
    """The form of one config. `base`: values that stand in place of the config's defaults; `fixed`: those that the
    page decides by controls of its own (not in the form); `leave_out`: fields that the form does not offer.
    """

    config: type[StageConfig]
    prefix: str
    base: Mapping[str, Any]
    fixed: Mapping[str, Any]
    leave_out: Collection[str] = ()

    @property
    def fields(self) -> dict[str, Field]:
        """The fields that the form offers, in the order of their groups."""
        hidden = {*self.leave_out, *self.fixed}
        return {name: field for name, field in fields_of(self.config).items() if name not in hidden}

    def param(self, name: str) -> str:
        """The parameter of a field in the address."""
        return f"{self.prefix}.{name}"

    def values(self) -> FormValues:
        """What the address says now."""
        changed: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for name, field in self.fields.items():
            said = st.query_params.get_all(self.param(name))
            if not said:
                continue
            typed = self._codec(field).read(said)
            if typed is None or typed == self._shown(field) or _is_same_number(field, typed, self._shown(field)):
                continue
            if typed == _EMPTY and _may_be_empty(field):
                changed[name] = ""
                continue
            if field.kind not in ("flag", "words") and typed == "":
                if field.is_optional:
                    changed[name] = None
                    continue
                problems[name] = f"cannot be empty here: it is {self._shown(field)} unless you give another value"
                continue
            changed[name] = typed
        base = {**{n: v for n, v in self.base.items() if n in self.config.model_fields}, **self.fixed}
        # All but what is not given at all is checked, so that each mistake is found, and not one after the other.
        checked = {**base, **changed}
        problems = {**problems_with(lambda: self.config.model_validate(checked), self.config.model_fields), **problems}
        config = None if problems else self.config.model_validate(checked)
        if config is not None:
            changed = {name: getattr(config, name) for name in changed}
        return FormValues(base=base, changed=changed, problems=problems, config=config)

    def draw(self, values: FormValues, *, first: Sequence[str] = ()) -> None:
        """Draw the fields: those named in `first` in the open, the others by group, folded unless one is wrong."""
        if values.problems.get(""):
            st.html(widgets.problem("These values do not go together.", values.problems[""]))
        fields = self.fields
        self._grid([fields[name] for name in first if name in fields], values)
        groups = dict.fromkeys(field.group for field in fields.values())
        with st.container(gap="xsmall", key=f"{self.prefix}.groups"):
            for group in groups:
                self._group(group, [f for f in fields.values() if f.group == group and f.name not in first], values)

    def _group(self, group: str, fields: Sequence[Field], values: FormValues) -> None:
        if not fields:
            return
        changed = sum(field.name in values.changed for field in fields)
        wrong = any(field.name in values.problems for field in fields)
        with st.expander(f"{group} · {changed} changed" if changed else group, expanded=wrong):
            self._grid(fields, values)

    def reset(self) -> None:
        """Take every change back."""
        address.put(**{self.param(name): None for name in self.fields})

    def put(self, values: Mapping[str, Any]) -> None:
        """Write values into the address, and take all others back to the base. Errors: as `form_params`."""
        address.put(**form_params(self, values))

    def base_value(self, field: Field) -> Any:
        """What stands in the field where the address says nothing."""
        return self.base.get(field.name, field.default)

    def _shown(self, field: Field) -> Any:
        """The base value as its widget holds it."""
        value = self.base_value(field)
        if field.kind == "flag":
            return bool(value)
        if field.kind == "words":
            return list(map(str, value or ()))
        return "" if value is None else _text(value)

    def _codec(self, field: Field) -> Codec:
        base = self._shown(field)

        def write(value: Any) -> list[str]:
            if value == base or (value in (None, "") and base == ""):
                return []
            return [""] if value in (None, "") else _texts(value)

        if field.kind == "flag":
            return Codec(read=lambda said: {"true": True, "false": False}.get(said[-1]), write=write, default=base)
        if field.kind == "words":
            known = set(field.choices)
            return Codec(
                read=lambda said: [w for w in dict.fromkeys(said) if w and (not known or w in known)],
                write=lambda value: [] if list(value or ()) == base else list(map(str, value or ())) or [""],
                default=base,
            )  # fmt: skip
        if field.choices:
            known = {*field.choices, *([""] if field.is_optional else [])}
            return Codec(read=lambda said: said[-1] if said[-1] in known else None, write=write, default=base)
        return Codec(read=lambda said: said[-1][:2000], write=write, default=base)

    def _grid(self, fields: Sequence[Field], values: FormValues) -> None:
        for start in range(0, len(fields), _COLUMNS):
            for field, column in zip(
                fields[start : start + _COLUMNS], st.columns(_COLUMNS, gap="medium"), strict=False
            ):
                with column:
                    self._widget(field, values)

    def _widget(self, field: Field, values: FormValues) -> None:
        is_changed = field.name in values.changed and not field.is_required  # there is nothing to change it from
        label = label_of(field.name) + (" ●" if is_changed else "")
        text = f"{field.help}{f' ({field.bounds})' if field.bounds else ''} · `--{field.name.replace('_', '-')}`"
        bindings = bound(self.param(field.name), self._codec(field))
        if field.kind == "flag":
            st.toggle(label, help=text, **bindings)
        elif field.kind == "words":
            st.multiselect(
                label, list(field.choices) or st.session_state[self.param(field.name)], help=text,
                accept_new_options=not field.choices, placeholder="none", **bindings,
            )  # fmt: skip
        elif field.choices:
            options = ["", *field.choices] if field.is_optional else list(field.choices)
            st.selectbox(label, options, help=text, format_func=lambda word: word or "none", **bindings)
        else:
            st.text_input(label, help=text, placeholder="none" if field.is_optional else "", **bindings)
        if is_changed:
            st.caption(f"changed from {formats.plain_markdown(_words(self._shown(field)))}")
        if (problem := values.problems.get(field.name)) is not None:
            st.html(widgets.field_problem(problem))


def form_params(form: ConfigForm, values: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """The parameters of the address that make a form show these values; None for what stays at its base.

    Errors: `ConfigError` for a name that the form does not offer.
    """
    params: dict[str, list[str] | None] = {form.param(name): None for name in form.fields}
    for name, value in values.items():
        field = form.fields.get(name)
        if field is None:
            if name in form.fixed and _plain(value) == _plain(form.fixed[name]):
                continue
            where = "is decided elsewhere on this page" if name in form.fixed else "is not an option of this form"
            raise ConfigError(f"'{name}' {where}; leave it out")
        texts = _texts(value)
        if texts != _texts(form.base_value(field)):
            params[form.param(name)] = [_EMPTY] if value == "" and _may_be_empty(field) else texts or [""]
    return params


def label_of(name: str) -> str:
    """`global_batch` as `Global batch`; short names that are symbols stay as they are."""
    words = name.replace("_", " ")
    known = {"lr": "Learning rate", "dtype": "Precision (dtype)", "nproc per node": "Devices of a machine"}
    return known.get(words, words[:1].upper() + words[1:]).replace("Lora ", "LoRA ")


def _words(shown: Any) -> str:
    if isinstance(shown, bool):
        return "on" if shown else "off"
    if isinstance(shown, list):
        return ", ".join(shown) or "none"
    return shown or "none"


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [_text(part) for part in value]
    return [_text(value)]


def _text(value: Any) -> str:
    """A plain value as one types it: `true`, `1e-05`, `64`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


def _may_be_empty(field: Field) -> bool:
    """Whether an empty text is another value than None."""
    return field.kind == "text" and field.is_optional and not field.choices


def _is_same_number(field: Field, typed: Any, shown: Any) -> bool:
    """Whether a number is only written otherwise: `1e-5` and `1e-05`, `3.0` and `3`."""
    if field.kind not in ("whole", "real"):
        return False
    try:
        return Decimal(typed) == Decimal(shown)
    except InvalidOperation:
        return False


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if value is not None else None
