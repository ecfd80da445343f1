"""Training examples: train.jsonl rendered in the student's tokens, with the coefficient of every sequence.

The order in which they are seen is laid out in full before training: resuming at step s needs no state but s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import PoolError, StudentError, TrainingError
from lark_engine.records import Message
from lark_engine.training.loss import sequence_weights, token_coefficients

PADDING = -1  # place in the schedule that holds no example: its coefficient is 0 and it is not counted


@dataclass(frozen=True, kw_only=True)
class TrainLine:
    """One line of a train.jsonl: the conversation, what to call it, and its train_weight."""

    prompt: tuple[Message, ...]
    response: str
    label: str
    train_weight: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sequence to train on. `coefficient` is what each of its response tokens carries."""

    ids: list[int]
    num_prompt_tokens: int
    coefficient: float
    label: str


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """All examples of a run, and what was cut or left out on the way."""

    examples: list[Example]
    num_truncated: int
    drops: dict[str, int]

    @property
    def num_response_tokens(self) -> int:
        return sum(len(e.ids) - e.num_prompt_tokens for e in self.examples)


def read_train_file(path: Path) -> list[TrainLine]:
    """Read a train.jsonl in the released format. Errors: `PoolError` with `file:line`, field and remedy."""
    if not path.is_file():
        raise PoolError(f"{path}: no such file; `lark select` writes one")
    lines: list[TrainLine] = []
    unweighted: list[str] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                place = f"{path}:{number}"
                line, has_weight = _train_line(place, text)
                lines.append(line)
                unweighted += [] if has_weight else [place]
    if not lines:
        raise PoolError(f"{path}: holds no trajectory; select again with looser gates")
    if unweighted and len(unweighted) < len(lines):
        raise PoolError(
            f"{unweighted[0]}: has no train_weight, but other lines have one; give all of them one, or none"
        )
    return lines


def _train_line(place: str, text: bytes) -> tuple[TrainLine, bool]:
    """One line, and whether it says its weight (1 where it does not)."""
    try:
        row = json.loads(text.decode("utf-8-sig"))
        messages, meta = row["messages"], dict(row.get("meta") or {})
        roles = [m["role"] for m in messages]
        contents = [m["content"] for m in messages]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoolError(f"{place}: not a line of a train file ({error}); each needs 'messages' and 'meta'") from None
    if roles[-1:] != ["assistant"] or roles.count("assistant") != 1 or not all(isinstance(c, str) for c in contents):
        raise PoolError(f"{place}: needs exactly one assistant message with text, at the end")
    weight = meta.get("train_weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e9:
        raise PoolError(f"{place}: train_weight is {weight!r}; it must be a number from 0 to 1e9")
    label = f"problem {meta.get('problem_id', '?')}, candidate {meta.get('candidate_id', '?')}"
    prompt = tuple(Message(role=r, content=c) for r, c in zip(roles[:-1], contents[:-1], strict=True))
    line = TrainLine(prompt=prompt, response=contents[-1], label=label, train_weight=float(weight))
    return line, "train_weight" in meta


def build_training_set(lines: Sequence[TrainLine], renderer: ChatRenderer, config: TrainConfig) -> TrainingSet:
    """Render, cut at `max_length`, and weigh. Rows of weight 0 and rows without a response token are left out, counted.

    Errors: `StudentError` when the student's template would change a response; `TrainingError` when nothing is left.
    """
    drops = {"zero_weight": 0, "no_response_token": 0}
    kept: list[tuple[list[int], int, float, str]] = []
    num_truncated = 0
    for line in lines:
        if config.weighting == "selection" and line.train_weight == 0:
            drops["zero_weight"] += 1
            continue
        try:
            tokens = renderer.tokens(line.prompt, line.response, config.max_length)
        except StudentError as error:
            raise StudentError(f"{line.label}: {error}") from error
        if tokens.num_response_tokens == 0:
            drops["no_response_token"] += 1
            continue
        num_truncated += tokens.truncated
        kept.append((tokens.ids, tokens.num_prompt_tokens, line.train_weight, line.label))
    if not kept:
        raise TrainingError(f"nothing is left to train on ({drops}); raise --max-length or select with other weights")
    prob = np.array([weight if config.weighting == "selection" else 1.0 for _, _, weight, _ in kept])
    num_tokens = np.array([len(ids) - start for ids, start, _, _ in kept])
    coefficients = token_coefficients(sequence_weights(prob), num_tokens, config.unit)
    examples = [
        Example(ids=ids, num_prompt_tokens=start, coefficient=float(coefficient), label=label)
        for (ids, start, _, label), coefficient in zip(kept, coefficients, strict=True)
    ]
    return TrainingSet(
        examples=examples, num_truncated=num_truncated, drops={reason: n for reason, n in drops.items() if n}
    )


def schedule(num_examples: int, config: TrainConfig) -> NDArray[np.int64]:
    """Which example is seen when: [steps, global_batch] of example numbers, `PADDING` at the end of each epoch.

    Every epoch is a permutation of its own, drawn from the seed; its last step may hold fewer sequences.
    """
    steps_per_epoch = math.ceil(num_examples / config.global_batch)
    num_steps = config.max_steps or max(1, math.ceil(config.epochs * steps_per_epoch))
    epochs = []
    for epoch in range(math.ceil(num_steps / steps_per_epoch)):
        order = np.random.default_rng([config.seed, epoch]).permutation(num_examples)
        padding = np.full(steps_per_epoch * config.global_batch - num_examples, PADDING)
        epochs.append(np.concatenate([order, padding]).reshape(steps_per_epoch, config.global_batch))
    return np.concatenate(epochs)[:num_steps]


class ScheduledExamples(torch.utils.data.Dataset[dict[str, Any]]):
    """The schedule as a flat dataset that is read from start to end, once."""

    def __init__(self, examples: Sequence[Example], order: NDArray[np.int64]):
        self.examples = examples
        self.order = order.ravel()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        number = int(self.order[position])
        if number == PADDING:
            return {"ids": [0, 0], "num_prompt_tokens": 2, "coefficient": 0.0, "number": PADDING}
        example = self.examples[number]
        return {
            "ids": example.ids, "num_prompt_tokens": example.num_prompt_tokens, "coefficient": example.coefficient,
            "number": number,
        }  # fmt: skip


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """A micro-batch, padded on the right: input_ids, attention_mask, coefficient [B, T] and number [B]."""
    length = max(len(row["ids"]) for row in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    coefficient = torch.zeros((len(rows), length), dtype=torch.float32)
    for i, row in enumerate(rows):
        ids[i, : len(row["ids"])] = torch.tensor(row["ids"])
        mask[i, : len(row["ids"])] = 1
        coefficient[i, row["num_prompt_tokens"] : len(row["ids"])] = row["coefficient"]
    number = torch.tensor([row["number"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "coefficient": coefficient, "number": number}
