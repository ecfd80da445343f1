"""Read-only: everything can be explored and tuned; nothing is written, started, stopped or removed, by any way."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from attacked import SECRET, Served, make_workspace

from benchmarks.raw_client import session
from lark_engine.access import ALL, ROLES, Visitor, read_audit, resolve_with
from lark_engine.config import PoolConfig
from lark_engine.errors import AccessError
from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.explore.flags import CandidateKey, set_flag
from lark_engine.jobs import actions
from lark_engine.jobs.folder import create_job
from lark_engine.jobs.records import JobSpec
from lark_engine.pool.preview import preview
from lark_engine.pool.uploads import keep_upload
from lark_engine.sharing.exposure import READ_ONLY
from lark_engine.sharing.tokens import Guests
from lark_engine.sharing.views import read_views, remove_view, rename_view, save_view
from lark_engine.store.cleaning import remove as remove_waste
from lark_engine.store.workspace import Workspace

VIEWER = Visitor(name="ann", origin="192.0.2.1", may=ROLES["viewer"], because=READ_ONLY, role="viewer")
PAGES = ("", "score", "explore", "trajectory", "tune", "train", "evaluate", "jobs", "share")


def everything(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time and content."""
    return {str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def own(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path)[0]


@pytest.fixture
def as_viewer() -> Iterator[None]:
    before = resolve_with(lambda: VIEWER)
    yield
    resolve_with(before)


def a_job(workspace: Workspace) -> actions.Job:
    spec = JobSpec(stage="select", command=("lark", "select", "--B", "2"), cwd=str(workspace.root))
    return create_job(workspace.root, spec)


CHANGES: dict[str, Callable[[Workspace], object]] = {
    "submit": lambda w: actions.submit(w.root, ["lark", "select", "--B", "2"], cwd=w.root),
    "submit once": lambda w: actions.submit_once(w.root, ["lark", "select", "--B", "2"], cwd=w.root),
    "stop": lambda w: actions.stop(actions.Job(next((w.root / "jobs").iterdir())), "kill"),
    "resume": lambda w: actions.resume(actions.Job(next((w.root / "jobs").iterdir()))),
    "clone": lambda w: actions.clone(actions.Job(next((w.root / "jobs").iterdir())), w.root),
    "remove a job": lambda w: actions.remove(actions.Job(next((w.root / "jobs").iterdir()))),
    "upload": lambda w: keep_upload(io.BytesIO(b"{}"), "pool.jsonl", w),
    "look at a file of this machine": lambda w: preview(PoolConfig(source=str(w.root.parent / "outside/secret.jsonl"))),
    "flag": lambda w: set_flag(w.list("pools")[0], CandidateKey("0", 0), flagged=True, author="x", reason="y"),
    "dispute": lambda w: add_dispute(w.list("pools")[0], SampleKey("0", 0), correct=True, author="x", reason="y"),
    "save a view": lambda w: save_view(w.root, name="x", page="tune", params=[("B", "3")]),
    "rename a view": lambda w: rename_view(w.root, read_views(w.root).views[0].id, "y"),
    "remove a view": lambda w: remove_view(w.root, read_views(w.root).views[0].id),
    "clean": lambda w: remove_waste(w, []),
    "let somebody in": lambda w: Guests(w.root / "access", root=w.root).add("x", "admin"),
    "give another token": lambda w: Guests(w.root / "access", root=w.root).rotate("x"),
    "shut somebody out": lambda w: Guests(w.root / "access", root=w.root).remove("x"),
    "read the record": lambda w: read_audit(w.root),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_the_engine_refuses_a_viewer_whoever_calls_it_and_leaves_every_file_alone(
    own: Workspace, change: str, as_viewer: None
) -> None:
    before = resolve_with(lambda: Visitor(name="me", origin="", may=ALL))
    a_job(own)
    save_view(own.root, name="mine", page="tune", params=[("B", "2")])
    resolve_with(before)
    found = everything(own.root)
    with pytest.raises(AccessError, match=r"^you cannot .* here: This workspace is shown read-only"):
        CHANGES[change](own)
    assert everything(own.root) == found


OPERATOR = Visitor(name="olga", origin="192.0.2.2", may=ROLES["operator"], role="operator")


@pytest.mark.parametrize(
    "words",
    [
        ("--output", "/etc/cron.d/x"), ("--output=../x",), ("--output_dir", "{root}/access"),
        ("--output", "{root}/shared/../access/tokens.json"), ("--output-csv", "{root}/logs/audit.jsonl"),
        ("--trust-remote-code",), ("--trust_remote_code",), ("--server-python", "/tmp/x"), ("--server_python=/tmp/x",),
    ],
)  # fmt: skip
def test_an_operator_starts_nothing_that_writes_elsewhere_or_runs_other_programs(
    own: Workspace, words: tuple[str, ...]
) -> None:
    command = ["lark", "score", *(word.format(root=own.root) for word in words)]
    before = resolve_with(lambda: OPERATOR)
    try:
        for start in (actions.submit, actions.submit_once):
            with pytest.raises(AccessError, match="which is for an admin"):
                start(own.root, command, cwd=own.root)
    finally:
        resolve_with(before)
    assert not list((own.root / "jobs").glob("*-score-*"))


def test_every_role_may_what_its_name_says_and_each_more_than_the_one_before() -> None:
    assert {
        "viewer": {"explore", "tune"},
        "editor": {"explore", "tune", "save"},
        "operator": {"explore", "tune", "save", "launch", "cancel"},
        "admin": {"explore", "tune", "save", "launch", "cancel", "delete", "admin"},
    } == ROLES


@pytest.mark.slow
def test_nothing_in_the_workspace_changes_while_every_page_is_used(read_only: Served) -> None:
    found = everything(read_only.workspace.root)
    with session(read_only.address) as visitor:
        for page in PAGES:
            visitor.open(page)
            for widget in list(visitor.widgets.values()):
                if widget.label not in ("Help", "Save view"):
                    visitor.press(widget.id)  # also those that are disabled
                    visitor.open(page)
        for budget in range(1, 5):
            visitor.open("tune", B=budget)
            assert not visitor.says("This part of the page failed.")
    assert everything(read_only.workspace.root) == found


@pytest.mark.slow
def test_a_button_that_is_not_there_starts_nothing(read_only: Served, guarded: tuple[Served, Guests]) -> None:
    """The identity of a button on a server where it works, sent to one where it does not."""
    served, guests = guarded
    cookie = httpx.get(f"{served.address}/?token={guests.add('root', 'admin').token}").headers["set-cookie"]
    with session(served.address, cookie=cookie.partition(";")[0]) as admin:
        admin.open("tune", B=3)
        save = admin.button("Save this selection")
        assert not save.disabled
    with session(read_only.address) as visitor:
        visitor.open("tune", B=3)
        assert visitor.button("Save this selection").disabled
        visitor.press(save.id)
        visitor.press(visitor.button("Save this selection").id)
    time.sleep(1)
    assert not (read_only.workspace.root / "jobs").exists()


@pytest.mark.slow
def test_an_upload_is_refused_before_it_is_read(read_only: Served) -> None:
    answer = httpx.put(f"{read_only.address}/_stcore/upload_file/any/any", content=b"x" * (4 << 20))
    assert answer.status_code == 403
    assert answer.text.startswith("no uploads: This workspace is shown read-only")


PATHS = (
    "{out}/secret.txt",
    "{out}/secret.yaml",
    "{out}/secret.jsonl",
    "{out}/secret.json",
    "{out}",
    "../outside/secret.txt",
    "../outside",
    "..%2Foutside",
    "file://{out}/secret.txt",
    "x={out}/secret.jsonl",
    "~/../..{out}/secret.yaml",
)
PARAMS = (
    "scores", "problem", "candidate", "view", "rejected", "pool.source", "pool.name", "score.student", "score.pool",
    "score.chat_template", "recipe", "train_data", "train.student", "run", "job", "a", "b", "on", "cell", "eval_model",
    "eval_benchmark", "gen.chat_template", "pin_a", "against", "energy", "teachers", "quality", "metric", "share",
    "task", "from", "bundle", "report", "file",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_no_parameter_of_a_page_shows_a_file_outside_of_the_workspace(read_only: Served, page: str) -> None:
    shown = []
    with session(read_only.address) as visitor:
        for path in PATHS:
            place = path.format(out=read_only.secret)
            asked = dict.fromkeys(PARAMS, place)
            for extra in ({"task": "add"}, {"task": "score"}, {"view": "new"}, {"view": "run"}, {"view": "problems"}):
                visitor.open(page, **{**asked, **extra})
                if visitor.says(SECRET):
                    shown.append((path, extra))
    assert shown == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/lark/selections/{x}/train.jsonl", "/lark/jobs/{x}/output.log", "/lark/shared/{x}", "/media/{x}",
        "/component/lark_board/{x}", "/_stcore/bidi-components/{x}", "/app/static/{x}", "/static/{x}", "/{x}",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "prefix", ["", "../", "../../", "../../../../", "%2e%2e%2f", "..%2f..%2f", "..%5c..%5c", "/", "%2f", "....//"]
)
def test_no_route_leaves_its_folder(read_only: Served, path: str, prefix: str) -> None:
    for name in ("outside/secret.txt", f"{str(read_only.secret).lstrip('/')}/secret.txt"):
        raw = path.replace("{x}", prefix + name)
        with httpx.Client() as client:
            request = client.build_request("GET", read_only.address)
            request.url = httpx.URL(read_only.address).copy_with(raw_path=raw.encode())
            answer = client.send(request)
        assert SECRET not in answer.text


@pytest.mark.slow
def test_no_folder_is_listed(read_only: Served) -> None:
    for path in ("/app/static/", "/app/static", "/static/", "/media/", "/lark/", "/lark/selections/", "/lark/shared/"):
        answer = httpx.get(f"{read_only.address}{path}")
        assert "lark.css" not in answer.text and "train.jsonl" not in answer.text, path


def test_a_refusal_is_one_sentence_for_a_program_too(own: Workspace, as_viewer: None) -> None:
    with pytest.raises(AccessError) as refused:
        actions.submit(own.root, ["lark", "select"], cwd=own.root)
    assert str(refused.value) == f"you cannot start anything here: {READ_ONLY}"


def test_what_is_done_is_recorded_with_who_when_and_from_where(own: Workspace) -> None:
    editor = Visitor(name="eve", origin="192.0.2.9", may=ROLES["editor"], role="editor")
    before = resolve_with(lambda: editor)
    try:
        key = CandidateKey(str(own_problem(own)), 0)
        set_flag(own.list("pools")[0], key, flagged=True, author="eve", reason="odd")
    finally:
        resolve_with(before)
    (row,) = [json.loads(line) for line in (own.root / "logs" / "audit.jsonl").read_text().splitlines()]
    assert (row["who"], row["from"], row["what"], row["outcome"]) == ("eve", "192.0.2.9", "flag.set", "done")
    assert row["problem"] == key.problem_id
    assert row["at"].startswith("20")


def own_problem(workspace: Workspace) -> str:
    import pandas as pd

    return str(pd.read_parquet(workspace.list("pools")[0].path / "trajectories.parquet")["problem_id"].iloc[0])
