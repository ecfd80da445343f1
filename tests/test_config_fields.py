"""The fields of the configs as command line and forms show them."""

from __future__ import annotations

import pytest

from lark_engine.config import GenerateConfig, GradeConfig, PoolConfig, ScoreConfig, SelectConfig, TrainConfig
from lark_engine.config.base import StageConfig
from lark_engine.config.fields import fields_of, problems_with
from lark_engine.errors import ConfigError
from lark_engine.recipes.reading import parse_yaml


@pytest.mark.parametrize("config", [PoolConfig, ScoreConfig, TrainConfig, GenerateConfig, GradeConfig])
def test_every_field_is_in_one_group(config: type[StageConfig]) -> None:
    grouped = [name for names in config.groups.values() for name in names]
    assert sorted(grouped) == sorted(config.model_fields)


def test_a_field_says_kind_choices_bounds_help_and_default() -> None:
    fields = fields_of(TrainConfig)
    assert list(fields)[:3] == ["method", "recipe", "student"]
    lr, steps, report = fields["lr"], fields["max_steps"], fields["report_to"]
    assert (lr.kind, lr.bounds, lr.help, lr.default, lr.group) == (
        "real",
        "> 0",
        "peak learning rate",
        1e-4,
        "Optimizer",
    )
    assert (steps.kind, steps.bounds, steps.is_optional, steps.default) == ("whole", "≥ 1", True, None)
    assert (report.kind, report.choices, report.default) == ("words", ("tensorboard", "trackio", "wandb"), ())
    assert fields["warmup_ratio"].bounds == "≥ 0, < 1"
    assert fields["scheduler"].choices == ("cosine", "linear", "constant", "constant_with_warmup")
    assert (fields["student"].is_required, fields["packing"].kind, fields["chat_template"].kind) == (
        True,
        "flag",
        "path",
    )
    assert fields_of(SelectConfig)["energy"].choices[0] == "g_hat"


def test_each_mistake_is_found_at_its_field() -> None:
    values = {"student": "s", "lr": "abc", "epochs": -1, "nodes": 2}
    found = problems_with(lambda: TrainConfig.model_validate(values), TrainConfig.model_fields)
    assert found == {
        "lr": "input should be a valid number, unable to parse string as a number",
        "epochs": "input should be greater than 0",
        "nodes": "extra inputs are not permitted",
    }


def test_fields_that_contradict_each_other_are_told_at_each_of_them() -> None:
    values = {"student": "s", "max_steps": 5, "max_tokens": 5}
    found = problems_with(lambda: TrainConfig.model_validate(values), TrainConfig.model_fields)
    sentence = "max_steps and max_tokens both say where training ends; give one of them"
    assert found == {"max_steps": sentence, "max_tokens": sentence}
    assert problems_with(lambda: TrainConfig.model_validate({"student": "s"}), TrainConfig.model_fields) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: [1", r"^text:1: not valid YAML"), ("- 1", "a recipe is a mapping"), ("a: &x 1\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system ['id']", "not valid YAML"), ("a: 1\na: 2", "given twice"),
        ("[" * 5000, "not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_yaml(text, "text")
