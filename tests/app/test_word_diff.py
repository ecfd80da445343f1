from __future__ import annotations

import re
import time

from app.word_diff import MOST_WORDS, word_diff
from benchmarks.pool_texts import HOSTILE_TEXTS, LONG_LINE


def plain(markup: str) -> str:
    return re.sub(r"</?(del|ins)>", "", markup)


def test_only_what_differs_is_marked() -> None:
    found = word_diff("the cat sat on the mat", "the dog sat on the mat today")
    assert found.first.html == "the <del>cat </del>sat on the mat"
    assert found.second.html == "the <ins>dog </ins>sat on the mat <ins>today</ins>"
    assert (found.num_shared, found.num_words) == (5, (6, 7))


def test_equal_texts_and_white_space_differ_nowhere() -> None:
    for first, second in (("a b\nc", "a b\nc"), ("a  b", "a\nb"), ("", "")):
        found = word_diff(first, second)
        assert "<del>" not in found.first.html and "<ins>" not in found.second.html


def test_one_empty_text_differs_everywhere() -> None:
    found = word_diff("", "all new")
    assert (found.first.html, found.second.html) == ("", "<ins>all new</ins>")


def test_a_lonely_equal_word_does_not_break_up_a_difference() -> None:
    found = word_diff("one two is three four", "five six is seven eight")
    assert found.first.html == "<del>one two is three four</del>"


def test_signs_without_spaces_are_compared_one_by_one() -> None:
    found = word_diff("我们先计算面积再相加", "我们先计算周长再相加")
    assert found.first.html == "我们先计算<del>面积</del>再相加"


def test_both_sides_keep_every_character_and_make_no_element() -> None:
    for first, second in zip(HOSTILE_TEXTS, reversed(HOSTILE_TEXTS), strict=True):
        found = word_diff(first, second)
        for side in (found.first, found.second):
            assert set(re.findall(r"<(/?\w+)", side.html)) <= {"del", "/del", "ins", "/ins", "b", "/b"}


def test_long_texts_are_cut_and_say_so_in_no_time() -> None:
    started = time.process_time()
    found = word_diff(LONG_LINE, LONG_LINE[::-1])
    assert found.num_words == (MOST_WORDS, MOST_WORDS)
    assert found.first.num_compared < len(LONG_LINE)
    word_diff("x" * 200_000, "y " * 100_000)
    assert time.process_time() - started < 5.0  # about 0.3 s alone
