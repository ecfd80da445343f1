from __future__ import annotations

import time

import pytest

from lark_engine.evaluation.extract import NO_ANSWER, UNFINISHED_THINKING, extract, last_boxed, letter_of


@pytest.mark.parametrize(
    ("text", "prediction"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"a stray { brace, then \boxed{3}", "3"),
        (r"a stray } brace, then \boxed{3}", "3"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\boxed{3}, \boxed{4}}", r"\boxed{3}, \boxed{4}"),
        (r"\boxed{9} and then it was cut: \boxed{10", "9"),
        (r"Put your answer in \boxed{}. It is \boxed{8}. Again: \boxed{}", "8"),
    ],
)
def test_last_complete_non_empty_box_is_the_prediction(text: str, prediction: str) -> None:
    found = extract(text)
    assert (found.prediction, found.rule, found.reason) == (prediction, "boxed", None)


@pytest.mark.parametrize(
    "text",
    ["", "42", r"\boxed{4", r"\boxed{ }", "boxed{4}", "\0", "the answer is", "the answer is not known. " + "x" * 3000],
)
def test_without_a_complete_box_there_is_no_answer(text: str) -> None:
    found = extract(text)
    assert (found.prediction, found.rule, found.reason) == (None, None, NO_ANSWER)


def test_only_what_follows_the_last_thinking_block_counts() -> None:
    assert extract(r"<think>\boxed{1}</think> it is \boxed{2}").prediction == "2"
    assert extract(r"<think>\boxed{1}</think> it is two").reason == NO_ANSWER
    assert extract(r"header opened it \boxed{1}</think>\boxed{3}").prediction == "3"


def test_unfinished_thinking_holds_no_answer() -> None:
    assert extract(r"<think>maybe \boxed{1}").reason == UNFINISHED_THINKING
    assert extract(r"<think>a</think>\boxed{1}<think>no, \boxed{2}").reason == UNFINISHED_THINKING


@pytest.mark.parametrize(
    ("text", "prediction", "rule"),
    [
        (r"\boxed{B}", "B", "boxed"),
        (r"\boxed{\text{(C)}}", "C", "boxed"),
        (r"\boxed{\textbf{(D)}\ 12}", "D", "boxed"),
        (r"\boxed{B. Linnaeus}", "B", "boxed"),
        (r"\boxed{d}", "D", "boxed"),
        (r"\boxed{12}", "12", "boxed"),
        ("The correct answer is (B) because …", "B", "answer_phrase"),
        ("Answer: **C**", "C", "answer_phrase"),
        ("The answer is A. Wait, the answer is option D.", "D", "answer_phrase"),
        ("It cannot be (A).\n\n(B)\n", "B", "letter"),
    ],
)
def test_letters_by_rule(text: str, prediction: str, rule: str) -> None:
    found = extract(text, "letter")
    assert (found.prediction, found.rule) == (prediction, rule)


@pytest.mark.parametrize("text", ["The answer is a prime.", "The answer is Because", "A cat sat.", "I do not know"])
def test_words_are_no_letters(text: str) -> None:
    assert extract(text, "letter").prediction is None


def test_auto_reads_letters_only_for_a_letter_reference() -> None:
    assert extract("The answer is (B)", "auto", "C").prediction == "B"
    assert extract("The answer is (B)", "auto", "12").prediction == "(B)"
    assert extract("I say\n(B)", "auto", "12").prediction is None
    assert extract("I say\n(B)", "auto", "e").prediction is None  # Euler's number


@pytest.mark.parametrize(
    ("text", "prediction"),
    [
        ("The answer is 42.", "42"),
        ("So the final answer is: **3.5** apples.\nThank you.", "3.5** apples"),
        ("Final Answer: $\\frac{1}{2}$, as said.", "\\frac{1}{2}"),
        (r"the answer is \(x = 3\).", "x = 3"),
        (r"**Answer:** \[ (1, 2) \]", "(1, 2)"),
        ("The answer is 1. No, the answer would be 2; sure.", "2"),
        ("Answer = 1,000", "1,000"),
        ("the answer is *Evelyn*", "Evelyn"),
    ],
)
def test_the_answer_phrase_gives_the_formula_or_the_sentence_that_follows(text: str, prediction: str) -> None:
    found = extract(text)
    assert (found.prediction, found.rule) == (prediction, "answer_phrase")


def test_rules_are_tried_in_their_order_and_the_last_number_only_when_asked_for() -> None:
    text = r"\boxed{1}. The answer is 2. There were 1,234.5 of them, or -3/4"
    assert [extract(text, rules=(rule,)).prediction for rule in ("boxed", "answer_phrase", "last_number")] == [
        "1", "2", "-3/4",
    ]  # fmt: skip
    assert extract(text, rules=("answer_phrase", "boxed")).rule == "answer_phrase"
    assert extract("There were 12 of them").reason == NO_ANSWER
    asked = extract("There were 12 of them", rules=("boxed", "last_number"))
    assert (asked.prediction, asked.rule) == ("12", "last_number")
    assert extract("Option 12", "letter", rules=("last_number",)).prediction is None


def test_letter_of_needs_a_delimiter() -> None:
    assert letter_of("A cat") is None
    assert letter_of("A) cat") == "A"
    assert letter_of("A) cat", bare=True) is None


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 50_000,
        r"\boxed{" * 20_000 + "1" + "}" * 20_000,
        "{" * 200_000,
        "<think>" * 50_000,
        "answer is " * 50_000,
        "the answer: " + "$" * 100_000,
        "1" * 200_000,
        "1," * 100_000,
        "((((" * 50_000,
        "\\" * 200_001,
    ],
)
def test_extraction_takes_linear_time(text: str) -> None:
    started = time.process_time()
    extract(text, "letter")
    extract(text, rules=("boxed", "answer_phrase", "last_number"))
    assert time.process_time() - started < 2.0


def test_last_boxed_keeps_the_text_as_it_is() -> None:
    assert last_boxed("\\boxed{ x = \0 }") == "x = \0"
