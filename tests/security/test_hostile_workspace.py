"""A workspace from anybody: manifests, links, notes and names in it lead nowhere else, write nothing and stay text."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_jobs as fake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_workspace import add, finished_run
from google.protobuf.message import Message as Proto
from graded import evaluated
from shown_page import calm, html_of, shown_page, text_of
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from app import files
from app.files import export_path
from benchmarks.pool_texts import HOSTILE_TEACHERS
from benchmarks.scored_pool import make_scored_pool
from lark_engine import access
from lark_engine.config import SelectConfig
from lark_engine.errors import StoreError
from lark_engine.evaluation.disputes import SampleKey, add_dispute, read_disputes
from lark_engine.explore.flags import CandidateKey, read_flags, set_flag
from lark_engine.explore.scan import read_scan, remember_scan
from lark_engine.pool.dataset import PoolData
from lark_engine.selection.export import as_prompt_completion
from lark_engine.selection.select import select
from lark_engine.store.events import EventLog
from lark_engine.store.fingerprint import hash_file
from lark_engine.store.lock import lock
from lark_engine.store.rows import RowLog, append_durably
from lark_engine.store.workspace import Artifact, InputRef, Plan, Workspace, read_artifact

PAGES = ("overview", "score", "explore", "trajectory", "tune", "train", "evaluate", "jobs", "share")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of this user's beside the workspace, which could be a manifest, a training set or notes."""
    path = tmp_path / "home" / "secret"
    path.parent.mkdir()
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "the secret"}]}) + "\n")
    return path


@pytest.fixture
def small(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """A selection of a small scored pool; the workspace is the one that pages show."""
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    made = make_scored_pool(workspace, num_problems=6, num_candidates=4)
    return select(SelectConfig(budget=2), workspace, made.scores, made.pool)


def change(artifact: Artifact, **values: Any) -> None:
    path = artifact.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    "values",
    [
        {"name": "../../escape"}, {"name": "/tmp/escape"}, {"name": ".."}, {"name": "a\x00b"}, {"name": ""},
        {"name": "x" * 300}, {"name": ["a"]}, {"fingerprint": "../x"}, {"fingerprint": ""},
        {"files": {"/etc/hostname": Path("/etc/hostname").stat().st_size}}, {"files": {"../home/secret": 1}},
        {"files": {"a/../../x": 1}}, {"files": {"x\x00": 1}}, {"files": ["a"]},
        {"inputs": {"pool": {"kind": "pools", "id": "../../home", "fingerprint": "0"}}},
        {"inputs": {"pool": {"kind": "pools", "id": "a/b", "fingerprint": "0"}}},
        {"inputs": {"pool": {"kind": "pools", "id": "a", "fingerprint": "../0"}}},
        {"inputs": {"pool": {"kind": "../jobs", "id": "a", "fingerprint": "0"}}}, {"kind": "jobs"},
        {"schema_version": 10**30}, {"counts": {"num_problems": "x"}}, {"config": "x"},
    ],
    ids=range(22),
)  # fmt: skip
def test_a_manifest_that_leads_elsewhere_or_says_no_values_is_ignored(
    small: Artifact, workspace: Workspace, caplog: pytest.LogCaptureFixture, values: dict[str, Any]
) -> None:
    change(small, **values)
    with caplog.at_level(logging.WARNING):
        assert read_artifact(small.path) is None
    assert str(small.path) in caplog.text
    assert workspace.list("selections") == []
    with pytest.raises(StoreError):
        workspace.resolve("selections", str(small.path))
    assert "Tune" in shown_page("tune").title[0].value


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "\0"])
def test_no_plan_and_no_reference_lies_outside_of_the_workspace(workspace: Workspace, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a folder"):
        InputRef(kind="pools", id=name, fingerprint="0")


@pytest.mark.parametrize("kind", ["deep", "huge", "pipe", "link", "device"])
def test_a_manifest_that_is_no_file_of_its_folder_is_ignored(
    small: Artifact, workspace: Workspace, tmp_path: Path, kind: str
) -> None:
    manifest = small.path / "manifest.json"
    theirs = shutil.copy(manifest, tmp_path / "theirs.json")
    manifest.unlink()
    if kind == "deep":
        manifest.write_text("[" * 1_000_000)
    elif kind == "huge":
        with manifest.open("wb") as file:
            file.truncate(100_000_000_000)
    elif kind == "pipe":
        os.mkfifo(manifest)
    else:
        manifest.symlink_to("/dev/zero" if kind == "device" else theirs)
    assert workspace.list("selections") == []


@pytest.mark.parametrize("name", ["train.jsonl", "selection.parquet", "flags.jsonl", "events.jsonl", "anything.txt"])
def test_a_file_that_is_a_link_to_one_elsewhere_is_neither_shown_nor_sent(
    small: Artifact, workspace: Workspace, secret: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    client = TestClient(Starlette(routes=files.ROUTES))
    address = export_path(small.id)
    assert client.get(address).status_code == 200
    listed = json.loads((small.path / "manifest.json").read_text())["files"]
    (small.path / name).unlink(missing_ok=True)
    (small.path / name).symlink_to(secret)
    change(small, files={**listed, **({name: secret.stat().st_size} if name in listed else {})})
    for query in ("", "?format=prompt-completion"):
        answer = client.get(address.partition("?")[0] + query)
        assert (answer.status_code, "the secret" in answer.text) == (404, False)
    assert workspace.list("selections") == []
    assert f"{small.path / name}: is a link out of its folder, which is ignored" in caplog.text


def test_the_folder_of_an_artifact_may_lie_on_another_disk(
    small: Artifact, workspace: Workspace, tmp_path: Path
) -> None:
    shutil.move(small.path, tmp_path / "large disk")
    small.path.symlink_to(tmp_path / "large disk")
    (small.path / "copy.jsonl").symlink_to("train.jsonl")  # a link within it stays
    assert [a.id for a in workspace.list("selections")] == [small.id]
    assert len(list(as_prompt_completion(small.path / "train.jsonl"))) == small.manifest.counts["num_trajectories"]


@pytest.fixture
def answers(workspace: Workspace) -> Artifact:
    made = finished_run(workspace)
    found = read_artifact(made["trained"].path.parents[1])
    assert found is not None
    (found.path / "generations.jsonl").write_text(json.dumps({"problem_id": "0", "sample_index": 0}) + "\n")
    return found


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_written_through_a_link_or_into_a_pipe(
    small: Artifact, workspace: Workspace, answers: Artifact, secret: Path, kind: str
) -> None:
    """Locks are emptied and written, logs and notes appended to, torn lines cut off: of the file that lies there."""
    [pool] = [p for p in workspace.list("pools") if (p.path / "trajectories.parquet").exists()]
    trajectory = next(iter(PoolData(pool).trajectories()))
    key = CandidateKey(trajectory.problem_id, trajectory.candidate_id)
    before = secret.read_bytes()

    def put(path: Path) -> None:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(secret)

    def flag() -> None:
        set_flag(pool, key, flagged=True, author="a", reason="r")

    def dispute() -> None:
        add_dispute(answers, SampleKey("0", 0), correct=True, author="a", reason="r")

    def build() -> None:
        plan = Plan(kind="pools", name="new", fingerprint="0123456789ab", config={})
        workspace.build(plan, lambda draft: None)

    root = workspace.root
    for path, act in (
        (pool.path / ".lock", flag), (pool.path / "flags.jsonl", flag), (root / "logs" / "audit.jsonl", flag),
        (answers.path / "resume" / ".lock", dispute), (root / "pools" / "new-0123456789ab" / ".lock", build),
        (root / "some" / "events.jsonl", lambda: void(EventLog(root / "some" / "events.jsonl", "t").write(done=1))),
        (root / "some" / "rows.jsonl", lambda: RowLog(root / "some" / "rows.jsonl", ("a",)).append([{"a": 1}])),
        (root / "some" / "more.jsonl", lambda: append_durably(root / "some" / "more.jsonl", {"a": 1})),
        (root / "some" / ".lock", lambda: lock(root / "some").__enter__()),
    ):  # fmt: skip
        put(path)
        with pytest.raises(
            (OSError, StoreError), match=r"is a link|Too many levels|is a pipe|No such device|no regular file"
        ):
            act()
        assert secret.read_bytes() == before, path
        path.unlink()


def void(_: object) -> None:
    """Nothing."""


GARBAGE = ("x\n", "[1]\n", "7\n", "{}\n", "[" * 100_000 + "\n", '{"problem_id": 1' + "0" * 5000 + "}\n", "\x00\n")


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_notes_that_are_none_are_said_with_their_line(
    small: Artifact, workspace: Workspace, answers: Artifact, garbage: str
) -> None:
    pool = next(p for p in workspace.list("pools") if (p.path / "trajectories.parquet").exists())
    (pool.path / "flags.jsonl").write_text(garbage)
    with pytest.raises(StoreError, match=r"flags\.jsonl:1: is no flag; mend or remove this line"):
        read_flags(pool)
    (answers.path / "disputes.jsonl").write_text(garbage)
    with pytest.raises(StoreError, match=r"disputes\.jsonl:1: is no dispute; mend or remove this line"):
        read_disputes(answers.path)
    for page in ("explore", "trajectory"):
        calm(shown_page(page))


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"sha256": 7}', b"[" * 100_000, b"\x80\x04cos\nsystem\n."])
def test_what_is_remembered_is_no_program_and_garbage_is_found_anew(tmp_path: Path, content: bytes) -> None:
    large = tmp_path / "weights"
    large.write_bytes(b"0" * (9 << 20))
    first = hash_file(large, tmp_path / "memo")
    [memo] = (tmp_path / "memo" / "hashes").iterdir()
    assert json.loads(memo.read_text()) == {"sha256": first}
    memo.write_bytes(content)
    assert hash_file(large, tmp_path / "memo") == first


def test_a_remembered_scan_that_is_none_is_made_anew(small: Artifact, workspace: Workspace) -> None:
    [pool] = workspace.list("pools")
    before = remember_scan(pool, workspace.memo_dir)
    [memo] = (workspace.memo_dir / "texts").glob("*.parquet")
    for content in (b"\x80\x04cos\nsystem\n.", b"PAR1PAR1", b""):
        memo.write_bytes(content)
        assert read_scan(pool, workspace.memo_dir) is None
    pq.write_table(pa.table({"x": [1]}), memo)
    assert read_scan(pool, workspace.memo_dir) is None
    assert remember_scan(pool, workspace.memo_dir).boxed.tolist() == before.boxed.tolist()


POOLS = {
    "no columns": pa.table({"x": [1]}),
    "other types": pa.table({
        "problem_id": [1], "candidate_id": ["x"], "teacher": [[1]], "prompt": [1], "response": [None], "answer": [1.5],
        "is_correct": ["x"], "label_reason": [1], "extra": [7], "response_hash": ["x"], "num_chars": ["x"],
    }),
    "prompts that are none": pa.table({
        "problem_id": ["0"], "candidate_id": pa.array([0], pa.int32()), "teacher": ["t"], "prompt": ["[" * 100_000],
        "response": ["x"], "answer": pa.array([None], pa.string()), "is_correct": pa.array([None], pa.bool_()),
        "label_reason": pa.array([None], pa.string()), "extra": ["["], "response_hash": pa.array([0], pa.int64()),
        "num_chars": pa.array([-5], pa.int32()),
    }),
    "no rows": pa.table({"problem_id": pa.array([], pa.string())}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("file", ["trajectories.parquet", "scores.parquet", "selection.parquet"])
def test_a_table_of_another_shape_is_said_on_every_page_and_stops_none(
    small: Artifact, workspace: Workspace, name: str, file: str
) -> None:
    [artifact] = [
        a for kind in ("pools", "scores", "selections") for a in workspace.list(kind) if (a.path / file).exists()
    ]  # type: ignore[arg-type]
    pq.write_table(POOLS[name], artifact.path / file)
    listed = json.loads((artifact.path / "manifest.json").read_text())["files"]
    change(artifact, files={**listed, file: (artifact.path / file).stat().st_size})
    for page in ("overview", "score", "explore", "trajectory", "tune", "train"):
        app = AppTest.from_file(str(files.__file__).replace("files.py", "router.py"), default_timeout=60).run()
        app.switch_page(f"../pages/{page}.py").run()
        assert not app.exception, app.exception
        assert "Traceback" not in html_of(app)


MARKUP = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) :material:delete: $x$ `c` **b** \u202ecod\u200b"
TEXTS = (
    f"{MARKUP} ![b](http://192.0.2.1/b.png) </style></script><script>window.__pwned=1</script> "
    ":material/delete: :red[r]"
)


@pytest.fixture
def marked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """Every kind of artifact, job, note and view, with markup wherever a text of anybody's can stand."""
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    made = make_scored_pool(workspace, num_problems=12, num_candidates=12, hostile=True)
    selection = select(SelectConfig(budget=2), workspace, made.scores, made.pool)
    student = add(workspace, "students", MARKUP, "ad77df7d5df3", counts={"parameters": 7}, config={"source": TEXTS})
    checkpoint = add(
        workspace, "checkpoints", MARKUP, "4d6f8b0c2e3a", inputs={"selection": selection.ref, "student": student.ref},
        config={"method": "lora", "recipe": TEXTS, "student": TEXTS}, device=TEXTS, counts={"num_steps": 3},
        metrics={"first_loss": 1.5, "last_loss": 0.5}, drops={TEXTS: 3},
    )  # fmt: skip
    (checkpoint.path / "events.jsonl").write_text(
        json.dumps({"time": 1.0, "stage": "train", "done": 1, "total": 2, "note": TEXTS, "unit": TEXTS, "alert": TEXTS,
                    "metrics": {"loss": 0.5, TEXTS: 1}}) + "\n"
    )  # fmt: skip
    evaluated(workspace, MARKUP, MARKUP, {TEXTS: "10", "p1": "1-"}, levels={TEXTS: TEXTS}, prompt=TEXTS)
    evaluated(workspace, checkpoint.id, MARKUP, {TEXTS: "11", "p1": "0x"}, checkpoint, levels={TEXTS: TEXTS})
    for artifact in (made.pool, made.scores, selection):
        said = json.loads((artifact.path / "manifest.json").read_text())
        change(artifact, name=MARKUP, drops={TEXTS: 2}, device=TEXTS, git_commit=TEXTS, versions={TEXTS: TEXTS})
        assert said["fingerprint"] in (artifact.path / "manifest.json").read_text()
    job = fake.failed(
        workspace.root, stage=TEXTS, message=TEXTS, place=TEXTS, remedy=TEXTS, log=f"{TEXTS}\n", artifacts=[TEXTS]
    )
    fake.living(workspace.root, "running", stage="train lora")
    fake.tell(job, note=TEXTS, unit=TEXTS, done=1, total=2)
    (workspace.root / "views").mkdir()
    view = {"id": "abcdefghij", "name": MARKUP, "page": "tune", "params": [["B", "2"]], "author": MARKUP,
            "created_at": "2026-01-01T00:00:00+00:00", "note": TEXTS}  # fmt: skip
    (workspace.root / "views" / "abcdefghij.json").write_text(json.dumps(view))
    (workspace.root / "views" / "<img src=x>.json").write_text(TEXTS)
    (workspace.root / "logs").mkdir(exist_ok=True)
    row = {
        "at": "2026-01-01T00:00:00+00:00",
        "who": TEXTS,
        "from": TEXTS,
        "what": TEXTS,
        TEXTS: TEXTS,
        "outcome": TEXTS,
    }
    (workspace.root / "logs" / "audit.jsonl").write_text(json.dumps(row) + "\n")
    yield workspace


# In Streamlit these are read as Markdown; texts of tables, options and code are not.
_MARKDOWN = ("label", "body", "help", "tooltip", "placeholder", "caption", "content")
_LIVE = re.compile(r"(?<!\\)\[x\]\(javascript|!\[b\]\(http|(?<![\\:\w]):material/delete:|(?<!\\)<(img|script|iframe)\b")


def markdown_of(proto: Proto) -> Iterator[str]:
    """The texts of an element that Streamlit reads as Markdown, however deep they stand in it."""
    for descriptor, value in proto.ListFields():
        many = value if not isinstance(value, str | bytes | Proto) and hasattr(value, "__iter__") else [value]
        for one in many:
            if isinstance(one, Proto):
                yield from markdown_of(one)
            elif isinstance(one, str) and descriptor.name in _MARKDOWN:
                yield one


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_names_full_of_markup_are_text_on_every_page(marked: Workspace, page: str) -> None:
    [checkpoint] = marked.list("checkpoints")
    queries: list[dict[str, str]] = [{}]
    if page == "jobs":
        queries += [{"job": job.name} for job in (marked.root / "jobs").iterdir() if job.is_dir()]
    if page == "train":
        queries += [{"view": "runs"}, {"view": "runs", "run": checkpoint.id}]
    if page == "evaluate":
        queries += [{"view": view} for view in ("results", "run", "compare")]
    if page == "share":
        queries += [{"tab": tab} for tab in ("views", "report", "bundle", "access")]
    shown = ""
    for query in queries:
        app = shown_page(page, **query)
        for element in app.get("html"):
            assert not re.search(r"<(img|script|iframe|svg)\b[^>]*(x|onerror|pwned)", element.proto.body), query
            assert not re.search(r"(href|src)=.?\s*javascript", element.proto.body)
        for node in (*app.main, *app.sidebar):
            proto = getattr(node, "proto", None)
            if isinstance(proto, Proto) and getattr(node, "type", "") != "html":
                for text in markdown_of(proto):
                    assert not _LIVE.search(text), (query, text[:300])
        shown += text_of(app) + "".join(str(getattr(node, "proto", "")) for node in (*app.main, *app.sidebar))
    assert "onerror" in shown or page in ("trajectory", "tune"), "nothing hostile was shown: the test proves nothing"


def test_a_record_of_what_was_done_that_is_none_is_said(small: Artifact, workspace: Workspace) -> None:
    (workspace.root / "logs").mkdir(exist_ok=True)
    for garbage in GARBAGE:
        (workspace.root / "logs" / "audit.jsonl").write_text(garbage)
        app = AppTest.from_file(str(files.__file__).replace("files.py", "router.py"), default_timeout=60).run()
        app.switch_page("../pages/share.py").run()
        assert not app.exception, app.exception
        try:
            access.read_audit(workspace.root)
        except StoreError as error:
            assert "\n" not in str(error)


def test_teachers_full_of_markup_are_still_there(marked: Workspace) -> None:
    """The fixture is what it says: pages above were shown all of them."""
    [pool] = marked.list("pools")
    assert {t.teacher for t in PoolData(pool).trajectories()} <= set(HOSTILE_TEACHERS)
