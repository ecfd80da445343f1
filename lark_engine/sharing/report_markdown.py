"""A report as Markdown, and its tables as CSV: the same content, figures in words."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lark_engine.figures.cards import Card
from lark_engine.figures.safe_text import visible
from lark_engine.results.export import inert, markdown_cell
from lark_engine.sharing.document import Command, Document, Example, Figures, Paragraph, Part, Passage, Table
from lark_engine.sharing.report_html import plain_note


def to_markdown(document: Document) -> str:
    """The whole report; what anyone may have written stands for itself."""
    lines = [f"# {_text(document.title)}", "", _text(document.lead), ""]
    lines += [f"- {_text(fact.label)}: {_text(fact.value)}" for fact in document.facts]
    for section in document.sections:
        lines += ["", f"## {section.title}", "", _text(section.intro)]
        for part in section.parts:
            lines += ["", *_part(part)]
    lines += ["", "---", "", *(f"{_text(sentence)}\n" for sentence in document.notes)]
    if document.left_out:
        missing = "; ".join(f"{name} ({_text(why)})" for name, why in document.left_out.items())
        lines += [f"Not in this report: {missing}."]
    return "\n".join(lines).rstrip() + "\n"


def table_csv(table: Table) -> str:
    """A table as CSV; what a spreadsheet would run as a formula begins with an apostrophe."""
    frame = pd.DataFrame(list(table.rows), columns=[column.name for column in table.columns])
    return str(inert(frame).to_csv(index=False))


def _part(part: Part) -> Iterator[str]:
    if isinstance(part, Paragraph):
        yield f"**{_text(part.text)}**" if part.is_caution else _text(part.text)
    elif isinstance(part, Figures):
        for card in part.cards:
            yield from _card(card)
    elif isinstance(part, Table):
        yield from _table(part)
    elif isinstance(part, Example):
        yield from (f"### {_text(part.title)}", "", _text(part.note), "", *_table(part.table))
        for passage in part.passages:
            yield from _passage(passage)
    else:
        for command in part.commands:
            yield from _command(command)


def _card(card: Card) -> Iterator[str]:
    if card.title:
        yield f"### {_text(card.title)}"
        yield ""
    if note := plain_note(card):
        yield f"{_text(note)}\n"
    if card.stats:
        yield from ("| | | |", "| --- | --- | --- |")
        for stat in card.stats:
            yield f"| {markdown_cell(stat.label)} | {markdown_cell(stat.value)} | {markdown_cell(stat.detail)} |"
        yield ""
    if card.figure is not None:
        yield f"Figure: {_text(card.alt)}\n"


def _table(table: Table) -> Iterator[str]:
    yield f"{_text(table.caption)}\n"
    yield "| " + " | ".join(markdown_cell(column.name) for column in table.columns) + " |"
    yield "|" + "".join(" ---: |" if column.is_number else " --- |" for column in table.columns)
    for row in table.rows:
        yield "| " + " | ".join(markdown_cell(visible(cell)) for cell in row) + " |"


def _command(command: Command) -> Iterator[str]:
    yield from (f"{_text(command.what)}:", "", *_fenced(command.line, "sh"), "")


def _passage(passage: Passage) -> Iterator[str]:
    yield from ("", f"{_text(passage.label)}:", "", *_fenced(visible(passage.text), "text"))


def _fenced(text: str, language: str) -> tuple[str, ...]:
    """A block of code that the text cannot end."""
    fence = "`" * 3
    while fence in text:
        fence += "`"
    return f"{fence}{language}", text, fence


def _text(text: str) -> str:
    """Text of anyone's within a line: no markup, no link, nothing that begins a block."""
    line = markdown_cell(visible(" ".join(text.split())))
    return f"\\{line}" if line[:1] in ("#", "-", "+", "=") else line
