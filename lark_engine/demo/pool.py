"""The embedded pool and benchmark as files in the released formats. Same seed, same bytes, on any machine."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

from lark_engine.demo.derivation import work_out, work_out_wrongly
from lark_engine.demo.problems import Parameters, Problem, draw_problems
from lark_engine.demo.teachers import TEACHERS, Teacher
from lark_engine.store.atomic import write_json, write_text

SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."


class DemoFiles(NamedTuple):
    """Where the demo was written."""

    pool_path: Path
    benchmark_path: Path


def write_demo(folder: Path, *, num_problems: int = 24, seed: int = 0, num_benchmark: int = 12) -> DemoFiles:
    """Write `pool.jsonl` and `benchmark.json` into a folder.

    The pool holds one line for each problem and teacher in the released format, without correctness labels, which the
    import computes. No exercise of the benchmark is in the pool. Errors: `StoreError` when nothing can be written.
    """
    files = DemoFiles(folder / "pool.jsonl", folder / "benchmark.json")
    taken: set[Parameters] = set()
    problems = draw_problems(random.Random(f"{seed}/pool"), num_problems, taken)
    rows = [row for number, problem in enumerate(problems) for row in pool_rows(number, problem, seed)]
    benchmark = draw_problems(random.Random(f"{seed}/benchmark"), num_benchmark, taken)
    write_text(files.pool_path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_json(files.benchmark_path, [benchmark_row(problem) for problem in benchmark])
    return files


def pool_rows(problem_id: int, problem: Problem, seed: int) -> list[dict[str, Any]]:
    """The candidates of one problem, one for each teacher, as lines of the released pool format."""
    return [
        {
            "problem_id": problem_id,
            "candidate_id": candidate_id,
            "teacher": teacher.name,
            "messages": [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": problem.text},
                {"role": "assistant", "content": write_up(problem, teacher, f"{seed}/{teacher.name}/{problem_id}")},
            ],
            "answer": problem.answer,
            "level": problem.level,
            "subject": problem.family,
        }
        for candidate_id, teacher in enumerate(TEACHERS)
    ]


def write_up(problem: Problem, teacher: Teacher, seed: str) -> str:
    """What a teacher writes for a problem, with a slip as often as that teacher makes one."""
    rng = random.Random(seed)
    slips = rng.random() < teacher.error_rate
    lines = work_out_wrongly(problem.derivation, rng) if slips else work_out(problem.derivation)
    return teacher.write(problem, lines, rng)


def benchmark_row(problem: Problem) -> dict[str, Any]:
    """One problem in the released benchmark format."""
    return {"prompt": problem.text, "answer": problem.answer, "level": problem.level, "subject": problem.family}
