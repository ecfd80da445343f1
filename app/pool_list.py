"""The pools of the workspace with who has scored each, and what is being imported or scored, live."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from app import address, pool_blocks, widgets
from app.address import number, page_link, read, words
from app.boundary import guarded
from app.loaders import Snapshot, Unfinished, load_unfinished
from app.pool_form import choose_pool, refused_lines
from app.rejected_panel import load_rejected, rejected_panel
from lark_engine.access import visitor
from lark_engine.figures import formats
from lark_engine.figures.safe_text import label_markdown
from lark_engine.jobs.status import JobView, list_jobs
from lark_engine.pool.importer import REJECTED
from lark_engine.store.workspace import MANIFEST, Artifact, Workspace

_PAGE_POOLS = 6
_MOST_LINKS = 8
_STAGES = ("pool import", "score")
_FOLLOW_S = 1.5


def pool_list(snapshot: Snapshot) -> None:
    """A page of pools, newest first."""
    pools, now = snapshot.artifacts["pools"], datetime.now(UTC)
    num_pages = max(1, -(-len(pools) // _PAGE_POOLS))
    page = int(read("pools_page", number(1, num_pages, 1, integer=True)))
    for pool in pools[_PAGE_POOLS * (page - 1) : _PAGE_POOLS * page]:
        with st.container(border=True, key=f"pool.{pool.id}"):
            st.html(pool_blocks.pool_facts(pool, now))
            _pool_actions(pool, snapshot, now)
    if num_pages > 1:
        key = f"pools_page.{page}.{num_pages}"
        st.pagination(num_pages, default=page, key=key, on_change=_turn, args=(key,))


def _turn(key: str) -> None:
    page = st.session_state[key]
    address.put(pools_page=None if page == 1 else page)


def _pool_actions(pool: Artifact, snapshot: Snapshot, now: datetime) -> None:
    """Links to Explore as each student sees the pool; scoring it; and the lines that were left out."""
    scored = [s for s in snapshot.artifacts["scores"] if s.manifest.inputs.get("pool") == pool.ref]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"pool_actions.{pool.id}"):
        for scores in scored[:_MOST_LINKS]:
            label = f"{label_markdown(_student(scores), 40)} · {formats.age(scores.manifest.created_at, now)}"
            page_link("explore", label, icon=":material/scatter_plot:", scores=scores.id)
        if len(scored) > _MOST_LINKS:
            st.caption(f"and {len(scored) - _MOST_LINKS} more, in the menu on top of Explore", width="content")
        if not scored:
            st.caption("No student has scored it yet", width="content")
        refusal = visitor().why_not("launch")
        st.button(
            "Score it", icon=":material/play_arrow:", key=f"score.{pool.id}", on_click=choose_pool, args=(pool.id,),
            disabled=bool(refusal), help=formats.plain_markdown(refusal) or None,
        )  # fmt: skip
        if (num := sum(pool.manifest.drops.values())) and (pool.path / REJECTED).is_file():
            st.button(
                f"{formats.count(num)} left out", icon=":material/rule:", key=f"left_out.{pool.id}",
                on_click=address.put, kwargs={"rejected": pool.id}, help="Which lines, and why",
            )  # fmt: skip


def _student(scores: Artifact) -> str:
    """The student's name, with what tells apart scores of the same one."""
    config = scores.manifest.config
    facts = [scores.name.rpartition("@")[2] or scores.name]
    if config.get("brier") == "top_k":
        facts.append(f"top-{config.get('top_k')} Brier")
    if config.get("max_length"):
        facts.append(f"{config['max_length']:,} tokens")
    return " · ".join(facts)


def being_made(workspace: Workspace, snapshot: Snapshot, elsewhere: Collection[Sequence[str]]) -> None:
    """Imports and scores that run or wait, and those that were left unfinished; the page runs when one ends.

    `elsewhere`: commands whose jobs the page shows already.
    """
    shown = _live(workspace)

    @st.fragment(run_every=_FOLLOW_S if shown else None)
    @guarded
    def panel() -> None:
        jobs = _live(workspace)
        if [job.id for job in jobs] != [job.id for job in shown]:
            st.rerun()
        left = [item for item in load_unfinished(workspace) if item.kind in ("pools", "scores") and not item.running]
        jobs = [job for job in jobs if job.spec and list(job.spec.command) not in elsewhere]
        if not jobs and not left:
            return
        st.subheader("Running and unfinished", anchor=False)
        for job in jobs:
            st.html(widgets.job(job))
            page_link("jobs", "Its log and what can be done with it", icon=":material/list_alt:", job=job.id)
        for item in left:
            _left_unfinished(item, workspace)

    panel()


def _live(workspace: Workspace) -> list[JobView]:
    return [job for job in list_jobs(workspace.root) if job.is_live and job.spec and job.spec.stage in _STAGES]


def _left_unfinished(item: Unfinished, workspace: Workspace) -> None:
    """A folder that nothing works on: an import that refused lines says so, the others say how to go on."""
    path = workspace.root / item.kind / item.name / REJECTED
    if not item.is_refused:
        st.html(widgets.unfinished([item]))
        return
    num = sum(load_rejected(path).reasons.values())
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"refused.{item.name}"):
        bad = "1 line is bad" if num == 1 else f"{formats.count(num)} lines are bad"
        st.html(widgets.note(f"Import {item.name} was refused: {bad}."), width="content")
        st.button(
            "See them", icon=":material/rule:", key=f"see.{item.name}", on_click=address.put,
            kwargs={"rejected": item.name},
        )  # fmt: skip


def rejected_of_address(workspace: Workspace, snapshot: Snapshot) -> None:
    """The rejected lines of the pool, finished or refused, that the address names."""
    name = str(read("rejected", words()))
    path = _rejected_path(workspace, name)
    if path is None:
        return
    with st.container(border=True, key="rejected_lines"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{label_markdown(name, 80)}**", width="content")
            st.button(
                "Close", icon=":material/close:", key="rejected.close", type="tertiary", on_click=address.put,
                kwargs={"rejected": None, "rejected_reason": None, "rejected_page": None},
            )  # fmt: skip
        refused = None if (path.parent / MANIFEST).exists() else _import_of(name, workspace)
        if refused is None:
            rejected_panel(path, prefix="rejected")
        else:
            refused_lines(path, refused, workspace, snapshot, prefix="rejected")


def _import_of(name: str, workspace: Workspace) -> JobView | None:
    """The newest import that set out to make this pool, and whose command can be said again."""
    for job in list_jobs(workspace.root):
        is_import = job.spec is not None and job.spec.stage == "pool import" and not job.is_live
        if is_import and job.spec and job.spec.command[-2] == "--workspace" and f"pools/{name}" in job.job.artifacts():
            return job
    return None


def _rejected_path(workspace: Workspace, name: str) -> Path | None:
    """Only of a folder that is there by this very name: the address may say anything."""
    pools = workspace.root / "pools"
    if not name or not pools.is_dir() or name not in {folder.name for folder in pools.iterdir()}:
        return None
    path = pools / name / REJECTED
    return path if path.is_file() else None
