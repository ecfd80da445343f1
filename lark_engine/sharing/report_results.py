"""The blocks of a report on what came of it: training curves, the results table, and the paired comparison."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from lark_engine.figures import charts_runs, compare_figures, formats
from lark_engine.figures.charts_runs import View
from lark_engine.figures.compare_words import cautions, many_sentence, mean_sentence, verdict
from lark_engine.figures.run_card import run_card
from lark_engine.results.compare import BenchmarkComparison, Detail
from lark_engine.results.export import sections
from lark_engine.results.pairs import slices
from lark_engine.sharing.document import Column, Figures, Paragraph, Part, Section, Table
from lark_engine.sharing.report_material import Material, Missing

_MOST_BENCHMARKS = 3  # whose problem matrix is drawn
_MOST_FLIPS = 10
# Columns of the results tables that are words; all others are numbers.
_WORDS = {
    "model", "method", "recipe", "rule", "sampling", "grading", "benchmark", "metric", "grades", "checkpoint",
    "selection", "scores", "pool", "stale",
}  # fmt: skip


def training(of: Material) -> Section | Missing:
    """The curves of the training run."""
    run, curves = of.run, of.curves
    if run is None or curves is None:
        return Missing("there is no training run on a selection of these scores; start one with: lark train lora …")
    if not curves.num_events:
        return Missing(f"the log of {run.id} holds no step")
    view = View(name=run.name, curves=curves, span=charts_runs.auto_span(len(curves.curve("loss").x)))
    cards = (run_card(run, curves), *charts_runs.cards(view))
    method = formats.method(run.method)
    parts = ", ".join(part for part in (method, f"recipe {run.recipe}" if run.recipe else "",
                                        f"on {run.selection}" if run.selection else "") if part)  # fmt: skip
    return Section(
        block="training", title="Training", parts=(Paragraph(text=f"Run {run.id}: {parts}; {run.state}."),
                                                   Figures(cards=cards)),
        intro="The student is trained on the selected trajectories, each weighted by its q: the loss is the weighted "
        "mean over response tokens, in nats.",
    )  # fmt: skip


def results(of: Material) -> Section | Missing:
    """The results table with its intervals."""
    table = of.results
    if table.empty:
        return Missing("nothing is graded; sample and grade with: lark generate --model-path MODEL --benchmark NAME")
    shown = [(title, part) for title, part in sections(table) if title != "Where the numbers come from"]
    tables = tuple(_table(title, part, table) for title, part in shown)
    stale = sorted({str(reason) for reason in table["stale"].dropna() if reason})
    notes = [Paragraph(text=f"† stale: {reason}.", is_caution=True) for reason in stale]
    disputed = int(table.drop_duplicates("place")["num_disputed"].fillna(0).sum())
    if disputed:
        notes.append(Paragraph(text=f"‡ with {formats.count(disputed)} verdicts that a person has disputed."))
    return Section(
        block="results", title="Results", parts=(*tables, *notes),
        intro="Percent of problems, in brackets 95 % intervals over problems. avg@n: mean share of correct samples of "
        "n; pass@n: at least one of n is correct; maj@n: the most frequent answer is correct. Of small n the "
        "intervals are wide: read differences from the paired comparison.",
    )  # fmt: skip


def _table(title: str, part: pd.DataFrame, table: pd.DataFrame) -> Table:
    if title != "Results":  # the first table says how each model was made
        part = part.drop(columns=[name for name in ("method", "recipe", "rule", "B") if name in part])
    words = {"method": formats.method, "rule": formats.rule}
    part = part.assign(**{name: part[name].map(said) for name, said in words.items() if name in part})
    problems = table.drop_duplicates(["benchmark", "n_problems"])
    overall = problems[(problems["level"] == "all") & (problems["subject"] == "all")]
    n = ", ".join(
        f"{name}: n = {formats.count(int(number))}" for name, number in
        overall.groupby("benchmark", sort=False)["n_problems"].max().items()
    )  # fmt: skip
    return Table(
        key="results" if title == "Results" else f"results-{title.lower().replace(' ', '-')}", caption=f"{title} · {n}",
        columns=tuple(Column(str(name), str(name) not in _WORDS) for name in part.columns),
        rows=tuple(tuple(str(cell) or "–" for cell in line) for line in part.astype(str).to_numpy().tolist()),
    )  # fmt: skip


def comparison(of: Material) -> Section | Missing:
    """B against A, paired by problem."""
    sides = of.sides
    if isinstance(sides, Missing):
        return sides
    found, details = sides.compared
    number = len(found.benchmarks)
    parts: list[Part] = [Paragraph(text=f"A: {sides.label_a}. B: {sides.label_b}.")]
    parts += [Paragraph(text=verdict(one, number)) for one in found.benchmarks]
    if found.macro is not None:
        parts.append(Paragraph(text=mean_sentence(found.macro, found.benchmarks[0].metric, number)))
    if many := many_sentence(number):
        parts.append(Paragraph(text=many, is_caution=True))
    parts += [Paragraph(text=f"{one.benchmark}: {said}", is_caution=True)
              for one in found.benchmarks for said in cautions(one)]  # fmt: skip
    cards = []
    for one, detail in zip(found.benchmarks[:_MOST_BENCHMARKS], details, strict=False):
        by_length = slices(detail.problems, "length")
        matrix = compare_figures.matrix(one, None)
        lengths = compare_figures.slice_forest(by_length, "length", one.metric, one.paired)
        cards += [replace(lengths, height=max(lengths.height, matrix.height)), matrix]
    beside = (replace(card, span=6, key=f"{card.key}-{n}") for n, card in enumerate(cards))
    parts.append(Figures(cards=(compare_figures.forest(found.benchmarks, found.macro, 0), *beside)))
    for one, detail in zip(found.benchmarks[:_MOST_BENCHMARKS], details, strict=False):
        parts.append(_flips(one, detail))
    return Section(
        block="comparison", title="B against A", parts=tuple(parts),
        intro="Both sides answered the same problems, so that differences are taken problem by problem; intervals and "
        "tests are of the mean difference B − A.",
    )  # fmt: skip


def _flips(one: BenchmarkComparison, detail: Detail) -> Part:
    """The problems with the largest differences, without their texts."""
    ordered = sorted(detail.problems, key=lambda pair: -abs(pair.difference))
    shown = [pair for pair in ordered if pair.difference][:_MOST_FLIPS]
    if not shown:
        return Paragraph(text=f"{one.benchmark}: no problem differs, n = {formats.count(len(ordered))}.")
    return Table(
        key=f"differences-{one.benchmark}",
        caption=f"{one.benchmark}: the {len(shown)} largest differences of n = {formats.count(len(ordered))} problems",
        columns=(Column("Problem"), Column("Level"), Column("A correct", True), Column("B correct", True),
                 Column("Tokens of A", True), Column("Tokens of B", True)),
        rows=tuple(
            (pair.problem_id, pair.level or "–", f"{pair.correct_a} of {pair.num_a}",
             f"{pair.correct_b} of {pair.num_b}", formats.count(pair.tokens_a), formats.count(pair.tokens_b))
            for pair in shown
        ),
    )  # fmt: skip
