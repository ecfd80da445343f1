"""One job on the page Jobs: what it runs, how far it is, why it ended, what it made, its log, and what can be done."""

from __future__ import annotations

import time

import streamlit as st

from app import address, job_blocks, job_log, job_words
from app.address import bound, one_of, page_link
from app.boundary import guarded
from app.components.log_view import log_view
from app.files import log_path
from app.job_actions import action_buttons
from app.job_list import JOB, follow_changes
from app.loaders import Snapshot, load_snapshot
from app.session import shell_command, shown_line
from app.shell import PAGES, saved_config
from app.widgets import note
from lark_engine.errors import StoreError
from lark_engine.figures import formats
from lark_engine.jobs.folder import Job
from lark_engine.jobs.status import RESUMABLE, JobView, show_job
from lark_engine.store.workspace import Artifact, Workspace

LINES = "log_lines"
_POLL_S = 1.0
_MOST_LINKS = 12
_SHOWN_ON: dict[str, address.Page] = {
    "pools": "score", "scores": "explore", "selections": "tune", "checkpoints": "train", "evals": "evaluate",
    "grades": "evaluate",
}  # fmt: skip


def job_detail(workspace: Workspace, name: str) -> None:
    """A job by its id or a unique part of it; one that is not there is said to be gone."""
    st.button("All jobs", icon=":material/arrow_back:", type="tertiary", on_click=address.put, kwargs={JOB: None})
    try:
        job = show_job(workspace.root, name)
    except StoreError as error:
        _not_here(str(error))
        return
    st.subheader(formats.plain_markdown(job_words.title(job)), anchor=False)
    st.html(job_blocks.heading(job, time.time()))
    if ending := job_blocks.ending(job):
        st.html(ending)
    if job.spec is not None:
        st.code(shown_line(list(job.spec.command)), language=None, wrap_lines=True)
    action_buttons(job, key="job")
    _made(job, load_snapshot(workspace))
    if before := job.job.attempts():
        st.markdown("**Earlier attempts**")
        st.html(job_blocks.attempts(before))
    _follow(job)
    _on_the_command_line(job)


def _not_here(said: str) -> None:
    with st.container(border=True, key="no_such_job"):
        st.subheader("This job is not here", anchor=False)
        st.html(
            note(
                f"{said[:1].upper()}{said[1:]}."
                if " names " in said
                else f"{said[:1].upper()}{said.partition(';')[0][1:]}. It was removed, or belongs to another workspace."
            )
        )


def _follow(job: JobView) -> None:
    """Progress and log, each second while the job lives; its end, and another state, run the whole page again."""
    shown = (job.state, job.attempt)
    if not job.is_live:
        follow_changes(lambda: _changed_at(job.job))

    @st.fragment(run_every=_POLL_S if job.is_live else None)
    @guarded
    def live() -> None:
        address.take_changed()  # how much of the log is shown concerns nothing outside
        now = _as_of_now(job)
        if now is None or ((now.state, now.attempt) != shown and job.is_live):
            st.rerun()
        if progress := job_blocks.progress(now, time.time()):
            st.html(progress)
        _log(job.job)

    live()


def _as_of_now(job: JobView) -> JobView | None:
    """The job as it is now, with its place in the queue; None when it was removed."""
    try:
        return show_job(job.job.workspace_root, job.id)
    except StoreError:
        return None


def _changed_at(job: Job) -> int:
    try:
        return job.folder.stat().st_mtime_ns
    except OSError:
        return 0


def _log(job: Job) -> None:
    """The end of the log, as many lines as the address says."""
    choices = job_log.choices(job)
    codec = one_of(choices, job_log.DEFAULT)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown("**Log**", width="content")
        st.segmented_control(
            "Lines of the log", choices, format_func=_choice, required=True, label_visibility="collapsed",
            width="content", **bound(LINES, codec),
        )  # fmt: skip
    choice = str(address.read(LINES, codec))
    log = job_log.shown(job, choice)
    if not log.lines:
        st.html(note("It has said nothing yet." if not job.done() else "It said nothing."))
        return
    log_view(log.lines, key=f"log.{choice}", label=f"Log of the job, {_choice(choice)}")
    st.html(job_blocks.log_link(log_path(job.id), log.size, str(job.log_path)))


def _choice(choice: str) -> str:
    return "First 100, last 200" if choice == job_log.EXCERPT else f"Last {formats.count(int(choice))}"


def _made(job: JobView, snapshot: Snapshot) -> None:
    """What it made so far, each as a link to the page that shows it, where it is still there."""
    known = {name: a for kind in snapshot.artifacts.values() for a in kind for name in _names(a, job.job)}
    # While it lives only its own notes say what it builds; of these, what is finished.
    names = job_words.made(job.verdict or {}) or [name for name in job.job.artifacts() if name in known]
    if not names:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="job_made"):
        st.markdown("**Made**", width="content")
        for name in names[:_MOST_LINKS]:
            _link(name, known.get(name))
        if len(names) > _MOST_LINKS:
            st.caption(f"and {len(names) - _MOST_LINKS} more", width="content")


def _names(artifact: Artifact, job: Job) -> tuple[str, str]:
    """What a verdict and what the notes of a job call an artifact."""
    return f"{artifact.kind}/{artifact.id}", artifact.path.relative_to(job.workspace_root).as_posix()


def _link(name: str, artifact: Artifact | None) -> None:
    if artifact is None:
        st.caption(f"{formats.plain_markdown(name)} (no longer here)", width="content")
    elif (page := _SHOWN_ON.get(artifact.kind)) is None:
        st.caption(formats.plain_markdown(name), width="content")
    else:
        page_link(page, formats.plain_markdown(artifact.id), icon=PAGES[page][1], **_params(artifact))


def _params(artifact: Artifact) -> dict[str, object]:
    """The parameters of the address under which a page shows an artifact."""
    if artifact.kind == "scores":
        return {address.SCORES: artifact.id}
    if artifact.kind == "checkpoints":
        return {"run": artifact.id}
    if artifact.kind == "selections" and (config := saved_config(artifact)) is not None:
        scores = artifact.manifest.inputs.get("scores")
        return {**({address.SCORES: scores.id} if scores else {}), **address.config_params(config)}
    return {}


def _on_the_command_line(job: JobView) -> None:
    """The same verbs as commands, and where the job lies."""
    short = job_words.short_id(job.id)
    with st.expander("On the command line"):
        ends = ("stop --after-checkpoint", "stop", "stop --kill") if job.is_live else ("remove",)
        again = ("resume",) if job.state in RESUMABLE else ()
        verbs = ("show", "logs --follow", *ends, *again, *(("clone",) if job.spec else ()))
        lines = [shell_command(f"lark jobs {verb} {short}") for verb in verbs]
        st.code("\n".join(lines), language=None)
        facts = [f"Id: {job.id}", f"Folder: {job.job.folder}"]
        facts += [f"Runs in: {job.spec.cwd}"] if job.spec else []
        facts += [f"Cloned from: {job.spec.cloned_from}"] if job.spec and job.spec.cloned_from else []
        for fact in facts:
            st.html(note(fact))
