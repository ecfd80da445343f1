"""What a report says, before it is written in any format: sections of sentences, cards, tables, commands, texts.

All strings are plain text, hostile or not; whoever writes a format escapes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeVar

from lark_engine.config.report import Block
from lark_engine.figures.cards import Card

Value = TypeVar("Value")
# Numbers of a figure are base64, which may look like anything; keys are ours.
_NO_TEXT = frozenset(("bdata", "dtype", "key"))


class Column(NamedTuple):
    """A column of a table; numbers stand at the right."""

    name: str
    is_number: bool = False


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A sentence or several. `is_caution`: the reader should not miss it."""

    text: str
    is_caution: bool = False


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Cards side by side, as on the pages."""

    cards: tuple[Card, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. `key` names its CSV file; the caption says what n is."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


class Command(NamedTuple):
    """What a command makes, and the command as it is typed."""

    what: str
    line: str


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Commands in the order in which they are run."""

    commands: tuple[Command, ...]


class Passage(NamedTuple):
    """A text of the pool, whole: what it is, and itself."""

    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """A problem with its candidates; `passages` only where its texts go out."""

    title: str
    note: str
    table: Table
    passages: tuple[Passage, ...] = ()


Part = Paragraph | Figures | Table | Commands | Example


@dataclass(frozen=True, kw_only=True)
class Section:
    """A block of the report. `intro` says what the reader sees."""

    block: Block
    title: str
    intro: str
    parts: tuple[Part, ...]

    @property
    def tables(self) -> Iterator[Table]:
        """All tables, those of examples too."""
        for part in self.parts:
            if isinstance(part, Table):
                yield part
            elif isinstance(part, Example):
                yield part.table

    @property
    def num_figures(self) -> int:
        return sum(card.figure is not None for part in self.parts if isinstance(part, Figures) for card in part.cards)

    @property
    def num_texts(self) -> int:
        """Texts of problems that go out whole."""
        return sum(len(part.passages) for part in self.parts if isinstance(part, Example))


class Fact(NamedTuple):
    """One line of the head."""

    label: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report. `left_out`: what was asked for, and why it is not there; `notes`: what to know of the file."""

    title: str
    lead: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()


def rewritten(value: Value, rewrite: Callable[[str], str]) -> Value:
    """The same with every text rewritten: strings in dataclasses, tuples, lists and dictionaries, but for keys and the
    packed numbers of figures."""
    return _rewritten(value, rewrite)


def _rewritten(value: Any, rewrite: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, Mapping):
        return {name: part if name in _NO_TEXT else _rewritten(part, rewrite) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rewritten(part, rewrite) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(_rewritten(part, rewrite) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        kept = ("key", "block")
        return replace(value, **{
            field.name: _rewritten(getattr(value, field.name), rewrite)
            for field in fields(value) if field.name not in kept
        })  # fmt: skip
    return value
