"""The cards of a selection, as Tune and reports show them: the engine's numbers, put into charts and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lark_engine.config import SelectConfig
from lark_engine.figures import charts_tune, charts_weights, formats
from lark_engine.figures.cards import Card, Stat
from lark_engine.figures.safe_text import one_line
from lark_engine.figures.scored import ScoredPool
from lark_engine.figures.tuning import BudgetCurve, FrameOf, Outcome, budget_text, difference, problem_view
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.profile import tau_histogram, weight_profile
from lark_engine.selection.robustness import neighbors, other_criteria, robustness


class Scales(NamedTuple):
    """What bounds axes whatever the sliders say: each teacher's largest share, and the highest bar of τ_B."""

    shares: dict[str, dict[str, float]]
    most_tau: float


def scales_of(frame: SelectionFrame, config: SelectConfig) -> Scales:
    """The scales of the candidates and energy of a config: over all budgets, by the paper rule."""
    edit = {name: value for name, value in config.pool_edit.items() if value is not None}
    paper_rule = SelectConfig.model_validate(edit)
    most = max(frame.ranked.num_columns, 1)
    shares: dict[str, dict[str, float]] = {}
    most_tau = 0.0
    for budget in sorted({1, 2, 3, 5, 8, 12, 20, most} & set(range(1, most + 1))):
        found = diagnose(frame.solve(paper_rule.model_copy(update={"budget": budget})))["teachers"]
        for name, share in found.items():
            shares[name] = {key: max(value, shares.get(name, {}).get(key, 0.0)) for key, value in share.items()}
        counts = tau_histogram(frame, budget).counts
        most_tau = max(most_tau, float(counts.max(initial=0)) / max(int(counts.sum()), 1))
    return Scales(shares, most_tau)


@dataclass(frozen=True, eq=False, kw_only=True)
class Setting:
    """What stays while sliders move: the scored pool, its frames, the curve over all budgets, and the scales.

    `with_criteria`: whether a selection is also held against those by other criteria.
    """

    scored: ScoredPool
    frame_of: FrameOf
    curve: BudgetCurve
    scales: Scales
    with_criteria: bool = True


def cards(of: Setting, now: Outcome, pinned: Outcome | None, row: int | None) -> list[Card]:
    """All cards of a selection but its cost; `row`: the problem that is shown in full."""
    scored, curve, scales, config = of.scored, of.curve, of.scales, now.config
    frame, num_ranks = now.frame, now.frame.ranked.num_columns
    mix = charts_tune.teacher_chart(now, pinned, scored.slots, scales.shares)
    profile = charts_weights.profile_chart(
        weight_profile(now.solution), weight_profile(pinned.solution) if pinned else None, num_ranks, now
    )
    budget = charts_tune.budget_chart(curve, now, pinned)
    n = f"n = {formats.count(now.figures['num_problems'])} problems"
    of_rule = "" if curve.rule == config.rule and config.has_budget else " · lines: the paper rule"

    def of_pinned(sign: str) -> str:
        return f" · {sign} {pinned.name}" if pinned is not None else ""

    found = [
        Card(key="figures", stats=_figures(now, pinned), span=12),
        *([_difference_card(now, pinned)] if pinned is not None else []),
        Card(
            key="budget", title="Where does more budget stop paying?",
            note=f"{n}{of_rule}" + of_pinned("○"), figure=budget.figure, alt=budget.alt, height=270,
        ),
        Card(
            key="teachers", title="Whose solutions get the weight?",
            note=f"{n} · | share of the pool · ◇ share of the selected" + of_pinned("○ weight in"),
            figure=mix.figure, alt=mix.alt, height=270,
        ),
        Card(
            key="profile", title="How fast does the weight fall with the rank?",
            note=f"{n} · line: mean · band: middle 80 %" + of_pinned("dashed:"),
            figure=profile.figure, alt=profile.alt, height=220, span=4,
        ),
        _spread_card(now, pinned, frame, scales.most_tau),
        _robustness_card(of, now),
    ]  # fmt: skip
    if row is not None:
        found.append(problem_card(scored, now, pinned, row))
    return found


def _figures(now: Outcome, pinned: Outcome | None) -> tuple[Stat, ...]:
    figures, frame = now.figures, now.frame
    candidates = int(frame.keep_NK.sum())
    ess, utility = figures["ess"], figures["utility"]
    tokens = now.solution.kept.train_tokens
    tau = _tau_stat(now)

    def against(name: str, value: str) -> str:
        return f"{pinned.name}: {value}" if pinned is not None else name

    share = formats.percent(figures["num_trajectories"] / max(candidates, 1))
    span = f"middle 80 %: {formats.decimal(ess['p10'], 2)} – {formats.decimal(ess['p90'], 2)}"
    of = pinned.figures if pinned is not None else figures
    of_tokens = pinned.solution.kept.train_tokens if pinned is not None else None
    return (
        Stat("Selected trajectories", formats.count(figures["num_trajectories"]),
             against(f"{share} of {formats.count(candidates)}", formats.count(of["num_trajectories"]))),
        Stat("Problems", formats.count(figures["num_problems"]),
             against(_lost_problems(now), formats.count(of["num_problems"]))),
        Stat("Effective per problem", formats.decimal(ess["mean"], 2),
             against(span, formats.decimal(of["ess"]["mean"], 2))),
        Stat("Captured utility", formats.percent(now.captured_share),
             against(f"mean energy {formats.signed(utility['captured'], 4)}",
                     formats.percent(pinned.captured_share if pinned else None))),
        Stat("Training tokens", formats.compact(tokens),
             against("not in these scores" if tokens is None else "prompt and response",
                     formats.compact(of_tokens))),
        tau,
    )  # fmt: skip


def _tau_stat(now: Outcome) -> Stat:
    """The strength of the χ² penalty, in units of the pool's median τ_3 and absolute."""
    config, frame = now.config, now.frame
    unit = frame.median_tau()
    if config.rule != "chi2":
        return Stat("Rule", formats.rule(config.rule), "no χ² temperature")
    tau = config.tau if config.tau is not None else frame.median_tau(config.budget) * config.sharpness
    label = "Temperature τ" if config.mode == "temperature" else "Median temperature"
    return Stat(label, f"{tau / unit:.3g} τ₃" if unit > 0 else "–", f"τ = {tau:.3g}")


def _lost_problems(now: Outcome) -> str:
    lost = len(now.frame.keep_NK) - now.figures["num_problems"]
    return f"{formats.count(lost)} keep nothing" if lost else "all keep some"


def _difference_card(now: Outcome, pinned: Outcome) -> Card:
    figures, name = difference(now, pinned), pinned.name
    change, tokens = figures["weight_change"], figures["tokens"]
    moved = max(figures["teachers"].items(), key=lambda item: abs(item[1]["q"]["difference"]), default=None)
    stats = [
        Stat(
            f"Overlap with {name}", formats.percent(figures["overlap"]), f"{formats.count(figures['num_both'])} in both"
        ),
        Stat(
            f"Only {now.name}",
            formats.count(figures["num_only_b"]),
            f"only in {name}: {formats.count(figures['num_only_a'])}",
        ),
        Stat("Weight that moved", formats.percent(change["mean"]), "0 % same, 100 % all"),
        Stat("Problems that changed", formats.percent(change["share_changed"]), "of those that either keeps"),
    ]
    if tokens is not None:
        stats.append(
            Stat(f"Tokens against {name}", formats.signed_compact(tokens["difference"]), "prompt and response")
        )
    if moved is not None:
        points = 100 * moved[1]["q"]["difference"]
        stats.append(Stat("Largest shift", f"{formats.signed(points, 1)} points", moved[0]))
    mine = f"{now.name[:1].upper()}{now.name[1:]}"
    title = f"{mine} ({budget_text(now.config)}) against {name} ({budget_text(pinned.config)})"
    return Card(key="difference", title=title, stats=tuple(stats), span=12)


def _spread_card(now: Outcome, pinned: Outcome | None, frame: SelectionFrame, most_tau: float) -> Card:
    config = now.config
    n = f"n = {formats.count(now.figures['num_problems'])} problems"
    if config.rule == "chi2" and config.mode == "budget":
        unit = frame.median_tau()
        median = frame.median_tau(config.budget) / unit if unit > 0 else 0.0
        of_pinned = None
        if pinned is not None and unit > 0 and pinned.config.rule == "chi2":
            of_pinned = (pinned.config.tau or pinned.frame.median_tau(pinned.config.budget)) / unit
        chart = charts_weights.tau_chart(
            tau_histogram(frame, config.budget), median, now, most=most_tau, pinned_tau=of_pinned
        )
        dashed = f" · dashed: that of {pinned.name}" if of_pinned and pinned else ""
        return Card(
            key="spread", title="How do the problems' τ_B differ?", note=f"{n} · line: the median{dashed}",
            figure=chart.figure, alt=chart.alt, height=220, span=4,
        )  # fmt: skip
    chart = charts_weights.kept_chart(now, pinned, frame.ranked.num_columns)
    return Card(
        key="spread", title="How many does a problem keep?",
        note=n + (f" · outline: {pinned.name}" if pinned else ""),
        figure=chart.figure, alt=chart.alt, height=220, span=4,
    )  # fmt: skip


def _robustness_card(of: Setting, now: Outcome) -> Card:
    variants = neighbors(now.config, now.frame.ranked.num_columns)
    if of.with_criteria:
        variants += other_criteria(now.config, max(1, round(now.mean_kept)))
    chart = charts_weights.robustness_chart(robustness(now.solution, variants, of.frame_of), now)
    return Card(
        key="robustness", title="How much stays when a setting moves?",
        note=f"each bar: these {formats.count(now.figures['num_trajectories'])} against another selection",
        figure=chart.figure, alt=chart.alt, height=220, span=4,
    )  # fmt: skip


def problem_card(scored: ScoredPool, now: Outcome, pinned: Outcome | None, row: int) -> Card:
    view = problem_view(now, row)
    table = scored.candidates.table.iloc[scored.candidates.row_NK[row, view.columns]]
    problem = str(scored.problem_ids[row])
    same = pinned is not None and pinned.config.pool_edit == now.config.pool_edit
    chart = charts_tune.problem_chart(
        view, problem_view(pinned, row) if pinned is not None and same else None,
        [str(name) for name in table["teacher"]],
        [(problem, int(place)) for place in table["candidate_id"]], scored.slots, now,
    )  # fmt: skip
    return Card(
        key="problem", title=f"One problem in full: {one_line(problem, 60)}",
        note=f"{len(view.columns)} candidates by rank, {int((view.prob > 0).sum())} kept · "
        + (f"dashed: where weight begins, {view.cut:.4g} · " if view.cut is not None else "")
        + (f"outline: {pinned.name} · " if pinned is not None and same else "") + "click a bar to read it",
        figure=chart.figure, alt=chart.alt, height=300, span=8,
    )  # fmt: skip
