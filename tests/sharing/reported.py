"""A workspace to report on, and what an HTML file is made of."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from shown_workspace import Shown, shown_workspace

from lark_engine.config import ReportConfig
from lark_engine.sharing.report import Report, make_report
from lark_engine.sharing.report_material import Material
from lark_engine.store.workspace import Workspace


def reported_workspace(root: Path) -> Shown:
    """A pool, scores, a selection, a run of 20 steps, and two graded models."""
    shown = shown_workspace(root, num_problems=12)
    events = [
        {"time": 10.0 * n, "stage": "train", "done": n, "total": 20, "rate": 1.0,
         "metrics": {"loss": 2.0 - 0.05 * n, "learning_rate": 1e-4, "tokens_per_s": 100.0, "train_s": 10.0 * n}}
        for n in range(1, 21)
    ]  # fmt: skip
    (shown.checkpoint.path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return shown


def report_of(workspace: Workspace, **options: Any) -> Report:
    return make_report(Material(workspace, ReportConfig.parse(options, "the test")))


def html_of(workspace: Workspace, **options: Any) -> str:
    return report_of(workspace, **options).content.decode()


class Parts(HTMLParser):
    """Every element of a page with its attributes, and the texts of its style and script elements."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.styles: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("style", "script") else ""
        if tag == "script":
            self.scripts.append((dict(attrs).get("type") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.styles.append(data)
        elif self._inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())
