"""The blocks of a report for who makes it again: the commands, and the versions that they ran with."""

from __future__ import annotations

from lark_engine import __version__
from lark_engine.config import ReportConfig
from lark_engine.results.commands import (
    command_of,
    compare_command,
    option_words,
    select_command,
    shell_line,
    table_command,
)
from lark_engine.sharing.document import Column, Command, Commands, Section, Table
from lark_engine.sharing.report_material import Material, Missing
from lark_engine.sharing.report_pool import kind_words
from lark_engine.store.workspace import Workspace, git_commit, library_versions


def report_command(config: ReportConfig, workspace: Workspace) -> list[str]:
    """The command that writes this report."""
    return ["lark", "report", *option_words(ReportConfig, dict(config)), "--workspace", str(workspace.root)]


def commands(of: Material) -> Section | Missing:
    """What makes everything in the report again, in order."""
    found = []
    for artifact in of.chain:
        if (words := command_of(artifact, of.workspace)) is not None:
            found.append(Command(f"{kind_words(artifact)} {artifact.id}", shell_line(words)))
    if of.scored is not None:
        for name, chosen in zip("AB", of.chosen, strict=True):
            if chosen is not None and chosen.saved is None:
                words = select_command(chosen.config, of.scored.scores, of.scored.pool, of.workspace)
                found.append(Command(f"selection {name}, which is not saved", shell_line(words)))
    if "results" in of.config.blocks and of.graded:
        words = table_command(of.config.benchmark, of.workspace, by_method=of.config.by_method, output_dir="tables")
        found.append(Command("the results table", shell_line(words)))
    if "comparison" in of.config.blocks and not isinstance(of.sides, Missing):
        one = of.sides.compared.comparison
        words = compare_command(one.a, one.b, of.workspace, metric=of.config.metric)
        found.append(Command("the comparison", shell_line(words)))
    found.append(Command("this report", shell_line(report_command(_resolved(of), of.workspace))))
    return Section(
        block="commands", title="How to make it again", parts=(Commands(commands=tuple(found)),),
        intro="Run in this order, each command makes exactly the artifact named above it, and says so at once where it "
        "is there already. Files that were named by a path must lie there."
        + (" Paths are shortened here: put your own in their place." if of.config.redact else ""),
    )  # fmt: skip


def _resolved(of: Material) -> ReportConfig:
    """The options with what was the newest by its id: run later, they make this report and no other."""
    named = {name: chosen.saved.id for name, chosen in zip("ab", of.chosen, strict=True) if chosen and chosen.saved}
    asked = {
        "scores": of.scores.id if of.scores is not None else None,
        **{f"selection_{name}": said for name, said in named.items()},
    }  # fmt: skip
    return of.config.model_copy(update={name: said for name, said in asked.items() if getattr(of.config, name) is None})


def versions(of: Material) -> Section | Missing:
    """Libraries, source and devices, by stage where they differ."""
    columns: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for artifact in of.chain:
        manifest = artifact.manifest
        said = {**manifest.versions, "source": (manifest.git_commit or "")[:12], "device": manifest.device or ""}
        # A stage without a device of its own differs from none by that.
        columns.setdefault(tuple(sorted(said.items())), []).append(kind_words(artifact))
    now = {**library_versions(), "source": (git_commit() or "")[:12], "lark-studio": __version__}
    columns.setdefault(tuple(sorted(now.items())), []).append("this report")
    sides = [(", ".join(dict.fromkeys(stages)), dict(values)) for values, stages in columns.items()]
    names = sorted({name for _, values in sides for name in values if any(v.get(name) for _, v in sides)})
    return Section(
        block="versions", title="Versions",
        intro="What the artifacts were made with; “source” is the commit of LARK Studio.",
        parts=(Table(
            key="versions", caption="Versions by stage", columns=(Column("What"), *(Column(name) for name, _ in sides)),
            rows=tuple((name, *(values.get(name) or "–" for _, values in sides)) for name in names),
        ),),
    )  # fmt: skip
