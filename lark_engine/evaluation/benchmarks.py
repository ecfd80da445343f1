"""Benchmarks: what is asked, what the answer is, and how an answer is asked for.

Problems come from a file of the user's, or from what `fetch` put into the workspace. The registry knows how those of
known names are asked; a file may say it for itself. The system prompt is the benchmark's and never depends on the
model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lark_engine.config import StageConfig
from lark_engine.config.base import option
from lark_engine.errors import PoolError, did_you_mean
from lark_engine.evaluation.extract import AnswerType
from lark_engine.evaluation.registry import Entry, entry_for_file, entry_named, key, registry, system_prompt_of
from lark_engine.pool.rejections import excerpt
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import MANIFEST, Artifact, Workspace, read_json, slug

# The problems of a fetched benchmark, as any other benchmark file.
PROBLEMS_FILE = "problems.json"
_PROMPT_KEYS = ("prompt", "problem", "question")
_ID_KEYS = ("problem_id", "id")
_MOST_LISTED = 10


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
    """A list of problems and how they are asked.

    `content` is the fingerprint of the problems; `source` is what `load_benchmark` takes for it from any folder;
    `artifact` is set for one that was fetched into the workspace.
    """

    name: str
    problems: tuple[Problem, ...]
    system_prompt: str
    answer_type: AnswerType
    content: str
    source: str
    artifact: Artifact | None = None


@dataclass(frozen=True, kw_only=True)
class RejectedRow:
    """A row that is no problem: its index from 0, a slug to count by, what is wrong, and what to do."""

    index: int
    reason: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.index}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class BenchmarkFile:
    """A benchmark as its file has it: the sound problems, and the rows that are none."""

    path: Path
    label: str
    artifact: Artifact | None
    entry: Entry | None
    answer_type: AnswerType
    system_prompt: str
    problems: tuple[Problem, ...]
    rejected: tuple[RejectedRow, ...]


class FileForm(StageConfig):
    """A benchmark file that is an object: how its problems are asked stands beside them, and wins over the registry."""

    name: str | None = option(None, "the benchmark's name, with which the registry may know it", min_length=1)
    answer_type: AnswerType | None = option(None, "how answers are extracted and graded")
    system_prompt: str | None = option(None, "system prompt; '' = none")
    problems: list[Any] = option(..., "the rows")


class BadRow(Exception):
    """Why a row is no problem; becomes a `RejectedRow` where its index is known."""

    def __init__(self, reason: str, problem: str, remedy: str):
        self.reason, self.problem, self.remedy = reason, problem, remedy

    def at(self, index: int) -> RejectedRow:
        return RejectedRow(index=index, reason=self.reason, problem=self.problem, remedy=self.remedy)


def load_benchmark(name_or_path: str, *, limit: int | None = None, workspace: Workspace | None = None) -> Benchmark:
    """Read a benchmark: a file, `NAME=FILE`, or the name or id of one that was fetched into the workspace.

    A file is JSON (a list of `{prompt | problem | question, answer, problem_id | id?, level?, subject?}`, or an object
    of `FileForm`) or JSONL. `NAME=FILE` gives it another name, and with it the way of asking:
    `AIME=aime_2026_i.json`. `limit` keeps the first so many problems.
    Errors: `PoolError` for a missing file or a name that is not fetched, and for bad rows (how many, and the first by
    index and reason); `ConfigError` for a wrong key beside the problems; `StoreError` for damaged JSON.
    """
    found = read_benchmark(name_or_path, workspace)
    if found.rejected:
        raise PoolError(_bad_rows(found))
    problems = found.problems[:limit]
    return Benchmark(
        name=slug(found.label), problems=problems, system_prompt=found.system_prompt, answer_type=found.answer_type,
        content=content_of(problems), artifact=found.artifact,
        source=found.artifact.id if found.artifact else f"{found.label}={found.path.absolute()}",
    )  # fmt: skip


def read_benchmark(name_or_path: str, workspace: Workspace | None = None) -> BenchmarkFile:
    """The same with the bad rows instead of an error for them. Errors: those of `load_benchmark` for all else."""
    place = _locate(name_or_path, workspace)
    path, form = place.path, _read_form(place.path)
    label = place.label or form.name or path.stem
    entry = entry_for_file(label)
    answer_type = form.answer_type or (entry.answer_type if entry else "auto")
    prompt = system_prompt_of(entry, answer_type) if form.system_prompt is None else form.system_prompt
    problems, rejected = read_problems(form.problems)
    if not problems and not rejected:
        raise PoolError(f"{path}: holds no problem; a benchmark is a list of {{prompt, answer}}")
    return BenchmarkFile(
        path=path, label=label, artifact=place.artifact, entry=entry, answer_type=answer_type, system_prompt=prompt,
        problems=problems, rejected=rejected,
    )  # fmt: skip


def file_of(name_or_path: str, workspace: Workspace | None = None) -> Path:
    """The file that `load_benchmark` would read. Errors: `PoolError` when there is none, `StoreError` as `fetched`."""
    return _locate(name_or_path, workspace).path


def content_of(problems: Iterable[Problem]) -> str:
    """The fingerprint of problems, wherever they lie."""
    return fingerprint([asdict(problem) for problem in problems])


def fetched(name: str, workspace: Workspace) -> Artifact | None:
    """The benchmark of the workspace with this registry name, alias, id or folder; None when there is none.

    Errors: `StoreError` when a name was fetched at several commits, with their ids.
    """
    entry = entry_named(name)
    wanted = slug(entry.name) if entry else name
    known = [(a.name, a.id, a.fingerprint) for a in workspace.list("benchmarks")]
    if any(wanted in names for names in known):
        return workspace.resolve("benchmarks", wanted)
    folder = Path(name).expanduser()
    return workspace.resolve("benchmarks", str(folder)) if (folder / MANIFEST).is_file() else None


def without_workspace(name_or_path: str, workspace: Workspace) -> str:
    """What `load_benchmark` takes for the same benchmark where no workspace is known."""
    artifact = None if Path(name_or_path).expanduser().is_file() else fetched(name_or_path, workspace)
    return str(artifact.path / PROBLEMS_FILE) if artifact else name_or_path


class _Place(NamedTuple):
    """The file that is meant, the name that the user gives it if any, and the artifact that it is of."""

    path: Path
    label: str | None = None
    artifact: Artifact | None = None


def _locate(name_or_path: str, workspace: Workspace | None) -> _Place:
    if (path := Path(name_or_path).expanduser()).is_file():
        return _Place(path)
    if workspace and (artifact := fetched(name_or_path, workspace)):
        return _Place(artifact.path / PROBLEMS_FILE, artifact=artifact)
    parts = name_or_path.split("=")  # a path may hold the sign, too
    for i in range(1, len(parts)):
        if (path := Path("=".join(parts[i:])).expanduser()).is_file():
            return _Place(path, label="=".join(parts[:i]))
    file = name_or_path.partition("=")[2]
    if entry := entry_named(name_or_path):
        raise PoolError(
            f"{entry.name} is not in the workspace; fetch it with `lark benchmarks fetch {entry.name}`, or give its "
            f"file: {entry.name}=path/to/file.json"
        )
    alike = [known for known in registry() if key(known).startswith(key(name_or_path))]
    hint = f"; known are: {', '.join(alike)}" if len(alike) > 1 else did_you_mean(name_or_path, registry())
    hint = "" if Path(name_or_path).suffix else hint
    raise PoolError(f"{file or name_or_path}: no such benchmark file (JSON or JSONL), and no benchmark's name{hint}")


def _read_form(path: Path) -> FileForm:
    if path.suffix in {".jsonl", ".ndjson"}:
        return FileForm(problems=list(_lines(path)))
    content = read_json(path)
    if isinstance(content, list):
        return FileForm(problems=content)
    if isinstance(content, dict) and isinstance(content.get("problems"), list):
        return FileForm.parse(content, str(path))
    raise PoolError(
        f"{path}: holds {type(content).__name__} without a list of problems; a benchmark is a JSON list of "
        "{prompt, answer}, or an object with that list under 'problems'"
    )


def _lines(path: Path) -> Iterator[Any]:
    """The values of a JSONL file; in place of a line that is none, the `BadRow` of it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PoolError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                place = f"line {number}, column {error.colno}"
                yield BadRow("not_json", f"is not valid JSON ({error.msg}, {place})", "write one object a line")
            except (ValueError, RecursionError):
                what = f"is nested too deep, or has a number too long (line {number})"
                yield BadRow("not_json", what, "write one object a line")


def read_problems(rows: Iterable[Any]) -> tuple[tuple[Problem, ...], tuple[RejectedRow, ...]]:
    """The problems among rows, and the rows that are none. A row's index is its id where it has no id of its own."""
    problems: dict[str, Problem] = {}
    rejected = []
    for index, row in enumerate(rows):
        try:
            problem = _problem(row, index)
            if problem.problem_id in problems:
                what = f"its id {excerpt(problem.problem_id)!r} is used before"
                raise BadRow("repeated_id", what, "give each problem its own id")
            problems[problem.problem_id] = problem
        except BadRow as bad:
            rejected.append(bad.at(index))
    return tuple(problems.values()), tuple(rejected)


def _problem(row: Any, index: int) -> Problem:
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, dict):
        raise BadRow("not_an_object", f"is {type(row).__name__}, not an object", "give {prompt, answer}")
    prompt, answer = _first(row, _PROMPT_KEYS), _text(row.get("answer"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadRow("no_prompt", "has no prompt", f"give its text under one of {', '.join(_PROMPT_KEYS)}")
    if answer is None or isinstance(row["answer"], bool):
        raise BadRow("no_answer", "has no answer", "give text or a number under 'answer'")
    problem = Problem(
        problem_id=_text(_first(row, _ID_KEYS)) or str(index), prompt=prompt, reference=answer,
        level=_level(row.get("level")), subject=_text(row.get("subject")),
    )  # fmt: skip
    if not _is_unicode(*asdict(problem).values()):
        raise BadRow("not_unicode", "holds half of a character (a lone surrogate)", "write the text as UTF-8")
    return problem


def _first(row: dict[str, Any], keys: Iterable[str]) -> Any:
    return next((row[name] for name in keys if row.get(name) is not None), None)


def _level(value: Any) -> str | None:
    """`Level 5`, `5`, 5 and 5.0 are one level."""
    text = _text(value)
    return re.sub(r"^level\s+", "", text, flags=re.IGNORECASE) if text else None


def _text(value: Any) -> str | None:
    """Text or a finite number as text, without space around it (27.0 is 27); None for anything else, and for none."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    return (str(value).strip() or None) if isinstance(value, str | int | float) else None


def _is_unicode(*texts: str | None) -> bool:
    try:
        "".join(text or "" for text in texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_rows(found: BenchmarkFile) -> str:
    """All bad rows in one sentence: the first with its remedy, how many there are, and which."""
    first, count = found.rejected[0], len(found.rejected)
    message = f"{found.path}: problem {first.index}: {first.problem}; {first.remedy}"
    if count == 1:
        return message
    listed = "; ".join(map(str, found.rejected[:_MOST_LISTED]))
    more = f"; and {count - _MOST_LISTED} more" if count > _MOST_LISTED else ""
    total = count + len(found.problems)
    return f"{message}. {count} of {total} rows are bad: {listed}{more}. `lark benchmarks check` lists all of them"
