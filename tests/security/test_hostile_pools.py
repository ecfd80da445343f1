"""Pools from anybody: ids, numbers, nesting, bombs, links and code in them are data, refused or kept, and no more."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hostile import memory_of, row, with_raw

from lark_engine.config import PoolConfig
from lark_engine.errors import PoolError
from lark_engine.pool.dataset import PoolData
from lark_engine.pool.importer import import_pool
from lark_engine.pool.preview import preview
from lark_engine.pool.sources import hub_errors, hub_rows
from lark_engine.store.workspace import Artifact, Workspace

MB = 1 << 20


def write(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((x if isinstance(x, bytes) else json.dumps(x).encode()) + b"\n" for x in lines))
    return path


def imported(source: Path, workspace: Workspace, **options: Any) -> Artifact:
    return import_pool(PoolConfig(source=str(source), **options), workspace)


def refusal(source: Path, workspace: Workspace) -> str:
    with pytest.raises(PoolError) as error:
        imported(source, workspace)
    return str(error.value)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


IDS = (
    "../../etc/passwd", "..\\..\\windows\\system32", "/etc/passwd", "id\x00null", "x" * 100_000, "CON", "NUL.txt", "..",
    ".", "~root", "$(touch pwned)", "-rf", "\u202etxt.exe", "\u200b", "<script>alert(1)</script>",
    "[x](javascript:alert(1))", "![](http://192.0.2.1/)", ":material/delete:", "$\\href{javascript:x}{y}$", "a\nb",
)  # fmt: skip


def test_ids_and_teachers_are_kept_as_they_are_and_name_no_file(tmp_path: Path, workspace: Workspace) -> None:
    source = write(tmp_path / "in" / "pool.jsonl", *(row(name, teacher=name, name=name) for name in IDS))
    before = files_below(tmp_path / "in")
    pool = imported(source, workspace)
    found = list(PoolData(pool).trajectories())
    assert [t.problem_id for t in found] == [t.teacher for t in found] == [t.extra["name"] for t in found] == list(IDS)
    assert files_below(tmp_path / "in") == before
    assert {path.parent for path in workspace.root.rglob("*") if path.is_file()} <= {pool.path, workspace.root}


@pytest.mark.parametrize(
    ("name", "pool_name"),
    [
        ("..jsonl", "unnamed"), ("...jsonl", "unnamed"), ("-rf.jsonl", "rf"), ("a b;$(x).jsonl", "a-b-x"),
        ("<script>.jsonl", "script"), ("\u202ecod.jsonl", "cod"), ("x" * 200 + ".jsonl", "x" * 60),
        ("\n.jsonl", "unnamed"),
        ("%2e%2e%2fetc.jsonl", "2e-2e-2fetc"), ("老师.jsonl", "unnamed"),
    ],
)  # fmt: skip
def test_a_pool_is_named_safely_whatever_its_file_is_called(
    tmp_path: Path, workspace: Workspace, name: str, pool_name: str
) -> None:
    pool = imported(write(tmp_path / name, row()), workspace)
    assert pool.name == pool_name
    assert pool.path.parent == workspace.root / "pools"
    assert pool.path.name == f"{pool_name}-{pool.fingerprint}"


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape", "..", "a/../../b", "\0"])
def test_a_name_that_is_asked_for_leads_nowhere_else(tmp_path: Path, workspace: Workspace, name: str) -> None:
    pool = imported(write(tmp_path / "p.jsonl", row()), workspace, name=name)
    assert pool.path.parent == workspace.root / "pools"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (with_raw("x", "[" * 100 + "]" * 100), "the row is nested more than 64 levels deep"),
        (with_raw("x", '{"a":' * 500 + "1e999" + "}" * 500), "the row is nested more than 64 levels deep"),
        (with_raw("problem_id", "[" * 900 + "NaN" + "]" * 900), "the row is nested more than 64 levels deep"),
        (with_raw("messages", "[" * 900 + "1e999" + "]" * 900), "the row is nested more than 64 levels deep"),
        (with_raw("x", "[" * 200_000), "not readable JSON: maximum recursion depth exceeded"),
        (with_raw("candidate_id", '"' + "9" * 5000 + '"'), "no integer from 0 to 2147483647"),
        (with_raw("candidate_id", "9" * 4000), "no integer from 0 to 2147483647"),
        (with_raw("candidate_id", "1e999"), "no integer from 0 to 2147483647"),
        (with_raw("candidate_id", "-1"), "no integer from 0 to 2147483647"),
        (with_raw("is_correct", "1" + "0" * 400), "is_correct is the number 1000"),
        (with_raw("x", "9" * 100_000), "not readable JSON: Exceeds the limit"),
    ],
    ids=range(11),
)
def test_nesting_and_numbers_beyond_all_measure_are_bad_rows(
    tmp_path: Path, workspace: Workspace, line: bytes, reason: str
) -> None:
    source = write(tmp_path / "pool.jsonl", row(), line)
    assert reason in refusal(source, workspace)
    assert [rejected.place for rejected in preview(PoolConfig(source=str(source))).rejected] == ["pool.jsonl:2"]
    pool = imported(source, workspace, skip_bad=True)
    assert pool.manifest.counts["num_trajectories"] == 1


def test_what_is_as_deep_as_is_allowed_comes_back_also_deep_in_a_stack(tmp_path: Path, workspace: Workspace) -> None:
    line = with_raw("x", "[" * 60 + "NaN" + "]" * 60)
    data = PoolData(imported(write(tmp_path / "pool.jsonl", line), workspace))

    def below(depth: int) -> Any:
        return next(iter(data.trajectories())) if depth == 0 else below(depth - 1)

    assert json.dumps(below(600).extra["x"]) == "[" * 60 + "null" + "]" * 60


def test_a_reference_of_thousands_of_digits_is_kept_as_text(tmp_path: Path, workspace: Workspace) -> None:
    pool = imported(write(tmp_path / "pool.jsonl", with_raw("answer", "9" * 4000)), workspace, labels="none")
    assert next(iter(PoolData(pool).trajectories())).answer == "9" * 4000


def gz(path: Path, part: bytes, count: int, level: int = 1) -> Path:
    with gzip.open(path, "wb", level) as file:
        for _ in range(count):
            file.write(part)
    return path


def zst(path: Path, part: bytes, count: int) -> Path:
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=1).stream_writer(raw) as file:
        for _ in range(count):
            file.write(part)
    return path


def long_row(num_mb: int, last: str = "") -> bytes:
    return json.dumps(row(response="x" * (num_mb * MB) + last), ensure_ascii=False).encode() + b"\n"


def pointed_at(path: Path, num_mb: int, num_rows: int) -> Path:
    """A Parquet file of a few kilobytes in which every row points at one long text."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), pa.array(["x" * (num_mb * MB)]))
    same = ["t"] * num_rows
    table = pa.table({"problem_id": range(num_rows), "teacher": same, "prompt": same, "response": text})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    return path


BOMBS = {
    "an endless line": lambda p: gz(p / "b.jsonl.gz", b"a" * MB, 320, 9),
    "an endless line, zstd": lambda p: zst(p / "b.jsonl.zst", b"a" * MB, 1000),
    "blank lines": lambda p: zst(p / "b.jsonl.zst", b"\n" * MB, 500),
    "an endless space in a list": lambda p: zst(p / "b.json.zst", b"[" + b" " * MB, 500),
    "rows of 15 MB": lambda p: zst(p / "b.jsonl.zst", long_row(15), 10),
    "rows of 15 M wide characters": lambda p: zst(p / "b.jsonl.zst", long_row(15, "\U0001f600"), 8),
    "a text that many rows point at": lambda p: pointed_at(p / "b.parquet", 20, 100),
    "a page of 100 MB": lambda p: pointed_at(p / "b.parquet", 100, 2),
}
SAID = {
    "an endless space in a list": "not valid JSON, or longer than 16.8 MB",
    "a text that many rows point at": "b.parquet:1: the row has 21.0 MB; the limit is 16.8 MB",
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_takes_little_memory_also_of_the_process_that_shows_pages(
    tmp_path: Path, bomb: str
) -> None:
    source = BOMBS[bomb](tmp_path)
    assert source.stat().st_size < 1 * MB
    began = time.monotonic()
    memory_mb, said = memory_of("preview", source, tmp_path / "w")
    assert memory_mb < 400, said  # without limits: 2.3 GB (rows of 15 MB), 8.9 GB (wide characters), 7.7 GB (Parquet)
    assert time.monotonic() - began < 20  # without: 171 s (blank lines)
    memory_mb, said = memory_of("import", source, tmp_path / "w")
    assert SAID.get(bomb, "unpacks to more than 1,000 times its size") in said
    assert memory_mb < 600
    assert not list(tmp_path.glob("w/pools/*/manifest.json"))


@pytest.mark.slow
def test_a_look_has_a_budget_also_where_a_file_packs_no_better_than_texts_do(tmp_path: Path) -> None:
    """Packed 229 times, these are no bombs by that; ten rows at once would be 1.6 GB, and the lines take a minute."""
    wide = gz(tmp_path / "wide.jsonl.gz", long_row(15, "\U0001f600"), 10)
    memory_mb, said = memory_of("preview", wide, tmp_path / "w")
    assert (memory_mb < 400, said) == (True, "2 rows")
    empty = write(tmp_path / "empty.jsonl", b"\n" * (400 * MB))  # not packed at all
    began = time.monotonic()
    assert memory_of("preview", empty, tmp_path / "w")[1] == "0 rows"
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_texts_that_pack_well_are_no_bomb(tmp_path: Path, workspace: Workspace) -> None:
    """One long system prompt before every short answer: 80 MB in a few hundred kB."""
    system = " ".join(f"rule {n * 7919 % 1000}" for n in range(900))
    path = tmp_path / "pool.jsonl.zst"
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as file:
        for n in range(9000):
            file.write(json.dumps({**row(n, str(n * 104_729)), "system_note": system}).encode() + b"\n")
    assert path.stat().st_size * 50 < 9000 * len(system)
    assert imported(path, workspace).manifest.counts["num_trajectories"] == 9000


def test_a_row_of_parquet_beyond_the_limit_is_rejected_with_its_size(tmp_path: Path, workspace: Workspace) -> None:
    path = pointed_at(tmp_path / "pool.parquet", 20, 3)
    assert "pool.parquet:1: the row has 21.0 MB; the limit is 16.8 MB" in refusal(path, workspace)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"problem_id": pa.array([[1]]), "teacher": pa.array([{"a": 1}]), "messages": pa.array([b"\xff"])}),
        pa.table({"problem_id": pa.array([1.5]), "teacher": pa.array([None], pa.null()), "prompt": pa.array([True])}),
        pa.table({"messages": pa.array([[[[1]]]])}),
        pa.table({"x": pa.array([], pa.string())}),
        pa.table({"problem_id": pa.array([0]), "problem_ID": pa.array([1]), "": pa.array(["x"])}),
    ],
    ids=range(5),
)
def test_a_table_of_another_shape_is_refused_in_one_sentence(
    tmp_path: Path, workspace: Workspace, table: pa.Table
) -> None:
    pq.write_table(table, tmp_path / "pool.parquet")
    assert refusal(tmp_path / "pool.parquet", workspace).count("\n") == 0
    assert preview(PoolConfig(source=str(tmp_path / "pool.parquet"))).first == ()


def test_a_declared_number_of_rows_is_not_believed(tmp_path: Path, workspace: Workspace) -> None:
    """The footer says 3 rows; changed to 2,000,000,000 or to none, what is there is read, or the file is refused."""
    path = tmp_path / "pool.parquet"
    pq.write_table(pa.Table.from_pylist([row(n) for n in range(3)]), path)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    # num_rows is the third field of the footer (Thrift, compact): type i64 (0x16), 3 as a zigzag varint (0x06). Then
    # comes the list of row groups (0x19), of one struct (0x1c).
    place = content.index(b"\x16\x06\x19\x1c", footer)
    for declared in (b"\x80\xd0\xac\xf3\x0e", b"\x00"):
        length = len(content) - 8 - footer + len(declared) - 1
        changed = content[: place + 1] + declared + content[place + 2 : -8] + length.to_bytes(4, "little") + b"PAR1"
        (tmp_path / "changed.parquet").write_bytes(changed)
        assert pq.read_metadata(tmp_path / "changed.parquet").num_rows in (2_000_000_000, 0)
        found = preview(PoolConfig(source=str(tmp_path / "changed.parquet")))
        assert found.num_rows <= 3
        try:
            pool = imported(tmp_path / "changed.parquet", Workspace(tmp_path / f"w{len(declared)}"))
            assert pool.manifest.counts["num_trajectories"] == 3
        except PoolError as error:
            assert "\n" not in str(error)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of this user's that no folder from elsewhere should make part of a pool."""
    return write(tmp_path / "home" / "secret.jsonl", row(response="the secret"))


@pytest.mark.parametrize("to_folder", [False, True])
def test_a_link_out_of_a_folder_is_refused_and_its_target_named(
    tmp_path: Path, workspace: Workspace, secret: Path, to_folder: bool
) -> None:
    folder = write(tmp_path / "got" / "a.jsonl", row(1)).parent
    if to_folder:
        (folder / "t").symlink_to(secret.parent)
        pool = imported(folder, workspace)  # what is behind a linked folder is not looked at
        assert [t.response for t in PoolData(pool).trajectories()] == ["2"]
        return
    (folder / "b.jsonl").symlink_to(secret)
    said = refusal(folder, workspace)
    assert f"b.jsonl is a link to {secret}, outside the folder; if you mean that file, copy it there" in said
    with pytest.raises(PoolError, match="outside the folder"):
        preview(PoolConfig(source=str(folder)))


def test_a_link_of_a_teacher_out_of_the_folder_is_refused(tmp_path: Path, workspace: Workspace, secret: Path) -> None:
    (tmp_path / "got" / "teacher").mkdir(parents=True)
    (tmp_path / "got" / "teacher" / "0.json").symlink_to(secret)
    assert "teacher/0.json is a link to" in refusal(tmp_path / "got", workspace)


def test_links_within_a_folder_and_those_of_a_download_of_the_hub_are_followed(
    tmp_path: Path, workspace: Workspace
) -> None:
    write(tmp_path / "datasets--a--b" / "blobs" / "0123", row(7))
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "abcdef"
    snapshot.mkdir(parents=True)
    (snapshot / "data.jsonl").symlink_to(Path("../../blobs/0123"))
    assert imported(snapshot, workspace).manifest.counts["num_trajectories"] == 1
    write(tmp_path / "own" / "a.jsonl", row(8))
    (tmp_path / "own" / "b.jsonl").symlink_to("a.jsonl")
    assert imported(tmp_path / "own", workspace).manifest.counts["num_trajectories"] == 2


def test_a_link_that_leads_to_itself_stops_nothing(tmp_path: Path, workspace: Workspace) -> None:
    folder = write(tmp_path / "got" / "a.jsonl", row(1)).parent
    (folder / "b.jsonl").symlink_to("b.jsonl")
    (folder / "again").symlink_to(".")
    assert imported(folder, workspace).manifest.counts["num_trajectories"] == 1


def test_pipes_and_devices_are_no_sources(tmp_path: Path, workspace: Workspace) -> None:
    folder = write(tmp_path / "got" / "a.jsonl", row(1)).parent
    os.mkfifo(folder / "pipe.jsonl")
    assert imported(folder, workspace).manifest.counts["num_trajectories"] == 1  # a pipe in it is passed over
    for source in (folder / "pipe.jsonl", Path("/dev/zero"), Path("/dev/stdin")):
        with pytest.raises(PoolError):
            imported(source, workspace)
        with pytest.raises(PoolError):
            preview(PoolConfig(source=str(source)))


SCRIPT = "from pathlib import Path\nPath({marker!r}).write_text('the script ran')\n"


@pytest.fixture
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    yield


@pytest.mark.slow
@pytest.mark.usefixtures("no_caches")
def test_a_loading_script_beside_the_data_is_not_run(tmp_path: Path, workspace: Workspace) -> None:
    marker = tmp_path / "marker"
    folder = write(tmp_path / "owner_data" / "train.jsonl", row(1)).parent
    for name in ("owner_data.py", "dataset.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(SCRIPT.format(marker=str(marker)))
    assert imported(folder, workspace).manifest.counts["num_trajectories"] == 1
    with pytest.raises(hub_errors(), match="Dataset scripts are no longer supported"):
        list(hub_rows(str(folder), revision="main", split="train"))  # as a dataset of the hub is read
    (folder / "owner_data.py").unlink()
    assert len(list(hub_rows(str(folder), revision="main", split="train"))) == 1
    (folder / "train.jsonl").unlink()
    with pytest.raises(PoolError, match="holds neither"):
        imported(folder, workspace)
    assert not marker.exists()
    assert not [name for name in sys.modules if "owner_data" in name]


@pytest.mark.slow
@pytest.mark.usefixtures("no_caches")
def test_a_saved_dataset_reads_only_the_files_beside_it_and_opens_no_path_of_its_rows(
    tmp_path: Path, workspace: Workspace, secret: Path
) -> None:
    import datasets

    folder = tmp_path / "saved"
    text, said = datasets.Value("string"), [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    picture = {"bytes": datasets.Value("binary"), "path": text}
    features = datasets.Features(
        {"problem_id": datasets.Value("int64"), "teacher": text, "messages": said, "picture": picture}
    )
    rows = [{**row(1), "picture": {"bytes": None, "path": str(secret)}}]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder))
    # As a picture it would be opened when the row is read, from wherever it is.
    info = json.loads((folder / "dataset_info.json").read_text())
    info["features"]["picture"] = {"_type": "Image"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    [found] = PoolData(imported(folder, workspace)).trajectories()
    assert found.extra == {"picture": {"bytes": None, "path": str(secret)}}
    datasets.Dataset.from_list([row(response="the secret")]).save_to_disk(str(tmp_path / "theirs"))
    state = json.loads((folder / "state.json").read_text())
    for name in ("../theirs/data-00000-of-00001.arrow", str(tmp_path / "theirs" / "data-00000-of-00001.arrow"), ".."):
        (folder / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": name}]}))
        assert "which does not lie beside it" in refusal(folder, workspace)
    for damage in ("[]", "{", "[" * 100_000, '{"_data_files": 7}'):
        (folder / "state.json").write_text(damage)
        assert "the saved dataset is damaged" in refusal(folder, workspace)
