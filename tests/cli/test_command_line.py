"""The command line: the released command lines work, and every mistake is one sentence with exit code 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pytest
import typer
from command_line import lark, refuses, succeeds
from typer.testing import CliRunner

from lark_engine.cli import app
from lark_engine.cli.common import Guarded, WorkspaceOption, command_group, required, runs_subcommand
from lark_engine.config import ScoreConfig
from lark_engine.models import resolve_model
from lark_engine.options import with_options
from lark_engine.store.workspace import Workspace


@pytest.mark.slow
def test_the_released_command_lines_work_from_pool_to_table(
    tmp_path: Path, pool_path: Path, benchmark_path: Path, tiny_model_dir: Path
) -> None:
    home, out = tmp_path / "workspace", tmp_path / "out"
    succeeds(
        "score", "--input", pool_path, "--output", out / "lark_ghat.json", "--student_model", tiny_model_dir, "--top_k",
        50, "--max_length", 4096, "--batch_size", 4, "--device", "cpu", "--dtype", "float32", workspace=home,
    )  # fmt: skip
    assert json.loads((out / "lark_ghat.json").read_text())["n_scored"] == 12
    succeeds("select", "--scores", out / "lark_ghat.json", "--B", 3, "--output", out / "train.jsonl", workspace=home)
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert (out / "train.manifest.json").exists()
    (tmp_path / "lora.yaml").write_text("r: 4\nlora_alpha: 8\nlora_dropout: 0.0\ntarget_modules: [q_proj, v_proj]\n")
    output = succeeds(
        "train", "lora", "--train_data", out / "train.jsonl", "--model_path", tiny_model_dir, "--output_dir",
        out / "lora", "--lora_config", tmp_path / "lora.yaml", "--lr", 1e-3, "--epochs", 1, "--batch_size", 1,
        "--grad_accum", 3, "--max_length", 512, "--lora_dropout", 0.1, "--dtype", "float32", workspace=home,
    )  # fmt: skip
    assert "num_steps 3, global_batch 3" in output
    assert json.loads((out / "lora" / "adapter_config.json").read_text())["lora_dropout"] == 0.1
    store = Workspace(home)
    for name in ("lora", out / "lora", store.list("checkpoints")[0].path):
        assert resolve_model(str(name), store).artifact == store.list("checkpoints")[0]
    succeeds(
        "generate", "--model_path", out / "lora", "--benchmark", "GSM8K", "--benchmark_path", benchmark_path,
        "--output_dir", out / "evals", "--tensor_parallel_size", 1, "--max_new_tokens", 8, "--n_samples", 2,
        "--temperature", 0.6, "--top_p", 0.95, "--backend", "transformers", workspace=home,
    )  # fmt: skip
    assert len((out / "evals" / "gsm8k" / "generations.jsonl").read_text().splitlines()) == 6
    assert "of 6 samples have an answer" in succeeds("extract", "--eval_dir", out / "evals", workspace=home)
    succeeds("grade", "--eval_dir", out / "evals", workspace=home)
    assert (out / "evals" / "gsm8k" / "metrics.json").exists()
    table = succeeds("table", "--eval_root", out / "evals", "--output_csv", out / "results.csv", workspace=home)
    assert "gsm8k avg@2" in table
    (row,) = pd.read_csv(out / "results.csv").to_dict("records")
    assert list(row)[:5] == ["student", "q1_baseline", "q2_method", "aime24", "aime25"]
    assert (row["q1_baseline"], row["q2_method"]) == ("g_hat", store.list("checkpoints")[0].id)
    assert 0.0 <= row["gsm8k"] <= 1.0
    assert row["n_samples"] == 2


@pytest.mark.slow
def test_full_training_starts_its_own_ranks(tmp_path: Path, pool_path: Path, tiny_model_dir: Path) -> None:
    home, scores = tmp_path / "workspace", tmp_path / "scores.json"
    succeeds("score", "--input", pool_path, "--output", scores, "--student", tiny_model_dir, workspace=home)
    succeeds("select", "--scores", scores, "--B", 2, "--output", tmp_path / "train.jsonl", workspace=home)
    output = succeeds(
        "train", "full", "--nproc_per_node", 2, "--train_data", tmp_path / "train.jsonl", "--model_path",
        tiny_model_dir, "--output_dir", tmp_path / "model", "--deepspeed", "zero2", "--lr", 1e-5, "--epochs", 1,
        "--batch_size", 1, "--grad_accum", 2, "--max_length", 512, "--dtype", "float32", workspace=home,
    )  # fmt: skip
    assert "global_batch 4" in output
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_a_released_score_file_needs_its_pool_and_says_so(tmp_path: Path, pool_path: Path) -> None:
    home, path = tmp_path / "workspace", tmp_path / "lark_ghat.json"
    candidates = [
        {"candidate_id": k, "teacher": "a", "L": 1.0 + k, "Brier": 0.5, "rho": 0, "g_hat": 0} for k in range(4)
    ]
    path.write_text(json.dumps({"method": "lark_ghat", "top_k": 50, "scores": {"0": candidates}}))
    command = ("select", "--scores", path, "--B", 3, "--output", tmp_path / "train.jsonl")
    assert refuses(*command, workspace=home).endswith("say which pool they are of with --pool POOL")
    succeeds(*command, "--pool", pool_path, workspace=home)
    weights = [json.loads(line)["meta"]["train_weight"] for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert sum(weights) == pytest.approx(1.0)
    assert len(weights) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pool", "import", "absent.jsonl"], "absent.jsonl"),
        (["score", "--input", "absent", "--student", "x"], "no pool 'absent' in workspace"),
        (["select", "--scores", "absent", "--B", "0"], "'budget' = 0: input should be greater than or equal to 1"),
        (["select", "--scores", "absent"], "no score 'absent' in workspace"),
        (["select", "--scores", "absent.json"], "absent.json: no such file"),
        (["train", "lora", "--train-data", "absent.jsonl", "--model-path", "m"], "absent.jsonl: no such file"),
        (["train", "lora", "--train-data", "x", "--student", "m", "--lr", "inf"], "'lr' = inf"),
        (["train", "lora", "--train-data", "x", "--student", "m", "--recipe", "lorra"], "did you mean 'lora'?"),
        (["generate", "--benchmark", "absent.json", "--model-path", "absent-model"], "absent-model"),
        (["run", "absent.yaml"], "absent.yaml: no such file"),
        (["grade", "--eval-dir", "absent"], "absent"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in refuses(*arguments, workspace=tmp_path / "workspace")


def test_a_workspace_that_cannot_be_made_is_one_sentence(tmp_path: Path, pool_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = refuses("pool", "import", pool_path, workspace=tmp_path / "file" / "workspace")
    assert "cannot be made a folder" in sentence


def test_two_names_for_the_accumulation_are_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    command = ("train", "lora", "--train-data", "x", "--student", tiny_model_dir, "--grad-accum", 2)
    sentence = refuses(*command, "--global-batch", 8, workspace=tmp_path / "workspace")
    assert "say the same thing; give one of them" in sentence


def test_an_unknown_flag_names_the_nearest(tmp_path: Path) -> None:
    result = lark("score", "--input", "x", "--topk", "3", workspace=tmp_path)
    assert result.exit_code == 2
    assert "--top-k" in result.output


def test_cuda_is_refused_in_one_sentence_where_there_is_none(
    tmp_path: Path, pool_path: Path, tiny_model_dir: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    command = ("score", "--input", pool_path, "--student", tiny_model_dir, "--device", "cuda")
    assert "torch finds no CUDA device; use --device cpu" in refuses(*command, workspace=tmp_path / "workspace")


def test_help_shows_every_option_with_its_default(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["select", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for text in ("--budget", "--B", "(default: 3)", "budget|sharpness|temperature", "--exclude-teachers"):
        assert text in result.output


@pytest.fixture
def toy() -> typer.Typer:
    """`toy paint --color C --student S …` is a command, and `toy paint wall --height H` its subcommand."""
    toy = typer.Typer(cls=Guarded, context_settings=app.info.context_settings)
    paint_app = command_group()

    @paint_app.callback()
    @with_options(ScoreConfig, aliases={"student": ("--student-model",)})
    def paint(
        ctx: typer.Context,
        values: dict[str, Any],
        color: Annotated[str | None, typer.Option("--color", "--hue")] = None,
        workspace: WorkspaceOption = Path("cache"),
    ) -> None:
        if runs_subcommand(ctx):
            return
        color = required(ctx, "color", color)
        typer.echo(f"paint {color} {ScoreConfig.parse(values, 'toy paint').student} {sorted(values)} {workspace}")

    @paint_app.command("wall")
    def wall(wall_height: Annotated[int, typer.Option()], workspace: WorkspaceOption = Path("cache")) -> None:
        typer.echo(f"wall {wall_height} {workspace}")

    toy.add_typer(paint_app, name="paint")
    return toy


@pytest.mark.parametrize(
    ("line", "exit_code", "said"),
    [
        ("paint --color red --student_model m --top_k 5", 0, "paint red m ['student', 'top_k'] home\n"),
        ("paint wall --wall_height 3", 0, "wall 3 home\n"),
        ("paint wall --wall-height 3 --workspace other", 0, "wall 3 other\n"),
        ("paint", 2, "Missing option '--color' / '--hue'."),
        ("paint --student m", 2, "Missing option '--color' / '--hue'."),
        ("paint --color red", 2, "lark: toy paint: 'student' is missing"),
        ("paint wall", 2, "Missing option '--wall-height'."),
        ("paint door", 2, "No such command 'door'."),
        ("paint --topk 5", 2, "--top-k"),
        (
            "paint --top_k 5 wall --wall-height 3",
            2,
            "Option '--top-k' is of 'toy paint' itself; write it after 'wall'.",
        ),
        ("paint --help", 0, "toy paint [OPTIONS] [COMMAND [ARGS]...]"),
        ("paint wall --help", 0, "--wall-height"),
    ],
)
def test_a_group_is_a_command_and_has_subcommands(toy: typer.Typer, line: str, exit_code: int, said: str) -> None:
    environment = {"COLUMNS": "200", "LARK_HOME": "home"}
    result = CliRunner().invoke(toy, line.split(), prog_name="toy", env=environment)
    assert (result.exit_code, said in result.output) == (exit_code, True), result.output
    if exit_code == 0 and "--help" not in line:
        assert result.output == said


@pytest.mark.parametrize(("command", "option"), [("score", "'--input' / '--pool'"), ("select", "'--scores'")])
def test_a_missing_option_of_a_group_is_named(command: str, option: str) -> None:
    result = CliRunner().invoke(app, [command], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert f"Missing option {option}." in result.output


def test_help_lists_the_commands_in_the_order_of_their_use() -> None:
    group: Any = typer.main.get_command(app)
    names = ["pool", "score", "select", "train", "benchmarks", "sweep"]
    names += ["generate", "extract", "grade", "dispute", "table", "compare", "lineage", "run", "demo", "serve"]
    names += ["report", "bundle", "views", "access", "jobs", "clean", "doctor"]
    assert list(group.commands) == names


def test_the_command_line_is_also_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lark_engine.cli", "pool", "show", "--workspace", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no pool in" in done.stdout


@pytest.mark.slow
def test_ctrl_c_ends_a_stage_with_130_and_the_next_call_resumes(
    tmp_path: Path, pool_path: Path, tiny_model_dir: Path
) -> None:
    home = tmp_path / "workspace"
    slow = (
        "import sys, time\nfrom lark_engine.scoring import parts, student\nparts.FLUSH_S = 0.0\n"
        "plain = student.Student.score\n"
        "def slow(self, groups, **how):\n    time.sleep(1)\n    return plain(self, groups, **how)\n"
        "student.Student.score = slow\nfrom lark_engine.cli import main\nmain()\n"
    )
    arguments = ["score", "--input", pool_path, "--student", tiny_model_dir, "--batch-size", 1, "--workspace", home]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *map(str, arguments)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(home.glob("scores/*/parts/rows-*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run the same command again, it resumes" in errors
    assert "Traceback" not in errors
    assert "num_trajectories 12" in succeeds(*arguments[:-2], workspace=home)
