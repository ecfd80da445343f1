"""What a report is made from: one set of scores, and what follows from it, each read when a block first asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import pandas as pd

from lark_engine.config import ReportConfig, SelectConfig, TrainConfig
from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.evaluation.registry import key
from lark_engine.explore.view import ViewFilter
from lark_engine.figures.explore_scene import Scene
from lark_engine.figures.scored import ScoredPool, read_scored
from lark_engine.figures.side_words import first_sides, labels_of, share
from lark_engine.figures.tune_cards import Setting, scales_of
from lark_engine.figures.tuning import Outcome, budget_curve, budget_text, outcome
from lark_engine.recipes import train_recipe
from lark_engine.results.compare import Compared, compare_graded
from lark_engine.results.graded import Graded, read_graded
from lark_engine.results.lineage import Lineage
from lark_engine.results.methods import by_method
from lark_engine.results.sides import choices
from lark_engine.results.table import read_results
from lark_engine.selection.frame import SelectionFrame
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.curves import Curves, RunCurves
from lark_engine.training.runs import Run, find_run, training_runs

ReadScored = Callable[[Artifact, Artifact], ScoredPool]
_LISTS = ("teachers", "exclude_teachers")


class Missing(NamedTuple):
    """In place of a section: why there is none, and what would make it."""

    why: str


class Chosen(NamedTuple):
    """A selection of the report: its options, and the saved one if there is one of them."""

    config: SelectConfig
    saved: Artifact | None


class Sides(NamedTuple):
    """A comparison of results with the names of its sides for people."""

    compared: Compared
    label_a: str
    label_b: str


class Material:
    """The workspace as a report sees it. Whoever has read scores already passes `read`."""

    def __init__(self, workspace: Workspace, config: ReportConfig, *, read: ReadScored = read_scored):
        self.workspace = workspace
        self.config = config
        self.lineage = Lineage(workspace)
        self._read = read
        self._frames: dict[str, SelectionFrame] = {}

    @cached_property
    def scores(self) -> Artifact | None:
        """Errors: `StoreError` when the named scores are not there."""
        if self.config.scores is not None:
            return self.workspace.resolve("scores", self.config.scores)
        return next((found for found in self.workspace.list("scores") if self._pool_of(found) is not None), None)

    @cached_property
    def pool(self) -> Artifact | None:
        """The pool of the scores; without scores the newest."""
        if self.scores is not None:
            return self._pool_of(self.scores)
        return next(iter(self.workspace.list("pools")), None)

    def _pool_of(self, scores: Artifact) -> Artifact | None:
        ref = scores.manifest.inputs.get("pool")
        return self.lineage.input(scores, ref) if ref else None

    @cached_property
    def scored(self) -> ScoredPool | None:
        return self._read(self.scores, self.pool) if self.scores and self.pool else None

    def frame_of(self, config: SelectConfig) -> SelectionFrame:
        """The frame of a config's pool edits and energy, sorted once."""
        assert self.scored is not None
        name = repr(sorted(config.pool_edit.items()))
        if name not in self._frames:
            self._frames[name] = SelectionFrame(self.scored.candidates, config)
        return self._frames[name]

    @cached_property
    def saved(self) -> list[Artifact]:
        """Selections of these scores, newest first."""
        if self.scores is None:
            return []
        fingerprint = self.scores.fingerprint
        return [
            found for found in self.workspace.list("selections")
            if (ref := found.manifest.inputs.get("scores")) is not None and ref.fingerprint == fingerprint
        ]  # fmt: skip

    @cached_property
    def chosen(self) -> tuple[Chosen, Chosen | None]:
        """Selections A and B. Where none is named: the two newest saved, or the one, or the paper rule.

        Errors: `ConfigError`, `StoreError` for a name or options that mean none.
        """
        if self.config.selection_a is not None:
            named_b = self.config.selection_b
            return self._selection(self.config.selection_a, "a"), self._selection(named_b, "b") if named_b else None
        newest = [_of_saved(found) for found in self.saved[:2]]
        if len(newest) == 2:
            return newest[1], newest[0]
        return (newest[0] if newest else Chosen(SelectConfig(), None)), None

    def _selection(self, said: str, side: str) -> Chosen:
        if "=" not in said and said != "default":
            return _of_saved(self.workspace.resolve("selections", said))
        config = unpacked(said, f"--selection-{side}")
        asked = config.identity()
        return Chosen(config, next((one for one in self.saved if _of_saved(one).config.identity() == asked), None))

    @cached_property
    def shown(self) -> tuple[Outcome, Outcome | None]:
        """The selection in front, and the one that it is shown against: B against A, or A alone."""
        a, b = self.chosen
        first = outcome(self.frame_of, a.config, "A")
        return (first, None) if b is None else (outcome(self.frame_of, b.config, "B"), first)

    @property
    def selection_words(self) -> str:
        """`A: χ² · B = 3`; and where there are two, `B: …`."""
        named = zip("AB", self.chosen, strict=True)
        return "; ".join(f"{name}: {budget_text(one.config)}" for name, one in named if one is not None)

    @cached_property
    def setting(self) -> Setting:
        assert self.scored is not None
        config = self.shown[0].config
        frame = self.frame_of(config)
        return Setting(
            scored=self.scored, frame_of=self.frame_of, curve=budget_curve(frame, config),
            scales=scales_of(frame, config),
        )  # fmt: skip

    @cached_property
    def scene(self) -> Scene:
        """All candidates of the selection in front, by ĝ."""
        assert self.scored is not None
        config = self.shown[0].config
        return Scene(self.scored, self.frame_of(config), config, ViewFilter(), None, "g_hat", False)

    @cached_property
    def run(self) -> Run | None:
        """The training run. Errors: `ConfigError` for a name that is none."""
        runs = training_runs(self.workspace)
        if self.config.run is not None:
            found = find_run(runs, self.config.run)
            if found is None:
                names = [run.id for run in runs]
                hint = did_you_mean(self.config.run, names) if names else "; the workspace holds none yet"
                raise ConfigError(f"no training run '{self.config.run}'{hint}")
            return found
        ours = {found.id for found in self.saved}
        return next((run for run in runs if run.selection in ours and run.events_path is not None), None)

    @cached_property
    def curves(self) -> Curves | None:
        return RunCurves(self.run.events_path).read() if self.run and self.run.events_path else None

    @cached_property
    def train_config(self) -> tuple[str, TrainConfig]:
        """The recipe that the cost is for. Errors: `ConfigError` for one that is none."""
        name = self.config.recipe
        if name is None and self.run is not None and self.run.config:
            return self.run.recipe or "of the run", TrainConfig.parse(dict(self.run.config), f"run {self.run.id}")
        name = name or "lora"
        return name, TrainConfig.parse({**train_recipe(name), "student": "student"}, f"recipe {name}")

    @cached_property
    def graded(self) -> list[Graded]:
        """Grades of models that were trained on these scores, and of models that were trained on none, oldest first."""
        ours = self.scores.id if self.scores else None
        wanted = {key(name) for name in self.config.benchmark}
        return [
            one for one in read_graded(self.workspace).graded
            if (not wanted or key(one.benchmark) in wanted)
            and (ours is None or "scores" not in one.sources or one.sources["scores"].id == ours)
        ]  # fmt: skip

    @cached_property
    def results(self) -> pd.DataFrame:
        """The tidy results table. Errors: `ConfigError` when a named benchmark has no grades."""
        known = {one.benchmark for one in self.graded}
        for name in self.config.benchmark:
            if key(name) not in map(key, known):
                raise ConfigError(f"no grades of {name}" + (did_you_mean(name, known) if known else ""))
        table = read_results(self.workspace, grades=[one.grade for one in self.graded[::-1]]).table
        return by_method(table, self.workspace) if self.config.by_method else table

    @cached_property
    def sides(self) -> Sides | Missing:
        """The comparison that is asked for, else of the newest trained model with its student, or with another."""
        found = {choice.name: choice for choice in choices(self.graded[::-1])}
        a, b = self.config.compare_a, self.config.compare_b
        if a is None or b is None:
            if len(found) < 2:
                return Missing("it takes two graded models; grade another one")
            a, b = first_sides(found)
            if not share(found[a], found[b]):
                return Missing("no two graded models were asked the same problems")
        labels = labels_of(list(found.values()))
        compared = compare_graded(self.graded, a, b, metric=self.config.metric)
        return Sides(compared, labels.get(a, a), labels.get(b, b))

    @cached_property
    def chain(self) -> list[Artifact]:
        """Everything that the report speaks of, in the order in which it was made."""
        ends: list[Artifact | None] = [self.pool, self.scores, *(one.saved for one in self.chosen if one)]
        ends.append(self.run.artifact if self.run else None)
        ends += self._graded_ends()
        found: dict[Path, Artifact] = {}
        for end in ends:
            if end is not None:
                for artifact in (end, *self.lineage.of(end)):
                    found.setdefault(artifact.path, artifact)
        return sorted(found.values(), key=lambda artifact: (artifact.manifest.created_at, artifact.id))

    def _graded_ends(self) -> Sequence[Artifact]:
        if not {"results", "comparison"} & set(self.config.blocks):
            return ()
        return [one.grade for one in self.graded]


def unpacked(text: str, where: str) -> SelectConfig:
    """The selection of a text such as `B=8&mode=sharpness&sharpness=0.3`, as the address of Tune holds it.

    Errors: `ConfigError` for a field that is none, or a value that it cannot have.
    """
    values: dict[str, Any] = {}
    for name, value in parse_qsl(text if text != "default" else "", keep_blank_values=True):
        if name in _LISTS:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return SelectConfig.parse(values, where)


def _of_saved(selection: Artifact) -> Chosen:
    where = f"{selection.id} was saved with options of another version"
    return Chosen(SelectConfig.parse(dict(selection.manifest.config), where), selection)
