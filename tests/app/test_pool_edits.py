"""Each pool edit is named in words, with the parameters that undo it and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.address import config_of, config_params
from app.pool_edits import describe
from lark_engine.config import SelectConfig


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"budget": 8, "energy": "-nll", "max_teacher_share": 0.5}, []),  # changes of the rule take nothing out
        ({"correct_only": True}, [("only correct", {"correct_only": None})]),
        ({"drop_truncated": True}, [("not truncated", {"drop_truncated": None})]),
        ({"deduplicate": True}, [("no repeats", {"deduplicate": None})]),
        ({"min_response_tokens": 1500}, [("≥ 1,500 tokens", {"min_response_tokens": None})]),
        ({"max_response_tokens": 8192}, [("≤ 8,192 tokens", {"max_response_tokens": None})]),
        ({"exclude_teachers": ("abc",)}, [("without abc", {"exclude_teachers": None})]),
        (
            {"exclude_teachers": ("a", "b", "c")},
            [
                ("without a", {"exclude_teachers": ["b", "c"]}),
                ("without b", {"exclude_teachers": ["a", "c"]}),
                ("without c", {"exclude_teachers": ["a", "b"]}),
            ],
        ),
        ({"teachers": ("abc",)}, [("only abc", {"teachers": None})]),
        ({"teachers": ("a", "b")}, [("only 2 teachers", {"teachers": None})]),
    ],
)
def test_each_edit_has_its_words_and_what_undoes_it(options: dict[str, Any], expected: Any) -> None:
    assert describe(SelectConfig(**options)) == expected


def test_all_edits_together_can_be_undone_one_by_one() -> None:
    config = SelectConfig(
        budget=5, teachers=("a", "c"), exclude_teachers=("a", "b"), correct_only=True, drop_truncated=True,
        deduplicate=True, min_response_tokens=10, max_response_tokens=99,
    )  # fmt: skip
    assert len(describe(config)) == 8
    while edits := describe(config):
        words, undo = edits[0]
        params = {**config_params(config), **undo}
        config = config_of({name: value for name, value in params.items() if value is not None})
        assert words not in [other for other, _ in describe(config)]
    assert config == SelectConfig(budget=5)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("**bold**", r"without \*\*bold\*\*"),
        ("[x](http://y)", "without \\[x\\]\\(http\\:\u2060\\/\\/y\\)"),
        (":material/x:", "without \\:\u2060material\\/x\\:\u2060"),
        ("$x$", r"without \$x\$"),
        ("x" * 24, "without " + "x" * 24),
        ("x" * 25, "without " + "x" * 23 + "…"),
        ("*" * 25, "without " + r"\*" * 23 + "…"),  # cut before it is escaped: no backslash is left at the end
        ("a\nb", "without a b"),
    ],
)
def test_a_teachers_name_is_text_and_short(name: str, shown: str) -> None:
    (edit,) = describe(SelectConfig(exclude_teachers=(name,)))
    assert edit == (shown, {"exclude_teachers": None})


def page() -> None:
    import tempfile

    from app.pool_edits import pool_edit_controls
    from app.scored import load_scored
    from benchmarks.scored_pool import make_scored_pool
    from lark_engine.store.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        made = make_scored_pool(Workspace(folder), num_problems=4, num_candidates=3)
        pool_edit_controls(load_scored(made.scores, made.pool))


def test_every_edit_is_a_button_that_undoes_it_also_for_teachers_whose_names_begin_alike() -> None:
    app = AppTest.from_function(page)
    app.query_params["exclude_teachers"] = ["x" * 30 + "1", "x" * 30 + "2"]
    app.query_params["correct_only"] = "true"
    app.run(timeout=20)
    assert not app.exception
    assert [button.label for button in app.button] == ["without " + "x" * 23 + "…"] * 2 + ["only correct"]
    app.button[1].click().run()
    assert app.query_params == {"exclude_teachers": "x" * 30 + "1", "correct_only": "true"}
    app.button[1].click().run()
    assert app.query_params == {"exclude_teachers": "x" * 30 + "1"}
    assert [button.label for button in app.button] == ["without " + "x" * 23 + "…"]
