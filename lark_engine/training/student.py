"""The student as it is trained. Full-parameter and LoRA differ in nothing but this."""

from __future__ import annotations

from typing import Any

from lark_engine.errors import ConfigError
from lark_engine.models import load_model
from lark_engine.training.spec import TrainSpec


def build_model(spec: TrainSpec, device: Any) -> Any:
    """The student on its device, ready to train: weights, adapter, objective and attention."""
    import torch

    from lark_engine.training.objective import prepare

    config = spec.config
    model = load_student(spec)
    if not spec.is_sharded:
        model.to(device)
    prepare(
        model, packing=config.packing, name=spec.student.name, can_run=not spec.is_sharded,
        autocast=torch.bfloat16 if config.dtype == "bfloat16" else None,
    )  # fmt: skip
    return model


def load_student(spec: TrainSpec) -> Any:
    """The student on the CPU, with a LoRA adapter when that is asked for; float32 master weights for full training."""
    import torch
    from transformers import set_seed

    config = spec.config
    set_seed(config.seed)
    # Autocast computes in bfloat16; what the optimizer updates stays float32. A frozen base may be bfloat16 itself.
    dtype = config.dtype if config.method == "lora" else "float32"
    model = load_model(spec.student, dtype=dtype, device="cpu", trust_remote_code=config.trust_remote_code)
    model.config.use_cache = False
    if config.method == "full":
        return model.train()
    from peft import LoraConfig, get_peft_model

    targets: str | list[str] = "all-linear" if config.lora_targets == ("all-linear",) else list(config.lora_targets)
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=targets,
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    if isinstance(targets, list) and (absent := [name for name in targets if not _has_module(model, name)]):
        linear = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ConfigError(
            f"lora_targets: no module of this model is named {', '.join(absent)}; it has {', '.join(linear)}, and "
            "all-linear takes them all"
        )
    model = get_peft_model(model, lora)
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return model.train()


def _has_module(model: Any, name: str) -> bool:
    return any(n == name or n.endswith(f".{name}") for n, _ in model.named_modules())
