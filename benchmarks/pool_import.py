"""Claim: importing 165,000 trajectories of 2 kB (5,000 problems × 11 teachers × 3) stays under 1 GB of memory.

    python benchmarks/pool_import.py [--num-problems 5000] [--num-candidates 33] [--num-chars 2000]

Each case runs in a process of its own; the peak is that process's largest resident set. "by teacher" is the hardest
order: every problem is spread over the whole file, so that all of it has to be sorted out of memory.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

LIMIT_MB = 1000
_CHILD = """
import json, pathlib, sys, time
from lark_engine.config import PoolConfig
from lark_engine.pool.importer import import_pool
from lark_engine.store.workspace import Workspace
started = time.monotonic()
pool = import_pool(PoolConfig(source=sys.argv[1], labels="auto"), Workspace(sys.argv[2]))
assert "torch" not in sys.modules
# Not ru_maxrss, which begins with the peak of the process that started this one.
[peak] = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({
    "num_trajectories": pool.manifest.counts["num_trajectories"],
    "wall_s": time.monotonic() - started,
    "peak_mb": int(peak.split()[1]) * 1024 / 1e6,
    "pool_mb": (pool.path / "trajectories.parquet").stat().st_size / 1e6,
}))
"""


def lines(num_problems: int, num_candidates: int, num_chars: int, order: str) -> Iterator[str]:
    """Deterministic pool lines whose text compresses about as English does."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    text = " ".join(rng.choices(words, k=500_000))
    keys = [(p, c) for p in range(num_problems) for c in range(num_candidates)]
    if order == "by teacher":
        keys.sort(key=lambda key: key[1])
    for problem, candidate in keys:
        start = rng.randrange(len(text) - num_chars)
        messages = [
            {"role": "user", "content": f"Problem {problem}: {text[problem : problem + 200]}"},
            {"role": "assistant", "content": text[start : start + num_chars]},
        ]
        row = {"problem_id": problem, "candidate_id": candidate, "teacher": f"teacher-{candidate % 11}"}
        yield json.dumps({**row, "answer": str(problem), "is_correct": candidate % 2 == 0, "messages": messages})


def measure(folder: Path, order: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Write the source, import it in a child process, and return what the child measured."""
    source = folder / f"{order.replace(' ', '_')}.jsonl"
    with source.open("w") as file:
        for line in lines(arguments.num_problems, arguments.num_candidates, arguments.num_chars, order):
            file.write(line + "\n")
    command = [sys.executable, "-c", _CHILD, str(source), str(folder / "workspace")]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result = {**json.loads(output), "source_mb": source.stat().st_size / 1e6}
    source.unlink()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-problems", type=int, default=5000)
    parser.add_argument("--num-candidates", type=int, default=33)
    parser.add_argument("--num-chars", type=int, default=2000)
    arguments = parser.parse_args()
    print(f"{'order':<12} {'rows':>8} {'source MB':>10} {'pool MB':>8} {'wall s':>7} {'peak MB':>8}")
    peak = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for order in ("by problem", "by teacher"):
            r = measure(Path(folder), order, arguments)
            peak = max(peak, r["peak_mb"])
            print(
                f"{order:<12} {r['num_trajectories']:>8.0f} {r['source_mb']:>10.0f} {r['pool_mb']:>8.0f} "
                f"{r['wall_s']:>7.1f} {r['peak_mb']:>8.0f}"
            )
    print(f"peak {peak:.0f} MB, limit {LIMIT_MB} MB: {'holds' if peak < LIMIT_MB else 'FAILS'}")
    return 0 if peak < LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
