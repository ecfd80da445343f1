"""Every format of a source is read, streaming, with places that a user can find."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pool_sources import jsonl, pool_row

from lark_engine.errors import PoolError

ROWS = [pool_row(p, c, answer="1") for p in range(3) for c in range(2)]
KEYS = [(str(p), c) for p in range(3) for c in range(2)]


def keys(pool):
    return [(t.problem_id, t.candidate_id) for t in pool.trajectories()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.jsonl", jsonl(*ROWS)),
        ("no_newline.jsonl", jsonl(*ROWS).rstrip(b"\n")),
        ("crlf.jsonl", jsonl(*ROWS).replace(b"\n", b"\r\n")),
        ("bom.jsonl", b"\xef\xbb\xbf" + jsonl(*ROWS)),
        ("blank.jsonl", jsonl(*ROWS).replace(b"\n", b"\n\n  \n")),
        ("pool.jsonl.gz", gzip.compress(jsonl(*ROWS))),
        ("two_members.jsonl.gz", gzip.compress(jsonl(*ROWS[:2])) + gzip.compress(jsonl(*ROWS[2:]))),
        ("gzip_in_disguise.jsonl", gzip.compress(jsonl(*ROWS))),
        ("pool.jsonl.zst", zstandard.compress(jsonl(*ROWS))),
        ("two_frames.jsonl.zst", zstandard.compress(jsonl(*ROWS[:2])) + zstandard.compress(jsonl(*ROWS[2:]))),
        ("list.json", json.dumps(ROWS, indent=1).encode()),
        ("list.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("lines.json", jsonl(*ROWS)),
    ],
)
def test_a_file_is_read_by_its_content(write, load, name, content):
    pool = load(write(name, content=content), labels="none")
    assert keys(pool) == KEYS
    assert pool.artifact.manifest.name == name.split(".")[0]


def test_places_count_lines_as_an_editor_does(write, load):
    path = write("pool.jsonl", content=b"\xef\xbb\xbf\r\n" + jsonl(ROWS[0]).replace(b"\n", b"\r\n") + b"{\r\n")
    with pytest.raises(PoolError, match=r"^pool\.jsonl:3: not valid JSON"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.jsonl.gz", gzip.compress(jsonl(*ROWS) * 100)[:-40]),
        ("pool.jsonl.zst", zstandard.compress(jsonl(*ROWS) * 100)[:-40]),
        ("pool.jsonl.gz", gzip.compress(jsonl(*ROWS))[:-4] + b"oops"),
    ],
)
def test_torn_compression_is_refused_even_with_skip_bad(write, load, name, content):
    with pytest.raises(PoolError, match=r"compressed data is cut off or damaged .* copy or compress the file again"):
        load(write(name, content=content), skip_bad=True)


def test_a_parquet_file_is_read_with_its_row_as_place(tmp_path, load):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "pool.parquet")
    assert keys(load(tmp_path / "pool.parquet", labels="none")) == KEYS
    pq.write_table(pa.Table.from_pylist([*ROWS, ROWS[0]]), tmp_path / "twice.parquet")
    with pytest.raises(PoolError, match=r"^twice\.parquet:7: candidate 0 of problem 0 is already at twice\.parquet:1"):
        load(tmp_path / "twice.parquet")


def test_a_damaged_parquet_file_is_refused(write, load):
    with pytest.raises(PoolError, match=r"pool\.parquet: .*Parquet.*copy or write it again"):
        load(write("pool.parquet", content=b"PAR1" + b"x" * 100))


def test_our_own_pool_is_not_imported_a_second_time(write, load):
    pool = load(write("pool.jsonl", *ROWS), labels="none")
    with pytest.raises(PoolError, match="already a pool of a workspace; name it by its id"):
        load(pool.artifact.path / "trajectories.parquet")


def teacher_lists(tmp_path, **texts):
    """folder/<teacher>/gen<k>.json from teacher="first,second": one list of two problems for each letter."""
    for teacher, generations in texts.items():
        (tmp_path / "rsr" / teacher).mkdir(parents=True)
        for k, text in enumerate(generations):
            elements = [{"instruction": f"Q{i}", "input": "", "output": f"{text}{i}", "level": i} for i in range(2)]
            (tmp_path / "rsr" / teacher / f"gen{k}.json").write_text(json.dumps(elements))
    return tmp_path / "rsr"


def test_a_folder_of_teachers_gives_element_i_to_problem_i_and_each_file_a_candidate(tmp_path, load):
    pool = load(teacher_lists(tmp_path, beta="cd", alpha="ab"))
    found = [(t.problem_id, t.candidate_id, t.teacher, t.prompt[0]["content"], t.response) for t in pool.trajectories()]
    assert found == [
        ("0", 0, "alpha", "Q0", "a0"), ("0", 1, "alpha", "Q0", "b0"), ("0", 2, "beta", "Q0", "c0"),
        ("0", 3, "beta", "Q0", "d0"), ("1", 0, "alpha", "Q1", "a1"), ("1", 1, "alpha", "Q1", "b1"),
        ("1", 2, "beta", "Q1", "c1"), ("1", 3, "beta", "Q1", "d1"),
    ]  # fmt: skip
    assert next(pool.trajectories([4])).extra == {"level": 1}
    assert pool.id_type == "int"
    assert pool.artifact.manifest.name == "rsr"


def test_an_element_with_ids_of_its_own_keeps_them_beside_those_of_its_place(write, load):
    element = pool_row("x", 9, teacher="someone")
    path = write("folder/alpha/a.json", content=json.dumps([element]).encode())
    (trajectory,) = load(path.parents[1]).trajectories()
    assert (trajectory.problem_id, trajectory.candidate_id, trajectory.teacher) == ("0", 0, "alpha")
    assert trajectory.extra == {"source_problem_id": "x", "source_candidate_id": 9, "source_teacher": "someone"}


def test_a_bad_element_is_named_by_file_and_index(write, load):
    elements = [{"prompt": "q", "response": "r"}, {"prompt": "q"}]
    path = write("folder/alpha/a.json", content=json.dumps(elements).encode())
    with pytest.raises(PoolError, match=r"^alpha/a\.json\[1\]: messages is missing"):
        load(path.parents[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, {"a": ', r"alpha/a\.json\[1\]: .*nothing after this place can be read"),
        (b'[{"a": 1} {"a": 2}]', r"alpha/a\.json\[0\]: '\{' follows it, no comma"),
        (b'[{"a": 1}', r"alpha/a\.json\[0\]: the file ends here"),
        (b'[{"a": "\xe9"}]', r"alpha/a\.json\[0\]: not UTF-8 text"),
        (b'{"a": 1}', r"alpha/a\.json: no JSON list; each file of a teacher is one list"),
    ],
)
def test_a_broken_list_is_refused_even_with_skip_bad(write, load, content, message):
    path = write("folder/alpha/a.json", content=content)
    with pytest.raises(PoolError, match=message):
        load(path.parents[1], skip_bad=True)


def test_an_element_longer_than_a_chunk_and_one_longer_than_the_limit(write, load, monkeypatch):
    monkeypatch.setattr("lark_engine.pool.readers._CHUNK", 16)
    elements = [{"prompt": "ü" * 5000, "response": "r"}, {"prompt": "q", "response": "1"}]
    path = write("folder/alpha/a.json", content=b"\xef\xbb\xbf" + json.dumps(elements, indent=3).encode())
    assert keys(load(path.parents[1])) == [("0", 0), ("1", 0)]
    monkeypatch.setattr("lark_engine.pool.readers.MAX_ROW_BYTES", 1000)
    with pytest.raises(PoolError, match=r"a\.json\[0\]: not valid JSON, or longer than"):
        load(path.parents[1], name="again", skip_bad=True)


def test_a_folder_of_parts_is_read_in_order_of_names(write, load):
    write("parts/b.jsonl", *ROWS[2:])
    folder = write("parts/a.jsonl", *ROWS[:2]).parent
    assert keys(load(folder, labels="none")) == KEYS


def test_a_folder_with_splits_reads_the_split_that_is_asked_for(write, tmp_path, load):
    folder = write("data/train.jsonl", *ROWS[:2]).parent
    write("data/test.jsonl", *ROWS[2:])
    assert keys(load(folder, labels="none")) == KEYS[:2]
    assert keys(load(folder, labels="none", split="test")) == KEYS[2:]
    with pytest.raises(PoolError, match="has no split 'dev'; give one of these with --split: test, train"):
        load(folder, split="dev")


def test_a_local_dataset_folder_of_parquet_shards_is_read(tmp_path, load):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), tmp_path / "hub/data/train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[3:]), tmp_path / "hub/data/train-00001-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), tmp_path / "hub/data/test-00000-of-00001.parquet")
    assert keys(load(tmp_path / "hub", labels="none")) == KEYS


def test_a_folder_without_anything_to_read_says_what_can_be_given(tmp_path, load):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(PoolError, match=r"holds neither <teacher>/<file>\.json lists nor \.jsonl or \.parquet"):
        load(tmp_path / "nothing")


@pytest.mark.slow
def test_a_dataset_saved_to_disk_is_read(tmp_path, load):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    assert keys(load(tmp_path / "one", labels="none")) == KEYS
    both = {"train": datasets.Dataset.from_list(ROWS[:2]), "test": datasets.Dataset.from_list(ROWS[2:])}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "both"))
    assert keys(load(tmp_path / "both", labels="none", split="test")) == KEYS[2:]
    with pytest.raises(PoolError, match="no split 'dev'; give one of these with --split: test, train"):
        load(tmp_path / "both", split="dev")


def fake_hub(monkeypatch, names, sha="abc123"):
    info = SimpleNamespace(sha=sha, siblings=[SimpleNamespace(rfilename=name) for name in names])
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, repo, revision=None: info)


@pytest.mark.slow
def test_a_hub_dataset_is_streamed_at_its_commit(tmp_path, load, monkeypatch):
    import datasets

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    real, asked = datasets.load_dataset, []

    def load_dataset(name, **options):
        asked.append((name, options))
        return real("parquet", data_files={"train": str(tmp_path / "train.parquet")}, split="train", streaming=True)

    fake_hub(monkeypatch, ["README.md", "data/train-00000-of-00001.parquet"])
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    pool = load("someone/some_pool", labels="none")
    assert keys(pool) == KEYS
    assert asked == [("someone/some_pool", {"split": "train", "revision": "abc123", "streaming": True})]
    assert pool.artifact.manifest.name == "some_pool"
    assert pool.artifact.manifest.identity == {
        "source": {"dataset": "someone/some_pool", "revision": "abc123", "split": "train"}
    }
    fake_hub(monkeypatch, ["data/train-00000-of-00001.parquet"], sha="def456")
    assert load("someone/some_pool", labels="none").artifact.id != pool.artifact.id


@pytest.mark.slow
def test_a_hub_repository_of_teacher_lists_is_read_as_a_folder_of_teachers(tmp_path, load, monkeypatch):
    folder = teacher_lists(tmp_path, alpha="ab", beta="c")
    fake_hub(monkeypatch, ["README.md", ".x/y.json", "alpha/gen0.json", "alpha/gen1.json", "beta/gen0.json"])
    asked = {}

    def download(repo, **options):
        asked.update(options)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    pool = load("Umean/RSR_data")
    assert [t.teacher for t in pool.trajectories()] == ["alpha", "alpha", "beta"] * 2
    assert asked["revision"] == "abc123"
    assert asked["allow_patterns"] == ["alpha/gen0.json", "alpha/gen1.json", "beta/gen0.json"]


@pytest.mark.parametrize("http_library_error", [False, True])
def test_a_hub_that_cannot_be_reached_is_one_sentence(load, monkeypatch, http_library_error):
    from huggingface_hub.errors import HfHubHTTPError

    # httpx2 and its like raise errors that are no OSError when there is no network
    error = HfHubHTTPError.__bases__[0] if http_library_error else ConnectionError

    def fail(*_, **__):
        raise error("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    with pytest.raises(PoolError, match=r"no such local file or folder, and no .* within reach \(offline\); check"):
        load("someone/some_pool")


def test_a_revision_of_a_local_source_is_refused(write, load):
    with pytest.raises(PoolError, match="--revision means a Hugging Face dataset, this is a local path; leave it out"):
        load(write("pool.jsonl", *ROWS), revision="main")


@pytest.mark.parametrize(
    ("fields", "prompt", "extra"),
    [
        ({"prompt": "q", "response": "r"}, [("user", "q")], {}),
        ({"problem": "q", "solution": "r", "system": "s"}, [("system", "s"), ("user", "q")], {}),
        ({"instruction": "i", "input": "x", "output": "r"}, [("user", "i\n\nx")], {}),
        ({"question": "q", "completion": "r", "id": 4}, [("user", "q")], {"id": 4}),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}], "system": "s"},
            [("system", "s"), ("user", "q")],
            {},
        ),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}], "prompt": "other"},
            [("user", "q")],
            {"prompt": "other"},
        ),
    ],
)
def test_shapes_of_conversations_that_public_data_use(write, load, fields, prompt, extra):
    row = {"problem_id": 0, "teacher": "a", "answer": "gold", **fields}
    (trajectory,) = load(write("pool.jsonl", row), labels="none").trajectories()
    assert [(m["role"], m["content"]) for m in trajectory.prompt] == prompt
    assert trajectory.response == "r"
    assert trajectory.answer == "gold"
    assert trajectory.extra == extra
