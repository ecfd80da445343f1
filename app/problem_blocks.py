"""Blocks of the view Problems as HTML: an answer with its verdict, a dispute, how answers were found. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.compare_tables import sign
from app.components.row_table import Cell, Column
from app.widgets import block, text
from lark_engine.evaluation.disputes import Dispute
from lark_engine.evaluation.sampling import TRUNCATED
from lark_engine.figures.formats import count, percent, words
from lark_engine.figures.safe_text import block_html, one_line
from lark_engine.results.answers import Answer, GradedProblem, Tally, Verdict

CAP_CHARS = 400
_NEAR = 150  # the end of a text begins with a line, if one begins so near
_LONGEST_REASON = 500
VERDICT_WORDS: dict[str, str] = {
    "all": "All", "wrong": "Wrong", "correct": "Correct", "disputed": "Disputed ‡", "no_answer": "No answer",
    "truncated": "Truncated",
}  # fmt: skip
# What makes an answer wrong without a comparison having said so.
_REASONS = {
    "no_answer": "no rule found an answer", "unfinished_thinking": "the thinking never ends", "timeout": "timed out",
    "out_of_memory": "out of memory", "worker_died": "grading ended without a verdict", "too_long": "answer too long",
    "no_reference": "no reference answer",
}  # fmt: skip


def problem_columns() -> list[Column]:
    return [
        Column(label="Problem", is_number=False), Column(label="Correct", help="correct samples"),
        Column(label="Reference", is_number=False), Column(label="Level", is_number=False),
        Column(label="No answer"), Column(label="Truncated"), Column(label="Tokens", help="mean length of a sample"),
        Column(label="Prompt", is_number=False),
    ]  # fmt: skip


def problem_cells(problem: GradedProblem) -> list[Cell]:
    mark = " ‡" if problem.num["disputed"] else ""
    return [
        Cell(problem.problem_id), Cell(f"{problem.num['correct']} of {problem.num_samples}{mark}"),
        Cell(one_line(problem.reference, 24)), Cell(problem.level or "–"), Cell(_or_dash(problem.num["no_answer"])),
        Cell(_or_dash(problem.num["truncated"])), Cell(count(problem.mean_tokens)), Cell(one_line(problem.prompt, 60)),
    ]  # fmt: skip


def gold(problem: GradedProblem) -> str:
    """The reference answer, and where the problem stands in its benchmark."""
    facts = [fact for fact in (problem.level and f"level {problem.level}", problem.subject) if fact]
    more = f' <span class="muted">{text(one_line(" · ".join(facts), 80))}</span>' if facts else ""
    return block(
        f'<span class="muted">Reference answer</span> <code>{text(one_line(problem.reference, 300))}</code>{more}',
        "lark-answer",
    )


def signs(sides: Sequence[Sequence[Answer]]) -> dict[int, str]:
    """Of each sample the verdicts of all sides: `✓✗`, with ‡ behind where one is disputed; `–` where it is missing."""
    found: dict[int, str] = {}
    by_index = [{answer.sample_index: answer for answer in answers} for answers in sides]
    for index in sorted({index for answers in by_index for index in answers}):
        own = [answers.get(index) for answers in by_index]
        disputed = any(answer is not None and answer.dispute for answer in own)
        found[index] = "".join("–" if a is None else sign(a.correct) for a in own) + ("‡" if disputed else "")
    return found


def heading(answer: Answer) -> str:
    """The verdict, what was found by which rule, and how the sample ended."""
    kind = "correct" if answer.correct else "wrong"
    mark = " ‡" if answer.dispute else ""
    found = '<span class="muted">no answer</span>'
    if answer.prediction is not None:
        rule = words(answer.rule or "an unknown rule")
        found = f'<code>{text(one_line(answer.prediction, 120))}</code> <span class="muted">by {text(rule)}</span>'
    facts = [f"{count(answer.num_tokens)} tokens"]
    facts.append("cut by the token limit" if answer.finish_reason == TRUNCATED else f"ended: {answer.finish_reason}")
    facts += [f"seed {answer.seed}"] if answer.seed is not None else []
    why = f'<div class="why">{text(reason_words(answer.reason))}</div>' if answer.reason else ""
    return block(
        f'<strong>Sample {answer.sample_index}</strong><span class="verdict {kind}">{sign(answer.correct)} {kind}{mark}'
        f'</span><span class="found">{found}</span><span class="muted">{text(" · ".join(facts))}</span>{why}',
        "lark-heading lark-sample",
    )


def reason_words(reason: str) -> str:
    """Why an answer is wrong without having been compared."""
    return _REASONS.get(reason, one_line(words(reason), 80))


def dispute(said: Dispute, by_rules: bool) -> str:
    """Who overruled a verdict, when and why."""
    verdict = "correct" if said.correct else "wrong"
    rules = "correct" if by_rules else "wrong"
    return block(
        f"<strong>‡ {verdict}: {text(one_line(said.reason, _LONGEST_REASON))}</strong>"
        f'<div class="muted">{text(one_line(said.author, 60))}, {text(said.created_at[:10])}; the rules say {rules}'
        "</div>",
        "lark-flag",
    )


def end_of(answer: Answer) -> str:
    """The end of a text, where the answer stands, and how much comes before."""
    if not answer.text:
        return block('<span class="muted">Empty: there is no text.</span>')
    start = max(len(answer.text) - CAP_CHARS, 0)
    line_end = answer.text.find("\n", start - 1, start + _NEAR) if start else -1
    start = start if line_end < 0 else line_end + 1
    note = block(f'<span class="muted">… {count(start)} characters before</span>') if start else ""
    return note + block_html(answer.text[start:], f"end of sample {answer.sample_index}")


def trust(found: Tally, names: list[str]) -> str:
    """How the answers were found and what kept some from being compared; `names` are the rules that were tried."""
    total = found.num_samples
    rows = [(f"found by {words(rule)}", found.by_rule.get(rule, 0)) for rule in names]
    rows += [(f"found by {words(rule)}", n) for rule, n in found.by_rule.items() if rule not in names]
    rows += [(reason_words(reason), n) for reason, n in found.by_reason.items()]
    rows += [("cut by the token limit", found.num_truncated), ("disputed ‡", found.num_disputed)]
    body = "".join(
        f"<div><dt>{text(name)}</dt><dd>{count(number)}</dd><dd class='muted'>{percent(number / total)}</dd></div>"
        for name, number in rows
    )
    return block(
        f"<p><strong>{count(found.num_correct)}</strong> of {count(total)} answers are correct "
        f"({percent(found.num_correct / total)}).</p><dl>{body}</dl>",
        "lark-trust",
    )


def verdict_of(name: str) -> Verdict | None:
    """The filter of the address as the engine takes it."""
    return None if name == "all" else name  # type: ignore[return-value]


def _or_dash(number: int) -> str:
    return str(number) if number else "–"
