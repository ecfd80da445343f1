"""Blocks of HTML for `st.html`. Everything that comes from a workspace is escaped here, in one place."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import get_args

from app import job_words
from app.loaders import Health, Unfinished
from app.overview import NOUNS, Chain, Link, StageCard
from app.results import Best, Cell, Results
from lark_engine.config import TrainFormat
from lark_engine.figures import formats
from lark_engine.jobs.status import JobView
from lark_engine.sharing.bundle_format import BundleRecord

_STATES = {"ready": "ready", "running": "running", "stopped": "stopped", "none": "not yet"}


def text(value: object) -> str:
    """Untrusted text as HTML text, also inside quoted attributes."""
    return html.escape(str(value), quote=True)


def block(content: str, name: str = "") -> str:
    """Wrap blocks so that the style sheet applies to them and to nothing of Streamlit's."""
    return f'<div class="lark {name}">{content}</div>'


def strip(cards: Sequence[StageCard]) -> str:
    """The pipeline from left to right."""
    return block("".join(_card(card) for card in cards), "lark-strip")


def _card(card: StageCard) -> str:
    unit = f"<span>{text(card.unit)}</span>" if card.unit else ""
    figure = f'<div class="figure">{text(card.headline)}{unit}</div>' if card.headline else ""
    facts = "".join(f"<div>{text(fact)}</div>" for fact in card.details)
    return (
        f'<section class="lark-card {card.state}" aria-label="{text(card.label)}: {_STATES[card.state]}">'
        f'<div class="top"><span class="label">{text(card.label)}</span>'
        f'<span class="state"><i></i>{_STATES[card.state]}</span></div>'
        f'{figure}<div class="facts">{facts}</div>'
        f'<div class="foot"><span>{text(card.age)}</span><span>{text(card.total)}</span></div></section>'
    )


def unfinished(items: Iterable[Unfinished]) -> str:
    """What is being made now, and what was left unfinished, each with its progress."""
    return block("".join(_run(item) for item in items))


def _run(item: Unfinished) -> str:
    share = item.done / item.total if item.total and item.done is not None else None
    state = "running" if item.running else "stopped; the same command resumes it"
    facts = [state]
    if share is not None and item.done is not None and item.total is not None:
        facts.append(formats.progress(item.done, item.total, item.unit))
    if item.running and item.eta_s is not None:
        facts.append(f"{formats.duration(item.eta_s)} left")
    bar = f'<div class="lark-bar"><div style="width:{100 * min(1.0, share):.1f}%"></div></div>' if share else ""
    return (
        f'<div class="lark-run"><div class="top"><span>{NOUNS[item.kind]} <code>{text(item.name)}</code></span>'
        f'<span class="muted">{text(" · ".join(facts))}</span></div>{bar}</div>'
    )


def best(items: Sequence[Best], metric: str) -> str:
    """The best result of each benchmark: value, interval, who it is, and its distance to the reference."""
    return block("".join(_best(item, metric) for item in items), "lark-best")


def _best(item: Best, metric: str) -> str:
    span = formats.interval(item.cell.low, item.cell.high)
    span = f"95 %: {span}" if span else ""
    notes = ["tied: another interval reaches it" if item.tied else ""]
    if item.above_reference is not None:
        notes.insert(0, f"{100 * item.above_reference:+.1f} points against {item.reference}")
    lines = "".join(f'<div class="muted">{text(note)}</div>' for note in notes if note)
    return (
        f'<div><div class="muted">{text(item.benchmark)} · {text(metric)} · n = {item.cell.num_problems}</div>'
        f'<div class="figure">{formats.percent(item.cell.value)}<span>{span}</span></div>'
        f"<div>{text(item.model)}</div>{lines}</div>"
    )


def results(shown: Results) -> str:
    """Models × benchmarks; each cell a value, its 95 % interval as a line on a 0–100 % scale, and in figures."""
    head = "".join(
        f'<th scope="col">{text(name)} <small>n = {n}</small></th>'
        for name, n in zip(shown.benchmarks, shown.num_problems, strict=True)
    )
    body = "".join(
        f"<tr><td>{text(row.model)}<br><small>{text(row.detail)}</small></td>"
        + "".join(_cell(cell, row.is_reference) for cell in row.cells)
        + "</tr>"
        for row in shown.rows
    )
    table = f'<table class="lark-table lark-results"><thead><tr><th scope="col">Model</th>{head}</tr></thead>'
    legend = "Line: 95 % interval over problems, from 0 to 100 %. Bold: above every other model's interval."
    return block(f'{table}<tbody>{body}</tbody></table><small class="muted">{legend}</small>')


def _cell(cell: Cell | None, is_reference: bool) -> str:
    if cell is None or cell.value is None or math.isnan(cell.value):
        return '<td><span class="muted">not evaluated</span></td>'
    span = formats.interval(cell.low, cell.high)
    line = ""
    if span and cell.low is not None and cell.high is not None:
        line = f'<b style="left:{100 * cell.low:.1f}%;width:{100 * (cell.high - cell.low):.1f}%"></b>'
    kind = "lark-range reference" if is_reference else "lark-range"
    dot = f'<i style="left:{100 * cell.value:.1f}%"></i>'
    return (
        f'<td class="{"best" if cell.best else ""}"><span class="value">{formats.percent(cell.value)}</span>'
        f"<small>{span}</small>"
        f'<div class="{kind}" aria-hidden="true">{line}{dot}</div></td>'
    )


def lineages(items: Sequence[Chain], now: datetime) -> str:
    """One foldable chain for each result: title, path in one line, and a table of all artifacts behind it."""
    return block("".join(_chain(item, now) for item in items), "lark-lineage")


def _chain(item: Chain, now: datetime) -> str:
    path = " ← ".join(dict.fromkeys(link.noun.lower() for link in item.links[1:]))
    rows = "".join(_link(link, now) for link in item.links)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "Id", "Contents", "Dropped", "Took", "Made"))
    return (
        f'<details><summary><strong>{text(item.title)}</strong> <span class="path">← {text(path)}</span></summary>'
        f'<div class="inside"><table class="lark-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"{_versions(item.links)}</div></details>"
    )


def _link(link: Link, now: datetime) -> str:
    noun, id_ = f"<td>{text(link.noun)}</td>", f"<td><code>{text(link.id)}</code></td>"
    if link.artifact is None:
        return f'<tr>{noun}{id_}<td colspan="4" class="muted">no longer in the workspace</td></tr>'
    manifest = link.artifact.manifest
    contents = [f"{formats.count(n)} {formats.words(name.removeprefix('num_'))}" for name, n in manifest.counts.items()]
    if manifest.tokens:
        contents.append(f"{formats.count(manifest.tokens)} tokens")
    drops = [f"{formats.count(n)} {formats.words(reason)}" for reason, n in manifest.drops.items()]
    if link.artifact.kind == "grades":  # an answer that cannot be graded is counted as wrong, not dropped
        contents, drops = contents + drops, []
    took = " on ".join(part for part in (formats.duration(manifest.wall_s), manifest.device or "") if part)
    return (
        f"<tr>{noun}{id_}<td>{text(' · '.join(contents) or '–')}</td><td>{text(' · '.join(drops) or 'none')}</td>"
        f"<td>{text(took)}</td><td>{text(formats.age(manifest.created_at, now))}</td></tr>"
    )


def _versions(links: Sequence[Link]) -> str:
    """The library versions and the commit of the whole chain; several values when they differ along it."""
    found: dict[str, dict[str, None]] = {}
    for link in links:
        if link.artifact is not None:
            manifest = link.artifact.manifest
            for name, version in manifest.versions.items():
                found.setdefault(name, {})[version] = None
            if manifest.git_commit:
                found.setdefault("commit", {})[manifest.git_commit[:10]] = None
    line = " · ".join(f"{name} {' / '.join(versions)}" for name, versions in found.items())
    return f'<div class="muted"><small>{text(line)}</small></div>' if line else ""


def note(sentence: str) -> str:
    """A sentence of ours, with whatever names of the workspace it holds."""
    return block(text(sentence))


def problem(title: str, sentence: str) -> str:
    """What went wrong and what to do, as a card."""
    return block(f'<div role="alert"><strong>{text(title)}</strong> {text(sentence)}</div>', "lark-warning")


def field_problem(sentence: str) -> str:
    """What is wrong with the value of the field above."""
    return block(f'<div role="alert">{text(sentence)}</div>', "lark-field-problem")


def job(view: JobView) -> str:
    """One job: its state, how far it is, and when it has ended, why and what to do."""
    now_s = time.time()
    found = job_words.progress(view, now_s) if view.is_live and view.state != "queued" else None
    facts = [view.state, job_words.said(view, now_s) if view.is_live else "", job_words.rate_words(view)]
    bar = f'<div class="lark-bar"><div style="width:{100 * found.share:.1f}%"></div></div>' if found else ""
    why = ""
    if not view.is_live:
        verdict = view.verdict or {}
        said = [str(verdict.get("message") or view.why or ""), str(verdict.get("remedy") or "")]
        why = f'<div class="muted">{text("; ".join(part for part in said if part))}</div>'
    head = f'<div class="top"><span>Job <code>{text(view.id)}</code></span>'
    return block(
        f'<div class="lark-run" role="status">{head}<span class="muted">{text(" · ".join(filter(None, facts)))}</span>'
        f"</div>{bar}{why}</div>"
    )


def saved(name: str, counts: Mapping[str, int], href: Callable[[str, str], str]) -> str:
    """A saved selection: its id, its size, and links to its training set in both formats."""
    rows = formats.count(counts.get("num_trajectories", 0))
    links = " · ".join(
        f'<a href="{text(href(name, kind))}" download>train.jsonl ({kind})</a>' for kind in get_args(TrainFormat)
    )
    return block(
        f'<div class="lark-saved">✓ saved as <code>{text(name)}</code>: {rows} trajectories · download {links}</div>'
    )


def damaged(folders: Sequence[Path], problems: Sequence[str]) -> str:
    """What is left out because its manifest or files are not what they should be."""
    names = "".join(f"<li><code>{text(item)}</code></li>" for item in (*folders, *problems))
    return block(
        "<strong>Left out as damaged.</strong> A manifest cannot be read, or a file changed since it was finished. "
        f"Run the command that made it again, or delete the folder.<ul>{names}</ul>",
        "lark-warning",
    )


def place(root: Path, bundle: BundleRecord | None = None) -> str:
    """Which workspace the page shows, short; the whole path, or what a bundle is of, on hover."""
    name, whole = (root.name or str(root), str(root)) if bundle is None else (bundle.title or "Bundle", _bundle(bundle))
    return block(f'<span class="lark-place" title="{text(whole)}">{text(name)}</span>')


def environment(root: Path, facts: Health, bundle: BundleRecord | None = None) -> str:
    """Which workspace this is, or what a bundle says of itself; the room there is, and the libraries of this server."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(version)}</dd>" for name, version in facts.versions.items())
    here = f"<code>{text(root)}</code><p>{formats.size(facts.free_bytes)} free</p>"
    said = here if bundle is None else f"<p>{text(_bundle(bundle))}</p>"
    return block(
        f"<h2>{'Workspace' if bundle is None else 'Bundle'}</h2>{said}<h2>Environment</h2><dl>{rows}</dl>",
        "lark-environment",
    )


def _bundle(bundle: BundleRecord) -> str:
    texts = {"none": "without texts", "chosen": "with chosen texts", "all": "with all texts"}[bundle.texts]
    redacted = "redacted" if bundle.redacted else "not redacted"
    parts = (bundle.title, f"made {bundle.created_at:%Y-%m-%d}", texts, redacted, "read-only")
    return " · ".join(part for part in parts if part)
