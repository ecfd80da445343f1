"""The objective of METHOD.md 6: weights count, and batching does not change the gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import PoolError, TrainingError
from lark_engine.training.examples import (
    PADDING,
    ScheduledExamples,
    build_training_set,
    collate,
    read_train_file,
    schedule,
)
from lark_engine.training.loss import sequence_weights, token_coefficients, weighted_loss
from tests.training.conftest import WEIGHTS

Make = Callable[..., TrainConfig]


def test_weights_keep_their_ratios_and_have_mean_one() -> None:
    weights = sequence_weights(np.array([0.9, 0.1, 1.0]))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[0] / weights[1] == pytest.approx(9.0)


def test_units_share_out_by_trajectory_or_by_token() -> None:
    weight, tokens = np.array([1.0, 1.0]), np.array([10, 30])
    assert token_coefficients(weight, tokens, "trajectory").tolist() == [0.1, 1 / 30]
    assert token_coefficients(weight, tokens, "token").tolist() == [0.05, 0.05]


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]])
    ids = torch.tensor([[0, 1, 1]])
    coefficient = torch.tensor([[0.0, 0.0, 0.5]])
    expected = 0.5 * F.cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([1])).item() / 4
    assert weighted_loss(logits, ids, coefficient, torch.tensor(4)).item() == pytest.approx(expected)


def training_set(config: TrainConfig, path: Path) -> Any:
    from transformers import AutoTokenizer

    renderer = ChatRenderer(AutoTokenizer.from_pretrained(config.student))
    return build_training_set(read_train_file(path), renderer, config)


def gradient(config: TrainConfig, path: Path, rows: list[list[int]]) -> torch.Tensor:
    """Gradient of one optimizer step over the given micro-batches, through our loss."""
    from transformers import AutoModelForCausalLM

    examples = training_set(config, path).examples
    model = AutoModelForCausalLM.from_pretrained(config.student, dtype=torch.float32)
    data = ScheduledExamples(examples, np.arange(len(examples)))
    count = torch.tensor(sum(len(r) for r in rows))
    for numbers in rows:
        batch = collate([data[n] for n in numbers])
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        weighted_loss(logits, batch["input_ids"], batch["coefficient"], count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def formula_gradient(config: TrainConfig, path: Path, numbers: list[int]) -> torch.Tensor:
    """(1/N) Σ w_i · mean CE_i, written from the formula, one sequence at a time."""
    from transformers import AutoModelForCausalLM

    examples = training_set(config, path).examples
    mean_weight = sum(WEIGHTS) / len(WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(config.student, dtype=torch.float32)
    total = torch.zeros(())
    for n in numbers:
        ids, start = torch.tensor(examples[n].ids), examples[n].num_prompt_tokens
        logits = model(input_ids=ids[None]).logits[0, start - 1 : -1]
        total = total + WEIGHTS[n] / mean_weight * F.cross_entropy(logits, ids[start:]) / len(numbers)
    total.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("rows", [[[0, 1, 2, 3]], [[0], [1], [2], [3]], [[0, 3], [1], [2]]])
def test_the_gradient_is_the_formulas_however_the_batch_is_cut(
    tiny_config: Make, train_path: Path, rows: list[list[int]]
) -> None:
    config = tiny_config()
    ours = gradient(config, train_path, rows)
    expected = formula_gradient(config, train_path, [0, 1, 2, 3])
    assert torch.linalg.vector_norm(ours - expected) <= 1e-5 * torch.linalg.vector_norm(expected)


def test_with_one_sequence_in_a_micro_batch_its_weight_still_counts(tiny_config: Make, train_path: Path) -> None:
    """The released trainers divide by the micro-batch's weight sum, which cancels the weight exactly."""
    config = tiny_config()
    weighted = gradient(config, train_path, [[0]])
    uniform = gradient(tiny_config(weighting="uniform"), train_path, [[0]])
    ratio = WEIGHTS[0] / (sum(WEIGHTS) / len(WEIGHTS))
    assert torch.linalg.vector_norm(weighted) / torch.linalg.vector_norm(uniform) == pytest.approx(ratio, rel=1e-4)


def test_the_schedule_shows_every_example_once_an_epoch_and_pads_the_last_step(tiny_config: Make) -> None:
    order = schedule(7, tiny_config(epochs=2, global_batch=4))
    assert order.shape == (4, 4)
    for epoch in (order[:2], order[2:]):
        assert sorted(epoch.ravel().tolist()) == [PADDING, 0, 1, 2, 3, 4, 5, 6]
    assert order[:2].tolist() != order[2:].tolist()
    assert (schedule(7, tiny_config(epochs=2, global_batch=4)) == order).all()
    assert (schedule(7, tiny_config(epochs=2, global_batch=4, seed=1)) != order).any()
    assert schedule(7, tiny_config(max_steps=3)).shape == (3, 4)
    assert schedule(7, tiny_config(epochs=0.5)).shape == (1, 4)


def test_padding_of_the_schedule_adds_nothing_to_the_loss() -> None:
    batch = collate([ScheduledExamples([], np.array([PADDING]))[0]])
    assert batch["coefficient"].tolist() == [[0.0, 0.0]]
    logits = torch.zeros(1, 2, 5, requires_grad=True)
    loss = weighted_loss(logits, batch["input_ids"], batch["coefficient"], torch.tensor(1))
    loss.backward()
    assert loss.item() == 0.0


def test_cut_and_dropped_sequences_are_counted(tiny_config: Make, train_path: Path) -> None:
    whole = training_set(tiny_config(), train_path)
    assert (len(whole.examples), whole.num_truncated, whole.drops) == (7, 0, {})
    shortest = min(e.num_prompt_tokens for e in whole.examples)
    cut = training_set(tiny_config(max_length=shortest + 12), train_path)
    assert cut.num_truncated == 5  # responses have 3n + 9 tokens
    with pytest.raises(TrainingError, match=r"nothing is left to train on .* raise --max-length"):
        training_set(tiny_config(max_length=3), train_path)


def test_a_line_without_a_weight_among_weighted_ones_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    messages = '"messages": [{"role": "assistant", "content": "x"}]'
    path.write_text(f'{{{messages}, "meta": {{"train_weight": 0.2}}}}\n{{{messages}}}\n')
    with pytest.raises(PoolError, match=r"train.jsonl:2: has no train_weight, but other lines have one"):
        read_train_file(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"train.jsonl:1: not a line of a train file"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}], "meta": "a"}',
            r"train.jsonl:1: not a line of a train file",
        ),
        ('{"messages": [{"role": "user", "content": "x"}]}', r"train.jsonl:1: needs exactly one assistant message"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "meta": {"train_weight": -1}}', r"train_weight is -1"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}], "meta": {"train_weight": NaN}}',
            r"train_weight is nan",
        ),
    ],
)
def test_a_bad_training_line_is_named_by_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(PoolError, match=message):
        read_train_file(path)
