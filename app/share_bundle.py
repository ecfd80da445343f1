"""The part Bundle of the page Share: choose what goes out, see it, make it as a job, and hand on what was made."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import bundle_words, widgets
from app.address import bound, flag, many_of, one_of, page_link, read, words
from app.files import shared_path
from app.launch import launch_panel
from app.loaders import Snapshot, load_snapshot, signature
from app.session import current_pair, current_workspace, shell_command
from app.shared_files import remove_menu
from lark_engine.access import visitor
from lark_engine.errors import LarkError
from lark_engine.figures import formats
from lark_engine.results.commands import shell_line
from lark_engine.sharing.bundle import BundlePreview, plan_bundle, preview_bundle, sha256_of
from lark_engine.sharing.bundle_choice import DEPTHS, BundleChoice
from lark_engine.sharing.bundle_format import TEXTS, BundleRecord
from lark_engine.sharing.shared import shared_files
from lark_engine.sharing.unpack import peek
from lark_engine.sharing.views import VIEWS
from lark_engine.store.workspace import Artifact, Workspace

_DEPTH_WORDS = {
    "scores": "Scores", "selections": "Selections", "checkpoints": "Training", "results": "Results",
}  # fmt: skip
_TEXT_WORDS = {"none": "None", "chosen": "Chosen problems", "all": "All"}


def bundle_panel() -> None:
    """Choices, the preview of what goes out, the command that makes it, and the bundles that were made."""
    workspace = current_workspace()
    snapshot = load_snapshot(workspace)
    st.html(widgets.note(
        "A bundle is a part of this workspace as one file. A colleague opens it with lark serve, explores and tunes "
        "it, and changes nothing. Models and their weights stay here."
    ))  # fmt: skip
    if (pair := current_pair()) is not None:
        left, right = st.columns([2, 3], gap="large")
        with left:
            choice = _controls(snapshot, pair.scores.id)
        with right:
            refused = _preview(workspace, choice)
        st.subheader("Make it", anchor=False)
        launch_panel(
            workspace, bundle_command(choice, workspace), "Make this bundle", key="bundle.make",
            icon=":material/inventory_2:",
            help="Writes one zip into the folder shared of this workspace; one of the same name is replaced",
            disabled_because=refused,
        )  # fmt: skip
    else:
        _nothing()
    _made(workspace)


def bundle_command(choice: BundleChoice, workspace: Workspace) -> list[str]:
    """The command that makes a bundle of this choice."""
    command = ["lark", "bundle", "--scores", choice.scores]
    command += [word for name in choice.selections for word in ("--selection", name)]
    command += [] if choice.up_to == "results" else ["--up-to", choice.up_to]
    command += ["--texts", choice.texts]
    command += [word for name in choice.problems for word in ("--problem", name)]
    command += ["--token-stats"] if choice.token_stats else []
    command += [] if choice.redact else ["--no-redact"]
    command += ["--title", choice.title] if choice.title else []
    return [*command, "--workspace", str(workspace.root)]


def _controls(snapshot: Snapshot, scores: str) -> BundleChoice:
    depths = one_of(DEPTHS, "results")
    st.segmented_control(
        "The scores chosen above, and what was made from them up to", DEPTHS, required=True,
        format_func=_DEPTH_WORDS.__getitem__, **bound("bundle_up_to", depths),
    )  # fmt: skip
    up_to = read("bundle_up_to", depths)
    selections: list[str] = []
    if up_to != "scores" and (known := _selections_of(snapshot, scores)):
        selections = st.multiselect(
            "Selections", known, placeholder="All", **bound("bundle_selections", many_of(known)),
            help="Only these, and what was trained on them",
        )  # fmt: skip
    texts_codec = one_of(TEXTS, "none")
    st.segmented_control(
        "Texts", TEXTS, format_func=_TEXT_WORDS.__getitem__, required=True, **bound("bundle_texts", texts_codec),
        help="Problems, responses and answers. Without them every number and figure is there, and no text.",
    )  # fmt: skip
    texts = read("bundle_texts", texts_codec)
    problems: list[str] = []
    token_stats = False
    if texts == "chosen":
        said = st.text_area(
            "Problems, one a line", **bound("bundle_problems", words(4000)), height=110,
            placeholder="17\nmath500:42", help="An id of the pool, or BENCHMARK:ID of what was evaluated",
        )  # fmt: skip
        problems = list(dict.fromkeys(line.strip() for line in str(said).splitlines() if line.strip()))
    if texts != "none":
        token_stats = st.checkbox("With the statistics of their tokens", **bound("bundle_tokens", flag()))
    as_is = st.toggle(
        "Keep paths, hosts and users", **bound("bundle_as_is", flag()),
        help="By default they are replaced in everything that goes out",
    )  # fmt: skip
    title = st.text_input("Title", **bound("bundle_title", words(120)), placeholder="What there is to see")
    return BundleChoice(
        scores=scores, selections=tuple(selections), up_to=up_to, texts=texts, problems=tuple(problems),
        token_stats=token_stats, redact=not as_is, title=" ".join(str(title).split()),
    )  # fmt: skip


def _selections_of(snapshot: Snapshot, scores: str) -> list[str]:
    def is_of(artifact: Artifact) -> bool:
        return any(ref.id == scores for ref in artifact.manifest.inputs.values())

    return [artifact.id for artifact in snapshot.artifacts["selections"] if is_of(artifact)]


def _preview(workspace: Workspace, choice: BundleChoice) -> str:
    """Show what goes out; returns why it cannot."""
    st.subheader("What goes out", anchor=False)
    try:
        found = _previewed(str(workspace.root), choice.model_dump_json(), _state(workspace))
    except LarkError as error:
        st.html(widgets.problem("This cannot be bundled.", str(error)))
        return str(error)
    st.html(bundle_words.summary(found, choice))
    with st.expander(f"{len(found.files)} files"):
        st.html(bundle_words.files(found))
    # What is replaced are paths and names: they are for those who may send them.
    if choice.redact and "launch" in visitor().may and found.replaced:
        with st.expander(f"{formats.count(len(found.replaced))} paths, hosts and names are replaced"):
            st.html(bundle_words.replaced(found))
    return ""


@st.cache_resource(max_entries=8, show_spinner="Looking at what goes out …")
def _previewed(root: str, choice: str, version: object) -> BundlePreview:
    return preview_bundle(plan_bundle(BundleChoice.model_validate_json(choice), Workspace(root)))


def _state(workspace: Workspace) -> tuple[str, int]:
    """A value that changes with the artifacts and the saved views."""
    views = workspace.root / VIEWS
    return signature(workspace), views.stat().st_mtime_ns if views.is_dir() else 0


def _nothing() -> None:
    with st.container(border=True, key="no_bundle"):
        st.subheader("Nothing is scored yet", anchor=False)
        st.html(widgets.note("A bundle begins with scores: import a pool and score it, or open the demo."))
        page_link("score", "Import and score a pool", icon=":material/speed:")
        st.code(shell_command("lark demo"), language=None)


def _made(workspace: Workspace) -> None:
    """The bundles in the folder `shared`: what each holds, its checksum, and how it is handed on or removed."""
    bundles = [
        (file, record) for file in shared_files(workspace)
        if file.path.suffix == ".zip" and (record := _record(str(file.path), file.modified_at, file.num_bytes))
    ]  # fmt: skip
    if not bundles:
        return
    st.subheader("Bundles made", anchor=False)
    for file, record in bundles:
        with st.container(border=True, key=f"bundle.{file.name}", gap="small"):
            digest = _digest(str(file.path), file.modified_at, file.num_bytes)
            left, right = st.columns([5, 2], gap="medium", vertical_alignment="center")
            left.html(bundle_words.made(file, record, digest, shared_path(file.name)))
            with right.container(horizontal_alignment="right", key=f"bundle.actions.{file.name}"):
                remove_menu(file, key=f"bundle.remove.{file.name}")
            st.code(shell_line(["lark", "serve", file.name]), language=None, wrap_lines=True)


@st.cache_resource(max_entries=200, show_spinner=False)
def _record(path: str, modified_at: float, num_bytes: int) -> BundleRecord | None:
    return peek(Path(path))


@st.cache_resource(max_entries=200, show_spinner=False)
def _digest(path: str, modified_at: float, num_bytes: int) -> str:
    try:
        return sha256_of(Path(path))
    except OSError:
        return ""
