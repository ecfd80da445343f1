from __future__ import annotations

import json

import pandas as pd
import pytest
from graded import evaluated, finished

from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.results.compare import compare
from lark_engine.results.lineage import lineage
from lark_engine.results.table import UNTRAINED, overall, read_results, results_table
from lark_engine.results.wide import wide
from lark_engine.store.workspace import MANIFEST, Artifact, Workspace

IDS = ["checkpoint_id", "selection_id", "scores_id", "pool_id"]


def metric_of(table: pd.DataFrame, grade: Artifact, metric: str) -> pd.Series:
    rows = overall(table)
    return rows[(rows["grade_id"] == grade.id) & (rows["metric"] == metric)].iloc[0]


def test_lineage_follows_the_manifests(workspace: Workspace, run: dict[str, Artifact]) -> None:
    found = lineage(workspace, run["trained"])
    assert [a.kind for a in found] == ["evals", "checkpoints", "selections", "scores", "pools"]
    assert [a.kind for a in lineage(workspace, run["base"])] == ["evals"]


def test_rows_know_where_a_number_comes_from(workspace: Workspace, run: dict[str, Artifact]) -> None:
    row = metric_of(results_table(workspace), run["trained"], "avg@2")
    assert row[["method", "recipe", "rule", "B", "benchmark"]].tolist() == ["lora", "lora-quick", "chi2", 3, "gsm8k"]
    assert row[["value", "n_problems", "n_samples", "n_seeds", "seed"]].tolist() == [0.625, 4, 2, 1, 0]
    assert row[IDS].tolist() == [run[name].id for name in ("checkpoint", "selection", "scores", "pool")]
    assert row["grading"] == "boxed-answer_phrase-letter"
    assert row["stale"] == ""


def test_how_samples_ended_is_in_the_table(workspace: Workspace, run: dict[str, Artifact]) -> None:
    table = results_table(workspace)
    values = {name: metric_of(table, run["base"], name)["value"] for name in ("truncated", "no_answer", "mean_tokens")}
    assert values == {"truncated": 0.125, "no_answer": 0.25, "mean_tokens": 15.0}
    assert metric_of(table, run["base"], "avg@2")["num_truncated"] == 1


def test_the_untrained_student_is_called_so_and_has_no_rule(workspace: Workspace, run: dict[str, Artifact]) -> None:
    rows = results_table(workspace, grades=[run["base"]])
    assert set(rows["method"]) == {UNTRAINED} == {"student (untrained)"}
    assert rows[["rule", "B", "checkpoint_id", "pool_id", "seed"]].isna().all(axis=None)
    assert rows["student"].unique().tolist() == ["tiny"]


def test_a_missing_metric_is_empty_and_not_zero(workspace: Workspace) -> None:
    uneven = evaluated(workspace, "tiny", "sums", {"p": "1", "q": "1"})
    manifest = json.loads((uneven.path / MANIFEST).read_text())
    manifest["metrics"]["overall"]["pass@1"] = None
    (uneven.path / MANIFEST).write_text(json.dumps(manifest))
    row = metric_of(results_table(workspace), uneven, "pass@1")
    assert row[["value", "low", "high", "se"]].isna().all()
    assert row["n_problems"] == 0


def test_levels_have_rows_of_their_own(workspace: Workspace, run: dict[str, Artifact]) -> None:
    table = results_table(workspace, grades=[run["trained"]])
    groups = table[["level", "subject"]].drop_duplicates().to_numpy().tolist()
    assert groups == [["all", "all"], ["1", "all"], ["2", "all"]]
    values = table[table["metric"] == "avg@2"].set_index("level")["value"].to_dict()
    assert values == {"all": 0.625, "1": 1.0, "2": 0.25}


def test_an_empty_workspace_has_an_empty_table(workspace: Workspace) -> None:
    assert results_table(workspace).empty
    assert results_table(workspace, grades=[]).empty


HUGE = {"n_samples": 2, "overall": {"avg@2": {"value": 10**400, "low": 0, "high": 1, "se": 0, "num_problems": 4}}}


@pytest.mark.parametrize(
    "metrics",
    [{}, {"n_samples": 2}, {"n_samples": 2, "overall": [1]}, {**HUGE, "by_level": {}, "by_subject": {}}],
    ids=["none", "no groups", "a list", "a huge number"],
)
def test_one_unreadable_grade_hides_no_other_result(
    workspace: Workspace, run: dict[str, Artifact], caplog: pytest.LogCaptureFixture, metrics: object
) -> None:
    before = results_table(workspace)["grade_id"].nunique()
    path = run["aime"].path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": metrics}))
    assert results_table(workspace)["grade_id"].nunique() == before - 1
    assert "left out of the table, grade it again: evals/" in caplog.text


def test_a_dispute_changes_the_shown_numbers_and_is_counted(workspace: Workspace, run: dict[str, Artifact]) -> None:
    generations = workspace.resolve("evals", run["trained"].manifest.inputs["generations"].id)
    add_dispute(generations, SampleKey("p2", 0), correct=True, author="ann", reason="the same number")
    row = metric_of(results_table(workspace), run["trained"], "avg@2")
    assert (row["value"], row["num_disputed"]) == (0.75, 1)
    assert run["trained"].manifest.metrics["overall"]["avg@2"]["value"] == 0.625
    levels = results_table(workspace, grades=[run["trained"]])
    assert levels[(levels["level"] == "2") & (levels["metric"] == "avg@2")]["value"].tolist() == [0.5]
    assert metric_of(results_table(workspace), run["base"], "avg@2")["num_disputed"] == 0


def test_runs_of_a_sweep_know_their_arm(workspace: Workspace, run: dict[str, Artifact]) -> None:
    sweep = finished(workspace, "sweeps", "lora-b3", {}, inputs={"chi2-0": run["checkpoint"]})
    row = metric_of(results_table(workspace), run["trained"], "avg@2")
    assert row[["sweep", "arm", "seed"]].tolist() == [sweep.id, "chi2", 0]


def test_two_models_of_one_content_keep_their_names(workspace: Workspace) -> None:
    rights = {"p": "10", "q": "11"}
    for name in ("tiny", "copy"):
        evaluated(workspace, name, "sums", rights, content="same")
    table = results_table(workspace)
    assert set(table["model"]) == {"tiny", "copy"}
    assert table["grade_id"].nunique() == 1
    assert table["place"].nunique() == 2
    assert len(wide(table)) == 2
    assert [one.benchmark for one in compare(workspace, "tiny", "copy").benchmarks] == ["sums"]


def test_results_that_were_sampled_otherwise_stand_in_rows_of_their_own(workspace: Workspace) -> None:
    for benchmark, temperature in (("x", 0.0), ("x", 1.0), ("y", 1.0)):
        evaluated(workspace, "tiny", benchmark, {benchmark: "1"}, config={"temperature": temperature})
    rows = wide(results_table(workspace)).set_index("sampling")
    assert rows.index.tolist() == ["T=0.0", "T=1.0"]
    assert rows["y avg@1"].notna().tolist() == [False, True]
    assert rows["macro average avg@1"].notna().tolist() == [False, True]


def test_a_grade_without_readable_generations_is_named(workspace: Workspace, run: dict[str, Artifact]) -> None:
    (run["aime"].path.parents[1] / MANIFEST).write_text("{")
    results = read_results(workspace)
    assert run["aime"].id not in results.table["grade_id"].tolist()
    place = run["aime"].path.relative_to(workspace.root)
    assert results.problems == [f"{place}: its generations are gone or damaged"]


def test_a_dispute_that_agrees_with_the_rules_changes_nothing(workspace: Workspace, run: dict[str, Artifact]) -> None:
    generations = workspace.resolve("evals", run["trained"].manifest.inputs["generations"].id)
    add_dispute(generations, SampleKey("p0", 0), correct=True, author="ann", reason="yes")
    row = metric_of(results_table(workspace), run["trained"], "avg@2")
    assert (row["value"], row["num_disputed"]) == (0.625, 0)


def test_a_sweep_with_another_kind_of_input_hides_nothing(workspace: Workspace, run: dict[str, Artifact]) -> None:
    finished(workspace, "sweeps", "odd", {}, inputs={"baseline": run["checkpoint"]})
    assert run["trained"].id in results_table(workspace)["grade_id"].tolist()
