"""The direction of imports: pages → app → lark_engine, never back; and no heavy library in the dashboard's process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "transformers", "deepspeed", "peft", "vllm"}
MAY_IMPORT = {"lark_engine": {"lark_engine"}, "app": {"app", "lark_engine"}, "pages": {"app", "lark_engine"}}


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_packages_below_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} holds no Python files"
    wrong = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := imported(path) & MAY_IMPORT.keys() - MAY_IMPORT[package])
    }
    assert wrong == {}


@pytest.mark.parametrize("package", ["app", "pages"])
def test_the_dashboard_names_no_heavy_library(package: str) -> None:
    wrong = {str(path): names for path in (ROOT / package).rglob("*.py") if (names := imported(path) & HEAVY)}
    assert wrong == {}


def test_the_command_line_starts_without_a_heavy_library() -> None:
    script = f"import sys, lark_engine.cli; print(sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_running_the_whole_dashboard_imports_no_heavy_library(tmp_path: Path) -> None:
    script = f"""
import os, sys
os.environ["LARK_HOME"] = {str(tmp_path / "workspace")!r}
sys.path.insert(0, {str(ROOT)!r})
from benchmarks.scored_pool import make_scored_pool
from lark_engine.store.workspace import Workspace
make_scored_pool(Workspace(os.environ["LARK_HOME"]), num_problems=6, num_candidates=4)
from streamlit import config
config.get_config_options()
config._set_option("server.address", "127.0.0.1", "as lark serve starts it")
import app.main
from streamlit.testing.v1 import AppTest
page = AppTest.from_file({str(ROOT / "app" / "router.py")!r}, default_timeout=60).run()
for name in ("overview", "score", "explore", "trajectory", "tune", "train", "evaluate", "jobs", "share"):
    page.switch_page("../pages/" + name + ".py").run()
    assert not page.exception, page.exception
    assert page.title[0].value.lower() == {{"score": "pool and scores"}}.get(name, name), page.title
    assert "lark lark-warning" not in "".join(element.proto.body for element in page.get("html"))
print(sorted({HEAVY!r} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
