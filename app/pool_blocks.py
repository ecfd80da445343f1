"""What the page Pool and scores shows, as HTML: pools, the look at a source, rejected lines, the estimate.

All texts are of pools or paths that anyone may have written: everything is escaped, and hidden characters are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.score_estimate import Estimate
from app.widgets import block, text
from lark_engine.access import visitor
from lark_engine.figures import formats
from lark_engine.figures.pool_stats import pool_stats
from lark_engine.figures.safe_text import one_line, text_html
from lark_engine.pool.preview import Preview
from lark_engine.pool.rejections import Rejection
from lark_engine.records import Trajectory
from lark_engine.store.workspace import Artifact

_SHOWN_CHARS = 400
_PLACE_CHARS = 48


def pool_facts(pool: Artifact, now: datetime) -> str:
    """A pool in figures: what it holds, what is known of its answers, what was left out and why, where it is from."""
    manifest = pool.manifest
    name = text(one_line(manifest.name, 60))
    head = (
        f'<div class="top"><span><strong>{name}</strong> <code>{text(pool.id)}</code></span>'
        f'<span class="muted">{text(formats.age(manifest.created_at, now))}</span></div>'
    )
    place = str(manifest.config.get("source", ""))
    if visitor().why_not("launch"):  # where it lies on this machine is of no use to them
        place = place.rpartition("/")[2] if place.startswith(("/", "~")) else place
    source = f'<div class="muted source">from {text(one_line(place, 160))}</div>'
    return block(f"{head}{_facts(pool_stats(pool))}{source}", "lark-pool")


def _facts(facts: Sequence[tuple[str, str, str]]) -> str:
    """Labels, values and a detail below each."""
    cells = "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}{f'<small>{text(detail)}</small>' if detail else ''}</dd></div>"
        for label, value, detail in facts
    )
    return f'<dl class="lark-facts">{cells}</dl>'


def source_preview(found: Preview, *, skips_bad: bool, is_refused: bool) -> str:
    """What a source is: its format and size, mistakes in its first rows, and its first problem.

    `is_refused`: an import has listed all mistakes already.
    """
    facts = [found.kind]
    if found.num_files > 1:
        facts.append(f"{formats.count(found.num_files)} files")
    if found.num_bytes:
        facts.append(formats.size(found.num_bytes))
    if found.num_rows:
        rows = f"all {formats.count(found.num_rows)} rows" if found.is_whole else f"first {found.num_rows} rows"
        facts.append(f"{rows} read")
    parts = [f'<div class="top"><span><strong>Source</strong> {text(" · ".join(facts))}</span></div>']
    if found.rejected and not is_refused:
        items = "".join(
            f"<li><code>{text(_place(r.place))}</code> {text_html(one_line(r.problem, 200))}"
            f'<div class="muted">{text_html(one_line(r.remedy, 200))}</div></li>'
            for r in found.rejected
        )
        then = "they are left out" if skips_bad else "the import refuses, unless they are left out (Skip bad)"
        parts.append(
            f'<div class="lark-bad" role="alert"><strong>Some of the first rows cannot be imported: {then}.</strong>'
            f"<ul>{items}</ul></div>"
        )
    if found.first:
        parts.append(_first_problem(found.first, is_open=not is_refused))
    return block("".join(parts), "lark-source")


def _first_problem(candidates: Sequence[Trajectory], *, is_open: bool) -> str:
    """The fields of the first problem as they will be read."""
    first = candidates[0]
    others = f", the first of its {len(candidates)} candidates here" if len(candidates) > 1 else ""
    rows = [("problem_id", first.problem_id), ("teacher", first.teacher)]
    rows += [(message["role"], message["content"]) for message in first.prompt]
    rows += [("response", first.response), ("answer", "none" if first.answer is None else first.answer)]
    rows.append(("is_correct", {True: "yes", False: "no", None: "not said"}[first.is_correct]))
    if first.extra:
        rows.append(("also kept", ", ".join(first.extra)))
    body = "".join(
        f"<dt>{text(one_line(name, 24))}</dt><dd>{text_html(one_line(value, _SHOWN_CHARS))}</dd>"
        for name, value in rows
    )
    shown = " open" if is_open else ""
    head = f"<summary>First problem{text(others)}</summary>"
    return f'<details{shown}>{head}<dl class="lark-fields">{body}</dl></details>'


def _place(place: str) -> str:
    """A place with its end, where the number of the line is."""
    line = one_line(place, 400)
    return line if len(line) <= _PLACE_CHARS else f"…{line[1 - _PLACE_CHARS :]}"


def rejected_table(rejections: Sequence[Rejection], caption: str) -> str:
    """Rejected lines: place, field, what is wrong, what stands there, and the remedy."""
    names = ("Place", "Field", "Problem", "What stands there", "Remedy")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        f"<tr><td><code>{text(_place(r.place))}</code></td><td>{text(one_line(r.field, 30))}</td>"
        f"<td>{text_html(one_line(r.problem, 240))}</td><td><code>{text_html(one_line(r.excerpt, 130))}</code></td>"
        f"<td>{text_html(one_line(r.remedy, 240))}</td></tr>"
        for r in rejections
    )
    return block(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table class="lark-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
        "lark-rejected",
    )


def estimate_table(estimates: Sequence[Estimate]) -> str:
    """What scoring takes, a row a student, each figure with what it rests on."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Student", "Candidates", "Tokens", "Time", "Disk"))
    rows = "".join(_estimate_row(estimate) for estimate in estimates)
    if len(estimates) > 1:
        times = [e.seconds for e in estimates]
        known = None if None in times else sum(s for s in times if s is not None)
        total = (
            formats.count(sum(e.work.tokens for e in estimates)),
            "–" if known is None else _time(known),
            formats.size(sum(e.disk_bytes for e in estimates)),
        )
        rows += '<tr class="total"><td>All, one by one</td><td></td>' + "".join(f"<td>{cell}</td>" for cell in total)
        rows += "</tr>"
    table = f'<table class="lark-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return block(f'<div class="scroll" role="region" tabindex="0" aria-label="Estimate">{table}</div>', "lark-estimate")


def _time(seconds: float) -> str:
    return "under 1 s" if seconds < 1 else formats.duration(seconds)


def _estimate_row(estimate: Estimate) -> str:
    work = estimate.work
    taken = f"{formats.count(work.num_reused)} scored already, taken over" if work.num_reused else "none scored already"
    todo = formats.count(work.num_candidates - work.num_reused)
    time = "not known" if estimate.seconds is None else _time(estimate.seconds)
    cells = [
        (one_line(estimate.label, 60), estimate.detail), (todo, taken),
        (formats.count(work.tokens), f"{estimate.tokens_basis}; shared prompts once"), (time, estimate.rate_basis),
        (formats.size(estimate.disk_bytes), "twice that while it runs"),
    ]  # fmt: skip
    return "<tr>" + "".join(f"<td>{text(value)}<small>{text(basis)}</small></td>" for value, basis in cells) + "</tr>"
