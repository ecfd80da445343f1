"""A small pool and a small benchmark for the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

QUESTIONS = ["What is 1 + 1?", "What is 2 + 2?", "What is 3 + 3?"]


@pytest.fixture
def pool_path(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    with path.open("w") as file:
        for problem, question in enumerate(QUESTIONS):
            for candidate, teacher in enumerate(["a", "b", "c", "d"]):
                text = f"so {'well ' * candidate}the answer is \\boxed{{{2 * problem + 2}}}"
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
                row = {"problem_id": problem, "candidate_id": candidate, "teacher": teacher, "messages": messages}
                file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def benchmark_path(tmp_path: Path) -> Path:
    path = tmp_path / "problems.json"
    path.write_text(json.dumps([{"prompt": q, "answer": str(2 * i + 2)} for i, q in enumerate(QUESTIONS)]))
    return path
