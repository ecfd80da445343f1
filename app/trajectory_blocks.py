"""Blocks of the page Trajectory as HTML: the problem, a candidate's heading, its score explained. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.components.candidate_list import Row
from app.trajectory import NO_RANK, Candidate, Problem
from app.widgets import block, text
from app.word_diff import MOST_WORDS, Difference, Side
from lark_engine.config import SelectConfig
from lark_engine.explore.explain import ProblemScores, Threshold, Without
from lark_engine.explore.flags import LONGEST_REASON, Flag
from lark_engine.figures import formats
from lark_engine.figures.formats import decimal, signed
from lark_engine.figures.markers import marker
from lark_engine.figures.safe_text import block_html, one_line
from lark_engine.sharing.withheld import is_withheld

_VERDICTS = {"correct": "✓ correct", "wrong": "✗ wrong", "unknown": "correctness unknown"}
_LONGEST_SYSTEM = 4_000
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def energy_symbol(config: SelectConfig) -> str:
    """What candidates are ranked by, as a symbol: ĝ, or the energy's name."""
    return "ĝ" if config.energy == "g_hat" else config.energy.replace("-", "−")


def rows(problem: Problem) -> list[Row]:
    """The candidates for the list, best first."""
    low, high = _axis(problem)

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    found = []
    for c in problem.by_rank:
        bar = None
        if math.isfinite(c.energy):
            bar = (round(place(min(c.energy, 0.0)), 2), round(place(max(c.energy, 0.0)), 2))
        notes = [c.why_not] if c.why_not and bar else []
        notes += ["cut"] if c.truncated else []
        notes += ["⚑"] if c.flag else []
        tokens = "–" if c.num_tokens is None else formats.count(c.num_tokens)
        found.append(
            Row(
                id=c.id, slot=c.slot, teacher=one_line(c.teacher, 60), rank=str(c.rank) if c.rank else "–", bar=bar,
                energy=signed(c.energy, 4) if bar else c.why_not or "–",
                weight=decimal(c.weight, 3) if c.weight > 0 else "–", verdict=c.verdict, tokens=tokens,
                notes=tuple(notes), kept=c.weight > 0,
            )
        )  # fmt: skip
    return found


def axis_places(problem: Problem) -> tuple[float, float | None]:
    """Where 0 and the threshold are on the bars' axis, in percent."""
    low, high = _axis(problem)
    zero = 100 * (0.0 - low) / (high - low)
    if problem.scores is None or problem.scores.threshold is None:
        return zero, None
    return zero, min(max(100 * (problem.scores.threshold.energy - low) / (high - low), 0.0), 99.0)


def _axis(problem: Problem) -> tuple[float, float]:
    values = [c.energy for c in problem.candidates if math.isfinite(c.energy)]
    low, high = min([0.0, *values]), max([0.0, *values])
    return (low, high) if high > low else (0.0, 1.0)


def list_note(problem: Problem, config: SelectConfig) -> str:
    """How many there are, how many are kept, and where weight begins."""
    kept = sum(c.weight > 0 for c in problem.candidates)
    parts = [f"n = {len(problem.candidates)}", f"{kept} kept"]
    if problem.scores is not None and (threshold := problem.scores.threshold) is not None:
        parts.append(f"dotted: {threshold_name(threshold)} = {signed(threshold.energy, 4)}")
    return " · ".join(parts)


def threshold_name(threshold: Threshold) -> str:
    """`e₄`, the energy of rank 4, or ν where weight begins between two."""
    return f"e{str(threshold.rank).translate(_SUBSCRIPTS)}" if threshold.rank else "ν"


def heading(c: Candidate, role: str = "") -> str:
    """Who wrote a candidate, and its numbers in one line."""
    facts = [f"candidate {c.id}"]
    facts.append(f"rank {c.rank}" if c.rank else c.why_not)
    facts += [c.why_not] if c.rank and c.why_not else []
    facts += [f"weight {decimal(c.weight, 3)}"] if c.weight > 0 else []
    facts += [] if c.num_tokens is None else [f"{formats.count(c.num_tokens)} tokens"]
    facts += ["truncated when it was scored"] if c.truncated else []
    if not is_withheld(c.trajectory.response):
        facts.append(f"{formats.count(len(c.trajectory.response))} characters")
    said = f'<b class="role">{text(role)}</b>' if role else ""
    return block(
        f'{said}{marker(c.slot)}<strong class="teacher">{text(one_line(c.teacher, 120))}</strong>'
        f'<span class="verdict {c.verdict}">{_VERDICTS[c.verdict]}</span>'
        f'<span class="muted">{text(" · ".join(facts))}</span>',
        "lark-heading",
    )


def answer(problem: Problem) -> str:
    """The reference answer, and the system prompt that all candidates were given, folded."""
    found = '<span class="muted">No reference answer is known.</span>'
    if problem.answer is not None:
        found = f'<span class="muted">Reference answer</span> <code>{text(one_line(problem.answer, 300))}</code>'
    system = [message["content"] for message in problem.prompt if message["role"] == "system"]
    folded = "".join(
        f"<details><summary>System prompt</summary>{block_html(said[:_LONGEST_SYSTEM])}{_rest(said)}</details>"
        for said in system
    )
    return block(found + folded, "lark-answer")


def _rest(system: str) -> str:
    """How much of a system prompt is left out."""
    left = len(system) - _LONGEST_SYSTEM
    return f'<p class="muted">{formats.count(left)} more characters are not shown.</p>' if left > 0 else ""


def flag(said: Flag) -> str:
    """Who flagged a candidate, when and why."""
    return block(
        f"<strong>⚑ {text(one_line(said.reason, LONGEST_REASON))}</strong>"
        f'<div class="muted">{text(one_line(said.author, 60))}, {text(said.created_at[:10])}</div>',
        "lark-flag",
    )


def difference(found: Difference) -> str:
    """How much two texts share, and what of them was compared."""
    first, second = found.num_words
    share = 2 * found.num_shared / (first + second) if first + second else 0.0
    cut = f"; the first {formats.count(MOST_WORDS)} words of each are compared" if MOST_WORDS in (first, second) else ""
    return block(
        f'<span class="muted">Word for word, {formats.percent(share)} is in both ({formats.count(found.num_shared)} of '
        f"{formats.count(first)} and {formats.count(second)} words{cut}). </span>"
        '<span class="lark-text"><del>only in A</del> <ins>only in B</ins></span>',
    )


def compared(side: Side, c: Candidate) -> str:
    """One side of a comparison, and how much of the text is not shown."""
    response = c.trajectory.response
    if not response:
        return block('<span class="muted">Empty: there is no text.</span>')
    left = len(response) - side.num_compared
    note = f'<p class="muted">{formats.count(left)} more characters are not compared.</p>' if left > 0 else ""
    shown = f'<div class="lark-text" dir="auto" role="region" aria-label="response of candidate {c.id}" tabindex="0">'
    return f"{shown}{side.html}</div>{block(note) if note else ''}"


def explanation(c: Candidate, problem: Problem, config: SelectConfig) -> str:
    """The score of one candidate in numbers: ĝ = L/ΣL · (2ρ − Σ(ρL)/ΣL), its rank, the threshold, its weight."""
    scores = problem.scores
    if scores is None or c.scored is None:
        said = f"It has {NO_RANK}: the selection of this address chooses nothing."
        if c.why_not != NO_RANK:
            said = "This candidate was not scored, so nothing is known of what the student makes of it."
        return block(f"<p>{said}</p>", "lark-why")
    k = c.scored
    parts = [_verdict(c, scores)]
    if scores.in_sums[k] and math.isfinite(scores.g_hat[k]):
        parts.append(
            '<div class="formula"><span>ĝ</span><span>=</span><span>L/ΣL</span><span>·</span>'
            "<span>(2ρ − Σ(ρL)/ΣL)</span>"
            f"<b>{signed(scores.g_hat[k], 4)}</b><span>=</span><b>{100 * scores.share[k]:.1f} %</b><span>·</span>"
            f"<b>(2 · {decimal(scores.rho[k], 3)} − {decimal(scores.ratio, 3)})</b></div>"
        )
    parts.append(f"<dl>{''.join(_fact(*fact) for fact in _facts(c, scores, config))}</dl>")
    return block("".join(parts), "lark-why")


def _verdict(c: Candidate, scores: ProblemScores) -> str:
    if not c.rank:
        return f"<p>No rank: {text(c.why_not)}. It has no part in ΣL, and no weight.</p>"
    place = f"Rank {c.rank} of {scores.num_ranked}"
    if c.weight > 0:
        return f"<p><strong>{place}</strong>, kept with weight <strong>{decimal(c.weight, 3)}</strong>.</p>"
    return f"<p><strong>{place}</strong>, not kept{f': {text(c.why_not)}' if c.why_not else ''}.</p>"


def _fact(name: str, value: str, detail: str) -> str:
    return f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd><dd class=muted>{text(detail)}</dd></div>"


def _facts(c: Candidate, scores: ProblemScores, config: SelectConfig) -> list[tuple[str, str, str]]:
    k = int(c.scored or 0)
    facts = [
        ("L", decimal(scores.nll[k], 3), "nats per token: how unlikely the student finds it"),
        ("ρ", decimal(scores.rho[k], 3), f"Brier {decimal(scores.brier[k], 3)} / L"),
    ]
    if scores.in_sums[k]:
        share = f"{100 * scores.share[k]:.1f} % of ΣL = {scores.sum_nll:.3f}"
        facts[0] = ("L", decimal(scores.nll[k], 3), f"nats per token, {share}")
        facts.append(("bracket", signed(scores.bracket[k], 3), f"2ρ − R, R = Σ(ρL)/ΣL = {decimal(scores.ratio, 3)}"))
    if config.energy != "g_hat" and math.isfinite(c.energy):
        facts.append((energy_symbol(config), signed(c.energy, 4), "the energy that this selection ranks by"))
    if scores.threshold is not None and math.isfinite(c.energy):
        name, margin = threshold_name(scores.threshold), c.energy - scores.threshold.energy
        facts.append((name, signed(scores.threshold.energy, 4), f"threshold; this one is {signed(margin, 4)} from it"))
    if c.rank:
        facts.append(("q", decimal(c.weight, 3), "weight in training; sums to 1 over the problem"))
    return facts


def without_teachers(c: Candidate, lines: Sequence[Without], slots: dict[str, int]) -> str:
    """What becomes of a candidate when each other teacher is left out of the pool; ĝ is relative to who is there."""
    others = [line for line in lines if line.teacher != c.teacher]
    if c.scored is None or not c.rank or not others:
        return ""
    k = c.scored
    moved = [line for line in others if int(line.rank[k]) != c.rank]
    said = "; ".join(f"without {one_line(line.teacher, 40)} it would rank {int(line.rank[k])}" for line in moved[:3])
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    sentence = f"{said}{more}." if moved else f"It keeps rank {c.rank} whichever other teacher is left out."
    ordered = sorted(others, key=lambda line: (int(line.rank[k]) == c.rank, -abs(float(line.energy[k]) - c.energy)))
    body = "".join(_without(line, k, c, slots) for line in ordered)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Without", "Energy", "Rank", "Weight"))
    return block(
        f"<p>{text(sentence[:1].upper() + sentence[1:])}</p><details><summary>Each teacher left out</summary>"
        f'<table class="lark-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>',
        "lark-without",
    )


def _without(line: Without, k: int, c: Candidate, slots: dict[str, int]) -> str:
    rank, energy = int(line.rank[k]), float(line.energy[k])
    weight = "–" if line.weight is None else decimal(float(line.weight[k]), 3)
    moved = ' class="moved"' if rank != c.rank else ""
    return (
        f"<tr{moved}><td>{marker(slots.get(line.teacher, 0))} {text(one_line(line.teacher, 40))}</td>"
        f"<td>{signed(energy, 4)} <small>{signed(energy - c.energy, 4)}</small></td><td>{rank}</td><td>{weight}</td>"
        "</tr>"
    )
