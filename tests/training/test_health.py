"""What a run says of itself: events, alerts, held-out losses, and a sentence when it must stop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, TrainingError
from lark_engine.models import model_of_checkpoint
from lark_engine.store.events import EventLog
from lark_engine.store.workspace import Artifact, Workspace
from lark_engine.training.examples import TrainLine, held_out, read_train_file
from lark_engine.training.health import RunLog, read_curve, spike
from lark_engine.training.held_out import split
from lark_engine.training.plan import plan_train, train_data
from lark_engine.training.train import train
from lark_engine.training.trainer import HealthCallback
from tests.training.conftest import write_train_file

Make = Callable[..., TrainConfig]


def run(config: TrainConfig, workspace: Workspace, path: Path) -> Artifact:
    checkpoint = train(config, workspace, train_data(str(path), workspace))
    assert checkpoint is not None
    return checkpoint


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_every_step_says_loss_gradient_rate_speed_and_memory(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    checkpoint = run(tiny_config(epochs=2, scheduler="linear"), workspace, train_path)
    first, *steps = events(checkpoint.path)
    assert first["note"].startswith("4 steps; global batch 4 = 1 process × 1 forward pass, packed, of at most ")
    assert first["note"].endswith("1.00 tokens computed per useful one; attention trajectory by trajectory")
    assert [event["done"] for event in steps] == [1, 2, 3, 4]
    for event in steps:
        metrics = event["metrics"]
        assert {"loss", "grad_norm", "learning_rate", "tokens_per_s", "memory_mb", "device_use"} <= set(metrics)
        assert metrics["tokens_per_s"] > 0
        assert metrics["memory_mb"] > 100
        assert (event["total"], event["unit"]) == (4, "step")
    assert [event["metrics"]["learning_rate"] for event in steps] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_events_are_as_far_apart_as_asked_and_the_last_step_is_one(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    checkpoint = run(tiny_config(max_steps=5, logging_steps=2), workspace, train_path)
    assert [event["done"] for event in events(checkpoint.path)] == [0, 2, 4, 5]


def test_a_log_that_nobody_watches_as_a_bar_gets_lines_of_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lark_engine.store.events.LINE_EVERY_S", 0.0)
    log = RunLog(EventLog(tmp_path / "events.jsonl", "train"), [10] * 4, 1, "cpu")
    with caplog.at_level("INFO"):
        log.step(1, {"loss": 0.68125})
    [line] = caplog.messages
    assert line.startswith("train: 1 of 4 steps (25.0 %), ")
    assert ", loss 0.6813, " in line and line.endswith(" left")


def test_a_resumed_runs_curve_has_each_step_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", "train")
    for step, loss in ((1, 3.0), (2, 2.0), (3, 9.0), (2, 2.5), (3, 1.5)):
        log.write(done=step, metrics={"loss": loss})
    log.write(done=3, metrics={"eval_held_out_loss": 7.0})
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"done": 4, "metr')
    assert read_curve(tmp_path / "events.jsonl") == {1: 3.0, 2: 2.5, 3: 1.5}
    assert read_curve(tmp_path / "events.jsonl", "eval_held_out_loss") == {3: 7.0}


def test_a_loss_far_above_those_before_it_is_a_spike() -> None:
    before = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 1.1, 0.9, 1.0]
    assert spike(before, 1.4) is None
    assert spike(before, 4.0) == "loss spike: 4, while the median of the last 10 steps is 1"
    assert spike(before[:9], 4.0) is None  # too little to compare with
    assert spike([1.0] * 10, 1.2) is None  # a flat curve makes no small step an alert


def test_an_alert_is_an_event_even_between_logged_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(EventLog(tmp_path / "events.jsonl", "train"), [10] * 20, 20, "cpu")
    for step in range(1, 12):
        log.step(step, {"loss": 5.0 if step == 11 else 1.0})
    [event] = events(tmp_path)
    assert (event["done"], event["alert"][:10]) == (11, "loss spike")
    assert "step 11: loss spike: 5" in caplog.text


def test_evaluating_is_not_training_time(tmp_path: Path) -> None:
    log = RunLog(EventLog(tmp_path / "events.jsonl", "train"), [100] * 10, 5, "cpu")
    log._last_time -= 60.0  # a minute ago
    log.evaluation(3, {"eval_held_out_loss": 1.0}, 59.0)  # which was spent on evaluating, but for a second
    assert 400 < log.step(5, {"loss": 1.0})["tokens_per_s"] <= 500


def test_a_resumed_run_saves_and_evaluates_as_often_as_it_is_told_now(tmp_path: Path) -> None:
    """The state that a checkpoint holds has the intervals of the run that saved it."""
    callback = HealthCallback(RunLog(EventLog(tmp_path / "events.jsonl", "train"), [10] * 60, 1, "cpu"))
    state = SimpleNamespace(save_steps=50, eval_steps=10, global_step=50)
    callback.on_train_begin(SimpleNamespace(save_steps=5, eval_steps=2), state, None)
    assert (state.save_steps, state.eval_steps) == (5, 2)


def test_the_same_problems_are_held_out_of_every_selection(train_path: Path) -> None:
    lines = read_train_file(train_path)
    kept, out = split(lines, 0.5)
    assert {line.problem_id for line in out}.isdisjoint(line.problem_id for line in kept)
    assert kept
    assert out
    more, fewer = split(lines, 0.7)[1], split(lines, 0.3)[1]
    assert {line.label for line in fewer} <= {line.label for line in out} <= {line.label for line in more}
    renamed = [TrainLine(**{**vars(line), "problem_id": "x", "train_weight": 0.1}) for line in out]
    assert all(held_out(line, 0.5) for line in renamed)  # the prompt decides, not what a file calls it
    assert split(lines, 0.0) == (lines, [])
    with pytest.raises(ConfigError, match=r"eval_share 1e-06: of 7 trajectories none would be held out"):
        split(lines, 1e-6)


def own_losses(model_dir: Path, rows: pd.DataFrame, path: Path) -> list[float]:
    """Mean nll of held-out trajectories by the model's own logits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    texts = {
        (str(row["meta"]["problem_id"]), str(row["meta"]["candidate_id"])): row["messages"]
        for row in map(json.loads, path.read_text().splitlines())
    }
    losses = []
    for problem_id, candidate_id in zip(rows["problem_id"], rows["candidate_id"], strict=True):
        messages = texts[problem_id, candidate_id]
        ids = torch.tensor(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])
        start = len(
            tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        )
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, start - 1 : -1]
        losses.append(float(F.cross_entropy(logits, ids[start:])))
    return losses


@pytest.mark.parametrize("packing", [True, False])
def test_the_held_out_loss_is_the_models_on_problems_that_it_did_not_see(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path, packing: bool
) -> None:
    benchmark = tmp_path / "two.json"
    benchmark.write_text(json.dumps([{"prompt": "What is 1 + 1?", "answer": "2"}, {"prompt": "2 + 2?", "answer": "4"}]))
    config = tiny_config(
        epochs=2, eval_share=0.5, eval_benchmarks=(str(benchmark),), eval_steps=1, packing=packing
    )  # fmt: skip
    checkpoint = run(config, workspace, train_path)
    table = pd.read_parquet(checkpoint.path / "held_out.parquet")
    assert table.groupby("set").size().to_dict() == {
        "held_out": checkpoint.manifest.counts["num_held_out"] - 2, "two": 2
    }  # fmt: skip
    assert checkpoint.manifest.counts["num_sequences"] == 7 - len(table[table["set"] == "held_out"])
    rows = table[table["set"] == "held_out"]
    found = own_losses(model_of_checkpoint(checkpoint, workspace).path, rows, train_path)
    assert rows["nll"].tolist() == pytest.approx(found, rel=1e-4)
    assert checkpoint.manifest.metrics["eval_held_out_loss"] == pytest.approx(sum(found) / len(found), rel=1e-4)
    curve = read_curve(checkpoint.path / "events.jsonl", "eval_held_out_loss")
    assert list(curve) == list(range(checkpoint.manifest.counts["num_steps"] + 1))  # from before the first step on
    assert "eval_two_loss" in checkpoint.manifest.metrics


def test_a_held_out_loss_that_is_not_finite_stops_the_run(
    workspace: Workspace, tiny_config: Make, train_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lark_engine.training.trainer import WeightedTrainer

    monkeypatch.setattr(WeightedTrainer, "_losses_of", lambda self, held: [math.nan] + [1.0] * (len(held.examples) - 1))
    message = r"the loss on held_out is not finite after step 0 \(problem \d, candidate \d\): the usual cause"
    with pytest.raises(TrainingError, match=message):
        run(tiny_config(eval_share=0.5), workspace, train_path)


@pytest.mark.slow
def test_two_ranks_share_the_evaluation_and_agree_with_one(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    alone = run(tiny_config(eval_share=0.5), workspace, train_path)
    together = run(tiny_config(eval_share=0.5, nproc_per_node=2, deepspeed="zero3"), workspace, train_path)
    tables = [pd.read_parquet(a.path / "held_out.parquet") for a in (alone, together)]
    assert tables[0]["nll"].tolist() == pytest.approx(tables[1]["nll"].tolist(), rel=1e-4)


def test_other_data_can_be_held_out_and_changes_the_fingerprint(
    workspace: Workspace, tiny_config: Make, train_path: Path, tmp_path: Path
) -> None:
    other = write_train_file(tmp_path / "other.jsonl", [1.0] * 12)
    config = tiny_config(eval_share=0.5, epochs=1)
    data = train_data(str(train_path), workspace)
    with_other = config.model_copy(update={"eval_data": str(other)})
    plans = [plan_train(c, workspace, data)[0].fingerprint for c in (tiny_config(epochs=1), config, with_other)]
    assert len(set(plans)) == 3
    checkpoint = run(with_other, workspace, train_path)
    expected = len(split(read_train_file(other), 0.5)[1])
    assert checkpoint.manifest.counts["num_held_out"] == expected


def test_reporters_get_the_same_numbers(workspace: Workspace, tiny_config: Make, train_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    checkpoint = run(tiny_config(epochs=1, report_to=("tensorboard",)), workspace, train_path)
    board = EventAccumulator(str(checkpoint.path / "tensorboard")).Reload()
    assert {"train/loss", "train/tokens_per_s"} <= set(board.Tags()["scalars"])
    values = {scalar.step: scalar.value for scalar in board.Scalars("train/loss")}
    assert values == pytest.approx(read_curve(checkpoint.path / "events.jsonl"))


def test_a_reporter_that_is_not_installed_is_named(
    workspace: Workspace, tiny_config: Make, train_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"report_to: wandb is not installed; `pip install wandb`, or leave it out"):
        run(tiny_config(report_to=("wandb",)), workspace, train_path)


def test_a_loss_that_is_not_finite_names_step_trajectories_and_cause(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    config = tiny_config(lr=1e39, epochs=20)
    message = (
        r"the loss became nan at step 2 \(problem \d, candidate \d(; problem \d, candidate \d)*\): the steps before it "
        r"were too large, so that weights are not finite any more; lower --lr \(now 1e\+39\)"
    )
    with pytest.raises(TrainingError, match=message):
        run(config, workspace, train_path)
    plan, _ = plan_train(config, workspace, train_data(str(train_path), workspace))
    assert workspace.find(plan) is None


def test_only_the_trajectories_that_overflow_are_named(
    workspace: Workspace, tiny_config: Make, train_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lark_engine.training import objective

    plain = objective.weighted_nll

    def poisoned(hidden: Any, weight: Any, bias: Any, target: Any, *rest: Any) -> Any:
        found = plain(hidden, weight, bias, target, *rest)
        if len(target) < 40:  # not while it is tried
            return found
        found.nll_T[3] = math.inf  # a token of the first trajectory in the row
        return found._replace(value=found.value * math.inf)

    monkeypatch.setattr(objective, "weighted_nll", poisoned)
    with pytest.raises(TrainingError, match=r"the loss became inf at step 1 \(problem \d, candidate \d\): the usual"):
        run(tiny_config(max_steps=1, pack_length=256), workspace, train_path)
