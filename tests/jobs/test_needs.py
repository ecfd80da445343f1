from __future__ import annotations

from pathlib import Path

import pytest
import typer.main

from lark_engine.cli import app
from lark_engine.config import GenerateConfig, ScoreConfig, TrainConfig
from lark_engine.jobs.needs import NOTHING, RULES, Needs, flag, needs_of, option
from lark_engine.recipes import train_recipe, train_recipes

CPU = Needs("cpu", 1)


def cuda(count: int) -> Needs:
    return Needs("cuda", count)


def needs(line: str, num_gpus: int = 8, **options: object) -> Needs:
    return needs_of(["lark", *line.split()], num_gpus=num_gpus, **options)  # type: ignore[arg-type]


def test_every_command_of_the_command_line_has_a_rule() -> None:
    known = {words[0] for words in RULES}
    assert set(typer.main.get_command(app).commands) - known == set()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "pool import pool.jsonl --labels verify", "pool show", "select --scores s", "select compare a b",
        "train merge lora-1", "benchmarks fetch --all", "benchmarks check aime24", "extract --eval-dir e",
        "grade --eval-dir e --workers 64", "dispute --eval-dir e", "table", "compare a b", "lineage x", "serve",
        "jobs list",
    ],
)  # fmt: skip
def test_a_command_without_a_model_never_waits(line: str) -> None:
    assert needs(line) == NOTHING == Needs("none", 0)


@pytest.mark.parametrize(
    ("line", "on_eight_gpus", "on_none"),
    [
        ("score --input p --student s", cuda(1), CPU),
        ("score --input p --student s --device cpu", CPU, CPU),
        ("score --input p --student s --device=auto", cuda(1), CPU),
        ("score tokens --scores s --all", cuda(1), CPU),
        ("score tokens --scores s --all --device cpu", CPU, CPU),
        ("score --input p --student s --executor ray", cuda(8), CPU),
        ("score --input p --student s --executor ray --num-workers 0", cuda(8), CPU),
        ("score --input p --student s --executor ray --num-workers 3", cuda(3), CPU),
        ("score --input p --student s --executor ray --num_workers=3 --device cpu", CPU, CPU),
        ("score --input p --student s --executor ray --ray-address head:6379", NOTHING, NOTHING),
        ("train lora --train-data d --student s", cuda(1), CPU),
        ("train lora --train-data d --student s --preflight", cuda(1), CPU),
        ("train full --train-data d --student s --nproc-per-node 4", cuda(4), CPU),
        ("train full --train-data d --student s --nproc_per_node 4 --preflight", cuda(4), CPU),
        ("train full --train-data d --student s --nproc_per_node=4 --device cpu", CPU, CPU),
        ("train full --train-data d --student s --nproc-per-node 8 --nnodes 2", cuda(8), CPU),
        ("sweep --scores s --student s --nproc-per-node 2", cuda(2), CPU),
        ("generate --model-path m --benchmark b", cuda(1), CPU),
        ("generate --model-path m --benchmark b --tensor-parallel-size 2 --replicas 3", cuda(6), CPU),
        ("generate --model-path m --benchmark b --replicas 0", cuda(8), CPU),
        ("generate --model-path m --benchmark b --replicas 0 --tensor-parallel-size 3", cuda(6), CPU),
        ("generate --model-path m --benchmark b --backend sglang --replicas 2", cuda(2), CPU),
        ("generate --model-path m --benchmark b --backend transformers --replicas 2", cuda(1), CPU),
        ("generate --benchmark b --backend endpoint --endpoint http://host", NOTHING, NOTHING),
        ("demo", cuda(1), CPU),
    ],
)
def test_a_command_with_a_model_waits_for_its_devices(line: str, on_eight_gpus: Needs, on_none: Needs) -> None:
    assert needs(line, 8) == on_eight_gpus
    assert needs(line, 0) == on_none


@pytest.mark.parametrize("line", ["", "dance", "dance --device cuda", "trian lora --nproc-per-node 4"])
def test_an_unknown_command_waits_for_one_device(line: str) -> None:
    assert needs(line) == cuda(1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train full --nproc-per-node 16", cuda(16)),
        ("generate --tensor-parallel-size 16 --replicas 0", cuda(16)),
        ("score --executor ray --num-workers 9", cuda(9)),
    ],
)
def test_more_than_the_machine_has_is_for_the_caller_to_refuse(line: str, expected: Needs) -> None:
    assert needs(line, 8) == expected


def test_cuda_asked_for_on_a_machine_without_a_gpu_does_not_become_a_cpu_slot() -> None:
    assert needs("score --device cuda", 0) == cuda(1)
    assert needs("score --device cuda --executor ray", 0) == cuda(1)
    assert needs("train lora --device cuda --nproc-per-node 2", 0) == cuda(2)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train lora --nproc-per-node four", cuda(1)),
        ("train lora --nproc-per-node -2", cuda(1)),
        ("train lora --nproc-per-node", cuda(1)),
        ("generate --replicas x --tensor-parallel-size 0", cuda(1)),
    ],
)
def test_a_number_that_is_none_counts_as_not_given(line: str, expected: Needs) -> None:
    assert needs(line) == expected


@pytest.mark.parametrize(("visible", "expected"), [("", CPU), ("-1", CPU), ("0,1", cuda(1)), ("GPU-aa", cuda(1))])
def test_a_command_that_may_see_no_gpu_needs_a_cpu_slot(visible: str, expected: Needs) -> None:
    assert needs("score", environment={"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_a_training_recipe_says_how_many_processes_unless_the_command_does(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 1e-4\nnproc_per_node: 4\n")
    for flag_name in ("--recipe", "--sft-config", "--sft_config"):
        assert needs(f"train full {flag_name} mine.yaml", cwd=tmp_path) == cuda(4)
    assert needs(f"sweep --recipe {tmp_path / 'mine.yaml'}") == cuda(4)
    assert needs("train full --recipe mine.yaml --nproc-per-node 2", cwd=tmp_path) == cuda(2)
    assert needs("train full --recipe mine.yaml --device cpu", cwd=tmp_path) == CPU
    (tmp_path / "cpu.yaml").write_text("device: cpu\n")
    assert needs("train full --recipe cpu.yaml", cwd=tmp_path) == CPU


@pytest.mark.parametrize("text", [None, "nproc_per_node: [", "- 4", "nproc_per_node: 2024-99-99", "? [a]\n: 1"])
def test_an_unreadable_recipe_is_left_out(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    assert needs("train full --recipe mine.yaml", cwd=tmp_path) == cuda(1)
    assert needs("run mine.yaml", cwd=tmp_path) == cuda(1)
    assert needs("run", cwd=tmp_path) == cuda(1)
    assert needs("run mine.yaml", 0, cwd=tmp_path) == CPU


RECIPE = """
name: mine
student: s
pool: {source: pool.jsonl}
score: {executor: ray, num_workers: 3}
train: {nproc_per_node: 4}
generate: {benchmark: b.json, replicas: 5}
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("", ""), cuda(5)),
        (("replicas: 5", "tensor_parallel_size: 2"), cuda(4)),
        (("replicas: 5", "replicas: 0"), cuda(8)),
        (("replicas: 5", "device: cpu"), cuda(4)),
        (("num_workers: 3", "num_workers: 6"), cuda(6)),
        (("train: {nproc_per_node: 4}", "train: {recipe: full_500, nproc_per_node: 7}"), cuda(7)),
        (("train: {nproc_per_node: 4}", "train: {recipe: sft.yaml}"), cuda(6)),
        (("train: {nproc_per_node: 4}", "train: 3"), cuda(5)),
    ],
)
def test_a_run_waits_for_the_largest_need_of_its_stages(
    tmp_path: Path, change: tuple[str, str], expected: Needs
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "run.yaml").write_text(RECIPE.replace(*change))
    (tmp_path / "recipes" / "sft.yaml").write_text("nproc_per_node: 6\n")
    assert needs("run recipes/run.yaml", cwd=tmp_path) == expected
    assert needs("run --workspace w recipes/run.yaml", cwd=tmp_path) == expected
    assert needs(f"run --workspace=w -- {tmp_path}/recipes/run.yaml") == expected


def test_a_run_on_the_cpu_needs_one_slot_however_many_processes_it_has(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RECIPE)
    assert needs("run run.yaml", 0, cwd=tmp_path) == CPU


@pytest.mark.parametrize("line", ["run run.yaml --dry-run", "run --dry_run run.yaml"])
def test_a_dry_run_makes_nothing_and_waits_for_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "run.yaml").write_text(RECIPE)
    assert needs(line, cwd=tmp_path) == NOTHING


def test_what_is_not_given_means_what_the_configs_say() -> None:
    """Defaults are known here without loading the configs; this holds the two together."""
    score, train, generate = (config.model_fields for config in (ScoreConfig, TrainConfig, GenerateConfig))
    assert (score["executor"].default, score["num_workers"].default) == ("local", 0)
    assert train["nproc_per_node"].default == 1
    assert [generate[n].default for n in ("backend", "replicas", "tensor_parallel_size")] == ["vllm", 1, 1]
    assert {fields["device"].default for fields in (score, train, generate)} == {"auto"}


def test_shipped_training_recipes_leave_the_devices_to_the_machine() -> None:
    for name in train_recipes():
        assert train_recipe(name).keys() & {"device", "nproc_per_node"} == set()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--pack-length 4096", "4096"),
        ("--pack_length 4096", "4096"),
        ("--pack-length=4096", "4096"),
        ("--pack_length=a=b_c", "a=b_c"),
        ("--pack-length=", ""),
        ("--pack-length 1 --lr 2 --pack_length=3", "3"),
        ("--pack-length 1 -- --pack-length 2", "1"),
        ("--pack-length -1", "-1"),
        ("--pack-length", None),
        ("--pack-lengths 4096", None),
        ("pack-length 4096", None),
        ("", None),
    ],
)
def test_an_option_is_read_as_the_command_line_reads_it(line: str, expected: str | None) -> None:
    command = ["lark", "train", "lora", *line.split()]
    assert option(command, "pack-length") == option(command, "pack_length") == expected


def test_an_option_may_have_several_names() -> None:
    command = ["lark", "train", "full", "--recipe", "a", "--sft-config", "b"]
    assert option(command, "recipe", "sft_config") == "b"
    assert option(["lark", "select", "--B", "3"], "budget", "B") == "3"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--packing", True),
        ("--no-packing", False),
        ("--no_packing", False),
        ("--packing --no-packing", False),
        ("--no-packing --packing", True),
        ("-- --packing", None),
        ("packing", None),
        ("", None),
    ],
)
def test_a_flag_is_on_off_or_not_given(line: str, expected: bool | None) -> None:
    assert flag(["lark", "train", "lora", *line.split()], "packing") is expected
