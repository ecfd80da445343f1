"""`lark report`: says what goes out, and writes it unless it is asked not to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import refuses, succeeds

from benchmarks.scored_pool import make_scored_pool
from lark_engine.store.workspace import Workspace


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    make_scored_pool(Workspace(tmp_path / "w"), num_problems=6, num_candidates=4, name="mine")
    return tmp_path / "w"


def test_a_dry_run_says_what_would_go_out_and_writes_nothing(scored: Path) -> None:
    said = succeeds("report", "--dry-run", "--texts", "all", workspace=scored)
    target = scored / "shared" / "mine-for-generated-student.html"
    assert f"would write {target}" in said
    assert "left out: Training: there is no training run" in said
    assert "→ <workspace>" in said
    assert not target.parent.exists()
    preview = json.loads(succeeds("report", "--dry-run", "--json", workspace=scored))
    assert (preview["num_texts"], preview["target"]) == (0, str(target))
    assert [block["block"] for block in preview["blocks"]] == [
        "lineage", "pool", "teachers", "selection", "cost", "problems", "commands", "versions",
    ]  # fmt: skip


def test_the_file_goes_where_it_is_told(scored: Path, tmp_path: Path) -> None:
    output = tmp_path / "elsewhere" / "r.md"
    words = ("report", "--format", "markdown", "--block", "pool", "--block", "versions", "--output", output)
    assert f"wrote {output}" in succeeds(*words, workspace=scored)
    text = output.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## The pool", "## Versions"]
    assert not (scored / "shared").exists()


def test_mistakes_are_said_in_one_sentence(scored: Path) -> None:
    assert "texts chosen needs problem" in refuses("report", "--texts", "chosen", workspace=scored)
    assert "no such" not in refuses("report", "--scores", "absent", workspace=scored)
