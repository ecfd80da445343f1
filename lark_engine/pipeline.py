"""The whole run in one readable file: pool → score → select → train → generate → grade → table.

Every stage looks up its fingerprint first: what is done is skipped, and said. A dry run plans all of it and makes
nothing, because the fingerprint of a stage follows from its options and the fingerprints of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lark_engine.config import (
    GenerateConfig,
    GradeConfig,
    PoolConfig,
    RunRecipe,
    ScoreConfig,
    SelectConfig,
    TrainConfig,
)
from lark_engine.errors import ConfigError
from lark_engine.evaluation.backends import check_backend
from lark_engine.evaluation.benchmarks import load_benchmark
from lark_engine.evaluation.generate import generate, plan_generation
from lark_engine.evaluation.grade import grade, plan_grade
from lark_engine.models import ADAPTER_DIR, STUDENT_DIR, ModelRef, model_of_checkpoint, resolve_student
from lark_engine.pool.importer import import_pool, plan_pool
from lark_engine.recipes import refuse_programs, train_recipe
from lark_engine.recipes.batches import with_global_batch
from lark_engine.recipes.reading import load_yaml
from lark_engine.results.table import results_table
from lark_engine.scoring.score import plan_score, score
from lark_engine.selection.select import plan_select, select
from lark_engine.store.atomic import user_path
from lark_engine.store.workspace import Artifact, Plan, Workspace
from lark_engine.training.plan import TrainData, plan_train, selection_data
from lark_engine.training.train import train


@dataclass(frozen=True, kw_only=True)
class RunConfigs:
    """The configs of all stages of a run, checked before the first stage starts."""

    name: str
    pool: PoolConfig
    score: ScoreConfig
    select: SelectConfig
    train: TrainConfig
    generate: GenerateConfig
    grade: GradeConfig
    baseline: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """One planned stage: what it would make, and the finished artifact if it is there."""

    stage: str
    plan: Plan
    done: Artifact | None
    partial: bool

    @property
    def state(self) -> str:
        """`skip`, `resume` or `run`."""
        return "skip" if self.done else "resume" if self.partial else "run"

    @property
    def why(self) -> str:
        """The state in words."""
        if self.done:
            return f"same options and inputs were finished at {self.done.manifest.created_at[:19]}Z"
        return "unfinished rows are kept" if self.partial else "not made yet"


def read_recipe(path: Path, *, trust_remote_code: bool = False, server_python: Path | None = None) -> RunConfigs:
    """Read and check a run recipe; relative paths in it are relative to its folder.

    What runs code is the caller's to say and not the recipe's. Errors: `ConfigError` with section, key and the nearest
    valid name.
    """
    recipe = RunRecipe.parse(load_yaml(path), str(path))
    base = path.absolute().parent
    student = _path(recipe.student, base)
    train_values = dict(recipe.train)
    if "recipe" in train_values:
        train_values = {
            **train_recipe(_path(str(train_values["recipe"]), base), trust_remote_code=trust_remote_code),
            **train_values,
        }
    pool_values = {**recipe.pool, "source": _path(str(recipe.pool.get("source", "")), base)}
    listed = _listed(recipe.generate.get("benchmark"), f"{path}: generate: benchmark")
    generate_values = {**recipe.generate, "benchmark": [_benchmark_path(name, base) for name in listed]}
    if measured := train_values.get("eval_benchmarks"):
        names = _listed(measured, f"{path}: train: eval_benchmarks")
        train_values["eval_benchmarks"] = [_benchmark_path(name, base) for name in names]
    score_values = dict(recipe.score)
    for section, values in (("score", score_values), ("train", train_values), ("generate", generate_values)):
        refuse_programs(values, f"{path}: {section}", trust_remote_code=trust_remote_code)
        if trust_remote_code:
            values["trust_remote_code"] = True
    if server_python:
        generate_values["server_python"] = str(server_python)
    for values in (score_values, train_values, generate_values):
        for name in ("chat_template", "deepspeed", "eval_data"):
            if isinstance(values.get(name), str):
                values[name] = _path(values[name], base)
    configs = RunConfigs(
        name=recipe.name,
        pool=PoolConfig.parse(pool_values, f"{path}: pool"),
        score=ScoreConfig.parse({"student": student, **score_values}, f"{path}: score"),
        select=SelectConfig.parse(recipe.select, f"{path}: select"),
        train=TrainConfig.parse(
            {"student": student, "recipe": recipe.name, **with_global_batch(train_values)}, f"{path}: train"
        ),
        generate=GenerateConfig.parse(generate_values, f"{path}: generate"),
        grade=GradeConfig.parse(recipe.grade, f"{path}: grade"),
        baseline=recipe.baseline,
    )
    _check_backend(configs.generate, str(path))
    return configs


def _check_backend(config: GenerateConfig, where: str) -> None:
    """Refuse before hours of training what generation would refuse after them."""
    if config.backend == "endpoint":
        raise ConfigError(
            f"{where}: generate: a run evaluates the checkpoint that it trains, which an endpoint does not serve; use "
            "backend vllm or transformers, or `lark generate` on its own"
        )
    check_backend(config)


def plan_run(configs: RunConfigs, workspace: Workspace) -> list[Step]:
    """Every stage of the run with its fingerprint, in order; nothing is made."""
    steps: list[Step] = []

    def add(stage: str, plan: Plan) -> Plan:
        folder = workspace.folder(plan)
        steps.append(Step(stage=stage, plan=plan, done=workspace.find(plan), partial=folder.exists()))
        return plan

    pool = add("pool", plan_pool(configs.pool, workspace))
    scores = add("score", plan_score(configs.score, workspace, pool)[0])
    selection = add("select", plan_select(configs.select, scores, pool))
    data = TrainData(
        path=workspace.folder(selection), content=selection.fingerprint, inputs={"selection": selection.ref}
    )
    checkpoint = add("train", plan_train(configs.train, workspace, data)[0])
    for model in _planned_models(configs, workspace, checkpoint):
        for name in configs.generate.benchmark:
            benchmark = load_benchmark(name, limit=configs.generate.limit, workspace=workspace)
            generations = add("generate", plan_generation(configs.generate, workspace, model, benchmark))
            add("grade", plan_grade(configs.grade, workspace, generations, answer_type=benchmark.answer_type))
    return steps


def run(configs: RunConfigs, workspace: Workspace, report: Callable[[str], None]) -> pd.DataFrame:
    """Run all stages; `report` gets one line for each: skipped and why, or made and in how many seconds.

    Returns the results table of this run. Errors: those of the stages; running again resumes.
    """
    for line, grades in _run(configs, workspace):
        report(line)
        if grades is not None:
            return results_table(workspace, grades=grades)
    raise AssertionError("a run ends with its grades")


def _run(configs: RunConfigs, workspace: Workspace) -> Iterator[tuple[str, list[Artifact] | None]]:
    def said(stage: str, artifact: Artifact, before: set[str]) -> tuple[str, None]:
        known = artifact.id in before
        what = "skipped, done already" if known else f"{artifact.manifest.wall_s:7.1f} s"
        return f"{stage:<9} {artifact.id:<58} {what}", None

    before = {step.done.id for step in plan_run(configs, workspace) if step.done}
    pool = import_pool(configs.pool, workspace)
    yield said("pool", pool, before)
    scores = score(configs.score, workspace, pool)
    yield said("score", scores, before)
    selection = select(configs.select, workspace, scores, pool)
    yield said("select", selection, before)
    checkpoint = train(configs.train, workspace, selection_data(selection))
    assert checkpoint is not None
    yield said("train", checkpoint, before)
    models = [model_of_checkpoint(checkpoint, workspace)]
    if configs.baseline:
        models.insert(0, resolve_student(configs.train.student, workspace))
    grades = []
    limit = configs.generate.limit
    benchmarks = [load_benchmark(name, limit=limit, workspace=workspace) for name in configs.generate.benchmark]
    made = generate(configs.generate, workspace, models)
    for generations, benchmark in zip(made, benchmarks * len(models), strict=True):
        yield said("generate", generations, before)
        grades.append(grade(configs.grade, workspace, generations, answer_type=benchmark.answer_type))
        yield said("grade", grades[-1], before)
    yield "table     from the grades above", grades


def _planned_models(configs: RunConfigs, workspace: Workspace, checkpoint: Plan) -> list[ModelRef]:
    """The models of the run before the checkpoint exists: its name and fingerprint are known, its files are not."""
    student = resolve_student(configs.train.student, workspace)
    lora = configs.train.method == "lora"
    done = workspace.find(checkpoint)
    planned = ModelRef(
        name=checkpoint.id, path=workspace.folder(checkpoint) / (ADAPTER_DIR if lora else STUDENT_DIR),
        content=checkpoint.fingerprint, base=student if lora else None, artifact=done,
    )  # fmt: skip
    return [student, planned] if configs.baseline else [planned]


def _listed(value: Any, place: str) -> list[str]:
    """One name, or several. Errors: `ConfigError` for anything else."""
    names = [value] if isinstance(value, str) else value or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{place}: give a name, or a list of names")
    return names


def _path(value: str, base: Path) -> str:
    """A path of the recipe, seen from the recipe's folder; what is no file there (a hub id, a name) stays as it is."""
    candidate = base / user_path(value)
    return str(candidate) if value and candidate.exists() else value


def _benchmark_path(value: str, base: Path) -> str:
    """`FILE`, or `NAME=FILE`, with the file seen from the recipe's folder."""
    name, separator, file = value.rpartition("=")
    return f"{name}{separator}{_path(file, base)}"
