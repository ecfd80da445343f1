"""The preflight: what it shows is what training does, and what does not fit is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lark_engine.config import TrainConfig
from lark_engine.jobs.folder import create_job
from lark_engine.jobs.membership import leave
from lark_engine.jobs.records import JobSpec
from lark_engine.store.workspace import Workspace
from lark_engine.training.plan import train_data
from lark_engine.training.preflight import preflight
from lark_engine.training.preflight_record import Preflight, read_preflight
from lark_engine.training.train import train
from tests.cli.command_line import succeeds
from tests.training.conftest import WEIGHTS

Make = Callable[..., TrainConfig]


def look(config: TrainConfig, workspace: Workspace, path: Path) -> Preflight:
    return preflight(config, workspace, train_data(str(path), workspace))


@pytest.mark.parametrize("changes", [{}, {"method": "lora", "lora_rank": 4}, {"packing": False, "batch_size": 2}])
def test_a_doubled_weight_is_measured_to_count_twice(
    workspace: Workspace, tiny_config: Make, train_path: Path, changes: dict[str, Any]
) -> None:
    found = look(tiny_config(**changes), workspace, train_path)
    if changes.get("method") == "lora":  # an adapter begins as nothing: half of it has no gradient yet
        assert found.trainable_parameters < 20_000
    assert found.gradient_ratio == pytest.approx(2.0, abs=1e-3)
    assert found.problems == []
    assert not (workspace.root / "checkpoints").exists()  # nothing was written


def test_weights_that_cancel_are_noticed(
    workspace: Workspace, tiny_config: Make, train_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights divided by their sum in the batch and multiplied by nothing: what the released trainers do."""
    import numpy as np

    from lark_engine.training import examples

    monkeypatch.setattr(examples, "sequence_weights", lambda prob: np.ones(len(prob)))
    found = look(tiny_config(), workspace, train_path)
    assert found.problems[0].endswith("times, not 2: please report it")
    uniform = look(tiny_config(weighting="uniform"), workspace, train_path)
    assert (uniform.gradient_ratio, uniform.problems) == (None, [])


def test_it_says_what_training_then_does(workspace: Workspace, tiny_config: Make, train_path: Path) -> None:
    config = tiny_config(eval_share=0.3, epochs=2)
    found = look(config, workspace, train_path)
    checkpoint = train(config, workspace, train_data(str(train_path), workspace))
    assert checkpoint is not None
    counts = checkpoint.manifest.counts
    assert found.checkpoint == checkpoint.id
    assert (found.steps, found.tokens) == (counts["num_steps"], counts["tokens_seen"])
    assert (found.num_sequences, found.num_held_out) == (counts["num_sequences"], counts["num_held_out"])
    assert found.trainable_parameters == checkpoint.manifest.metrics["trainable_parameters"]
    assert 0 < found.hours < 1
    assert 0.1 < found.memory_gb < found.memory_free_gb


def test_the_first_batch_is_shown_with_its_mask_and_coefficients(
    workspace: Workspace, tiny_config: Make, train_path: Path
) -> None:
    found = look(tiny_config(global_batch=7, max_length=1024), workspace, train_path)
    assert len(found.first_batch) == 7
    assert sum(shown.share for shown in found.first_batch) == pytest.approx(1.0)
    for shown in found.first_batch:
        number = next(n for n in range(7) if shown.label == f"problem {n // 2}, candidate {n % 2}")
        assert shown.prompt.endswith(f"What is {number // 2} + 1?<|im_end|>\n<|im_start|>assistant\n")
        assert shown.response == "so " * number + f"it is {number // 2 + 1}<|im_end|>\n"
        weight = WEIGHTS[number] * len(WEIGHTS) / sum(WEIGHTS)
        assert shown.coefficient * shown.num_response_tokens == pytest.approx(weight)


def test_what_does_not_fit_is_said_with_the_remedy(
    workspace: Workspace, tiny_config: Make, train_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lark_engine.training import preflight as module

    monkeypatch.setattr(module, "_free_memory", lambda device: 1e6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    found = look(tiny_config(max_length=52), workspace, train_path)
    memory, disk, cut = found.problems
    assert memory.startswith("memory: about ")
    assert "lower --pack-length" in memory
    assert disk.endswith("0.0 GB are free; lower --keep")
    assert cut.startswith("3 of 7 trajectories are cut at the maximal length")
    wrong = module._problems(replace(found, gradient_ratio=1.0))
    assert wrong[0] == "a doubled weight changes the gradient 1.000 times, not 2: please report it"


def test_the_command_prints_it_or_gives_json(tmp_path: Path, train_path: Path, tiny_model_dir: Path) -> None:
    arguments = ["train", "lora", "--train-data", train_path, "--model-path", tiny_model_dir, "--max-length", 1024]
    arguments += ["--dtype", "float32", "--device", "cpu"]
    text = succeeds(*arguments, "--preflight", workspace=tmp_path / "cache")
    assert "a doubled train_weight makes its share of the gradient 2.000" in text
    assert text.rstrip().endswith("ready")
    values = json.loads(succeeds(*arguments, "--json", workspace=tmp_path / "cache"))
    assert values["problems"] == []
    assert len(values["first_batch"]) == 7


def test_a_job_keeps_what_its_preflight_found(
    tmp_path: Path,
    train_path: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    request.addfinalizer(leave)
    job = create_job(tmp_path / "cache", JobSpec(stage="train lora", command=("lark", "train"), cwd=str(tmp_path)))
    monkeypatch.setenv("LARK_JOB_DIR", str(job.folder))
    monkeypatch.setenv("LARK_JOB_COMMAND", "1")
    arguments = ["train", "lora", "--train-data", train_path, "--model-path", tiny_model_dir, "--max-length", 1024]
    arguments += ["--dtype", "float32", "--device", "cpu", "--lora-rank", 2, "--preflight", "--json"]
    said = json.loads(succeeds(*arguments, workspace=tmp_path / "cache"))
    found = read_preflight(job.folder)
    assert found is not None
    assert found.as_json() == said
    assert (found.resume_step, found.num_sequences) == (0, 7)
    assert found.resume.startswith("begins with step 1")
    job.write_done({"state": "failed"})
    job.begin_again()
    assert read_preflight(job.folder) is None  # of the attempt before


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"checkpoint": 1}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "preflight.json").write_text(content)
    assert read_preflight(tmp_path) is None
    assert read_preflight(tmp_path / "nowhere") is None


def test_a_run_that_cannot_be_resumed_as_it_is_is_a_problem(
    workspace: Workspace, tiny_config: Make, train_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lark_engine.training import preflight as module
    from lark_engine.training.resume import Resume

    # DeepSpeed, which refuses it, has no preflight without a GPU.
    monkeypatch.setattr(module, "resume_of", lambda *_, **__: Resume(None, "begun with 2 processes", is_refused=True))
    assert look(tiny_config(), workspace, train_path).problems == ["begun with 2 processes"]
