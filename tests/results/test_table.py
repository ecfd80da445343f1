from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from lark_engine.errors import StoreError
from lark_engine.results.lineage import lineage
from lark_engine.results.sweeps import by_arm
from lark_engine.results.table import UNTRAINED, results_table, to_markdown, wide, write_table
from lark_engine.store.atomic import write_json
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace


def finished(workspace: Workspace, kind: Any, name: str, config: dict[str, Any], **options: Any) -> Artifact:
    inputs = {k: a.ref for k, a in options.pop("inputs", {}).items()}
    identity = options.pop("identity", {})
    content = fingerprint([kind, name, config, identity, [r.id for r in inputs.values()]])
    plan = Plan(kind=kind, name=name, fingerprint=content, config=config, inputs=inputs, identity=identity, **options)
    return workspace.build(plan, lambda draft: None)


def estimate(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "num_problems": 40}


def graded(workspace: Workspace, model: str, benchmark: str, value: float, checkpoint: Artifact | None) -> Artifact:
    identity = {"model": {"name": model, "is_adapter": bool(checkpoint)}, "benchmark": {"name": benchmark}}
    generations = finished(
        workspace, "evals", benchmark, {}, identity=identity, parent=workspace.root / "evals" / model,
        inputs={"model": checkpoint} if checkpoint else {},
    )  # fmt: skip
    overall = {
        "avg@2": estimate(value, value - 0.1, value + 0.1), "pass@1": estimate(value, None, None), "pass@2": None,
        "maj@2": estimate(value, value, value),
    }  # fmt: skip
    metrics = {
        "n_samples": 2, "overall": overall, "by_level": {"1": {"avg@2": overall["avg@2"]}},
        "by_subject": {"Algebra": {"avg@2": overall["avg@2"]}},
    }  # fmt: skip
    plan = Plan(
        kind="grades", name="last-boxed", fingerprint=fingerprint([model, benchmark, value]), config={},
        inputs={"generations": generations.ref}, parent=generations.path / "grades",
    )  # fmt: skip

    def make(draft: Draft) -> None:
        write_json(draft.path / "metrics.json", metrics)
        draft.counts = {"num_truncated": 3}

    return workspace.build(plan, make)


@pytest.fixture
def run(workspace: Workspace) -> dict[str, Artifact]:
    """An untrained student and a checkpoint, on two benchmarks."""
    pool = finished(workspace, "pools", "demo", {})
    scores = finished(workspace, "scores", "demo@tiny", {}, inputs={"pool": pool})
    chosen = {"rule": "chi2", "energy": "g_hat", "mode": "budget", "budget": 3}
    selection = finished(workspace, "selections", "chi2-b3", chosen, inputs={"scores": scores, "pool": pool})
    trained = {"method": "lora", "student": "tiny"}
    checkpoint = finished(workspace, "checkpoints", "lora-quick", trained, inputs={"selection": selection})
    return {
        "pool": pool, "scores": scores, "selection": selection, "checkpoint": checkpoint,
        "base": graded(workspace, "tiny", "gsm8k", 0.25, None),
        "trained": graded(workspace, checkpoint.id, "gsm8k", 0.5, checkpoint),
        "aime": graded(workspace, checkpoint.id, "aime", 0.125, checkpoint),
    }  # fmt: skip


def test_lineage_follows_the_manifests(workspace: Workspace, run: dict[str, Artifact]) -> None:
    found = lineage(workspace, run["trained"])
    assert [a.kind for a in found] == ["evals", "checkpoints", "selections", "scores", "pools"]
    assert [a.kind for a in lineage(workspace, run["base"])] == ["evals"]


def test_rows_know_where_a_number_comes_from(workspace: Workspace, run: dict[str, Artifact]) -> None:
    table = results_table(workspace)
    row = table[(table["grade_id"] == run["trained"].id) & (table["metric"] == "avg@2") & (table["level"] == "all")]
    row = row[row["subject"] == "all"].iloc[0]
    assert row[["method", "recipe", "rule", "B", "benchmark"]].tolist() == ["lora", "lora-quick", "chi2", 3, "gsm8k"]
    assert row[["value", "low", "high", "n_problems", "n_samples"]].tolist() == [0.5, 0.4, 0.6, 40, 2]
    ids = ["checkpoint_id", "selection_id", "scores_id", "pool_id"]
    assert row[ids].tolist() == [run[name].id for name in ("checkpoint", "selection", "scores", "pool")]
    assert row["num_truncated"] == 3


def test_the_untrained_student_is_called_so_and_has_no_rule(workspace: Workspace, run: dict[str, Artifact]) -> None:
    rows = results_table(workspace, ids=[run["base"].id])
    assert set(rows["method"]) == {UNTRAINED} == {"student (untrained)"}
    assert rows[["rule", "B", "checkpoint_id", "pool_id"]].isna().all(axis=None)
    assert rows["student"].unique().tolist() == ["tiny"]


def test_a_missing_metric_is_empty_and_not_zero(workspace: Workspace, run: dict[str, Artifact]) -> None:
    table = results_table(workspace)
    missing = table[table["metric"] == "pass@2"]
    assert len(missing) == 3
    assert missing[["value", "low", "high"]].isna().all(axis=None)


def test_levels_and_subjects_have_rows_of_their_own(workspace: Workspace, run: dict[str, Artifact]) -> None:
    table = results_table(workspace, ids=[run["aime"].id])
    groups = table[["level", "subject"]].drop_duplicates().to_numpy().tolist()
    assert groups == [["all", "all"], ["1", "all"], ["all", "Algebra"]]


def test_wide_table_has_a_row_a_model_with_the_untrained_one_first(
    workspace: Workspace, run: dict[str, Artifact]
) -> None:
    table = wide(results_table(workspace))
    assert table["method"].tolist() == [UNTRAINED, "lora"]
    assert table["gsm8k avg@2"].tolist() == ["25.0 [15.0, 35.0]", "50.0 [40.0, 60.0]"]
    assert pd.isna(table["aime avg@2"].iloc[0])
    assert "gsm8k pass@1" not in table.columns


def test_two_grades_of_one_model_and_benchmark_keep_two_rows(workspace: Workspace, run: dict[str, Artifact]) -> None:
    graded(workspace, run["checkpoint"].id, "gsm8k", 0.75, run["checkpoint"])
    assert sorted(wide(results_table(workspace))["gsm8k avg@2"]) == [
        "25.0 [15.0, 35.0]", "50.0 [40.0, 60.0]", "75.0 [65.0, 85.0]",
    ]  # fmt: skip


def test_an_empty_workspace_has_an_empty_table(workspace: Workspace) -> None:
    table = results_table(workspace)
    assert table.empty
    assert wide(table).empty
    with pytest.raises(StoreError, match="no grade 'x'"):
        results_table(workspace, ids=["x"])


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"n_samples": 2}'])
def test_one_unreadable_metrics_file_hides_no_other_result(
    workspace: Workspace, run: dict[str, Artifact], caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    before = results_table(workspace)["grade_id"].nunique()
    # Of the listed size, so that the artifact counts as finished and only reading it fails.
    path = run["aime"].path / "metrics.json"
    path.write_bytes(content + b" " * (path.stat().st_size - len(content)))
    assert results_table(workspace)["grade_id"].nunique() == before - 1
    assert "left out of the table, grade it again: evals/" in caplog.text


def test_files_hold_the_same_table(workspace: Workspace, run: dict[str, Artifact]) -> None:
    table = results_table(workspace)
    paths = write_table(table, workspace.root / "tables")
    assert [p.name for p in paths] == ["table.csv", "table.md", "table.parquet"]
    assert len(pd.read_csv(paths[0])) == len(pd.read_parquet(paths[2])) == len(table) == 18
    markdown = paths[1].read_text()
    assert "| tiny | student (untrained) |" in markdown
    assert "## By level" in markdown


def test_markdown_escapes_what_a_user_named(workspace: Workspace, run: dict[str, Artifact]) -> None:
    table = results_table(workspace, ids=[run["base"].id])
    table["model"] = "a|b<script>"
    assert r"a\|b\<script\>" in to_markdown(table)
    assert "<script>" not in to_markdown(table)


def test_runs_of_a_sweep_are_grouped_by_arm(workspace: Workspace) -> None:
    values = {("chi2", 0): 0.5, ("chi2", 1): 0.6, ("uniform", 0): 0.4}
    inputs = {}
    for (arm, seed), value in values.items():
        checkpoint = finished(workspace, "checkpoints", f"lora-{arm}", {"method": "lora", "seed": seed})
        graded(workspace, checkpoint.id, "gsm8k", value, checkpoint)
        inputs[f"{arm}-{seed}"] = checkpoint
    graded(workspace, "tiny", "gsm8k", 0.25, None)
    sweep = finished(workspace, "sweeps", "lora-b3", {}, inputs=inputs)
    table = results_table(workspace)
    overall = table[(table["metric"] == "avg@2") & (table["level"] == "all") & (table["subject"] == "all")]
    runs = overall[overall["sweep"] == sweep.id]
    assert sorted(zip(runs["arm"], runs["seed"], runs["value"], strict=True)) == [
        ("chi2", 0, 0.5), ("chi2", 1, 0.6), ("uniform", 0, 0.4)
    ]  # fmt: skip
    grouped = by_arm(table)
    arms = grouped[(grouped["metric"] == "avg@2") & (grouped["level"] == "all") & (grouped["subject"] == "all")]
    chi2 = arms[arms["arm"] == "chi2"].iloc[0]
    assert (chi2["model"], chi2["value"]) == (f"{sweep.id}: chi2, 2 seeds", pytest.approx(0.55))
    assert (chi2["low"], chi2["high"]) == (0.0, 1.0)  # two seeds say little: t(1) is 12.7
    assert pd.isna(arms[arms["arm"] == "uniform"].iloc[0]["low"])
    assert len(arms) == 3  # the untrained student stays
    assert f"{sweep.id}: chi2, 2 seeds" in to_markdown(grouped).replace("\\", "")
