"""A report of a workspace: one file for a colleague, of chosen blocks, with a preview of what goes out."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lark_engine.access import action, require
from lark_engine.config import ReportConfig
from lark_engine.config.report import Block
from lark_engine.errors import ConfigError
from lark_engine.figures import formats
from lark_engine.results.export import to_csv, to_latex
from lark_engine.sharing import report_commands, report_pool, report_results, report_selection
from lark_engine.sharing.document import Document, Fact, Section, rewritten
from lark_engine.sharing.redaction import Redactor, Replacement
from lark_engine.sharing.report_html import to_html
from lark_engine.sharing.report_markdown import table_csv, to_markdown
from lark_engine.sharing.report_material import Material, Missing
from lark_engine.sharing.shared import shared_dir
from lark_engine.store.atomic import void, write_with
from lark_engine.store.workspace import Workspace, slug

Make = Callable[[Material], Section | Missing]
SUFFIXES = {"html": ".html", "markdown": ".md", "csv": ".csv", "latex": ".tex", "all": ".report.zip"}
TITLES: dict[Block, str] = {
    "lineage": "Lineage", "pool": "The pool", "teachers": "ĝ by teacher", "selection": "The selection",
    "cost": "What it costs", "training": "Training", "results": "Results", "comparison": "B against A",
    "problems": "Example problems", "commands": "How to make it again", "versions": "Versions",
}  # fmt: skip
_MAKERS: dict[Block, Make] = {
    "lineage": report_pool.lineage, "pool": report_pool.pool, "teachers": report_pool.teachers,
    "selection": report_selection.selection, "cost": report_selection.cost, "training": report_results.training,
    "results": report_results.results, "comparison": report_results.comparison,
    "problems": report_selection.problems, "commands": report_commands.commands, "versions": report_commands.versions,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BlockPreview:
    """A block that goes out: its figures, tables, texts of problems, and bytes of the page."""

    block: Block
    title: str
    num_figures: int
    num_tables: int
    num_texts: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What goes out: by block, and in all; what was asked for and is not there; what was replaced, how many times."""

    title: str
    target: Path
    blocks: tuple[BlockPreview, ...]
    left_out: Mapping[str, str]
    num_bytes: int
    replaced: Mapping[Replacement, int]

    @property
    def num_texts(self) -> int:
        return sum(block.num_texts for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that is not written yet: its bytes, and what they hold."""

    content: bytes
    preview: Preview


def make_report(material: Material) -> Report:
    """The report, in memory. Errors: `LarkError` for what is named and is not there."""
    config, workspace = material.config, material.workspace
    redactor = Redactor(workspace, enabled=config.redact)
    document = rewritten(assemble(material), redactor.text)
    page = to_html(document)
    if config.format == "html":
        content = page.text.encode()
    elif config.format == "all":
        content = _zipped(_all_formats(material, document, page.text, redactor))
    elif config.format == "markdown":
        content = to_markdown(document).encode()
    else:
        content = _results_file(material, redactor).encode()
    preview = Preview(
        title=document.title, target=target_of(config, workspace, document.title), left_out=document.left_out,
        blocks=tuple(_block_preview(section, page.section_bytes[section.block]) for section in document.sections),
        num_bytes=len(content), replaced=dict(redactor.replaced),
    )  # fmt: skip
    return Report(content=content, preview=preview)


def write_report(report: Report, workspace: Workspace) -> Path:
    """Write the file, whole or not at all. Errors: `StoreError`; `AccessError` without the right to."""
    target = report.preview.target
    num_texts = report.preview.num_texts
    require("launch")
    if not target.is_relative_to(workspace.root):  # nothing of the workspace changes
        write_with(target, lambda file: void(file.write(report.content)))
        return target
    with action(workspace.root, "launch", "report.write", file=target.name, num_texts=num_texts):
        write_with(target, lambda file: void(file.write(report.content)))
    return target


def target_of(config: ReportConfig, workspace: Workspace, title: str) -> Path:
    """Where the file goes: as named, else by its title among the shared files."""
    if config.output is not None:
        return config.output.expanduser().absolute()
    return shared_dir(workspace) / f"{slug(title, 80)}{SUFFIXES[config.format]}"


def assemble(material: Material) -> Document:
    """The content of a report; every text in it is as it lies in the workspace."""
    sections, left_out = [], {}
    for block in material.config.blocks:
        found = _MAKERS[block](material)
        if isinstance(found, Missing):
            left_out[TITLES[block]] = found.why
        else:
            sections.append(found)
    return Document(
        title=material.config.title or _title(material), lead=_lead(material), facts=tuple(_facts(material)),
        sections=tuple(sections), left_out=left_out, notes=_notes(material.config),
    )  # fmt: skip


def _title(material: Material) -> str:
    if material.scores is not None and material.pool is not None:
        return f"{material.pool.name} for {_student(material)}"
    return f"{material.workspace.root.name}"


def _student(material: Material) -> str:
    assert material.scores is not None
    return material.scores.name.rpartition("@")[2]


def _lead(material: Material) -> str:
    if material.scored is None:
        return "What a workspace of LARK Studio holds, and how to make it again."
    num_problems, num = len(material.scored.problem_ids), len(material.scored.candidates.table)
    return (
        f"Which of {formats.count(num)} candidate solutions to {formats.count(num_problems)} problems should "
        f"{_student(material)} learn from, what does training on them take, and what came of it? "
        f"{material.selection_words}."
    )


def _facts(material: Material) -> list[Fact]:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    facts = [Fact("Made", now), Fact("Workspace", material.workspace.root.name)]
    facts += [Fact("Pool", material.pool.id)] if material.pool else []
    facts += [Fact("Scores", material.scores.fingerprint)] if material.scores else []
    if material.scored is not None:
        facts += [
            Fact(f"Selection {name}", chosen.saved.fingerprint if chosen.saved else "not saved")
            for name, chosen in zip("AB", material.chosen, strict=True) if chosen is not None
        ]  # fmt: skip
    return facts


def _notes(config: ReportConfig) -> tuple[str, ...]:
    notes = [
        "Figures answer the pointer: numbers appear under it, a drawn box zooms in, a double click shows all again. "
        "This file holds all that it shows and loads nothing."
    ]
    if config.redact:
        notes.append("Paths, host names and user names were replaced: <workspace> is the folder of the workspace, and "
                     "… stands for what came before a name.")  # fmt: skip
    return tuple(notes)


def _block_preview(section: Section, num_bytes: int) -> BlockPreview:
    return BlockPreview(
        block=section.block, title=section.title, num_figures=section.num_figures,
        num_tables=len(list(section.tables)), num_texts=section.num_texts, num_bytes=num_bytes,
    )  # fmt: skip


def _results_file(material: Material, redactor: Redactor) -> str:
    """The results table alone. Errors: `ConfigError` without results."""
    if material.results.empty:
        raise ConfigError(
            f"there are no results to write as {material.config.format}; grade some, or use --format html"
        )
    write = to_csv if material.config.format == "csv" else to_latex
    return redactor.text(write(material.results))


def _all_formats(material: Material, document: Document, page: str, redactor: Redactor) -> dict[str, str]:
    """The files of a report in every format, by name; each table of it as CSV."""
    files = {"report.html": page, "report.md": to_markdown(document)}
    for section in document.sections:
        for table in section.tables:
            name = slug(table.key)
            while f"tables/{name}.csv" in files:  # two ids of problems may have the same slug
                name += "_"
            files[f"tables/{name}.csv"] = table_csv(table)
    if not material.results.empty:
        files["results-tidy.csv"] = redactor.text(to_csv(material.results))
        files["results.tex"] = redactor.text(to_latex(material.results))
    return files


def _zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
