"""`lark score` for several students and for tokens, `lark select` to files, `lark select compare`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import refuses, succeeds

from lark_engine.scoring.token_view import read_tokens
from lark_engine.store.workspace import Artifact, Workspace


@pytest.fixture
def home(tmp_path: Path, pool_path: Path, tiny_model_dir: Path) -> Path:
    """A workspace with a scored pool of 3 problems × 4 candidates."""
    home = tmp_path / "workspace"
    succeeds("score", "--input", pool_path, "--student", tiny_model_dir, workspace=home)
    return home


def scores_in(home: Path) -> Artifact:
    [scores] = Workspace(home).list("scores")
    return scores


def rows_with_tokens(home: Path) -> list[int]:
    return [row for row in range(12) if read_tokens(scores_in(home), row) is not None]


def test_several_students_score_one_pool_one_after_the_other(
    tmp_path: Path, pool_path: Path, tiny_model_dir: Path
) -> None:
    home, other = tmp_path / "workspace", tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    students = ("--student", tiny_model_dir, "--student", other)
    output = succeeds("score", "--input", pool_path, *students, workspace=home)
    assert output.count("num_trajectories 12") == 2
    assert sorted(scores.name for scores in Workspace(home).list("scores")) == ["pool@other", "pool@tiny"]
    assert len(Workspace(home).list("pools")) == 1
    sentence = refuses("score", "--input", pool_path, *students, "--output", tmp_path / "one.json", workspace=home)
    assert sentence.endswith("--output takes the scores of one student; leave it out, or give one --student")


def test_tokens_of_candidates_and_problems_are_computed_once(home: Path) -> None:
    command = ("score", "tokens", "--scores", "pool@tiny", "--candidate", "1:2", "--problem", "0")
    assert "tokens of 5 candidates computed, 0 were there already" in succeeds(*command, workspace=home)
    assert "tokens of 0 candidates computed, 5 were there already" in succeeds(*command, workspace=home)
    assert rows_with_tokens(home) == [0, 1, 2, 3, 6]
    tokens = read_tokens(scores_in(home), 6)
    assert tokens is not None
    assert "".join(tokens["text"]) == "so well well the answer is \\boxed{4}<|im_end|>\n"
    assert [len(texts) for texts in tokens["top_text"]] == [5] * len(tokens)


def test_tokens_of_a_selection_or_of_all_candidates(home: Path) -> None:
    succeeds("select", "--scores", "pool@tiny", "--B", 2, "--rule", "top_b", workspace=home)
    command = ("score", "tokens", "--scores", "pool@tiny", "--alternatives", 0)
    assert "tokens of 6 candidates computed" in succeeds(*command, "--selection", "top_b-b2", workspace=home)
    assert len(rows_with_tokens(home)) == 6
    assert "of 6 candidates computed, 6 were there already" in succeeds(*command, "--all", workspace=home)
    assert rows_with_tokens(home) == list(range(12))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "which candidates? give --candidate PROBLEM:CANDIDATE, --problem ID, --selection ID or --all"),
        (["--candidate", "1:9"], "holds no candidate 9 of problem 1"),
        (["--candidate", "9"], "--candidate '9': write it as PROBLEM:CANDIDATE"),
        (["--problem", "7"], "holds no problem 7"),
    ],
)
def test_candidates_that_were_not_scored_are_refused(home: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in refuses("score", "tokens", "--scores", "pool@tiny", *arguments, workspace=home)
    assert rows_with_tokens(home) == []


def test_the_training_file_is_written_in_the_format_asked_for(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "train.jsonl"
    command = ("select", "--scores", "pool@tiny", "--B", 2, "--rule", "top_b", "--output", output)
    succeeds(*command, workspace=home)
    assert [list(json.loads(line)) for line in output.read_text().splitlines()] == [["messages", "meta"]] * 6
    succeeds(*command, "--format", "prompt-completion", workspace=home)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["prompt"][-1]["role"], row["completion"][0]["role"]) for row in rows] == [("user", "assistant")] * 6
    sentence = refuses(*command, "--format", "alpaca", workspace=home)
    assert sentence.endswith("--format 'alpaca': choose one of messages, prompt-completion")
    sentence = refuses("select", "--scores", "pool@tiny", "--format", "messages", workspace=home)
    assert sentence.endswith("--format has no effect here; it is for the file that --output names")


def test_a_temperature_is_said_in_units_of_the_pool(home: Path) -> None:
    output = succeeds("select", "--scores", "pool@tiny", "--mode", "temperature", "--tau", 1e-3, workspace=home)
    [selection] = Workspace(home).list("selections")
    unit = selection.manifest.metrics["median_tau_3"]
    assert unit > 0
    assert f"  tau 0.001 is {1e-3 / unit:.3g} times the median tau_3" in output


def test_two_selections_are_compared_in_words_and_as_json(home: Path) -> None:
    for budget in (2, 4):
        succeeds("select", "--scores", "pool@tiny", "--B", budget, "--rule", "top_b", workspace=home)
    output = succeeds("select", "compare", "top_b-b2", "top_b-b4", workspace=home)
    assert "overlap 0.500: 6 in both, 0 only in A, 6 only in B" in output
    assert "weights: 100% of the problems changed, by 0.500 on average" in output
    figures = json.loads(succeeds("select", "compare", "top_b-b2", "top_b-b4", "--json", workspace=home))
    assert (figures["overlap"], figures["num_only_b"]) == (0.5, 6)
    assert figures["weight_change"] == {"mean": 0.5, "p90": 0.5, "share_changed": 1.0}
    assert "no selection 'absent'" in refuses("select", "compare", "top_b-b2", "absent", workspace=home)
