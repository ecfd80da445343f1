from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lark_engine.errors import PoolError
from lark_engine.evaluation.benchmarks import REGISTRY, family_of, load_benchmark, system_prompt_of


def write(path: Path, rows: Any) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.mark.parametrize(
    ("label", "answer_type", "prompt"),
    [
        ("AIME", "number", "math.txt"),
        ("aime_2026", "number", "math.txt"),
        ("AMC", "number", "math.txt"),
        ("MATH-500", "auto", "math.txt"),
        ("MATH-L3", "auto", "math.txt"),
        ("GSM8K", "number", "math.txt"),
        ("MMLU-STEM", "letter", "multiple_choice.txt"),
        ("my own list", "auto", "math.txt"),
        ("mathematics", "auto", "math.txt"),
    ],
)
def test_names_say_how_a_benchmark_is_asked(label: str, answer_type: str, prompt: str) -> None:
    family = family_of(label)
    assert (family.answer_type, family.prompt) == (answer_type, prompt)


def test_every_family_ships_a_prompt_that_asks_for_a_box() -> None:
    for family in REGISTRY.values():
        assert r"\boxed{}" in system_prompt_of(family)


def test_real_benchmarks_load(shared_dir: Path) -> None:
    found = {f.stem: load_benchmark(str(f)) for f in (shared_dir / "data" / "benchmarks").glob("*.json")}
    assert {name: len(b.problems) for name, b in sorted(found.items())} == {
        "AIME": 30, "AMC": 40, "GSM8K": 1000, "MATH-L1": 43, "MATH-L2": 90, "MATH-L3": 105, "MATH-L4": 128,
        "MATH-L5": 134, "MMLU-STEM": 300,
    }  # fmt: skip
    level_five = found["MATH-L5"].problems[0]
    assert (level_five.problem_id, level_five.level, level_five.subject) == ("0", "5", "Intermediate Algebra")
    assert found["MMLU-STEM"].answer_type == "letter"
    assert found["MATH-L5"].name == "math-l5"


def test_rows_may_use_aliases_numbers_and_their_own_ids(tmp_path: Path) -> None:
    rows = [{"problem": "1+1?", "answer": 2, "id": "p7", "level": "Level 3"}, {"prompt": "2+2?", "answer": "4"}]
    benchmark = load_benchmark(write(tmp_path / "mine.json", rows))
    assert [(p.problem_id, p.prompt, p.reference, p.level) for p in benchmark.problems] == [
        ("p7", "1+1?", "2", "3"),
        ("1", "2+2?", "4", None),
    ]


def test_jsonl_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a\\u2028b", "answer": "1"}\n\n{"prompt": "c", "answer": "2"}\n')
    assert len(load_benchmark(str(path)).problems) == 2
    path.write_text('{"prompt": "a", "answer": "1"}\n{"prompt": }\n')
    with pytest.raises(PoolError, match=r"mine\.jsonl:2: not valid JSON"):
        load_benchmark(str(path))


def test_content_is_of_the_problems_and_not_of_the_path(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}]
    one, other = (load_benchmark(write(tmp_path / f"{n}.json", rows)) for n in ("one", "other"))
    assert one.content == other.content
    assert load_benchmark(str(tmp_path / "one.json"), limit=1).content != one.content
    assert load_benchmark(str(tmp_path / "one.json"), limit=9).content == one.content


def test_a_file_can_be_given_the_name_of_a_benchmark(tmp_path: Path) -> None:
    path = write(tmp_path / "test.json", [{"prompt": "a", "answer": "B"}])
    benchmark = load_benchmark(f"MMLU-STEM={path}")
    assert (benchmark.name, benchmark.answer_type) == ("mmlu-stem", "letter")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "problem 1: is str, not an object"),
        ({"answer": "1"}, "problem 1: has no prompt"),
        ({"prompt": " ", "answer": "1"}, "problem 1: has no prompt"),
        ({"prompt": "a"}, "problem 1: has no answer"),
        ({"prompt": "a", "answer": None}, "problem 1: has no answer"),
        ({"prompt": "a", "answer": "1", "id": 0}, "problem 1: its id '0' is used before"),
    ],
)
def test_a_bad_row_is_refused_with_its_index_and_reason(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "bad.json", [{"prompt": "good", "answer": "1"}, row])
    with pytest.raises(PoolError, match=message):
        load_benchmark(path)


def test_names_without_a_file_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="not shipped"):
        load_benchmark("AIME")
    with pytest.raises(PoolError, match="did you mean 'GSM8K'"):
        load_benchmark("GSM8")
    with pytest.raises(PoolError, match="no such benchmark file"):
        load_benchmark(str(tmp_path / "absent.json"))
    with pytest.raises(PoolError, match="holds no problem"):
        load_benchmark(write(tmp_path / "empty.json", []))
    with pytest.raises(PoolError, match="holds dict"):
        load_benchmark(write(tmp_path / "dict.json", {}))
