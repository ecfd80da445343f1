"""What two texts share and where they differ, word by word. Pure; returns HTML of both sides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from lark_engine.figures.safe_text import text_html

MOST_WORDS = 6_000
MOST_PAIRS = 1_500_000  # of equal words, one of each text
LONGEST_WORD = 2_000
# A word with the white space behind it; Chinese, Japanese and Korean signs one by one.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(
    rf"[{_CJK}]\s*|[^\W{_CJK}]{{1,{LONGEST_WORD}}}\s{{0,{LONGEST_WORD}}}|[^\w\s]\s{{0,{LONGEST_WORD}}}|\s{{1,{LONGEST_WORD}}}"
)
_FEW = 3  # equal words between two differences that are joined to one


class Side(NamedTuple):
    """One text of a comparison: HTML of what was compared, and how many characters of it that was."""

    html: str
    num_compared: int


class Difference(NamedTuple):
    """Two texts with their differences marked; `num_shared` words stand in both, of `num_words` on each side."""

    first: Side
    second: Side
    num_shared: int
    num_words: tuple[int, int]


def word_diff(first: str, second: str) -> Difference:
    """Compare the first `MOST_WORDS` words of each text; white space alone is no difference."""
    words = [_words(first), _words(second)]
    keys = [[word.strip() for word in side] for side in words]
    sides: tuple[list[str], list[str]] = ([], [])
    num_shared = 0
    for is_equal, i, j, k, m in _joined(_opcodes(keys[0], keys[1])):
        num_shared += j - i if is_equal else 0
        for side, start, stop, tag, out in ((words[0], i, j, "del", sides[0]), (words[1], k, m, "ins", sides[1])):
            if start < stop:
                text = text_html("".join(side[start:stop]))
                out.append(text if is_equal else f"<{tag}>{text}</{tag}>")
    return Difference(
        Side("".join(sides[0]), sum(map(len, words[0]))),
        Side("".join(sides[1]), sum(map(len, words[1]))),
        num_shared, (len(words[0]), len(words[1])),
    )  # fmt: skip


def _words(text: str) -> list[str]:
    found = []
    for match in _WORD.finditer(text):
        if len(found) == MOST_WORDS:
            break
        found.append(match[0])
    return found


class _Block(NamedTuple):
    """words[i:j] of the first text against words[k:m] of the second."""

    is_equal: bool
    i: int
    j: int
    k: int
    m: int


def _opcodes(first: Sequence[str], second: Sequence[str]) -> Iterator[_Block]:
    """Equal and differing blocks. In long texts frequent words are no anchors, or it would take minutes."""
    counts = Counter(second)
    is_long = sum(counts[word] for word in first) > MOST_PAIRS
    for tag, i, j, k, m in SequenceMatcher(None, first, second, autojunk=is_long).get_opcodes():
        yield _Block(tag == "equal", i, j, k, m)


def _joined(blocks: Iterator[_Block]) -> Iterator[_Block]:
    """Differences that only a word or two part, as one: a text of islands cannot be read."""
    waiting: _Block | None = None
    everything = list(blocks)
    for place, block in enumerate(everything):
        is_edge = place in (0, len(everything) - 1)
        differs = not block.is_equal or (block.j - block.i < _FEW and not is_edge)
        if not differs:
            if waiting:
                yield waiting
                waiting = None
            yield block
        elif waiting:
            waiting = _Block(False, waiting.i, block.j, waiting.k, block.m)
        else:
            waiting = _Block(False, block.i, block.j, block.k, block.m)
    if waiting:
        yield waiting
