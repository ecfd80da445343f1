"""What a cleaning takes, and what it never takes."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lark_engine.errors import ConfigError, StoreError
from lark_engine.store.cleaning import remove
from lark_engine.store.retention import DAY_S, Folder, JobRecord, Policy, Survey, plan_cleaning
from lark_engine.store.workspace import KINDS, MANIFEST, Artifact, InputRef, Manifest, Workspace
from tests.store.aged import LONG_AGO, age, graded_chain, held_by_a_process, made, named, names, planned, unfinished


@pytest.fixture
def chain(workspace: Workspace) -> dict[str, Artifact]:
    return graded_chain(workspace)


def test_an_old_unfinished_artifact_goes_and_a_fresh_one_one_of_a_time_to_come_and_a_folder_of_others_stay(
    workspace: Workspace,
) -> None:
    unfinished(workspace, "scores/old-0")
    unfinished(workspace, "scores/fresh-0", time.time() - 6 * DAY_S)
    unfinished(workspace, "scores/tomorrow-0", time.time() + DAY_S)
    (workspace.root / "scores" / "notes").mkdir()
    os.utime(workspace.root / "scores" / "notes", (1, 1))
    assert named(planned(workspace), workspace) == ["unfinished scores/old-0"]
    assert names(workspace, older_than_s=0) == ["fresh", "old"]


def test_a_damaged_artifact_never_goes_and_an_evaluation_with_a_persons_or_finished_work_in_it_neither(
    workspace: Workspace, chain: dict[str, Artifact]
) -> None:
    (chain["tried"].path / MANIFEST).write_text("{")
    (chain["generations"].path / MANIFEST).unlink()
    disputed = unfinished(workspace, "evals/model/aime-0")
    (disputed / "disputes.jsonl").touch()
    age(workspace.root)
    assert planned(workspace) == []
    with pytest.raises(StoreError, match=r"tried-0+7/manifest.json: cannot be read, and so it is not known what"):
        planned(workspace, unused=True)


def test_unused_artifacts_go_those_made_from_others_first_and_what_results_need_stays(
    workspace: Workspace, chain: dict[str, Artifact]
) -> None:
    assert planned(workspace) == []
    assert names(workspace, unused=True) == ["other", "tried", "idle"]
    assert names(workspace, unused=True, kinds=("selections",)) == []  # a checkpoint that stays is trained on it
    assert names(workspace, unused=True, kinds=("checkpoints",)) == ["tried"]
    for name in ("generations", "other", "idle"):
        (chain[name].path / "opened").touch()  # fresh, and with it all that it was made from
    assert names(workspace, unused=True) == ["tried"]


def uploaded(workspace: Workspace, name: str, changed_at: float = LONG_AGO) -> Path:
    path = workspace.uploads_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 5000)
    os.utime(path, (changed_at, changed_at))
    return path


def test_an_upload_goes_on_request_once_its_pool_is_there_or_when_no_pool_ever_was(workspace: Workspace) -> None:
    imported = uploaded(workspace, "imported.jsonl")
    uploaded(workspace, "forgotten.jsonl")
    uploaded(workspace, "fresh.jsonl", time.time())
    made(workspace, "pools", "mine", config={"source": str(imported)})
    assert planned(workspace) == []
    found = planned(workspace, unused=True)
    assert [(r.waste, r.path.name, r.why) for r in found] == [
        ("upload", "forgotten.jsonl", "no pool was imported from it"),
        ("upload", "imported.jsonl", "its pool holds all that was imported of it"),
    ]
    assert planned(workspace, unused=True, kinds=("scores",)) == []
    cleaned = remove(workspace, found)
    assert (len(cleaned.removed), cleaned.left, cleaned.failures) == (2, [], [])
    assert [path.name for path in workspace.uploads_dir.iterdir()] == ["fresh.jsonl"]


def test_an_upload_stays_while_an_import_may_be_resumed_or_something_else_names_it(workspace: Workspace) -> None:
    path = uploaded(workspace, "pool.jsonl")
    refused = unfinished(workspace, "pools/pool-0", time.time())
    assert planned(workspace, unused=True) == []
    age(refused)
    assert named(planned(workspace, unused=True), workspace) == ["unfinished pools/pool-0", "upload uploads/pool.jsonl"]
    shutil.rmtree(refused)
    student = made(workspace, "students", "tiny", config={"held_out": str(path)})
    assert planned(workspace, unused=True) == []
    shutil.rmtree(student.path)
    with held_by_a_process(workspace.uploads_dir):  # an upload is being written
        [removal] = planned(workspace, unused=True)
        assert remove(workspace, [removal]).left == [f"{path}: something works on it now"]


def test_a_sweep_keeps_its_checkpoints_and_a_dispute_its_generations(
    workspace: Workspace, chain: dict[str, Artifact]
) -> None:
    made(workspace, "sweeps", "sweep", chain["tried"])
    other = made(workspace, "evals", "aime", chain["checkpoint"], parent=workspace.root / "evals" / "graded")
    assert names(workspace, unused=True) == ["aime", "other"]
    (other.path / "disputes.jsonl").touch()
    age(other.path)
    assert names(workspace, unused=True) == ["other"]


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"eval_data": "{id}"}},
        {"config": {"student": "cache/checkpoints/{id}/model"}},
        {"config": {"names": ["x", {"deep": "GSM8K=/elsewhere/{id}/problems.json"}]}},
        {"config": {"eval_data": "by-name"}, "identity": {"eval_data": "{fp}"}},
    ],
)
def test_what_a_result_names_in_its_options_only_stays_too(workspace: Workspace, values: dict[str, Any]) -> None:
    source = made(workspace, "checkpoints", "base")

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.format(id=source.id, fp=source.fingerprint) if "{" in value else value
        return [filled(v) for v in value] if isinstance(value, list) else {k: filled(v) for k, v in value.items()}

    assert names(workspace, unused=True) == ["base"]
    made(workspace, "sweeps", "sweep", **filled(values))
    assert names(workspace, unused=True) == []


def test_pools_stay_unless_they_are_named_and_are_not_needed(workspace: Workspace, chain: dict[str, Artifact]) -> None:
    made(workspace, "pools", "alone")
    assert "alone" not in names(workspace, unused=True)
    assert names(workspace, unused=True, kinds=("pools",)) == ["alone"]
    for wrong in ({"kinds": ("grades",), "unused": True}, {"kinds": ("pool",), "unused": True}, {"kinds": ("pools",)}):
        with pytest.raises(ConfigError):
            Policy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Policy(older_than_s=float("nan"))


def test_unused_is_refused_while_something_runs(workspace: Workspace, chain: dict[str, Artifact]) -> None:
    with held_by_a_process(chain["scores"].path / "token_stats"):
        assert planned(workspace) == []
        with pytest.raises(StoreError, match=r"scores-0+1: something works on it now"):
            planned(workspace, unused=True)
    job = workspace.root / "jobs" / "a"
    job.mkdir(parents=True)
    with pytest.raises(StoreError, match="jobs/a: something works on it now"):
        planned(workspace, jobs=(JobRecord(path=job, state="queued", ended_at=None, is_live=True),), unused=True)


def test_a_resumable_artifact_keeps_the_kinds_that_it_can_be_made_from(
    workspace: Workspace, chain: dict[str, Artifact]
) -> None:
    folder = unfinished(workspace, "selections/begun-0", time.time())
    assert names(workspace, unused=True) == ["tried", "idle"]
    shutil.rmtree(folder)
    unfinished(workspace, "checkpoints/begun-0", time.time())
    assert names(workspace, unused=True) == ["other"]
    age(workspace.root)
    assert names(workspace, unused=True) == ["begun", "other", "tried", "idle"]


def test_jobs_go_beyond_the_newest_and_never_a_live_or_young_one(workspace: Workspace) -> None:
    def job(name: str, state: str, days: float | None, is_live: bool = False) -> JobRecord:
        path = workspace.root / "jobs" / name
        path.mkdir(parents=True)
        (path / "spec.json").touch()
        age(path, LONG_AGO + 100)
        return JobRecord(path=path, state=state, ended_at=None if days is None else now - days * DAY_S, is_live=is_live)

    now = time.time()
    jobs = (
        job("a", "running", 99, is_live=True), job("b", "succeeded", 40), job("c", "failed", 20),
        job("d", "cancelled", -3), job("e", "interrupted", None), job("f", "queued", 50), job("g", "succeeded", 2),
    )  # fmt: skip
    assert [r.path.name for r in planned(workspace, jobs=jobs, keep_jobs=0)] == ["c", "e", "b"]
    assert [r.path.name for r in planned(workspace, jobs=jobs, keep_jobs=3)] == ["e", "b"]
    assert [r.path.name for r in planned(workspace, jobs=jobs, keep_jobs=1, older_than_s=DAY_S)] == ["g", "c", "e", "b"]
    assert planned(workspace, jobs=jobs) == []


def test_memo_goes_on_request_and_only_where_artifacts_are(workspace: Workspace) -> None:
    (workspace.memo_dir / "hashes").mkdir(parents=True)
    assert planned(workspace, memo=True) == []  # anybody can have a folder of that name
    made(workspace, "pools", "pool")
    assert planned(workspace) == []
    assert named(planned(workspace, memo=True), workspace) == ["memo memo"]
    assert remove(workspace, planned(workspace, memo=True)).failures == [] and not workspace.memo_dir.exists()


def test_an_unused_link_is_named_and_what_it_was_made_from_stays(
    workspace: Workspace, chain: dict[str, Artifact], tmp_path: Path
) -> None:
    chain["tried"].path.rename(tmp_path / "moved")
    chain["tried"].path.symlink_to(tmp_path / "moved")
    assert names(workspace, unused=True) == ["other", "tried"]
    (workspace.root / "scores" / "alias").symlink_to(chain["other"].path)
    assert names(workspace, unused=True) == ["alias", "tried"]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Survey, Policy]:
    """Any artifacts, made from any earlier ones; also in ways that no stage makes them."""
    folders: list[Folder] = []
    root = Path("/w")
    for number in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(KINDS))
        sources = draw(st.lists(st.sampled_from(folders), max_size=3)) if folders else []
        parents = [f for f in folders if f.kind == "evals"]
        above = draw(st.sampled_from(parents)).path / "grades" if kind == "grades" and parents else root / kind / "x"
        state = draw(st.sampled_from(["finished", "finished", "finished", "unfinished", "damaged"]))
        path = above / f"n-{number:012x}"
        hidden = draw(st.booleans())
        manifest = Manifest(
            kind=kind, name="n", fingerprint=f"{number:012x}", created_at=f"{number:03d}",
            config={"student": [f.path.name for f in sources] if hidden else []},
            inputs={} if hidden else {
                f"{i}": InputRef(kind=f.kind, id=f.path.name, fingerprint=f.path.name[2:])
                for i, f in enumerate(sources)
            },
        )  # fmt: skip
        folders.append(
            Folder(
                path=path, kind=kind, state=state, manifest=None if state == "unfinished" else manifest,
                changed_at=draw(st.sampled_from([0.0, 95.0, 120.0])),
                has_notes=kind in ("evals", "pools") and draw(st.booleans()),
            )
        )  # fmt: skip
    kinds = draw(st.lists(st.sampled_from([k for k in KINDS if k not in ("grades", "sweeps")]), max_size=3))
    return Survey(root=root, now=100.0, folders=tuple(folders)), Policy(older_than_s=10.0, unused=True, kinds=kinds)


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_whatever_stays_stays_with_all_that_it_was_made_from(case: tuple[Survey, Policy]) -> None:
    found, policy = case
    removals = plan_cleaning(found, policy)
    going = [r.path for r in removals]
    order = {path: place for place, path in enumerate(going)}
    for folder in found.folders:
        manifest = folder.manifest
        sources = (
            [] if manifest is None else [*manifest.config["student"], *(ref.id for ref in manifest.inputs.values())]
        )
        for source in [f.path for f in found.folders if f.path.name in sources]:
            # Gone only together with what was made from it, and after it.
            assert source not in order or order[folder.path] < order[source]
        if folder.state == "damaged" or (folder.state == "finished" and folder.kind in ("grades", "sweeps")):
            assert not {folder.path, *folder.path.parents} & order.keys()
        if folder.changed_at > 90 or folder.has_notes:
            assert folder.path not in order
