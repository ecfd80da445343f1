"""Runs `lark` in this process: what a command says, and whether it succeeds or refuses in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from lark_engine.cli import app


def lark(*arguments: object, workspace: Path) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments), "--workspace", str(workspace)])


def succeeds(*arguments: object, workspace: Path) -> str:
    result = lark(*arguments, workspace=workspace)
    assert result.exit_code == 0, result.output
    return str(result.output)


def refuses(*arguments: object, workspace: Path) -> str:
    result = lark(*arguments, workspace=workspace)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    sentence = result.output.strip()
    assert sentence.startswith("lark: ") and "\n" not in sentence
    return str(sentence)
