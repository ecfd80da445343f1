"""The view Problems of the page Evaluate: every answer to a problem, how it was graded, and whether that is right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import streamlit as st

from app import address, problem_blocks, widgets
from app.address import bound, flag, number, one_of
from app.answering import grade_labels, load_answers, load_problems, load_tally
from app.boundary import guarded
from app.comparing import load_graded
from app.components.row_table import row_table
from app.dispute_menu import dispute_menu
from app.eval_run import nothing_graded
from app.problem_blocks import VERDICT_WORDS, verdict_of
from app.regrade import regrade_panel
from app.trajectory_text import show_text
from lark_engine.figures.formats import count
from lark_engine.figures.safe_text import label_markdown, one_line
from lark_engine.results.answers import Answer, GradedProblem, having
from lark_engine.results.graded import Graded
from lark_engine.store.workspace import Workspace

_STYLES = [Path(__file__).parent / "static" / name for name in ("trajectory.css", "compare.css")]
_PAGE_SIZE = 20
_NONE = ""
_OF_SAMPLE = ("atext", "btext")  # pages of the two texts
_OF_PROBLEM = ("sample", "ptext", *_OF_SAMPLE)
_OF_GRADE = ("problem", "ppage", *_OF_PROBLEM)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the address says: a grade, another of the same problems beside it, and which problems are listed."""

    workspace: Workspace
    one: Graded
    beside: Graded | None
    labels: dict[str, str]
    problems: list[GradedProblem]
    listed: list[GradedProblem]


@guarded
def show_problem(workspace: Workspace) -> None:
    """The problems of a grade; an opened one with every answer, the verdicts, and what can be done about them."""
    for style in _STYLES:
        st.html(style)
    graded = load_graded(workspace).graded[::-1]
    if not graded:
        nothing_graded(workspace)
        return
    chosen = _choose(graded)
    if chosen is None:
        return
    one, beside, labels = chosen
    problems = load_problems(one)
    verdict = str(address.read("verdict", one_of(list(VERDICT_WORDS), "all")))
    listed = having(problems, verdict_of(verdict))
    shown = Shown(workspace=workspace, one=one, beside=beside, labels=labels, problems=problems, listed=listed)
    asked = st.query_params.get("problem")
    problem = next((p for p in problems if p.problem_id == asked), None)
    if asked is not None and problem is None:
        st.html(widgets.problem("Not in this grade.", f"There is no problem {one_line(asked, 60)!r}; all are below."))
    if problem is not None:
        _problem(shown, problem)
        return
    _list(shown)
    left, right = st.columns([4, 8], gap="large")
    with left:
        st.subheader("Can the grader be trusted?", anchor=False)
        rules = [str(rule) for rule in one.grade.manifest.config.get("rules", ())]
        st.html(problem_blocks.trust(load_tally(one), rules))
    with right:
        regrade_panel(workspace, one, graded)


def _choose(graded: list[Graded]) -> tuple[Graded, Graded | None, dict[str, str]] | None:
    """The grade that the address names by its id or place, the newest by default, and another one beside it."""
    by_place = {one.place: one for one in graded}
    asked = st.query_params.get("grade")
    by_name = {one.grade.id: one.place for one in graded[::-1]} | {place: place for place in by_place}
    if asked is not None and asked not in by_name:
        st.html(widgets.problem("Not in this workspace.", f"No grade is called {one_line(asked, 120)!r}; choose one."))
    one = by_place[by_name.get(asked or "", graded[0].place)]
    if asked not in by_name:  # named at once, so that the address stays right when newer grades come
        st.query_params["grade"] = one.place
    labels = grade_labels(graded)
    others = {x.place: x for x in graded if x.asked == one.asked and x.place != one.place}
    beside = others.get(by_name.get(st.query_params.get("beside", ""), ""))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="problem_grades"):
        # Their keys are not the parameters: an id of the address stays as it is said.
        st.session_state["grade_menu"] = one.place
        st.selectbox(
            "Graded answers", list(by_place), format_func=lambda place: one_line(labels[place], 120), width=480,
            key="grade_menu", on_change=_put_menu, args=("grade_menu", "grade", others),
        )  # fmt: skip
        if others:
            st.session_state["beside_menu"] = beside.place if beside else _NONE
            st.selectbox(
                "Beside it", [_NONE, *others], width=480, key="beside_menu", on_change=_put_menu,
                args=("beside_menu", "beside", {}),
                format_func=lambda place: one_line(labels[place], 120) if place else "nothing",
            )  # fmt: skip
    return one, beside, labels


def _put_menu(key: str, param: str, others: dict[str, Graded]) -> None:
    place = str(st.session_state[key])
    cleared: dict[str, None] = {}
    if param == "grade" and place not in others:  # of another benchmark: neither the problem nor its neighbor is there
        cleared = dict.fromkeys(("beside", *_OF_GRADE))
    address.put(**{param: place or None}, **cleared)


def _list(shown: Shown) -> None:
    """The problems with a sample of the chosen verdict, a page of them."""
    sizes = {name: len(having(shown.problems, verdict_of(name))) for name in VERDICT_WORDS}
    st.segmented_control(
        "Problems with an answer that is", list(VERDICT_WORDS), required=True,
        format_func=lambda name: f"{VERDICT_WORDS[name]} · {count(sizes[name])}",
        **bound("verdict", one_of(list(VERDICT_WORDS), "all"), clears=("ppage",)),
    )  # fmt: skip
    if not shown.listed:
        st.html(widgets.note("No problem has such an answer."))
        return
    num_pages = -(-len(shown.listed) // _PAGE_SIZE)
    page = min(int(address.read("ppage", number(1, 1e9, 1, integer=True))), num_pages)
    rows = shown.listed[(page - 1) * _PAGE_SIZE : page * _PAGE_SIZE]
    caption = (
        f"Problems {(page - 1) * _PAGE_SIZE + 1} to {(page - 1) * _PAGE_SIZE + len(rows)} of {count(len(shown.listed))}"
    )
    row_table(
        problem_blocks.problem_columns(), [problem_blocks.problem_cells(row) for row in rows], key="problem_rows",
        caption=caption, sort="", descending=False, open_label="Open problem",
        on_event=lambda event: _open(rows[event.row].problem_id),
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{caption} · a row opens its answers", width="content")
        if num_pages > 1:
            key = f"ppage.{page}.{num_pages}"
            st.pagination(num_pages, default=page, key=key, on_change=_turn, args=(key,))


def _turn(key: str) -> None:
    page = int(st.session_state[key])
    address.put(ppage=None if page == 1 else page)


def _open(problem_id: str | None) -> None:
    address.put(problem=problem_id, **dict.fromkeys(_OF_PROBLEM))


def _open_sample(index: int) -> None:
    address.put(sample=index or None, **dict.fromkeys(_OF_SAMPLE))


def _problem(shown: Shown, problem: GradedProblem) -> None:
    """One problem: what was asked, the reference, and the answers of one or two models."""
    sides = [(shown.one, load_answers(shown.one, problem.problem_id), "atext")]
    if shown.beside is not None:
        sides.append((shown.beside, load_answers(shown.beside, problem.problem_id), "btext"))
    indices = sorted({answer.sample_index for _, answers, _ in sides for answer in answers})
    codec = one_of([str(index) for index in indices], str(indices[0]))
    sample = int(address.read("sample", codec))
    latex = bool(address.read("latex", flag()))
    _navigation(shown, problem, indices, sample)
    with st.container(key="trajectory_problem"):
        st.subheader(f"Problem {label_markdown(problem.problem_id, 60)}", anchor=False)
        show_text(problem.prompt, latex=latex, param="ptext", label="problem")
        st.html(problem_blocks.gold(problem))
    signs = problem_blocks.signs([answers for _, answers, _ in sides])
    st.segmented_control(
        "Sample: verdict of the left, and of the right" if shown.beside else "Sample", [str(i) for i in indices],
        format_func=lambda name: f"{name} {signs[int(name)]}", required=True,
        **bound("sample", codec, clears=_OF_SAMPLE),
    )  # fmt: skip
    with st.container(key="graded_answers"), st.container(key="trajectory_text"):
        for column, (one, answers, param) in zip(st.columns(len(sides), gap="medium"), sides, strict=True):
            with column:
                _answers(shown, one, problem, answers, sample, param, latex=latex)


def _navigation(shown: Shown, problem: GradedProblem, indices: list[int], sample: int) -> None:
    """Back to the list, to the problems beside it in the list, and to the next sample."""
    ids = [p.problem_id for p in shown.listed]
    ids = ids if problem.problem_id in ids else [p.problem_id for p in shown.problems]
    place, at = ids.index(problem.problem_id), indices.index(sample)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="problem_nav"):
        st.button("All problems", icon=":material/list:", key="all_problems", on_click=_open, args=(None,))
        _step("Previous problem", "Shift+ArrowUp", "graded_before", ids[place - 1] if place else None, _open)
        after = ids[place + 1] if place + 1 < len(ids) else None
        _step("Next problem", "Shift+ArrowDown", "graded_after", after, _open)
        st.html(widgets.block(f'<span class="muted">{place + 1:,} of {len(ids):,}</span>'), width="content")
        _step("Previous sample", "ArrowLeft", "sample_before", indices[at - 1] if at else None, _open_sample)
        after_sample = indices[at + 1] if at + 1 < len(indices) else None
        _step("Next sample", "ArrowRight", "sample_after", after_sample, _open_sample)
        st.toggle("Render LaTeX", **bound("latex", flag(), clears=("ptext", *_OF_SAMPLE)))


def _step(name: str, keys: str, key: str, target: object, act: object) -> None:
    st.button(name, shortcut=keys, key=key, disabled=target is None, on_click=act, args=(target,))  # type: ignore[arg-type]


def _answers(
    shown: Shown, one: Graded, problem: GradedProblem, answers: list[Answer], sample: int, param: str, *, latex: bool
) -> None:  # fmt: skip
    """Every answer of one model: first the chosen one whole, then of the others the end, where the answer stands."""
    correct = sum(answer.correct for answer in answers)
    if shown.beside is not None:
        st.html(widgets.block(f"<strong>{widgets.text(one_line(shown.labels[one.place], 120))}</strong>"))
    st.html(widgets.note(f"{correct} of {len(answers)} correct"))
    for answer in sorted(answers, key=lambda answer: answer.sample_index != sample):
        is_chosen = answer.sample_index == sample
        with st.container(border=is_chosen, key=f"{param}.sample.{answer.sample_index}"):
            st.html(problem_blocks.heading(answer))
            if not is_chosen:
                st.html(problem_blocks.end_of(answer))
                st.button(
                    f"Open sample {answer.sample_index}", key=f"{param}.open.{answer.sample_index}", type="tertiary",
                    on_click=partial(_open_sample, answer.sample_index), help="Show all of it, and dispute its verdict",
                )  # fmt: skip
                continue
            if answer.dispute:
                st.html(problem_blocks.dispute(answer.dispute, answer.by_rules))
            show_text(answer.text, latex=latex, param=param, label=f"sample {answer.sample_index}")
            dispute_menu(shown.workspace, one, problem.problem_id, answer, key=f"{param}.dispute")
