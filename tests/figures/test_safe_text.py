"""Untrusted text as it is shown: nothing of it becomes markup, and nothing of it stays hidden."""

from __future__ import annotations

import html.parser
import re

import pytest

from benchmarks.pool_texts import HOSTILE_PROBLEM_IDS, HOSTILE_TEACHERS, HOSTILE_TEXTS, LONG_LINE
from lark_engine.figures.safe_text import block_html, cuts, label_markdown, mark, one_line, text_html, visible

HOSTILE = (*HOSTILE_TEXTS, *HOSTILE_TEACHERS, *HOSTILE_PROBLEM_IDS, LONG_LINE)


class Elements(html.parser.HTMLParser):
    """The elements of some HTML and its text, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, frozenset[str]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, frozenset(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def elements(markup: str) -> Elements:
    parser = Elements()
    parser.feed(markup)
    parser.close()
    return parser


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_makes_no_element_but_the_marks_of_hidden_characters(text: str) -> None:
    found = elements(text_html(text))
    assert set(found.found) <= {("b", frozenset({"class", "title"}))}
    shown = re.sub(r"\s", "", found.text)
    assert shown == re.sub(r"\s", "", visible(text))
    assert elements(block_html(text, text)).found[0] == (
        "div", frozenset({"class", "dir", "role", "aria-label", "tabindex"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a␀b"), ("\x1b[31m", "␛[31m"), ("\x7f", "␡"), ("\x85", "⟦U+0085⟧"), ("\u202eabc", "⟦RLO⟧abc"),
        ("\u2066x\u2069", "⟦LRI⟧x⟦PDI⟧"), ("a\u200bb\ufeff", "a⟦ZWSP⟧b⟦BOM⟧"), ("\ud83d", "⟦U+D83D⟧"),
        ("\U000e0041", "⟦U+E0041⟧"), ("a\r\nb\rc", "a\nb␍c"), ("tab\tend", "tab\tend"),
        ("\x00" * 1000, "␀×1,000 "), ("a" + "\n" * 3000 + "b", "a\n⟦3,000 line ends⟧\nb"), ("\n" * 20, "\n" * 20),
        ("👩‍👩‍👧 می‌خواهم", "👩‍👩‍👧 می‌خواهم"),
    ],
)  # fmt: skip
def test_hidden_characters_are_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_no_character_that_reorders_or_ends_a_line_is_left() -> None:
    for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), 0x2066, 0x2069):
        if code not in (0x09, 0x0A):
            assert chr(code) not in visible(f"a{chr(code)}b")
            assert mark(chr(code)) in visible(f"a{chr(code)}b")


def test_the_name_of_a_hidden_character_is_its_title() -> None:
    assert text_html("\u202e<") == (
        '<b class="lark-hidden" title="U+202E right-to-left override">⟦RLO⟧</b>&lt;'
    )  # fmt: skip


def test_a_flood_of_hidden_characters_stays_small() -> None:
    assert len(text_html("\x00\u202e" * 10_000)) < 200_000


def test_everything_that_is_shown_can_be_sent() -> None:
    for text in (*HOSTILE, "half a pair: \ud83d"):
        shown = text_html(text)
        assert shown.encode("utf-8", "replace").decode() == shown, "half a pair of surrogates cannot be sent"


def test_pages_cover_the_text_and_end_where_a_line_does() -> None:
    text = "\n".join(f"line {n} of many" for n in range(4000))
    pages = cuts(text, 5000)
    assert [a.stop for a in pages[:-1]] == [b.start for b in pages[1:]]
    assert (pages[0].start, pages[-1].stop) == (0, len(text))
    assert all(text[page.stop - 1] == "\n" and page.stop - page.start <= 5000 for page in pages[:-1])
    assert [len(cuts(text)) for text in ("", "short", LONG_LINE, "x" * 200_000)] == [1, 1, 10, 10]


def test_a_page_has_no_more_lines_than_can_be_scrolled() -> None:
    text = "x\n" * 5000
    pages = cuts(text)
    assert [page.stop - page.start for page in pages] == [1200] * 8 + [400]
    assert pages[-1].stop == len(text)


def test_a_label_is_one_short_line_without_markdown() -> None:
    assert label_markdown("a\n**b**\x00") == "a \\*\\*b\\*\\*␀"
    assert label_markdown("x" * 30) == "x" * 23 + "…"


def test_one_line_is_short_and_visible() -> None:
    assert one_line("a\n\n  b\x00", 80) == "a b␀"
    assert one_line("x" * 500, 20) == "x" * 19 + "…"
    assert one_line(" " * 5000 + "x", 20) == "…"
