"""A bundle of a stranger: each way to attack who opens it is refused with one sentence, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown_workspace import shown_workspace

from lark_engine.errors import LarkError, StoreError
from lark_engine.sharing import unpack
from lark_engine.sharing.bundle import plan_bundle, write_bundle
from lark_engine.sharing.bundle_choice import BundleChoice
from lark_engine.sharing.unpack import open_bundle
from lark_engine.sharing.zip_entries import Limits, name_problem

EVENTS = "pools/demo-0123456789ab/events.jsonl"
OTHER = "scores/demo-0123456789ab/events.jsonl"
CONTENT = b'{"stage": "pool"}\n'


def record(content: dict[str, bytes], **changes: Any) -> bytes:
    listed = {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in content.items()}
    said = {
        "schema_version": 1, "created_at": datetime(2026, 1, 2, tzinfo=UTC).isoformat(), "texts": "none",
        "redacted": True, "files": listed,
    }  # fmt: skip
    return json.dumps({**said, **changes}).encode()


def crafted(
    path: Path, files: dict[str, bytes] | None = None, *, listed: dict[str, bytes] | None = None,
    add: Callable[[zipfile.ZipFile], None] = lambda archive: None, method: int = zipfile.ZIP_DEFLATED,
    changes: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """A zip of these files with a record of them, or of what `listed` says."""
    files = {EVENTS: CONTENT} if files is None else files
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
        add(archive)
        archive.writestr("bundle.json", record(files if listed is None else listed, **(changes or {})))
    return path


def patched(path: Path, old: bytes, new: bytes, *, count: int = -1) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))
    return path


def in_table(path: Path, name: str, offset: int, form: str, value: int) -> Path:
    """Change a field of a file's line in the table of contents."""
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x01\x02", 0, content.rfind(name.encode()))
    struct.pack_into(form, content, at + offset, value)
    path.write_bytes(content)
    return path


def assert_refused(path: Path, said: str, limits: Limits | None = None) -> str:
    """The bundle is refused with one sentence that says so, and nothing but locks is left."""
    cache = path.parent / "bundles"
    with pytest.raises(StoreError) as refusal:
        open_bundle(path, cache, limits or Limits())
    sentence = str(refusal.value)
    assert said in sentence
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    left = cache.rglob("*") if cache.exists() else ()
    assert not [p for p in left if not p.name.endswith(".lock")]
    assert {p.name for p in path.parent.iterdir()} <= {path.name, "bundles"}
    return sentence


def test_a_whole_bundle_opens_and_its_files_cannot_be_written(tmp_path: Path) -> None:
    workspace = open_bundle(crafted(tmp_path / "a.zip"), tmp_path / "bundles")

    assert (workspace.root / EVENTS).read_bytes() == CONTENT
    assert workspace.root.name == hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()[:32]
    for path in workspace.root.rglob("*"):
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o444
        assert not path.is_symlink()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../outside.jsonl", "leads out of its folder"),
        ("pools/../../outside.jsonl", "leads out of its folder"),
        ("pools/./events.jsonl", "leads out of its folder"),
        ("/etc/cron.d/evil", "begins at the top of the disk"),
        ("C:/Windows/evil.jsonl", "begins with a drive"),
        ("pools\\..\\evil.jsonl", "holds a backslash"),
        ("pools//events.jsonl", "is no name of a file"),
        ("pools/a\x1b[2Jb/events.jsonl", "holds control characters"),
        ("pools/a\u202eb/events.jsonl", "holds control characters"),
        ("pools/" + "a" * 300 + "/events.jsonl", "is longer than any name in a bundle"),
        ("/".join(["a"] * 400), "is longer than any name in a bundle"),
    ],
)  # fmt: skip
def test_refuses_names_that_lead_elsewhere(tmp_path: Path, name: str, said: str) -> None:
    assert_refused(crafted(tmp_path / "a.zip", {EVENTS: CONTENT, name: b"evil"}), said)


def test_refuses_a_name_that_ends_at_a_zero_for_some(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.zip", {"pools/demo-0123456789ab/eventsXjsonl": CONTENT})
    assert_refused(patched(path, b"eventsXjsonl", b"events\x00jsonl"), "holds control characters")


@pytest.mark.parametrize(
    "name",
    [
        "memo/hashes/x.json", "jobs/a/spec.json", "pools/demo-0123456789ab/model.pkl", "README.md",
        "scores/demo-0123456789ab/setup.py", "views/UPPER.json", ".lark/x.json", "logs/audit.jsonl",
        "access/tokens.json", "pools/.hidden/events.jsonl", "evals/a/events.jsonl", "checkpoints/a/model.safetensors",
    ],
)  # fmt: skip
def test_refuses_files_that_no_bundle_has(tmp_path: Path, name: str) -> None:
    assert_refused(crafted(tmp_path / "a.zip", {EVENTS: CONTENT, name: b"{}"}), "is no file that a bundle may hold")


@pytest.mark.parametrize(
    ("mode", "word"),
    [(stat.S_IFLNK | 0o777, "link"), (stat.S_IFCHR | 0o666, "device"), (stat.S_IFIFO | 0o666, "pipe"),
     (stat.S_IFDIR | 0o755, "folder"), (stat.S_IFSOCK | 0o755, "socket")],
)  # fmt: skip
def test_refuses_links_devices_and_pipes(tmp_path: Path, mode: int, word: str) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(OTHER)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")

    path = crafted(tmp_path / "a.zip", add=add, listed={EVENTS: CONTENT, OTHER: b"/etc/passwd"})
    assert_refused(path, f"is no file but a {word}")


def test_refuses_a_folder(tmp_path: Path) -> None:
    assert_refused(
        crafted(tmp_path / "a.zip", add=lambda archive: archive.writestr("pools/", "")), "is no name of a file"
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_a_name_twice_or_alike_but_for_case(tmp_path: Path) -> None:
    assert_refused(
        crafted(tmp_path / "a.zip", add=lambda archive: archive.writestr(EVENTS, b"other")), "is in it twice"
    )
    alike = EVENTS.replace("demo", "Demo")
    assert_refused(crafted(tmp_path / "a.zip", {EVENTS: CONTENT, alike: CONTENT}), "by case only")


def test_refuses_what_is_not_listed_and_what_is_missing(tmp_path: Path) -> None:
    assert_refused(
        crafted(tmp_path / "a.zip", {EVENTS: CONTENT, OTHER: CONTENT}, listed={EVENTS: CONTENT}), "not in its bundle"
    )
    assert_refused(
        crafted(tmp_path / "a.zip", listed={EVENTS: CONTENT, OTHER: CONTENT}), f"'{OTHER}' is missing from it"
    )


def test_refuses_changed_content(tmp_path: Path) -> None:
    said = CONTENT.replace(b"pool", b"pull")
    assert_refused(crafted(tmp_path / "a.zip", listed={EVENTS: said}), "is not what its checksum says")
    assert_refused(crafted(tmp_path / "a.zip", listed={EVENTS: CONTENT + b" "}), "says another number")


@pytest.mark.parametrize("flag", [0x1, 0x40])
def test_refuses_encrypted_files(tmp_path: Path, flag: int) -> None:
    assert_refused(in_table(crafted(tmp_path / "a.zip"), EVENTS, 8, "<H", flag), "is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_other_methods_of_packing(tmp_path: Path, method: int) -> None:
    assert_refused(crafted(tmp_path / "a.zip", method=method), f"is packed by method {method}")


def test_refuses_two_headers_that_contradict_each_other(tmp_path: Path) -> None:
    path = patched(crafted(tmp_path / "a.zip"), EVENTS.encode(), EVENTS.replace("demo", "evil").encode(), count=1)
    assert_refused(path, "says something else of itself")


def test_refuses_files_that_overlap(tmp_path: Path) -> None:
    """Two lines of the table that share the same packed bytes: a small zip becomes as large as one likes."""
    path = crafted(tmp_path / "a.zip", {EVENTS: CONTENT, OTHER: CONTENT}, method=zipfile.ZIP_STORED)
    first = path.read_bytes().find(b"PK\x03\x04")
    second = path.read_bytes().find(b"PK\x03\x04", first + 1)
    content = bytearray(path.read_bytes())
    content[second - len(CONTENT) : second] = b"x" * len(CONTENT)
    path.write_bytes(content)
    assert_refused(in_table(in_table(path, EVENTS, 20, "<L", 200), EVENTS, 24, "<L", 200), "overlaps another file")


def test_refuses_an_offset_beyond_the_end(tmp_path: Path) -> None:
    path = in_table(crafted(tmp_path / "a.zip"), EVENTS, 42, "<L", 0x7FFFFFFF)
    assert_refused(path, "where its table of contents says")


def test_refuses_content_that_is_longer_than_declared(tmp_path: Path) -> None:
    """The declared size is small, and so is the listed one: the bytes are counted as they come."""
    long = b"a" * 100_000
    path = crafted(tmp_path / "a.zip", {EVENTS: long}, listed={EVENTS: long[:10]})
    path = in_table(in_table(path, EVENTS, 24, "<L", 10), EVENTS, 16, "<L", zlib.crc32(long[:10]))
    assert_refused(path, "holds more than the 10 bytes that it declares")


def test_refuses_content_that_is_shorter_than_declared(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.zip", listed={EVENTS: CONTENT + b"!"})
    assert_refused(in_table(path, EVENTS, 24, "<L", len(CONTENT) + 1), "holds other than the")


def test_refuses_a_bomb_by_its_ratio_before_anything_is_unpacked(tmp_path: Path) -> None:
    bomb = bytes(32 << 20)
    path = crafted(tmp_path / "a.zip", {EVENTS: bomb})
    assert path.stat().st_size < 100_000
    assert_refused(path, "unpacks to more than 250 times its size")


def test_refuses_more_bytes_or_files_than_the_limits_and_takes_them_when_allowed(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.zip", {EVENTS: os.urandom(50_000)})
    sentence = assert_refused(path, "allow more with --bundle-limit", Limits(most_bytes=40_000))
    assert "unpacked it takes 50.2 kB, and the limit is 40.0 kB" in sentence
    assert_refused(path, "it holds 2 files, and a bundle holds at most 1", Limits(most_files=1))
    assert open_bundle(path, tmp_path / "bundles", Limits(most_bytes=60_000)).root.is_dir()


def test_refuses_a_table_of_contents_that_claims_to_be_huge(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    struct.pack_into("<2H", content, content.rfind(b"PK\x05\x06") + 8, 60_000, 60_000)
    path.write_bytes(content)
    assert_refused(path, "it holds 60,000 files")


def test_refuses_when_the_disk_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = crafted(tmp_path / "a.zip")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("lark_engine.store.atomic.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(StoreError, match="unpacking this bundle needs"):
        open_bundle(path, tmp_path / "bundles")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 99}, "made by a newer LARK Studio (format 99"),
        ({"schema_version": "1"}, "is of no known format"),
        ({"schema_version": 0}, "is of no known format"),
        ({"created_at": "yesterday"}, "its bundle.json is damaged (created_at"),
        ({"files": {EVENTS: {"size": -1, "sha256": "0" * 64}}}, "its bundle.json is damaged"),
        ({"files": {EVENTS: {"size": len(CONTENT), "sha256": "zz"}}}, "its bundle.json is damaged"),
    ],
)  # fmt: skip
def test_refuses_a_record_of_another_format(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert_refused(crafted(tmp_path / "a.zip", changes=changes), said)


def test_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert_refused(path, "it has no bundle.json")
    path.write_bytes(b"hello")
    assert_refused(path, "it is no zip, or was cut off")
    path.write_bytes(crafted(tmp_path / "a.zip").read_bytes()[:-30])
    assert_refused(path, "it is no zip, or was cut off")
    with pytest.raises(StoreError, match="cannot be read"):
        open_bundle(tmp_path, tmp_path / "bundles")
    with pytest.raises(StoreError, match="cannot be read"):
        open_bundle(tmp_path / "absent.zip", tmp_path / "bundles")


def test_a_record_nested_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", "[" * 100_000)
    assert_refused(path, "its bundle.json is damaged")


def test_opened_again_it_is_found_and_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = crafted(tmp_path / "a.zip")
    first = open_bundle(path, tmp_path / "bundles")
    monkeypatch.setattr(unpack, "_unpack", lambda *_: pytest.fail("unpacked again"))

    assert open_bundle(path, tmp_path / "bundles").root == first.root


@pytest.mark.parametrize("name", [EVENTS, "bundle.json", unpack.MARKER])
def test_one_that_was_changed_since_is_unpacked_again(tmp_path: Path, name: str) -> None:
    path = crafted(tmp_path / "a.zip")
    root = open_bundle(path, tmp_path / "bundles").root
    (root / name).unlink()

    assert (open_bundle(path, tmp_path / "bundles").root / EVENTS).read_bytes() == CONTENT


def test_what_a_kill_left_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.zip")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    half = tmp_path / "bundles" / f".{digest}.unpacking" / EVENTS
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    (tmp_path / "bundles" / digest).mkdir()

    root = open_bundle(path, tmp_path / "bundles").root

    assert (root / EVENTS).read_bytes() == CONTENT
    assert not half.exists()


def test_two_that_open_the_same_bundle_at_once_get_the_same_folder(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.zip", {EVENTS: os.urandom(3_000_000)})
    roots: list[Path] = []
    threads = [
        threading.Thread(target=lambda: roots.append(open_bundle(path, tmp_path / "bundles").root)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(roots) == 4
    assert len(set(roots)) == 1


@given(st.text(max_size=40))
def test_a_name_without_a_problem_stays_below_its_folder(name: str) -> None:
    if not name_problem(name):
        resolved = os.path.normpath(os.path.join("/bundle", name))  # noqa: PTH118
        assert resolved.startswith("/bundle/")
        assert "\0" not in name


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_bundle_with_one_changed_byte_is_refused_or_the_same(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    content = bytearray(crafted(folder / "a.zip", {EVENTS: CONTENT, OTHER: CONTENT * 50}).read_bytes())
    content[int(place * len(content))] = value
    (folder / "a.zip").write_bytes(content)
    try:
        root = open_bundle(folder / "a.zip", folder / "bundles").root
    except LarkError:
        return
    assert (root / EVENTS).read_bytes() == CONTENT
    assert (root / OTHER).read_bytes() == CONTENT * 50


def test_a_real_bundle_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    made = shown_workspace(tmp_path / "cache")
    whole = write_bundle(plan_bundle(BundleChoice(), made.workspace), tmp_path / "whole.zip").path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / "cut.zip").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(StoreError):
            open_bundle(tmp_path / "cut.zip", tmp_path / "bundles")
