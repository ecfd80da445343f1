"""The README's commands exist, with the flags that it shows, and CI runs the README's test command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from lark_engine.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("lark ")]
TARGETS = [line for line in LINES if line.startswith("make ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_exists_with_its_flags(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    # What a job runs is a command of its own; what follows a job that is cloned are options of that job's command.
    if "lark" in words:
        place = words.index("lark")
        check(words[place + 1 :], line)
        words = words[:place]
    if words[:2] == ["jobs", "clone"]:
        words = words[:3]
    check(words, line)


def check(words: list[str], line: str) -> None:
    command: Any = typer.main.get_command(app)
    # A group may be a command too (`lark score --input …`): what begins with a dash is a flag of it.
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"{line}: no command '{name}'"
        command = command.commands[name]
    known = {flag.replace("_", "-") for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.replace("_", "-") in known, f"{line}: no flag {word}"


def test_the_readme_shows_the_two_commands_and_they_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert TARGETS == ["make demo", "make test"]
    for target in ("help", "install", "demo", "app", "test", "check", "fix", "bench", "chromium", "screenshots"):
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in script if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]


@pytest.mark.parametrize(
    "released",
    ["lark.score_lark", "lark.selection.select_chi2", "lark.train.train_full", "lark.train.train_lora",
     "lark.eval.generate", "lark.eval.extract_answer", "lark.eval.score", "lark.eval.aggregate"],
)  # fmt: skip
def test_the_table_of_released_commands_is_whole(released: str) -> None:
    assert f"{released}`" in README


def test_pictures_of_the_readme_are_there_and_small() -> None:
    paths = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    pages = ("overview", "score", "explore", "trajectory", "tune", "train", "evaluate", "jobs", "share")
    assert paths == [f"docs/{page}.png" for page in pages]
    for path in paths:
        content = (ROOT / path).read_bytes()
        assert len(content) < 300_000, path
        assert int.from_bytes(content[16:20], "big") == 1440, path  # the width in a PNG's header


def test_every_test_that_the_threat_table_names_is_there() -> None:
    table = README.partition("| who could do what |")[2].partition("\n\n")[0]
    named, file = [], ""
    for said_file, name in re.findall(r"`([a-z_]*)::(test_[a-z0-9_]+)`", table):
        file = said_file or file
        named.append((file, name))
    assert len(named) > 35
    for file, name in named:
        fitting = list((ROOT / "tests").rglob(f"{file}.py")) or list((ROOT / "tests").rglob(f"test_{file}.py"))
        assert [path for path in fitting if f"def {name}(" in path.read_text()], (file, name)
