from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import GenerateConfig, GradeConfig
from lark_engine.evaluation.benchmarks import Benchmark, load_benchmark
from lark_engine.evaluation.generate import GENERATIONS, PROBLEMS, plan_generation
from lark_engine.evaluation.grade import grade
from lark_engine.evaluation.matrix import MatrixCell, matrix_cell, measured_speed, model_to_plan, with_each_dtype
from lark_engine.models import ModelRef
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

MODEL = ModelRef(name="tiny", path=Path("/models/tiny"), content="c0")
CONFIG = GenerateConfig(benchmark=("sums",), n_samples=2)


@pytest.fixture
def benchmark(benchmark_path: Path) -> Benchmark:
    return load_benchmark(str(benchmark_path))


def sampled(workspace: Workspace, plan: Plan, benchmark: Benchmark, **said: Any) -> Artifact:
    def make(draft: Draft) -> None:
        rows = [{"problem_id": p.problem_id, "prompt": p.prompt, "reference": p.reference, "level": None,
                 "subject": None} for p in benchmark.problems]  # fmt: skip
        samples = [{"problem_id": p.problem_id, "sample_index": k, "text": r"\boxed{2}", "num_tokens": 5, "seed": k,
                    "finish_reason": "stop"} for p in benchmark.problems for k in range(2)]  # fmt: skip
        for name, content in ((PROBLEMS, rows), (GENERATIONS, samples)):
            (draft.path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
        for name, value in said.items():
            setattr(draft, name, value)

    return workspace.build(plan, make)


def cell(workspace: Workspace, benchmark: Benchmark, config: GenerateConfig = CONFIG, **rules: Any) -> MatrixCell:
    return matrix_cell(config, GradeConfig(**rules), workspace, MODEL, benchmark)


def test_a_cell_goes_from_missing_to_partial_to_generated_to_done(workspace: Workspace, benchmark: Benchmark) -> None:
    missing = cell(workspace, benchmark)
    assert (missing.state, missing.num_done, missing.num_samples, missing.num_missing) == ("missing", 0, 6, 6)
    assert not workspace.root.exists()  # looking writes nothing
    plan = plan_generation(CONFIG, workspace, MODEL, benchmark)
    folder = workspace.folder(plan)
    folder.mkdir(parents=True)
    (folder / GENERATIONS).write_text("{}\n{}\n")
    partial = cell(workspace, benchmark)
    assert (partial.state, partial.num_done, partial.num_missing) == ("partial", 2, 4)
    made = sampled(workspace, plan, benchmark)
    generated = cell(workspace, benchmark)
    assert (generated.state, generated.generations, generated.grade) == ("generated", made, None)
    graded = grade(GradeConfig(), workspace, made)
    done = cell(workspace, benchmark)
    assert (done.state, done.grade, done.num_missing) == ("done", graded, 0)


def test_other_options_are_another_cell_and_other_rules_another_grade(
    workspace: Workspace, benchmark: Benchmark
) -> None:
    made = sampled(workspace, plan_generation(CONFIG, workspace, MODEL, benchmark), benchmark)
    graded = grade(GradeConfig(), workspace, made)
    assert cell(workspace, benchmark, CONFIG.model_copy(update={"n_samples": 3})).state == "missing"
    otherwise = cell(workspace, benchmark, rules=("boxed",))
    assert (otherwise.state, otherwise.grade) == ("graded_otherwise", graded)


def test_a_cell_runs_while_a_live_process_holds_it(workspace: Workspace, benchmark: Benchmark) -> None:
    folder = workspace.folder(plan_generation(CONFIG, workspace, MODEL, benchmark))
    folder.mkdir(parents=True)
    event = {"stage": "generate", "done": 4, "total": 6, "unit": "sample", "rate": 2.0, "eta_s": 1.5}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = cell(workspace, benchmark)
    assert (running.state, running.num_done, running.eta_s) == ("running", 4, 1.5)
    after = cell(workspace, benchmark)
    assert (after.state, after.num_done, after.eta_s) == ("partial", 4, None)


@pytest.mark.parametrize(("backend", "device", "expected"), [
    ("vllm", "auto", ["auto"]), ("transformers", "auto", ["float32", "bfloat16"]), ("transformers", "cpu", ["float32"]),
    ("transformers", "cuda", ["bfloat16"]),
])  # fmt: skip
def test_what_a_precision_may_mean_is_known_without_a_device(backend: Any, device: Any, expected: list[str]) -> None:
    config = GenerateConfig(benchmark=("sums",), backend=backend, device=device)
    assert [one.dtype for one in with_each_dtype(config)] == expected


def test_either_precision_of_transformers_counts(workspace: Workspace, benchmark: Benchmark) -> None:
    config = CONFIG.model_copy(update={"backend": "transformers"})
    on_cuda = config.model_copy(update={"dtype": "bfloat16"})
    made = sampled(workspace, plan_generation(on_cuda, workspace, MODEL, benchmark), benchmark)
    assert cell(workspace, benchmark, config).generations == made


def test_an_adapter_is_planned_without_its_base_model(workspace: Workspace) -> None:
    plan = Plan(kind="checkpoints", name="lora", fingerprint="0123456789ab", config={"student": "/nowhere"})
    artifact = workspace.build(plan, lambda draft: (draft.path / "adapter").mkdir())
    model = model_to_plan(artifact, workspace)
    assert (model.name, model.content, model.origin) == ("lora-0123456789ab", "0123456789ab", artifact.id)


def test_speed_is_that_of_the_same_models_where_it_was_measured(workspace: Workspace, benchmark: Benchmark) -> None:
    evals = []
    for name, tokens, wall_s in (("tiny", 1000, 10.0), ("other", 9000, 10.0), ("resumed", 5000, 1.0)):
        model = ModelRef(name=name, path=Path("/models"), content=name)
        counts = {"num_generations": 10}
        plan = plan_generation(CONFIG, workspace, model, benchmark)
        made = sampled(workspace, plan, benchmark, tokens=tokens, counts=counts)
        manifest = made.manifest.model_copy(update={"wall_s": wall_s})
        evals.append(Artifact(made.path, manifest))
        starts = 2 if name == "resumed" else 1
        (made.path / "events.jsonl").write_text('{"time": 1, "message": "starting", "missing": 1}\n' * starts)
    own = measured_speed(evals, "vllm", ["tiny"])
    assert own is not None
    assert (own.tokens_per_s, own.tokens_per_sample, own.num_runs, own.of_these) == (100.0, 100.0, 1, True)
    others = measured_speed(evals, "vllm", ["new"])
    assert others is not None
    assert (others.tokens_per_s, others.num_runs, others.of_these) == (500.0, 2, False)  # without the resumed one
    assert measured_speed(evals, "transformers", ["tiny"]) is None
