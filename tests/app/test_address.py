"""The address is the view: what is written is read again, and what is not valid hides nothing that is."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from streamlit.testing.v1 import AppTest

from app.address import Codec, config_of, config_params, flag, many_of, number, one_of, pack, unpack, words
from lark_engine.config import SelectConfig
from lark_engine.scoring.criteria import energy_names

ENERGIES = one_of(("g_hat", "-nll"), "g_hat")
COUNT = number(1, 100, 3, integer=True)
SHARE = number(0.01, 1.0, None)
TEACHERS = many_of(("a", "b", "c"))


@pytest.mark.parametrize(
    ("codec", "said", "value"),
    [
        (ENERGIES, ["-nll"], "-nll"),
        (ENERGIES, ["-nll", "g_hat"], "g_hat"),  # the last one counts
        (ENERGIES, ["<b>"], None),
        (ENERGIES, [""], None),
        (TEACHERS, ["c", "a", "c"], ["c", "a"]),
        (TEACHERS, ["x"], []),
        (TEACHERS, ["x", "b"], ["b"]),
        (flag(), ["true"], True),
        (flag(), ["True"], True),
        (flag(), ["1"], True),
        (flag(), ["yes"], True),  # as the selection reads it
        (flag(), ["false"], False),
        (flag(), ["0"], False),
        (flag(), ["maybe"], None),
        (flag(), [""], None),
        (COUNT, ["8"], 8),
        (COUNT, ["100"], 100),
        (COUNT, ["101"], None),
        (COUNT, ["0"], None),
        (COUNT, ["-3"], None),
        (COUNT, ["3.7"], None),
        (COUNT, ["abc"], None),
        (COUNT, ["nan"], None),
        (COUNT, ["1e2"], None),
        (COUNT, ["9" * 5000], None),
        (SHARE, ["0.25"], 0.25),
        (SHARE, ["1e-1"], 0.1),
        (SHARE, ["1.01"], None),
        (SHARE, ["inf"], None),
        (SHARE, ["nan"], None),
        (SHARE, [""], None),
        (words(5), ["abcdefgh"], "abcde"),
    ],
)
def test_a_parameter_is_read_or_is_not_valid(codec: Codec, said: list[str], value: object) -> None:
    found = codec.read(said)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("codec", "value", "texts"),
    [
        (ENERGIES, "-nll", ["-nll"]),
        (ENERGIES, "g_hat", []),
        (ENERGIES, None, []),
        (TEACHERS, ["b", "a"], ["b", "a"]),
        (TEACHERS, [], []),
        (flag(), True, ["true"]),
        (flag(), False, []),
        (COUNT, 3, []),
        (COUNT, None, []),
        (COUNT, 8, ["8"]),
        (COUNT, 8.0, ["8"]),
        (number(1, 10**13, None, integer=True), 10**13, ["10000000000000"]),
        (number(1, 10**13, None, integer=True), 1_234_567_890_123, ["1234567890123"]),
        (SHARE, 0.1 + 0.2, ["0.3"]),  # a step of a stock widget leaves such digits
        (SHARE, None, []),
        (words(), "", []),
        (words(), "x y", ["x y"]),
    ],
)
def test_a_default_is_not_in_the_address(codec: Codec, value: object, texts: list[str]) -> None:
    assert codec.write(value) == texts
    if texts:
        assert codec.read(texts) == pytest.approx(value) if isinstance(value, float) else codec.read(texts) == value


NAMES = st.text(min_size=1, max_size=12)


@st.composite
def configs(draw: st.DrawFn) -> SelectConfig:
    """Any selection that an address can describe."""
    options: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "energy": st.sampled_from(energy_names()),
                "teachers": st.lists(NAMES, max_size=3).map(tuple),
                "exclude_teachers": st.lists(NAMES, max_size=3).map(tuple),
                "correct_only": st.booleans(),
                "drop_truncated": st.booleans(),
                "deduplicate": st.booleans(),
                "min_response_tokens": st.integers(0, 10**9),
                "max_response_tokens": st.integers(1, 10**9),
                "max_train_tokens": st.integers(1, 10**15),
            },
        )
    )
    tau = {"tau": draw(st.floats(1e-12, 1e6))}
    budget = draw(st.sampled_from([{}, {"budget": draw(st.integers(1, 500))}]))
    options |= draw(
        st.sampled_from(
            [
                budget,
                {"mode": "sharpness", "sharpness": draw(st.floats(0.05, 20)), **budget},
                {"mode": "temperature", **tau},
                {"mode": "temperature", "max_budget": draw(st.integers(1, 99)), **tau},
                {"rule": "top_b", **budget},
                {"rule": "softmax", **tau, **budget},
                {"rule": "best_teacher", **budget},
                {"rule": "all"},
            ]
        )
    )
    if options.get("rule") != "best_teacher" and draw(st.booleans()):
        options["max_teacher_share"] = draw(st.floats(0.01, 1.0))
    if options.get("energy") == "random" and draw(st.booleans()):
        options["seed"] = draw(st.integers(0, 10**6))
    return SelectConfig(**options)


@given(config=configs())
def test_a_selection_is_found_again_from_its_parameters(config: SelectConfig) -> None:
    params = config_params(config)
    assert config_of(params) == config
    # Through a browser's address bar.
    query = urlencode(params, doseq=True)
    assert config_of(parse_qs(query)) == config
    assert unpack(pack(config)) == config


@given(config=configs())
def test_only_what_differs_from_the_default_is_a_parameter(config: SelectConfig) -> None:
    named = {"budget" if param == "B" else param for param in config_params(config)}
    assert named == {
        name for name, value in config if value != SelectConfig.model_fields[name].default and value is not None
    }


def test_parameters_and_pins_by_hand() -> None:
    config = SelectConfig(
        mode="sharpness", budget=8, sharpness=0.3, exclude_teachers=("a&b=c", "d e"), correct_only=True
    )
    params = {
        "mode": "sharpness", "B": "8", "sharpness": "0.3", "exclude_teachers": ["a&b=c", "d e"], "correct_only": "true",
    }  # fmt: skip
    assert config_params(config) == params
    assert pack(config) == (
        "mode=sharpness&B=8&sharpness=0.3&exclude_teachers=a%26b%3Dc&exclude_teachers=d+e&correct_only=true"
    )
    assert config_params(SelectConfig()) == {}
    assert config_params(SelectConfig(mode="temperature", tau=2)) == {"mode": "temperature", "tau": "2"}


@pytest.mark.parametrize("text", ["default", "", "&&&", "B", "=", "%ff%00", "B=abc", "x=1&y=2", "B=3"])
def test_a_pin_that_says_nothing_valid_is_the_default_selection(text: str) -> None:
    assert unpack(text) == SelectConfig()


def test_a_pin_of_the_default_says_so() -> None:
    assert pack(SelectConfig()) == "default"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        # Not valid alone: the others stay.
        ({"B": "abc", "energy": "-nll"}, {"energy": "-nll"}),
        ({"B": "0", "correct_only": "true"}, {"correct_only": True}),
        ({"B": "abc", "energy": "no", "mode": "x", "rule": "top_b"}, {"rule": "top_b"}),
        ({"B": "2.5"}, {}),
        ({"sharpness": "99", "mode": "sharpness", "B": "8"}, {"mode": "sharpness", "budget": 8}),
        ({"max_teacher_share": "1.5", "min_response_tokens": "12"}, {"min_response_tokens": 12}),
        ({"tau": "nan", "mode": "temperature", "B": "8"}, {"budget": 8}),
        ({"B": ["3", "8"]}, {"budget": 8}),
        ({"correct_only": "maybe", "deduplicate": "true"}, {"deduplicate": True}),
        # Not valid with the others: as little as possible gives way, and never what says which rule it is.
        ({"B": "8", "mode": "temperature"}, {"budget": 8}),
        ({"B": "8", "mode": "temperature", "tau": "0.002"}, {"mode": "temperature", "tau": 0.002}),
        ({"B": "8", "mode": "temperature", "max_budget": "4", "seed": "1"}, {"budget": 8}),
        ({"sharpness": "0.3"}, {}),
        ({"sharpness": "0.3", "B": "8"}, {"budget": 8}),
        ({"sharpness": "0.3", "mode": "budget", "energy": "random", "seed": "5"}, {"energy": "random", "seed": 5}),
        ({"sharpness": "0.3", "mode": "temperature", "tau": "0.1"}, {"mode": "temperature", "tau": 0.1}),
        ({"tau": "0.1", "B": "8"}, {"budget": 8}),
        ({"seed": "5", "max_teacher_share": "0.5"}, {"max_teacher_share": 0.5}),
        ({"seed": "5", "energy": "-nll"}, {"energy": "-nll"}),
        ({"rule": "softmax", "B": "5"}, {"budget": 5}),
        ({"rule": "softmax", "tau": "0.1", "mode": "temperature"}, {"rule": "softmax", "tau": 0.1}),
        ({"rule": "top_b", "mode": "sharpness", "sharpness": "0.5", "B": "4"}, {"rule": "top_b", "budget": 4}),
        ({"rule": "all", "B": "8", "deduplicate": "1"}, {"rule": "all", "deduplicate": True}),
        ({"rule": "best_teacher", "max_teacher_share": "0.5", "B": "2"}, {"rule": "best_teacher", "budget": 2}),
        ({"max_budget": "4", "max_train_tokens": "1000"}, {"max_train_tokens": 1000}),
    ],
)
def test_what_is_not_valid_is_ignored_and_hides_nothing_valid(params: Any, expected: dict[str, Any]) -> None:
    assert config_of(params) == SelectConfig(**expected)


def test_options_that_only_the_command_line_has_and_foreign_parameters_are_ignored() -> None:
    assert config_of({"keep_zero_weight": "true", "budget": "9", "utm_source": "x", "scores": "y"}) == SelectConfig()


WORDS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["true", "false", "1", "0.5", "3", "1e-3", "random", "-nll", "all", "softmax", "temperature"]),
)
PARAMS = st.sampled_from(
    ["B", "rule", "mode", "tau", "sharpness", "max_budget", "seed", "energy", "max_teacher_share", "deduplicate"]
)


@given(params=st.dictionaries(PARAMS, WORDS))
def test_any_address_describes_a_selection_and_whatever_is_kept_is_needed(params: dict[str, str]) -> None:
    config = config_of(params)
    # No single field that gave way could have stayed.
    for param, said in params.items():
        name = {"B": "budget"}.get(param, param)
        if name in config.model_fields_set:
            continue
        kept = {field: getattr(config, field) for field in config.model_fields_set}
        with pytest.raises(ValidationError):
            SelectConfig.model_validate({**kept, name: said})


def page() -> None:
    import streamlit as st

    from app.address import bound, flag, many_of, number, one_of, put, read, read_config, take_changed

    names = ("g_hat", "-nll", "+rho")
    st.selectbox("Energy", names, **bound("energy", one_of(names, "g_hat"), clears=("page", "seed")))
    st.number_input("B", min_value=1, max_value=33, **bound("B", number(1, 33, 3, integer=True)))
    st.toggle("Only correct", **bound("correct_only", flag()))
    st.multiselect("Without", ["a", "b"], **bound("exclude_teachers", many_of(("a", "b"))))
    st.button("Go to 7", on_click=put, kwargs={"B": 7, "exclude_teachers": ["b", "a"], "energy": None})
    st.text(f"page {read('page', number(1, 99, 1, integer=True))}")
    st.text(str(read_config().budget))
    st.text(f"changed {take_changed()}")


def opened(**params: str | list[str]) -> AppTest:
    app = AppTest.from_function(page)
    for name, value in params.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def test_widgets_show_what_the_address_says() -> None:
    app = opened(energy="-nll", B="8", correct_only="true", exclude_teachers=["b"])
    assert app.selectbox[0].value == "-nll"
    assert app.number_input[0].value == 8
    assert app.toggle[0].value is True
    assert app.multiselect[0].value == ["b"]
    assert app.text[1].value == "8"


def test_widgets_show_the_default_where_the_address_is_not_valid() -> None:
    app = opened(energy="no", B="99", correct_only="maybe", exclude_teachers=["zz"])
    assert app.selectbox[0].value == "g_hat"
    assert app.number_input[0].value == 3
    assert app.toggle[0].value is False
    assert app.multiselect[0].value == []


def test_a_change_of_a_widget_writes_the_address_and_the_default_takes_it_out() -> None:
    app = opened(scores="kept")
    app.number_input[0].set_value(8).run()
    app.toggle[0].set_value(True).run()
    app.multiselect[0].set_value(["b", "a"]).run()
    assert app.query_params == {
        "scores": "kept", "B": "8", "correct_only": "true", "exclude_teachers": ["b", "a"],
    }  # fmt: skip
    assert app.text[1].value == "8"
    app.number_input[0].set_value(3).run()
    app.toggle[0].set_value(False).run()
    app.multiselect[0].set_value([]).run()
    assert app.query_params == {"scores": "kept"}


def test_a_change_clears_what_makes_no_sense_any_more() -> None:
    app = opened(page="4", seed="2", energy="-nll")
    assert app.text[0].value == "page 4"
    app.selectbox[0].set_value("+rho").run()
    assert app.query_params == {"energy": "+rho"}
    assert app.text[0].value == "page 1"


def test_a_button_writes_several_parameters_and_the_widgets_follow() -> None:
    app = opened(energy="-nll", correct_only="true")
    app.button[0].click().run()
    assert app.query_params == {"B": "7", "exclude_teachers": ["b", "a"], "correct_only": "true"}
    assert (app.number_input[0].value, app.multiselect[0].value, app.selectbox[0].value) == (7, ["b", "a"], "g_hat")


def test_the_address_says_once_that_it_changed() -> None:
    app = opened()
    assert app.text[2].value == "changed False"
    app.number_input[0].set_value(8).run()
    assert app.text[2].value == "changed True"
    app.run()
    assert app.text[2].value == "changed False"
    app.query_params["B"] = "8"
    app.button[0].click().run()
    assert app.text[2].value == "changed True"


def test_going_back_in_the_browser_puts_the_widgets_back() -> None:
    app = opened(B="8")
    app.number_input[0].set_value(5).run()
    app.query_params["B"] = "8"
    app.run()
    assert app.number_input[0].value == 8
    del app.query_params["B"]
    app.run()
    assert app.number_input[0].value == 3
