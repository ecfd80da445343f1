"""A workspace after months of work: a hundred trained runs with their logs, evaluated on several benchmarks.

Manifests, event logs, generations and grades are written as the stages write them, with made-up numbers; only the
models are missing. Made in seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lark_engine.config import GenerateConfig, GradeConfig, SelectConfig, TrainConfig
from lark_engine.evaluation.generate import GENERATIONS, PROBLEMS
from lark_engine.evaluation.grade import COLUMNS, GRADES, METRICS, metrics_of, plan_grade
from lark_engine.store.atomic import write_json
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace
from lark_engine.training.spec import EVENTS, VERSION

BENCHMARKS = ("gsm8k", "amc", "math-500")
_STEP_TOKENS = 24_000


def make_runs(workspace: Workspace, *, num_runs: int = 100, num_steps: int = 300) -> list[Artifact]:
    """Checkpoints of LoRA runs on one selection, oldest first, each with the log of its training."""
    selection = _plain(workspace, "selections", "chi2-b3", SelectConfig(budget=3).model_dump(mode="json"))
    return [_run(workspace, selection, number, num_steps) for number in range(num_runs)]


def write_events(path: Path, num_steps: int, *, first: int = 1, seed: int = 0, total: int | None = None) -> None:
    """Append the events of `num_steps` optimizer steps from step `first` on, as a training run logs them."""
    rng = np.random.default_rng(seed)
    total = total or first + num_steps - 1
    lines = []
    for step in range(first, first + num_steps):
        loss = 0.6 + 0.9 * np.exp(-3 * step / total) + 0.05 * rng.standard_normal()
        metrics = {
            "loss": round(float(loss), 5), "learning_rate": round(1e-4 * (1 - step / (total + 1)), 9),
            "grad_norm": round(float(0.5 + 0.1 * rng.random()), 4), "tokens_per_s": round(4000 + 100 * rng.random(), 1),
            "memory_mb": 11520.4, "device_use": 0.97, "tokens": step * _STEP_TOKENS,
        }  # fmt: skip
        event = {
            "time": round(1.79e9 + 6.0 * step, 3), "stage": "train", "done": step, "total": total, "unit": "step",
            "rate": 0.16667, "eta_s": 6.0 * (total - step), "metrics": metrics,
        }  # fmt: skip
        lines.append(json.dumps(event))
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


def make_graded(
    workspace: Workspace, runs: list[Artifact], *, num_problems: int = 60, num_samples: int = 4
) -> list[Artifact]:
    """Generations and grades of every run and of the untrained student, on each of `BENCHMARKS`."""
    found = []
    for place, model in enumerate([None, *runs]):
        for benchmark in BENCHMARKS:
            found.append(_graded(workspace, model, benchmark, num_problems, num_samples, seed=place))
    return found


def _run(workspace: Workspace, selection: Artifact, number: int, num_steps: int) -> Artifact:
    config = TrainConfig(method="lora", student="student", recipe=f"lora-{number:03d}", lr=1e-5 * (number + 1))
    values = config.model_dump(mode="json")
    identity = {"student": "s0", "data": selection.fingerprint, "version": VERSION}
    plan = Plan(
        kind="checkpoints", name=config.recipe, fingerprint=fingerprint([values, identity]), config=values,
        inputs={"selection": selection.ref}, identity=identity, seed=0,
    )  # fmt: skip

    def make(draft: Draft) -> None:
        write_events(draft.path / EVENTS, num_steps, seed=number)
        draft.counts = {"num_steps": num_steps, "num_sequences": 15_000, "tokens_seen": num_steps * _STEP_TOKENS}
        draft.metrics = {"first_loss": 1.5, "last_loss": 0.6 + number / 1000}
        draft.device, draft.tokens = "cuda", num_steps * _STEP_TOKENS

    return workspace.build(plan, make)


def _graded(
    workspace: Workspace, model: Artifact | None, benchmark: str, num_problems: int, num_samples: int, seed: int
) -> Artifact:
    """The grade of one model on one benchmark, with verdicts drawn at random."""
    name = model.id if model else "student"
    problems = [
        {"problem_id": f"p{p}", "prompt": f"What is {p} + {p}?", "reference": str(2 * p), "level": str(p % 5 + 1),
         "subject": None}
        for p in range(num_problems)
    ]  # fmt: skip
    rng = np.random.default_rng([seed, len(benchmark)])
    skill_N = np.clip(rng.normal(0.45 + 0.002 * seed, 0.3, num_problems), 0, 1)
    correct_NK = rng.random((num_problems, num_samples)) < skill_N[:, None]
    config = GenerateConfig(benchmark=(benchmark,), n_samples=num_samples).model_dump(
        mode="json", exclude={"benchmark"}
    )
    asked = {
        "name": benchmark, "content": fingerprint(problems), "answer_type": "number", "system_prompt": "",
        "limit": None, "own_system_prompt": "", "source": f"{benchmark}=/absent/{benchmark}.json",
    }  # fmt: skip
    whose = {"name": name, "content": name, "is_adapter": model is not None, "origin": name}
    plan = Plan(
        kind="evals", name=benchmark, fingerprint=fingerprint([name, asked, config]), config=config,
        identity={"model": whose, "benchmark": asked}, inputs={"model": model.ref} if model else {},
        parent=workspace.root / "evals" / name,
    )  # fmt: skip
    samples = [
        {"problem_id": problem["problem_id"], "sample_index": k, "seed": k, "num_tokens": int(200 + 10 * k),
         "finish_reason": "stop", "text": f"\\boxed{{{problem['reference'] if correct_NK[n, k] else -1}}}"}
        for n, problem in enumerate(problems) for k in range(num_samples)
    ]  # fmt: skip
    generations = workspace.build(plan, lambda draft: _write_rows(draft, {PROBLEMS: problems, GENERATIONS: samples}))
    rows = [
        {**{key: sample[key] for key in ("problem_id", "sample_index", "finish_reason", "num_tokens")},
         "reference": problem["reference"], "level": problem["level"], "subject": None, "reason": None, "rule": "boxed",
         "prediction": problem["reference"] if right else "-1", "correct": bool(right)}
        for problem, right_K, at in zip(problems, correct_NK, range(0, len(samples), num_samples), strict=True)
        for sample, right in zip(samples[at : at + num_samples], right_K, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))

    def make(draft: Draft) -> None:
        table.to_parquet(draft.path / GRADES, index=False)
        draft.metrics = metrics_of(table)
        write_json(draft.path / METRICS, draft.metrics)
        draft.counts = {"num_problems": num_problems, "num_generations": len(table), "num_truncated": 0,
                        "num_correct": int(table["correct"].sum())}  # fmt: skip

    return workspace.build(plan_grade(GradeConfig(), workspace, generations), make)


def _write_rows(draft: Draft, files: dict[str, list[dict[str, Any]]]) -> None:
    for name, rows in files.items():
        (draft.path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _plain(workspace: Workspace, kind: Any, name: str, config: dict[str, Any]) -> Artifact:
    """An artifact without files."""
    plan = Plan(kind=kind, name=name, fingerprint=fingerprint([kind, name, config]), config=config)
    return workspace.build(plan, lambda draft: None)
