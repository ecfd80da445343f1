"""The demo as an ordinary recipe in the workspace: files and YAML that a user can read, change and run again."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from lark_engine.demo.pool import write_demo
from lark_engine.store.atomic import write_text
from lark_engine.store.workspace import Workspace

RECIPE = "demo.yaml"


def write_demo_run(workspace: Workspace) -> Path:
    """Write the demo's pool, benchmark and recipe to `<workspace>/demo/`; returns the recipe's path."""
    folder = workspace.root / "demo"
    write_demo(folder)
    text = (resources.files("lark_engine") / "recipes" / RECIPE).read_text(encoding="utf-8")
    write_text(folder / RECIPE, text)
    return folder / RECIPE
