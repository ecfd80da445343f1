"""A training run in words: what lists, headings and tables say of it. No Streamlit; texts are as they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from app import job_words
from app.components.row_table import Cell, Column
from lark_engine.figures import formats
from lark_engine.figures.cards import Card
from lark_engine.figures.charts_runs import View
from lark_engine.figures.run_card import run_card
from lark_engine.training.curves import Axis, Curves
from lark_engine.training.runs import Run

_TONES = {"finished": "good", "removed": "quiet", "stopped": "warn"}
# What the rows of the table may be sorted by, and the value; None comes last.
SORTS: dict[str, Callable[[Run], Any]] = {
    "name": lambda run: run.name, "steps": lambda run: run.done, "loss": lambda run: run.last_loss,
    "eval": lambda run: run.eval_loss, "tokens": lambda run: run.tokens, "time": lambda run: run.train_s,
    "age": lambda run: -run.updated_at,
}  # fmt: skip
COLUMNS = (
    Column(label="Run", key="name", is_number=False),
    Column(label="State", is_number=False),
    Column(label="Method", is_number=False),
    Column(label="Selection", is_number=False),
    Column(label="Steps", key="steps"),
    Column(label="Loss", key="loss", help="of the last logged step"),
    Column(label="Held-out loss", key="eval", help="the last one, of the first held-out set"),
    Column(label="Tokens", key="tokens", help="trained on, prompts included"),
    Column(label="Trained for", key="time", help="without the pauses between processes"),
    Column(label="Age", key="age"),
)


def tone(run: Run) -> str:
    """Which color goes with the state; the state is always said beside it."""
    if run.state in _TONES:
        return _TONES[run.state]
    return job_words.tone(run.job.state) if run.job else "live"


def labels(runs: Sequence[Run]) -> dict[str, str]:
    """A short name for each run by its id, with the end of the id where two have the same."""
    counts = Counter(run.name for run in runs)
    return {run.id: run.name if counts[run.name] == 1 else f"{run.name} {run.id[-4:]}" for run in runs}


def option(run: Run, label: str, now_s: float) -> str:
    """A run in a menu: `lora 3f2a · finished · LoRA · 3 h ago`."""
    return " · ".join(
        part for part in (label, run.state, formats.method(run.method), job_words.age(run.updated_at, now_s)) if part
    )


def facts(run: Run, now_s: float) -> list[str]:
    """What a run is: method, data, when it began."""
    return [
        fact
        for fact in (
            formats.method(run.method), f"recipe {run.recipe}" if run.recipe else "",
            f"on {run.selection}" if run.selection else "",
            f"started {job_words.age(run.started_at, now_s)}" if run.started_at else "",
        )
        if fact
    ]  # fmt: skip


def left_s(run: Run, curves: Curves, now_s: float) -> float | None:
    """Seconds that are left as of now; None where nothing forecasts them."""
    if not run.is_live:
        return None
    if run.job is not None and run.has_own_job:
        found = job_words.progress(run.job, now_s)
        return found.left_s if found else None
    eta_s, at = curves.number("eta_s"), curves.number("time")
    return None if eta_s is None or at is None else max(0.0, eta_s - (now_s - at)) or None


def figures(run: Run, view: View, now_s: float) -> Card:
    """How a run is going, in numbers."""
    return run_card(run, view.curves, left_s(run, view.curves, now_s))


def ends_at(run: Run, axis: Axis, curves: Curves) -> float | None:
    """Where the axis of a run that goes on ends: at its whole length, halved while the curve fits in the half.

    So it changes seldom, each time by a doubling, and the curve is never a sliver at its left end.
    """
    done, total = curves.number("done"), curves.number("total")
    places = curves.along(axis)
    if not run.is_live or not done or not total or not (places[-1] > 0 and math.isfinite(places[-1])):
        return None
    # Of tokens and hours the whole is a forecast, which would move the axis with each of its breaths.
    end = total if axis == "step" else 2.0 ** math.ceil(math.log2(float(places[-1])))
    while end / 2 >= places[-1]:
        end /= 2
    return end


def cells(run: Run, label: str, now_s: float) -> list[Cell]:
    """A row of the table of all runs."""
    steps = "–" if run.done is None else formats.count(run.done)
    return [
        Cell(label),
        Cell(run.state, None, tone(run)),
        Cell(formats.method(run.method) or "–"),
        Cell(run.selection or "–"),
        Cell(steps if run.total in (None, run.done) else f"{steps} of {formats.count(run.total or 0)}"),
        Cell(formats.numeral(run.last_loss, ".4g")),
        Cell(formats.numeral(run.eval_loss, ".4g")),
        Cell("–" if not run.tokens else formats.compact(run.tokens)),
        Cell("–" if not run.train_s else formats.duration(run.train_s)),
        Cell(job_words.age(run.updated_at, now_s)),
    ]


def sort(runs: Sequence[Run], by: str, *, descending: bool) -> list[Run]:
    """The runs by a column; those without a value come last."""
    value = SORTS[by]
    known = sorted((run for run in runs if value(run) is not None), key=value, reverse=descending)
    return known + [run for run in runs if value(run) is None]
