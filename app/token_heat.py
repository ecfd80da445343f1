"""Response tokens as text on a colored ground: nll, Brier score, or what each adds to ĝ. Pure; returns HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lark_engine.explore.explain import ProblemScores, contributions
from lark_engine.figures.safe_text import text_html, visible

Mode = Literal["nll", "brier", "contribution"]
MODES: tuple[Mode, ...] = ("nll", "brier", "contribution")
NAMES: dict[Mode, str] = {"nll": "nll", "brier": "Brier", "contribution": "contribution to ĝ"}
NUM_BUCKETS = 16
PAGE_TOKENS = 4_096
_TOP_NLL = 8.0  # nats: the student gave the token 0.03 %
_SIGNED = 8  # of diverging buckets, the first above 0
# Ink of the themes on each of these has a contrast of 4.5 or more at full strength (tested).
HEAT = {"light": "#F2914A", "dark": "#9A4512"}
PLUS = {"light": "#6FAFEF", "dark": "#1F5C9E"}
MINUS = {"light": "#F08F78", "dark": "#9C3B27"}
_STRENGTHS = tuple(round(100 * share) for share in np.linspace(0.0, 1.0, NUM_BUCKETS))
_SIGNED_STRENGTHS = tuple(round(100 * share) for share in np.linspace(0.0, 1.0, _SIGNED))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How values become buckets. `top`: the value of the last one; `is_signed`: from −top to +top."""

    mode: Mode
    top: float
    unit: str

    @property
    def is_signed(self) -> bool:
        return self.mode == "contribution"

    def buckets(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        """The bucket of each value: finer near 0, where most tokens are; what is not a number is in the first."""
        share = np.clip(np.nan_to_num(np.asarray(values, np.float64)) / (self.top or 1.0), -1.0, 1.0)
        if self.is_signed:
            signed = np.sign(share) * np.sqrt(np.abs(share))
            return np.where(
                signed < 0,
                np.maximum(_SIGNED - 1 - np.floor(-signed * _SIGNED), 0),
                np.minimum(_SIGNED + np.floor(signed * _SIGNED), NUM_BUCKETS - 1),
            ).astype(np.intp)
        root = np.sqrt(np.maximum(share, 0.0)) if self.mode == "nll" else np.maximum(share, 0.0)
        return np.minimum(np.floor(root * NUM_BUCKETS), NUM_BUCKETS - 1).astype(np.intp)

    def at(self, bucket: int) -> float:
        """The value that a bucket begins at; of a negative one, where it ends."""
        if self.is_signed:
            share = (bucket - _SIGNED) / _SIGNED if bucket >= _SIGNED else (bucket + 1 - _SIGNED) / _SIGNED
            return math.copysign(share * share, share) * self.top
        share = bucket / NUM_BUCKETS
        return (share * share if self.mode == "nll" else share) * self.top


class Heat(NamedTuple):
    """The values of one trajectory's tokens on their scale."""

    values: NDArray[np.float64]
    scale: Scale


def heat_of(tokens: pd.DataFrame, mode: Mode, scores: ProblemScores | None) -> Heat:
    """The values of a mode. `scores`: the problem, for contributions; a full step of color is a token of Brier 1."""
    if mode == "contribution":
        assert scores is not None
        values = contributions(tokens["nll"].to_numpy(), tokens["brier"].to_numpy(), scores)
        return Heat(values, Scale(mode=mode, top=2.0 / (len(tokens) * scores.sum_nll), unit="1/nat"))
    top, unit = (_TOP_NLL, "nats") if mode == "nll" else (2.0, "of 2")
    return Heat(tokens[mode].to_numpy(), Scale(mode=mode, top=top, unit=unit))


def heat_html(tokens: pd.DataFrame, heat: Heat, start: int = 0, stop: int | None = None, label: str = "") -> str:
    """Tokens start..stop as spans: the bucket as a class; nll, Brier, p, rank and alternatives as a title."""
    shown = tokens.iloc[start:stop]
    buckets = heat.scale.buckets(heat.values[start:stop])
    titles = _titles(shown, heat.values[start:stop] if heat.scale.is_signed else None)
    pieces: dict[str, str] = {}
    spans = []
    for text, bucket, title in zip(shown["text"], buckets.tolist(), titles, strict=True):
        if (piece := pieces.get(text)) is None:
            piece = pieces[text] = text_html(text).replace("\n", "<i>↵</i>\n")
        if piece:
            spans.append(f'<span class="h{bucket}" title="{title}">{piece}</span>')
    kind = "signed" if heat.scale.is_signed else "plain"
    named = f' role="region" aria-label="{html.escape(label, quote=True)}" tabindex="0"' if label else ""
    return f'<div class="lark-text lark-heat {kind}" dir="auto"{named}>{"".join(spans)}</div>'


def _titles(shown: pd.DataFrame, parts: NDArray[np.float64] | None) -> list[str]:
    columns = [shown[name].tolist() for name in ("p_true", "rank", "nll", "brier", "top_text", "top_p")]
    quoted: dict[str, str] = {}

    def alternatives(texts: Sequence[str], probs: Sequence[float]) -> str:
        found = []
        for text, prob in zip(texts, probs, strict=True):
            if (piece := quoted.get(text)) is None:
                piece = quoted[text] = html.escape(piece_name(text), quote=True)
            found.append(f"{piece} {_prob(prob)}")
        return "\n" + "\n".join(found) if found else ""

    said = ["" for _ in shown.index] if parts is None else [f"ĝ {scientific(value)}\n" for value in parts.tolist()]
    return [
        f"{part}p {_prob(p)} · rank {rank:.0f}{'+' if rank >= 100 else ''} · nll {nll:.3g} · Brier {brier:.2g}"
        f"{alternatives(texts, probs)}"
        for part, p, rank, nll, brier, texts, probs in zip(said, *columns, strict=True)
    ]


def piece_name(text: str) -> str:
    """A token in words: in quotes, with its spaces as ␣ and line ends as ↵."""
    return f"“{visible(text).replace(' ', '␣').replace(chr(10), '↵').replace(chr(9), '⇥')}”"


def _prob(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.095 else f"{100 * value:.2g} %" if value >= 1e-4 else "<0.01 %"


def scientific(value: float) -> str:
    """`+3.2·10⁻⁵`."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    mantissa, exponent = f"{abs(value):.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{'+' if value > 0 else '−'}{mantissa}·10{power}"


def legend_html(scale: Scale, note: str = "") -> str:
    """The sixteen steps with the values that they begin at."""
    if scale.is_signed:
        marks = {
            0: scientific(-scale.top),
            4: scientific(scale.at(4)),
            7: "0",
            11: scientific(scale.at(12)),
            15: scientific(scale.top),
        }
    else:
        marks = {b: f"{scale.at(b):.2g}" for b in range(0, NUM_BUCKETS, 4)} | {15: f"≥ {scale.at(15):.2g}"}
    steps = "".join(
        f'<span><b class="h{bucket}"></b><small>{html.escape(marks.get(bucket, ""))}</small></span>'
        for bucket in range(NUM_BUCKETS)
    )
    kind = "signed" if scale.is_signed else "plain"
    name = f"{NAMES[scale.mode]} of a token, {scale.unit}"
    return (
        f'<div class="lark lark-legend lark-heat {kind}"><span class="name">{html.escape(name)}</span>'
        f'<span class="steps" aria-hidden="true">{steps}</span><span class="muted">{html.escape(note)}</span></div>'
    )


def style() -> str:
    """The classes of the buckets, for both themes."""
    rules = [
        f".lark-heat.plain .h{bucket} {{ background: {_mix(HEAT, strength)}; }}"
        for bucket, strength in enumerate(_STRENGTHS)
        if strength
    ]
    for bucket in range(NUM_BUCKETS):
        positive = bucket >= _SIGNED
        strength = _SIGNED_STRENGTHS[bucket - _SIGNED if positive else _SIGNED - 1 - bucket]
        if strength:
            rules.append(
                f".lark-heat.signed .h{bucket} {{ background: {_mix(PLUS if positive else MINUS, strength)}; }}"
            )
    return "<style>" + "\n".join(rules) + "</style>"


def _mix(hue: dict[str, Any], strength: int) -> str:
    return f"color-mix(in srgb, light-dark({hue['light']}, {hue['dark']}) {strength}%, transparent)"
