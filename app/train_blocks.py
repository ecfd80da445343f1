"""What the page Train shows as HTML: the selection, what the run takes, and what the preflight found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.shell import saved_config
from app.widgets import block, text
from lark_engine.figures import formats, safe_text
from lark_engine.figures.tuning import budget_text
from lark_engine.store.workspace import Artifact
from lark_engine.training.preflight_record import Preflight, Shown

_EXCERPT = 400
_WHOLE = 12_000
_OPEN = 4
_MOST = 48


class Fact(NamedTuple):
    """One thing to know before a run: its value, a line below, and where it is a need, how it compares with what is
    free (`share` of it; above 1 it does not fit). `is_bad`: it stands against the run.
    """

    label: str
    value: str
    detail: str = ""
    share: float | None = None
    is_bad: bool = False


def selection_facts(selection: Artifact) -> str:
    """A selection in one line: how much, by which rule, and how concentrated its weights are."""
    counts, metrics, config = selection.manifest.counts, selection.manifest.metrics, saved_config(selection)
    num, problems = counts.get("num_trajectories", 0), counts.get("num_problems", 0)
    facts = [f"{formats.count(num)} trajectories", f"{formats.count(problems)} problems"]
    facts.append(budget_text(config) if config is not None else str(selection.manifest.config.get("rule", "")))
    if (tokens := train_tokens(selection)) is not None:
        facts.append(f"{formats.compact(tokens)} tokens")
    facts.append(_weights(metrics, num / problems if problems else 0.0))
    return block(f'<div class="lark-facts-line">{text(" · ".join(filter(None, facts)))}</div>')


def _weights(metrics: Mapping[str, Any], kept: float) -> str:
    ess = metrics.get("ess")
    mean = ess.get("mean") if isinstance(ess, Mapping) else None
    if not isinstance(mean, int | float) or not kept:
        return ""
    if mean > 0.995 * kept:
        return "weights alike"
    return f"weights as of {mean:.2f} equal ones among {kept:.2f} a problem"


def train_tokens(selection: Artifact) -> int | None:
    """Prompt and response tokens of a selection, once through; None where it does not say."""
    said = [selection.manifest.metrics.get(name) for name in ("prompt_tokens", "response_tokens")]
    return sum(int(value) for value in said if value) if all(isinstance(v, int | float) for v in said) else None


def fact_grid(facts: Sequence[Fact], *, is_wide: bool = False) -> str:
    """What a run takes, beside what there is; `is_wide` for facts with more words."""
    return block("".join(map(_fact, facts)), "lark-fit wide" if is_wide else "lark-fit")


def _fact(fact: Fact) -> str:
    bar = ""
    if fact.share is not None:
        kind = "over" if fact.share > 1 else ""
        bar = f'<div class="lark-bar {kind}"><div style="width:{100 * min(1.0, fact.share):.1f}%"></div></div>'
    return (
        f'<div class="fact {"bad" if fact.is_bad else ""}"><span class="label">{text(fact.label)}</span>'
        f'<span class="value">{text(fact.value)}</span>{bar}<span class="detail">{text(fact.detail)}</span></div>'
    )


def verdict(found: Preflight, age: str) -> str:
    """Whether anything stands against the run."""
    if not found.problems:
        return block(
            f'<div class="lark-verdict good" role="status"><strong>Ready.</strong> Nothing stands against this run · '
            f"measured {text(age)}</div>"
        )
    listed = "".join(f"<li>{text(problem)}</li>" for problem in found.problems)
    title = "1 problem." if len(found.problems) == 1 else f"{len(found.problems)} problems."
    return block(f'<strong role="status">{title}</strong> Measured {text(age)}<ul>{listed}</ul>', "lark-warning")


def batches(found: Preflight, global_batch: int) -> Fact:
    """What a step is made of."""
    return Fact("Global batch", formats.count(global_batch), found.run)


def bite(found: Preflight, weighting: str) -> Fact:
    """Whether the selection's weights reach the gradient."""
    if weighting == "uniform":
        return Fact("Do the weights bite?", "not used", "weighting is uniform: every trajectory counts 1")
    if found.gradient_ratio is None:
        return Fact("Do the weights bite?", "–", "the ratio could not be measured", is_bad=True)
    bad = any("doubled weight" in problem for problem in found.problems)
    said = "the weights do not reach the loss as they should" if bad else "the weights reach the loss"
    return Fact(
        "Do the weights bite?", f"× {found.gradient_ratio:.3f}",
        f"share of the gradient after one train_weight was doubled (2 is right, 1 means ignored): {said}", is_bad=bad,
    )  # fmt: skip


def data_facts(found: Preflight) -> list[Fact]:
    """What is trained on, and what is not."""
    drops = " · ".join(f"{formats.count(count)} {formats.words(reason)}" for reason, count in found.drops.items())
    held_out = formats.count(found.num_held_out)
    cut = f"{formats.count(found.num_held_out_truncated)} of them cut" if found.num_held_out_truncated else "for loss"
    return [
        Fact("Trajectories", formats.count(found.num_sequences), "trained on"),
        Fact("Truncated", formats.count(found.num_truncated),
             "cut at the maximal length: they lose their end" if found.num_truncated else "none loses its end",
             is_bad=bool(found.num_truncated)),
        Fact("Dropped", formats.count(sum(found.drops.values())), drops or "none"),
        Fact("Held out", held_out, cut if found.num_held_out else "nothing to measure the loss on"),
        Fact("Trained", formats.compact(found.trainable_parameters), "parameters"),
    ]  # fmt: skip


def first_batch(found: Preflight) -> str:
    """The first forward pass, decoded: what is only read, what is trained on, and how much each counts."""
    shown = found.first_batch
    title = (
        f"The first forward pass: {formats.count(len(shown))} trajector{'y' if len(shown) == 1 else 'ies'} end to end, "
        f"{formats.count(sum(s.num_prompt_tokens + s.num_response_tokens for s in shown))} tokens"
    )
    legend = (
        '<div class="legend"><span class="masked">gray</span> is read and masked (no loss) · '
        '<span class="trained">tinted</span> is trained on</div>'
    )
    most = max((s.share for s in shown), default=0.0) or 1.0
    rows = "".join(_trajectory(s, most, is_open=n == 0) for n, s in enumerate(shown[:_OPEN]))
    more = shown[_OPEN:_MOST]
    if more:
        left = len(shown) - _OPEN - len(more)
        note = f'<p class="muted">and {formats.count(left)} more: see the log of the job</p>' if left else ""
        inside = "".join(_trajectory(s, most, is_open=False) for s in more)
        rows += (
            f"<details><summary>{formats.count(len(shown) - _OPEN)} more of this pass</summary>{inside}{note}</details>"
        )
    return block(f"<h3>{text(title)}</h3>{legend}{rows}", "lark-batch")


def _trajectory(shown: Shown, most: float, *, is_open: bool) -> str:
    head = (
        f'<span class="who">{text(safe_text.one_line(shown.label))} · '
        f"<bdi>{text(safe_text.one_line(shown.teacher, 40))}</bdi></span>"
        f'<span class="muted">{formats.count(shown.num_prompt_tokens)} masked + '
        f"{formats.count(shown.num_response_tokens)} trained tokens × {shown.coefficient:.3g}</span>"
        f'<span class="share"><i style="width:{100 * shown.share / most:.1f}%"></i></span>'
        f"<b>{formats.percent(shown.share)} of its step</b>"
    )
    return (
        f'<details class="trajectory" {"open" if is_open else ""}><summary>{head}</summary>'
        f'<div class="lark-text" dir="auto"><span class="masked">{_ends(shown.prompt)}</span>'
        f'<span class="trained">{_ends(shown.response)}</span></div>{_whole(shown)}</details>'
    )


def _whole(shown: Shown) -> str:
    if len(shown.prompt) <= 2 * _EXCERPT and len(shown.response) <= 2 * _EXCERPT:
        return ""
    prompt, response = (_cut(part) for part in (shown.prompt, shown.response))
    return (
        '<details class="whole"><summary>Whole text</summary><div class="lark-text" dir="auto">'
        f'<span class="masked">{prompt}</span><span class="trained">{response}</span></div></details>'
    )


def _ends(content: str) -> str:
    """The two ends of a text."""
    if len(content) <= 2 * _EXCERPT:
        return safe_text.text_html(content)
    left = len(content) - 2 * _EXCERPT
    between = f"<em> … {formats.count(left)} characters … </em>"
    return safe_text.text_html(content[:_EXCERPT]) + between + safe_text.text_html(content[-_EXCERPT:])


def _cut(content: str) -> str:
    if len(content) <= _WHOLE:
        return safe_text.text_html(content)
    left = formats.count(len(content) - _WHOLE)
    return f"{safe_text.text_html(content[:_WHOLE])}<em> … {left} characters more</em>"
