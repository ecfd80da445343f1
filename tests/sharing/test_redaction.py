"""What leaves by a report or a bundle tells nothing of paths, hosts and users, and keeps everything else."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lark_engine.sharing.redaction import Redactor, Replacement
from lark_engine.store.workspace import Workspace

HOME, WORKSPACE, SOURCE = "/home/carol", "/home/carol/runs/ws", "/opt/lark-checkout"


def carols(workspace: str | Path = WORKSPACE) -> Redactor:
    return Redactor(
        Workspace(workspace), home=Path(HOME), source=Path(SOURCE), users=["carol", "Carol Jones", "cj"],
        hosts=["gpu-box", "gpu-box.lab.example"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/carol/runs/ws/pools/demo-0/scores.parquet", "<workspace>/pools/demo-0/scores.parquet"),
        ("see /home/carol/runs/ws.", "see <workspace>."),
        ("/opt/lark-checkout/lark_engine/serve.py:12", "<source>/lark_engine/serve.py:12"),
        ("/home/carol", "<home>"),
        ("/home/carol/pool.jsonl:1042: candidate 3", "…/pool.jsonl:1042: candidate 3"),
        ("--in=/data/carol/pool.jsonl --out '/mnt/My Disk/out.jsonl'", "--in=…/pool.jsonl --out '…/out.jsonl'"),
        ("demo=/srv/studio/demo/benchmark.json", "demo=…/benchmark.json"),
        ("/home/bob", "…/<user>"),
        ("/home/carol-old/x", "…/x"),
        ("~/runs/pool.jsonl and ~carol/a/b", "…/pool.jsonl and …/b"),
        ("file:///home/carol/x.jsonl", "file:…/x.jsonl"),
        (r"C:\Users\carol\pools\pool.jsonl", r"…\pool.jsonl"),
        ("D:/data/pool.jsonl", "…/pool.jsonl"),
        (r"\\nas\share\carol\pool.jsonl", r"…\pool.jsonl"),
        ("http://gpu-box:8000/v1", "http://<host>/v1"),
        ("http://10.1.2.3/v1 https://node7.cluster.example:8443", "http://<host>/v1 https://<host>"),
        ("https://carol:hunter2@example.com/a", "https://example.com/a"),
        ("https://example.com/v1?api_key=abc123&n=4", "https://example.com/v1?api_key=<secret>&n=4"),
        ("ssh carol@gpu-box", "ssh <user>@<host>"),
        ("made by Carol Jones on GPU-BOX", "made by <user> on <host>"),
        ("runs/carol_lora/x.json", "runs/<user>_lora/x.json"),
    ],
)  # fmt: skip
def test_replaces_what_tells_where_and_who(text: str, expected: str) -> None:
    assert carols().text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        r"\frac{1}{2} = 1/2, so a/b and/or 3 / 4; x /y; 60 km/h; 9.8 m /sec/sec",
        r"Let f:\mathbb{R}\to\mathbb{R} and g:\R\to\R.Then \\alpha\beta = {a}/bb/cc/dd and $x$/yy/zz",
        r"\text{miles}/\text{hour} // \left/\right. a:\b/c",
        "openai/gsm8k Qwen/Qwen3-0.6B-Base https://huggingface.co/Qwen/Qwen3/tree/main?n=1 https://arxiv.org/abs/2503.1",
        "http://localhost:8000/v1 http://127.0.0.1:8501/?page=tune",
        "caroling carols Carolina: https://example.com; 12:30 / 3:5; write to someone@example.com; ~5, ~x, ~ 5/2",
        "/ 3", "/", "//", "", "/2", "</think>", "<br/>", "…/pool.jsonl", "<workspace>/pools/x.parquet", "http://<host>/v1",
    ],
)  # fmt: skip
def test_leaves_mathematics_hub_ids_and_public_addresses_alone(text: str) -> None:
    redactor = carols()

    assert redactor.text(text) == text
    assert redactor.value({"text": [text]}) == {"text": [text]}
    assert not redactor.replaced


def test_a_field_is_known_by_its_name() -> None:
    told = {"author": "cj", "rdzv_endpoint": "10.0.0.3:29500", "host": "127.0.0.1", "source": "/mnt/My Disk/a b.jsonl",
            "n": 3, "none": None, "/home/carol/x": [True, 0.5]}  # fmt: skip

    assert carols().value(told) == {
        "author": "<user>", "rdzv_endpoint": "<host>", "host": "127.0.0.1", "source": "…/a b.jsonl",
        "n": 3, "none": None, "…/x": [True, 0.5],
    }  # fmt: skip


def test_counts_what_it_replaced() -> None:
    redactor = carols()

    redactor.text("/data/pool.jsonl by carol, /data/pool.jsonl")

    assert redactor.replaced == {
        Replacement("path", "/data/pool.jsonl", "…/pool.jsonl"): 2,
        Replacement("user", "carol", "<user>"): 1,
    }


def test_switched_off_it_changes_nothing() -> None:
    redactor = Redactor(Workspace(WORKSPACE), enabled=False, home=Path(HOME), users=["carol"])

    assert redactor.value({"author": "carol", "path": "/home/carol/x"}) == {"author": "carol", "path": "/home/carol/x"}


def test_a_common_word_is_a_user_only_where_users_stand() -> None:
    redactor = Redactor(Workspace("/root/ws"), home=Path("/root"), users=["root", "mark"], hosts=["vm"])

    assert redactor.text("the square root of vm; mark the root, /root/ws/x, /root/a.txt, square/root") == (
        "the square root of vm; mark the root, <workspace>/x, …/a.txt, square/root"
    )
    assert redactor.text("mark@vm http://vm/x /home/mark") == "<user>@<host> http://<host>/x …/<user>"


def test_authors_of_flags_disputes_and_views_are_users(tmp_path: Path) -> None:
    rows = {"pools/p-1/flags.jsonl": "Dora D.", "evals/m/b-1/disputes.jsonl": "erwin", "views/mine.json": "fiona"}
    for name, author in rows.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"author": author}) + "\n")
    (tmp_path / "views" / "torn.json").write_text("{")

    assert carols(tmp_path).text("Dora D. and erwin asked fiona") == "<user> and <user> asked <user>"


SECRETS = (HOME, WORKSPACE, SOURCE, "carol", "gpu-box")
SIGNS = ("/", "\\", " ", "'", '"', ":", "~", "@", "http://", "file:", "C:\\Users\\", "x", ".jsonl", "=", "\n", "…", "<")
pieces = st.sampled_from([*SECRETS, *SIGNS])


@given(st.lists(st.one_of(pieces, st.text(alphabet=string.printable, max_size=5))).map("".join))
@example("x/home/carol/a/home/carol2")
@example("http://carol@gpu-box/home/carol")
def test_nothing_gets_through_and_a_second_time_changes_nothing(text: str) -> None:
    redacted = carols().text(text)

    assert not any(root in redacted for root in (HOME, WORKSPACE, SOURCE))
    words = "".join(c if c.isalnum() or c == "-" else " " for c in redacted).split()
    assert "carol" not in words
    assert "gpu-box" not in [word.lower() for word in words]
    assert carols().text(redacted) == redacted
    assert carols().value({"author": text}) == {"author": "<user>" if text else ""}


@given(st.text(alphabet=string.ascii_letters + string.digits + " .,;()[]{}^_$+-*=<>\n", max_size=200))
def test_a_text_without_slashes_and_names_is_unchanged(text: str) -> None:
    if "carol" not in text and "cj" not in text and "gpu-box" not in text.lower():
        assert carols().text(text) == text
