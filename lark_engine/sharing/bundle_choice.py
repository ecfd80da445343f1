"""Which artifacts go into a bundle: scores, what was made from them, and all that these were made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from lark_engine.errors import ConfigError
from lark_engine.results.lineage import Lineage
from lark_engine.sharing.bundle_format import TextsOut
from lark_engine.store.workspace import KINDS, Artifact, Workspace

Depth = Literal["scores", "selections", "checkpoints", "results"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)


class BundleChoice(BaseModel):
    """What is to go out. Empty names mean: the newest scores, and everything made from them.

    `selections`, `checkpoints`, `evals`: only these of their kind, and only what was made from them. `up_to`: the last
    stage that goes out. `problems`, with texts "chosen": ids of the pool, and BENCHMARK:ID of what was evaluated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: str = ""
    selections: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    evals: tuple[str, ...] = ()
    up_to: Depth = "results"
    texts: TextsOut = "none"
    problems: tuple[str, ...] = ()
    token_stats: bool = False
    redact: bool = True
    title: str = Field(default="", max_length=200)

    def check(self) -> BundleChoice:
        """Itself. Errors: `ConfigError` for choices that contradict each other."""
        if self.problems and self.texts != "chosen":
            raise ConfigError(f"--problem chooses texts, and --texts is {self.texts}; give --texts chosen")
        if self.texts == "chosen" and not self.problems:
            raise ConfigError("--texts chosen needs the problems whose texts go out; give --problem ID, once for each")
        if self.token_stats and self.texts == "none":
            raise ConfigError("--token-stats are the texts, token by token; give --texts chosen or --texts all")
        return self


def chosen_scores(choice: BundleChoice, workspace: Workspace) -> Artifact:
    """The scores that a bundle is made for. Errors: `StoreError`, `ConfigError` when there are none."""
    if choice.scores:
        return workspace.resolve("scores", choice.scores)
    newest = workspace.list("scores")
    if not newest:
        raise ConfigError(f"{workspace.root}: nothing is scored yet; a bundle begins with scores: lark score --help")
    return newest[0]


def chosen_artifacts(choice: BundleChoice, workspace: Workspace) -> list[Artifact]:
    """All artifacts of the bundle, ordered by kind and place. Errors: `StoreError` for a name that is none."""
    scores = chosen_scores(choice, workspace)
    lineage = Lineage(workspace)
    depth = DEPTHS.index(choice.up_to)
    kept = {scores.path: scores}
    selections = _narrowed(workspace, "selections", choice.selections, made_from=[scores])
    checkpoints = _narrowed(workspace, "checkpoints", choice.checkpoints, made_from=selections) if depth > 1 else []
    # A merged checkpoint was made from one that was trained.
    checkpoints += [] if choice.checkpoints else _made_from(workspace.list("checkpoints"), checkpoints)
    chosen = [*(selections if depth > 0 else ()), *checkpoints]
    if depth > 2:
        chosen += _results(choice, workspace, scores, checkpoints)
    for artifact in chosen:
        kept[artifact.path] = artifact
    for artifact in list(kept.values()):
        kept.update({source.path: source for source in lineage.of(artifact)})
    if depth > 1:
        kept.update({sweep.path: sweep for sweep in workspace.list("sweeps") if _is_whole(sweep, kept.values())})
    return sorted(kept.values(), key=lambda artifact: (KINDS.index(artifact.kind), str(artifact.path)))


def _narrowed(
    workspace: Workspace, kind: Literal["selections", "checkpoints"], names: Sequence[str], made_from: list[Artifact]
) -> list[Artifact]:
    """The artifacts of a kind that were made from others, only the named ones where there are names."""
    found = _made_from(workspace.list(kind), made_from)
    if not names:
        return found
    known = {artifact.path for artifact in found}
    named = [workspace.resolve(kind, name) for name in names]
    for artifact in named:
        if artifact.path not in known:
            raise ConfigError(f"{artifact.id} was not made from {', '.join(a.id for a in made_from)}; choose another")
    return named


def _made_from(artifacts: Iterable[Artifact], sources: Sequence[Artifact]) -> list[Artifact]:
    ids = {source.id for source in sources}
    return [a for a in artifacts if any(ref.id in ids for ref in a.manifest.inputs.values())]


def _results(
    choice: BundleChoice, workspace: Workspace, scores: Artifact, checkpoints: Sequence[Artifact]
) -> list[Artifact]:
    """What the checkpoints and the untrained student answered, with every grading of it."""
    ids = {checkpoint.id for checkpoint in checkpoints}
    content = scores.manifest.identity.get("student")
    evals = [a for a in workspace.list("evals") if _model_id(a) in ids or (content and _content(a) == content)]
    if choice.evals:
        known = {artifact.path for artifact in evals}
        evals = [workspace.resolve("evals", name) for name in choice.evals]
        if strangers := [artifact.id for artifact in evals if artifact.path not in known]:
            raise ConfigError(f"{strangers[0]}: its model is not part of this bundle; choose another --eval")
    folders: set[Path] = {artifact.path for artifact in evals}
    return [*evals, *(grade for grade in workspace.list("grades") if grade.path.parents[1] in folders)]


def _model_id(generations: Artifact) -> str | None:
    ref = generations.manifest.inputs.get("model")
    return ref.id if ref else None


def _content(generations: Artifact) -> str | None:
    model = generations.manifest.identity.get("model")
    return str(model["content"]) if isinstance(model, dict) and model.get("content") else None


def _is_whole(sweep: Artifact, kept: Iterable[Artifact]) -> bool:
    ids = {artifact.id for artifact in kept}
    return all(ref.id in ids for ref in sweep.manifest.inputs.values())
