"""Uploaded files: a safe name in the workspace whatever the browser says, each content once, whole or not at all."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from lark_engine.errors import PoolError
from lark_engine.pool.uploads import UPLOAD_TYPES, keep_upload
from lark_engine.store.workspace import Workspace


def keep(workspace: Workspace, name: str, content: bytes = b"{}\n") -> str:
    path = keep_upload(io.BytesIO(content), name, workspace)
    assert path.parent == workspace.uploads_dir
    assert path.read_bytes() == content
    return path.name


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("pool.jsonl", "pool.jsonl"),
        ("My Pool (1).JSONL.gz", "my-pool-1.jsonl.gz"),
        ("../../etc/passwd.json", "passwd.json"),
        ("C:\\data\\pool.parquet", "pool.parquet"),
        ("/abs/olute.jsonl.zst", "olute.jsonl.zst"),
        ("..jsonl", "unnamed.jsonl"),
        ("--skip-bad.jsonl", "skip-bad.jsonl"),
        ("a\x00b\u202e$(rm -rf ~)`.jsonl", "a-b-rm--rf.jsonl"),
        ("x" * 500 + ".ndjson", "x" * 60 + ".ndjson"),
    ],
)
def test_a_name_is_never_a_path_nor_an_option(workspace: Workspace, said: str, kept: str) -> None:
    assert keep(workspace, said) == kept


@pytest.mark.parametrize("name", ["pool.exe", "pool", "", "pool.jsonl/", "pool.jsonl.bak"])
def test_a_file_that_no_import_reads_is_refused_and_nothing_is_written(workspace: Workspace, name: str) -> None:
    with pytest.raises(PoolError, match=r"no file of a pool by its name; give one of \.jsonl"):
        keep(workspace, name)
    assert not workspace.uploads_dir.exists()


def test_the_same_content_is_kept_once_and_another_one_of_that_name_gets_a_suffix_from_its_hash(
    workspace: Workspace,
) -> None:
    second = hashlib.sha256(b"second").hexdigest()[:12]
    assert keep(workspace, "pool.jsonl.gz", b"first") == "pool.jsonl.gz"
    assert keep(workspace, "pool.jsonl.gz", b"first") == "pool.jsonl.gz"
    assert keep(workspace, "Pool.jsonl.gz", b"second") == f"pool-{second}.jsonl.gz"
    assert keep(workspace, "pool.jsonl.gz", b"second") == f"pool-{second}.jsonl.gz"
    found = sorted(path.name for path in workspace.uploads_dir.iterdir() if not path.name.startswith("."))
    assert found == [f"pool-{second}.jsonl.gz", "pool.jsonl.gz"]


def test_an_empty_file_is_refused(workspace: Workspace) -> None:
    with pytest.raises(PoolError, match=r"pool\.jsonl: the uploaded file is empty"):
        keep(workspace, "pool.jsonl", b"")


def test_a_write_that_breaks_off_leaves_no_file(workspace: Workspace) -> None:
    class Torn(io.BytesIO):
        rewound = False

        def seek(self, *place: int) -> int:
            self.rewound = True
            return super().seek(*place)

        def read(self, *size: int | None) -> bytes:
            if self.rewound:
                raise OSError("the connection broke")
            return super().read(*size)

    with pytest.raises(OSError, match="the connection broke"):
        keep_upload(Torn(b"content"), "pool.jsonl", workspace)
    assert [path.name for path in workspace.uploads_dir.iterdir()] == [".lock"]


def test_the_dialog_offers_the_kinds_of_file_that_an_import_reads(tmp_path: Path) -> None:
    assert set(UPLOAD_TYPES) == {"jsonl", "ndjson", "json", "gz", "zst", "zstd", "parquet"}
