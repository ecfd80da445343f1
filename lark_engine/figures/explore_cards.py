"""From a scene of Explore to its cards: which aggregates the figures need, and what stands where one cannot be."""

from __future__ import annotations

from lark_engine.explore.distributions import median_sums
from lark_engine.figures import charts_explore, charts_relations, charts_wins
from lark_engine.figures.cards import Card
from lark_engine.figures.charts_explore import Distribution
from lark_engine.figures.explore_scene import Scene
from lark_engine.figures.formats import count
from lark_engine.figures.metric_words import METRIC_WORDS, energy_words, metric_words
from lark_engine.scoring.criteria import CRITERIA


def missing_metric(metric: str) -> Card:
    """In place of a metric that the scores lack."""
    return Card(
        key="by_teacher", span=7, title=f"These scores hold no {METRIC_WORDS[metric].noun}",
        note=f"It needs {', '.join(CRITERIA[metric].needs)}, which a released score file does not have: score the pool "
        "with lark score to see it.",
    )  # fmt: skip


def by_teacher(scene: Scene, shape: str) -> Card:
    """The metric by teacher, as ridges, boxes or cumulative shares."""
    words = metric_words(scene.metric, within=scene.within)
    if not len(scene.rows):
        why = "It needs at least two candidates of a problem that differ." if scene.within else ""
        return Card(key="by_teacher", span=7, title=f"No candidate in sight has a {words.noun}", note=why)
    outside = scene.densities.num_outside if shape == "ridge" else 0
    shown = Distribution(
        rows=scene.rows, found=scene.by_teacher, words=words, span=scene.span, reference=scene.reference,
        kept_T=scene.kept_T, extra_note=f"{count(outside)} beyond the axis" if outside else "",
    )  # fmt: skip
    if shape == "ridge":
        return charts_explore.ridges(shown, scene.densities)
    if shape == "box":
        return charts_explore.boxes(shown)
    return charts_explore.ecdfs(shown, scene.quantile_TP)


def win_share(scene: Scene, top: int) -> Card:
    """Who holds the top places."""
    hidden = bool((scene.frame.keep_NK & ~scene.seen.shown_NK & scene.seen.problem_N[:, None]).any())
    return charts_wins.win_bars(
        scene.win_shares(top), scene.rows, top=top, energy=energy_words(scene.config.energy).symbol,
        height=scene.rows.height, is_filtered=hidden,
    )  # fmt: skip


def why_high(scene: Scene, plane: str, selection: str) -> Card:
    """L against Brier or ρ."""
    of_rho = plane == "rho"
    return charts_relations.why_high(
        scene.plane(of_rho=of_rho), scene.plane_rows, scene.nll_by_teacher, scene.y_by_teacher(of_rho=of_rho),
        median_sums(scene.nll_NK, scene.brier_NK), charts_relations.iso_levels(scene.g_hat_NK), of_rho=of_rho,
        word=METRIC_WORDS["g_hat"], height=scene.low_height, selection=selection,
    )  # fmt: skip


def length_bias(scene: Scene) -> Card:
    """Length against the metric."""
    if not scene.has_lengths:
        return Card(
            key="length", span=4, title="These scores hold no token counts",
            note="A released score file does not have them: score the pool with lark score for the length-bias check.",
        )  # fmt: skip
    words = metric_words(scene.bias_metric, within=scene.within)
    found = scene.along_length
    return charts_relations.length_bias(
        found, scene.bias_by_teacher, scene.rows, words, scene.length_correlation, height=scene.low_height,
        number=int(found.num_TL.sum()),
    )  # fmt: skip


def third(scene: Scene, which: str) -> Card:
    """Margins, teachers by difficulty, or teachers against each other."""
    energy = energy_words(scene.config.energy)
    if which == "margin":
        return charts_wins.margin_histogram(
            scene.margins, budget=scene.config.budget, energy=energy, height=scene.low_height
        )
    if which == "difficulty":
        words = metric_words(scene.metric, within=scene.within)
        return charts_wins.difficulty_grid(scene.difficulty_grid, scene.rows, words, height=scene.low_height)
    return charts_wins.duel_grid(scene.duels, scene.rows, energy=energy.symbol, height=scene.low_height)
