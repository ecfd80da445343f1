"""The Ray executor with real Ray and real processes: same bits, lost workers, clusters, refusals, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.errors import DeviceError, StudentError
from lark_engine.pool.importer import import_pool
from lark_engine.scoring import executors
from lark_engine.scoring import score as stage
from lark_engine.scoring.parts import BINS, SCORES
from lark_engine.scoring.planner import Batch
from lark_engine.scoring.score import plan_score, score
from lark_engine.store.workspace import Artifact, Workspace

RAY = Path(sys.executable).with_name("ray")
LARK = [sys.executable, "-m", "lark_engine.cli"]
BATCH_TOKENS = 250  # many batches, and problems in parts

# The command line with workers that are slow, or that die on every batch.
DISTURBED = """
import os, signal, sys, time
from lark_engine.cli import main
from lark_engine.scoring import executors, parts
dying = sys.argv.pop(1) == "dying"
class Disturbed(executors._RayScorer):
    def __call__(self, items):
        time.sleep(0.5)
        if dying:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(items)
executors._RayScorer = Disturbed
parts.FLUSH_S = 0.2
main()
"""


def write_pool(path: Path) -> Path:
    with path.open("w") as file:
        for problem in range(6):
            for candidate in range(4):
                length = 1 + candidate if problem < 2 else 2 + 4 * candidate + problem
                text = f"step {problem} " * length + "done"
                messages = [{"role": "user", "content": f"Q{problem}?"}, {"role": "assistant", "content": text}]
                names = {"problem_id": problem, "candidate_id": candidate, "teacher": f"t{candidate}"}
                file.write(json.dumps({**names, "messages": messages}) + "\n")
    return path


@pytest.fixture
def pool(workspace: Workspace, tmp_path: Path) -> Artifact:
    return import_pool(PoolConfig(source=str(write_pool(tmp_path / "pool.jsonl"))), workspace)


@pytest.fixture(scope="module")
def undisturbed(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Scores of the local executor, whose batches hold whole problems and parts of problems."""
    folder = tmp_path_factory.mktemp("local")
    store = Workspace(folder / "workspace")
    pool = import_pool(PoolConfig(source=str(write_pool(folder / "pool.jsonl"))), store)
    seen: list[Batch] = []

    def run_here(work: executors.Work, batches: list[Batch]) -> Iterator[pa.Table]:
        seen.extend(batches)
        return executors.run_here(work, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "run_here", run_here)
        scores = score(config(tiny_model_dir), store, pool)
    assert {batch.prompt_apart for batch in seen} == {True, False}
    return scores


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files whose path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of a running Ray cluster of this machine with 2 CPUs."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [
            str(RAY), "start", "--head", "--block", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}",
            "--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
        ]  # fmt: skip
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        try:
            wait_for(lambda: is_listening(port), 60)
            yield f"127.0.0.1:{port}"
        finally:
            for member in [*family(process.pid), process]:
                member.kill()
            process.wait(30)


def config(student: Path, **options: object) -> ScoreConfig:
    values = {"student": str(student), "dtype": "float32", "batch_tokens": BATCH_TOKENS, **options}
    return ScoreConfig.parse(values, "test")


def arguments(student: Path, workspace: Workspace, pool: Artifact, *more: str) -> list[str]:
    return [
        "score", "--student", str(student), "--input", pool.id, "--workspace", str(workspace.root), "--device", "cpu",
        "--dtype", "float32", "--batch-tokens", str(BATCH_TOKENS), "--executor", "ray", "--num-workers", "2", *more,
    ]  # fmt: skip


def assert_same_bits(scores: Artifact, expected: Artifact) -> None:
    for name in (SCORES, BINS):
        left, right = (pq.read_table(artifact.path / name) for artifact in (scores, expected))
        assert len(left) == 24
        assert left.schema.equals(right.schema)
        assert left.equals(right), name


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(there: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def said(stderr: str) -> list[str]:
    """The lines of a command, without those of progress, which come each half minute on a busy machine."""
    return [line for line in stderr.splitlines() if not line.startswith("score: ")]


def start_slow(temporary: Path, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DISTURBED, "slow", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip


def wait_for_rows(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the driver has written more rows, while the workers still have some to score."""
    before = num_rows(folder)
    wait_for(lambda: process.poll() is not None or num_rows(folder) > before, 120)
    assert process.poll() is None, process.communicate()[0]
    assert num_rows(folder) < 24


def num_rows(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("parts/rows-*.parquet"))


@pytest.mark.slow
def test_the_command_line_scores_with_two_actors_what_one_process_scores(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, undisturbed: Artifact, temporary: Path
) -> None:
    result = subprocess.run(
        [*LARK, *arguments(tiny_model_dir, workspace, pool)], capture_output=True, text=True, timeout=180,
        env={**os.environ, "TMPDIR": str(temporary), "RAY_ADDRESS": "127.0.0.1:1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert [line.split()[:2] for line in said(result.stderr)] == [["24", "trajectories"]]
    assert result.stdout.count("\n") == 2
    [scores] = workspace.list("scores")
    assert_same_bits(scores, undisturbed)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_has_every_row_once_and_the_same_bits(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, undisturbed: Artifact, temporary: Path
) -> None:
    folder = workspace.folder(plan_score(config(tiny_model_dir), workspace, pool)[0])
    process = start_slow(temporary, arguments(tiny_model_dir, workspace, pool))
    wait_for_rows(process, folder)
    workers = [p for p in family(process.pid) if "ray::MapWorker" in " ".join(p.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    [scores] = workspace.list("scores")
    assert_same_bits(scores, undisturbed)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_kill_9_leaves_nothing_running_and_the_next_run_resumes(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, undisturbed: Artifact, temporary: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = workspace.folder(plan_score(config(tiny_model_dir), workspace, pool)[0])
    for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        process = start_slow(temporary, arguments(tiny_model_dir, workspace, pool))
        wait_for_rows(process, folder)
        everything = family(process.pid)
        # Two small agents of Ray notice only after a minute that its other processes were killed.
        agents = [p for p in everything if number == signal.SIGKILL and "Agent" in " ".join(p.cmdline())]
        rest = [p for p in everything if p not in agents]
        assert len(rest) > 3
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal sends it
        else:
            process.kill()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        wait_for(lambda: not any(map(is_running, rest)), 20)  # noqa: B023
        for agent in filter(is_running, agents):
            agent.kill()
    with caplog.at_level("INFO"):
        scores = score(config(tiny_model_dir), workspace, pool)
    assert "resuming: " in caplog.text
    assert_same_bits(scores, undisturbed)


@pytest.mark.slow
def test_a_running_cluster_is_used_and_left_running_and_a_worker_says_what_is_wrong(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, undisturbed: Artifact, head: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model_dir, copy)
    on_ray = config(copy, executor="ray", ray_address=head, num_workers=2)

    def student_vanishes(*args: object, **options: object) -> Iterator[pa.Table]:
        shutil.rmtree(copy)
        return executors.run_on_ray(*args, **options)  # type: ignore[arg-type]

    with (
        monkeypatch.context() as patch,
        pytest.raises(StudentError, match=f"^{copy}: the model cannot be loaded: .*$") as gone,
    ):
        patch.setattr(stage, "run_on_ray", student_vanishes)
        score(on_ray, workspace, pool)
    assert len(str(gone.value).splitlines()) == 1  # without what Ray advises its programmers
    before = signal.getsignal(signal.SIGTERM)
    shutil.copytree(tiny_model_dir, copy)
    assert_same_bits(score(on_ray, workspace, pool), undisturbed)
    assert signal.getsignal(signal.SIGTERM) is before
    assert is_listening(int(head.rpartition(":")[2]))


@pytest.mark.slow
def test_a_batch_whose_worker_always_dies_ends_the_run_with_one_sentence(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, head: str
) -> None:
    command = [sys.executable, "-c", DISTURBED, "dying"]
    command += arguments(tiny_model_dir, workspace, pool, "--ray-address", head)
    result = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert result.returncode == 2, result.stderr
    assert len(said(result.stderr)) == 2
    assert said(result.stderr)[-1].startswith("lark: a worker died 4 times on the same batch"), result.stderr
    assert is_listening(int(head.rpartition(":")[2]))


@pytest.mark.slow
def test_more_workers_than_the_cluster_has_cpus_are_refused(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, head: str
) -> None:
    with pytest.raises(DeviceError, match=r"^Ray has 2 CPUs and 3 are needed; lower --num-workers$"):
        score(config(tiny_model_dir, executor="ray", ray_address=head, num_workers=3), workspace, pool)


@pytest.mark.slow
def test_gpus_are_looked_for_where_the_workers_are(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, head: str
) -> None:
    on_gpus = ScoreConfig(student=str(tiny_model_dir), executor="ray", ray_address=head, device="cuda")
    assert plan_score(on_gpus, workspace, pool)[0].config["dtype"] == "bfloat16"
    with pytest.raises(DeviceError, match=r"^Ray has 0 GPUs and 1 are needed; lower --num-workers$"):
        score(on_gpus, workspace, pool)


@pytest.mark.slow
def test_what_workers_warn_of_is_said_once(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, head: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    student = tmp_path / "student"
    shutil.copytree(tiny_model_dir, student)
    values = json.loads((student / "config.json").read_text())
    values["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    (student / "config.json").write_text(json.dumps(values))
    scores = score(config(student, executor="ray", ray_address=head, num_workers=2), workspace, pool)
    sentence = "student student (LlamaForCausalLM) has positions of kind dynamic: its candidates are scored one by one"
    assert caplog.messages.count(sentence) == 1
    assert scores.manifest.counts["num_trajectories"] == 24


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", r"Ray cannot be reached at 127.0.0.1:\d+: .*refused; start it with: ray start --head"),
        ("ray://127.0.0.1:{port}", r"'ray://127.0.0.1:\d+' is no address .* give host:port of its head, or auto"),
        ("somewhere", r"'somewhere' is no address of a Ray cluster; give host:port of its head, or auto"),
    ],
)
def test_an_address_where_no_ray_is_gives_one_sentence_soon(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, address: str, message: str
) -> None:
    address = address.format(port=free_port())
    started = time.monotonic()
    with pytest.raises(DeviceError, match=message):
        score(config(tiny_model_dir, executor="ray", ray_address=address), workspace, pool)
    assert time.monotonic() - started < 20


def test_ray_that_is_not_installed_is_asked_for(
    workspace: Workspace, pool: Artifact, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DeviceError, match=r"needs Ray; install it with: pip install 'lark-studio\[cluster\]'"):
        score(config(tiny_model_dir, executor="ray"), workspace, pool)


def test_each_cpu_actor_gets_an_equal_share_that_the_machines_can_give() -> None:
    def nodes(*cpus: int) -> list[dict[str, object]]:
        return [{"Alive": True, "Resources": {"CPU": float(n), "GPU": 2.0}} for n in cpus]

    assert executors._devices(nodes(8), "cpu", 0) == (1, {"num_cpus": 8})
    assert executors._devices(nodes(8), "cpu", 3) == (3, {"num_cpus": 2})
    assert executors._devices(nodes(8, 8), "cpu", 3) == (3, {"num_cpus": 4})
    assert executors._devices(nodes(8, 8), "cuda", 0) == (4, {"num_gpus": 1})
    lost = [*nodes(4), {"Alive": False, "Resources": {"CPU": 64.0}}]
    assert executors._devices(lost, "cpu", 1) == (1, {"num_cpus": 4})
