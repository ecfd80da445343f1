"""A comparison in files and for other programs: JSON, CSV and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from lark_engine.evaluation.metrics import MEAN_TOKENS
from lark_engine.results.compare import Comparison
from lark_engine.results.export import inert, markdown_cell
from lark_engine.results.pairs import ProblemPair

_COLUMNS = (
    "benchmark", "metric", "num_problems", "mean_a", "mean_b", "difference", "low", "high", "p_value", "p_holm", "test",
    "num_better", "num_worse", "num_tied", "smallest_detectable", "sampled_or_graded_otherwise", "stale",
)  # fmt: skip


def comparison_json(found: Comparison) -> str:
    """All of a comparison, as `lark compare --json` prints it."""
    values = asdict(found)
    for one in values["benchmarks"]:
        one["matrix"] = [{"a": a, "b": b, "problems": n} for (a, b), n in one["matrix"].items()]
    return json.dumps(values, indent=2, ensure_ascii=False)


def comparison_table(found: Comparison) -> pd.DataFrame:
    """A row for each benchmark, and one for the mean over them."""
    rows: list[dict[str, Any]] = []
    for one in found.benchmarks:
        values = asdict(one.paired)
        rows.append({
            **values, "benchmark": one.benchmark, "metric": one.metric, "p_holm": one.p_adjusted,
            "sampled_or_graded_otherwise": "; ".join(one.differences), "stale": "; ".join(one.stale),
        })  # fmt: skip
    if (macro := found.macro) is not None:
        rows.append({
            "benchmark": f"mean over {len(found.benchmarks)} benchmarks", "difference": macro.value, "low": macro.low,
            "high": macro.high, "num_problems": macro.num_problems,
            "metric": found.benchmarks[0].metric.partition("@")[0],
        })  # fmt: skip
    whole = ("num_problems", "num_better", "num_worse", "num_tied")
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(dict.fromkeys(whole, "Int64"))
    table.insert(0, "b", found.b)
    table.insert(0, "a", found.a)
    return table


def comparison_csv(found: Comparison) -> str:
    """`comparison_table` as CSV; shares as shares, not percent."""
    return str(inert(comparison_table(found)).to_csv(index=False))


def pairs_csv(pairs: Sequence[ProblemPair]) -> str:
    """The problems of one benchmark with both sides' counts."""
    table = pd.DataFrame([asdict(pair) for pair in pairs], columns=list(ProblemPair.__dataclass_fields__))
    return str(inert(table).to_csv(index=False))


def comparison_markdown(found: Comparison) -> str:
    """The differences as a table of Markdown, in points; cautions below."""
    lines = [
        f"A: {markdown_cell(found.a)}, B: {markdown_cell(found.b)}. Differences B − A with 95 % intervals, paired by "
        "problem; p adjusted by Holm over the benchmarks.",
        "", "| Benchmark | Metric | n | A | B | B − A | p | p (Holm) | Test |", "|" + " --- |" * 9,
    ]  # fmt: skip
    for one in found.benchmarks:
        p, scale = one.paired, 1.0 if one.metric == MEAN_TOKENS else 100.0
        cells = [
            one.benchmark, one.metric, str(p.num_problems), f"{p.mean_a * scale:.1f}", f"{p.mean_b * scale:.1f}",
            _difference(p.difference, p.low, p.high, scale), f"{p.p_value:.3g}", f"{one.p_adjusted:.3g}", p.test,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(markdown_cell, cells))} |")
    if (macro := found.macro) is not None:
        scale = 1.0 if found.benchmarks[0].metric == MEAN_TOKENS else 100.0
        said = _difference(macro.value, macro.low, macro.high, scale)
        lines.append(
            f"| mean over {len(found.benchmarks)} benchmarks |  | {macro.num_problems} |  |  | {said} |  |  |  |"
        )
    cautions = [
        f"- {one.benchmark}: {what} {text}"
        for one in found.benchmarks
        for what, texts in (("sampled or graded otherwise:", one.differences), ("stale:", one.stale))
        for text in texts
    ]
    if cautions:
        lines += ["", *map(markdown_cell, cautions)]
    return "\n".join(lines) + "\n"


def _difference(value: float, low: float | None, high: float | None, scale: float) -> str:
    interval = "" if low is None or high is None else f" [{low * scale:+.1f}, {high * scale:+.1f}]"
    return f"{value * scale:+.1f}{interval}"
