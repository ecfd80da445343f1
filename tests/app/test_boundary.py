"""Where an unforeseen error stops: the reader gets an id, the log gets the rest."""

from __future__ import annotations

import logging
import re

import pytest
from streamlit.testing.v1 import AppTest


def shown(app: AppTest) -> str:
    """All HTML of the page."""
    return "\n".join(element.proto.body for element in app.get("html"))


def fails() -> None:
    import streamlit as st

    from app.boundary import guarded

    @guarded
    def part() -> None:
        raise ZeroDivisionError("secret <b>path</b> /home/someone")

    part()
    st.text("the rest")


def test_an_exception_becomes_a_card_with_the_id_of_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="app.boundary"):
        app = AppTest.from_function(fails).run()
    assert not app.exception
    assert app.text[0].value == "the rest"
    card = shown(app)
    assert "This part of the page failed." in card
    assert "ZeroDivisionError" in card
    assert "secret" not in card  # what it says may hold paths and data; the log has it
    found = re.search(r"Error ([0-9a-f]{6}):", card)
    assert found is not None
    (record,) = [record for record in caplog.records if record.name == "app.boundary"]
    assert record.getMessage() == f"error {found[1]} on the page"
    assert record.exc_info is not None
    assert record.exc_text is None or "ZeroDivisionError" in record.exc_text
    assert "secret <b>path</b>" in caplog.text
    assert "Traceback" in caplog.text


def test_each_error_has_an_id_of_its_own() -> None:
    cards = [shown(AppTest.from_function(fails).run()) for _ in range(2)]
    assert cards[0] != cards[1]


def says_what_to_do() -> None:
    import streamlit as st

    from app.boundary import guarded
    from lark_engine.errors import ConfigError

    @guarded
    def part() -> None:
        raise ConfigError("no teacher '<img src=x>' in this pool; it has a, b")

    part()
    st.text("the rest")


def test_an_error_for_users_becomes_its_sentence_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="app.boundary"):
        app = AppTest.from_function(says_what_to_do).run()
    assert not app.exception
    card = shown(app)
    assert "This cannot be shown." in card
    assert "&lt;img src=x&gt;" in card
    assert "<img" not in card
    assert "it has a, b" in card
    assert app.text[0].value == "the rest"
    assert [record for record in caplog.records if record.name == "app.boundary"] == []


def reruns() -> None:
    import streamlit as st

    from app.boundary import guarded

    @guarded
    def part() -> None:
        st.session_state["runs"] = st.session_state.get("runs", 0) + 1
        if st.session_state["runs"] < 3:
            st.rerun()
        st.text(f"run {st.session_state['runs']}")

    part()


def stops() -> None:
    import streamlit as st

    from app.boundary import guarded

    @guarded
    def part() -> None:
        st.text("before")
        st.stop()

    part()
    st.text("after")


def test_a_rerun_passes_through() -> None:
    app = AppTest.from_function(reruns).run()
    assert not app.exception
    assert [text.value for text in app.text] == ["run 3"]
    assert shown(app) == ""


def test_a_stop_passes_through() -> None:
    app = AppTest.from_function(stops).run()
    assert not app.exception
    assert [text.value for text in app.text] == ["before"]
    assert shown(app) == ""


def changes_the_address() -> None:
    import streamlit as st

    from app import address
    from app.boundary import guarded

    st.text(f"above: {st.query_params.get('B')}")

    @guarded
    def part() -> None:
        address.put(B=8)
        raise ZeroDivisionError

    part()


def test_a_part_that_changed_the_address_makes_the_page_run_again_even_if_it_failed() -> None:
    app = AppTest.from_function(changes_the_address).run()
    assert not app.exception
    assert app.text[0].value == "above: 8"


def works() -> None:
    import streamlit as st

    from app.boundary import guarded

    @guarded
    def part(words: str, *, number: int) -> None:
        """What it does."""
        st.text(f"{words} {number} {part.__name__} {part.__doc__}")

    part("a", number=2)


def test_what_does_not_fail_is_as_it_was() -> None:
    app = AppTest.from_function(works).run()
    assert app.text[0].value == "a 2 part What it does."
