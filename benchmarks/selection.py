"""Claims of the selection: slider speed on 5,000 × 33 candidates, 10 million candidates in 2 GB, export in seconds.

    python benchmarks/selection.py [--repetitions 15] [--skip-large]

Medians over repetitions, with the memory settings of the dashboard's server. The oracle solves and counts problem after
problem, as one would write it first; its results must be equal to 1e-12. Cases with a peak run in a process of their
own; the peak is its largest resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from selection_oracle import OracleProblem, oracle

from lark_engine.config import SelectConfig
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.compare import compare
from lark_engine.selection.curves import budget_curves
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.kept import Kept
from lark_engine.serve import SERVER_MEMORY

NUM_TEACHERS = 11
CHANGES = (
    SelectConfig(),
    SelectConfig(budget=8),
    SelectConfig(mode="sharpness", budget=8, sharpness=0.3),
    SelectConfig(mode="sharpness", budget=8, sharpness=3.0),
    SelectConfig(mode="temperature", tau=0.001),
    SelectConfig(mode="temperature", tau=0.01),  # ten times the median tau_3: keeps two thirds of the pool
    SelectConfig(mode="temperature", tau=0.02),  # twenty times: keeps all
    SelectConfig(mode="temperature", tau=0.01, max_budget=4),
    SelectConfig(rule="top_b"),
    SelectConfig(rule="softmax", tau=0.1),
)
CURVES = (
    SelectConfig(),
    SelectConfig(mode="sharpness", sharpness=0.3),
    SelectConfig(mode="sharpness", sharpness=3.0),
    SelectConfig(rule="top_b"),
)


class Row(NamedTuple):
    """One line of the report; `limit` is an upper bound unless `at_least`."""

    what: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.limit is None or (self.value >= self.limit if self.at_least else self.value <= self.limit)

    def __str__(self) -> str:
        bound = "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"
        verdict = "" if self.limit is None else "holds" if self.holds else "FAILS"
        return f"{self.what:<58} {self.value:>10.4g} {self.unit:<4} {bound:>10}  {verdict}"


def scored_table(num_problems: int, num_candidates: int) -> pd.DataFrame:
    """A generated candidate table: scores joined with the pool's index, problems contiguous."""
    rng = np.random.default_rng(0)
    num_rows = num_problems * num_candidates
    row = np.arange(num_rows, dtype=np.int32)
    nll = rng.gamma(4.0, 0.15, num_rows)
    names = pa.array([f"teacher-{i:02d}" for i in range(NUM_TEACHERS)])
    ids = pa.array([str(problem) for problem in range(num_problems)])
    text = pd.StringDtype("pyarrow", na_value=np.nan)
    return pd.DataFrame(
        {
            "row": row,
            "problem_id": pd.Series(ids.take(pa.array(row // num_candidates)), dtype=text),
            "candidate_id": row % num_candidates,
            "teacher": pd.Series(names.take(pa.array(row % num_candidates % NUM_TEACHERS)), dtype=text),
            "nll": nll,
            "brier": nll * rng.uniform(0.4, 0.9, num_rows),
            "num_response_tokens": rng.integers(50, 4000, num_rows, dtype=np.int32),
            "num_prompt_tokens": np.repeat(rng.integers(30, 300, num_problems, dtype=np.int32), num_candidates),
        }
    )


def milliseconds(run: Callable[[], object], repetitions: int) -> float:
    """Median wall time."""
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def ours(frame: SelectionFrame, budget: int, other: Kept) -> dict[str, Any]:
    """The same figures from the frame, under the oracle's names."""
    solution = frame.solve(SelectConfig(budget=budget))
    figures = diagnose(solution)
    comparison = compare(other, solution.kept)
    curves = budget_curves(frame, SelectConfig())
    kept: list[dict[int, float]] = [{} for _ in solution.num_kept_N]
    rows = solution.kept
    columns = rows.key - rows.problem * frame.ranked.num_columns
    for problem, column, q in zip(rows.problem.tolist(), columns.tolist(), rows.prob.tolist(), strict=True):
        kept[problem][column] = q
    utility, teachers = figures["utility"], figures["teachers"]
    assert curves.num_train_tokens[budget - 1] == figures["prompt_tokens"] + figures["response_tokens"]
    assert curves.num_trajectories[budget - 1] == figures["num_trajectories"]
    assert np.isclose(curves.ess[budget - 1], figures["ess"]["mean"], rtol=1e-12, atol=0)
    assert np.isclose(curves.captured[budget - 1], utility["captured"], rtol=1e-12, atol=0)
    return {
        "kept": kept,
        "numbers": {
            "tokens": figures["prompt_tokens"] + figures["response_tokens"], "overlap": comparison["overlap"],
            "change": comparison["weight_change"]["mean"], "num_kept": figures["num_trajectories"],
            "tau": curves.tau[budget - 1], **utility,
            **{f"{name} {part}": figures[name][part] for name in ("ess", "chi2") for part in ("mean", "p10", "p90")},
            **{f"{s} {name}": teachers[name][s] for s in ("pool", "count", "q", "q_tokens") for name in teachers},
        },
    }  # fmt: skip


def deviation(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Largest difference of a weight or a figure, relative where the figure is above 1."""
    assert found["numbers"].keys() == expected["numbers"].keys()
    assert [kept.keys() for kept in found["kept"]] == [kept.keys() for kept in expected["kept"]]
    pairs = [(found["numbers"][name], value) for name, value in expected["numbers"].items()]
    for mine, theirs in zip(found["kept"], expected["kept"], strict=True):
        pairs += [(mine[column], q) for column, q in theirs.items()]
    return max(abs(value - other) / max(abs(other), 1.0) for value, other in pairs)


def slider_rows(repetitions: int) -> Iterator[Row]:
    """Everything that the Tune page does, on 5,000 × 33."""
    table = scored_table(5000, 33)
    candidates = Candidates(table)
    yield Row("candidates: arrays from the joined table", milliseconds(lambda: Candidates(table), repetitions), "ms")
    build = milliseconds(lambda: SelectionFrame(Candidates(table), SelectConfig()), repetitions)
    yield Row("build: arrays, energies, sorting", build, "ms", 50)
    frame = SelectionFrame(candidates, SelectConfig())
    other = frame.solve(SelectConfig(rule="top_b", budget=5)).kept

    def change(config: SelectConfig) -> None:
        solution = frame.solve(config)
        diagnose(solution)
        compare(other, solution.kept)

    for config in CHANGES:
        strength = config.model_dump(include=config.model_fields_set)
        name = "change: " + (", ".join(f"{key} {value}" for key, value in strength.items()) or "defaults")
        yield Row(name, milliseconds(lambda config=config: change(config), repetitions), "ms", 10)
    for config in CURVES:
        fresh = [SelectionFrame(candidates, config) for _ in range(repetitions)]
        name = f"all-B curves: {config.rule}, s = {config.sharpness:g}"
        yield Row(
            name,
            milliseconds(lambda fresh=fresh, config=config: budget_curves(fresh.pop(), config), repetitions),
            "ms",
            30,
        )
    without = SelectConfig(exclude_teachers=("teacher-03",))
    edit = milliseconds(lambda: diagnose(SelectionFrame(candidates, without).solve(without)), repetitions)
    yield Row("pool edit: exclude a teacher, g_hat anew, solve, diagnose", edit, "ms", 60)
    for config in (SelectConfig(max_teacher_share=0.0915), SelectConfig(max_train_tokens=20_000_000)):
        limit = config.max_teacher_share or config.max_train_tokens
        name = f"constraint: {'share' if config.max_teacher_share else 'tokens'} {limit:,}"
        yield Row(name, milliseconds(lambda config=config: frame.solve(config), max(repetitions // 3, 1)), "ms")
    yield from _oracle_rows(candidates, frame, other, repetitions)


def _oracle_rows(candidates: Candidates, frame: SelectionFrame, other: Kept, repetitions: int) -> Iterator[Row]:
    names = candidates.teachers
    others: list[dict[int, float]] = [{} for _ in range(candidates.shape[0])]
    for problem, key, q in zip(other.problem.tolist(), other.key.tolist(), other.prob.tolist(), strict=True):
        others[problem][key % candidates.shape[1]] = q
    problems = [
        OracleProblem(energy, [names[code] for code in codes], prompt, response, kept)
        for energy, codes, prompt, response, kept in zip(
            frame.energy_NK, candidates.teacher_NK.tolist(),
            candidates.stat_NK("num_prompt_tokens").astype(int).tolist(),
            candidates.stat_NK("num_response_tokens").astype(int).tolist(), others, strict=True,
        )
    ]  # fmt: skip

    def fast(budget: int) -> None:
        solution = frame.solve(SelectConfig(budget=budget))
        diagnose(solution)
        compare(other, solution.kept)

    slow_ms = {budget: milliseconds(lambda budget=budget: oracle(problems, budget), 3) for budget in (1, 3, 16, 32)}
    for budget in (3, 16):
        yield Row(f"oracle, one problem after the other: B = {budget}", slow_ms[budget], "ms")
        fast_ms = milliseconds(lambda budget=budget: fast(budget), repetitions)
        limit = 100 if budget == SelectConfig().budget else None
        yield Row(f"faster than the oracle: B = {budget}", slow_ms[budget] / fast_ms, "x", limit, at_least=True)
        difference = deviation(ours(frame, budget, other), oracle(problems, budget))
        yield Row(f"largest deviation from the oracle: B = {budget}", difference, "", 1e-12)
    # Every B at once, with the oracle's time for 1, 3, 16 and 32 standing for all.
    oracle_ms = candidates.shape[1] * float(np.mean(list(slow_ms.values())))
    curves_ms = milliseconds(
        lambda: budget_curves(SelectionFrame(candidates, SelectConfig()), SelectConfig()), repetitions
    )
    yield Row("faster than the oracle: all B, sorting included", oracle_ms / curves_ms, "x", 100, at_least=True)


def large_case() -> dict[str, float]:
    """One selection from 10 million candidates, in this process."""
    table = scored_table(303_030, 33)
    started = time.perf_counter()
    candidates = Candidates(table)
    arrays = time.perf_counter()
    frame = SelectionFrame(candidates, SelectConfig())
    diagnose(frame.solve(SelectConfig()))
    done = time.perf_counter()
    return {"arrays_s": arrays - started, "wall_s": done - started, "peak_mb": peak_mb()}


def export_case(workspace: Path) -> dict[str, float]:
    """Write and rewrite the training file of the selection that lies in a workspace, in this process."""
    from lark_engine.pool.dataset import PoolData
    from lark_engine.selection.export import export, write_train_file
    from lark_engine.selection.select import TRAIN
    from lark_engine.store.workspace import Workspace

    [pool] = Workspace(workspace).list("pools")
    [selection] = Workspace(workspace).list("selections")
    kept = pd.read_parquet(selection.path / "kept.parquet")
    started = time.perf_counter()
    write_train_file(selection.path / TRAIN, kept, pool, SelectConfig(), PoolData(pool).id_type)
    written = time.perf_counter()
    export(selection.path / TRAIN, workspace / "out.jsonl", "prompt-completion")
    done = time.perf_counter()
    size = (selection.path / TRAIN).stat().st_size / 1e6
    return {
        "train_s": written - started, "export_s": done - written,
        "peak_mb": peak_mb(), "file_mb": size,
    }  # fmt: skip


def make_export_case(workspace: Path, num_trajectories: int) -> None:
    """A pool of three candidates of 20 kB a kept one, and a selection of every third row."""
    from lark_engine.pool.staging import TRAJECTORIES, write_pool
    from lark_engine.store.workspace import Draft, Plan, Workspace

    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 10))) for _ in range(5000)]
    text = " ".join(rng.choice(words, 200_000))

    def rows() -> Iterator[dict[str, Any]]:
        for row in range(3 * num_trajectories):
            start = int(rng.integers(len(text) - 20_000))
            yield {
                "problem_id": str(row // 9), "candidate_id": row % 9, "teacher": f"teacher-{row % 3}",
                "prompt": json.dumps([{"role": "user", "content": f"Problem {row // 9}"}]),
                "response": text[start : start + 20_000], "answer": None, "is_correct": None, "label_reason": None,
                "extra": None, "response_hash": row, "num_chars": 20_000,
            }  # fmt: skip

    def make_pool(draft: Draft) -> None:
        write_pool(draft.path / TRAJECTORIES, rows())
        draft.metrics = {"id_type": "int"}

    def make_selection(draft: Draft) -> None:
        row = np.arange(0, 3 * num_trajectories, 3)
        kept = pd.DataFrame({"row": row, "energy": 0.1, "rank": 1, "selection_prob": 1 / 3})
        kept.to_parquet(draft.path / "kept.parquet")

    store = Workspace(workspace)
    store.build(Plan(kind="pools", name="generated", fingerprint="0", config={}), make_pool)
    store.build(Plan(kind="selections", name="generated", fingerprint="0", config={}), make_selection)


def peak_mb() -> float:
    """The largest resident set since this program started; `ru_maxrss` would begin with that of its parent."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


def in_child(case: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", case, *arguments]
    env = {name: value for name, value in os.environ.items() if name not in SERVER_MEMORY}
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout)


def large_rows() -> Iterator[Row]:
    """10 million candidates, and exports of 5,000 and 15,000 trajectories, each in a process of its own."""
    large = in_child("large")
    yield Row("10 million candidates: arrays from the joined table", large["arrays_s"], "s")
    yield Row("10 million candidates: arrays, build, solve, diagnose", large["wall_s"], "s", 3)
    yield Row("10 million candidates: peak memory", large["peak_mb"], "MB", 2000)
    peaks = []
    for num_trajectories in (5000, 15_000):
        with tempfile.TemporaryDirectory() as folder:
            make_export_case(Path(folder), num_trajectories)
            result = in_child("export", "--workspace", folder)
        name = f"export of {num_trajectories:,} × 20 kB"
        yield Row(f"{name}: train.jsonl ({result['file_mb']:.0f} MB)", result["train_s"], "s", 10)
        yield Row(f"{name}: as prompt-completion", result["export_s"], "s", 10)
        yield Row(f"{name}: peak memory", result["peak_mb"], "MB", 500)
        peaks.append(result["peak_mb"])
    yield Row("export: peak memory of 15,000 over that of 5,000", peaks[1] / peaks[0], "x", 1.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--skip-large", action="store_true", help="only the slider's figures")
    parser.add_argument("--case", choices=("large", "export"), help=argparse.SUPPRESS)
    parser.add_argument("--workspace", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(large_case() if arguments.case == "large" else export_case(arguments.workspace)))
        return 0
    if not os.environ.keys() >= SERVER_MEMORY.keys():  # the C library reads them when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SERVER_MEMORY})
    print(f"{'5,000 problems × 33 candidates':<58} {'measured':>10} {'':<4} {'limit':>10}")
    holds = True
    rows = [slider_rows(arguments.repetitions)] + ([] if arguments.skip_large else [large_rows()])
    for part in rows:
        for row in part:
            print(row, flush=True)
            holds &= row.holds
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
