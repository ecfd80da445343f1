"""Rejected lines of an import: how many for which reason, and a page of them with place and remedy."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import address, pool_blocks
from app.address import bound, number, one_of, read
from lark_engine.figures import formats
from lark_engine.figures.safe_text import label_markdown
from lark_engine.jobs.status import JobView
from lark_engine.pool.importer import REJECTED
from lark_engine.pool.rejected_lines import RejectedLines, read_rejected

_PAGE_LINES = 20


def rejected_of(job: JobView) -> Path | None:
    """Where the lines lie that an import refused or left out; None when it did neither."""
    verdict_names = (job.verdict or {}).get("artifacts")
    names = [*job.job.artifacts(), *(verdict_names if isinstance(verdict_names, list) else [])]
    paths = [job.job.workspace_root / str(name) / REJECTED for name in names if str(name).startswith("pools/")]
    return next((path for path in reversed(paths) if path.is_file()), None)


def rejected_panel(path: Path, *, prefix: str) -> None:
    """The lines of a `rejected.jsonl`: a count for each reason, which filters, and a page of a table.

    `prefix`: of the parameters in the address, `<prefix>_reason` and `<prefix>_page`. Errors: `StoreError`.
    """
    lines = load_rejected(path) if path.is_file() else RejectedLines(path, {})
    reasons = lines.reasons
    if not reasons:
        st.caption("No line is listed as rejected.")
        return
    reason_codec, page_param = one_of(list(reasons), None), f"{prefix}_page"
    st.pills(
        "Reasons; each shows only its lines", list(reasons),
        format_func=lambda reason: f"{label_markdown(formats.words(reason), 40)} · {formats.count(reasons[reason])}",
        **bound(f"{prefix}_reason", reason_codec, clears=(page_param,)),
    )  # fmt: skip
    reason = read(f"{prefix}_reason", reason_codec)
    num_lines = reasons[reason] if reason else sum(reasons.values())
    num_pages = -(-num_lines // _PAGE_LINES)
    page = int(read(page_param, number(1, num_pages, 1, integer=True)))
    start = _PAGE_LINES * (page - 1)
    shown = lines.page(start, _PAGE_LINES, reason)
    first, last = formats.count(start + 1), formats.count(start + len(shown))
    caption = f"Rejected lines {first} to {last} of {formats.count(num_lines)}"
    st.html(pool_blocks.rejected_table(shown, caption))
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(caption, width="content")
        if num_pages > 1:
            key = f"{page_param}.{page}.{num_pages}"
            st.pagination(num_pages, default=page, key=key, on_change=_turn, args=(page_param, key))


def _turn(param: str, key: str) -> None:
    page = st.session_state[key]
    address.put(**{param: None if page == 1 else page})


def load_rejected(path: Path) -> RejectedLines:
    """The index of a file of rejected lines, read anew when the file changes."""
    stat = path.stat()
    return _rejected(str(path), stat.st_mtime_ns, stat.st_size)


@st.cache_resource(max_entries=8, show_spinner=False)
def _rejected(path: str, changed: int, size: int) -> RejectedLines:
    return read_rejected(Path(path))
