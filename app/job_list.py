"""The list on the page Jobs: devices, the queue, and a page of the jobs, followed while one of them lives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import streamlit as st

from app import address, job_blocks, job_words
from app.address import bound, number, one_of
from app.boundary import guarded
from app.components.row_table import Cell, Column, row_table
from app.job_words import ALL, FILTERS
from app.machine import MOST_SLOTS, Devices, load_devices
from app.shell import empty_state
from app.widgets import note, problem
from lark_engine.access import visitor
from lark_engine.figures import formats
from lark_engine.jobs.folder import JOBS_DIR
from lark_engine.jobs.status import JobView, list_jobs, queue
from lark_engine.store.workspace import Workspace

JOB, STATE, PAGE = "job", "job_state", "job_page"
PAGE_SIZE = 25
_POLL_S, _LOOK_S = 1.0, 3.0
_SHOWN = "jobs.shown"
_PAGES_PX = 340
_LABELS = {ALL: "All", **{name: name.capitalize() for name in FILTERS}}
_COLUMNS = [
    Column(label="Job", is_number=False),
    Column(label="State", is_number=False),
    Column(label="Progress, or why", is_number=False),
    Column(label="Submitted", is_number=False),
    Column(label="Ran", help="how long its command ran, or has been running"),
    Column(label="By", is_number=False),
]


class Page(NamedTuple):
    """The jobs of one page of the list: its number from 1, how many pages and jobs there are."""

    jobs: list[JobView]
    number: int
    num_pages: int
    num_jobs: int


def page_of(jobs: Sequence[JobView], state: str, asked: int) -> Page:
    """A page of the jobs that a filter shows; the nearest one where that page is not there."""
    fits = [job for job in jobs if state == ALL or job.state in FILTERS[state]]
    num_pages = max(1, -(-len(fits) // PAGE_SIZE))
    place = min(max(asked, 1), num_pages)
    return Page(fits[PAGE_SIZE * (place - 1) : PAGE_SIZE * place], place, num_pages, len(fits))


def cells(job: JobView, now_s: float) -> list[Cell]:
    """A row of the list."""
    spec = job.spec
    took = job_words.took_s(job, now_s)
    return [
        Cell(job_words.title(job)),
        Cell(job.state, tone=job_words.tone(job.state)),
        Cell(job_words.said(job, now_s)),
        Cell(job_words.age(spec.submitted_at, now_s) if spec else "–"),
        Cell("–" if took is None else formats.duration(took)),
        Cell(spec.submitted_by if spec else "–"),
    ]


def job_list(workspace: Workspace) -> None:
    """Devices, queue and list. It polls while a job lives; else it looks whether a folder of a job changed."""
    jobs = list_jobs(workspace.root)
    if not any(job.is_live for job in jobs):
        follow_changes(lambda: changes(workspace))
    if not jobs:
        _devices(jobs)
        _nothing_yet()
        return
    was_live = any(job.is_live for job in jobs)

    @st.fragment(run_every=_POLL_S if was_live else None)
    @guarded
    def live() -> None:
        jobs = list_jobs(workspace.root)
        if not jobs or (was_live and not any(job.is_live for job in jobs)):
            st.rerun()
        if JOB not in st.query_params:
            address.take_changed()  # filter and page concern nothing outside: the rest does not run again for them
        _devices(jobs)
        _queue(jobs)
        _table(jobs)

    live()


def follow_changes(look: Callable[[], object]) -> None:
    """Run the page again when what `look` gives has changed."""
    before = look()

    @st.fragment(run_every=_LOOK_S)
    @guarded
    def follow() -> None:
        if look() != before:
            st.rerun()

    follow()


def changes(workspace: Workspace) -> tuple[tuple[str, int], ...]:
    """A value that changes when a job comes, goes, begins again or ends, in this or another process."""
    try:
        with os.scandir(workspace.root / JOBS_DIR) as entries:
            return tuple(sorted((e.name, e.stat().st_mtime_ns) for e in entries if not e.name.startswith(".")))
    except OSError:
        return ()


def _devices(jobs: Sequence[JobView]) -> None:
    """Each device of this machine: free, or who holds it."""
    found = load_devices()
    if found.problem:
        st.html(problem("It is not known who holds the devices.", found.problem))
    known, now_s = {job.id: job for job in jobs}, time.time()
    slots = found.of("cpu")
    shown = [use for use in found.uses if use.device.kind != "cpu" or len(slots) <= MOST_SLOTS or use.holder]
    with st.container(horizontal=True, gap="small", key="job_devices"):
        for use in shown:
            holder = known.get(use.holder)
            with st.container(border=True, width=250, key=f"device.{use.device.id}", gap=None):
                st.html(job_blocks.device(use, "" if holder else job_words.holder(use.holder), now_s))
                if holder is not None:
                    st.button(
                        formats.plain_markdown(job_words.title(holder)), key=f"holder.{use.device.id}", type="tertiary",
                        icon=":material/chevron_right:", help="Open the job", on_click=address.put,
                        kwargs={JOB: holder.id},
                    )  # fmt: skip
    if len(slots) > MOST_SLOTS:
        st.caption(_slots_in_words(found))


def _slots_in_words(found: Devices) -> str:
    slots = found.of("cpu")
    free = sum(not use.holder for use in slots)
    return f"{free} of {len(slots)} CPU slots are free; those that are held are shown above."


def _queue(jobs: Sequence[JobView]) -> None:
    """Waiting jobs in the order of their turn, with what each waits for."""
    waiting = queue(list(jobs))
    if not waiting:
        return
    st.subheader("Queue", anchor=False)
    rows = [
        [
            Cell(f"{place}. {job_words.title(job)}"),
            Cell(job_words.waits_for(job)),
            Cell(str(job.spec.priority) if job.spec else "–"),
            Cell(job_words.age(job.spec.submitted_at, time.time()) if job.spec else "–"),
        ]
        for place, job in enumerate(waiting[:PAGE_SIZE], start=1)
    ]
    columns = [
        Column(label="Turn", is_number=False), Column(label="Waits for", is_number=False), Column(label="Priority"),
        Column(label="Submitted", is_number=False),
    ]  # fmt: skip
    more = len(waiting) - len(rows)
    caption = f"{len(waiting)} waiting, in the order of their turns" + (
        f"; {more} more are in the list" if more else ""
    )
    _open_from_table(columns, rows, [job.id for job in waiting], "job_queue", caption)


def _table(jobs: Sequence[JobView]) -> None:
    """The filter and a page of the jobs, newest first; a row opens its job."""
    number_of = job_words.counts(jobs)
    asked = address.read(STATE, one_of(list(_LABELS), ALL))
    names = [name for name in _LABELS if name in number_of or name == asked]
    st.segmented_control(
        "Jobs", names, format_func=lambda name: f"{_LABELS[name]} · {formats.count(number_of.get(name, 0))}",
        required=True, label_visibility="collapsed", **bound(STATE, one_of(list(_LABELS), ALL), clears=(PAGE,)),
    )  # fmt: skip
    page = page_of(jobs, asked, address.read(PAGE, number(1, 1e9, 1, integer=True)))
    if not page.jobs:
        st.html(note("No job is in this state now."))
        return
    now_s = time.time()
    first = PAGE_SIZE * (page.number - 1) + 1
    shown = f"{formats.count(first)} to {formats.count(first + len(page.jobs) - 1)} of {formats.count(page.num_jobs)}"
    rows = [cells(job, now_s) for job in page.jobs]
    _open_from_table(_COLUMNS, rows, [job.id for job in page.jobs], "job_rows", f"Jobs {shown}, newest first")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{shown}, newest first · a row opens its job", width="content")
        if page.num_pages > 1:
            key = f"job_page.{page.number}.{page.num_pages}"
            # As wide as its content, Streamlit would measure itself too narrow and show the current page alone.
            st.pagination(
                page.num_pages, default=page.number, key=key, on_change=_turn_to, args=(key,), width=_PAGES_PX
            )


def _open_from_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], ids: list[str], key: str, caption: str
) -> None:
    """A table whose rows open jobs: the one that was on the screen, also when the list has moved on since."""
    before = st.session_state.get(f"{_SHOWN}.{key}", ids)
    st.session_state[f"{_SHOWN}.{key}"] = ids
    event = row_table(columns, rows, key=key, caption=caption, sort="", descending=False, open_label="Open job")
    if event is not None and event.kind == "open" and event.row < len(before):
        address.put(**{JOB: before[event.row]})


def _turn_to(key: str) -> None:
    page = st.session_state[key]
    address.put(**{PAGE: None if page == 1 else page})


def _nothing_yet() -> None:
    """What a job is, and how one is started by those who may."""
    if refusal := visitor().why_not("launch"):
        empty_state("No jobs here", refusal)
        return
    empty_state(
        "No jobs yet",
        "A job is a stage that goes on without this page: it waits for its devices, says how far it is, can be stopped "
        "and resumed, and says why it failed. The pages start them; so does the command line:",
        "lark jobs submit lark pool import FILE", "score", "train", "evaluate",
    )  # fmt: skip
