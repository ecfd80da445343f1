"""A LoRA checkpoint merged into its base: a checkpoint of whole weights that any program loads."""

from __future__ import annotations

from dataclasses import replace

from lark_engine.errors import ConfigError
from lark_engine.models import (
    STUDENT_DIR,
    free_device_memory,
    load_model,
    load_tokenizer,
    model_of_checkpoint,
    save_weights,
)
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

# To be raised when a change of the code changes what is written.
VERSION = 1


def merge(adapter: Artifact, workspace: Workspace, *, trust_remote_code: bool = False) -> Artifact:
    """A checkpoint with W + (alpha / r)·B·A in place of every W that has an adapter, as precise as the base is stored.

    Whether code that comes with the base is run is asked for anew: a manifest that says so may be anybody's.
    Errors: `ConfigError` for a checkpoint without an adapter; `StudentError` when its base has changed.
    """
    model_ref = model_of_checkpoint(adapter, workspace)
    if model_ref.base is None:
        raise ConfigError(f"checkpoint {adapter.id} has no adapter: its weights are whole already")
    plan = Plan(
        kind="checkpoints", name=f"merged-{adapter.name}",
        fingerprint=fingerprint({"adapter": adapter.fingerprint, "version": VERSION}),
        config={**adapter.manifest.config, "merged": True}, inputs={**adapter.manifest.inputs, "adapter": adapter.ref},
        seed=adapter.manifest.seed,
    )  # fmt: skip
    base = model_ref.base

    def make(draft: Draft) -> None:
        model = load_model(model_ref, dtype="float32", device="cpu", trust_remote_code=trust_remote_code)
        save_weights(model, draft.path / STUDENT_DIR, like=base, trust_remote_code=trust_remote_code)
        # The adapter's own, with the chat template that it was trained with.
        tokenizer = load_tokenizer(replace(model_ref, base=None), trust_remote_code=trust_remote_code)
        tokenizer.save_pretrained(draft.path / STUDENT_DIR)
        draft.counts, draft.device = {"num_parameters": sum(p.numel() for p in model.parameters())}, "cpu"
        del model
        free_device_memory()

    return workspace.build(plan, make)
