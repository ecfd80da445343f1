r"""Formulas of untrusted text: what KaTeX may have is let through, every other sign is literal Markdown.

What Markdown makes of it is tested in the browser (`test_trajectory_in_browser.py`).
"""

from __future__ import annotations

import re
import time

import pytest

from app.latex import LONGEST_FORMULA, MOST_FORMULAS, latex_markdown
from benchmarks.pool_texts import HOSTILE_TEXTS, LONG_LINE

JOIN = "\u2060"


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        (r"so \( x^2 \) holds", f"so {JOIN}$x^2${JOIN} holds"),
        (r"so $x^2$ holds", f"so {JOIN}$x^2${JOIN} holds"),
        (r"\[ \frac{1}{2} \]", "$$\n\\frac{1}{2}\n$$"),
        ("$$ a\n= b $$", "$$\na = b\n$$"),
        (
            r"\begin{align*} a &= b \\[4pt] c &= d \end{align*}",
            "$$\n\\begin{aligned} a &= b \\\\  c &= d \\end{aligned}\n$$",
        ),
        (r"\begin{equation} a \end{equation}", "$$\na\n$$"),
        (r"\(50%\)", f"{JOIN}$50\\%${JOIN}"),
        (r"\(\$5\)", f"{JOIN}$\\text{{\\textdollar}}5${JOIN}"),
        ("$5 and $10", r"\$5 and \$10"),
        ("cost $5, tax $3.", r"cost \$5, tax \$3."),
        ("$5-$10", r"\$5\-⁠\$10"),
        (r"a \\( b", r"a \\\\\( b"),
        ("line\n  two\n\nthree", "line\\\n\u00a0\u00a0two\n\nthree"),
    ],
)  # fmt: skip
def test_formulas_are_found_and_money_is_not(text: str, markdown: str) -> None:
    assert latex_markdown(text).markdown.replace("\\.", ".").replace("\\,", ",") == markdown


@pytest.mark.parametrize(
    "tex",
    [
        r"\href{javascript:alert(1)}{x}", r"\url{http://x}", r"\includegraphics{http://x/y.png}", r"\htmlClass{a}{b}",
        r"\htmlStyle{color:red}{x}", r"\rule{2000em}{2000em}", r"\def\x{\x\x}\x", r"\newcommand{\x}{y}", r"\kern9em x",
        r"\hspace{99em}", r"\raisebox{99em}{x}", r"\let\a\b", r"\unknowncommand", r"\llap{x}", r"\Huge x",
        r"\begin{array}{@{\hspace{9em}}l}x\end{array}", r"\begin{tikz}\end{tikz}", "{" * 40 + "}" * 40, "{x", "x}",
        r"a](http://x)", "a`b", r"\left(" * 31 + r"\right)" * 31, "\u202ex", r"x\begin", "\\\\*[99em]x]\\\\[9em",
    ],
)  # fmt: skip
def test_what_links_sizes_defines_or_nests_is_shown_as_code(tex: str) -> None:
    rendered = latex_markdown(rf"before \({tex}\) after")
    assert (rendered.num_formulas, rendered.num_as_code) == (0, 1)
    assert "$" not in rendered.markdown.replace(r"\$", "")
    assert re.fullmatch(rf"before {JOIN}(`+) .* \1{JOIN} after", rendered.markdown)


def test_a_formula_that_is_too_long_is_text_and_one_of_many_is_code() -> None:
    long = latex_markdown(rf"\({'x' * (LONGEST_FORMULA + 1)}\)")
    assert (long.num_formulas, long.num_as_code) == (0, 0) and "$" not in long.markdown
    many = latex_markdown(r"\(x\) " * (MOST_FORMULAS + 7))
    assert (many.num_formulas, many.num_as_code) == (MOST_FORMULAS, 7)


@pytest.mark.parametrize("text", [*HOSTILE_TEXTS, LONG_LINE[:20_000]], ids=range(len(HOSTILE_TEXTS) + 1))
def test_outside_of_formulas_every_sign_of_markdown_is_escaped(text: str) -> None:
    markdown = latex_markdown(text.replace("$", "").replace("\\(", "(")).markdown
    plain = re.sub(r"\\[!-/:-@\[-`{-~]", "", markdown)
    assert re.findall(r"[!-/:-@\[-`{-~]", plain.replace("\\\n", "\n")) == []
    assert not re.search(r"(?i)www|:[a-z/]|->|<-", markdown.replace("\\", ""))
    assert not re.search(r"(?m)^ {4}|^\t", markdown)


@pytest.mark.parametrize("flood", [r"\[", "$", r"\(", "$a ", r"\begin{align}", "`", "\\", "w", "$x$", "\n", "{", "<"])
def test_a_flood_of_openings_takes_no_time(flood: str) -> None:
    started = time.process_time()
    latex_markdown(flood * (10_000 // len(flood)))
    assert time.process_time() - started < 2.0  # about 0.1 s alone
