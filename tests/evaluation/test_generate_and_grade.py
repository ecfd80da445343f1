"""`lark generate --grade`: each benchmark of a model is graded once it is sampled, as `lark grade` grades it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lark_engine.cli import app
from lark_engine.store.workspace import Workspace


@pytest.fixture
def two_benchmarks(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in paths:
        path.write_text(json.dumps([{"prompt": f"1+1=? ({path.stem})", "answer": "2"}]))
    return paths


def generate(fake_server: Any, workspace: Workspace, benchmarks: list[Path], *options: str) -> Any:
    which = [word for path in benchmarks for word in ("--benchmark", str(path))]
    served = ["--backend", "endpoint", "--endpoint", fake_server.url, "--n-samples", "2", "--max-concurrency", "1"]
    place = ["--workspace", str(workspace.root)]
    return CliRunner().invoke(app, ["generate", *which, *served, *options, *place])


def test_without_the_option_nothing_is_graded(
    fake_server: Any, workspace: Workspace, two_benchmarks: list[Path]
) -> None:
    assert generate(fake_server, workspace, two_benchmarks).exit_code == 0
    assert (len(workspace.list("evals")), len(workspace.list("grades"))) == (2, 0)


def test_every_benchmark_is_graded_by_the_rules_that_are_asked_for(
    fake_server: Any, workspace: Workspace, two_benchmarks: list[Path]
) -> None:
    fake_server.message = {"content": "the answer: 2"}
    done = generate(fake_server, workspace, two_benchmarks, "--grade", "--rules", "boxed", "--rules", "last_number")
    assert done.exit_code == 0, done.output
    grades = workspace.list("grades")
    assert [(g.name, g.manifest.counts["num_correct"]) for g in grades] == [("boxed-last_number", 2)] * 2
    assert all(grade.id in done.output for grade in grades)


def test_the_first_benchmark_is_graded_before_the_second_is_sampled(
    fake_server: Any, workspace: Workspace, two_benchmarks: list[Path]
) -> None:
    answered = fake_server.answer
    fake_server.answer = lambda body: answered(body) if len(fake_server.requests) < 3 else (400, {"error": "no"})
    assert generate(fake_server, workspace, two_benchmarks, "--grade").exit_code == 2
    assert [g.path.parents[1].name.partition("-")[0] for g in workspace.list("grades")] == ["one"]
    fake_server.answer = answered
    assert generate(fake_server, workspace, two_benchmarks, "--grade").exit_code == 0
    assert len(workspace.list("grades")) == 2
    assert len(fake_server.requests) == 4  # what was sampled is not sampled again


def test_what_was_sampled_before_is_graded_without_a_server(
    fake_server: Any, workspace: Workspace, two_benchmarks: list[Path]
) -> None:
    generate(fake_server, workspace, two_benchmarks)
    assert generate(fake_server, workspace, two_benchmarks, "--grade").exit_code == 0
    assert (len(workspace.list("grades")), len(fake_server.requests)) == (2, 4)


def test_a_grading_that_fails_fails_the_command(
    fake_server: Any, workspace: Workspace, two_benchmarks: list[Path]
) -> None:
    generate(fake_server, workspace, two_benchmarks)
    problems = next(workspace.list("evals")[0].path.glob("problems.jsonl"))
    problems.write_text(problems.read_text().replace('"problem_id": "0"', '"problem_id": "9"'))
    done = generate(fake_server, workspace, two_benchmarks, "--grade")
    assert done.exit_code == 2
    assert "lacks problem 0; generate this benchmark again" in done.output


def test_options_of_grading_without_grading_are_refused(
    fake_server: Any, workspace: Workspace, two_benchmarks: list[Path]
) -> None:
    done = generate(fake_server, workspace, two_benchmarks, "--rules", "boxed", "--equality", "math_verify")
    assert done.exit_code == 2
    assert "--rules, --equality: says how to grade, which is not asked for; add --grade" in done.output
    assert fake_server.requests == []
