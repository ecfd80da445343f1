"""Blocks of HTML about training runs. Pure; all text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence

from app import job_words, run_words
from app.widgets import block, text
from lark_engine.figures import formats
from lark_engine.training.runs import ResumePoint, Run


def heading(run: Run, facts: Sequence[str]) -> str:
    """The run's id, its state with a mark, and what it is, in a line."""
    state = f'<span class="lark-run-state {run_words.tone(run)}"><i></i>{text(run.state)}</span>'
    said = " · ".join(text(fact) for fact in facts)
    return block(f'<b>{text(run.id)}</b> {state} <span class="muted">{said}</span>', "lark-run-heading")


def saved_points(points: Sequence[ResumePoint], now_s: float, *, is_live: bool) -> str:
    """The checkpoints that an unfinished run is resumed from: step, size, age."""
    if not points:
        wait = "the first one comes with the first saved step" if is_live else "running it again begins with step 1"
        return block(f'<span class="muted">No checkpoint is saved yet; {wait}.</span>')
    rows = "".join(
        f"<tr><td>{formats.count(point.step)}</td><td>{formats.size(point.num_bytes)}</td>"
        f"<td>{text(job_words.age(point.saved_at, now_s))}</td></tr>"
        for point in points
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Saved after step", "Size", "Age"))
    return block(
        f'<table class="lark-table lark-run-points"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
