"""Untrusted text with its formulas rendered, as Markdown in which every other sign stands for itself.

Only formulas of known commands are left to KaTeX; no link, image, heading or directive of the text comes through.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lark_engine.figures.safe_text import HIDDEN, visible

LATEX_PAGE_CHARS = 10_000
LONGEST_FORMULA = 2_000
MOST_FORMULAS = 250
_DEEPEST = 30
_JOIN = "\u2060"  # word joiner: invisible, and no autolink, directive or arrow reaches over it

_ENVIRONMENTS = (
    "equation", "align", "aligned", "gather", "gathered", "alignat", "alignedat", "cases", "rcases", "matrix",
    "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array", "split",
)  # fmt: skip
_OUTER = "|".join(rf"{name}\*?" for name in ("equation", "align", "gather"))
_ANY = f".{{1,{LONGEST_FORMULA}}}?"
_MATH = re.compile(
    rf"(?<!\\)\\\[(?P<square>{_ANY})(?<!\\)\\\]"
    rf"|(?<!\\)\\\((?P<round>{_ANY})(?<!\\)\\\)"
    rf"|(?<![\\$])\$\$(?P<display>[^$]{{1,{LONGEST_FORMULA}}})\$\$"
    rf"|(?P<outer>\\begin\{{(?P<name>{_OUTER})\}}{_ANY}\\end\{{(?P=name)\}})"
    rf"|(?<![\\$\w])\$(?P<inline>(?! )[^$\n]{{1,{LONGEST_FORMULA}}}(?<![ \\]))\$(?![\d$])",
    re.DOTALL,
)
_COMMAND = re.compile(r"\\([a-zA-Z]+|.|$)", re.DOTALL)
_SIGNS = frozenset(",;:!>{}|%#&_ \\")
_WORDS = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi omicron pi varpi rho
varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
aleph beth hbar ell wp Re Im imath jmath nabla partial infty emptyset varnothing forall exists nexists neg lnot top
bot angle measuredangle triangle square Box Diamond diamond star ast circ bullet cdot cdots ldots dots vdots ddots
dotsb dotsc times div pm mp oplus ominus otimes odot cup cap sqcup sqcap vee wedge land lor setminus smallsetminus
bigcup bigcap bigvee bigwedge bigoplus bigotimes sum prod coprod int iint iiint oint lim limsup liminf sup inf max min
arg det dim exp gcd hom ker lg ln log Pr sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan deg mod bmod
pmod pod operatorname le leq leqslant ge geq geqslant lt gt ne neq equiv sim simeq approx cong propto asymp doteq
models perp parallel nparallel mid nmid in notin ni subset subseteq subsetneq supset supseteq supsetneq nsubseteq prec
preceq succ succeq ll gg to gets leftarrow rightarrow leftrightarrow Leftarrow Rightarrow Leftrightarrow longleftarrow
longrightarrow longleftrightarrow Longleftarrow Longrightarrow Longleftrightarrow mapsto longmapsto hookrightarrow
uparrow downarrow updownarrow Uparrow Downarrow nearrow searrow swarrow nwarrow implies impliedby iff therefore
because vdash vDash rightharpoonup rightleftharpoons xrightarrow xleftarrow frac dfrac tfrac cfrac binom dbinom tbinom
sqrt root of over choose stackrel overset underset overline underline widehat widetilde hat tilde bar vec dot ddot
breve check acute grave mathring overbrace underbrace overrightarrow overleftarrow boxed fbox cancel bcancel xcancel
not text textbf textit textrm textsf texttt textnormal mbox mathrm mathbf mathit mathsf mathtt mathbb mathcal mathfrak
mathscr boldsymbol bm bold rm bf it displaystyle textstyle scriptstyle limits nolimits substack left right middle big
Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr lfloor rfloor lceil rceil langle rangle lvert rvert lVert
rVert vert Vert lbrace rbrace lbrack rbrack backslash prime degree checkmark dagger ddagger quad qquad enspace
thinspace medspace thickspace space nobreakspace begin end hline tag notag nonumber colon blacksquare blacktriangle
lozenge clubsuit diamondsuit heartsuit spadesuit S P copyright pounds yen
"""
_COMMANDS = frozenset(_WORDS.split())


class Rendered(NamedTuple):
    """Markdown of a text, how many formulas it holds, and how many are shown as code instead."""

    markdown: str
    num_formulas: int
    num_as_code: int


def latex_markdown(text: str) -> Rendered:
    r"""Markdown that shows the text literally, line by line, and its formulas in `$`.

    Formulas are `\( \)`, `\[ \]`, `$ $`, `$$ $$` and the outer environments. One of unknown or sizing commands, too
    long or nested too deep is shown as code.
    """
    blocks: list[str] = []
    running: list[str] = []
    place = num_formulas = num_as_code = 0
    for found in _MATH.finditer(text):
        tex = _safe_math(_inside(found)) if num_formulas < MOST_FORMULAS else None
        running.append(_literal(text[place : found.start()]))
        place = found.end()
        if tex is None:
            num_as_code += 1
            running.append(_code(found[0]))
            continue
        num_formulas += 1
        if found["round"] is not None or found["inline"] is not None:
            running.append(f"{_JOIN}${tex}${_JOIN}")
        else:
            blocks += [_lines("".join(running)), f"$$\n{tex}\n$$"]
            running = []
    running.append(_literal(text[place:]))
    blocks.append(_lines("".join(running)))
    return Rendered("\n\n".join(block for block in blocks if block.strip()), num_formulas, num_as_code)


def _literal(text: str) -> str:
    """Every sign of Markdown stands for itself."""
    escaped = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", visible(text))
    # Streamlit makes icons, colors, links and arrows of what is still in the text after Markdown was read.
    escaped = re.sub(r"(\\[:<>=~-])", rf"\1{_JOIN}", escaped)
    return re.sub(r"(?i)w(?=ww)", lambda found: f"{found[0]}{_JOIN}", escaped.replace("\\@", f"{_JOIN}\\@"))


def _lines(escaped: str) -> str:
    """Lines that stay lines, and keep their indents without becoming code."""
    lines = escaped.expandtabs(4).split("\n")
    shown = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        body = line.strip(" ")
        indent = "\u00a0" * (len(line) - len(line.lstrip(" ")))
        shown.append(f"{indent}{body}\\" if body and following.strip() else f"{indent}{body}" if body else "")
    return "\n".join(shown)


def _inside(found: re.Match[str]) -> str:
    if found["outer"] is None:
        return next(found[name] for name in ("square", "round", "display", "inline") if found[name] is not None)
    # Inside of $$ the outer environments are not allowed; what they align, `aligned` does.
    inner = {"align": "aligned", "gather": "gathered"}.get(found["name"].rstrip("*"))
    name = re.escape(found["name"])
    body = re.sub(rf"^\\begin\{{{name}\}}|\\end\{{{name}\}}$", "", found[0])
    return rf"\begin{{{inner}}}{body}\end{{{inner}}}" if inner else body


def _safe_math(tex: str) -> str | None:
    """The formula on one line if KaTeX may have it: known commands, no sizes, no links, bounded depth."""
    tex = " ".join(tex.replace(r"\$", r"\text{\textdollar}").split())
    tex = re.sub(r"\\\\\*?\s*\[[^\]]*\]", r"\\\\ ", tex)  # the size of a gap between rows
    tex = re.sub(r"(?<!\\)((?:\\\\)*)%", r"\1\\%", tex)  # a comment in TeX; a percent sign in answers
    if not tex or len(tex) > LONGEST_FORMULA or HIDDEN.search(tex) or re.search(r"[$`]|\]\(|://|www\.|@", tex):
        return None
    if re.search(r"\\\\\*?\s*\[", tex):
        return None
    depth = lefts = 0
    for name in _COMMAND.findall(tex):
        if name not in _COMMANDS and name not in _SIGNS and name != "textdollar":
            return None
        lefts += name == "left"
    for sign in re.findall(r"(?<!\\)(?:\\\\)*([{}])", tex):
        depth += 1 if sign == "{" else -1
        if not 0 <= depth <= _DEEPEST:
            return None
    if depth or lefts > _DEEPEST or not _known_environments(tex):
        return None
    return tex


def _known_environments(tex: str) -> bool:
    names = re.findall(r"\\(?:begin|end)\s*\{([^{}]*)\}", tex)
    if len(names) != len(re.findall(r"\\(?:begin|end)(?![a-zA-Z])", tex)):
        return False
    columns = re.findall(r"\\begin\s*\{array\}\s*(\{[^{}]*\})?", tex)
    return all(name.rstrip("*") in _ENVIRONMENTS for name in names) and all(
        re.fullmatch(r"\{[lcr|: ]{1,40}\}", spec) for spec in columns
    )


def _code(source: str) -> str:
    """A code span; its fence is longer than any run of backticks inside."""
    inside = " ".join(visible(source).split())
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", inside)), default=0))
    return f"{_JOIN}{fence} {inside} {fence}{_JOIN}"
