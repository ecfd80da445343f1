"""The README's pictures, made from the demo's workspace: `make screenshots`, after `make demo`.

    python docs/screenshots.py [--workspace cache] [--output docs]

Light theme, 1440 pixels wide, down to the end of the charts. For the colored tokens of the Trajectory page the
statistics of one problem's tokens are computed first.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

from lark_engine.store.workspace import Workspace  # noqa: E402
from tests.app.browser import dashboard, launch, open_page, wait_idle  # noqa: E402

PROBLEM = "23"
MOST_BYTES = 300_000


class Shot(NamedTuple):
    """A page's address, and what the picture ends with; None: the height of a laptop's window."""

    path: str
    last: str | None = None


SHOTS = {
    "overview": Shot("/"),
    "score": Shot("/score", ".st-key-score_task"),
    "explore": Shot("/explore", ".lark-board >> nth=-1"),
    "trajectory": Shot(f"/trajectory?problem={PROBLEM}&heat=contribution", ".st-key-trajectory_why"),
    "tune": Shot("/tune", ".lark-board >> nth=-1"),
    "train": Shot("/train?view=runs", ".st-key-runs_shown"),
    "evaluate": Shot("/evaluate?view=compare", ".st-key-compare_problems"),
    "jobs": Shot("/jobs?job=demo"),
    "share": Shot("/share?share=report", ".st-key-make_report_panel"),
}


def picture(page: Page, last: str | None) -> bytes:
    """The page from its top to the end of the element `last`, as a PNG."""
    if last is not None:
        box = page.locator(last).bounding_box()
        assert box is not None, f"{last} is not on the page"
        page.set_viewport_size({"width": 1440, "height": round(box["y"] + box["height"]) + 24})
        wait_idle(page)
    file = io.BytesIO()
    Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB").save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=ROOT / "cache", help="workspace of the demo")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of the pictures")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace)
    scores = next((artifact for artifact in workspace.list("scores") if artifact.name.startswith("demo@")), None)
    if scores is None:
        print(f"{workspace.root} holds no scores of the demo; run make demo first, or name its folder with --workspace")
        return 2
    lark = [sys.executable, "-m", "lark_engine.cli"]
    tokens = ["score", "tokens", "--scores", scores.id, "--problem", PROBLEM, "--workspace", str(workspace.root)]
    subprocess.run([*lark, *tokens], check=True)
    with sync_playwright() as playwright, dashboard(workspace) as address:
        browser = launch(playwright)
        for name, shot in SHOTS.items():
            with open_page(browser, address + shot.path) as page:
                made = picture(page, shot.last)
            assert len(made) <= MOST_BYTES, f"{name}: {len(made)} bytes are more than {MOST_BYTES}"
            path = arguments.output / f"{name}.png"
            path.write_bytes(made)
            print(f"{path}  {len(made) / 1000:.0f} kB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
