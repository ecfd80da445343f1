"""A form made from a config: what is typed is in the address, what is changed is marked, what is wrong is explained."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def form_of_training() -> None:
    """A page with nothing but the form of a LoRA run."""
    import streamlit as st

    from app.config_form import ConfigForm
    from lark_engine.config import TrainConfig
    from lark_engine.recipes import train_recipe

    base = {name: value for name, value in train_recipe("lora").items() if name not in ("method", "recipe")}
    fixed = {"method": "lora", "student": "s", "recipe": "lora"}
    form = ConfigForm(config=TrainConfig, prefix="train", base=base, fixed=fixed, leave_out=("nnodes",))
    values = form.values()
    form.draw(values, first=("lr", "epochs"))
    st.session_state["said"] = (values.changed, values.problems, values.config)
    st.button("reset", key="reset", on_click=form.reset)
    given = {"lr": 2e-4, "packing": False, "lora_targets": ["q_proj"], "deepspeed": "zero2", "student": "s"}
    st.button("put", key="put", on_click=form.put, args=(given,))
    exactly = {"lr": 1.4142135623730951e-05, "eval_share": 0.1, "eval_data": ""}
    st.button("exactly", key="put_exactly", on_click=form.put, args=(exactly,))


def opened(**query: str) -> AppTest:
    app = AppTest.from_function(form_of_training, default_timeout=60)
    for name, value in query.items():
        app.query_params[f"train.{name}"] = value
    app.run()
    assert not app.exception
    return app


def shown(app: AppTest) -> str:
    return "\n".join([*(c.value for c in app.caption), *(e.proto.body for e in app.get("html"))])


def test_untouched_it_is_the_recipe_and_the_address_is_empty() -> None:
    app = opened()
    changed, problems, config = app.session_state["said"]
    assert (changed, problems, app.query_params) == ({}, {}, {})
    assert (config.lr, config.lora_rank, config.dtype, config.student) == (1e-4, 64, "bfloat16", "s")
    keys = {widget.key for widget in app.text_input}
    assert "train.nnodes" not in keys and "train.student" not in keys and "train.max_grad_norm" in keys


def test_a_changed_field_is_marked_and_in_the_address() -> None:
    app = opened()
    app.text_input(key="train.lr").set_value("3e-5").run()
    assert app.query_params == {"train.lr": "3e-5"}
    assert app.session_state["said"][0] == {"lr": 3e-5}
    assert app.text_input(key="train.lr").label == "Learning rate ●"
    assert r"changed from 0\.0001" in shown(app)
    app.text_input(key="train.lr").set_value("0.0001").run()
    assert (app.query_params, app.text_input(key="train.lr").label) == ({}, "Learning rate")


def test_a_number_that_is_only_written_otherwise_is_not_changed() -> None:
    app = opened(lr="1e-4", epochs="3.0", warmup_ratio="much")
    assert app.session_state["said"][0] == {"warmup_ratio": "much"}
    assert app.text_input(key="train.lr").label == "Learning rate"
    assert opened(lr="0.00010001").session_state["said"][0] == {"lr": 0.00010001}


def test_every_number_and_every_text_is_said_by_parameters_to_its_last_sign() -> None:
    app = opened()
    app.button(key="put_exactly").click().run()
    assert app.query_params == {
        "train.lr": "1.4142135623730951e-05", "train.eval_share": "0.1", "train.eval_data": "''",
    }  # fmt: skip
    assert app.session_state["said"][0] == {"lr": 1.4142135623730951e-05, "eval_share": 0.1, "eval_data": ""}


def test_every_kind_of_field_is_written_and_taken_back() -> None:
    app = opened()
    app.toggle(key="train.packing").set_value(False).run()
    app.selectbox(key="train.scheduler").set_value("linear").run()
    app.multiselect(key="train.report_to").set_value(["wandb"]).run()
    app.text_input(key="train.max_steps").set_value("20").run()
    changed, problems, config = app.session_state["said"]
    assert problems == {}
    assert changed == {"packing": False, "scheduler": "linear", "report_to": ("wandb",), "max_steps": 20}
    assert config.max_steps == 20
    app.button(key="reset").click().run()
    assert (app.query_params, app.session_state["said"][0]) == ({}, {})
    assert app.toggle(key="train.packing").value is True


def test_what_is_not_valid_is_explained_at_the_field_and_stays_in_the_address() -> None:
    app = opened(lr="abc", warmup_ratio="2", epochs="")
    _, problems, config = app.session_state["said"]
    assert config is None
    assert problems == {
        "lr": "input should be a valid number, unable to parse string as a number",
        "warmup_ratio": "input should be less than 1",
        "epochs": "cannot be empty here: it is 3 unless you give another value",
    }
    assert all(sentence in shown(app) for sentence in problems.values())
    assert app.text_input(key="train.lr").value == "abc"
    assert app.query_params["train.lr"] == "abc"


def test_a_word_that_is_no_choice_leaves_the_recipes() -> None:
    app = opened(scheduler="<script>", packing="maybe")
    assert app.session_state["said"][:2] == ({}, {})
    assert app.selectbox(key="train.scheduler").value == "cosine"


def test_values_that_are_put_replace_all_that_was_there() -> None:
    app = opened(max_steps="7")
    app.button(key="put").click().run()
    assert app.query_params == {
        "train.lr": "0.0002", "train.packing": "false", "train.lora_targets": "q_proj",
        "train.deepspeed": "zero2",
    }  # fmt: skip
    assert app.session_state["said"][2].lora_targets == ("q_proj",)
