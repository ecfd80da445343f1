"""The files of a bundle as they go out: tables with their numbers untouched, rows of JSON without what is withheld."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lark_engine.errors import StoreError
from lark_engine.sharing import withheld
from lark_engine.sharing.bundle_format import WITHHELD
from lark_engine.sharing.leaving import Leaving
from lark_engine.sharing.withheld import AnswerClasses, Texts
from lark_engine.store.rows import read_rows

Write = Callable[[IO[bytes]], None]
_NAMES = ("problem_id", "teacher")
_SAMPLE_FIELDS = ("problem_id", "sample_index", "finish_reason", "num_tokens", "seed")
_PROBLEM_FIELDS = ("problem_id", "level", "subject")
_REFUSAL_FIELDS = ("place", "index", "reason", "field", "remedy")


def pool_table(source: Path, leaving: Leaving, texts: Texts) -> Write:
    """The pool: every number, and the texts of the problems that were chosen."""

    def change(table: pa.Table) -> pa.Table:
        goes_out = [texts.of_pool(problem_id) for problem_id in table["problem_id"].to_pylist()]
        prompts: dict[tuple[str, bool], str] = {}
        columns = {name: table[name].to_pylist() for name in ("prompt", "response", "answer", "extra", "label_reason")}
        for place, whole in enumerate(goes_out):
            prompt, said = columns["prompt"][place], columns["response"][place]
            if (prompt, whole) not in prompts:
                prompts[prompt, whole] = _prompt(prompt, leaving, whole=whole)
            columns["prompt"][place] = prompts[prompt, whole]
            columns["response"][place] = leaving.text(said) if whole else withheld.response(said)
            answer, extra = columns["answer"][place], columns["extra"][place]
            if answer is not None:
                columns["answer"][place] = leaving.text(answer) if whole else WITHHELD
            if extra is not None:
                columns["extra"][place] = _json(leaving.value(json.loads(extra))) if whole else withheld.extra(extra)
            if columns["label_reason"][place] is not None:
                columns["label_reason"][place] = leaving.text(columns["label_reason"][place])
        for name, values in columns.items():
            table = _replaced(table, name, pa.array(values, table.schema.field(name).type))
        return _renamed(table, leaving)

    return _table(source, change)


def numbers_table(source: Path, leaving: Leaving) -> Write:
    """A table of numbers, byte for byte unless a problem or a teacher has another name outside."""

    def write(file: IO[bytes]) -> None:
        if not _has_other_names(source, leaving):
            with _opened(source) as content:
                shutil.copyfileobj(content, file)
        else:
            _table(source, lambda table: _renamed(table, leaving))(file)

    return write


def tokens_table(source: Path, leaving: Leaving, texts: Texts) -> Write:
    """Token statistics of the problems whose texts go out; those of others are their texts in another form."""

    def change(table: pa.Table) -> pa.Table:
        goes_out = [texts.of_pool(problem_id) for problem_id in table["problem_id"].to_pylist()]
        return _renamed(table.filter(pa.array(goes_out, pa.bool_())), leaving)

    return _table(source, change)


def grades_table(source: Path, leaving: Leaving, texts: Texts, benchmark: str) -> Write:
    """Verdicts as they are; answers that are withheld keep which of them are equal."""

    def write(file: IO[bytes]) -> None:
        classes = AnswerClasses()

        def change(table: pa.Table) -> pa.Table:
            ids = [str(problem_id) for problem_id in table["problem_id"].to_pylist()]
            goes_out = [texts.of_benchmark(benchmark, problem_id) for problem_id in ids]
            found, asked = table["prediction"].to_pylist(), table["reference"].to_pylist()
            for place, (problem_id, whole) in enumerate(zip(ids, goes_out, strict=True)):
                said, wanted = found[place], asked[place]
                found[place] = classes.name(problem_id, said) if not whole else said and leaving.text(said)
                asked[place] = WITHHELD if not whole else wanted and leaving.text(wanted)
            for name, values in (("prediction", found), ("reference", asked)):
                table = _replaced(table, name, pa.array(values, table.schema.field(name).type))
            return _renamed(table, leaving)

        _table(source, change)(file)

    return write


def events(source: Path, leaving: Leaving) -> Write:
    """Progress, curves and what a stage said."""
    return _lines(source, leaving.value)


def train_rows(source: Path, leaving: Leaving, texts: Texts) -> Write:
    """What is trained on: weights as they are, messages of the problems that were chosen."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        meta = row.get("meta") or {}
        whole = texts.of_pool(meta.get("problem_id"))
        said = leaving.value(row["messages"]) if whole else withheld.messages(row["messages"])
        return {"messages": said, "meta": _named(leaving.value(meta), meta, leaving)}

    return _lines(source, change)


def generations(source: Path, leaving: Leaving, texts: Texts, benchmark: str) -> Write:
    """Samples with how long they are and how they ended."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if texts.of_benchmark(benchmark, row["problem_id"]):
            return _named(leaving.value(row), row, leaving)
        kept = {name: row[name] for name in _SAMPLE_FIELDS if name in row}
        return _named({**kept, "text": withheld.response(str(row["text"]))}, row, leaving)

    return _lines(source, change)


def asked_problems(source: Path, leaving: Leaving, texts: Texts, benchmark: str) -> Write:
    """The problems of a benchmark as they were asked."""
    return _lines(source, lambda row: _problem(row, leaving, texts, benchmark, ("prompt", "reference")))


def benchmark_file(source: Path, leaving: Leaving, texts: Texts, benchmark: str) -> Write:
    """A benchmark that was fetched."""

    def write(file: IO[bytes]) -> None:
        content = json.loads(_opened_text(source))
        problems = [_problem(row, leaving, texts, benchmark, ("prompt", "answer")) for row in content["problems"]]
        file.write(_json({"name": leaving.text(str(content.get("name"))), "problems": problems}).encode())

    return write


def notes(source: Path, leaving: Leaving, goes_out: Callable[[object], bool]) -> Write:
    """Flags or disputes: who said so is nobody, why is a text of the problem."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        said = _named(leaving.value(row), row, leaving)
        return said if goes_out(row["problem_id"]) else {**said, "reason": WITHHELD}

    return _lines(source, change)


def refusals(source: Path, leaving: Leaving, texts: Texts) -> Write:
    """Lines that an import left out: where and why, with what stood there only when all texts go out."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        if texts.mode == "all":
            return dict(leaving.value(row))
        kept = {name: row[name] for name in _REFUSAL_FIELDS if name in row}
        hidden = {name: WITHHELD for name in ("problem", "excerpt") if name in row}
        return dict(leaving.value({**kept, **hidden}))

    if source.suffix == ".jsonl":
        return _lines(source, change)
    return lambda file: void_write(file, _json([change(row) for row in json.loads(_opened_text(source))]))


def json_file(source: Path, leaving: Leaving) -> Write:
    """A small file of JSON: metrics, summaries, what a sweep compared."""
    return lambda file: void_write(file, _json(leaving.value(json.loads(_opened_text(source)))))


def void_write(file: IO[bytes], text: str) -> None:
    """Write a text."""
    file.write(text.encode("utf-8", "replace"))


def _prompt(prompt: str, leaving: Leaving, *, whole: bool) -> str:
    said = json.loads(prompt)
    if not whole:
        return _json(withheld.messages(said))
    redacted = [{**turn, "content": leaving.text(str(turn["content"]))} for turn in said]
    return prompt if redacted == said else _json(redacted)


def _problem(
    row: dict[str, Any], leaving: Leaving, texts: Texts, benchmark: str, hidden: tuple[str, str]
) -> dict[str, Any]:
    if texts.of_benchmark(benchmark, row.get("problem_id")):
        return _named(leaving.value(row), row, leaving)
    kept = {name: row[name] for name in _PROBLEM_FIELDS if name in row}
    return _named({**leaving.value(kept), **dict.fromkeys(hidden, WITHHELD)}, row, leaving)


def _named(said: dict[str, Any], row: dict[str, Any], leaving: Leaving) -> dict[str, Any]:
    """A row with the names that its problem and its teacher have outside; numbers stay numbers."""
    return {**said, **{name: leaving.word(row[name]) for name in _NAMES if isinstance(row.get(name), str)}}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(source: Path, change: Callable[[dict[str, Any]], Any]) -> Write:
    def write(file: IO[bytes]) -> None:
        for row in _rows(source):
            void_write(file, _json(change(row)) + "\n")

    return write


def _rows(source: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from read_rows(source)
    except (OSError, ValueError, AssertionError) as error:
        raise StoreError(f"{source}: damaged, so it cannot go into a bundle; leave its artifact out") from error


def _opened(source: Path) -> IO[bytes]:
    try:
        return source.open("rb")
    except OSError as error:
        raise StoreError(f"{source}: cannot be read ({error.strerror}); leave its artifact out") from error


def _opened_text(source: Path) -> str:
    with _opened(source) as file:
        return file.read().decode("utf-8", "replace")


def _table(source: Path, change: Callable[[pa.Table], pa.Table]) -> Write:
    """A Parquet table changed row group by row group; its schema and what is noted in it stay."""

    def write(file: IO[bytes]) -> None:
        try:
            with pq.ParquetFile(source, pre_buffer=False) as table:
                schema = table.schema_arrow
                with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                    for number in range(table.num_row_groups):
                        changed = change(table.read_row_group(number, use_threads=False))
                        writer.write_table(changed.cast(schema), row_group_size=max(changed.num_rows, 1))
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{source}: damaged ({error}), so it cannot go into a bundle") from error

    return write


def _has_other_names(source: Path, leaving: Leaving) -> bool:
    try:
        with pq.ParquetFile(source, pre_buffer=False) as table:
            columns = [name for name in _NAMES if name in table.schema_arrow.names]
            return any(
                leaving.word(value) != value
                for batch in table.iter_batches(columns=columns) for name in columns
                for value in pc.unique(batch[name]).to_pylist() if isinstance(value, str)
            )  # fmt: skip
    except (OSError, ValueError) as error:
        raise StoreError(f"{source}: damaged ({error}), so it cannot go into a bundle") from error


def _renamed(table: pa.Table, leaving: Leaving) -> pa.Table:
    for name in _NAMES:
        if name in table.schema.names:
            values = [leaving.word(v) if isinstance(v, str) else v for v in table[name].to_pylist()]
            table = _replaced(table, name, pa.array(values, table.schema.field(name).type))
    return table


def _replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.names.index(name), table.schema.field(name), values)
