"""Recipes as text: what is written is read again, and every mistake has its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError
from lark_engine.recipes import train_recipe
from lark_engine.recipes.batches import with_global_batch
from lark_engine.recipes.texts import read_recipe, recipe_text

GIVEN = {"student": "s"}


def base(name: str) -> dict[str, Any]:
    return {key: value for key, value in train_recipe(name).items() if key != "recipe"}


def test_what_is_changed_is_marked_with_what_the_recipe_has() -> None:
    text = recipe_text({"method": "lora", "lr": 1e-4}, {"lr": 3e-5, "packing": False, "report_to": ("wandb",)})
    assert text == (
        "method: lora\nlr: 3.0e-05  # recipe: 0.0001\npacking: false  # default: true\n"
        "report_to: [wandb]  # default: []\n"
    )


CHANGES: list[dict[str, Any]] = [
    {}, {"lr": 1e-5}, {"epochs": 2.5, "seed": 3}, {"packing": False, "batch_size": 2}, {"deepspeed": None},
    {"lora_targets": ("q_proj", "k: #x")}, {"max_steps": 20}, {"chat_template": Path("/a b/'c'.jinja")},
    {"eval_benchmarks": ("a=b:c", "- d", "true", "5"), "eval_share": 0.1}, {"render": "append"},
    {"rdzv_endpoint": "host:29500", "nnodes": 2}, {"eval_data": "two\nlines \x85 \u2028 #", "eval_share": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("name", ["lora", "full_500", "full_5000"])
@pytest.mark.parametrize("changed", CHANGES)
def test_a_text_is_read_as_it_was_written(name: str, changed: dict[str, Any]) -> None:
    text = recipe_text(base(name), changed)
    expected = TrainConfig.model_validate({**GIVEN, **base(name), **changed})
    assert TrainConfig.model_validate({**GIVEN, **read_recipe(text, "text", GIVEN)}) == expected


def test_released_names_and_accumulation_steps_are_read_in_ours() -> None:
    text = "learning_rate: 1e-4\nnum_train_epochs: 3\nr: 8\nbf16: true\ngradient_accumulation_steps: 4\nbatch_size: 2\n"
    assert read_recipe(text, "text", GIVEN) == {
        "lr": 1e-4, "epochs": 3.0, "lora_rank": 8, "dtype": "bfloat16", "batch_size": 2, "global_batch": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: 2\nlr: 0", "text:2: 'lr': input should be greater than 0"),
        ("epochs: 2\n\nnum_train_epoch: 2", "text:3: unknown key 'num_train_epoch'"),
        ("lr: 1\nlearning_rate: x", "text:2: 'lr': input should be a valid number"),
        ("seed: 1\nmax_steps: 5\nmax_tokens: 6", "text:2: 'max_steps': max_steps and max_tokens both say"),
        ("lora_targets: []", "text:1: 'lora_targets': "),
        ("lr: [1", "text:1: not valid YAML"),
        ("lr: 1\nlr: 2", "text: not valid YAML: key 'lr' is given twice (line 2)"),
        ("bias: all", "text: 'bias' is always 'none' here"),
        ("lr: 1\n? [a]\n: 2", "text:2: not valid YAML: a key is a word, not a list or a mapping"),
        ("lr: 2024-13-45", "text: not valid YAML: "),
        ("lr: 1\ngrad_accum: 0", "text:2: 'grad_accum': give a positive whole number, not 0"),
        ("gradient_accumulation_steps: x", "text:1: 'grad_accum': give a positive whole number, not 'x'"),
        ("grad_accum: 2\nbatch_size:", "text:2: 'batch_size': give a positive whole number, not nothing"),
        ("batch_size:", "text:1: 'batch_size': input should be a valid integer"),
        ("- lr", "text: a recipe is a mapping"),
        ("", "text: a recipe is a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_recipe(text, "text", GIVEN)
    assert str(error.value).startswith(said)


def test_accumulation_steps_that_make_no_batch_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="mine: 'grad_accum': give a positive whole number, not 0"):
        with_global_batch({"recipe": "mine", "grad_accum": 0, "global_batch": 8})
