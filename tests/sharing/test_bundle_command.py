"""`lark bundle` as people type it, and cleaning a workspace in which things are shared."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from shown_workspace import Shown, shown_workspace
from typer.testing import CliRunner

from lark_engine.cli import app
from lark_engine.cli.serve import open_store
from lark_engine.jobs.commands import require_lark
from lark_engine.store.cleaning import survey
from lark_engine.store.retention import Policy, plan_cleaning


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return shown_workspace(tmp_path_factory.mktemp("home") / "quentin" / "cache")


def run(shown: Shown, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bundle", *words, "--workspace", str(shown.workspace.root)])
    return result.exit_code, result.output


def test_lists_what_would_go_out_and_writes_nothing(shown: Shown, tmp_path: Path) -> None:
    code, said = run(shown, "--dry-run", "--output", str(tmp_path / "a.zip"))

    assert code == 0
    assert f"without texts          pools/{shown.pool.id}/trajectories.parquet" in said
    assert f"as it is               scores/{shown.scores.id}/scores.parquet" in said
    assert "no texts go out" in said
    assert "/data/x/lora.yaml  ->  …/lora.yaml" in said
    assert not (tmp_path / "a.zip").exists()


def test_makes_a_bundle_that_serve_opens(shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = run(shown, "--texts", "all", "--title", "Ours", "--output", str(tmp_path / "a.zip"))

    assert (code, "texts: all" in said, "open it with: lark serve a.zip" in said) == (0, True, True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = open_store(tmp_path / "unused", tmp_path / "a.zip")
    assert opened.root.parent == tmp_path / "cache" / "lark-studio" / "bundles"
    assert [scores.id for scores in opened.list("scores")] == [shown.scores.id]


def test_without_an_output_it_lies_in_the_workspace_and_cleaning_leaves_it(shown: Shown) -> None:
    code, _ = run(shown, "--title", "For Dora", "--up-to", "scores")

    made = shown.workspace.root / "shared" / "for-dora.zip"
    assert code == 0
    assert zipfile.is_zipfile(made)
    found = plan_cleaning(survey(shown.workspace, now=4e9), Policy(older_than_s=0, memo=True, unused=True))
    kept = {shown.workspace.root / "shared", shown.workspace.root / "views", made}
    assert not kept & {removal.entry.path for removal in found}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--texts", "some"], "--texts some: is none of its values"),
        (["--up-to", "graphs"], "--up-to graphs: is none of its values"),
        (["--problem", "17"], "--problem chooses texts, and --texts is none"),
        (["--output", "bundle.tar"], "a bundle is a zip; give a name that ends with .zip"),
        (["--selection", "absent"], "no selection 'absent'"),
    ],
)
def test_says_what_is_wrong_in_one_sentence(shown: Shown, words: list[str], said: str) -> None:
    code, output = run(shown, *words)
    assert code == 2
    assert said in output


def test_runs_as_a_job() -> None:
    assert require_lark(["lark", "bundle", "--texts", "none"]) == ("lark", "bundle", "--texts", "none")
