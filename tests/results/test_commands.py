"""The command of an artifact makes that very artifact: run again, it is a look-up."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from graded import finished
from typer.testing import CliRunner

from lark_engine.cli import app
from lark_engine.cli.words import _parsed, whole_command
from lark_engine.config import GenerateConfig, GradeConfig, PoolConfig, SelectConfig
from lark_engine.pool.importer import import_pool
from lark_engine.results.commands import (
    command_of,
    generate_command,
    grade_command,
    select_command,
    shell_line,
    table_command,
)
from lark_engine.results.lineage import Lineage
from lark_engine.results.stale import Staleness
from lark_engine.scoring.parts import SCORES
from lark_engine.selection.select import plan_select
from lark_engine.store.workspace import Artifact, Plan, Workspace


def lark(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def made(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A pool, scores, a selection, a checkpoint, generations and grades, with options that are not the defaults."""
    root = tmp_path_factory.mktemp("commands")
    rows: list[dict[str, Any]] = [
        {"problem_id": p, "candidate_id": c, "teacher": "ab"[c], "answer": "2", "is_correct": True,
         "messages": [{"role": "user", "content": f"{p}?"}, {"role": "assistant", "content": f"so {c}"}]}
        for p in range(3) for c in range(2)
    ]  # fmt: skip
    (root / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "sums.json").write_text(json.dumps([{"prompt": "1+1=?", "answer": "2"}]))
    place = ["--workspace", str(root / "cache")]
    student = str(tiny_model_dir)
    lark("pool", "import", str(root / "pool.jsonl"), "--name", "Small pool", "--skip-bad", *place)
    lark("score", "--input", "small-pool", "--student", student, "--max-length", "64", "--device", "cpu", *place)
    store = Workspace(root / "cache")
    lark("select", "--scores", store.list("scores")[0].id, "--B", "1", "--correct-only", *place)
    lark(
        "train", "lora", "--train-data", store.list("selections")[0].id, "--student", student, "--max-steps", "1",
        "--lr", "0.002", "--lora-rank", "2", "--name", "mine", "--device", "cpu", "--no-gradient-checkpointing",
        "--lora-targets", "q_proj", "--lora-targets", "v_proj", *place,
    )  # fmt: skip
    lark(
        "generate", "--model-path", "lora-mine", "--benchmark", f"Sums={root / 'sums.json'}", "--backend",
        "transformers", "--device", "cpu", "--n-samples", "2", "--max-new-tokens", "4", "--limit", "1", *place,
    )  # fmt: skip
    lark("grade", "--eval-dir", store.list("evals")[0].id, "--rules", "boxed", "--rules", "last_number", *place)
    return store


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pools", "scores", "selections", "checkpoints", "evals", "grades"])
def test_the_command_of_an_artifact_finds_it_done(made: Workspace, kind: Any) -> None:
    (artifact,) = made.list(kind)
    command = command_of(artifact, made)
    assert command is not None
    assert command[0] == "lark"
    output = lark(*command[1:], *(["--device", "cpu"] if kind in ("scores", "checkpoints", "evals") else []))
    assert artifact.id in output
    assert made.list(kind) == [artifact]


@pytest.mark.slow
def test_lineage_shows_every_step_with_its_command(made: Workspace) -> None:
    (grade,) = made.list("grades")
    text = lark("lineage", grade.id, "--workspace", str(made.root))
    kinds = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert kinds == ["grade", "eval", "checkpoint", "selection", "score", "pool"]
    assert "STALE" not in text
    assert "lark select --scores small-pool@tiny" in text
    parts = json.loads(lark("lineage", str(grade.path), "--json", "--workspace", str(made.root)))
    assert [part["stale"] for part in parts] == [[]] * 6
    assert parts[0]["command"][:3] == ["lark", "grade", "--eval-dir"]


@pytest.mark.slow
def test_lineage_says_what_has_changed(made: Workspace, tmp_path: Path) -> None:
    copy = tmp_path / "cache"
    shutil.copytree(made.root, copy)
    (selection,) = Workspace(copy).list("selections")
    shutil.rmtree(selection.path)
    (grade,) = Workspace(copy).list("grades")
    assert f"STALE: {selection.id} is gone" in lark("lineage", grade.id, "--workspace", str(copy))


def test_kinds_that_no_command_makes_alone_have_none(workspace: Workspace) -> None:
    student: Artifact = finished(workspace, "students", "tiny", {})
    assert command_of(student, workspace) is None


def test_an_unknown_artifact_is_said(workspace: Workspace) -> None:
    done = CliRunner().invoke(app, ["lineage", "nothing", "--workspace", str(workspace.root)])
    assert done.exit_code == 2
    assert "no artifact 'nothing' in workspace" in done.output


def test_generations_of_an_endpoint_are_asked_for_there_again(workspace: Workspace) -> None:
    identity = {
        "model": {"name": "served", "content": "c", "is_adapter": False, "origin": "/nonexistent"},
        "benchmark": {"name": "sums", "content": "p", "source": "a=b=/data/x.json", "limit": None},
        "endpoint": "http://host:8000",
    }  # fmt: skip
    config = {"backend": "endpoint", "n_samples": 5, "system_prompt": "two\nlines\x1b[2J", "stop_after_box": False}
    artifact = finished(workspace, "evals", "sums", config, identity=identity)
    command = command_of(artifact, workspace)
    assert command is not None
    assert command[:4] == ["lark", "generate", "--benchmark", "a=b=/data/x.json"]
    assert command[4:8] == ["--endpoint", "http://host:8000", "--backend", "endpoint"]
    assert command[8:10] == ["--system-prompt", "two\nlines\x1b[2J"]
    assert shell_line(command).isprintable()


def test_a_fetched_benchmark_is_fetched_at_its_commit(workspace: Workspace) -> None:
    artifact = finished(workspace, "benchmarks", "math-500", {}, identity={"revision": "abc"})
    command = command_of(artifact, workspace)
    assert command is not None
    assert command[:5] == ["lark", "benchmarks", "fetch", "math-500", "--revision"]


def test_a_merged_checkpoint_is_merged_again_and_released_scores_have_no_command(
    workspace: Workspace, run: dict[str, Artifact]
) -> None:
    merged = finished(
        workspace, "checkpoints", "merged-lora-quick", run["checkpoint"].manifest.config,
        inputs={"adapter": run["checkpoint"]},
    )  # fmt: skip
    command = command_of(merged, workspace)
    assert command is not None
    assert command[:4] == ["lark", "train", "merge", run["checkpoint"].id]
    assert Staleness(Lineage(workspace)).of(merged) == []
    released = finished(workspace, "scores", "lark_ghat", {}, identity={"file": "abc"})
    assert command_of(released, workspace) is None


SCORED_ENERGIES = ("-nll", "+nll", "-rsr", "-brier", "+rho", "-num_response_tokens", "+num_response_tokens", "random")
SELECTIONS: list[dict[str, Any]] = [
    {},
    {"budget": 1},
    {"mode": "sharpness", "sharpness": 0.3, "budget": 2},
    {"mode": "sharpness", "sharpness": 1.2345678901234567},
    {"mode": "sharpness"},
    {"mode": "temperature", "tau": 1e-05},
    {"mode": "temperature", "tau": 0.01, "max_budget": 2},
    {"rule": "top_b", "budget": 2},
    {"rule": "softmax", "tau": 0.2, "budget": 2},
    {"rule": "best_teacher"},
    {"rule": "all"},
    *({"energy": energy} for energy in SCORED_ENERGIES),
    {"rule": "top_b", "energy": "random", "seed": 7},
    {"exclude_teachers": ("-b=c",)},
    {"exclude_teachers": ("-b=c", "two words'\"$(x)")},
    {"teachers": ("a", "--scores")},
    {"correct_only": True, "drop_truncated": True, "deduplicate": True},
    {"min_response_tokens": 10, "max_response_tokens": 4000},
    {"max_teacher_share": 0.5},
    {"max_train_tokens": 2500, "rule": "top_b"},
    {"max_teacher_share": 0.6, "max_train_tokens": 2500, "mode": "sharpness", "sharpness": 2.0},
    {"keep_zero_weight": True},
    {"uniform_if_no_energy": True},
]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Artifact, Artifact]:
    """A pool whose teachers have awkward names, and its scores without a model, in a folder with an awkward name."""
    store = Workspace(tmp_path_factory.mktemp("select") / "a cache's folder")
    teachers = ("a", "-b=c", "two words'\"$(x)", "--scores")
    rows = [
        {"problem_id": str(p), "candidate_id": c, "teacher": teachers[c], "is_correct": c < 3,
         "messages": [{"role": "user", "content": f"{p}?"}, {"role": "assistant", "content": f"so {c}" * (c + 1)}]}
        for p in range(6) for c in range(4)
    ]  # fmt: skip
    source = store.root.parent / "pool.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = import_pool(PoolConfig(source=str(source), name="pool"), store)
    rng = np.random.default_rng(0)
    nll, brier = rng.uniform(0.2, 1.0, (2, len(rows)))
    table = pd.DataFrame({
        "problem_id": [row["problem_id"] for row in rows], "candidate_id": [row["candidate_id"] for row in rows],
        "teacher": [row["teacher"] for row in rows], "num_prompt_tokens": 20,
        "num_response_tokens": rng.integers(50, 400, len(rows)), "truncated": rng.random(len(rows)) < 0.1,
        "nll": nll, "brier": brier, "mean_rank": rng.uniform(1, 5, len(rows)), "entropy": nll,
    })  # fmt: skip
    plan = Plan(kind="scores", name="pool@student", fingerprint="0123456789ab", config={}, inputs={"pool": pool.ref})
    scores = store.build(plan, lambda draft: table.to_parquet(draft.path / SCORES, index=False))
    return store, scores, pool


@pytest.mark.parametrize("options", SELECTIONS, ids=str)
def test_the_command_of_a_selection_makes_the_one_that_was_planned(
    scored: tuple[Workspace, Artifact, Artifact], options: dict[str, Any]
) -> None:
    store, scores, pool = scored
    config = SelectConfig(**options)
    planned = plan_select(config, scores, pool)
    command = select_command(config, scores, pool, store)
    assert command[:2] == ["lark", "select"]
    assert whole_command(command, store) == command  # a job takes it as it is
    assert shlex.split(shell_line(command)) == command  # and so does a shell
    assert planned.id in lark(*command[1:])
    made = store.find(planned)
    assert made is not None
    assert made.manifest.config == config.identity()
    # Saved or not, it says the same of itself.
    assert command_of(made, store) == command


def test_different_selections_have_different_commands(scored: tuple[Workspace, Artifact, Artifact]) -> None:
    store, scores, pool = scored
    configs = [SelectConfig(**options) for options in SELECTIONS]
    commands = {tuple(select_command(config, scores, pool, store)) for config in configs}
    assert len(commands) == len({plan_select(config, scores, pool).fingerprint for config in configs})
    assert len(commands) == len(SELECTIONS)


def test_a_command_names_only_what_differs_from_the_default(scored: tuple[Workspace, Artifact, Artifact]) -> None:
    store, scores, pool = scored
    place = ["--workspace", str(store.root)]
    inputs = ["lark", "select", "--scores", scores.id, "--pool", pool.id]
    assert select_command(SelectConfig(), scores, pool, store) == [*inputs, *place]
    config = SelectConfig(budget=8, energy="-nll", exclude_teachers=("a", "-b=c"), correct_only=True)
    assert select_command(config, scores, pool, store) == [
        *inputs, "--energy", "-nll", "--budget", "8", "--exclude-teachers", "a", "--exclude-teachers", "-b=c",
        "--correct-only", *place,
    ]  # fmt: skip


GENERATIONS: list[dict[str, Any]] = [
    {},
    {"benchmark": ("AIME=/data/a b.json", "math-500"), "n_samples": 16, "temperature": 0.0, "limit": 8},
    {"backend": "transformers", "device": "cpu", "dtype": "float32", "max_new_tokens": 64, "max_concurrency": 2},
    {"system_prompt": "", "stop_after_box": True, "trust_remote_code": True, "replicas": 0},
    {"system_prompt": "--limit 3\nthen 'quoted'", "chat_template": Path("/a b/template.jinja"), "seed": 7},
    {"backend": "endpoint", "endpoint": "http://host:8000", "endpoint_model": "-odd"},
]
GRADINGS: list[dict[str, Any]] = [
    {}, {"rules": ("last_number", "boxed"), "equality": "math_verify"},
    {"answer_type": "text", "time_limit_s": 0.5, "workers": 2},
]  # fmt: skip


def parsed(command: list[str], config: type[Any]) -> Any:
    """The config that the command line would make of a command."""
    values = _parsed(command).params
    known = {name: values[name] for name in config.model_fields if values.get(name) not in (None, [], ())}
    return config(**known)


@pytest.mark.parametrize("grading", [None, *GRADINGS], ids=str)
@pytest.mark.parametrize("options", GENERATIONS, ids=str)
def test_the_command_of_a_generation_is_read_back_as_it_was_meant(
    workspace: Workspace, options: dict[str, Any], grading: dict[str, Any] | None
) -> None:
    config = GenerateConfig(**{"benchmark": ("sums",), **options})
    rules = None if grading is None else GradeConfig(**grading)
    command = generate_command(config, ["lora-1", "-m"], workspace, grading=rules)
    assert whole_command(command, workspace) == command  # a job takes it as it is
    values = _parsed(command).params
    assert (values["model_path"], values["with_grades"]) == (["lora-1", "-m"], rules is not None)
    assert parsed(command, GenerateConfig) == config
    assert parsed(command, GradeConfig) == (rules or GradeConfig())


@pytest.mark.parametrize("grading", GRADINGS, ids=str)
def test_the_command_of_a_grading_is_read_back_as_it_was_meant(workspace: Workspace, grading: dict[str, Any]) -> None:
    generations = [finished(workspace, "evals", name, {}, parent=workspace.root / "evals" / "m") for name in "ab"]
    command = grade_command(GradeConfig(**grading), generations, workspace)
    assert whole_command(command, workspace) == command
    assert _parsed(command).params["eval_dir"] == [str(artifact.path) for artifact in generations]
    assert parsed(command, GradeConfig) == GradeConfig(**grading)


def test_the_command_of_a_table_names_its_filters(workspace: Workspace) -> None:
    command = table_command(["gsm8k", "math-500"], workspace, by_method=True, output_dir="results")
    assert command == [
        "lark", "table", "--benchmark", "gsm8k", "--benchmark", "math-500", "--by-method", "--output-dir", "results",
        "--workspace", str(workspace.root),
    ]  # fmt: skip
    values = _parsed(command).params
    assert (values["benchmark"], values["methods"]) == (["gsm8k", "math-500"], True)
