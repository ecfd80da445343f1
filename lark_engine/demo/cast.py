"""What a story is made of: numbers, names and objects drawn from one random stream."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from lark_engine.demo.derivation import Derivation

_NAMES = (
    "Amara", "Bruno", "Chen", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jonas", "Keiko", "Lena", "Mateo",
    "Nadia", "Omar", "Priya", "Quentin", "Rosa", "Samir", "Tilda", "Uma", "Viktor", "Wanda", "Yusuf", "Zoe",
)  # fmt: skip
_GOODS = ("notebooks", "candles", "mugs", "seed packets", "paint brushes", "puzzle books", "light bulbs", "scarves")
_VEHICLES = ("bus", "train", "delivery van", "ferry", "tram")
_PLACES = ("library", "community garden", "bakery", "youth club", "repair shop", "museum")


class Cast:
    """Draws the numbers, names and objects of one story from its random stream."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def number(self, low: int, high: int, step: int = 1) -> int:
        """A number between low and high, both included."""
        return self.rng.randrange(low, high + 1, step)

    def names(self) -> tuple[str, str]:
        first, second = self.rng.sample(_NAMES, 2)
        return first, second

    def goods(self) -> tuple[str, str]:
        first, second = self.rng.sample(_GOODS, 2)
        return first, second

    def vehicle(self) -> str:
        return self.rng.choice(_VEHICLES)

    def place(self) -> str:
        return self.rng.choice(_PLACES)


class Story(NamedTuple):
    """A problem text and the derivation of its answer."""

    text: str
    derivation: Derivation


Template = Callable[[Cast], Story]
