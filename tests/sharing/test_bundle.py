"""A bundle: exactly what was chosen of a workspace, with every number as it was and nothing that was not asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from shown_workspace import Shown, scored_ids, shown_workspace

from lark_engine import access
from lark_engine.config import SelectConfig
from lark_engine.errors import AccessError, ConfigError, StoreError
from lark_engine.evaluation.disputes import read_disputes
from lark_engine.explore.flags import read_flags
from lark_engine.explore.scan import scan_texts
from lark_engine.pool.dataset import PoolData
from lark_engine.results.table import results_table
from lark_engine.selection.select import select
from lark_engine.sharing.bundle import BundleMade, plan_bundle, preview_bundle, write_bundle
from lark_engine.sharing.bundle_choice import BundleChoice
from lark_engine.sharing.bundle_format import WITHHELD, bundle_of, is_known
from lark_engine.sharing.unpack import open_bundle
from lark_engine.sharing.views import read_views
from lark_engine.store.curves import read_metric
from lark_engine.store.workspace import KINDS, Workspace


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return shown_workspace(tmp_path_factory.mktemp("home") / "quentin" / "cache")


def bundled(shown: Shown, folder: Path, **choice: object) -> tuple[BundleMade, Workspace]:
    """The bundle and the workspace that it opens to."""
    plan = plan_bundle(BundleChoice.model_validate(choice), shown.workspace)
    made = write_bundle(plan, folder / "demo.zip")
    return made, open_bundle(made.path, folder / "bundles")


def everything(root: Path) -> str:
    """All that the files under a folder say, tables too, with their names."""
    said = []
    for path in sorted(root.rglob("*")):
        said.append(str(path.relative_to(root)))
        if path.suffix == ".parquet":
            said.append(str(pq.read_table(path).to_pylist()))
        elif path.is_file():
            said.append(path.read_text())
    return "\n".join(said)


def tree(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def test_a_bundle_holds_the_scores_and_all_that_was_made_from_them(shown: Shown, tmp_path: Path) -> None:
    made, workspace = bundled(shown, tmp_path)

    ids = {kind: [artifact.name for artifact in workspace.list(kind)] for kind in KINDS}
    assert ids == {
        "pools": [shown.pool.name], "students": [], "benchmarks": [], "scores": [shown.scores.name],
        "selections": ["chi2-b2"], "checkpoints": ["lora-of-user"], "sweeps": [], "evals": ["quiz", "quiz"],
        "grades": [shown.grades[0].name] * 2,
    }  # fmt: skip
    assert made.record.scores == (shown.scores.id,)
    assert bundle_of(workspace) == made.record


def test_every_file_is_listed_with_its_checksum_and_none_is_a_model(shown: Shown, tmp_path: Path) -> None:
    made, _ = bundled(shown, tmp_path, texts="all", token_stats=True)

    with zipfile.ZipFile(made.path) as archive:
        names = archive.namelist()
        assert sorted(names) == sorted([*made.record.files, "bundle.json"])
        for name, entry in made.record.files.items():
            content = archive.read(name)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)
            assert is_known(name)
    assert not [name for name in names if "weights" in name or "resume" in name or "/logs/" in name or "memo" in name]


def test_tuning_a_bundle_gives_the_same_selection(shown: Shown, tmp_path: Path) -> None:
    _, workspace = bundled(shown, tmp_path)
    # A copy that is no bundle: in one, nothing is made.
    shutil.copytree(workspace.root, tmp_path / "copy", ignore=shutil.ignore_patterns("bundle.json"))
    with pytest.raises(StoreError, match="is an unpacked bundle, which is only shown"):
        select(SelectConfig(budget=3), workspace, workspace.list("scores")[0], workspace.list("pools")[0])
    copy = Workspace(tmp_path / "copy")
    original = tmp_path / "original"
    shutil.copytree(shown.workspace.root, original)

    for config in (SelectConfig(budget=3, deduplicate=True), SelectConfig(budget=2, correct_only=True, energy="-rsr")):
        tables = [
            pd.read_parquet(select(config, w, w.list("scores")[0], w.list("pools")[0]).path / "selection.parquet")
            for w in (Workspace(original), copy)
        ]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (tmp_path / "copy" / "scores" / shown.scores.id / "scores.parquet").read_bytes() == (
        shown.scores.path / "scores.parquet"
    ).read_bytes()


def test_the_results_table_of_a_bundle_has_the_same_numbers(shown: Shown, tmp_path: Path) -> None:
    _, workspace = bundled(shown, tmp_path)

    columns = ["benchmark", "metric", "level", "value", "low", "high", "num_truncated", "num_disputed", "n_samples"]
    before, after = (results_table(w)[columns] for w in (shown.workspace, workspace))

    assert {"maj@2", "avg@2", "pass@2", "no_answer"} <= set(before["metric"])
    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_without_texts_no_text_is_in_it_and_the_checks_count_the_same(shown: Shown, tmp_path: Path) -> None:
    _, workspace = bundled(shown, tmp_path)

    said = everything(workspace.root)
    for trajectory in PoolData(shown.pool).trajectories():
        assert trajectory.prompt[-1]["content"] not in said
        assert trajectory.response.strip()[:40] not in said or not trajectory.response.strip()
    for secret in ("What is p0", "who knows", "a private reason", "secret token", r"\boxed{1}"):
        assert secret in everything(shown.workspace.root)
        assert secret not in said
    [pool] = workspace.list("pools")
    before, after = scan_texts(shown.pool), scan_texts(pool)
    assert (before.empty == after.empty).all()
    assert (before.boxed == after.boxed).all()
    assert next(PoolData(pool).trajectories()).prompt[-1]["content"] == WITHHELD
    assert next(iter(read_flags(pool).values())).reason == WITHHELD
    answers = next(a for a in workspace.list("evals") if read_disputes(a.path))
    assert [d.reason for d in read_disputes(answers.path).values()] == [WITHHELD]


def test_chosen_texts_are_those_of_the_chosen_problems_only(shown: Shown, tmp_path: Path) -> None:
    first, second = scored_ids(shown.scores)

    made, workspace = bundled(shown, tmp_path, texts="chosen", problems=(first, "quiz:p0"), token_stats=True)

    assert made.record.num_problems_with_texts == 2
    [pool] = workspace.list("pools")
    for before, after in zip(PoolData(shown.pool).trajectories(), PoolData(pool).trajectories(), strict=True):
        assert (before.response == after.response) == (before.problem_id == first or not before.response.strip())
    rows = [json.loads(line) for line in (workspace.list("selections")[0].path / "train.jsonl").open()]
    whole = {row["meta"]["problem_id"] for row in rows if row["messages"][0]["content"] != WITHHELD}
    assert {str(name) for name in whole} == {first}
    for answers in workspace.list("evals"):
        samples = [json.loads(line) for line in (answers.path / "generations.jsonl").open()]
        assert {row["problem_id"] for row in samples if not row["text"].startswith(WITHHELD)} == {"p0"}
    [tokens] = workspace.list("scores")[0].path.glob("token_stats/*.parquet")
    assert pq.read_table(tokens)["problem_id"].to_pylist() == [first]
    assert second != first


def test_with_all_texts_they_are_as_they_were(shown: Shown, tmp_path: Path) -> None:
    _, workspace = bundled(shown, tmp_path, texts="all")

    before, after = (list(PoolData(p).trajectories()) for p in (shown.pool, workspace.list("pools")[0]))
    assert before == after
    assert (workspace.list("selections")[0].path / "train.jsonl").read_text() == (
        shown.selection.path / "train.jsonl"
    ).read_text()


def test_nothing_tells_where_it_was_made_and_by_whom(shown: Shown, tmp_path: Path) -> None:
    made, workspace = bundled(shown, tmp_path, texts="all", token_stats=True, title="of quentin in /data/quentin/ws")

    said = everything(workspace.root)
    for secret in (str(shown.workspace.root), str(Path.home()) + "/", "quentin", "/data/x", "/absent/"):
        assert secret not in said
    assert made.record.title == "of <user> in …/ws"
    assert made.record.redacted
    assert made.record.replaced["path"] >= 3
    assert {view.note for view in read_views(workspace.root).views} == {"", "by <user>"}
    [checkpoint] = workspace.list("checkpoints")
    assert checkpoint.manifest.config["student"] == "<workspace>/students/mine/model"
    assert read_metric(checkpoint.path / "events.jsonl", "loss")[1].tolist() == [0.5]


def test_unredacted_only_when_asked(shown: Shown, tmp_path: Path) -> None:
    made, workspace = bundled(shown, tmp_path, redact=False)

    assert not made.record.redacted
    assert workspace.list("checkpoints")[0].id == shown.checkpoint.id
    assert workspace.list("checkpoints")[0].manifest.config == shown.checkpoint.manifest.config


def test_links_to_what_stays_behind_stay_behind(shown: Shown, tmp_path: Path) -> None:
    _, workspace = bundled(shown, tmp_path, up_to="scores")

    assert [view.name for view in read_views(workspace.root).views] == ["the middle"]
    assert workspace.list("selections") == workspace.list("evals") == []


def test_the_preview_is_what_the_bundle_has(shown: Shown, tmp_path: Path) -> None:
    plan = plan_bundle(BundleChoice(), shown.workspace)

    preview = preview_bundle(plan)
    made = write_bundle(plan, tmp_path / "demo.zip")

    assert preview.is_exact
    assert {file.name: file.num_bytes for file in preview.files} == {n: e.size for n, e in made.record.files.items()}
    assert preview.replaced == made.replaced
    assert preview.left_out_bytes >= 3 * len(b"weights")
    how = {file.name.rpartition("/")[2]: file.how for file in preview.files}
    assert how["trajectories.parquet"] == "without texts"
    assert how["scores.parquet"] == "as it is"
    assert how["manifest.json"] == "redacted"


def test_making_a_bundle_changes_nothing_in_the_workspace(shown: Shown, tmp_path: Path) -> None:
    before = tree(shown.workspace.root)

    bundled(shown, tmp_path, texts="all")

    assert tree(shown.workspace.root) == before


def test_one_made_into_the_workspace_is_recorded_and_needs_the_right_to_start_things(
    shown: Shown, tmp_path: Path
) -> None:
    shutil.copytree(shown.workspace.root, tmp_path / "ws")
    plan = plan_bundle(BundleChoice(), Workspace(tmp_path / "ws"))
    write_bundle(plan, tmp_path / "ws" / "shared" / "demo.zip")
    assert access.read_audit(tmp_path / "ws")[0]["what"] == "bundle.make"

    before = access.resolve_with(lambda: access.Visitor(name="v", origin="", may=frozenset(("explore",))))
    try:
        with pytest.raises(AccessError):
            write_bundle(plan, tmp_path / "ws" / "shared" / "other.zip")
    finally:
        access.resolve_with(before)
    assert not (tmp_path / "ws" / "shared" / "other.zip").exists()


def test_a_damaged_file_leaves_no_half_a_bundle(shown: Shown, tmp_path: Path) -> None:
    shutil.copytree(shown.workspace.root, tmp_path / "ws")
    workspace = Workspace(tmp_path / "ws")
    plan = plan_bundle(BundleChoice(), workspace)
    (tmp_path / "ws" / "selections" / shown.selection.id / "train.jsonl").write_text("{no json\n")

    with pytest.raises(StoreError, match=r"train\.jsonl: damaged"):
        write_bundle(plan, tmp_path / "out" / "demo.zip")
    assert list((tmp_path / "out").iterdir()) == []


def test_narrowing_takes_what_was_made_from_the_chosen_alone(tmp_path: Path) -> None:
    made = shown_workspace(tmp_path / "cache")
    other = select(SelectConfig(budget=4), made.workspace, made.scores, made.pool)

    plan = plan_bundle(BundleChoice(selections=(other.id,)), made.workspace)

    kept = {folder.artifact.id for folder in plan.folders}
    assert other.id in kept
    assert made.selection.id not in kept
    assert made.checkpoint.id not in kept
    assert [f.artifact.path.parent.name for f in plan.folders if f.artifact.kind == "evals"] == ["student"]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"texts": "chosen"}, "--texts chosen needs the problems"),
        ({"problems": ("1",)}, "--problem chooses texts, and --texts is none"),
        ({"texts": "chosen", "problems": ("absent",)}, "neither the pool nor a benchmark has this problem"),
        ({"token_stats": True}, "--token-stats are the texts"),
        ({"scores": "absent"}, "no score 'absent'"),
    ],
)
def test_says_what_cannot_be_chosen(shown: Shown, choice: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, StoreError), match=said):
        plan_bundle(BundleChoice.model_validate(choice), shown.workspace)


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is scored yet; a bundle begins with scores: lark score"):
        plan_bundle(BundleChoice(), Workspace(tmp_path))


def test_two_teachers_whose_names_differ_by_their_folder_stay_two(tmp_path: Path) -> None:
    rows = [
        {"problem_id": i, "teacher": f"/data/{run}/Qwen", "messages": [
            {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": f"2, says {run}"}]}
        for i in range(2) for run in ("one", "two")
    ]  # fmt: skip
    source = tmp_path / "pool.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    from lark_engine.config import PoolConfig
    from lark_engine.pool.importer import import_pool
    from lark_engine.sharing.bundle_parts import folder_of
    from lark_engine.sharing.leaving import Leaving
    from lark_engine.sharing.redaction import Redactor
    from lark_engine.sharing.withheld import Texts

    workspace = Workspace(tmp_path / "ws")
    pool = import_pool(PoolConfig(source=str(source)), workspace)
    folder = folder_of(pool, Leaving([pool], workspace.root, Redactor(workspace)), Texts(mode="all"), token_stats=False)
    [part] = [part for part in folder.parts if part.name.endswith("trajectories.parquet")]
    with (tmp_path / "out.parquet").open("wb") as file:
        part.write(file)

    assert pq.read_table(tmp_path / "out.parquet")["teacher"].to_pylist() == ["…/Qwen", "…/Qwen (2)"] * 2
