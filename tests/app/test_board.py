"""The board of charts: numbers arrive as they were sent, untrusted text stays text, and events may be anything."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.components import board as module
from app.components.board import PlotEvent
from lark_engine.figures import drawing
from lark_engine.figures.cards import Card, Stat, label, packed
from lark_engine.figures.palette import DARK, LIGHT


def unpacked(typed: dict[str, str]) -> np.ndarray[Any, Any]:
    """What plotly.js makes of a typed array."""
    flat = np.frombuffer(base64.b64decode(typed["bdata"]), dtype="<f4")
    return flat.reshape([int(part) for part in typed["shape"].split(",")]) if "shape" in typed else flat


@pytest.mark.parametrize(
    "values",
    [[], [1], [1.5, -2.25, 1e30], [True, False], list(range(1000)), np.arange(6, dtype=">f8"), np.float64([0.5])],
    ids=str,
)
def test_packed_numbers_are_found_again(values: Any) -> None:
    typed = packed(values)
    assert typed["dtype"] == "f4"
    assert "shape" not in typed
    assert unpacked(typed).tolist() == [float(np.float32(value)) for value in values]


def test_a_packed_matrix_keeps_its_rows_and_columns() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    assert packed(matrix)["shape"] == "2, 3"
    assert unpacked(packed(matrix)).tolist() == [[0, 1, 2], [3, 4, 5]]
    # A transposed or sliced matrix is not in order in memory.
    assert unpacked(packed(matrix.T)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert unpacked(packed(matrix[:, ::-2])).tolist() == [[2, 0], [5, 3]]


def test_gaps_stay_gaps_and_numbers_take_four_bytes() -> None:
    found = unpacked(packed([1.0, math.nan, math.inf]))
    assert np.isnan(found[1])
    assert np.isinf(found[2])
    assert len(base64.b64decode(packed(np.zeros(30))["bdata"])) == 120


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("QwQ-32B", "QwQ-32B"),
        ("<b>bold</b>", "&lt;b&gt;bold&lt;/b&gt;"),
        ('<a href="x">y</a>', '&lt;a href="x"&gt;y&lt;/a&gt;'),
        ("a & b", "a &amp; b"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("two\nlines\t and  spaces ", "two lines and spaces"),
        ("x" * 24, "x" * 24),
        ("x" * 25, "x" * 23 + "…"),
        ("<" * 25, "&lt;" * 23 + "…"),  # cut before it is escaped: no half of an entity is left
        ("", ""),
        ("数学" * 20, "数学" * 11 + "数…"),
    ],
)
def test_labels_are_text_and_short(text: str, shown: str) -> None:
    assert label(text) == shown


def test_a_line_break_of_plotly_is_no_line_break() -> None:
    assert label("a<br>b") == "a&lt;br&gt;b"
    assert "<" not in label("<extra></extra>%{x}")


CLICK = {"card": "problem", "kind": "click", "x": "3", "y": 0.5, "customdata": ["p1", 7]}


def test_a_click_says_what_was_clicked() -> None:
    assert module._event(CLICK) == PlotEvent(card="problem", kind="click", x="3", y=0.5, customdata=["p1", 7])


def test_a_box_has_its_ranges_in_ascending_order() -> None:
    event = module._event({"card": "map", "kind": "box", "x_range": [2, -1.5], "y_range": [0, 1]})
    assert event == PlotEvent(card="map", kind="box", x_range=(-1.5, 2.0), y_range=(0.0, 1.0))


@pytest.mark.parametrize(
    "said",
    [
        None, "click", 3, [], {}, [CLICK], {**CLICK, "kind": "hover"}, {**CLICK, "kind": None}, {**CLICK, "kind": []},
        {**CLICK, "card": None}, {**CLICK, "card": 3}, {**CLICK, "card": ["problem"]}, {"kind": "click"},
        {"card": "problem"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_event_is_ignored(said: Any) -> None:
    assert module._event(said) is None


@pytest.mark.parametrize(
    "said",
    [
        None, "12", [1], [1, 2, 3], [1, "2"], [None, 2], {"0": 1, "1": 2}, [[1], [2]], [True, 2],
        [math.nan, 1.0], [1.0, math.inf], [10**400, 1], [-(10**400), 1],
    ],
    ids=lambda said: str(said)[:20],
)  # fmt: skip
def test_a_range_that_is_none_is_left_out(said: Any) -> None:
    event = module._event({"card": "map", "kind": "box", "x_range": said, "y_range": [0, 1]})
    assert event == PlotEvent(card="map", kind="box", x_range=None, y_range=(0.0, 1.0))


def test_unknown_fields_of_an_event_do_no_harm() -> None:
    assert module._event({**CLICK, "constructor": "x", "card_": 1}) == module._event(CLICK)


FIGURE = {"data": [{"type": "bar", "x": [1], "y": [2]}], "layout": {}}


def test_a_chart_without_words_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="the chart mix needs its text"):
        module._card(Card(key="mix", figure=FIGURE))


def test_what_is_sent_of_a_card() -> None:
    sent = module._card(Card(key="mix", title="Who?", figure=FIGURE, alt="Bars.", span=4, height=220))
    assert sent == {
        "key": "mix", "title": "Who?", "note": "", "span": 4, "stats": [], "alt": "Bars.", "height": 220,
        "figure": '{"data":[{"type":"bar","x":[1],"y":[2]}],"layout":{}}',
    }  # fmt: skip
    numbers = module._card(Card(key="sum", stats=(Stat("Problems", "24", "all"),), note="n"))
    assert numbers == {
        "key": "sum", "title": "", "note": "n", "span": 6,
        "stats": [{"label": "Problems", "value": "24", "detail": "all"}],
    }  # fmt: skip


def test_the_script_knows_the_palette_and_loads_nothing_from_elsewhere() -> None:
    script = drawing.script() + module._script("board.js")
    assert json.dumps(LIGHT) in script
    assert json.dumps(DARK) in script
    assert json.dumps(module.PLOTLY_ROUTE) in script
    assert re.findall("__[A-Z]+__", script) == []
    assert "http://" not in script.replace("http://www.w3.org", "")
    assert "https://" not in script
    assert module.PLOTLY_ROUTE.startswith("/lark/plotly-7.")
    assert len(LIGHT) == len(DARK) == 11


def page() -> None:
    from app.components.board import board
    from lark_engine.figures.cards import Card, Stat

    board([Card(key="sum", stats=(Stat("Problems", "24"),))], key="cards", on_event=lambda event: None)


def test_a_board_is_one_element_of_the_page() -> None:
    app = AppTest.from_function(page).run()
    assert not app.exception
