from __future__ import annotations

import csv
import io
import json

from graded import evaluated

from lark_engine.results.commands import compare_command, dispute_command, shell_line
from lark_engine.results.compare import compare, compare_graded
from lark_engine.results.compare_export import comparison_csv, comparison_json, comparison_markdown, pairs_csv
from lark_engine.results.graded import read_graded
from lark_engine.store.workspace import Artifact, Workspace


def test_a_comparison_as_json_has_its_matrix_as_a_list(workspace: Workspace, run: dict[str, Artifact]) -> None:
    said = json.loads(comparison_json(compare(workspace, "tiny", "lora-quick")))
    assert (said["a"], said["b"], said["macro"]) == ("tiny", "lora-quick", None)
    assert said["benchmarks"][0]["matrix"][0] == {"a": 0, "b": 0, "problems": 1}


def test_a_comparison_as_csv_has_a_row_a_benchmark_and_the_mean(workspace: Workspace, run: dict[str, Artifact]) -> None:
    evaluated(workspace, "tiny", "aime", {"a": "0000", "b": "0000"})
    rows = list(csv.DictReader(io.StringIO(comparison_csv(compare(workspace, "tiny", "lora-quick")))))
    assert sorted(row["benchmark"] for row in rows) == ["aime", "gsm8k", "mean over 2 benchmarks"]
    gsm8k = next(row for row in rows if row["benchmark"] == "gsm8k")
    assert (gsm8k["a"], gsm8k["metric"], gsm8k["num_problems"], gsm8k["difference"]) == ("tiny", "avg@2", "4", "0.375")
    assert (rows[-1]["difference"], rows[-1]["num_problems"], rows[-1]["p_value"]) == ("0.25", "6", "")


def test_a_comparison_as_markdown_is_in_points(workspace: Workspace, run: dict[str, Artifact]) -> None:
    text = comparison_markdown(compare(workspace, "tiny", "lora-quick"))
    assert "| gsm8k | avg@2 | 4 | 25.0 | 62.5 | +37.5 [-38.7, +113.7] | 0.5 | 0.5 | exact permutation |" in text
    evaluated(workspace, "cold", "gsm8k", {"p0": "10", "p1": "00", "p2": "00", "p3": "11"}, config={"temperature": 0.0})
    assert "sampled or graded otherwise: temperature: 0.6 / 0.0" in comparison_markdown(
        compare(workspace, "tiny", "cold")
    )


def test_text_that_a_spreadsheet_would_run_is_inert(workspace: Workspace, run: dict[str, Artifact]) -> None:
    rights = {"=SUM(A1)": "10", "q": "01"}
    evaluated(workspace, "one", "sheet", rights)
    evaluated(workspace, "two", "sheet", rights)
    (detail,) = compare_graded(read_graded(workspace).graded, "one", "two").details
    rows = list(csv.DictReader(io.StringIO(pairs_csv(detail.problems))))
    assert [(row["problem_id"], row["correct_a"], row["num_b"]) for row in rows] == [
        ("'=SUM(A1)", "1", "2"), ("q", "1", "2"),
    ]  # fmt: skip


def test_the_commands_say_what_the_pages_do(workspace: Workspace, run: dict[str, Artifact]) -> None:
    assert compare_command("tiny", "lora-quick", workspace, metric="pass", options=("--json",)) == [
        "lark", "compare", "tiny", "lora-quick", "--metric", "pass", "--json", "--workspace", str(workspace.root),
    ]  # fmt: skip
    (one,) = [x for x in read_graded(workspace).graded if x.place == str(run["base"].path.relative_to(workspace.root))]
    line = shell_line(dispute_command(one.generations, "-p 1", 2, "wrong", "it's off", "ann", workspace))
    assert f"--eval-dir={one.generations.path} '--problem=-p 1' --sample 2 --verdict wrong" in line
