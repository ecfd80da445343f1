"""The real vLLM: a tiny base model and a LoRA adapter from one server, killed in the middle and resumed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lark_engine.config import GenerateConfig
from lark_engine.evaluation import client
from lark_engine.evaluation.generate import GENERATIONS, generate
from lark_engine.evaluation.serving import ModelServer
from lark_engine.models import ModelRef
from lark_engine.store.rows import RowLog, read_rows
from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow
if importlib.util.find_spec("vllm") is None and not os.environ.get("CI"):
    pytest.skip("vLLM is not installed", allow_module_level=True)

NUM_SAMPLES = 4

_GENERATE = """
import json, sys
from pathlib import Path
from tests.evaluation.test_vllm import config_of, models_of
from lark_engine.evaluation.generate import generate
from lark_engine.store.workspace import Workspace
root, tiny, adapter = map(Path, sys.argv[1:])
# One request at a time, so that the kill comes in the middle.
generate(config_of(root, max_concurrency=1), Workspace(root / "workspace"), models_of(tiny, adapter))
"""


def config_of(root: Path, **options: object) -> GenerateConfig:
    values = {"max_new_tokens": 64, "max_model_len": 512, "n_samples": NUM_SAMPLES, "temperature": 1.0}
    return GenerateConfig.parse({"benchmark": [str(root / "sums.json")], **values, **options}, "test")


def models_of(tiny: Path, adapter: Path | None = None) -> list[ModelRef]:
    base = ModelRef(name="tiny", path=tiny, content="base0")
    if adapter is None:
        return [base]
    return [base, ModelRef(name="tiny-lora", path=adapter, content="lora0", base=base)]


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA of rank 4 that changes the answers of the tiny model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False)
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[ModelServer]:
    """The servers that a test has started."""
    started: list[ModelServer] = []
    enter = ModelServer.__enter__

    def noting(self: ModelServer) -> ModelServer:
        started.append(self)
        return enter(self)

    monkeypatch.setattr(ModelServer, "__enter__", noting)
    return started


def test_one_server_for_base_and_adapter_survives_kill_and_leaves_nothing(
    tiny_model_dir: Path, adapter_dir: Path, tmp_path: Path, servers: list[ModelServer]
) -> None:
    rows = [{"prompt": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(8)]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    kept = _generate_until_killed(tmp_path, tiny_model_dir, adapter_dir)

    models = models_of(tiny_model_dir, adapter_dir)
    base, adapted = generate(config_of(tmp_path), Workspace(tmp_path / "workspace"), models)

    assert [server.processes() for server in servers] == [[]]
    assert base.manifest.metrics["server"]["engine"] == "vllm"
    base_rows = list(read_rows(base.path / GENERATIONS))
    assert base_rows[: len(kept)] == kept
    for artifact in (base, adapted):
        made = list(read_rows(artifact.path / GENERATIONS))
        assert len({(r["problem_id"], r["sample_index"]) for r in made}) == len(made) == 8 * NUM_SAMPLES
        assert all(r["finish_reason"] in ("stop", "length") and 1 <= r["num_tokens"] <= 64 for r in made)
        assert len({r["text"] for r in made}) > 8
        assert artifact.manifest.counts["num_truncated"] == sum(r["finish_reason"] == "length" for r in made)
        assert artifact.manifest.config["dtype"] == "bfloat16"
    texts = [{(r["problem_id"], r["sample_index"]): r["text"] for r in read_rows(a.path / GENERATIONS)}
             for a in (base, adapted)]  # fmt: skip
    assert texts[0] != texts[1]
    assert not any(name.endswith(".log") for name in base.manifest.files)


def test_an_engine_that_dies_in_the_middle_is_started_again_and_loses_nothing(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    servers: list[ModelServer],
) -> None:  # fmt: skip
    rows = [{"prompt": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(8)]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.1)
    killed: dict[str, object] = {}
    append = RowLog.append

    def killing(self: RowLog, new: Iterable[dict[str, Any]]) -> None:
        append(self, new)
        if not killed and len(self.known) >= 5:
            (engine,) = (p for p in psutil.Process().children(recursive=True) if "EngineCore" in p.name())
            killed.update(process=engine, rows=list(read_rows(self.path)))
            engine.kill()

    monkeypatch.setattr(RowLog, "append", killing)
    (artifact,) = generate(
        config_of(tmp_path, max_concurrency=2), Workspace(tmp_path / "workspace"), models_of(tiny_model_dir)
    )
    made = list(read_rows(artifact.path / GENERATIONS))
    assert made[:5] == killed["rows"]
    assert len({(r["problem_id"], r["sample_index"]) for r in made}) == len(made) == 8 * NUM_SAMPLES
    assert artifact.manifest.metrics["server"]["restarts"] == 1
    assert "starting it again, what is sampled is kept" in caplog.text
    events = (artifact.path / "events.jsonl").read_text()
    assert events.count(" is up after ") == 2
    assert [server.processes() for server in servers] == [[]]


def test_two_replicas_stop_every_sample_after_its_box(boxing_model_dir: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}+{i}=?", "answer": "7"} for i in range(6)]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    config = config_of(tmp_path, replicas=2, stop_after_box=True, temperature=0.0, max_new_tokens=400, n_samples=2)
    (artifact,) = generate(config, Workspace(tmp_path / "workspace"), models_of(boxing_model_dir))
    made = list(read_rows(artifact.path / GENERATIONS))
    assert len(made) == 12
    # Tokens come in groups, more of them on a busy machine; what was sampled with the box is kept.
    assert {r["finish_reason"] for r in made} == {"boxed"}
    assert all(r["text"].startswith(r"\boxed{7}") and r["num_tokens"] == len(r["text"]) < 400 for r in made)
    assert artifact.manifest.metrics["server"]["replicas"] == 2
    answered = [(artifact.path / "logs" / f"server-{i}.log").read_text().count("POST /v1/chat") for i in (0, 1)]
    assert min(answered) >= 3


def _generate_until_killed(root: Path, tiny: Path, adapter: Path) -> list[dict[str, object]]:
    """Start generating in another process, kill -9 it after a few samples, and return these."""
    arguments = [sys.executable, "-c", _GENERATE, str(root), str(tiny), str(adapter)]
    with (root / "output.log").open("wb") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
        )
    deadline = time.monotonic() + 300
    while not (files := list(root.glob(f"workspace/evals/tiny/*/{GENERATIONS}"))) or files[0].stat().st_size == 0:
        assert process.poll() is None, (root / "output.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    kept = list(read_rows(files[0]))
    assert 1 <= len(kept) < 8 * NUM_SAMPLES
    return kept
