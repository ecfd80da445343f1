"""What is around every page: the header that says what is looked at, the links between pages, empty states."""

from __future__ import annotations

import shlex
from pathlib import Path

import streamlit as st
from pydantic import ValidationError

from app import address, widgets
from app.address import bound, one_of, page_link, read_config
from app.boundary import guarded, show_refusal
from app.components.copy_link import copy_link
from app.loaders import Snapshot, disputes_version, load_health, load_snapshot, signature
from app.save_view import save_view_menu
from app.session import (
    ScoredPair,
    current_bundle,
    current_pair,
    current_workspace,
    scored_pairs,
    shell_command,
    shown_root,
)
from lark_engine.access import Capability, visitor
from lark_engine.config import SelectConfig
from lark_engine.figures import formats
from lark_engine.selection.select import plan_select, rule_name
from lark_engine.store.workspace import Artifact

PAGES: dict[address.Page, tuple[str, str]] = {
    "overview": ("Overview", ":material/space_dashboard:"),
    "score": ("Pool and scores", ":material/database_upload:"),
    "explore": ("Explore", ":material/scatter_plot:"),
    "trajectory": ("Trajectory", ":material/article:"),
    "tune": ("Tune", ":material/tune:"),
    "train": ("Train", ":material/model_training:"),
    "evaluate": ("Evaluate", ":material/leaderboard:"),
    "jobs": ("Jobs", ":material/list_alt:"),
    "share": ("Share", ":material/share:"),
}
_FOLLOW_S = 3.0
_HELP = Path(__file__).parent / "static" / "help.md"


def sidebar() -> None:
    """Links to all pages with the current scores and selection, and where the workspace is."""
    with st.sidebar:
        for page, (label, icon) in PAGES.items():
            page_link(page, label, icon=icon)
        workspace = current_workspace()
        st.html(widgets.environment(shown_root(), load_health(workspace), current_bundle()))


def header(page: address.Page) -> None:
    """Workspace · pool · student · selection, with buttons that copy the address and save the view, and help."""
    snapshot = load_snapshot(current_workspace())
    pairs = scored_pairs(snapshot)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="lark_header"):
        st.html(widgets.place(shown_root(), current_bundle()), width="content")
        if pairs:
            _scores_menu(pairs)
            pair = current_pair()
            assert pair is not None
            _selection_menu(snapshot, pair)
        copy_link()
        save_view_menu(page, PAGES[page][0])
        if st.button("Help", icon=":material/help:", type="tertiary", shortcut="h", key="help"):
            _help()
    show_refusal()


@st.dialog("Help")
def _help() -> None:
    st.markdown(_HELP.read_text(encoding="utf-8"))


def follow() -> None:
    """Run the page again when any process finished, removed or renewed an artifact."""
    workspace = current_workspace()
    shown = signature(workspace), disputes_version(workspace)

    @st.fragment(run_every=_FOLLOW_S)
    @guarded
    def look() -> None:
        if (signature(workspace), disputes_version(workspace)) != shown:
            st.rerun()

    look()


def _scores_menu(pairs: dict[str, ScoredPair]) -> None:
    """Which scores: named in the address at once, so that the address stays right when newer ones come."""
    asked = st.query_params.get(address.SCORES)
    newest = next(iter(pairs))
    if asked not in pairs:
        st.query_params[address.SCORES] = newest
        if asked is not None:
            st.toast(f"The address names scores that are not here; showing {formats.plain_markdown(newest)}.")
    st.selectbox(
        "Pool and student", list(pairs), label_visibility="collapsed", width=330,
        help="Scores: a pool as one student sees it", **bound(address.SCORES, one_of(list(pairs), None)),
    )  # fmt: skip


def _selection_menu(snapshot: Snapshot, pair: ScoredPair) -> None:
    """The selection that the address describes, whether it is saved, and the saved ones to open."""
    config = read_config()
    planned = plan_select(config, pair.scores, pair.pool).fingerprint
    saved = [
        artifact
        for artifact in snapshot.artifacts["selections"]
        if artifact.manifest.inputs.get("scores") == pair.scores.ref
    ]
    is_saved = any(artifact.fingerprint == planned for artifact in saved)
    name = formats.plain_markdown(rule_name(config))
    icon = ":material/bookmark_added:" if is_saved else ":material/bookmark:"
    with st.popover(name, icon=icon, help="Saved" if is_saved else "Not saved yet: the page Tune saves it"):
        st.caption("Saved selections of these scores" if saved else "No selection of these scores is saved yet.")
        for artifact in saved[:30]:
            if (said := saved_config(artifact)) is not None:
                # All parameters of the selection anew: what the other one leaves at its default must not stay.
                params = {address.SCORES: pair.scores.id, **address.config_params(said)}
                label = formats.plain_markdown(artifact.id)
                st.page_link(str(address.PAGES_DIR / "tune.py"), label=label, query_params=params)


def saved_config(selection: Artifact) -> SelectConfig | None:
    """The options that a selection was made with; None when no page can show it."""
    try:
        config = SelectConfig.model_validate(selection.manifest.config)
    except ValidationError:
        return None
    # Rows that the rule did not choose are of the released format's making: no page shows them.
    return None if config.keep_zero_weight or config.uniform_if_no_energy else config


def empty_state(title: str, sentence: str, command: str = "", *pages: address.Page) -> None:
    """What to do when there is nothing to show yet: the command that does it, and links to the pages that do it too."""
    with st.container(border=True, key="empty_state"):
        st.subheader(title, anchor=False)
        st.html(widgets.note(sentence))
        if command:
            st.code(shell_command(command), language=None, wrap_lines=True)
        for page in pages:
            label, icon = PAGES[page]
            page_link(page, label, icon=icon)


def is_closed(capability: Capability, label: str, command: str) -> bool:
    """Whether the visitor may not do this here; then it says why, with the command for a workspace of their own.

    For forms whose fields name files of this machine: who may start nothing has no business asking what they hold.
    """
    refusal = visitor().why_not(capability)
    if not refusal:
        return False
    st.button(label, disabled=True, help=formats.plain_markdown(refusal), key=f"closed.{label}")
    st.html(widgets.note(f"{refusal} In a workspace of your own the same is done by:"))
    st.code(command, language=None, wrap_lines=True)
    return True


def nothing_scored() -> None:
    """The empty state of the pages that need scores; the page runs again when there are some."""
    artifacts = load_snapshot(current_workspace()).artifacts
    if artifacts["scores"]:
        lost = artifacts["scores"][0]
        pool = lost.manifest.inputs["pool"].id if "pool" in lost.manifest.inputs else "its pool"
        empty_state(
            "The pool of these scores is gone",
            f"{lost.id} was made from {pool}, which is not in this workspace. Import the pool again from the same "
            "source: it gets the same id, and the scores fit it.",
            "lark pool import FILE", "score",
        )  # fmt: skip
    elif artifacts["pools"]:
        empty_state(
            "Nothing is scored yet",
            "One forward pass of your student gives every candidate its ĝ. This page follows by itself.",
            f"lark score --pool {shlex.quote(artifacts['pools'][0].id)} --student STUDENT", "score",
        )  # fmt: skip
    else:
        empty_state(
            "No pool yet",
            "Import candidate trajectories and score them under a student, or see it all on the embedded demo.",
            "make demo", "score", "overview",
        )  # fmt: skip
