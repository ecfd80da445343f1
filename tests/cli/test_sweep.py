"""A sweep: the same budget and tokens in three ways, compared on the same held-out problems."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lark_engine.config import SweepConfig
from lark_engine.errors import ConfigError
from lark_engine.store.workspace import Workspace
from lark_engine.training.sweep import compare
from tests.cli.command_line import refuses, succeeds


def row(arm: str, seed: int, loss: float, tokens: int = 100) -> dict[str, object]:
    return {"arm": arm, "seed": seed, "held_out_loss": loss, "tokens": tokens}


def test_the_comparison_by_hand() -> None:
    rows = [row("chi2", 0, 1.0), row("uniform", 0, 2.0, 120), row("chi2", 1, 3.0), row("uniform", 1, 4.0)]
    losses = [pd.Series({"a": first, "b": second}) for first, second in ((0, 2), (1, 3), (2, 4), (3.0, 5.5))]
    chi2, uniform = compare(rows, losses)
    assert (chi2.arm, chi2.num_seeds, chi2.tokens) == ("chi2", 2, 100)
    assert (uniform.arm, uniform.tokens, uniform.difference) == ("uniform", 110, None)
    half = 12.7062047 * math.sqrt(2) / math.sqrt(2)  # t(1 degree of freedom) · s / √n, s = √2
    assert (chi2.loss.value, chi2.loss.low) == (2.0, pytest.approx(2.0 - half, rel=1e-6))
    assert chi2.difference is not None
    assert chi2.difference.value == pytest.approx((-1.0 - 1.25) / 2)  # over problems, each the mean over seeds


def test_an_arm_or_a_seed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        SweepConfig.parse({"seeds": [1, 1]}, "sweep")


@pytest.mark.slow
def test_a_sweep_is_one_family_of_runs_of_as_many_tokens(tmp_path: Path, pool_path: Path, tiny_model_dir: Path) -> None:
    home = tmp_path / "cache"
    succeeds("score", "--input", pool_path, "--student-model", tiny_model_dir, workspace=home)
    store = Workspace(home)
    [scores] = store.list("scores")
    arguments = ["sweep", "--scores", scores.id, "--B", 2, "--seed", 0, "--seed", 1, "--model-path", tiny_model_dir]
    arguments += ["--epochs", 1, "--global-batch", 2, "--lora-rank", 4, "--eval-share", 0.3, "--dtype", "float32"]
    text = succeeds(*arguments, workspace=home)
    assert [line.split()[0] for line in text.splitlines()[:4]] == ["arm", "chi2", "uniform", "random"]
    [sweep] = store.list("sweeps")
    runs = json.loads((sweep.path / "runs.json").read_text())
    assert [(run["arm"], run["seed"]) for run in runs] == [
        (a, s) for s in (0, 1) for a in ("chi2", "uniform", "random")
    ]
    assert len({run["checkpoint"] for run in runs}) == 6
    assert max(run["tokens"] for run in runs) - min(run["tokens"] for run in runs) <= 130  # about one trajectory
    assert {ref.id for ref in sweep.manifest.inputs.values()} == {scores.id, *(run["checkpoint"] for run in runs)}
    held_out = {pd.read_parquet(a.path / "held_out.parquet")["problem_id"].nunique() for a in store.list("checkpoints")}
    assert len(held_out) == 1
    before = {a.id: a.manifest.created_at for a in store.list("checkpoints")}
    assert succeeds(*arguments, workspace=home) == text  # done already: nothing is trained again
    assert {a.id: a.manifest.created_at for a in store.list("checkpoints")} == before
    arguments[arguments.index("--eval-share") + 1] = 0
    assert "give --eval-share above 0" in refuses(*arguments, workspace=home)
