"""A pool in numbers, as Pool and scores and reports show it."""

from __future__ import annotations

from lark_engine.figures import formats
from lark_engine.figures.cards import Stat
from lark_engine.store.workspace import Artifact, Manifest


def pool_stats(pool: Artifact) -> tuple[Stat, ...]:
    """What a pool holds, what is known of its answers, what was left out and why."""
    manifest = pool.manifest
    counts, drops = manifest.counts, manifest.drops
    labeled, total = counts.get("num_labeled", 0), counts.get("num_trajectories", 0)
    left_out = ", ".join(f"{formats.count(n)} {formats.words(reason)}" for reason, n in drops.items())
    return (
        Stat("Problems", formats.count(counts.get("num_problems", 0)), ""),
        Stat("Candidates", formats.count(total), _per_problem(manifest)),
        Stat("Teachers", formats.count(counts.get("num_teachers", 0)), ""),
        Stat("Labeled", formats.percent(labeled / total if total else None), f"{formats.count(labeled)} candidates"),
        Stat("Correct", formats.percent(counts.get("num_correct", 0) / labeled if labeled else None), "of the labeled"),
        Stat("Left out", formats.count(sum(drops.values())), left_out),
    )


def _per_problem(manifest: Manifest) -> str:
    """`7 a problem`, `5 to 33 a problem`."""
    span = manifest.metrics.get("candidates_per_problem")
    if not isinstance(span, dict) or not {"min", "max"} <= span.keys():
        return ""
    low, high = span["min"], span["max"]
    return f"{low} a problem" if low == high else f"{low} to {high} a problem"
