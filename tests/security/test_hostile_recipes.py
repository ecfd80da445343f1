"""Recipes, configurations and benchmark files from anybody: values, refused in one sentence where they are none."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lark_engine.cli import app
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, LarkError, PoolError, StoreError
from lark_engine.evaluation.benchmarks import load_benchmark, read_benchmark
from lark_engine.evaluation.check import check
from lark_engine.pipeline import read_recipe as read_run
from lark_engine.recipes import deepspeed_config, train_recipe
from lark_engine.recipes.reading import load_yaml
from lark_engine.recipes.texts import read_recipe
from lark_engine.store.workspace import Workspace

LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{n}: &{n} [*{b}, *{b}, *{b}]\n" for b, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.system ['touch {marker}']", "tags are not allowed in a recipe"),
        ("lr: !!python/object/apply:os.system ['touch {marker}']", "tags are not allowed in a recipe"),
        ("lr: !!python/object/new:os.system ['touch {marker}']", "tags are not allowed in a recipe"),
        ("? !!python/object/apply:os.system ['touch {marker}']\n: 1", "tags are not allowed in a recipe"),
        ("lr: !!python/name:os.system ''", "tags are not allowed in a recipe"),
        ("lr: !!python/module:antigravity ''", "tags are not allowed in a recipe"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\nlr: !name:os.system ''", "tags are not allowed in a recipe"),
        ("lr: !!binary aGVsbG8=", "tags are not allowed in a recipe"),
        ("lr: !!bool maybe", "tags are not allowed in a recipe"),
        ("lr: !!int ''", "tags are not allowed in a recipe"),
        (LAUGHS, "aliases are not allowed in a recipe"),
        ("a: &a [*a]", "aliases are not allowed in a recipe"),
        ("lr: 1\n<<: {lr: 2}", "tag:yaml.org,2002:merge"),
        ("lr: 1\nlr: 2", "key 'lr' is given twice (line 2)"),
        ("a: {lr: 1, lr: 2}", "key 'lr' is given twice (line 1)"),
        ("lr: " + "9" * 100_000, "a number of 100,000 characters"),
        ("lr: 0x" + "f" * 100_000, "a number of 100,002 characters"),
        ("lr: " + ":".join(["1"] * 20_000), "a number of 39,999 characters"),
        ("lr: " + ":".join(["1"] * 5000) + ".5", "a number of 10,001 characters"),
        ("a: " + "[" * 5000 + "]" * 5000, "maximum recursion depth exceeded"),
        ("a: " + "{b: " * 3000 + "1" + "}" * 3000, "maximum recursion depth exceeded"),
        ("a: '" + "x" * 5_000_000 + "'", "is larger than 256 kB, as no recipe is"),
        ("a:\n" + "  - [1, 2]\n" * 100_000, "is larger than 256 kB, as no recipe is"),
        ('a: "\\ud800"', "a text holds half of a character"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: 1\n---\nb: 2", "found another document"),
        ("a: \x00", "special characters are not allowed"),
    ],
    ids=range(27),
)
def test_a_recipe_that_is_more_than_data_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "recipe.yaml").write_text(text.replace("{marker}", str(marker)))
    began = time.monotonic()
    for read in (load_yaml, lambda path: train_recipe(str(path)), read_run):
        with pytest.raises(ConfigError) as error:
            read(tmp_path / "recipe.yaml")
        assert str(error.value).startswith(str(tmp_path / "recipe.yaml"))
        assert said in str(error.value)
    with pytest.raises(ConfigError, match=r"^the text"):  # as it is typed on the page
        read_recipe(text, "the text", {"student": "s"})
    assert time.monotonic() - began < 10
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to itself"])
def test_a_recipe_that_is_no_file_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recipe.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "recipe.yaml")
    with pytest.raises(StoreError, match="cannot be read"):
        load_yaml(path)


@pytest.mark.parametrize(
    "values",
    [
        {"lr": [1]}, {"lr": "1e400"}, {"lr": True}, {"lr": {"a": 1}}, {"epochs": 10**30}, {"lora_targets": [[1]]},
        {"name": "x"}, {"deepspeed": "../../etc/passwd"}, {"recipe": 7}, {1: 2}, {None: 1}, {"lr": "nan"},
        {"seed": -(10**40)},
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_by_name(tmp_path: Path, values: dict[Any, Any]) -> None:
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(
        app, ["train", "lora", "--recipe", str(tmp_path / "r.yaml"), "--train-data", "x.jsonl", "--student", "nowhere",
              "--workspace", str(tmp_path / "w")],
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "name", ["../benchmarks", "../../recipes/demo", "/etc/passwd", "..", "lora/../lora", "\0", "lora\n"]
)
def test_the_name_of_a_shipped_recipe_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^no training recipe "):
        train_recipe(name)


@pytest.mark.parametrize(
    "content", ["[]", "7", '{"zero_optimization": [3]}', '{"zero_optimization": 3}', "[" * 100_000, "{"]
)
def test_a_deepspeed_configuration_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "zero.json").write_text(content)
    with pytest.raises(LarkError):
        deepspeed_config(str(tmp_path / "zero.json"))


def test_the_name_of_a_run_is_a_name_and_no_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        TrainConfig.parse({"student": "s", "method": "lora", "name": "../../x"}, "a recipe")


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[" * 100_000, "JSON nested too deep, or a number too long"),
        ('[{"prompt": "x", "answer": ' + "9" * 5000 + "}]", "JSON nested too deep, or a number too long"),
        ('[{"prompt": "x", "answer": {"a": [1]}}]', "problem 0: has no answer"),
        ('[{"prompt": {"a": 1}, "answer": "1"}]', "problem 0: has no prompt"),
        ('[{"prompt": "x", "answer": 1e999}]', "problem 0: has no answer"),
        ('[{"prompt": "x", "answer": "\\ud800"}]', "problem 0: holds half of a character"),
        ({"answer_type": ["math"], "problems": [{"prompt": "x", "answer": 1}]}, "answer_type"),
        ({"answer_type": "os.system", "problems": [{"prompt": "x", "answer": 1}]}, "answer_type"),
        ({"system_prompt": {"a": 1}, "problems": [{"prompt": "x", "answer": 1}]}, "system_prompt"),
        ({"name": 7, "problems": [{"prompt": "x", "answer": 1}]}, "name"),
        ({"__class__": "x", "problems": [{"prompt": "x", "answer": 1}]}, "__class__"),
    ],
    ids=range(11),
)
def test_a_benchmark_file_of_wrong_types_is_refused_in_one_sentence(tmp_path: Path, content: Any, error: str) -> None:
    path = write(tmp_path / "bench.json", content)
    with pytest.raises(LarkError) as raised:
        load_benchmark(str(path))
    assert error in str(raised.value) and str(path) in str(raised.value)


def test_a_benchmark_named_as_a_path_stays_a_name(tmp_path: Path, workspace: Workspace) -> None:
    markup = "../../<img src=x onerror=alert(1)>"
    path = write(
        tmp_path / "b.json", {"name": markup, "problems": [{"prompt": markup, "answer": markup, "level": markup}]}
    )
    found = load_benchmark(str(path), workspace=workspace)
    assert found.name == "img-src-x-onerror-alert-1"
    assert found.problems[0].prompt == markup
    with pytest.raises(PoolError, match="no such benchmark file"):
        load_benchmark("../../../etc/hostname=nothing", workspace=workspace)


def test_pipes_are_no_benchmarks(tmp_path: Path, workspace: Workspace) -> None:
    os.mkfifo(tmp_path / "bench.json")
    with pytest.raises(PoolError, match="no such benchmark file"):
        load_benchmark(str(tmp_path / "bench.json"), workspace=workspace)


@pytest.mark.slow
def test_references_that_are_bombs_are_said_to_be_ungradable_within_the_limits_of_their_workers(tmp_path: Path) -> None:
    answers = ["9^{9^{9^{9^{9}}}}", "\\frac" * 3000, "(" * 5000, "a" * 100_000 + "!", "1e999999999", "__import__('os')"]
    rows = [{"prompt": str(n), "answer": answer} for n, answer in enumerate(answers)]
    began = time.monotonic()
    found = check(read_benchmark(str(write(tmp_path / "b.json", [*rows, {"prompt": "sound", "answer": "7"}]))))
    assert time.monotonic() - began < 60
    assert "6" not in {problem.problem_id for problem in found.ungradable}
    assert found.num_problems == 7


SECTIONS: dict[str, Any] = {
    "name": "x", "student": "s", "pool": {"source": "p.jsonl"}, "generate": {"benchmark": ["b.json"]}, "train": {},
    "score": {}, "select": {}, "grade": {},
}  # fmt: skip
ABSURD = (
    None, 1, 1.5, True, "\0", "x" * 5000, "~nobody-of-this-name/x", [1], [[1]], {"a": 1}, [None], {"a": [{"b": "\0"}]},
    "../../etc/passwd", 10**30,
)  # fmt: skip
PATHS = {
    "pool": ("source", "name", "split"), "score": ("chat_template",), "grade": ("equality",),
    "generate": ("benchmark", "chat_template", "n_samples", "backend"),
    "train": ("recipe", "eval_benchmarks", "deepspeed", "eval_data", "lr", "grad_accum", "name"),
}  # fmt: skip


@pytest.mark.parametrize("section", [*SECTIONS, "baseline", "unknown"])
def test_whatever_stands_in_a_run_recipe_is_taken_or_refused_in_one_sentence(tmp_path: Path, section: str) -> None:
    import yaml

    values = [{section: value} for value in ABSURD]
    values += [{section: {**SECTIONS[section], name: value}} for name in PATHS.get(section, ()) for value in ABSURD]
    refused = 0
    for value in values:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({**SECTIONS, **value}))
        try:
            read_run(tmp_path / "run.yaml")
        except LarkError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 5


@pytest.mark.parametrize("section", ["score", "train", "generate"])
@pytest.mark.parametrize("option", ["trust_remote_code", "server_python"])
def test_no_recipe_has_code_run_that_was_not_asked_for_beside_it(tmp_path: Path, section: str, option: str) -> None:
    """An interpreter is a program, and is run to find out what it has: before anything else of the recipe is done."""
    marker, program = tmp_path / "marker", tmp_path / "python"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    value = {"trust_remote_code": True, "server_python": str(program)}[option]
    backend = {"backend": "vllm"} if section == "generate" else {}
    values = {**SECTIONS, section: {**SECTIONS[section], **backend, option: value}}
    path = write(tmp_path / "run.yaml", values)
    with pytest.raises(
        ConfigError, match=f"{section}: '{option}' would run code, .*give --{option.replace('_', '-')} "
    ):
        read_run(path)
    assert not marker.exists()
    with pytest.raises(ConfigError, match=f"'{option}' would run code"):
        train_recipe(str(write(tmp_path / "train.yaml", {option: value})))


def test_who_starts_a_run_may_ask_for_the_code_of_its_student(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", {**SECTIONS, "generate": {"benchmark": ["b.json"], "backend": "transformers"}})
    assert read_run(path).train.trust_remote_code is False
    configs = read_run(path, trust_remote_code=True)
    assert (configs.score.trust_remote_code, configs.train.trust_remote_code, configs.generate.trust_remote_code) == (
        True, True, True,
    )  # fmt: skip
