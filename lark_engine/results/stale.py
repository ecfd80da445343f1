"""Results whose inputs have changed since: they are marked with the reason, not hidden.

An artifact never changes, and a changed option or input is a new one. What can change is what the workspace does not
hold: a source file, a student's folder, a benchmark's file, the rules of grading. And what it holds can be removed.
Of a bundle that is what its record says: a path in it is one of another machine, and is not looked at.
"""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path
from typing import Any

from lark_engine.config import PoolConfig
from lark_engine.errors import LarkError
from lark_engine.evaluation.benchmarks import Benchmark, load_benchmark
from lark_engine.evaluation.extract import RULES_VERSION
from lark_engine.pool.sources import resolve_source, source_identity
from lark_engine.results.lineage import Lineage
from lark_engine.scoring.score import VERSION as SCORING_VERSION
from lark_engine.selection.select import VERSION as SELECTION_VERSION
from lark_engine.sharing.bundle_format import bundle_of
from lark_engine.store.fingerprint import hash_model_dir
from lark_engine.store.workspace import Artifact
from lark_engine.training.spec import VERSION as TRAINING_VERSION

log = logging.getLogger(__name__)


class Staleness:
    """Looks up what has changed, each thing once."""

    def __init__(self, lineage: Lineage):
        self.lineage = lineage
        self.workspace = lineage.workspace
        self._known: dict[Path, list[str]] = {}
        self._bundle = bundle_of(self.workspace)
        self._contents: dict[str, str | None] = {}
        self._benchmarks: dict[tuple[str, int | None], Benchmark | None] = {}

    def of(self, artifact: Artifact) -> list[str]:
        """Why this artifact is not what its command would make today, from the nearest cause to the farthest."""
        if self._bundle is not None:
            return list(self._bundle.stale.get(artifact.id, ()))
        if artifact.path not in self._known:
            self._known[artifact.path] = []  # a cycle cannot be, a damaged manifest can
            reasons = self._own(artifact)
            for ref in artifact.manifest.inputs.values():
                source = self.lineage.input(artifact, ref)
                reasons += self.of(source) if source else [f"{ref.id} is gone"]
            self._known[artifact.path] = list(dict.fromkeys(reasons))
        return self._known[artifact.path]

    def _own(self, artifact: Artifact) -> list[str]:
        manifest = artifact.manifest
        identity = manifest.identity
        if artifact.kind == "pools":
            return self._pool(artifact)
        if artifact.kind == "evals":
            model = identity.get("model", {})
            outside = [] if "model" in manifest.inputs else self._folder(str(model.get("origin")), model.get("content"))
            return self._asked(identity.get("benchmark", {})) + outside
        if artifact.kind == "grades":
            return self._graded(artifact)
        made_by = {"scores": SCORING_VERSION, "selections": SELECTION_VERSION, "checkpoints": TRAINING_VERSION}
        reasons = []
        if identity.get("version", made_by.get(artifact.kind)) != made_by.get(artifact.kind):
            reasons.append(f"{artifact.id} was made by an older version of its stage")
        if artifact.kind in ("scores", "checkpoints") and "student" not in manifest.inputs:
            reasons += self._folder(str(manifest.config.get("student")), identity.get("student"))
        return reasons

    def _graded(self, grade: Artifact) -> list[str]:
        identity = grade.manifest.identity
        then = (identity.get("rules_version"), identity.get("math_verify"))
        reasons = [] if then == (RULES_VERSION, metadata.version("math-verify")) else ["graded by older rules"]
        ref = grade.manifest.inputs.get("generations")
        generations = self.lineage.input(grade, ref) if ref else None
        if generations is None or grade.manifest.config.get("answer_type"):
            return reasons
        benchmark = generations.manifest.identity.get("benchmark", {})
        now = self._benchmark(benchmark)
        if now and now.content == benchmark.get("content") and now.answer_type != identity.get("answer_type"):
            reasons.append(f"graded as {identity.get('answer_type')}, and its benchmark says {now.answer_type} now")
        return reasons

    def _asked(self, benchmark: dict[str, Any]) -> list[str]:
        """What has changed in how a benchmark is asked. One that is not found any more has not changed: what was asked
        is in the artifact."""
        now = self._benchmark(benchmark)
        if now is None:
            return []
        if now.content != benchmark.get("content"):
            return [f"{benchmark.get('source')} has changed"]
        # A prompt that the user gave instead of the benchmark's own stays what it was.
        own = benchmark.get("own_system_prompt", now.system_prompt)
        is_own = benchmark.get("system_prompt") == own
        return [f"the system prompt of {now.name} has changed"] if is_own and now.system_prompt != own else []

    def _benchmark(self, benchmark: dict[str, Any]) -> Benchmark | None:
        key = (str(benchmark.get("source")), benchmark.get("limit"))
        if key not in self._benchmarks:
            try:
                self._benchmarks[key] = load_benchmark(key[0], limit=key[1], workspace=self.workspace)
            except (LarkError, OSError):
                self._benchmarks[key] = None
        return self._benchmarks[key]

    def _pool(self, artifact: Artifact) -> list[str]:
        config = artifact.manifest.config
        then = artifact.manifest.identity.get("source", {})
        if then.get("format") == "hub" or "dataset" in then or not Path(str(config.get("source"))).exists():
            return []
        try:
            now = source_identity(resolve_source(PoolConfig.parse(config, str(artifact.path))), self.workspace.memo_dir)
        except (LarkError, OSError) as error:
            log.debug("%s: the source cannot be read: %s", artifact.path, error)
            return []
        return [] if now == then else [f"{config['source']} has changed"]

    def _folder(self, folder: str, then: str | None) -> list[str]:
        if then is None:
            return []
        if folder not in self._contents:
            try:
                self._contents[folder] = hash_model_dir(Path(folder), self.workspace.memo_dir)
            except (LarkError, OSError):
                self._contents[folder] = None
        now = self._contents[folder]
        return [] if now in (None, then) else [f"{folder} has changed"]
