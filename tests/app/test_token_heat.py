from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.token_heat import (
    HEAT,
    MINUS,
    NUM_BUCKETS,
    PLUS,
    Scale,
    heat_html,
    heat_of,
    legend_html,
    piece_name,
    scientific,
    style,
)

NLL = Scale(mode="nll", top=8.0, unit="nats")
SIGNED = Scale(mode="contribution", top=1.0, unit="1/nat")


def tokens(texts: list[str], **columns: Any) -> pd.DataFrame:
    size = len(texts)
    plain: dict[str, Any] = {
        "nll": [0.1] * size, "brier": [0.2] * size, "rank": [1.0] * size, "p_true": [0.9] * size,
        "top_text": [[] for _ in texts], "top_p": [[] for _ in texts],
    }  # fmt: skip
    return pd.DataFrame({"text": texts, **plain, **columns})


def test_buckets_are_finer_where_most_tokens_are() -> None:
    # A bucket b of nll begins at 8·(b/16)² nats.
    assert NLL.buckets(np.array([0.0, 0.03, 0.032, 0.5, 2.0, 7.99, 8.0, 99.0, np.nan])).tolist() == [
        0, 0, 1, 4, 8, 15, 15, 15, 0,
    ]  # fmt: skip
    assert [NLL.at(bucket) for bucket in (0, 1, 4, 8)] == [0.0, 0.03125, 0.5, 2.0]
    brier = Scale(mode="brier", top=2.0, unit="of 2")
    assert brier.buckets(np.array([0.0, 0.124, 0.125, 1.0, 2.0])).tolist() == [0, 0, 1, 8, 15]


def test_signed_values_go_both_ways_from_the_middle() -> None:
    values = np.array([-2.0, -1.0, -0.3, -0.001, 0.0, 0.001, 0.3, 1.0, 2.0])
    assert SIGNED.buckets(values).tolist() == [0, 0, 3, 7, 8, 8, 12, 15, 15]
    assert (SIGNED.at(7), SIGNED.at(8), SIGNED.at(12), SIGNED.at(4)) == (0.0, 0.0, 0.25, -0.140625)


def test_a_token_says_its_numbers_and_the_alternatives_on_hover() -> None:
    frame = tokens(
        [" 16"], nll=[1.5], brier=[0.55], rank=[3.0], p_true=[0.22], top_text=[[" 18", "\n"]], top_p=[[0.4, 0.02]]
    )
    markup = heat_html(frame, heat_of(frame, "nll", None))
    assert re.findall(r'<span class="(h\d+)" title="([^"]*)">([^<]*)</span>', markup) == [
        ("h6", "p 22 % · rank 3 · nll 1.5 · Brier 0.55\n“␣18” 40 %\n“↵” 2 %", " 16")
    ]


def test_hostile_tokens_stay_text_in_spans_and_in_titles() -> None:
    hostile = ['"><img src=x onerror=alert(1)>', "<script>", "\x00\u202e", "a\nb", "", "&lt;"]
    frame = tokens(hostile, top_text=[[piece] for piece in hostile], top_p=[[0.5]] * len(hostile))
    markup = heat_html(frame, heat_of(frame, "nll", None), label="<b>")
    assert set(re.findall(r"<(\w+)", markup)) == {"div", "span", "b", "i"}
    assert set(re.findall(r' ([a-z-]+)="', re.sub(r'="[^"]*"', '=""', markup))) == {
        "class", "dir", "role", "aria-label", "tabindex", "title",
    }  # fmt: skip
    assert markup.count("<span") == 5  # a token that shares its character with the one before has no text


def test_only_the_tokens_of_the_page_are_written() -> None:
    frame = tokens([f"t{n} " for n in range(100)])
    markup = heat_html(frame, heat_of(frame, "nll", None), 10, 13)
    assert re.findall(r">(t\d+) <", markup) == ["t10", "t11", "t12"]


def test_contributions_are_colored_against_a_token_of_brier_one() -> None:
    # ΣL = 2, R = 0.5, T = 2: (2·brier − nll·R) / 4.
    scores: Any = SimpleNamespace(ratio=0.5, sum_nll=2.0)
    frame = tokens(["a", "b"], nll=[4.0, 0.0], brier=[0.0, 1.0])
    heat = heat_of(frame, "contribution", scores)
    assert heat.values.tolist() == [-0.5, 0.5]
    assert heat.scale.top == 0.5
    markup = heat_html(frame, heat)
    assert 'class="h0" title="ĝ −5.0·10⁻¹\np 90 %' in markup and 'class="h15"' in markup


@pytest.mark.parametrize(("value", "text"), [(3.24e-5, "+3.2·10⁻⁵"), (-0.5, "−5.0·10⁻¹"), (0.0, "0"), (np.nan, "–")])
def test_small_numbers_are_written_with_a_power(value: float, text: str) -> None:
    assert scientific(value) == text


def test_white_space_of_a_token_has_a_name() -> None:
    assert piece_name(" a\n\t\x00") == "“␣a↵⇥␀”"


def test_the_legend_has_numbers() -> None:
    shown = re.sub(r"<[^>]+>", " ", legend_html(NLL, "54 tokens"))
    assert shown.split() == ["nll", "of", "a", "token,", "nats", "0", "0.5", "2", "4.5", "≥", "7", "54", "tokens"]
    assert "−1.0·10⁰" in legend_html(SIGNED) and "+1.0·10⁰" in legend_html(SIGNED)


def luminance(color: tuple[float, float, float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    a, b = (luminance(tuple(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5))) for c in (first, second))  # type: ignore[arg-type]
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


@pytest.mark.parametrize(("theme", "ink"), [("light", "#171B24"), ("dark", "#EDF0F5")])
def test_the_strongest_colors_can_be_read(theme: str, ink: str) -> None:
    assert min(contrast(ink, hue[theme]) for hue in (HEAT, PLUS, MINUS)) >= 4.5


def test_every_bucket_has_a_color_but_those_that_say_nothing() -> None:
    classes = re.findall(r"\.lark-heat\.(plain|signed) \.h(\d+) ", style())
    assert {int(b) for kind, b in classes if kind == "plain"} == set(range(1, NUM_BUCKETS))
    assert {int(b) for kind, b in classes if kind == "signed"} == set(range(NUM_BUCKETS)) - {7, 8}


def test_sixteen_thousand_tokens_are_written_at_once() -> None:
    words = [" the", "\n", "x", " 12", "日", "<b>"]
    size = 16_384
    frame = tokens(
        [words[n % 6] for n in range(size)], top_text=[words[:5]] * size, top_p=[[0.5, 0.2, 0.1, 0.05, 0.01]] * size
    )
    started = time.process_time()
    markup = heat_html(frame, heat_of(frame, "nll", None))
    assert time.process_time() - started < 2.0  # about 0.1 s alone
    assert len(markup) < 3_000_000
