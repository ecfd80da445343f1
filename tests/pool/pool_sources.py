"""Rows and bytes of small sources."""

from __future__ import annotations

import json
from typing import Any


def pool_row(problem_id: Any = 0, candidate_id: Any = 0, **fields: Any) -> dict[str, Any]:
    """A sound row; a field given as None is left out."""
    row = {
        "problem_id": problem_id,
        "candidate_id": candidate_id,
        "teacher": "alpha",
        "messages": [
            {"role": "user", "content": f"What is {problem_id} + 1?"},
            {"role": "assistant", "content": f"It is \\boxed{{{candidate_id}}}."},
        ],
    }
    return {key: value for key, value in {**row, **fields}.items() if value is not None}


def jsonl(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
