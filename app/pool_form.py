"""Adding a pool: a path, a dataset of the hub or an upload; a look at it; the import; and what it refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from app import address, job_words, pool_blocks, widgets
from app.address import bound, one_of, read
from app.boundary import reported
from app.config_form import ConfigForm
from app.launch import launch_panel, newest_job
from app.loaders import Snapshot
from app.rejected_panel import rejected_of, rejected_panel
from lark_engine.config import PoolConfig
from lark_engine.errors import ConfigError, PoolError
from lark_engine.figures.safe_text import label_markdown
from lark_engine.jobs.status import JobView
from lark_engine.pool.preview import Preview, preview
from lark_engine.pool.uploads import UPLOAD_TYPES, keep_upload
from lark_engine.results.commands import import_command
from lark_engine.store.workspace import Artifact, Kind, Workspace

FROM = {"path": "Path or dataset id", "upload": "Upload"}
_UPLOADS = "pool.uploads"  # how many files this session has uploaded: each gets a widget of its own
_MOST_MB = 200


def add_pool(workspace: Workspace, snapshot: Snapshot) -> list[list[str]]:
    """The form, the look at the source, the command with its button, and what came of it.

    Returns the commands whose jobs it shows.
    """
    codec = one_of(list(FROM), "path")
    st.segmented_control("From", list(FROM), format_func=FROM.__getitem__, required=True, **bound("from", codec))
    if read("from", codec) == "upload":
        _uploader(workspace)
    form = ConfigForm(config=PoolConfig, prefix="pool", base={}, fixed={})
    values = form.values()
    has_source = bool(values.changed.get("source"))
    if not has_source:  # nothing was typed yet: no mistake
        values = replace(values, problems={n: p for n, p in values.problems.items() if n != "source"})
    form.draw(values, first=("source", "name", "labels"))
    if not has_source:
        st.html(widgets.note("Give a source above: what it holds is shown here before anything is imported."))
        return []
    config = values.config
    if not isinstance(config, PoolConfig):
        return []
    try:
        command = import_command(config, workspace)
    except ConfigError as error:
        st.html(widgets.problem("There is no such source.", str(error)))
        return []
    job = _of_this_content(newest_job(workspace, command), config.source)
    is_refused = job is not None and job.state == "failed" and rejected_of(job) is not None
    refusal = _look(config, is_refused=is_refused)
    launch_panel(workspace, command, "Import", key="pool_import", disabled_because=refusal, is_primary=job is None)
    without = _outcome(workspace, snapshot, config, job) if job is not None and not job.is_live else []
    return [command, *without]


def _uploader(workspace: Workspace) -> None:
    key = f"pool.upload.{st.session_state.get(_UPLOADS, 0)}"
    st.file_uploader(
        f"A file of at most {_MOST_MB} MB: JSON Lines, a JSON list, or Parquet; gzip and zstd are fine",
        type=list(UPLOAD_TYPES), key=key, on_change=_keep, args=(workspace, key),
        help="It is kept in the workspace's folder `uploads`. A larger file need not go through the browser: put it on "
        "this machine and give its path.",
    )  # fmt: skip


@reported
def _keep(workspace: Workspace, key: str) -> None:
    """Write the upload to the workspace, name it as the source, and let go of it: the next widget is a new one."""
    file = st.session_state.get(key)
    if not isinstance(file, UploadedFile):
        return
    st.session_state[_UPLOADS] = st.session_state.get(_UPLOADS, 0) + 1
    try:
        path = keep_upload(file, file.name, workspace)
    finally:
        if (context := get_script_run_ctx()) is not None:  # else Streamlit holds it until the session ends
            context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)
    address.put(**{"pool.source": str(path)})


def _look(config: PoolConfig, *, is_refused: bool) -> str:
    """Show the beginning of the source. Returns why it cannot be imported; empty where nothing is against it."""
    try:
        found = _preview(config.source, config.split, config.revision, _version(config.source))
    except PoolError as error:
        st.html(widgets.problem("This source cannot be imported.", str(error)))
        return "Give a source that can be read"
    st.html(pool_blocks.source_preview(found, skips_bad=config.skip_bad, is_refused=is_refused))
    return ""


def _of_this_content(job: JobView | None, source: str) -> JobView | None:
    """The job, unless the source changed since it ended: what came of it says nothing any more."""
    if job is None or job.ended_at is None or _version(source)[0] / 1e9 <= job.ended_at:
        return job
    return None


def _version(source: str) -> tuple[int, int]:
    """Changes when the file does; of a folder, when something appears in it."""
    try:
        stat = Path(source).expanduser().stat()
    except (OSError, RuntimeError, ValueError):
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@st.cache_data(max_entries=4, ttl=60, show_spinner=False)  # one may hold megabytes of text
def _preview(source: str, split: str, revision: str | None, version: tuple[int, int]) -> Preview:
    return preview(PoolConfig(source=source, split=split, revision=revision))


def _outcome(workspace: Workspace, snapshot: Snapshot, config: PoolConfig, job: JobView) -> list[list[str]]:
    """The pool that the job made; or the lines that it refused, with the command that leaves them out."""
    for pool in made_by(job, "pools", snapshot):
        show_made(pool)
    path = rejected_of(job)
    if job.state != "failed" or path is None or config.skip_bad:
        return []
    return [refused_lines(path, job, workspace, snapshot, prefix="refused")]


def refused_lines(path: Path, refused: JobView, workspace: Workspace, snapshot: Snapshot, *, prefix: str) -> list[str]:
    """The lines that an import refused, and the same command that leaves them out, which is returned."""
    assert refused.spec is not None
    # Before what decides where it runs, as it would be typed.
    *words, place, root = refused.spec.command
    without = [*words, "--skip-bad", place, root]
    if found := made_by(newest_job(workspace, without), "pools", snapshot):
        for pool in found:
            show_made(pool)
        return without
    st.subheader("Rejected lines", anchor=False)
    st.html(
        widgets.note(
            "Nothing was imported. Mend these lines in the source and import again, or leave them out: they are then "
            "counted by reason and listed beside the pool."
        )
    )
    rejected_panel(path, prefix=prefix)
    launch_panel(workspace, without, "Import without these lines", key=f"{prefix}_without")
    return without


def made_by(job: JobView | None, kind: Kind, snapshot: Snapshot) -> list[Artifact]:
    """What of a kind a job that succeeded has made or found, as far as it is still there."""
    names = job_words.made(job.verdict or {}) if job is not None and job.state == "succeeded" else []
    return [artifact for artifact in snapshot.artifacts[kind] if f"{kind}/{artifact.id}" in names]


def show_made(pool: Artifact) -> None:
    """Say that the pool is there, with the way to score it."""
    counts = pool.manifest.counts
    st.success(
        f"Pool {label_markdown(pool.id, 90)} is there: {counts.get('num_trajectories', 0):,} candidates of "
        f"{counts.get('num_problems', 0):,} problems · {sum(pool.manifest.drops.values()):,} lines left out"
    )
    st.button(
        "Score it",
        icon=":material/arrow_forward:",
        key=f"made.{pool.id}",
        on_click=choose_pool,
        args=(pool.id,),
        type="primary",
    )


def choose_pool(pool_id: str) -> None:
    """Go on with scoring this pool."""
    address.put(**{"score.pool": pool_id, "task": "score"})
