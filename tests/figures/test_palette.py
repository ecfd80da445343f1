"""Teachers' colors and markers: stable, distinct, and visible in both themes."""

from __future__ import annotations

import itertools

import pytest

from lark_engine.figures.markers import SHAPES, colors, marker
from lark_engine.figures.palette import DARK, LIGHT, SYMBOLS, color, slots, symbol, token


def luminance(hex_color: str) -> float:
    """WCAG 2's relative luminance."""
    channels = [int(hex_color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_black_and_white_is_known() -> None:
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21.0)


@pytest.mark.parametrize("hex_color", LIGHT)
def test_colors_of_the_light_theme_are_seen_on_white(hex_color: str) -> None:
    assert contrast(hex_color, "#FFFFFF") >= 2.3


@pytest.mark.parametrize("hex_color", DARK)
def test_colors_of_the_dark_theme_are_seen_on_its_background(hex_color: str) -> None:
    assert contrast(hex_color, "#0F1218") >= 3.0


def test_both_themes_have_eleven_distinct_colors() -> None:
    assert len(LIGHT) == len(DARK) == 11
    for theme in (LIGHT, DARK):
        assert len(set(theme)) == 11
        for a, b in itertools.combinations(theme, 2):
            apart = sum(abs(int(a[i : i + 2], 16) - int(b[i : i + 2], 16)) for i in (1, 3, 5))
            assert apart >= 60, (a, b)


def test_slots_are_places_among_the_sorted_names_whatever_their_order() -> None:
    assert slots(["b", "a", "C"]) == slots(["C", "a", "b"]) == {"C": 0, "a": 1, "b": 2}
    assert slots([]) == {}


def test_no_two_of_the_first_forty_teachers_look_alike() -> None:
    assert len({(color(slot), symbol(slot)) for slot in range(40)}) == 40
    # Neighbors differ in both, so that the first eleven are told apart without color too.
    assert len({symbol(slot) for slot in range(11)}) == len({color(slot) for slot in range(11)}) == 11


def test_a_slot_looks_the_same_each_time() -> None:
    assert [color(slot) for slot in (0, 10, 11, 13)] == ["@c0", "@c10", "@c0", "@c2"]
    assert [symbol(slot) for slot in (0, 1, 11, 12)] == ["circle", "square", "hourglass", "circle"]


@pytest.mark.parametrize(
    ("alpha", "expected"), [(1.0, "@ink"), (2.0, "@ink"), (0.35, "@ink.35"), (0.05, "@ink.05"), (0.0, "@ink.00")]
)
def test_opacity_is_written_in_two_digits(alpha: float, expected: str) -> None:
    assert token("ink", alpha) == expected


def test_markers_of_tables_have_a_shape_for_each_symbol_of_charts() -> None:
    assert set(SHAPES) == set(SYMBOLS)
    assert colors(12) == f"light-dark({LIGHT[1]}, {DARK[1]})"
    assert SHAPES["square"] in marker(1)
    assert 'aria-hidden="true"' in marker(1)
