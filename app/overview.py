"""What the Overview says, computed from a snapshot of the workspace: stage cards, next step, lineage. No Streamlit."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from app.address import SCORES, Page
from app.loaders import Snapshot, Unfinished
from lark_engine.figures import formats
from lark_engine.jobs.status import RESUMABLE, JobView
from lark_engine.store.workspace import Artifact, InputRef, Kind, Manifest

State = Literal["ready", "running", "stopped", "none"]


class Stage(NamedTuple):
    """A place of the strip: the kinds of artifact that belong to it (the last is what it shows), and what it is for."""

    label: str
    kinds: tuple[Kind, ...]
    noun: str
    purpose: str


STAGES = (
    Stage("Pool", ("pools",), "pool", "candidate solutions by several teachers"),
    Stage("Scores", ("scores",), "score set", "ĝ: what your student can learn from each"),
    Stage("Selection", ("selections",), "selection", "what to train on, and with what weight"),
    Stage("Checkpoint", ("checkpoints",), "checkpoint", "your student, trained"),
    Stage("Results", ("evals", "grades"), "result", "accuracy on benchmarks, with intervals"),
)
_ORDER: tuple[Kind, ...] = ("grades", "evals", "checkpoints", "selections", "scores", "pools", "students")
NOUNS: dict[Kind, str] = {
    "pools": "Pool", "students": "Student", "benchmarks": "Benchmark", "scores": "Scores", "selections": "Selection",
    "checkpoints": "Checkpoint", "sweeps": "Sweep", "evals": "Generations", "grades": "Grades",
}  # fmt: skip


class StageCard(NamedTuple):
    """One stage of the pipeline: its state, the newest artifact in figures, and its age."""

    label: str
    state: State
    headline: str
    unit: str
    details: tuple[str, ...]
    age: str
    total: str


class Step(NamedTuple):
    """What to do next, the command that does it, and the page that does it too: its link's words and parameters."""

    sentence: str
    command: str
    page: Page | None = None
    label: str = ""
    params: tuple[tuple[str, str], ...] = ()


class Link(NamedTuple):
    """One artifact of a lineage; `artifact` is None when it is no longer in the workspace."""

    noun: str
    id: str
    artifact: Artifact | None


class Chain(NamedTuple):
    """Where one result comes from."""

    title: str
    links: list[Link]


DEMO = "See the whole pipeline run on an embedded pool with a real 135M student. It takes a few minutes on a CPU."
FIRST_STEPS = (
    Step(
        "1 · Import a pool of your own: JSONL, Parquet, a folder of teachers, or a Hugging Face id.",
        "lark pool import FILE", "score", "Pool and scores", (("task", "add"),),
    ),
    Step(
        "2 · Score every candidate under your student, then choose what to train on.",
        "lark score --pool POOL --student STUDENT", "score", "Pool and scores",
    ),
    Step(
        "3 · Train and evaluate: page by page, or all stages at once as a recipe says.",
        "lark run recipe.yaml", "train", "Train",
    ),
)  # fmt: skip


def stage_cards(snapshot: Snapshot, unfinished: Iterable[Unfinished], now: datetime) -> list[StageCard]:
    """The pipeline strip, left to right."""
    open_work = list(unfinished)
    return [_card(stage, snapshot, open_work, now) for stage in STAGES]


def _card(stage: Stage, snapshot: Snapshot, open_work: list[Unfinished], now: datetime) -> StageCard:
    own = [item for item in open_work if item.kind in stage.kinds]
    newest = snapshot.newest(stage.kinds[-1])
    number = len(snapshot.artifacts[stage.kinds[-1]])
    if any(item.running for item in own):
        state: State = "running"
    elif newest is not None:
        state = "ready"
    else:
        state = "stopped" if own else "none"
    total = f"{number} {stage.noun}{'s' if number != 1 else ''}" if number else ""
    if newest is None:
        return StageCard(stage.label, state, "", "", (stage.purpose,), "", total)
    headline, unit, details = _figures(newest.manifest)
    if newest.kind != "grades" and (dropped := sum(newest.manifest.drops.values())):
        details = (*details, f"{formats.count(dropped)} dropped")
    return StageCard(stage.label, state, headline, unit, details, formats.age(newest.manifest.created_at, now), total)


def _figures(manifest: Manifest) -> tuple[str, str, tuple[str, ...]]:
    """The most telling count of an artifact, its unit, and up to two more facts."""
    counts, config = manifest.counts, manifest.config
    if manifest.kind == "pools":
        facts = [_counted(counts, "num_problems", "problem"), _counted(counts, "num_teachers", "teacher")]
        return _head(counts, "num_trajectories", "candidates", facts)
    if manifest.kind == "scores":
        facts = [_counted(counts, "num_problems", "problem"), f"{formats.count(manifest.tokens or 0)} tokens"]
        return _head(counts, "num_trajectories", "scored", facts)
    if manifest.kind == "selections":
        budget = config.get("budget", config.get("B"))
        rule = formats.rule(str(config.get("rule", "")))
        facts = [_counted(counts, "num_problems", "problem"), f"{rule}, B = {budget}" if budget is not None else rule]
        return _head(counts, "num_trajectories", "kept", facts)
    if manifest.kind == "checkpoints":
        loss = manifest.metrics.get("last_loss")
        facts = [
            formats.method(str(config.get("method", ""))),
            f"loss {loss:.3f}" if isinstance(loss, int | float) else "",
        ]
        return _head(counts, "num_steps", "steps", facts)
    facts = [_counted(counts, "num_problems", "problem"), _counted(counts, "num_correct", "correct", plural="correct")]
    return _head(counts, "num_generations", "graded", facts)


def _head(counts: dict[str, int], key: str, unit: str, facts: list[str]) -> tuple[str, str, tuple[str, ...]]:
    details = tuple(fact for fact in facts if fact)
    if key in counts:
        return formats.count(counts[key]), unit, details
    return "✓", "finished", details


def _counted(counts: dict[str, int], key: str, noun: str, plural: str | None = None) -> str:
    if key not in counts:
        return ""
    number = counts[key]
    return f"{formats.count(number)} {noun if number == 1 else plural or noun + 's'}"


def next_step(snapshot: Snapshot, unfinished: Iterable[Unfinished], jobs: Sequence[JobView] = ()) -> Step:
    """The first thing that the pipeline lacks, as a sentence, a command and a page (none while something runs)."""
    open_work = list(unfinished)
    if any(item.running for item in open_work) or any(job.is_live for job in jobs):
        return Step("Wait for what is being made; this page follows it.", "")
    if open_work:
        return _go_on(open_work[0], jobs)
    pool, scores = snapshot.newest("pools"), snapshot.newest("scores")
    selection, checkpoint = snapshot.newest("selections"), snapshot.newest("checkpoints")
    newest_student = snapshot.newest("students")
    student = _q(newest_student) if newest_student else "STUDENT"
    if pool and not scores:
        command = f"lark score --pool {_q(pool)} --student {student}"
        return Step("Score every candidate under your student:", command, "score", "Pool and scores")
    if scores and not selection:
        command = f"lark select --scores {_q(scores)} --B 3"
        return Step("Choose what to train on:", command, "tune", "Tune", ((SCORES, scores.id),))
    if selection and not checkpoint:
        scored = snapshot.find(ref) if (ref := selection.manifest.inputs.get("scores")) else None
        whose = (
            shlex.quote(str(scored.manifest.config["student"]))
            if scored and scored.manifest.config.get("student")
            else student
        )
        command = f"lark train lora --train-data {_q(selection)} --student {whose}"
        return Step("Train the student on the selection:", command, "train", "Train")
    if checkpoint and not snapshot.newest("grades"):
        command = f"lark generate --model {_q(checkpoint)} --benchmark FILE.json"
        sentence = "Sample answers to a benchmark, then grade them:"
        return Step(sentence, command, "evaluate", "Evaluate", (("view", "run"),))
    if checkpoint:
        return Step("Compare and export the results:", "lark table", "evaluate", "Evaluate")
    return FIRST_STEPS[0]


def _go_on(item: Unfinished, jobs: Sequence[JobView]) -> Step:
    """What goes on with an unfinished artifact: the job that began it, else the same command."""
    what = f"{NOUNS[item.kind]} {item.name} is unfinished."
    if item.is_refused:
        sentence = f"The import {item.name} was refused: see which lines are bad, mend them or leave them out."
        return Step(sentence, "", "score", "Pool and scores", (("rejected", item.name),))
    for job in jobs:
        if job.state in RESUMABLE and item.place in job.job.artifacts():
            params = (("job", job.id),)
            if job.state == "failed" and not (job.verdict or {}).get("is_transient"):
                return Step(f"{what} Its job failed; what to do is said there.", "", "jobs", "Its job", params)
            how = job.state if job.state == "failed" else f"was {job.state}"
            command = f"lark jobs resume {shlex.quote(job.id)}"
            return Step(f"{what} Its job {how}; it can be resumed:", command, "jobs", "Its job", params)
    return Step(f"{what} Run the command that began it again; it resumes.", "")


def unowned(unfinished: Iterable[Unfinished], jobs: Sequence[JobView]) -> list[Unfinished]:
    """The unfinished artifacts that no live job is at: these stand for themselves."""
    built = {place for job in jobs if job.is_live for place in job.job.artifacts()}
    return [item for item in unfinished if item.place not in built]


def _q(artifact: Artifact) -> str:
    return shlex.quote(artifact.id)


def chains(snapshot: Snapshot) -> list[Chain]:
    """The lineage of every graded result, newest first."""
    return [Chain(_title(grade), lineage(grade, snapshot)) for grade in snapshot.artifacts["grades"]]


def _title(grade: Artifact) -> str:
    """Model and benchmark as the folders say: evals/<model>/<benchmark>-<fingerprint>/grades/<rules>-<fingerprint>/."""
    generations = grade.path.parents[1]
    return f"{generations.parent.name} on {generations.name.rpartition('-')[0]}"


def lineage(artifact: Artifact, snapshot: Snapshot) -> list[Link]:
    """An artifact and everything that it was made from, results first, the pool and the student last."""
    seen: dict[tuple[Kind, str], InputRef] = {}
    queue = [artifact.ref]
    while queue:
        ref = queue.pop()
        if (ref.kind, ref.fingerprint) in seen:
            continue
        seen[ref.kind, ref.fingerprint] = ref
        found = artifact if ref == artifact.ref else snapshot.find(ref)
        queue.extend(found.manifest.inputs.values() if found else ())
    refs = sorted(seen.values(), key=lambda ref: (_ORDER.index(ref.kind), ref.id))
    return [Link(NOUNS[r.kind], r.id, artifact if r == artifact.ref else snapshot.find(r)) for r in refs]
