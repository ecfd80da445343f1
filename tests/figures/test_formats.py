from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.overview import FIRST_STEPS, next_step, stage_cards
from app.results import metrics_of
from lark_engine.figures import formats

NAN = float("nan")
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_read_as_people_say_them(seconds: float, expected: str) -> None:
    assert formats.duration(seconds) == expected


@pytest.mark.parametrize(
    ("created_at", "expected"),
    [
        ("2026-03-02T11:59:30+00:00", "just now"),
        ("2026-03-02T11:55:00.000+00:00", "5 min ago"),
        ("2026-03-02T09:00:00+00:00", "3 h ago"),
        ("2026-03-01T11:00:00+00:00", "1 day ago"),
        ("2026-01-01T00:00:00", "2026-01-01"),
        ("yesterday", ""),
    ],
)
def test_ages_count_up_to_days_and_then_give_the_date(created_at: str, expected: str) -> None:
    assert formats.age(created_at, NOW) == expected


def test_unknown_numbers_are_a_dash_not_a_zero() -> None:
    assert formats.percent(None) == "–"
    assert formats.percent(float("nan")) == "–"
    assert formats.percent(0.0) == "0.0%"
    assert formats.interval(None, None) == ""


def test_sizes_and_progress_carry_their_units() -> None:
    assert formats.size(74_000_000_000) == "74.0 GB"
    assert formats.size(512) == "512 B"
    assert formats.progress(10, 27, "step") == "10 of 27 steps"
    assert formats.progress(1_500_000, 3_000_000, "B") == "1.5 MB of 3.0 MB"


def test_metrics_come_in_the_order_of_use() -> None:
    import pandas as pd

    table = pd.DataFrame({"metric": ["maj@16", "pass@16", "pass@2", "avg@16", "pass@2"]})
    assert metrics_of(table) == ["avg@16", "pass@2", "pass@16", "maj@16"]


def test_each_missing_stage_has_its_command(workspace) -> None:
    from fake_workspace import add

    from app.loaders import load_snapshot

    steps = [next_step(load_snapshot(workspace), []).command]
    pool = add(workspace, "pools", "p", "111111111111")
    steps.append(next_step(load_snapshot(workspace), []).command)
    scores = add(workspace, "scores", "p@s", "222222222222", inputs={"pool": pool.ref})
    steps.append(next_step(load_snapshot(workspace), []).command)
    selection = add(workspace, "selections", "chi2", "333333333333", inputs={"scores": scores.ref})
    steps.append(next_step(load_snapshot(workspace), []).command)
    add(workspace, "checkpoints", "lora", "444444444444", inputs={"selection": selection.ref})
    steps.append(next_step(load_snapshot(workspace), []).command)
    assert steps[0] == FIRST_STEPS[0].command
    assert [step.split()[1] for step in steps[1:]] == ["score", "select", "train", "generate"]
    cards = stage_cards(load_snapshot(workspace), [], NOW)
    assert [card.state for card in cards] == ["ready", "ready", "ready", "ready", "none"]


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(6.678, 2, "6.68"), (1234.5, 1, "1,234.5"), (-0.25, 2, "−0.25"), (0.0, 3, "0.000"), (None, 2, "–"), (NAN, 2, "–")],
)
def test_decimals_have_the_digits_asked_for(value: float | None, digits: int, expected: str) -> None:
    assert formats.decimal(value, digits) == expected


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (1.925, 3, "+1.925"),
        (-1.5, 1, "−1.5"),
        (-1234.5, 1, "−1,234.5"),
        (0.0, 1, "+0.0"),
        (None, 1, "–"),
        (NAN, 1, "–"),
        (float("-inf"), 1, "–"),
    ],
)
def test_signed_numbers_have_a_true_minus(value: float | None, digits: int, expected: str) -> None:
    assert formats.signed(value, digits) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"), (7, "7"), (950, "950"), (999.4, "999"), (999.5, "1 k"), (1000, "1 k"), (1234, "1.23 k"),
        (12_345, "12.3 k"), (165_000, "165 k"), (999_499, "999 k"), (999_500, "1 M"), (22_100_000, "22.1 M"),
        (999_499_999, "999 M"), (1_050_000_000, "1.05 B"), (66e9, "66 B"), (1.5e12, "1,500 B"), (-1234, "-1.23 k"),
    ],
)  # fmt: skip
def test_compact_numbers_have_three_digits(value: float, expected: str) -> None:
    assert formats.compact(value) == expected


def test_compact_differences_have_their_sign() -> None:
    values = (1_200_000, -310, 0, -12_345)
    assert [formats.signed_compact(value) for value in values] == ["+1.2 M", "−310", "+0", "−12.3 k"]


MARKDOWN = [
    "**bold** _it_ `code` ~~no~~", "![image](https://evil.example/x.png)", "[link](javascript:alert(1))",
    "<https://evil.example>", "https://evil.example/a?b=c", "www.evil.example", "WWW.evil.example", "wwww.evil.example",
    "me@evil.example", ":material/delete:", ":red[text]", ":smile:", "$x^2$ and $$y$$", "# title", "- item", "+ item",
    "1. one", "1) one", "> quote", "| a | b |", "---", "===", "    code", "a\nb", "```", "&lt;b&gt; &amp;", "<b>x</b>",
    "\\* \\", "[^1]", "a  \nb", "<!-- x -->", "Qwen3-235B-A22B (thinking)", "",
]  # fmt: skip


def read_as_markdown(text: str) -> tuple[str, set[str]]:
    """What a reader sees of a Markdown text, and the kinds of its parts."""
    inline: list[str] = []
    kinds: set[str] = set()
    for block in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        kinds.add(block.type)
        for part in block.children or ():
            kinds.add(part.type)
            inline.append(part.content)
    return "".join(inline).replace("\u2060", ""), kinds


@pytest.mark.parametrize("text", MARKDOWN)
def test_untrusted_text_stands_for_itself_where_markdown_is_read(text: str) -> None:
    seen, kinds = read_as_markdown(formats.plain_markdown(text))
    assert seen == " ".join(text.split())
    assert kinds <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@given(text=st.text())
def test_any_text_stands_for_itself_where_markdown_is_read(text: str) -> None:
    seen, kinds = read_as_markdown(formats.plain_markdown(text))
    # A null byte is a replacement character in Markdown.
    assert seen == " ".join(text.replace("\u2060", "").replace("\0", "\ufffd").split())
    assert kinds <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@pytest.mark.parametrize(
    "text", ["www.evil.example", "WwW.evil.example", "wwww.evil.example", "http://evil.example", "a@evil.example"]
)
def test_what_becomes_a_link_by_itself_is_broken_up(text: str) -> None:
    """GitHub's Markdown makes links of plain text, after it has read the escapes (mdast-util-gfm-autolink-literal)."""
    plain = formats.plain_markdown(text).replace("\\", "")
    assert not re.search(r"(https?://|www(?=\.))", plain, re.IGNORECASE)
    assert not re.search(r"[-.\w+]@", plain)


def test_icons_are_broken_up_in_every_reading() -> None:
    assert formats.plain_markdown(":material/x:") == "\\:\u2060material\\/x\\:\u2060"
