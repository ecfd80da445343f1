"""Compare and Problems in a real browser: from a square of the matrix to an answer, a dispute, and grading again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import axe, board_meta, dashboard, open_page, overflow, plot, wait_idle, wait_meta
from graded_workspace import compared, place_of

from lark_engine.store.workspace import Artifact, Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return compared(tmp_path_factory.mktemp("compared") / "workspace")


@pytest.fixture(scope="module")
def studio(made: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LARK_LEASES", str(tmp_path_factory.mktemp("leases")))
        with dashboard(Workspace(made["base"].path.parents[4])) as address:
            yield f"{address}/evaluate"


def rows(page: Any) -> list[str]:
    return page.locator(".lark-rows tbody tr button.open").all_inner_texts()


def click_square(page: Any, a: int, b: int) -> None:
    """Click the square of the problems with so many correct samples of A and B, beside its number."""
    cells = [cell[:2] for cell in board_meta(page, "matrix")["cells"]]
    square = plot(page, "matrix").locator(".bars .point path").nth(cells.index([a, b]))
    square.scroll_into_view_if_needed()
    box = square.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 5, box["y"] + box["height"] / 5)


def test_from_a_square_to_a_dispute_that_changes_the_verdict(browser: Any, studio: str) -> None:
    with open_page(browser, f"{studio}?view=compare&a=tiny&on=gsm8k") as page:
        assert wait_meta(page, "matrix", cell=None)["cells"] == [[0, 0, 1], [0, 2, 1], [1, 1, 1], [1, 2, 1]]
        assert "B − A = +37.5 points" in page.locator(".lark-verdict .verdict").inner_text()
        click_square(page, 0, 0)
        wait_meta(page, "matrix", cell=[0, 0])
        wait_idle(page)
        assert rows(page) == ["p2"]
        page.get_by_role("button", name="Open problem p2").click()
        answers = page.locator(".st-key-graded_answers")
        answers.wait_for()
        page.go_back()  # one step, though several parameters changed
        wait_meta(page, "matrix", cell=[0, 0])
        wait_idle(page)
        page.get_by_role("button", name="Open problem p2").click()
        answers.get_by_text("0 of 2 correct").nth(1).wait_for()
        assert answers.locator(".lark-sample").count() == 4

        page.get_by_role("button", name="Dispute").nth(1).click()
        page.get_by_label("Why").fill("two is right as well")
        page.get_by_role("button", name="Record the verdict").click()
        answers.get_by_text("✓ correct ‡").wait_for()
        assert answers.get_by_text("1 of 2 correct").count() == 1
        assert answers.get_by_text("‡ correct: two is right as well").count() >= 1
        wait_idle(page)

        page.get_by_role("radiogroup", name="View").get_by_text("Compare").click()
        wait_meta(page, "matrix", n=4, cell=None)
        wait_idle(page)
        assert board_meta(page, "matrix")["cells"] == [[0, 1, 1], [0, 2, 1], [1, 1, 1], [1, 2, 1]]
        assert "B − A = +50.0 points" in page.locator(".lark-verdict .verdict").inner_text()
        assert rows(page) == ["p1", "p0", "p2", "p3"]


def test_the_same_answers_are_graded_again_by_a_job_and_compared(
    browser: Any, studio: str, made: dict[str, Artifact]
) -> None:
    grades = made["base"].path.parent
    with open_page(
        browser, f"{studio}?view=problems&grade={place_of(made['base'])}&regrade.rules=answer_phrase"
    ) as page:
        page.get_by_role("button", name="Grade again").click()
        page.get_by_role("button", name="Compare with the one graded by phrase").wait_for(timeout=60_000)
        assert sorted(folder.name.rpartition("-")[0] for folder in grades.iterdir() if folder.is_dir()) == [
            "answer_phrase", "boxed-answer_phrase-letter",
        ]  # fmt: skip
        wait_idle(page)
        page.get_by_role("button", name="Compare with the one graded by phrase").click()
        page.get_by_text("A and B grade the same answers. 2 verdicts differ").wait_for()
        wait_idle(page)
        assert axe(page) == []


@pytest.mark.parametrize("width", [320, 1440])
@pytest.mark.parametrize("query", ["view=compare&a=tiny", "view=problems", "view=problems&problem=p0"])
def test_no_width_overflows_and_axe_finds_nothing(
    browser: Any, studio: str, made: dict[str, Artifact], query: str, width: int
) -> None:
    address = f"{studio}?{query}&grade={place_of(made['base'])}&beside={place_of(made['trained'])}"
    with open_page(browser, address, width=width, scheme="dark" if width == 320 else "light") as page:
        assert overflow(page) <= 0
        assert axe(page) == []


def test_keys_lead_from_answer_to_answer(browser: Any, studio: str, made: dict[str, Artifact]) -> None:
    with open_page(browser, f"{studio}?view=problems&grade={place_of(made['base'])}&problem=p0") as page:
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**sample=1**")
        page.keyboard.press("Shift+ArrowDown")
        page.wait_for_url("**problem=p1**")
        wait_idle(page)
        assert "sample=" not in page.url
