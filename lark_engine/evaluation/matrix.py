"""What of a matrix of models and benchmarks is there already: looked up by fingerprint, nothing is loaded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lark_engine.config import GenerateConfig, GradeConfig
from lark_engine.evaluation.benchmarks import Benchmark
from lark_engine.evaluation.generate import GENERATIONS, plan_generation
from lark_engine.evaluation.grade import plan_grade
from lark_engine.models import ADAPTER_DIR, STUDENT_DIR, ModelRef, resolve_student
from lark_engine.store.events import last_event
from lark_engine.store.lock import is_held_lock
from lark_engine.store.workspace import Artifact, Plan, Workspace, read_artifact

State = Literal["done", "graded_otherwise", "generated", "running", "partial", "missing"]
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """One model on one benchmark, sampled and graded with certain options.

    `state`: done (sampled and graded so), graded_otherwise (sampled so, graded by other options only: `grade` is the
    newest of these), generated (not graded), running (a live process samples it), partial (some samples are kept), or
    missing. `num_done` of `num_samples` samples are there.
    """

    model: ModelRef
    benchmark: Benchmark
    state: State
    num_samples: int
    num_done: int
    generations: Artifact | None = None
    grade: Artifact | None = None
    eta_s: float | None = None

    @property
    def num_missing(self) -> int:
        return max(self.num_samples - self.num_done, 0)


def matrix_cell(
    config: GenerateConfig, grading: GradeConfig, workspace: Workspace, model: ModelRef, benchmark: Benchmark
) -> MatrixCell:
    """The state of one cell. Which precision `auto` means is for the process with the device to say: any counts."""
    known = {"model": model, "benchmark": benchmark, "num_samples": len(benchmark.problems) * config.n_samples}
    plans = [plan_generation(one, workspace, model, benchmark) for one in with_each_dtype(config)]
    for plan in plans:
        if (made := workspace.find(plan)) is not None:
            return _generated(grading, workspace, made, known)
    found = [_unfinished(workspace.folder(plan), known) for plan in plans]
    return max(found, key=lambda cell: (cell.state == "running", cell.num_done))


def with_each_dtype(config: GenerateConfig) -> list[GenerateConfig]:
    """The config with each precision that it may mean, without asking torch for the device."""
    if config.backend != "transformers" or config.dtype != "auto":
        return [config]
    found = {"cpu": ("float32",), "cuda": ("bfloat16",)}.get(config.device, ("float32", "bfloat16"))
    return [config.model_copy(update={"dtype": name}) for name in found]


def model_to_plan(artifact: Artifact, workspace: Workspace) -> ModelRef:
    """A student or checkpoint as plans know it; an adapter's base model is not looked for.

    Errors: `StudentError` for a student without its files.
    """
    if artifact.kind == "students":
        return resolve_student(artifact.id, workspace)
    adapter = artifact.path / ADAPTER_DIR
    path = adapter if adapter.is_dir() else artifact.path / STUDENT_DIR
    return ModelRef(name=artifact.id, path=path, content=artifact.fingerprint, artifact=artifact)


def _generated(grading: GradeConfig, workspace: Workspace, made: Artifact, known: dict[str, Any]) -> MatrixCell:
    plan = plan_grade(grading, workspace, made, answer_type=known["benchmark"].answer_type)
    state: State = "done"
    if (grade := workspace.find(plan)) is None:
        others = [read_artifact(folder) for folder in _parent(plan).glob("*")]
        grade = max((a for a in others if a), key=lambda a: a.manifest.created_at, default=None)
        state = "generated" if grade is None else "graded_otherwise"
    return MatrixCell(**known, state=state, num_done=known["num_samples"], generations=made, grade=grade)


def _parent(plan: Plan) -> Path:
    assert plan.parent is not None, "grades lie under their generations"
    return plan.parent


def _unfinished(folder: Path, known: dict[str, Any]) -> MatrixCell:
    event = last_event(folder / "events.jsonl") or {}
    done = event.get("done")
    num_done = done if isinstance(done, int) else _num_lines(folder / GENERATIONS)
    is_running = is_held_lock(folder / ".lock")
    eta_s = event.get("eta_s")
    return MatrixCell(
        **known, state="running" if is_running else "partial" if num_done else "missing",
        num_done=min(num_done, known["num_samples"]),
        eta_s=float(eta_s) if is_running and isinstance(eta_s, int | float) else None,
    )  # fmt: skip


def _num_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))
    except OSError:
        return 0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast samples were made here: by `num_runs` earlier generations; `of_these` where they are of these models."""

    tokens_per_s: float
    tokens_per_sample: float
    num_runs: int
    of_these: bool


_MOST_RUNS = 10


def measured_speed(evals: Sequence[Artifact], backend: str, models: Collection[str]) -> Speed | None:
    """From finished generations, newest first, with this backend: of the models with these names, else of any.

    None without one. The time is that of the whole stage, so that what starting a server takes is in it. Generations
    that were resumed are left out: their manifests have the samples of all sessions and the time of the last.
    """
    timed = [a for a in evals if a.manifest.config.get("backend") == backend and _is_timed(a)]
    own = [a for a in timed if a.manifest.identity["model"]["name"] in models]
    used = (own or timed)[:_MOST_RUNS]
    if not used:
        return None
    tokens = sum(a.manifest.tokens or 0 for a in used)
    return Speed(
        tokens_per_s=tokens / sum(a.manifest.wall_s for a in used),
        tokens_per_sample=tokens / sum(a.manifest.counts["num_generations"] for a in used),
        num_runs=len(used), of_these=bool(own),
    )  # fmt: skip


def _is_timed(generations: Artifact) -> bool:
    manifest = generations.manifest
    if not (manifest.tokens and manifest.wall_s > 0 and manifest.counts.get("num_generations")):
        return False
    try:
        with (generations.path / "events.jsonl").open("rb") as file:
            return sum(b'"message": "starting"' in line for line in file) <= 1
    except OSError:
        return True
