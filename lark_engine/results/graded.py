"""What has been graded: each grade with its generations, where it comes from, and what has changed since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lark_engine.evaluation.generate import SAMPLING_OPTIONS
from lark_engine.printing import one_line
from lark_engine.results.lineage import Lineage
from lark_engine.results.stale import Staleness
from lark_engine.results.sweeps import Member, members
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Kind, Workspace, read_artifact


@dataclass(frozen=True)
class Graded:
    """A grade and all that it was made from, by kind the nearest; `place` is its folder below the workspace."""

    grade: Artifact
    generations: Artifact
    sources: dict[Kind, Artifact]
    member: Member | None
    stale: tuple[str, ...]
    place: str

    @property
    def model(self) -> dict[str, Any]:
        """Name, content and kind of the model, as its generations keep them."""
        return dict(self.generations.manifest.identity["model"])

    @property
    def benchmark(self) -> str:
        return self.generations.name

    @property
    def asked(self) -> str:
        """The content of the problems: what is compared or pooled must have been asked the same."""
        return str(self.generations.manifest.identity["benchmark"]["content"])

    @property
    def checkpoint_id(self) -> str | None:
        """The checkpoint that was sampled; known also when it has been deleted since."""
        ref = self.generations.manifest.inputs.get("model")
        return ref.id if ref and ref.kind == "checkpoints" else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How it was sampled and graded, but for what belongs to the benchmark: rows of one table row share it."""
        sampled = {k: v for k, v in self.generations.manifest.config.items() if k not in ("system_prompt", "limit")}
        if (prompt := self._prompt_of_the_user) is not None:
            sampled["system_prompt"] = prompt
        return {**sampled, "grading": self.grade.name, "math_verify": self.grade.manifest.identity.get("math_verify")}

    @property
    def sampling(self) -> str:
        """The sampling in words."""
        config = self.generations.manifest.config
        usual = {"repetition_penalty": 1.0, "stop_after_box": False, "seed": 0, "max_model_len": None}
        given = {name: config[name] for name in SAMPLING_OPTIONS if name in config}
        words = [f"{SAMPLING_OPTIONS[n]}={value}" for n, value in given.items() if value != usual.get(n)]
        prompt = self._prompt_of_the_user
        return " ".join(words + ([] if prompt is None else [f"prompt={one_line(prompt, 20)!r}"]))

    @property
    def _prompt_of_the_user(self) -> str | None:
        """The system prompt that was asked with in place of the benchmark's own."""
        benchmark = self.generations.manifest.identity["benchmark"]
        prompt = str(benchmark.get("system_prompt"))
        return prompt if prompt != str(benchmark.get("own_system_prompt", prompt)) else None

    @cached_property
    def row(self) -> str:
        """What results that stand in one row have in common: the model, and how it was sampled and graded."""
        return fingerprint([self.model.get("name"), self.model.get("content"), self.settings])


class Found(NamedTuple):
    """What could be read, oldest first, and a sentence for each grade that could not."""

    graded: list[Graded]
    problems: list[str]


def read_graded(workspace: Workspace, grades: Sequence[Artifact] | None = None) -> Found:
    """These grades, or all of the workspace. A grade whose generations are gone or damaged is named as a problem.

    Of several grades of the same generations with the same options, by older rules or another answer type, the newest
    is what there is.
    """
    lineage, swept = Lineage(workspace), members(workspace)
    stale = Staleness(lineage)
    newest: dict[tuple[Path, str], Graded] = {}
    problems = []
    for grade in reversed(workspace.list("grades") if grades is None else list(grades)):
        place = str(grade.path.relative_to(workspace.root))
        generations = read_artifact(grade.path.parents[1])
        is_whole = generations is not None and {"model", "benchmark"} <= generations.manifest.identity.keys()
        if generations is None or not is_whole or "generations" not in grade.manifest.inputs:
            problems.append(f"{place}: its generations are gone or damaged")
            continue
        sources: dict[Kind, Artifact] = {}
        for artifact in lineage.of(grade):
            sources.setdefault(artifact.kind, artifact)
        ref = generations.manifest.inputs.get("model")
        member = swept.get(ref.id) if ref else None
        key = (generations.path, fingerprint(grade.manifest.config))
        newest.pop(key, None)
        newest[key] = Graded(grade, generations, sources, member, tuple(stale.of(grade)), place)
    return Found(list(newest.values()), problems)
