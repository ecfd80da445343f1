"""train.jsonl in both formats: exact texts, and files that the `datasets` library opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import PoolConfig, SelectConfig
from lark_engine.pool.importer import import_pool
from lark_engine.selection.export import export
from lark_engine.selection.released import import_scores
from lark_engine.selection.select import TRAIN, select
from lark_engine.store.workspace import Artifact, Workspace

# Line separators of Unicode, and what JSON must escape, inside a text.
TEXT = 'Say "x"\u2028\u2029\x85 \\boxed{½}\r\n\ttab 数学 🎓'


@pytest.fixture
def selection(workspace: Workspace, tmp_path: Path) -> Artifact:
    source, scores = tmp_path / "pool.jsonl", tmp_path / "lark_ghat.json"
    with source.open("w", encoding="utf-8") as file:
        for problem in range(3):
            for number in range(3):
                prompt = [{"role": "system", "content": "Be short."}] if problem == 0 else []
                prompt.append({"role": "user", "content": f"Q{problem}"})
                messages = [*prompt, {"role": "assistant", "content": f"{TEXT} {problem} {number}"}]
                row = {"problem_id": problem, "candidate_id": number, "teacher": "ab"[number % 2], "messages": messages}
                file.write(json.dumps(row) + "\n")
    values = {
        str(problem): [{"candidate_id": n, "teacher": "a", "L": 1.0, "Brier": 0.5 - 0.1 * n} for n in range(3)]
        for problem in range(3)
    }
    scores.write_text(json.dumps({"method": "lark_ghat", "student_model": "s", "top_k": 50, "scores": values}))
    pool = import_pool(PoolConfig(source=str(source)), workspace)
    return select(SelectConfig(budget=2), workspace, import_scores(scores, workspace, pool), pool)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode().removesuffix("\n").split("\n")]


def test_messages_are_the_file_of_the_selection(selection: Artifact, tmp_path: Path) -> None:
    export(selection.path / TRAIN, tmp_path / "out" / "train.jsonl")
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == (selection.path / TRAIN).read_bytes()
    first = rows(selection.path / TRAIN)[0]
    assert [turn["role"] for turn in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"][-1]["content"] == f"{TEXT} 0 0"


def test_prompt_completion_is_the_conversational_format_of_trl(selection: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "pc.jsonl"
    export(selection.path / TRAIN, path, "prompt-completion")
    released = rows(selection.path / TRAIN)
    written = rows(path)
    assert len(written) == len(released) == 6
    for row, other in zip(written, released, strict=True):
        assert row.keys() == {"prompt", "completion", "meta"}
        assert row["prompt"] + row["completion"] == other["messages"]
        assert [turn["role"] for turn in row["completion"]] == ["assistant"]
        assert row["meta"] == other["meta"]


@pytest.mark.parametrize("train_format", ["messages", "prompt-completion"])
def test_the_file_opens_in_the_datasets_library(selection: Artifact, tmp_path: Path, train_format: Any) -> None:
    import datasets

    path = tmp_path / "train.jsonl"
    export(selection.path / TRAIN, path, train_format)
    data = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["meta"]["train_weight"] for row in data] == [row["meta"]["train_weight"] for row in rows(path)]
    last = data[0]["messages"][-1] if train_format == "messages" else data[0]["completion"][0]
    assert last == {"role": "assistant", "content": f"{TEXT} 0 0"}
    assert data.num_rows == 6


def test_a_failed_export_leaves_nothing(selection: Artifact, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{")
    with pytest.raises(json.JSONDecodeError):
        export(broken, tmp_path / "out.jsonl", "prompt-completion")
    assert sorted(p.name for p in tmp_path.glob("*out.jsonl*")) == []
