"""The address is the view: every control that changes what is shown is read from the query string and written to it.

A control is `st.selectbox(..., **bound("metric", one_of(names, "g_hat")))`: before it is drawn it gets the value that
the address says (or the default, when the address says nothing valid), and a change writes the address, which makes an
entry of the browser's history. A parameter at its default is not in the address. Streamlit's own `bind=` is not used
beside it: it restores values of the session over those of a link that is followed.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlencode

import streamlit as st
from pydantic import TypeAdapter, ValidationError

from lark_engine.config import SelectConfig
from lark_engine.sharing.views import Page

Params = dict[str, str | list[str]]
PAGES_DIR = Path(__file__).resolve().parents[1] / "pages"
SCORES = "scores"
_CHANGED = "address.changed"
# The constraints and the rule keep the names that the command line gives them; B is the paper's symbol.
SELECT_PARAMS: dict[str, str] = {
    ("B" if name == "budget" else name): name
    for name in SelectConfig.model_fields
    if name not in ("keep_zero_weight", "uniform_if_no_energy")
}
_PARAM_OF = {name: param for param, name in SELECT_PARAMS.items()}
# Fields that contradict each other in some combinations, the most essential one first: the others give way to it.
_MAY_CONTRADICT = (
    "rule", "mode", "tau", "budget", "sharpness", "max_budget", "max_teacher_share", "seed",
)  # fmt: skip
PINS = ("pin_a", "pin_b", "against")


@dataclass(frozen=True)
class Codec:
    """How a control's value is read from the parameter's texts (None: not valid) and written; `[]` is the default."""

    read: Callable[[list[str]], Any]
    write: Callable[[Any], list[str]]
    default: Any


def one_of(options: Sequence[str], default: str | None) -> Codec:
    """One of some words."""
    return Codec(
        read=lambda said: said[-1] if said[-1] in options else None,
        write=lambda value: [] if value in (None, default) else [str(value)],
        default=default,
    )


def many_of(options: Sequence[str]) -> Codec:
    """Any number of some words, as a repeated parameter; none by default."""
    known = set(options)
    return Codec(
        read=lambda said: [word for word in dict.fromkeys(said) if word in known],
        write=lambda value: [str(word) for word in value or ()],
        default=[],
    )


def flag() -> Codec:
    """On or off; off by default."""
    return Codec(
        read=lambda said: _parsed(bool, said[-1]), write=lambda value: ["true"] if value else [], default=False
    )


_adapter = cache(TypeAdapter)


def _parsed(kind: type, text: str) -> Any:
    """A text as the fields of a config read it, so that a control and the selection never differ; None: not valid."""
    try:
        return _adapter(kind).validate_python(text)
    except ValidationError:
        return None


def number(low: float, high: float, default: float | None, *, integer: bool = False) -> Codec:
    """A finite number within bounds."""

    def read(said: list[str]) -> float | int | None:
        value = _parsed(int if integer else float, said[-1])
        return value if value is not None and low <= value <= high and math.isfinite(value) else None

    def write(value: float | int | None) -> list[str]:
        if value is None or value == default:
            return []
        return [str(int(value)) if integer else f"{value:.12g}"]

    return Codec(read=read, write=write, default=default)


def words(max_length: int = 300) -> Codec:
    """Free text, empty by default."""
    return Codec(read=lambda said: said[-1][:max_length], write=lambda value: [str(value)] if value else [], default="")


def long_text(max_length: int) -> Codec:
    """Text of several lines, compressed: a recipe takes half the letters that it has. None by default."""

    def read_packed(said: list[str]) -> str | None:
        packed = said[-1][: 2 * max_length].encode("ascii", "replace")
        try:
            text = zlib.decompressobj().decompress(base64.urlsafe_b64decode(packed + b"=="), 4 * max_length)
            return text.decode()[:max_length]
        except (ValueError, zlib.error):
            return None

    def write(value: str | None) -> list[str]:
        if value is None:
            return []
        packed = base64.urlsafe_b64encode(zlib.compress(value[:max_length].encode("utf-8", "replace"), 9))
        return [packed.decode().rstrip("=")]

    return Codec(read=read_packed, write=write, default=None)


def read(param: str, codec: Codec) -> Any:
    """The value of a parameter, its default where the address says nothing or nothing valid."""
    said = st.query_params.get_all(param)
    value = codec.read(said) if said else None
    return codec.default if value is None else value


def put(**values: object) -> None:
    """Write parameters: a text, several texts, or None to take one out. Nothing happens when nothing changes."""
    now = {param: st.query_params.get_all(param) for param in st.query_params}
    wanted = dict(now)
    for param, value in values.items():
        texts = [] if value is None else [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
        wanted[param] = texts
    wanted = {param: texts for param, texts in wanted.items() if texts}
    if wanted != now:
        st.session_state[_CHANGED] = True
        st.query_params.from_dict(wanted)  # all at once: each message to the browser is an entry of its history


def name_at_once(**values: object) -> None:
    """Name what the page chose by itself where the address says nothing, so that a link to it stays right.

    For defaults that follow the workspace: the newest of something is another one tomorrow. Nothing outside follows it.
    """
    missing = {param: value for param, value in _texts(values).items() if param not in st.query_params and value}
    if missing:
        st.query_params.from_dict({p: st.query_params.get_all(p) for p in st.query_params} | missing)


def bound(param: str, codec: Codec, *, clears: Sequence[str] = ()) -> dict[str, Any]:
    """`key` and `on_change` for a stock widget that shows and writes one parameter of the address.

    `clears`: parameters that make no sense any more once this one changes, such as a page number.
    """
    st.session_state[param] = read(param, codec)
    return {"key": param, "on_change": partial(_write, param, codec, tuple(clears))}


def _write(param: str, codec: Codec, clears: tuple[str, ...]) -> None:
    put(**{param: codec.write(st.session_state[param]) or None}, **dict.fromkeys(clears))


def take_changed() -> bool:
    """Whether the address changed since this was asked last: links outside of a fragment then need another run."""
    return bool(st.session_state.pop(_CHANGED, False))


def read_config() -> SelectConfig:
    """The selection that the address describes. What is not valid is left out, one field after another."""
    return config_of({param: st.query_params.get_all(param) for param in st.query_params})


def config_of(params: Mapping[str, str | Sequence[str]]) -> SelectConfig:
    """The selection that some parameters describe; a value that is not valid, alone or with the others, is ignored."""
    given: dict[str, Any] = {}
    for param, name in SELECT_PARAMS.items():
        if said := params.get(param):
            texts = [said] if isinstance(said, str) else list(said)
            given[name] = texts if name in ("teachers", "exclude_teachers") else texts[-1]
    try:
        return SelectConfig.model_validate(given)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"]}
    valid = {name: value for name, value in given.items() if not {name, _PARAM_OF[name]} & wrong}
    doubtful = [name for name in _MAY_CONTRADICT if name in valid]
    for stays in itertools.product((True, False), repeat=len(doubtful)):
        gone = {name for name, stay in zip(doubtful, stays, strict=True) if not stay}
        with contextlib.suppress(ValidationError):
            return SelectConfig.model_validate({name: value for name, value in valid.items() if name not in gone})
    raise AssertionError("fields that are valid alone and never contradict make a config")


def config_params(config: SelectConfig) -> Params:
    """A selection as parameters, only what differs from the default."""
    params: Params = {}
    for param, name in SELECT_PARAMS.items():
        value = getattr(config, name)
        if value == SelectConfig.model_fields[name].default or value is None:
            continue
        if isinstance(value, tuple):
            params[param] = [str(part) for part in value]
        else:
            # Numbers as they are: what was pinned is found again to the last digit.
            params[param] = "true" if value is True else str(value).removesuffix(".0")
    return params


def pack(config: SelectConfig) -> str:
    """A selection as one text, for a parameter that pins it: `B=8&mode=sharpness&sharpness=0.3`."""
    return urlencode(config_params(config), doseq=True) or "default"


def unpack(text: str) -> SelectConfig:
    """The selection of such a text."""
    params: dict[str, list[str]] = {}
    for name, value in parse_qsl(text):
        params.setdefault(name, []).append(value)
    return config_of(params)


def shared_params() -> Params:
    """What every page understands of the current address: the scores, the selection and its pins."""
    found: Params = {}
    for param in (SCORES, *SELECT_PARAMS, *PINS):
        if said := st.query_params.get_all(param):
            found[param] = said if len(said) > 1 else said[0]
    return found


def page_link(page: Page, label: str, *, icon: str | None = None, **params: object) -> None:
    """A link to another page that keeps scores and selection."""
    target = str(PAGES_DIR / f"{page}.py")
    st.page_link(target, label=label, icon=icon, query_params={**shared_params(), **_texts(params)})


def go(page: Page, **params: object) -> NoReturn:
    """Open another page, keeping scores and selection."""
    st.switch_page(str(PAGES_DIR / f"{page}.py"), query_params={**shared_params(), **_texts(params)})


def _texts(params: Mapping[str, object]) -> Params:
    return {
        name: [str(part) for part in value] if isinstance(value, list | tuple) else str(value)
        for name, value in params.items()
        if value is not None
    }
