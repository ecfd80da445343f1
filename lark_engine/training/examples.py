"""Training examples: train.jsonl rendered in the student's tokens, with the coefficient of every trajectory.

The order in which they are seen is laid out in full before training: resuming at step s needs no state but s.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import PoolError, StudentError, TrainingError
from lark_engine.records import Message
from lark_engine.training.loss import sequence_weights, token_coefficients
from lark_engine.training.packing import Bin, Layout, cut_steps, pack_steps


@dataclass(frozen=True, kw_only=True)
class TrainLine:
    """One line of a train.jsonl: the conversation, what it is, and its train_weight."""

    prompt: tuple[Message, ...]
    response: str
    problem_id: str
    candidate_id: str
    teacher: str
    train_weight: float

    @property
    def label(self) -> str:
        return f"problem {self.problem_id}, candidate {self.candidate_id}"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A trajectory to train on. `coefficient` is what each of its response tokens carries."""

    ids: NDArray[np.int32]  # a list of Python's numbers would take nine times the memory, on every rank
    num_prompt_tokens: int
    coefficient: float
    problem_id: str
    candidate_id: str
    teacher: str

    @property
    def label(self) -> str:
        return f"problem {self.problem_id}, candidate {self.candidate_id}"

    @property
    def num_response_tokens(self) -> int:
        return len(self.ids) - self.num_prompt_tokens


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """All examples of a run, and what was cut or left out on the way."""

    examples: list[Example]
    num_truncated: int
    drops: dict[str, int]

    @property
    def num_response_tokens(self) -> int:
        return sum(example.num_response_tokens for example in self.examples)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every trajectory, prompt and response."""
        return [len(example.ids) for example in self.examples]


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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PoolError(f"{place}: not a line of a train file ({error}); each needs 'messages' and 'meta'") from None
    if roles[-1:] != ["assistant"] or roles.count("assistant") != 1 or not all(isinstance(c, str) for c in contents):
        raise PoolError(f"{place}: needs exactly one assistant message with text, at the end")
    weight = meta.get("train_weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1e9:
        raise PoolError(f"{place}: train_weight is {weight!r}; it must be a number from 0 to 1e9")
    problem_id, candidate_id, teacher = (str(meta.get(k, "?")) for k in ("problem_id", "candidate_id", "teacher"))
    prompt = tuple(Message(role=r, content=c) for r, c in zip(roles[:-1], contents[:-1], strict=True))
    line = TrainLine(
        prompt=prompt, response=contents[-1], problem_id=problem_id, candidate_id=candidate_id, teacher=teacher,
        train_weight=float(weight),
    )  # fmt: skip
    return line, "train_weight" in meta


def held_out(line: TrainLine, share: float) -> bool:
    """Whether a line's problem is among the `share` of problems that are held out.

    Decided by the text of the prompt alone: all trajectories of a problem fall on the same side, in every selection
    from every pool.
    """
    digest = hashlib.sha256(json.dumps(line.prompt).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def build_training_set(lines: Sequence[TrainLine], renderer: ChatRenderer, config: TrainConfig) -> TrainingSet:
    """Render, cut at `max_length`, and weigh. Rows of weight 0 and rows without a response token are left out, counted.

    Errors: `StudentError` when the student's template would change a response; `TrainingError` when nothing is left.
    """
    drops = {"zero_weight": 0, "no_response_token": 0}
    kept: list[tuple[Example, float, bool]] = []
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
        example = Example(
            ids=np.array(tokens.ids, dtype=np.int32), num_prompt_tokens=tokens.num_prompt_tokens, coefficient=0.0,
            problem_id=line.problem_id, candidate_id=line.candidate_id, teacher=line.teacher,
        )  # fmt: skip
        kept.append((example, line.train_weight if config.weighting == "selection" else 1.0, tokens.truncated))
    if not kept:
        raise TrainingError(f"nothing is left to train on ({drops}); raise --max-length or select with other weights")
    prob = np.array([weight for _, weight, _ in kept])
    num_tokens = np.array([example.num_response_tokens for example, _, _ in kept])
    coefficients = token_coefficients(sequence_weights(prob), num_tokens, config.unit)
    return TrainingSet(
        examples=[replace(e, coefficient=float(c)) for (e, _, _), c in zip(kept, coefficients, strict=True)],
        num_truncated=sum(truncated for _, _, truncated in kept),
        drops={reason: count for reason, count in drops.items() if count},
    )  # fmt: skip


def schedule(lengths: Sequence[int], config: TrainConfig) -> list[Bin]:
    """Which examples each optimizer step sees: numbers of examples, `global_batch` of them a step.

    Every epoch is a permutation of its own, drawn from the seed; its last step may hold fewer. It ends after `epochs`
    or `max_steps`, or before the trajectory that would make more than `max_tokens`.
    """
    steps_per_epoch = math.ceil(len(lengths) / config.global_batch)
    num_steps = config.max_steps or max(1, math.ceil(config.epochs * steps_per_epoch))
    steps: list[Bin] = []
    left = config.max_tokens or sys.maxsize
    for epoch in itertools.count():
        order = np.random.default_rng([config.seed, epoch]).permutation(len(lengths)).tolist()
        for start in range(0, len(order), config.global_batch):
            step = order[start : start + config.global_batch]
            ends = list(itertools.accumulate(lengths[number] for number in step))
            fitting = bisect.bisect_right(ends, left)
            if fitting or not steps:
                steps.append(tuple(step[: max(fitting, 1)]))
            left -= ends[-1]
            if fitting < len(step) or (not config.max_tokens and len(steps) == num_steps):
                return steps
    raise AssertionError  # an epoch has at least one step


def lay_out(training_set: TrainingSet, config: TrainConfig) -> Layout:
    """The forward passes of the whole run. Errors: `ConfigError` when the batch sizes do not add up."""
    lengths = training_set.lengths
    steps = schedule(lengths, config)
    if config.packing:
        return pack_steps(steps, lengths, config.pack_length or config.max_length, config.num_processes)
    return cut_steps(steps, lengths, config.batch_size, config.num_processes, config.global_batch)


class MicroBatches(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The forward passes of a layout, in order, as inputs of the model; to be read from start to end, once."""

    def __init__(self, examples: Sequence[Example], bins: Sequence[Bin], *, packing: bool):
        self.examples = examples
        self.bins = bins
        self.packing = packing

    def __len__(self) -> int:
        return len(self.bins)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        numbers = self.bins[position]
        inputs = micro_batch([self.examples[n] for n in numbers] or [_NOTHING], packing=self.packing)
        return {**inputs, "numbers": torch.tensor(numbers, dtype=torch.long)}


# What a device computes when a step has nothing left for it: two tokens without a coefficient.
_NOTHING = Example(
    ids=np.zeros(2, dtype=np.int32), num_prompt_tokens=2, coefficient=0.0, problem_id="", candidate_id="", teacher=""
)


def micro_batch(examples: Sequence[Example], *, packing: bool) -> dict[str, Tensor]:
    """Inputs of one forward pass: `input_ids` and `coefficient`, 0 on prompt and padding, and what tells them apart.

    Packed: one row [1, S] of trajectories end to end, `position_ids` that start anew with each, and `lengths`.
    Otherwise one row each [B, S], padded on the right, with an `attention_mask`.
    """
    ids = [torch.from_numpy(example.ids.astype(np.int64)) for example in examples]
    coefficients = [torch.zeros(len(example.ids)) for example in examples]
    for coefficient, example in zip(coefficients, examples, strict=True):
        # The first token is predicted from nothing, even where a template leaves no prompt before it.
        coefficient[max(example.num_prompt_tokens, 1) :] = example.coefficient
    if packing:
        return {
            "input_ids": torch.cat(ids)[None],
            "position_ids": torch.cat([torch.arange(len(row)) for row in ids])[None],
            "coefficient": torch.cat(coefficients)[None],
            "lengths": torch.tensor([len(row) for row in ids]),
        }
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return {
        "input_ids": pad(ids),
        "attention_mask": pad([torch.ones_like(row) for row in ids]),
        "coefficient": pad(coefficients),
    }
