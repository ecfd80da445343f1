"""The recipe's text beside the form: it follows the form, and the form follows it where it is used.

What is typed and not used yet is in the address: neither another control's change nor a reload takes it away.
"""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

from app import address, widgets
from app.boundary import reported
from app.config_form import ConfigForm, FormValues, form_params
from app.train_form import DRAFT, NAME, Chosen
from lark_engine.config.fields import Field
from lark_engine.errors import ConfigError
from lark_engine.figures import formats
from lark_engine.recipes.texts import read_recipe, recipe_text
from lark_engine.store.workspace import slug

_TEXT = "train_yaml.text"
_PLACE = "line"
_MOST = 20_000
_TYPED = address.long_text(_MOST)
# Decided by the controls above the form.
_CHOSEN_ABOVE = ("recipe", "student")


def yaml_of(form: ConfigForm, values: FormValues) -> str:
    """The form's values as a recipe's text: what the recipe gives, and what was changed, marked."""
    base = {name: value for name, value in form.base.items() if name not in _CHOSEN_ABOVE}
    changed = {name: _typed(value, form.fields[name]) for name, value in values.changed.items()}
    return recipe_text(base, changed)


def yaml_editor(chosen: Chosen, values: FormValues) -> None:
    """The text, to be changed and used, or taken along as a file."""
    shown = yaml_of(chosen.form, values)
    draft = address.read(DRAFT, _TYPED)
    if draft == shown:
        draft = None
        del st.query_params[DRAFT]
    st.session_state[_TEXT] = shown if draft is None else draft
    st.text_area(
        "The same as a recipe (YAML)", height=430, key=_TEXT, max_chars=_MOST, on_change=_keep, args=(shown,),
        help="What differs from the recipe is marked. A key that is taken out goes back to its default. As a file it "
        "works with `--recipe FILE`.",
    )  # fmt: skip
    if draft is not None and (problem := _problem(draft, chosen)):
        st.html(widgets.field_problem(problem))
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="train_yaml_actions"):
        st.button(
            "Use this YAML", icon=":material/keyboard_return:", key="train_yaml.use", on_click=_use, args=(chosen,),
            type="primary" if draft is not None else "secondary", help="Set the form to what the text says",
        )  # fmt: skip
        if draft is not None:
            st.button("Back to the form's", icon=":material/undo:", key="train_yaml.drop", on_click=drop_draft)
            st.caption("Typed, not used yet")
        else:
            st.download_button(
                "Download", shown, file_name=f"{slug(chosen.name or str(chosen.base['recipe']))}.yaml",
                mime="application/yaml", icon=":material/download:", key="train_yaml.download",
                disabled=values.config is None, on_click="ignore",
            )  # fmt: skip


def _keep(shown: str) -> None:
    typed = str(st.session_state[_TEXT])
    address.put(**{DRAFT: _TYPED.write(None if typed == shown else typed)})


def drop_draft() -> None:
    """Forget what was typed and is not used."""
    address.put(**{DRAFT: None})


@reported
def _use(chosen: Chosen) -> None:
    """Set the form to the text; one that cannot be used stays as it is, with its explanation."""
    typed = str(st.session_state[_TEXT])
    try:
        said = _read(typed, chosen)
    except ConfigError:
        address.put(**{DRAFT: _TYPED.write(typed)})
        return
    form = chosen.form
    name = said.pop("recipe", None)
    said.pop("method", None)
    # As a file it would not know what the recipe had: what it leaves out is the default.
    whole = {name: field.default for name, field in form.fields.items() if not field.is_required}
    params: dict[str, object] = {**form_params(form, {**whole, **said}), DRAFT: None}
    if name is not None:
        params[NAME] = None if name == chosen.base["recipe"] else str(name)
    address.put(**params)


def _problem(typed: str, chosen: Chosen) -> str:
    try:
        _read(typed, chosen)
    except ConfigError as error:
        return "Not used: " + re.sub(f"^{_PLACE}:([0-9]+): ", r"line \1: ", str(error))
    return ""


def _read(typed: str, chosen: Chosen) -> dict[str, Any]:
    """The values of the text. Errors: `ConfigError` with the line."""
    fixed = chosen.form.fixed
    said = read_recipe(typed, _PLACE, {"method": fixed["method"], "student": chosen.student or "student"})
    method = said.get("method", fixed["method"])
    if method != fixed["method"]:
        raise ConfigError(
            f"method is {method} and the recipe above trains {formats.method(fixed['method'])}; choose another recipe "
            "first"
        )
    if said.pop("student", chosen.student) != chosen.student:
        raise ConfigError("the student is chosen above; leave it out")
    offered = chosen.form.fields
    for name in said:
        if name not in offered and name not in fixed:
            raise ConfigError(f"'{name}' has no effect with method {method}; leave it out")
    return said


def _typed(value: Any, field: Field) -> Any:
    """A value as YAML should write it, also where the form holds it as it was typed because another one is wrong."""
    if isinstance(value, str) and field.kind in ("whole", "real"):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value
