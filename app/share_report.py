"""The part Report of the page Share: what goes into the file, a preview of what goes out, and the reports made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import streamlit as st

from app import address, widgets
from app.address import Codec, bound, flag, many_of, number, one_of, pack, read, words
from app.boundary import guarded
from app.comparing import load_sides, version_of
from app.launch import launch_panel
from app.runs import load_runs
from app.scored import ScoredPool, load_scored
from app.session import current_pair, current_scored, current_workspace
from app.shared_files import shared_list
from app.shell import saved_config
from lark_engine.access import visitor
from lark_engine.config import ReportConfig
from lark_engine.config.report import BLOCKS, ReportFormat, Texts
from lark_engine.errors import ConfigError, LarkError
from lark_engine.figures import formats
from lark_engine.figures.safe_text import label_markdown, one_line
from lark_engine.figures.tuning import budget_text
from lark_engine.sharing.report import SUFFIXES, TITLES, Preview, make_report
from lark_engine.sharing.report_commands import report_command
from lark_engine.sharing.report_material import Material
from lark_engine.store.workspace import Workspace

_TEXTS: dict[Texts, str] = {"none": "None", "chosen": "Chosen problems", "all": "All examples"}
_FORMATS: dict[ReportFormat, str] = {
    "html": "HTML", "markdown": "Markdown", "csv": "CSV of results", "latex": "LaTeX of results",
    "all": "All, as a zip",
}  # fmt: skip
_MOST_IDS = 1000
_NAME = words(1000)


@guarded
def report_panel() -> None:
    """Choose what goes into a report, see what goes out, make it, and take the file."""
    workspace = current_workspace()
    st.html(widgets.note("One file that opens offline in any browser, prints well and loads nothing: for somebody who "
                         "has no access to this server."))  # fmt: skip
    values = _choices(workspace)
    try:
        config = ReportConfig.parse(values, "This report")
    except ConfigError as error:
        st.html(widgets.problem("These choices contradict each other.", str(error)))
        return
    _preview_panel(workspace, config)
    command = report_command(config, workspace)
    launch_panel(workspace, command, "Make the report", key="make_report", icon=":material/description:")
    shared_list(workspace, tuple(SUFFIXES.values()), "Reports made", "No report is made yet.", key="reports")


def _choices(workspace: Workspace) -> dict[str, Any]:
    """The options that the address says, as the command line has them; what is at its default is left out."""
    with st.container(border=True, key="report_choices"):
        st.text_input("Title", placeholder="what it is about", max_chars=200, **bound("r_title", words(200)))
        st.pills(
            "Blocks (all, unless some are chosen)", BLOCKS, selection_mode="multi", format_func=TITLES.__getitem__,
            help="Those that there is nothing for are left out, with the reason", **bound("r_block", many_of(BLOCKS)),
        )  # fmt: skip
        scored = current_scored()
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            _selection_choices(workspace, scored)
            _run_choice(workspace)
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            _result_choices(workspace)
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            _text_choices(scored)
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            st.segmented_control(
                "File", list(_FORMATS), format_func=_FORMATS.__getitem__, required=True,
                **bound("r_format", one_of(get_args(ReportFormat), "html")),
            )  # fmt: skip
            st.toggle(
                "Keep paths, hosts and users", help="By default they are replaced in everything that goes out",
                **bound("r_keep", flag()),
            )  # fmt: skip
    pair = current_pair()
    said = {
        "title": read("r_title", words(200)), "block": tuple(read("r_block", many_of(BLOCKS))),
        "scores": pair.scores.id if pair and st.query_params.get(address.SCORES) else None,
        "selection_a": read("r_a", _NAME), "selection_b": read("r_a", _NAME) and read("r_b", _NAME),
        "run": read("r_run", _NAME),
        "compare_a": read("r_ca", _NAME), "compare_b": read("r_cb", _NAME),
        "texts": read("r_texts", one_of(get_args(Texts), "none")), "problem": tuple(read("r_problem", _IDS)),
        "num_problems": read("r_examples", _EXAMPLES), "redact": not read("r_keep", flag()),
        "format": read("r_format", one_of(get_args(ReportFormat), "html")),
    }  # fmt: skip
    return {name: value for name, value in said.items() if value not in ("", None, ())}


_IDS = Codec(read=lambda said: list(dict.fromkeys(said))[:_MOST_IDS], write=lambda value: list(value or ()), default=[])
_EXAMPLES = number(1, 500, 10, integer=True)


def _selection_choices(workspace: Workspace, scored: ScoredPool | None) -> None:
    """Selections A and B: saved ones, the pinned ones, and what the pages show now."""
    if scored is None:
        return
    if "r_a" not in st.query_params and (pinned := read("pin_a", words(20_000))):  # what is compared on Tune
        address.put(r_a=pinned, r_b=read("pin_b", words(20_000)) or None)
    labels = {"": "the newest saved"}
    for saved in workspace.list("selections"):
        config = saved_config(saved) if saved.manifest.inputs.get("scores") == scored.scores.ref else None
        if config is not None:
            labels[saved.id] = f"{budget_text(config)} · saved {saved.fingerprint[:6]}"
    for param, name in (("pin_a", "pinned A"), ("pin_b", "pinned B")):
        if packed := read(param, words(20_000)):
            labels.setdefault(packed, f"{budget_text(address.unpack(packed))} · {name}")
    now = address.read_config()
    labels.setdefault(pack(now), f"{budget_text(now)} · as the pages show")
    _menu("Selection A", "r_a", labels)
    if read("r_a", _NAME):
        _menu("Selection B, against A", "r_b", {**labels, "": "none"})


def _run_choice(workspace: Workspace) -> None:
    runs = [run for run in load_runs(workspace) if run.events_path is not None]
    if runs:
        _menu(
            "Training run",
            "r_run",
            {"": "the newest on these scores", **{run.id: f"{run.id} · {run.state}" for run in runs}},
        )


def _result_choices(workspace: Workspace) -> None:
    """The two sides of the comparison of results."""
    sides = load_sides(workspace)
    if len(sides.choices) >= 2:
        labels = {"": "the newest trained, and its student", **sides.labels}
        _menu("Compare results: A", "r_ca", labels)
        if read("r_ca", _NAME):
            _menu("B", "r_cb", {**labels, "": "choose one"})


def _menu(label: str, param: str, labels: dict[str, str]) -> None:
    """A menu of names that the address holds; one that it does not list stays as it is said."""
    asked = read(param, _NAME)
    labels = labels if asked in labels else {**labels, asked: asked}
    # Also the default is written: left out it would follow what is pinned.
    codec = replace(one_of(list(labels), ""), write=lambda value: [str(value)])
    st.selectbox(
        label, list(labels), format_func=lambda name: one_line(labels[name], 80), width=300, **bound(param, codec)
    )


def _text_choices(scored: ScoredPool | None) -> None:
    """Whose texts go out: none by default."""
    st.segmented_control(
        "Texts", list(_TEXTS), format_func=_TEXTS.__getitem__, required=True,
        **bound("r_texts", one_of(get_args(Texts), "none")),
    )  # fmt: skip
    known = [] if scored is None else [str(name) for name in scored.problem_ids[:_MOST_IDS]]
    chosen = read("r_problem", _IDS)
    st.multiselect(
        "Problems by id", list(dict.fromkeys([*chosen, *known])), accept_new_options=True, width=360,
        format_func=lambda name: label_markdown(str(name), 60), placeholder="those that tell most",
        **bound("r_problem", _IDS),
    )  # fmt: skip
    st.number_input("Examples", min_value=1, max_value=500, width=120, **bound("r_examples", _EXAMPLES))


def _preview_panel(workspace: Workspace, config: ReportConfig) -> None:
    """What goes out, block by block, and what is replaced in it."""
    st.subheader("What goes out", anchor=False)
    try:
        preview = _preview(str(workspace.root), version_of(workspace), config.model_dump_json(), config)
    except LarkError as error:
        st.html(widgets.problem("This report cannot be made.", str(error)))
        return
    st.html(_preview_html(preview))
    if not config.redact:
        st.html(widgets.problem("Nothing is replaced:", "paths, hosts and users stand in the file as they are."))
    elif preview.replaced:
        with st.expander(f"Replaced: {formats.count(sum(preview.replaced.values()))} places"):
            st.html(_replaced_html(preview))


@st.cache_data(max_entries=16, show_spinner="Looking at what goes out…")
def _preview(root: str, version: object, key: str, _config: ReportConfig) -> Preview:
    return make_report(Material(Workspace(root), _config, read=load_scored)).preview


def _preview_html(preview: Preview) -> str:
    rows = "".join(
        f"<tr><td>{widgets.text(block.title)}</td><td>{block.num_figures or '–'}</td><td>{block.num_tables or '–'}</td>"
        f"<td>{block.num_texts or '–'}</td><td>{formats.size(block.num_bytes)}</td></tr>"
        for block in preview.blocks
    )
    rows += "".join(
        f'<tr class="muted"><td>{widgets.text(name)}</td><td colspan="4">not there: {widgets.text(why)}</td></tr>'
        for name, why in preview.left_out.items()
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Block", "Figures", "Tables", "Texts", "Size"))
    total = f"{formats.size(preview.num_bytes)} in all, {formats.count(preview.num_texts)} texts of problems"
    return widgets.block(
        f'<p><strong>{widgets.text(preview.target.name)}</strong> <span class="muted">{total}</span></p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="What goes out"><table class="lark-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>",
        "lark-report-preview",
    )


def _replaced_html(preview: Preview) -> str:
    """What was replaced by what. Only who may write here sees what stood there: to others it is not to be told."""
    shows = "launch" in visitor().may
    rows = "".join(
        f"<tr><td>{widgets.text(what.kind)}</td><td>{widgets.text(one_line(what.original, 120)) if shows else '…'}</td>"
        f"<td>{widgets.text(what.replacement)}</td><td>{formats.count(count)}</td></tr>"
        for what, count in sorted(preview.replaced.items(), key=lambda item: -item[1])
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Kind", "Stands there", "In the file", "Times"))
    return widgets.block(
        '<div class="scroll" role="region" tabindex="0" aria-label="Replaced"><table class="lark-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
