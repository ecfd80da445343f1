"""A comparison to take away: JSON, CSV and Markdown, and the command that prints the same."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app.session import shown_line
from lark_engine.results.commands import compare_command
from lark_engine.results.compare import Compared
from lark_engine.results.compare_export import comparison_csv, comparison_json, comparison_markdown, pairs_csv
from lark_engine.store.workspace import Workspace, slug


def export_panel(workspace: Workspace, found: Compared, chosen: int, metric: str) -> None:
    """Downloads, made when they are asked for."""
    comparison = found.comparison
    name = slug(f"{comparison.a}-vs-{comparison.b}", 100)
    benchmark = slug(comparison.benchmarks[chosen].benchmark)
    formats = (
        ("JSON", "json", "application/json", partial(comparison_json, comparison)),
        ("CSV", "csv", "text/csv", partial(comparison_csv, comparison)),
        ("Markdown", "md", "text/markdown", partial(comparison_markdown, comparison)),
        ("Problems (CSV)", f"{benchmark}.csv", "text/csv", partial(pairs_csv, found.details[chosen].problems)),
    )
    st.subheader("Export", anchor=False)
    with st.container(horizontal=True, gap="small", key="compare_exports"):
        for label, ending, mime, make in formats:
            st.download_button(
                label, make, file_name=f"{name}.{ending}", mime=mime, key=f"export.{ending}", on_click="ignore",
                icon=":material/download:",
            )  # fmt: skip
    command = compare_command(comparison.a, comparison.b, workspace, metric=metric, options=("--json",))
    st.code(shown_line(command), language=None, wrap_lines=True)
