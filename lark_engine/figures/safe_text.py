"""Text that anyone may have written, made safe to show as it is.

Escaped for HTML, with everything that is invisible or that reorders the line shown as a small mark. No function here
passes on a tag, a link or an image of the text. `app.latex` renders formulas.
"""

from __future__ import annotations

import html
import itertools
import re
import unicodedata
from typing import NamedTuple

from lark_engine.figures.formats import plain_markdown

PAGE_CHARS = 20_000
PAGE_LINES = 600
_MANY = 4
_MOST_NAMED = 500

# Controls but for tab and line feed, what changes direction, what has no width, tags, and what is no character. The two
# joiners of scripts and emoji stay: they are part of words.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f\ud800-\udfff]"
)
_HIDDEN_RUN = re.compile(f"({HIDDEN.pattern})\\1*")
_BLANK = re.compile(r"\n{21,}")
_NAMES = {
    0xAD: "SHY", 0x061C: "ALM", 0x200B: "ZWSP", 0x200E: "LRM", 0x200F: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202A: "LRE",
    0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO", 0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI",
    0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip


class Cut(NamedTuple):
    """A piece of a text: its place in it, in characters."""

    start: int
    stop: int


def mark(char: str) -> str:
    """What stands for a character that cannot be seen: ␀, ␛, ⟦RLO⟧, ⟦U+0085⟧."""
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"⟦{_NAMES.get(code, f'U+{code:04X}')}⟧"


def visible(text: str) -> str:
    """The text with a mark in place of every hidden character; tabs and line ends stay, but for a flood of them."""
    text = _BLANK.sub(_blank, text.replace("\r\n", "\n"))
    return _HIDDEN_RUN.sub(lambda found: _run(found)[0], text) if HIDDEN.search(text) else text


def one_line(text: str, most: int = 80) -> str:
    """The text as one visible line of at most so many characters."""
    line = " ".join(visible(text[: 4 * most]).split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 1]}…"


def label_markdown(text: str, most: int = 24) -> str:
    """The text for a label of a widget, where Markdown is read: one visible line in which every sign is literal."""
    return plain_markdown(one_line(text, most))


def text_html(text: str) -> str:
    """The text as HTML text: escaped, hidden characters as marks with their names."""
    escaped = html.escape(_BLANK.sub(_blank, text.replace("\r\n", "\n")), quote=True)
    if not HIDDEN.search(escaped):
        return escaped
    number = itertools.count()
    return _HIDDEN_RUN.sub(lambda found: _mark_html(found) if next(number) < _MOST_NAMED else _run(found)[0], escaped)


def block_html(text: str, label: str = "") -> str:
    """The text as a block that keeps its line breaks, wraps anywhere, and lets no direction leak out."""
    named = f' role="region" aria-label="{html.escape(label, quote=True)}" tabindex="0"' if label else ""
    return f'<div class="lark-text" dir="auto"{named}>{text_html(text)}</div>'


def cuts(text: str, size: int = PAGE_CHARS) -> list[Cut]:
    """Where to cut a text into pages of at most `size` characters and `PAGE_LINES` lines.

    At a paragraph's or a line's end, if one is near.
    """
    found, start = [], 0
    while (stop := _page_end(text, start, size)) < len(text):
        found.append(Cut(start, stop))
        start = stop
    return [*found, Cut(start, len(text))]


def _page_end(text: str, start: int, size: int) -> int:
    stop = min(start + size, len(text))
    if text.count("\n", start, stop) > PAGE_LINES:
        place = start
        for _ in range(PAGE_LINES):
            place = text.index("\n", place) + 1
        return place
    if stop < len(text):
        for end in ("\n\n", "\n", " "):
            place = text.rfind(end, start + 3 * size // 4, stop)
            if place >= 0:
                return place + len(end)
    return stop


def _blank(found: re.Match[str]) -> str:
    return f"\n⟦{len(found[0]):,} line ends⟧\n"


def _run(found: re.Match[str]) -> tuple[str, int]:
    count = len(found[0])
    one = mark(found[1])
    return (one * count if count <= _MANY else f"{one}×{count:,} "), count


def _mark_html(found: re.Match[str]) -> str:
    shown, count = _run(found)
    code = ord(found[1])
    name = unicodedata.name(found[1], "control character").lower()
    times = f", {count:,} times" if count > _MANY else ""
    return f'<b class="lark-hidden" title="U+{code:04X} {name}{times}">{shown}</b>'
