"""The results table in files: tidy CSV and Parquet, and for reading Markdown, LaTeX, HTML and the released CSV."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lark_engine.evaluation.registry import entry_for_file, entry_named
from lark_engine.printing import printable
from lark_engine.results.table import ALL, MACRO
from lark_engine.results.wide import DISPUTED, STALE, by_level, by_subject, endings, seeds, wide
from lark_engine.store.atomic import replacing, write_text

_NOTE = "Percent of problems, with 95 % intervals."
# Columns of the released table, and which benchmark of the registry each one is.
_RELEASED = {
    "aime24": "AIME-2024", "aime25": "AIME-2025", "amc23": "AMC", "math500_L1": "MATH-L1", "math500_L2": "MATH-L2",
    "math500_L3": "MATH-L3", "math500_L4": "MATH-L4", "math500_L5": "MATH-L5", "math500": "MATH-500",
    "gpqa_diamond": "GPQA-diamond",
}  # fmt: skip
_KEYS = ("student", "q1_baseline", "q2_method")


def sections(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The parts of a report of results, by title; those that would be empty are left out."""
    parts = [
        ("Results", wide(table)), ("Between and within seeds", seeds(table)),
        ("How the samples ended", endings(table)), ("By level", by_level(table)), ("By subject", by_subject(table)),
        ("Where the numbers come from", sources(table)),
    ]  # fmt: skip
    return [(title, part.fillna("")) for title, part in parts if not part.empty]


def sources(table: pd.DataFrame) -> pd.DataFrame:
    """What each result was made from, by the ids that `lark lineage` takes, and why it is stale if it is."""
    rows = table[(table["benchmark"] != MACRO)].drop_duplicates(["row", "benchmark", "place"])
    names = {
        "model": "model", "benchmark": "benchmark", "sampling": "sampling", "grading": "grading", "grade_id": "grades",
        "checkpoint_id": "checkpoint", "selection_id": "selection", "scores_id": "scores", "pool_id": "pool",
        "stale": "stale",
    }  # fmt: skip
    return rows[list(names)].rename(columns=names)


def to_markdown(table: pd.DataFrame) -> str:
    """All sections as Markdown; text of the user's is escaped."""
    parts = []
    for title, part in sections(table):
        parts += [f"{'#' if title == 'Results' else '##'} {title}", ""]
        parts += [_note(table), ""] if title == "Results" else []
        header = [str(c) for c in part.columns]
        lines = [[markdown_cell(c) for c in header], ["---"] * len(header)]
        lines += [[markdown_cell(c) for c in line] for line in part.astype(str).to_numpy().tolist()]
        parts += ["\n".join("| " + " | ".join(line) + " |" for line in lines), ""]
    return "\n".join(parts) or "No results yet.\n"


def to_latex(table: pd.DataFrame) -> str:
    """The results as a `tabular` for booktabs; where each row comes from stands in comments."""
    part = wide(table).fillna("")
    columns = [str(c) for c in part.columns]
    lines = [f"% {_note(table)}"]
    for row in sources(table).fillna("").to_dict("records"):
        model, benchmark = row.pop("model"), row.pop("benchmark")
        ids = ", ".join(f"{name} {value}" for name, value in row.items() if value)
        lines.append(f"% {_comment(model)} on {_comment(benchmark)}: {_comment(ids)}")
    lines += [rf"\begin{{tabular}}{{{'l' * len(columns)}}}", r"\toprule", _latex_line(columns), r"\midrule"]
    lines += [_latex_line(row) for row in part.astype(str).to_numpy().tolist()]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_html(table: pd.DataFrame) -> str:
    """All sections as one page that loads nothing; the rows of the tidy table lie in it as JSON."""
    body = []
    for title, part in sections(table):
        head = "".join(f"<th scope=col>{html.escape(str(c))}</th>" for c in part.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in line) + "</tr>\n"
            for line in part.astype(str).to_numpy().tolist()
        )
        note = f"<p>{html.escape(_note(table))}</p>" if title == "Results" else ""
        body.append(
            f"<h2>{html.escape(title)}</h2>{note}\n<div><table><thead><tr>{head}</tr></thead>\n"
            f"<tbody>{rows}</tbody></table></div>"
        )
    # "</script" and "<!--" would end the block or open another.
    data = table.to_json(orient="records").replace("<", "\\u003c")
    return _PAGE.format(body="\n".join(body), data=data)


def released_csv(table: pd.DataFrame) -> pd.DataFrame:
    """The released table: student, q1_baseline (energy), q2_method, and pass@n of each benchmark as a share.

    The columns come in the released order; benchmarks that it does not have and the number of samples follow. A row is
    a row of `wide`; of several results of one cell the newest is taken. Levels of MATH-500 come from its rows by level
    where no benchmark of one level was run. A missing number is empty, never 0.
    """
    shown = table[(table["subject"] == ALL) & (table["benchmark"] != MACRO)]
    shown = shown[shown["metric"] == "pass@" + shown["n_samples"].astype("string")]
    rows = [_released_row(part) for _, part in shown.groupby("row", sort=False)]
    others = dict.fromkeys(name for row in rows for name in row if name not in (*_KEYS, *_RELEASED, "n_samples"))
    return pd.DataFrame(rows, columns=[*_KEYS, *_RELEASED, *others, "n_samples"])


def _released_row(part: pd.DataFrame) -> dict[str, object]:
    first = part.iloc[-1]
    row: dict[str, object] = dict(zip(_KEYS, first[["student", "energy", "model"]].fillna(""), strict=True))
    # Levels of another benchmark first: a benchmark of its own wins over them.
    for record in sorted(part.to_dict("records"), key=lambda record: record["level"] == ALL):
        if (column := _released_column(str(record["benchmark"]), str(record["level"]))) is not None:
            row[column] = "" if pd.isna(record["value"]) else round(float(record["value"]), 4)
    return row | {"n_samples": " ".join(dict.fromkeys(map(str, part["n_samples"])))}


def to_csv(table: pd.DataFrame) -> str:
    """The tidy table, levels and subjects too."""
    return str(inert(table).to_csv(index=False))


def to_wide_csv(table: pd.DataFrame) -> str:
    """The table as people read it."""
    return str(inert(wide(table)).to_csv(index=False))


# What `write_table` writes as text, by the names of the files.
TEXT_FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "table.csv": to_csv, "wide.csv": to_wide_csv, "table.md": to_markdown, "table.tex": to_latex, "table.html": to_html,
}  # fmt: skip


def write_table(table: pd.DataFrame, output_dir: Path) -> list[Path]:
    """Write table.csv and table.parquet (tidy, levels and subjects too), and for reading wide.csv, table.md, table.tex
    and table.html; each atomically."""
    names = ("table.csv", "wide.csv", "table.md", "table.parquet", "table.tex", "table.html")
    for name, text_of in TEXT_FORMATS.items():
        write_text(output_dir / name, text_of(table))
    with replacing(output_dir / "table.parquet") as partial:
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        lineage = sources(table).fillna("").to_dict("records")
        metadata = {**(arrow.schema.metadata or {}), b"lineage": json.dumps(lineage).encode()}
        pq.write_table(arrow.replace_schema_metadata(metadata), partial)
    return [output_dir / name for name in names]


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """The table for CSV: text that a spreadsheet would run as a formula begins with an apostrophe."""
    return table.apply(lambda column: column.map(_inert) if not pd.api.types.is_numeric_dtype(column) else column)


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "@", "-", "\t", "\r")) else value


def _released_column(benchmark: str, level: str) -> str | None:
    entry = entry_named(benchmark) or (entry_for_file(benchmark) if benchmark in ("aime", "math") else None)
    column = next((column for column, name in _RELEASED.items() if entry and name == entry.name), None)
    if level != ALL:
        return name if column == "math500" and (name := f"math500_L{level}") in _RELEASED else None
    return column or (benchmark if benchmark not in (*_KEYS, *_RELEASED, "n_samples") else f"benchmark_{benchmark}")


def _note(table: pd.DataFrame) -> str:
    marks = []
    if (table["stale"].fillna("") != "").any():
        marks.append(f"{STALE} stale: an input has changed since.")
    if (table["num_disputed"].fillna(0) > 0).any():
        marks.append(f"{DISPUTED} with verdicts that a person has disputed.")
    return " ".join([_NOTE, *marks])


def markdown_cell(text: str) -> str:
    """Text for a cell of a table of Markdown, where it stands for itself."""
    # Brackets make a link only before a parenthesis, another bracket or a colon.
    return re.sub(r"([\\|`<>*_]|\](?=[(\[:]))", r"\\\1", printable(text))


def _latex_line(cells: list[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {STALE: r"\textdagger{}", DISPUTED: r"\textdaggerdbl{}"}
    special |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
    return "".join(special.get(sign, sign) for sign in printable(text))


def _comment(text: object) -> str:
    """One line, whatever the text holds: a line break would end the comment."""
    return " ".join(printable(str(text)).split())


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>LARK Studio: results</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root {{ color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }}
body {{ margin: 2rem auto; max-width: 90rem; padding: 0 1rem }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }}
</style></head><body>
<h1>Results</h1>
{body}
<script type="application/json" id="results">{data}</script>
</body></html>
"""  # noqa: E501
