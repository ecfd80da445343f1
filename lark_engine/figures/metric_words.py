"""How the metrics of candidates are called and written on pages: symbol, axis title, number format."""

from __future__ import annotations

from typing import NamedTuple

from lark_engine.figures.formats import numeral
from lark_engine.scoring.criteria import RANDOM, criterion_of

WITHIN_UNIT = "standard deviations from the problem’s mean"


class Words(NamedTuple):
    """`symbol` for menus, `axis` with the unit for axes, `noun` for sentences, `spec` a format of Python."""

    symbol: str
    axis: str
    noun: str
    spec: str

    def say(self, value: float | None) -> str:
        """A value as text, with a real minus sign; a dash for what is not known."""
        return numeral(value, self.spec)


METRIC_WORDS = {
    "g_hat": Words("ĝ", "ĝ (1/nat)", "ĝ", "+.4f"),
    "nll": Words("L", "L (nats per token)", "L", ".3f"),
    "brier": Words("Brier", "Brier score (0 to 2)", "Brier score", ".3f"),
    "rho": Words("ρ", "ρ = Brier / L (1/nat)", "ρ", ".3f"),
    "rsr": Words("RSR", "RSR (ranks per nat)", "RSR", ".2f"),
    "num_response_tokens": Words("Tokens", "length of the response (tokens)", "length in tokens", ",.0f"),
    "rank": Words("Rank", "rank in its problem (1 = best)", "rank", ".1f"),
    "margin": Words("Margin", "margin at the cut", "margin", ".3g"),
}


def metric_words(name: str, *, within: bool = False) -> Words:
    """The words of a metric, as it is or normalized within problems."""
    words = METRIC_WORDS[name]
    if not within or name == "rank":
        return words
    return Words(words.symbol, f"{words.symbol} ({WITHIN_UNIT})", f"{words.noun} within problems", "+.2f")


def energy_words(energy: str) -> Words:
    """The words of what a selection ranks by: `ĝ`, `−L`."""
    if energy == RANDOM:
        return Words("random", "random energy", "a random energy", "+.3f")
    sign, criterion = criterion_of(energy)
    words = METRIC_WORDS[criterion.name]
    symbol = words.symbol if sign > 0 else f"−{words.symbol}"
    return Words(symbol, words.axis if sign > 0 else f"−{words.axis}", symbol, words.spec)


def margin_words(energy: Words) -> Words:
    """The words of a difference of energies: no sign, and one digit more."""
    digits = int(energy.spec.strip("+,f")[1:])
    spec = ",.0f" if digits == 0 else f".{digits + 1}f"
    return Words("Margin", f"margin of {energy.axis}", "margin", spec)
