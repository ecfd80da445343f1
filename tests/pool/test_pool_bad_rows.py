"""Every kind of bad row is named with its place, field, excerpt and remedy, and refuses the import unless skipped."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pool_sources import jsonl, pool_row

from lark_engine.config import PoolConfig
from lark_engine.errors import PoolError
from lark_engine.pool.importer import import_pool, plan_pool
from lark_engine.pool.readers import read_jsonl
from lark_engine.pool.rejections import Rejection
from lark_engine.store.workspace import Workspace

USER = {"role": "user", "content": "What is 0 + 1?"}
ANSWER = {"role": "assistant", "content": "1"}

# (bad second line, reason, field, what the problem says, what the remedy says)
BAD_ROWS: dict[str, tuple[Any, str, str, str, str]] = {
    "broken JSON": (
        b'{"problem_id": 0, "candidate_id": 1,', "broken_json", "line",
        "not valid JSON: Expecting property name enclosed in double quotes at column 37", "one whole JSON object",
    ),
    "not an object": (b"[1, 2]", "not_an_object", "line", "the row is a list, no JSON object", "must be an object"),
    "nested too deep": (b"[" * 100_000, "broken_json", "line", "not readable JSON", "mend or remove the line"),
    "a number of 5000 digits": (b"9" * 5000, "broken_json", "line", "not readable JSON", "mend or remove the line"),
    "latin-1 bytes": (
        json.dumps(pool_row(0, 1, teacher="Jos\u00e9"), ensure_ascii=False).encode("latin-1"), "not_utf8", "line",
        "byte 53 of the line is not UTF-8 text", "iconv -f latin1 -t utf-8",
    ),
    "no problem_id": ({"teacher": "a", "messages": [USER, ANSWER]}, "bad_problem_id", "problem_id",
                      "problem_id is missing", "integer or text"),
    "problem_id of a wrong type": (pool_row([1]), "bad_problem_id", "problem_id", "problem_id is a list",
                                   "integer or text"),
    "problem_id true": (pool_row(True), "bad_problem_id", "problem_id", "problem_id is true", "integer or text"),
    "candidate_id of a wrong type": (pool_row(0, "one"), "bad_candidate_id", "candidate_id",
                                     "candidate_id is the text 'one'", "0, 1, 2"),
    "candidate_id negative": (pool_row(0, -1), "bad_candidate_id", "candidate_id", "the number -1", "0, 1, 2"),
    "candidate_id too large": (pool_row(0, 2**31), "bad_candidate_id", "candidate_id", "2147483648", "0, 1, 2"),
    "no teacher": (pool_row(0, 1, teacher=None), "bad_teacher", "teacher", "teacher is missing", "name of the model"),
    "teacher of a wrong type": (pool_row(0, 1, teacher=7), "bad_teacher", "teacher", "the number 7", "as text"),
    "no messages": (pool_row(0, 1, messages=None), "no_messages", "messages", "messages is missing",
                    'add "messages": [{"role": "user"'),
    "empty messages": (pool_row(0, 1, messages=[]), "no_messages", "messages", "messages is empty", "write"),
    "messages of a wrong type": (pool_row(0, 1, messages="hello"), "bad_messages", "messages",
                                 "messages is the text 'hello', no list", "write"),
    "a turn of a wrong type": (pool_row(0, 1, messages=[USER, "1"]), "bad_messages", "messages[1]",
                               "messages[1] is the text '1', no object", '"role" and "content"'),
    "an unknown role": (pool_row(0, 1, messages=[{"role": "tool", "content": "x"}, USER, ANSWER]), "bad_messages",
                        "messages[0].role", "the text 'tool', no known role", "system or user or assistant"),
    "content of a wrong type": (pool_row(0, 1, messages=[USER, {"role": "assistant", "content": [{"text": "1"}]}]),
                                "bad_messages", "messages[1].content", "is a list, no text", "one string"),
    "content missing": (pool_row(0, 1, messages=[{"role": "user"}, ANSWER]), "bad_messages", "messages[0].content",
                        "messages[0].content is missing", "one string"),
    "no assistant turn": (pool_row(0, 1, messages=[USER]), "no_assistant_turn", "messages",
                          "the row has no assistant message", "exactly one assistant turn"),
    "two assistant turns": (pool_row(0, 1, messages=[USER, ANSWER, USER, ANSWER]), "several_assistant_turns",
                            "messages", "the row has 2 assistant messages", "exactly one assistant turn"),
    "a turn after the answer": (pool_row(0, 1, messages=[USER, ANSWER, USER]), "assistant_not_last", "messages",
                                "the assistant message is not the last", "exactly one assistant turn"),
    "no user turn": (pool_row(0, 1, messages=[ANSWER]), "no_prompt", "messages", "no user message", "user turn"),
    "empty answer": (pool_row(0, 1, messages=[USER, {"role": "assistant", "content": " \n"}]), "empty_response",
                     "messages[1].content", "the answer is empty", "remove the row"),
    "reasoning outside content": (pool_row(0, 1, messages=[USER, {**ANSWER, "reasoning_content": "hm"}]),
                                  "text_outside_content", "messages[1].reasoning_content", "is not read", "<think>"),
    "reference of a wrong type": (pool_row(0, 1, answer=["18"]), "bad_answer", "answer", "answer is a list",
                                  "text or a number"),
    "label of a wrong type": (pool_row(0, 1, is_correct="yes"), "bad_is_correct", "is_correct",
                              "is_correct is the text 'yes'", "true, false or null"),
    "a repeated candidate": (pool_row(0, 0, teacher="beta"), "duplicate", "candidate_id",
                             "candidate 0 of problem 0 is already at pool.jsonl:1", "remove one of the two"),
    "a repeated candidate as text": (pool_row("0", "0"), "duplicate", "candidate_id",
                                     "candidate 0 of problem 0 is already at pool.jsonl:1", "remove one of the two"),
    "another prompt": (
        pool_row(0, 1, messages=[{"role": "user", "content": "Other?"}, ANSWER]), "different_prompt", "messages",
        "problem 0 has another prompt here than at pool.jsonl:1", "same system and user turns",
    ),
}  # fmt: skip


def rejections(workspace: Workspace, config: PoolConfig) -> list[dict[str, str]]:
    path = workspace.folder(plan_pool(config, workspace)) / "rejected.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_refused_with_its_place_field_and_remedy(write, workspace, case):
    bad, reason, field, problem, remedy = BAD_ROWS[case]
    path = write("pool.jsonl", pool_row(0, 0), bad, pool_row(0, 2))
    config = PoolConfig(source=str(path))
    with pytest.raises(PoolError) as error:
        import_pool(config, workspace)
    (rejection,) = rejections(workspace, config)
    assert rejection["place"] == "pool.jsonl:2"
    assert (rejection["reason"], rejection["field"]) == (reason, field)
    assert problem in rejection["problem"]
    assert remedy in rejection["remedy"]
    assert 0 < len(rejection["excerpt"]) <= 120
    message = str(error.value)
    assert message.startswith("pool.jsonl:2: ") and problem in message and remedy in message
    assert "In all 1 line is bad, listed in " in message and "rejected.jsonl" in message and "--skip-bad" in message
    assert workspace.list("pools") == []


@pytest.mark.parametrize("case", BAD_ROWS)
def test_skip_bad_leaves_the_row_out_counts_it_and_lists_it(write, workspace, load, case):
    bad, reason, *_ = BAD_ROWS[case]
    pool = load(write("pool.jsonl", pool_row(0, 0), bad, pool_row(0, 2)), skip_bad=True)
    assert pool.artifact.manifest.drops == {reason: 1}
    assert [t.candidate_id for t in pool.trajectories()] == [0, 2]
    assert [json.loads(line)["place"] for line in (pool.artifact.path / "rejected.jsonl").open()] == ["pool.jsonl:2"]


def test_all_bad_lines_are_listed_and_counted(write, workspace):
    path = write("pool.jsonl", b"{", pool_row(0, 0), pool_row(0, 0), b"oops", pool_row(1, 0, teacher=3))
    config = PoolConfig(source=str(path))
    with pytest.raises(PoolError, match=r"^pool.jsonl:1: .* In all 4 lines are bad, listed in .*rejected.jsonl"):
        import_pool(config, workspace)
    listed = [(r["place"], r["reason"]) for r in rejections(workspace, config)]
    assert listed == [
        ("pool.jsonl:1", "broken_json"), ("pool.jsonl:3", "duplicate"), ("pool.jsonl:4", "broken_json"),
        ("pool.jsonl:5", "bad_teacher"),
    ]  # fmt: skip


def test_a_mended_source_is_imported_without_a_trace_of_the_refused_one(write, workspace, load):
    path = write("pool.jsonl", pool_row(0, 0), b"{")
    with pytest.raises(PoolError):
        load(path)
    pool = load(write("pool.jsonl", pool_row(0, 0), pool_row(0, 1)))
    assert pool.num_trajectories == 2
    assert not (pool.artifact.path / "rejected.jsonl").exists()
    assert pool.artifact.manifest.drops == {}


def test_a_rejected_row_does_not_take_its_id(write, load):
    empty = [USER, {"role": "assistant", "content": ""}]
    pool = load(write("pool.jsonl", pool_row(0, 0, messages=empty), pool_row(0, 0)), skip_bad=True)
    assert [t.candidate_id for t in pool.trajectories()] == [0]


def test_an_empty_file_is_refused(write, load):
    with pytest.raises(PoolError, match=r"empty\.jsonl: the file is empty; give a file"):
        load(write("empty.jsonl", content=b""))


@pytest.mark.parametrize("content", [b"\n\r\n  \n", b"\xef\xbb\xbf\n"])
def test_a_file_of_blank_lines_holds_no_trajectories(write, load, content):
    with pytest.raises(PoolError, match=r"blank\.jsonl: holds no trajectories; check that this is the right file"):
        load(write("blank.jsonl", content=content))


def test_a_file_of_bad_lines_only_is_refused_even_with_skip_bad(write, load):
    with pytest.raises(PoolError, match=r"holds no trajectories; all its 2 lines are bad, listed in .*rejected\.jsonl"):
        load(write("bad.jsonl", b"{", b"}"), skip_bad=True)


def test_a_missing_source_says_what_can_be_given(load, tmp_path):
    with pytest.raises(PoolError, match=r"nothing\.jsonl: no such file or folder; give a file .*Hugging Face dataset"):
        load(tmp_path / "nothing.jsonl")


def test_utf16_is_refused_with_the_conversion(write, load):
    content = jsonl(pool_row()).decode().encode("utf-16")
    with pytest.raises(PoolError, match=r"pool\.jsonl: UTF-16 text; convert it: iconv -f utf-16 -t utf-8"):
        load(write("pool.jsonl", content=content))


def test_a_line_of_40_mb_is_rejected_with_its_size(write, load):
    huge = json.dumps(pool_row(0, 1, note="x" * 40_000_000)).encode()
    pool = load(write("pool.jsonl", pool_row(0, 0), huge, pool_row(0, 2)), skip_bad=True)
    assert pool.artifact.manifest.drops == {"line_too_long": 1}
    assert [t.candidate_id for t in pool.trajectories()] == [0, 2]
    rejection = json.loads((pool.artifact.path / "rejected.jsonl").read_text())
    assert rejection["place"] == "pool.jsonl:2"
    assert rejection["problem"] == "the line has 40.0 MB; the limit is 16.8 MB"
    assert "put each on its own line" in rejection["remedy"]


def test_a_line_of_40_mb_is_never_held_whole(write):
    path = write("pool.jsonl", b"[" + b" " * 40_000_000 + b"]", pool_row(0, 1))
    tracemalloc.start()
    try:
        rows = list(read_jsonl(path, "pool.jsonl"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [isinstance(row.value, Rejection) for row in rows] == [True, False]
    assert peak < 36_000_000


def test_a_last_line_of_40_mb_without_newline_is_rejected(write, load):
    pool = load(write("pool.jsonl", content=jsonl(pool_row()) + b"x" * 40_000_000), skip_bad=True)
    assert pool.artifact.manifest.drops == {"line_too_long": 1}


def test_an_unreadable_local_file_names_the_permission(write, load, monkeypatch):
    path = write("pool.jsonl", pool_row())
    monkeypatch.setattr("lark_engine.pool.sources.os.access", lambda *_: False)
    with pytest.raises(PoolError, match="no permission to read the file; change its permissions"):
        load(path)


def test_a_source_that_changes_while_it_is_read_is_refused(write, load, monkeypatch):
    path = write("pool.jsonl", pool_row(0, 0))
    from lark_engine.pool import importer

    def read_then_grow(source: Any) -> Any:
        yield from importer_read(source)
        with Path(path).open("ab") as file:
            file.write(jsonl(pool_row(0, 1)))

    importer_read = importer.read_source
    monkeypatch.setattr(importer, "read_source", read_then_grow)
    with pytest.raises(PoolError, match="the source changed while it was being imported; run the same command again"):
        load(path)
    monkeypatch.undo()
    assert load(path).num_trajectories == 2
