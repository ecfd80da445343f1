"""What a run is measured on while it trains: held-out problems, and the answers of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError
from lark_engine.evaluation.benchmarks import load_benchmark
from lark_engine.records import Message
from lark_engine.store.atomic import write_with
from lark_engine.training.examples import Example, TrainLine, build_training_set, held_out, read_train_file
from lark_engine.training.packing import Bin, best_fit_decreasing

HELD_OUT = "held_out.parquet"
PROBLEMS = "held_out"


@dataclass(kw_only=True)
class HeldOut:
    """A set of trajectories that the loss is measured on. Every one counts alike, whatever its weight was.

    `losses` are those of the last evaluation, mean nll per response token of each example, in nats.
    """

    name: str
    examples: list[Example]
    packing: bool
    capacity: int
    num_truncated: int
    drops: dict[str, int]
    losses: list[float] = field(default_factory=list)

    def bins(self, num_devices: int) -> list[Bin]:
        """Forward passes, as many for each device: packed, or one trajectory each."""
        numbers = range(len(self.examples))
        lengths = [len(example.ids) for example in self.examples]
        packed = best_fit_decreasing(lengths, self.capacity) if self.packing else [[n] for n in numbers]
        bins = [tuple(sorted(places)) for places in packed]
        return bins + [()] * (-len(bins) % num_devices)


def split(lines: Sequence[TrainLine], share: float) -> tuple[list[TrainLine], list[TrainLine]]:
    """Lines to train on, and those of held-out problems. Errors: `ConfigError` when one side would be empty."""
    sides: tuple[list[TrainLine], list[TrainLine]] = ([], [])
    for line in lines:
        sides[held_out(line, share)].append(line)
    if share and not all(sides):
        empty = "held out" if sides[0] else "left to train on"
        raise ConfigError(
            f"eval_share {share}: of {len(lines)} trajectories none would be {empty}; choose another share"
        )
    return sides


def held_out_sets(
    held_out_lines: Sequence[TrainLine], renderer: ChatRenderer, config: TrainConfig, eval_path: Path | None
) -> list[HeldOut]:
    """The sets that the config asks for: held-out problems, then one for each benchmark.

    Errors: those of reading and rendering; `ConfigError` when `eval_data` has no held-out problem.
    """
    named: dict[str, Sequence[TrainLine]] = {}
    if config.eval_share:
        named[PROBLEMS] = held_out_lines
        if eval_path is not None:
            named[PROBLEMS] = split(read_train_file(eval_path), config.eval_share)[1]
    for name in config.eval_benchmarks:
        benchmark, lines = _benchmark_lines(name)
        named[benchmark] = lines
    uniform = config.model_copy(update={"weighting": "uniform", "unit": "trajectory"})
    sets = {name: build_training_set(lines, renderer, uniform) for name, lines in named.items()}
    return [
        HeldOut(
            name=name, examples=found.examples, packing=config.packing, num_truncated=found.num_truncated,
            drops=found.drops, capacity=config.pack_length or config.max_length,
        )
        for name, found in sets.items()
    ]  # fmt: skip


def _benchmark_lines(name: str) -> tuple[str, list[TrainLine]]:
    """A benchmark's problems as it asks them, each answered by its reference answer alone, boxed."""
    benchmark = load_benchmark(name)
    system = [Message(role="system", content=benchmark.system_prompt)] if benchmark.system_prompt else []
    lines = [
        TrainLine(
            prompt=(*system, Message(role="user", content=problem.prompt)),
            response=f"\\boxed{{{problem.reference}}}", problem_id=problem.problem_id, candidate_id="answer",
            teacher="reference", train_weight=1.0,
        )
        for problem in benchmark.problems
    ]  # fmt: skip
    return benchmark.name, lines


def write_losses(sets: Sequence[HeldOut], path: Path) -> None:
    """One row for each trajectory of each set: set, problem_id, candidate_id, teacher, num_response_tokens, nll."""
    rows = [
        {
            "set": held.name, "problem_id": e.problem_id, "candidate_id": e.candidate_id, "teacher": e.teacher,
            "num_response_tokens": e.num_response_tokens, "nll": loss,
        }
        for held in sets
        for e, loss in zip(held.examples, held.losses, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    write_with(path, lambda file: table.to_parquet(file, index=False))
