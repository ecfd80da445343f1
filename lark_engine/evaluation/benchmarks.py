"""Benchmarks: what is asked, what the answer is, and how an answer is asked for.

Problems come from the user's files; the registry knows how those of known names are answered. The system prompt is
the benchmark's and never depends on the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lark_engine.errors import PoolError, did_you_mean
from lark_engine.evaluation.extract import AnswerType
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import read_json, slug


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the benchmarks whose file stem matches `pattern` are asked and answered."""

    pattern: str
    answer_type: AnswerType
    prompt: str
    level_field: str = "level"
    subject_field: str = "subject"


REGISTRY: dict[str, Family] = {
    "AIME": Family(pattern=r"aime[-_]?(20)?\d*", answer_type="number", prompt="math.txt"),
    "AMC": Family(pattern=r"amc[-_]?(20)?\d*", answer_type="number", prompt="math.txt"),
    "MATH-500": Family(pattern=r"math[-_]?500", answer_type="auto", prompt="math.txt"),
    "MATH": Family(pattern=r"math([-_]?l[1-5])?", answer_type="auto", prompt="math.txt"),
    "GSM8K": Family(pattern=r"gsm8k", answer_type="number", prompt="math.txt"),
    "MMLU-STEM": Family(pattern=r"mmlu[-_]?stem", answer_type="letter", prompt="multiple_choice.txt"),
}
_OTHER = Family(pattern="", answer_type="auto", prompt="math.txt")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with its reference answer; level and subject as text, None where the file has none."""

    problem_id: str
    prompt: str
    reference: str
    level: str | None = None
    subject: str | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A list of problems and how they are asked. `content` is the fingerprint of the problems."""

    name: str
    problems: tuple[Problem, ...]
    system_prompt: str
    answer_type: AnswerType
    content: str


def load_benchmark(name_or_path: str, *, limit: int | None = None) -> Benchmark:
    """Read a benchmark from a JSON list or JSONL file of `{prompt | problem, answer, level?, subject?}`.

    `NAME=FILE` gives a file another name, and with it the way of asking: `AIME=aime_2026_i.json`. `limit` keeps the
    first so many problems.
    Errors: `PoolError` for a missing file and for a bad row, with its index and what is wrong with it.
    """
    label, path = _name_and_path(name_or_path)
    family = family_of(label)
    problems = tuple(_problems(path, family))[:limit]
    if not problems:
        raise PoolError(f"{path}: holds no problem; a benchmark is a list of {{prompt, answer}}")
    return Benchmark(
        name=slug(label), problems=problems, system_prompt=system_prompt_of(family), answer_type=family.answer_type,
        content=fingerprint([asdict(problem) for problem in problems]),
    )  # fmt: skip


def family_of(label: str) -> Family:
    """The registry entry whose pattern the whole label matches, or the one for other lists of problems."""
    return next((f for f in REGISTRY.values() if re.fullmatch(f.pattern, label, re.IGNORECASE)), _OTHER)


def system_prompt_of(family: Family) -> str:
    """The family's system prompt, as shipped."""
    return (resources.files("lark_engine") / "recipes" / "prompts" / family.prompt).read_text(encoding="utf-8").strip()


def _name_and_path(name_or_path: str) -> tuple[str, Path]:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path.stem, path
    name, separator, file = name_or_path.partition("=")
    if separator and (path := Path(file).expanduser()).is_file():
        return name, path
    if family_of(name_or_path) is not _OTHER:
        raise PoolError(
            f"'{name_or_path}' is known, but its problems are not shipped with LARK Studio; give their file, "
            f"such as path/to/{name_or_path}.json"
        )
    hint = "" if path.suffix else did_you_mean(name_or_path, REGISTRY)
    raise PoolError(f"{file or name_or_path}: no such benchmark file (a JSON list or JSONL){hint}")


def _problems(path: Path, family: Family) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, row in enumerate(_rows(path)):
        where = f"{path}: problem {index}"
        if not isinstance(row, dict):
            raise PoolError(f"{where}: is {type(row).__name__}, not an object with prompt and answer")
        problem = _problem(row, index, where, family)
        if problem.problem_id in seen:
            raise PoolError(f"{where}: its id {problem.problem_id!r} is used before; give each problem its own id")
        seen.add(problem.problem_id)
        yield problem


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix != ".jsonl":
        rows = read_json(path)
        if not isinstance(rows, list):
            raise PoolError(f"{path}: holds {type(rows).__name__}; a benchmark is a JSON list of {{prompt, answer}}")
        yield from rows
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PoolError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise PoolError(f"{path}:{number}: not valid JSON: {error.msg} at column {error.colno}") from error


def _problem(row: dict[str, Any], index: int, where: str, family: Family) -> Problem:
    prompt = row.get("prompt", row.get("problem"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise PoolError(f"{where}: has no prompt; give its text under 'prompt' (or 'problem')")
    answer = row.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise PoolError(f"{where}: has no answer; give text or a number under 'answer'")
    given = next((row[key] for key in ("problem_id", "id") if row.get(key) is not None), index)
    return Problem(
        problem_id=str(given), prompt=prompt, reference=str(answer).strip(),
        level=_level(row.get(family.level_field)), subject=_text(row.get(family.subject_field)),
    )  # fmt: skip


def _level(value: Any) -> str | None:
    """`Level 5`, `5` and 5 are one level."""
    text = _text(value)
    return re.sub(r"^level\s+", "", text, flags=re.IGNORECASE) if text else None


def _text(value: Any) -> str | None:
    return None if value is None or not str(value).strip() else str(value).strip()
