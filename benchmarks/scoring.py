"""Claims: scoring with shared prompts and without padding is 1.4 times as fast as one plain forward pass a trajectory
where prompts are shared (GSM8K) and 1.03 times where little is (alpaca), uses 70 % of the machine's matrix-multiply
rate, and takes a quarter of the memory for a long trajectory, flat in its length.

    .venv/bin/python benchmarks/scoring.py [--shared ../shared] [--repetitions 3] [--dtype float32 bfloat16]
    .venv/bin/python benchmarks/scoring.py --profile [--candidates 40]     # where the time goes, by operation

Both scorers run in this process on the same weights, in turn; medians. The oracle is the released algorithm: one
trajectory a forward pass, all logits at once, Brier over the 50 largest. Memory is that of child processes. Takes about
20 minutes on 2 cores; --candidates N makes it shorter.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lark_engine.chat import ChatRenderer
from lark_engine.demo.student import convert_student
from lark_engine.models import ModelRef, load_tokenizer, resolve_student
from lark_engine.scoring.planner import BATCH_TOKENS, Batch, plan_batches
from lark_engine.scoring.student import Responses, Student
from lark_engine.scoring.tokenized import hash_ids
from lark_engine.store.workspace import Workspace

POOLS = {"gsm8k_pool": (200, 1.4), "alpaca_pool": (55, 1.03)}
LEAST_UTILIZATION = 0.70
MOST_MEMORY = 0.25
FLATNESS = 0.10


class Trajectories(NamedTuple):
    """Token ids of candidates, and how many of them are the prompt."""

    ids: list[np.ndarray]
    num_prompt: np.ndarray

    @property
    def num_response(self) -> np.ndarray:
        return np.array([len(ids) for ids in self.ids]) - self.num_prompt

    def batches(self, budget: int) -> list[Batch]:
        hashes = np.array([hash_ids(ids[:p]) for ids, p in zip(self.ids, self.num_prompt, strict=True)])
        return plan_batches(np.arange(len(self.ids)), hashes, self.num_prompt, self.num_response, batch_tokens=budget)

    def groups(self, batch: Batch) -> list[Responses]:
        return [
            Responses(self.ids[g[0]][: self.num_prompt[g[0]]], tuple(self.ids[i][self.num_prompt[i] :] for i in g))
            for g in batch.groups
        ]


def load(shared: Path, stem: str, count: int, model: ModelRef) -> Trajectories:
    renderer = ChatRenderer(load_tokenizer(model))
    ids, num_prompt = [], []
    with gzip.open(shared / "data" / f"{stem}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in islice(file, count):
            messages = json.loads(line)["messages"]
            tokens = renderer.tokens(messages[:-1], messages[-1]["content"], 8192)
            ids.append(np.array(tokens.ids, dtype=np.int32))
            num_prompt.append(tokens.num_prompt_tokens)
    return Trajectories(ids, np.array(num_prompt))


@torch.inference_mode()
def oracle(model: Any, trajectories: Trajectories) -> np.ndarray:
    """nll and top-50 Brier of each trajectory as the released code computes them, [candidates, 2]."""
    rows = []
    for ids, start in zip(trajectories.ids, trajectories.num_prompt, strict=True):
        tokens = torch.from_numpy(ids.astype(np.int64))
        logits = model(input_ids=tokens[None], use_cache=False).logits[0].float()
        logits, target = logits[start - 1 : -1], tokens[start:]
        nll = torch.nn.functional.cross_entropy(logits, target)
        top = logits.topk(50, dim=1)
        prob = top.values.softmax(dim=1)
        true = (prob * (top.indices == target[:, None])).sum(dim=1)
        rows.append([float(nll), float((1 - 2 * true + prob.square().sum(dim=1)).mean())])
    return np.array(rows)


def ours(student: Student, trajectories: Trajectories, budget: int) -> np.ndarray:
    result = np.empty((len(trajectories.ids), 2))
    for batch in trajectories.batches(budget):
        stats, lengths = student.score(trajectories.groups(batch), prompt_apart=batch.prompt_apart)
        for column, values in enumerate((stats.nll, stats.brier_top_k)):
            means = [float(part.double().mean()) for part in values.split(lengths.tolist())]
            result[batch.rows, column] = means
    return result


class Work(NamedTuple):
    """Floating-point operations of the oracle and of the unique tokens."""

    oracle: float
    unique: float


def work(model: Any, trajectories: Trajectories) -> Work:
    """2 per weight and token, 4·width per layer and pair of tokens, and the vocabulary where logits are made."""
    config = model.config
    linear = 2 * sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    vocabulary = 2 * config.hidden_size * config.vocab_size
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    pair = 4 * width * config.num_hidden_layers
    prompt, response = trajectories.num_prompt.astype(float), trajectories.num_response.astype(float)
    total = prompt + response
    plain = (total * (linear + vocabulary) + pair * total * (total + 1) / 2).sum()
    seen: set[int] = set()
    unique = float((response * (linear + vocabulary) + pair * response * (prompt + (response + 1) / 2)).sum())
    for ids, start in zip(trajectories.ids, trajectories.num_prompt, strict=True):
        key = hash_ids(ids[:start])
        if key not in seen:
            seen.add(key)
            unique += start * linear + pair * start * (start + 1) / 2
    return Work(float(plain), unique)


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a second of one large matrix multiplication: the best of ten."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    best = min(timed(lambda: torch.mm(a, b, out=out))[1].wall_s for _ in range(10))
    return 2 * size**3 / best


class Seconds(NamedTuple):
    wall_s: float
    processor_s: float


def timed(function: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - processor)


def speed(model: ModelRef, shared: Path, dtype: str, repetitions: int, most: int | None) -> bool:
    """One table for a precision; returns whether its claims hold (in float32; bfloat16 is reported)."""
    from lark_engine.models import load_model

    student = Student(model, dtype=dtype, device="cpu", top_k=50)
    plain = load_model(model, dtype=dtype, device="cpu")
    holds = True
    for stem, (count, least) in POOLS.items():
        trajectories = load(shared, stem, min(count, most or count), model)
        amount = work(plain, trajectories)
        walls: dict[str, list[Seconds]] = {"oracle": [], "ours": []}
        rates, shares = [], []
        deviation = 0.0
        for _ in range(repetitions):
            expected, seconds = timed(partial(oracle, plain, trajectories))
            walls["oracle"].append(seconds)
            before = matrix_rate(getattr(torch, dtype))
            found, seconds = timed(partial(ours, student, trajectories, BATCH_TOKENS["cpu"]))
            walls["ours"].append(seconds)
            rates.append((before + matrix_rate(getattr(torch, dtype))) / 2)
            shares.append(amount.unique / rates[-1] / seconds.wall_s)
            deviation = max(deviation, float(np.abs(expected - found).max()))
        medians = {
            name: [statistics.median(values) for values in zip(*seconds, strict=True)]
            for name, seconds in walls.items()
        }
        ratio, processor = (medians["oracle"][i] / medians["ours"][i] for i in range(2))
        share = statistics.median(shares)
        unique = int(trajectories.num_response.sum()) + sum(
            {hash_ids(i[:p]): int(p) for i, p in zip(trajectories.ids, trajectories.num_prompt, strict=True)}.values()
        )
        ok = dtype != "float32" or (min(ratio, processor) >= least and share >= LEAST_UTILIZATION)
        holds &= ok
        print(
            f"{stem:<12} {dtype:<9} {len(trajectories.ids):>5} {medians['oracle'][0]:>9.1f} {medians['ours'][0]:>8.1f} "
            f"{ratio:>6.2f}x {processor:>8.2f}x {amount.oracle / amount.unique:>6.2f}x {least:>6.2f}x "
            f"{unique / medians['ours'][0]:>8.0f} {statistics.median(rates) / 1e9:>8.0f} {share:>7.2f} "
            f"{deviation:>10.1e}  {'' if dtype != 'float32' else 'holds' if ok else 'FAILS'}",
            flush=True,
        )
    return holds


def profile(model: ModelRef, shared: Path, dtype: str, most: int | None) -> None:
    """The operations that take the processor's time when our scorer runs, by their own time."""
    student = Student(model, dtype=dtype, device="cpu", top_k=50)
    for stem, (count, _) in POOLS.items():
        trajectories = load(shared, stem, min(count, most or count), model)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            ours(student, trajectories, BATCH_TOKENS["cpu"])
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        print(f"\n{stem} {dtype}: {len(trajectories.ids)} candidates, {total / 1e6:.1f} s")
        for event in events[:12]:
            print(f"  {event.self_cpu_time_total / total:>6.1%} {event.count:>7} calls  {event.key}")


_CHILD = """
import sys
from benchmarks.scoring import peak_in_child
peak_in_child(*sys.argv[1:])
"""


def peak_in_child(model_path: str, scorer: str, num_tokens: str) -> None:
    """Print the peak of resident memory above that with loaded weights, in MB. For a process of its own."""
    from lark_engine.models import load_model

    count = int(num_tokens)
    model = ModelRef(name="student", path=Path(model_path), content="")
    ids = np.random.default_rng(0).integers(0, 49000, count).astype(np.int32)
    short, medium, long = (Trajectories([ids[:n]], np.array([50])) for n in (60, 1200, count))
    with torch.inference_mode():
        if scorer == "oracle":
            plain = load_model(model, dtype="float32", device="cpu")
            run: Callable[[Trajectories], Any] = lambda trajectories: oracle(plain, trajectories)  # noqa: E731
        elif scorer == "ours":
            student = Student(model, dtype="float32", device="cpu", top_k=50)
            run = lambda trajectories: ours(student, trajectories, BATCH_TOKENS["cpu"])  # noqa: E731
        else:
            decoder = load_model(model, dtype="float32", device="cpu").get_decoder()
            run = lambda trajectories: one_layer(decoder, len(trajectories.ids[0]))  # noqa: E731
        run(short)  # libraries and weights are in memory now
        before = _status("VmRSS")
        run(medium)  # and what stays between trajectories: it counts, whichever length is measured
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        run(long)
        print(_status("VmHWM") - before)


def one_layer(decoder: Any, num_tokens: int) -> None:
    """The activations of one layer: the rest of the memory should not depend on the length."""
    embedded = torch.randn(1, num_tokens, decoder.config.hidden_size)  # models of transformers hold it to their end
    positions = torch.arange(num_tokens)[None]
    rotary = decoder.rotary_emb(embedded, position_ids=positions)
    decoder.layers[0](embedded.clone(), position_embeddings=rotary, attention_mask=None)


def _status(field: str) -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / 1e6


def memory(model: ModelRef) -> bool:
    """Peak memory above the weights, MB."""
    root = Path(__file__).resolve().parents[1]

    def peak(scorer: str, num_tokens: int) -> float:
        command = [sys.executable, "-c", _CHILD, str(model.path), scorer, str(num_tokens)]
        # Tensors go back to the system as soon as they are freed: the peak is what was alive at once.
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root, env=env).stdout
        return float(output.strip().splitlines()[-1])

    lengths = (2000, 4000, 8000)
    rows = {name: [peak(name, n) for n in lengths] for name in ("oracle", "ours", "one layer")}
    rest = [mine - layer for mine, layer in zip(rows["ours"], rows["one layer"], strict=True)]
    print(f"\n{'MB above the weights':<34}" + "".join(f"{n:>8} tokens" for n in lengths))
    for name, values in {**rows, "ours without one layer": rest}.items():
        print(f"{name:<34}" + "".join(f"{value:>15.0f}" for value in values))
    share = rows["ours"][-1] / rows["oracle"][-1]
    spread = max(rest) / min(rest) - 1
    ok = share <= MOST_MEMORY and spread <= 2 * FLATNESS
    print(
        f"ours at 8000: {share:.0%} of the oracle's (limit {MOST_MEMORY:.0%}); without one layer's activations it "
        f"varies by ±{spread / 2:.0%} (limit ±{FLATNESS:.0%}): {'holds' if ok else 'FAILS'}"
    )
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--candidates", type=int, help="at most so many of each pool")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        model = resolve_student(str(convert_student(workspace).path), workspace)
        if arguments.profile:
            for dtype in arguments.dtype:
                profile(model, arguments.shared, dtype, arguments.candidates)
            return 0
        print(
            f"{'pool':<12} {'dtype':<9} {'cands':>5} {'oracle s':>9} {'ours s':>8} {'wall':>7} {'processor':>9} "
            f"{'bound':>7} {'limit':>7} {'tokens/s':>8} {'GFLOP/s':>8} {'useful':>7} {'deviation':>10}"
        )
        held = [
            speed(model, arguments.shared, dtype, arguments.repetitions, arguments.candidates)
            for dtype in arguments.dtype
        ]
        held.append(memory(model))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
