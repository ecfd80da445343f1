"""The blocks of a report on where everything comes from: lineage, the pool, and ĝ of its teachers."""

from __future__ import annotations

import numpy as np

from lark_engine.figures import explore_cards, formats
from lark_engine.figures.cards import Card
from lark_engine.figures.metric_words import METRIC_WORDS
from lark_engine.figures.pool_stats import pool_stats
from lark_engine.figures.safe_text import one_line
from lark_engine.figures.scored import ScoredPool
from lark_engine.results.stale import Staleness
from lark_engine.sharing.document import Column, Figures, Paragraph, Part, Section, Table
from lark_engine.sharing.report_material import Material, Missing
from lark_engine.store.workspace import Artifact

_KIND_WORDS = {
    "pools": "pool", "students": "student", "benchmarks": "benchmark", "scores": "scores", "selections": "selection",
    "checkpoints": "checkpoint", "sweeps": "sweep", "evals": "generations", "grades": "grades",
}  # fmt: skip
_MOST_ROWS = 60
_COUNTS = ("num_problems", "num_trajectories", "num_teachers", "num_generations", "parameters")


def lineage(of: Material) -> Section | Missing:
    """What was made from what, with fingerprints, and what has changed since."""
    chain = of.chain
    if not chain:
        return Missing("the workspace holds nothing yet; import a pool with: lark pool import FILE")
    stale = Staleness(of.lineage)
    reasons = {artifact.path: stale.of(artifact) for artifact in chain}
    shown = chain[-_MOST_ROWS:]
    table = Table(
        key="lineage", caption=f"n = {formats.count(len(shown))} artifacts, in the order in which they were made"
        + (f"; {formats.count(len(chain) - len(shown))} older ones are not shown" if len(shown) < len(chain) else ""),
        columns=(Column("What"), Column("Name"), Column("Fingerprint"), Column("Made from"), Column("Holds"),
                 Column("Made (UTC)")),
        rows=tuple(_lineage_row(artifact) for artifact in shown),
    )  # fmt: skip
    parts: list[Part] = [table]
    parts += [
        Paragraph(text=f"Stale: {artifact.id}: {'; '.join(found)}.", is_caution=True)
        for artifact in shown if (found := reasons[artifact.path])
    ]  # fmt: skip
    return Section(
        block="lineage", title="Lineage", parts=tuple(parts),
        intro="Each artifact is made from those before it. A fingerprint is made of options and inputs: the same "
        "fingerprint is the same result.",
    )  # fmt: skip


def _lineage_row(artifact: Artifact) -> tuple[str, ...]:
    manifest = artifact.manifest
    inputs = ", ".join(ref.fingerprint for ref in manifest.inputs.values())
    counts = [
        f"{_number(name, manifest.counts[name])} {formats.words(name.removeprefix('num_'))}"
        for name in _COUNTS if name in manifest.counts
    ]  # fmt: skip
    made_at = manifest.created_at[:16].replace("T", " ")
    return (
        _KIND_WORDS[artifact.kind], artifact.name, artifact.fingerprint, inputs or "–", ", ".join(counts) or "–",
        made_at,
    )  # fmt: skip


def _number(name: str, value: int) -> str:
    return formats.compact(value) if name == "parameters" else formats.count(value)


def kind_words(artifact: Artifact) -> str:
    """What an artifact is, in a word."""
    return _KIND_WORDS[artifact.kind]


def pool(of: Material) -> Section | Missing:
    """What the pool holds, by teacher."""
    if of.pool is None:
        return Missing("there is no pool; import one with: lark pool import FILE")
    parts: list[Part] = [Figures(cards=(Card(key="pool", stats=pool_stats(of.pool), span=12),))]
    if of.scored is not None:
        parts.append(_teacher_table(of, of.scored))
    return Section(
        block="pool", title="The pool", parts=tuple(parts),
        intro="Several teachers wrote solutions to the same problems. All of them are candidates; a selection keeps a "
        "few of each problem for the student to learn from.",
    )  # fmt: skip


def _teacher_table(of: Material, scored: ScoredPool) -> Table:
    candidates, scene, g_hat = scored.candidates, of.scene, METRIC_WORDS["g_hat"]
    table = candidates.table
    shares = scene.win_shares(1)
    kept_T = scene.kept_T
    median_T = scene.by_teacher.median_T
    correct_NK, tokens_NK = candidates.flag_NK("is_correct"), scene.tokens_NK
    rows = []
    for code in np.argsort(-np.nan_to_num(median_T, nan=-np.inf), kind="stable"):
        mine_NK = candidates.teacher_NK == code
        known = correct_NK[mine_NK & (correct_NK >= 0)]
        tokens = tokens_NK[mine_NK & ~np.isnan(tokens_NK)]
        rows.append((
            one_line(candidates.teachers[code], 60), formats.count(mine_NK.sum()),
            formats.percent(float(known.mean()) if len(known) else None),
            formats.count(tokens.mean()) if len(tokens) else "–", g_hat.say(float(median_T[code])),
            formats.percent(float(shares.share_T[code])), "–" if kept_T is None else formats.count(kept_T[code]),
        ))  # fmt: skip
    numbers = ("Candidates", "Correct", "Mean tokens", "Median ĝ", "Best of its problem", "Selected")
    return Table(
        key="teachers", caption=f"n = {formats.count(len(table))} scored candidates of "
        f"{formats.count(len(candidates.teachers))} teachers · correct: of those with a known answer · ĝ, tokens and "
        f"places: under the pool edits of {of.shown[0].name} · selected: by {of.shown[0].name}",
        columns=(Column("Teacher"), *(Column(name, True) for name in numbers)), rows=tuple(rows),
    )  # fmt: skip


def teachers(of: Material) -> Section | Missing:
    """ĝ by teacher, who holds the first place, why, and whether length decides it."""
    if of.scored is None:
        return Missing("nothing is scored; score the pool with: lark score --input POOL --student STUDENT")
    scene = of.scene
    if not scene.seen.shown_NK.any():
        return Missing("the pool edits of the selection leave no candidate")
    cards = [
        explore_cards.by_teacher(scene, "ridge"), explore_cards.win_share(scene, 1),
        explore_cards.why_high(scene, "brier", ""), explore_cards.length_bias(scene),
        explore_cards.third(scene, "difficulty"),
    ]  # fmt: skip
    return Section(
        block="teachers", title="ĝ by teacher", parts=(Figures(cards=tuple(cards)),),
        intro="ĝ is LARK’s learnability score of a candidate for this student, relative to the other candidates of its "
        "problem: higher means that the student can learn more from each token of it. It comes from L, the mean "
        "negative log-likelihood of a token, and from the Brier score; ρ is their ratio.",
    )  # fmt: skip
