"""Which problems `--problem` means: `17` is one of the pool, `math500:42` one of a benchmark that was evaluated."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.compute as pc
import pyarrow.parquet as pq

from lark_engine.errors import ConfigError, StoreError
from lark_engine.evaluation.generate import PROBLEMS
from lark_engine.pool.staging import TRAJECTORIES
from lark_engine.sharing.bundle_choice import BundleChoice
from lark_engine.sharing.withheld import Texts
from lark_engine.store.rows import read_rows
from lark_engine.store.workspace import Artifact


def chosen_texts(choice: BundleChoice, artifacts: Iterable[Artifact]) -> Texts:
    """Whose texts go out. Errors: `ConfigError` for a problem that is not there; `StoreError` for a damaged file."""
    if choice.texts != "chosen":
        return Texts(mode=choice.texts)
    artifacts = list(artifacts)
    in_pools = {name for artifact in artifacts if artifact.kind == "pools" for name in _pool_ids(artifact)}
    asked: dict[str, set[str]] = {}
    for artifact in artifacts:
        if artifact.kind == "evals":
            asked.setdefault(artifact.name, set()).update(_asked_ids(artifact))
    pool: set[str] = set()
    benchmarks: dict[str, set[str]] = {}
    for name in choice.problems:
        benchmark, colon, problem_id = name.partition(":")
        if name in in_pools:
            pool.add(name)
        elif colon and problem_id in asked.get(benchmark, ()):
            benchmarks.setdefault(benchmark, set()).add(problem_id)
        else:
            known = f"; for a problem of a benchmark write {next(iter(asked))}:ID" if asked else ""
            raise ConfigError(f"--problem {name[:80]}: neither the pool nor a benchmark has this problem{known}")
    return Texts(mode="chosen", pool=frozenset(pool), benchmarks=benchmarks)


def _pool_ids(pool: Artifact) -> list[str]:
    path = pool.path / TRAJECTORIES
    try:
        return [str(name) for name in pc.unique(pq.read_table(path, columns=["problem_id"])["problem_id"]).to_pylist()]
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: the pool's table cannot be read ({error}); import it again") from error


def _asked_ids(generations: Artifact) -> list[str]:
    path = generations.path / PROBLEMS
    try:
        return [str(row["problem_id"]) for row in read_rows(path)]
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise StoreError(f"{path}: the problems cannot be read; evaluate again, or leave it out") from error
