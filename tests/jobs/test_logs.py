"""The ends of a log are right at every border, and a long log costs no more than a short one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lark_engine.jobs.logs import Piece, excerpt, last_lines, read_from

MIB = 1 << 20


def log_of(folder: Path, content: bytes) -> Path:
    path = folder / "output.log"
    path.write_bytes(content)
    return path


def numbered(count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(1, count + 1))


def bytes_read(read: Callable[[], Any]) -> int:
    """How many bytes this process asks of files while `read` runs."""

    def asked() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = asked()
    read()
    return asked() - before


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    missing = tmp_path / "output.log"
    assert last_lines(missing, 10) == []
    assert read_from(missing, 50) == Piece("", 0)
    assert excerpt(missing) == ""


def test_an_empty_log_is_empty(tmp_path: Path) -> None:
    path = log_of(tmp_path, b"")
    assert last_lines(path, 10) == []
    assert read_from(path) == Piece("", 0)
    assert excerpt(path) == ""


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\nc\n", ["b", "c"]),
        (b"a\nb\nc", ["b", "c"]),
        (b"a", ["a"]),
        (b"\n", [""]),
        (b"a\n\n\n", ["", ""]),
        (b"a\r\nb\r\nc\r\n", ["b", "c"]),
        (b"10 %\r50 %\r100 %\n", ["50 %", "100 %"]),  # what a progress bar leaves
        ("ĝ\nρ\n".encode(), ["ĝ", "ρ"]),
        (b"a\n\xff\xfe\n\xc4", ["��", "�"]),
        (b"a\0b\n\x1b[1mc\n", ["a\0b", "\x1b[1mc"]),
    ],
)
def test_the_last_lines_of_a_log(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    assert last_lines(log_of(tmp_path, content), 2) == lines


def test_no_lines_are_asked_for_and_none_come(tmp_path: Path) -> None:
    assert last_lines(log_of(tmp_path, b"a\nb\n"), 0) == []


@pytest.mark.parametrize(
    ("begin", "lines"),
    [(0, ["one", "two", "three"]), (4, ["two", "three"]), (6, ["o", "three"]), (14, []), (15, ["one", "two", "three"])],
)
def test_nothing_before_the_beginning_is_read(tmp_path: Path, begin: int, lines: list[str]) -> None:
    """A log of 14 bytes; one that is shorter than the beginning was emptied, and begins anew."""
    path = log_of(tmp_path, b"one\ntwo\nthree\n")
    assert last_lines(path, 100, begin=begin) == lines
    assert excerpt(path, begin=begin).splitlines() == lines


@settings(max_examples=60, deadline=None)
@given(
    content=st.lists(
        st.sampled_from([b"a", b"bc" * 40, b"\n", b"\n\n", b"\r\n", b"\r", b"\xff", "ρ".encode()]), max_size=20
    ),
    count=st.integers(0, 12),
    repeat=st.sampled_from([1, 3, 2000]),
)
def test_the_last_lines_are_those_of_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], count: int, repeat: int
) -> None:
    """Also over the borders of the blocks that are read (64 KiB); lines here are short or without an end at all."""
    whole = b"".join(content) * repeat
    path = tmp_path_factory.getbasetemp() / "random.log"
    path.write_bytes(whole)
    lines = whole.splitlines()
    expected = [line for line in lines[max(len(lines) - count, 0) :] if len(line) <= 2000]
    found = [line for line in last_lines(path, count) if "[…" not in line]
    assert found == [line.decode("utf-8", "replace") for line in expected]


@pytest.mark.parametrize("count", [1, 99, 100, 101, 200, 299, 300])
def test_a_log_of_up_to_300_lines_is_its_own_excerpt(tmp_path: Path, count: int) -> None:
    assert excerpt(log_of(tmp_path, numbered(count))) == numbered(count).decode()


def test_a_single_line_that_is_left_out_is_said(tmp_path: Path) -> None:
    lines = excerpt(log_of(tmp_path, numbered(301))).splitlines()
    assert lines[:100] == [f"line {number}" for number in range(1, 101)]
    assert lines[100] == "[… 9 bytes between are in output.log …]"
    assert lines[101:] == [f"line {number}" for number in range(102, 302)]


def test_what_is_left_out_is_counted_in_bytes_of_the_log(tmp_path: Path) -> None:
    """Not in those of what is shown: ends of lines, damaged text and long lines are shown otherwise than they are."""
    line = b"\xff\xfe\xfd ok\r\n"
    shown = excerpt(log_of(tmp_path, line * 400)).splitlines()
    assert shown[100] == "[… 800 bytes between are in output.log …]"  # 100 lines of 8 bytes
    assert shown[0] == shown[101] == shown[300] == "��� ok"


def test_between_lines_that_are_shown_shortened_nothing_is_missing(tmp_path: Path) -> None:
    path = log_of(tmp_path, b"x" * 5000 + b"\n" + numbered(100) + b"y" * 5000 + b"\n")
    lines = excerpt(path).splitlines()
    assert lines[0] == "x" * 2000 + " [… 5,000 bytes]"
    assert lines[1:101] == [f"line {number}" for number in range(1, 101)]
    assert lines[101:] == ["y" * 2000 + " [… 5,000 bytes]"]


def test_an_excerpt_begins_where_its_attempt_begins(tmp_path: Path) -> None:
    path = log_of(tmp_path, b"first attempt\n" + numbered(2))
    assert excerpt(path, begin=14) == "line 1\nline 2\n"


@pytest.mark.parametrize(("size", "shown"), [(2000, ""), (2001, " [… 2,001 bytes]")])
def test_an_overlong_line_is_shown_by_its_beginning(tmp_path: Path, size: int, shown: str) -> None:
    path = log_of(tmp_path, b"a\n" + b"x" * size + b"\n")
    assert last_lines(path, 1) == ["x" * 2000 + shown]


def test_an_endless_line_of_20_mb_is_read_in_part_only(tmp_path: Path) -> None:
    path = log_of(tmp_path, b"begin\n" + b"x" * 20_000_000)
    begun = time.monotonic()
    assert [len(line) for line in last_lines(path, 5)] == [len("x" * 2000 + " [… 8,388,608 bytes]")]
    lines = excerpt(path).splitlines()
    assert time.monotonic() < begun + 2
    assert lines[0] == "begin"
    assert lines[1] == "x" * 2000 + " [… 8,388,602 bytes]"
    assert lines[2] == "[… 3,222,790 bytes between are in output.log …]"
    assert lines[3:] == ["x" * 2000 + " [… 8,388,608 bytes]"]
    assert bytes_read(lambda: last_lines(path, 5)) < 9 * MIB
    assert bytes_read(lambda: excerpt(path)) < 18 * MIB


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A log of 2 GB: 3 lines, a hole, and 3 lines. On the disk it takes a few kB."""
    path = log_of(tmp_path, b"one\ntwo\nthree\n")
    os.truncate(path, 2_000_000_000)
    with path.open("ab") as file:
        file.write(b"\nfour\nfive\nsix\n")
    return path


def test_the_end_of_a_log_of_2_gb_costs_what_that_of_a_short_one_costs(huge: Path) -> None:
    assert last_lines(huge, 3) == ["four", "five", "six"]
    assert bytes_read(lambda: last_lines(huge, 3)) < MIB
    assert read_from(huge, 2_000_000_006) == Piece("five\nsix\n", 2_000_000_015)
    assert bytes_read(lambda: read_from(huge, 2_000_000_006)) < MIB
    assert read_from(huge, most=100).text == "one\ntwo\nthree\n"


def test_the_excerpt_of_a_log_of_2_gb_is_read_from_its_ends(huge: Path) -> None:
    lines = excerpt(huge).splitlines()
    assert lines[:3] == ["one", "two", "three"]
    assert lines[-3:] == ["four", "five", "six"]
    assert "[… 1,983,222,799 bytes between are in output.log …]" in lines
    assert bytes_read(lambda: excerpt(huge)) < 18 * MIB


def test_a_log_is_followed_line_by_line(tmp_path: Path) -> None:
    path = log_of(tmp_path, b"one\ntw")
    assert read_from(path) == Piece("one\n", 4)
    assert read_from(path, 4) == Piece("tw", 6)  # a progress bar ends no line for hours
    with path.open("ab") as file:
        file.write(b"o\n")
    assert read_from(path, 6) == Piece("o\n", 8)
    assert read_from(path, 8) == Piece("", 8)


def test_a_character_that_is_written_in_two_parts_is_read_as_one(tmp_path: Path) -> None:
    first, second = "ĝ".encode()[:1], "ĝ".encode()[1:]
    path = log_of(tmp_path, b"score " + first)
    assert read_from(path) == Piece("score ", 6)
    assert read_from(path, 6) == Piece("", 6)
    with path.open("ab") as file:
        file.write(second)
    assert read_from(path, 6) == Piece("ĝ", 8)


def test_a_log_that_was_emptied_is_followed_from_its_beginning(tmp_path: Path) -> None:
    assert read_from(log_of(tmp_path, b"new\n"), 500) == Piece("new\n", 4)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("aĝ𝑥€\n\r"), max_size=80), most=st.integers(4, 40))
def test_pieces_of_a_log_make_up_the_whole(tmp_path_factory: pytest.TempPathFactory, text: str, most: int) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.log"
    path.write_bytes(text.encode())
    read, offset = "", 0
    while (piece := read_from(path, offset, most)).text:
        assert piece.offset <= offset + most
        read, offset = read + piece.text, piece.offset
    assert (read, offset) == (text, len(text.encode()))


def test_following_while_another_process_writes_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """The writer's blocks end in the middle of lines and of characters, as those of a pipe do."""
    path = log_of(tmp_path, b"")
    code = """
    import os, sys
    data = "".join(f"step {n} ĝ=0.{n}\\n" for n in range(20000)).encode()
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
    for begin in range(0, len(data), 1001):
        os.write(file, data[begin : begin + 1001])
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(path)])
    read, offset = "", 0
    while (is_writing := writer.poll() is None) or path.stat().st_size > offset:
        piece = read_from(path, offset, most=5000)
        read, offset = read + piece.text, piece.offset
        if is_writing and not piece.text:
            time.sleep(0.001)
    assert writer.returncode == 0
    assert read.splitlines() == [f"step {n} ĝ=0.{n}" for n in range(20000)]
