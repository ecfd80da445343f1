"""The blocks of a report on the selection: Tune's picture at A and B, what training costs, and example problems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.figures import formats, tune_cards
from lark_engine.figures.cost_card import cost_card, size_of_student
from lark_engine.figures.metric_words import METRIC_WORDS
from lark_engine.figures.safe_text import one_line
from lark_engine.figures.scored import ScoredPool
from lark_engine.figures.tuning import Outcome, budget_text, by_difference
from lark_engine.scoring.matrix import Floats
from lark_engine.sharing.document import Column, Example, Figures, Paragraph, Part, Passage, Section, Table
from lark_engine.sharing.report_material import Material, Missing
from lark_engine.training.cost import measured_rate

_FEWEST, _BELOW = 8, 3  # candidates of an example at least, and of those below the last that is kept
_NOT_SCORED = "nothing is scored; score the pool with: lark score --input POOL --student STUDENT"


def selection(of: Material) -> Section | Missing:
    """The selection, its numbers and figures; B against A where there are two."""
    if of.scored is None:
        return Missing(_NOT_SCORED)
    now, pinned = of.shown
    row = next(iter(by_difference(now, pinned)), None)
    cards = [
        replace(card, span=12) if card.key == "problem" else card
        for card in tune_cards.cards(of.setting, now, pinned, row)
    ]
    parts: list[Part] = [
        Paragraph(text=_selection_words(name, chosen.config, chosen.saved.id if chosen.saved else None))
        for name, chosen in zip("AB", of.chosen, strict=True) if chosen is not None
    ]  # fmt: skip
    return Section(
        block="selection", title="The selection", parts=(*parts, Figures(cards=tuple(cards))),
        intro="A selection keeps a few candidates of each problem and gives each a weight q, which sums to 1 over the "
        "problem. The χ² rule takes those that score highest and flattens their weights by its strength τ; ess = 1/Σq² "
        "says how many equally weighted trajectories that amounts to.",
    )  # fmt: skip


def _selection_words(name: str, config: SelectConfig, saved: str | None) -> str:
    edits = {
        field: value for field, value in config.pool_edit.items()
        if field not in ("energy", "seed") and value not in (False, 0, None, ())
    }  # fmt: skip
    said = ", ".join(
        formats.words(field) + ("" if value is True else f": {', '.join(value) if isinstance(value, tuple) else value}")
        for field, value in edits.items()
    )
    state = f"saved as {saved}" if saved else "not saved"
    return f"{name}: {budget_text(config)}" + (f", with the pool edits {said}" if said else "") + f" ({state})."


def cost(of: Material) -> Section | Missing:
    """What training on the selection takes by a recipe."""
    if of.scored is None:
        return Missing(_NOT_SCORED)
    recipe, config = of.train_config
    manifest = of.scored.scores.manifest
    rate = measured_rate(of.workspace.list("checkpoints"), manifest.identity.get("student"), config.method)
    size = size_of_student(str(manifest.config.get("student", "")), of.workspace)
    card = cost_card(*of.shown, config, recipe, size, rate, no_rate="not measured here")
    return Section(
        block="cost", title="What it costs", parts=(Figures(cards=(replace(card, span=12),)),),
        intro="Steps, tokens and sequences follow from the selection and the recipe; time rests on the runs of this "
        "student in the workspace, if there are any.",
    )  # fmt: skip


def problems(of: Material) -> Section | Missing:
    """Example problems with all their candidates in numbers, and with texts as far as they go out.

    Errors: `ConfigError` for a problem that the pool does not have.
    """
    if of.scored is None:
        return Missing(_NOT_SCORED)
    rows = _rows(of, of.scored)
    if not rows:
        return Missing("the selection keeps no candidate")
    b = of.chosen[1]
    how = "whose weights differ most between A and B" if b else "whose weight is most concentrated"
    named = len(of.config.problem)
    which = f"{named} were named, the others are those {how}" if named else f"They are those {how}"
    texts = {
        "none": "Their texts are not part of this report.",
        "chosen": "The texts of the named ones are part of this report: problem, answer, and what is kept.",
        "all": "Their texts are part of this report: problem, answer, and what is kept.",
    }[of.config.texts]
    return Section(
        block="problems", title="Example problems", parts=tuple(_example(of, of.scored, row) for row in rows),
        intro=f"n = {len(rows)} of {formats.count(len(of.scored.problem_ids))} problems. {which}. {texts}",
    )  # fmt: skip


def _rows(of: Material, scored: ScoredPool) -> list[int]:
    """Rows of the matrices: the named problems, then others up to the number."""
    found = []
    for name in of.config.problem:
        if name not in scored.problem_ids:
            raise ConfigError(f"the pool has no problem '{name}'{did_you_mean(name, map(str, scored.problem_ids))}")
        found.append(int(np.flatnonzero(scored.problem_ids == name)[0]))
    others = [row for row in by_difference(*of.shown) if row not in found]
    return list(dict.fromkeys([*found, *others]))[: max(of.config.num_problems, len(found))]


def _example(of: Material, scored: ScoredPool, row: int) -> Example:
    now, pinned = of.shown
    problem_id = str(scored.problem_ids[row])
    sides = [(name, side) for name, side in (("A", pinned or now), ("B", now if pinned else None)) if side is not None]
    weights = {name: _weights(side, row) for name, side in sides}
    order = [int(column) for column in np.argsort(-now.frame.energy_NK[row], kind="stable")]
    order = [column for column in order if scored.candidates.present_NK[row, column]]
    g_hat = METRIC_WORDS["g_hat"]
    kept = [column for column in order if any(weight_K[column] > 0 for weight_K in weights.values())]
    last = max((order.index(column) for column in kept), default=0)
    shown = order[: max(_FEWEST, last + 1 + _BELOW)]
    lines = []
    for rank, column in enumerate(shown, start=1):
        line = scored.candidates.table.iloc[scored.candidates.row_NK[row, column]]
        energy = now.frame.energy_NK[row, column]
        correct = scored.candidates.flag_NK("is_correct")[row, column]
        lines.append((
            str(rank) if np.isfinite(energy) else "–", one_line(str(line["teacher"]), 60), str(line["candidate_id"]),
            g_hat.say(float(of.scene.g_hat_NK[row, column])) if now.config.energy == "g_hat" else f"{energy:.4g}",
            *(formats.decimal(float(weight_K[column]), 3) if weight_K[column] > 0 else "–"
              for weight_K in weights.values()),
            "–" if np.isnan(tokens := scored.candidates.stat_NK("num_response_tokens")[row, column])
            else formats.count(tokens),
            {1: "correct", 0: "wrong"}.get(int(correct), "not known"),
        ))  # fmt: skip
    energy_name = "ĝ" if now.config.energy == "g_hat" else f"energy ({now.config.energy})"
    columns = (
        Column("Rank", True), Column("Teacher"), Column("No.", True), Column(energy_name, True),
        *(Column(f"q of {name}" if len(sides) > 1 else "Weight q", True) for name in weights), Column("Tokens", True),
        Column("Answer"),
    )  # fmt: skip
    name = one_line(problem_id, 80)
    shows_texts = of.config.texts == "all" or (of.config.texts == "chosen" and problem_id in of.config.problem)
    return Example(
        title=f"Problem {name}", note=f"{len(order)} candidates, {len(kept)} kept"
        + (f" · the first {len(shown)} by rank" if len(shown) < len(order) else ""),
        table=Table(key=f"problem-{problem_id}", caption=f"Candidates of problem {name} by rank",
                    columns=columns, rows=tuple(lines)),
        passages=_passages(scored, row, kept) if shows_texts else (),
    )  # fmt: skip


def _weights(side: Outcome, row: int) -> Floats:
    """selection_prob of the candidates of a problem by column of the matrices."""
    prob_K = np.zeros(side.frame.ranked.num_columns)
    width = side.solution.prob_NW.shape[1]
    prob_K[side.solution.ranked.order_NK[row, :width]] = side.solution.prob_NW[row]
    return prob_K


def _passages(scored: ScoredPool, row: int, columns: list[int]) -> tuple[Passage, ...]:
    """The problem, its answer, and the kept responses, best first."""
    table = scored.candidates.table
    by_row = {int(table["row"].iloc[scored.candidates.row_NK[row, column]]): column for column in columns}
    texts = {by_row[at]: found for at, found in zip(
        sorted(by_row), scored.data.trajectories(sorted(by_row)), strict=True)}  # fmt: skip
    if not texts:
        return ()
    first = texts[columns[0]]
    passages = [Passage(f"Problem ({message['role']})", message["content"]) for message in first.prompt]
    answer = next((one.answer for one in texts.values() if one.answer is not None), None)
    passages += [] if answer is None else [Passage("Reference answer", answer)]
    passages += [
        Passage(
            f"{one_line(texts[column].teacher, 60)}, candidate {texts[column].candidate_id}", texts[column].response
        )
        for column in columns
    ]
    return tuple(passages)
