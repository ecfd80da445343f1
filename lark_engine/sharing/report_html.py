"""A report as one HTML file that loads nothing: styles, the charts' library and figures lie in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lark_engine import __version__
from lark_engine.config.report import Block
from lark_engine.figures import drawing
from lark_engine.figures.cards import Card
from lark_engine.figures.safe_text import block_html, visible
from lark_engine.sharing.document import Document

_HERE = Path(__file__).parent


class Page(NamedTuple):
    """The file's text, and how many bytes of it each section is."""

    text: str
    section_bytes: Mapping[Block, int]


def to_html(document: Document) -> Page:
    """The report as a page. Whatever its texts hold, they are shown as text."""
    parts: Any = _environment().get_template("report_parts.html").module
    rendered = [str(parts.section(section)) for section in document.sections]
    scripts = _scripts() if any(section.num_figures for section in document.sections) else ()
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts) or "'none'"
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    text = _environment().get_template("report.html").render(
        document=document, rendered=rendered, policy=policy, styles=drawing.styles() + _file("report.css"),
        scripts=scripts, version=__version__,
    )  # fmt: skip
    sizes = {section.block: len(html.encode()) for section, html in zip(document.sections, rendered, strict=True)}
    return Page(text, sizes)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "visible": visible, "block_html": block_html, "figure_json": _figure_json, "note": plain_note,
        "kind_of": lambda part: type(part).__name__,
    }  # fmt: skip
    return environment


def _figure_json(card: Card) -> str:
    """A figure for a script element: "</script" and "<!--" would end it, or open another."""
    return drawing.figure_text(card).replace("<", "\\u003c")


def plain_note(card: Card) -> str:
    """The note of a card without what a click or a drawn box does on a page: a report has nowhere to go."""
    parts = card.note.split(" · ")
    return " · ".join(part for part in parts if part != "a drawn box filters" and "click" not in part.split())


@cache
def _scripts() -> tuple[str, str]:
    """The charts' library and what draws with it; exactly these run, by their hashes in the policy."""
    library = drawing.LIBRARY.read_text(encoding="utf-8")
    own = f'"use strict";\n{drawing.script()}\n{_file("report.js")}'
    for script in (library, own):
        assert "</script" not in script.lower() and "<!--" not in script, "would end its element"
        assert "\r" not in script, "a browser reads another line end, and the hash is of the text as it reads it"
    return library, own


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
