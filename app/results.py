"""The results table as the pages show it: one metric at a time, models × benchmarks, the best when not tied."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from lark_engine.figures import formats
from lark_engine.results.table import UNTRAINED, overall

_KINDS = ("avg", "pass", "maj")
_MOST_OFFERED = 10
OWN_COUNT = "avg@n"
_SHARE = re.compile(r"(avg|pass|maj)(@(\d{1,6}|n))?")
_WITHOUT_NUMBER = 1 << 30


class Cell(NamedTuple):
    """One figure of the results table; `best` when it is above the interval of every other row.

    `others`: the other metrics of these samples that people read beside it. `stale`: what has changed since. `places`:
    the folders of the grades, several where runs are pooled.
    """

    value: float | None
    low: float | None
    high: float | None
    num_problems: int
    best: bool
    others: tuple[tuple[str, float], ...] = ()
    stale: str = ""
    num_disputed: int = 0
    num_seeds: int = 1
    places: tuple[str, ...] = ()


class ResultRow(NamedTuple):
    """One row of the results table, a cell for each benchmark (None where it was not evaluated).

    `key` names the row in an address, and `name` is what `lark compare` takes for it ("" where it takes nothing).
    `student`: what it was trained from, by name, id or folder.
    """

    model: str
    detail: str
    is_reference: bool
    cells: tuple[Cell | None, ...]
    key: str = ""
    name: str = ""
    student: str = ""


class Results(NamedTuple):
    """One metric of the results: rows of cells, the benchmarks that are the columns, and their problem counts."""

    rows: list[ResultRow]
    benchmarks: list[str]
    num_problems: list[int]


class Best(NamedTuple):
    """The highest value on one benchmark; `tied` when another model's interval reaches it."""

    benchmark: str
    model: str
    cell: Cell
    tied: bool
    reference: str
    above_reference: float | None


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The shares of right answers in the order of use: avg@n first, then pass@k with rising k, then maj@n."""
    return metrics_of_names(map(str, table["metric"].unique()))


def with_own_counts(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `avg@n` beside them where benchmarks were sampled unequally often: each by its own number."""
    own = table["metric"] == "avg@" + table["n_samples"].astype("string")
    if table.loc[own, "metric"].nunique() < 2:
        return table
    return pd.concat([table, table[own].assign(metric=OWN_COUNT)], ignore_index=True)


def own_counts(table: pd.DataFrame) -> str:
    """`aime avg@64 · math avg@4`: what `avg@n` is on each benchmark of the table of `with_own_counts`."""
    own = table[table["metric"] == OWN_COUNT]
    counts = own.groupby("benchmark")["n_samples"].unique()
    return " · ".join(f"{name} " + ", ".join(f"avg@{n}" for n in sorted(found)) for name, found in counts.items())


def metrics_of_names(names: Iterable[str]) -> list[str]:
    """Those of the names that are shares of right answers, in the order of use; a manifest may name anything."""
    return sorted((name for name in names if _SHARE.fullmatch(name)), key=_rank)


def _rank(name: str) -> tuple[int, int, str]:
    kind, _, number = name.partition("@")
    if name == OWN_COUNT:
        return 0, 0, name
    # Without a number: of several benchmarks with different numbers of samples.
    return _KINDS.index(kind), int(number) if number.isdigit() else _WITHOUT_NUMBER, name


def results_of(table: pd.DataFrame, metric: str) -> Results:
    """One metric over all problems of each benchmark; untrained students, the reference, come last.

    Grades of one model that were sampled or graded otherwise have rows of their own, and so have several of one
    benchmark (of its first problems and of all, say).
    """
    whole = overall(table)
    records = whole[whole["metric"] == metric].to_dict("records")
    others = _others(whole, metric)
    groups: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for record in records:
        row, benchmark = _text(record["row"]), _text(record["benchmark"]) or "unknown"
        variant = 0
        while benchmark in groups.setdefault((row, variant), {}):
            variant += 1
        groups[row, variant][benchmark] = record
    benchmarks = sorted({name for cells in groups.values() for name in cells})
    highs = {name: _two_highest(cells[name] for cells in groups.values() if name in cells) for name in benchmarks}
    details, names = _details(groups), _names(groups)
    rows = []
    for key, cells in groups.items():
        first = next(iter(cells.values()))
        shown = tuple(_cell(cells[n], highs[n], others) if n in cells else None for n in benchmarks)
        label = _text(first["model"]) or "unknown model"
        is_reference = _text(first["method"]) == UNTRAINED
        student = _text(first["student"])
        rows.append(ResultRow(label, details[key], is_reference, shown, _key(*key), names[key], student))
    rows.sort(key=lambda row: (row.is_reference, [-(c.value or 0) if c else 1 for c in row.cells], row.model))
    num_problems = [max(int(cells[n]["n_problems"]) for cells in groups.values() if n in cells) for n in benchmarks]
    return Results(rows, benchmarks, num_problems)


def _key(row: str, variant: int) -> str:
    return f"{row}.{variant + 1}" if variant else row


def _others(whole: pd.DataFrame, metric: str) -> dict[str, tuple[tuple[str, float], ...]]:
    """By the grade's folder and benchmark: its shares of right answers but for this one."""
    kinds = whole["metric"].str.partition("@")[0]
    part = whole[kinds.isin(_KINDS) & ~whole["metric"].isin([metric, OWN_COUNT])]
    found: dict[str, list[tuple[str, float]]] = {}
    columns = (part["place"] + part["benchmark"], part["metric"], part["value"])
    for place, name, value in zip(*(column.tolist() for column in columns), strict=True):
        if isinstance(value, float) and math.isfinite(value):
            found.setdefault(str(place), []).append((str(name), value))
    return {place: tuple(sorted(own, key=lambda pair: _rank(pair[0]))) for place, own in found.items()}


def _details(groups: Mapping[tuple[str, int], Mapping[str, Mapping[str, Any]]]) -> dict[tuple[str, int], str]:
    """`LoRA · χ², B = 3`: how a model was made, as far as its lineage says; and what tells its rows apart."""
    first = {key: next(iter(cells.values())) for key, cells in groups.items()}
    by_model: dict[str, list[tuple[str, int]]] = {}
    for key, record in first.items():
        by_model.setdefault(_text(record["model"]), []).append(key)
    found = {}
    for keys in by_model.values():
        said = [f"{_text(first[key]['sampling'])} {_text(first[key]['grading'])}".split() for key in keys]
        shared = set.intersection(*map(set, said)) if len(keys) > 1 else set()
        for key, words in zip(keys, said, strict=True):
            own = " ".join(word for word in words if word not in shared) if len(keys) > 1 else ""
            found[key] = _detail(first[key], own, key[1])
    return found


def _detail(row: Mapping[str, Any], settings: str, variant: int) -> str:
    budget = f"B = {row['B']}" if _text(row["B"]) else ""
    chosen = ", ".join(part for part in (formats.rule(_text(row["rule"])), budget) if part)
    number = f"result {variant + 1}" if variant else ""
    return " · ".join(fact for fact in (formats.method(_text(row["method"])), chosen, settings, number) if fact)


def _names(groups: Mapping[tuple[str, int], Mapping[str, Mapping[str, Any]]]) -> dict[tuple[str, int], str]:
    """What each row is called by `lark compare`: the model where it has one row, else the row, else a single grade.

    Pooled runs are called by the arm of their sweep; those of no sweep have no name.
    """
    first = {key: next(iter(cells.values())) for key, cells in groups.items()}
    model_of = {key: _text(record["checkpoint_id"]) or _text(record["model"]) for key, record in first.items()}
    models, rows = list(model_of.values()), [row for row, _ in groups]
    found = {}
    for key, record in first.items():
        if any(" " in _text(cell["place"]) for cell in groups[key].values()):
            arm = f"{_text(record['sweep'])}:{_text(record['arm'])}"
            found[key] = arm if _text(record["sweep"]) else ""
        elif models.count(model_of[key]) == 1:
            found[key] = model_of[key]
        else:
            found[key] = key[0] if rows.count(key[0]) == 1 else _text(record["place"])
    return found


def _text(value: object) -> str:
    """The value as text; what the lineage does not know is empty."""
    return "" if value is None or value is pd.NA or value != value else str(value)


def best_results(results: Results) -> list[Best]:
    """The best model of each benchmark, and how far it is above the reference where there is one."""
    found = []
    for column, benchmark in enumerate(results.benchmarks):
        cells = [(row, cell) for row in results.rows if (cell := row.cells[column]) and cell.value is not None]
        if not cells:
            continue
        row, cell = max(cells, key=lambda pair: pair[1].value or 0.0)
        references = [(r, c) for r, c in cells if r.is_reference and r is not row]
        name, above = "", None
        if len(references) == 1:  # of several students, which one this is a gain over is for its lineage to say
            name, above = references[0][0].model, (cell.value or 0.0) - (references[0][1].value or 0.0)
        found.append(Best(benchmark, row.model, cell, len(cells) > 1 and not cell.best, name, above))
    return found


def _two_highest(records: Any) -> list[tuple[float, int]]:
    """The two highest ends of intervals, each with the record that it is of."""
    ends = [(high, id(record)) for record in records if (high := _known(record["high"])) is not None]
    return sorted(ends, reverse=True)[:2]


def _cell(record: Mapping[str, Any], highs: Sequence[tuple[float, int]], others: Mapping[str, Any]) -> Cell:
    value = _known(record["value"])
    rivals = [high for high, whose in highs if whose != id(record)]
    place = _text(record["place"])
    return Cell(
        value, _known(record["low"]), _known(record["high"]), int(record["n_problems"]),
        value is not None and bool(rivals) and value > rivals[0],
        others.get(f"{place}{_text(record['benchmark'])}", ()), _text(record["stale"]),
        _count(record["num_disputed"]), _count(record["n_seeds"]), tuple(place.split()),
    )  # fmt: skip


def _count(value: object) -> int:
    return int(text) if (text := _text(value)) else 0


def _known(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def offered_metrics(metrics: Sequence[str], asked: str) -> list[str]:
    """The metrics to choose from: of many pass@k those with k = 1, 2, 4 … and the last, and the one that is shown."""
    if len(metrics) <= _MOST_OFFERED:
        return list(metrics)
    counts = [_rank(name)[1] for name in metrics if name.startswith("pass@")]
    kept = {k for k in counts if k & (k - 1) == 0 or k == max(counts)}
    return [name for name in metrics if not name.startswith("pass@") or _rank(name)[1] in kept or name == asked]
