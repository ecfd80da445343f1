"""Recipes that ship with the package: hyper-parameters as YAML, DeepSpeed JSON, system prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.recipes.reading import load_yaml
from lark_engine.store.workspace import read_json

ROOT = Path(__file__).parent


# Names of transformers' TrainingArguments and peft's LoraConfig, as the released configuration files write them.
RELEASED_NAMES = {
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "lr_scheduler_type": "scheduler",
    "max_seq_length": "max_length",
    "r": "lora_rank",
    "target_modules": "lora_targets",
    "gradient_accumulation_steps": "grad_accum",
}
_FIXED = {"bias": "none", "task_type": "CAUSAL_LM", "use_rslora": False, "inference_mode": False}


def train_recipe(name: str, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """Values of a shipped training recipe, or of a YAML file.

    `trust_remote_code`: whether who starts the run said so. Errors: `ConfigError` with the nearest known name, and as
    `refuse_programs`.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        values = load_yaml(path)
        refuse_programs(values, name, trust_remote_code=trust_remote_code)
        return {"recipe": path.stem, **our_names(values)}
    if name not in train_recipes():
        raise ConfigError(f"no training recipe '{name}'{did_you_mean(name, train_recipes())}")
    return {"recipe": name, **load_yaml(ROOT / "train" / f"{name}.yaml")}


def refuse_programs(values: dict[str, Any], place: str, *, trust_remote_code: bool) -> None:
    """A recipe may be anybody's, and only who starts it says what programs are run beside ours.

    Errors: `ConfigError` for a recipe that asks for more.
    """
    for name, is_said in (("trust_remote_code", trust_remote_code), ("server_python", False)):
        if values.get(name) and not is_said:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{place}: '{name}' would run code, which a recipe cannot ask for; give {option} yourself"
            )


def train_recipes() -> list[str]:
    """Names of the shipped training recipes."""
    return sorted(path.stem for path in (ROOT / "train").glob("*.yaml"))


def deepspeed_config(name: str) -> dict[str, Any]:
    """A shipped DeepSpeed configuration by name, or a JSON file.

    Errors: `ConfigError` for an unknown name, or for a file that fixes what follows from the training options.
    """
    shipped = {path.stem: path for path in (ROOT / "deepspeed").glob("*.json")}
    path = shipped.get(name) or Path(name)
    if name not in shipped and not path.is_file():
        raise ConfigError(f"no DeepSpeed configuration '{name}'{did_you_mean(name, shipped)}")
    values = read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a DeepSpeed configuration is a JSON object")
    zero = values.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ConfigError(f"{path}: 'zero_optimization' is an object; see the shipped configurations")
    if zero.get("stage") == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
        raise ConfigError(
            f"{path}: stage 3 without 'stage3_gather_16bit_weights_on_model_save': true trains to the end and then "
            "cannot save the model; set it"
        )
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        if values.get(key, "auto") != "auto":
            raise ConfigError(
                f"{path}: '{key}' is fixed to {values[key]}, but it follows from global_batch, batch_size and the "
                'number of devices; set it to "auto"'
            )
    return values


def lora_values(path: Path) -> dict[str, Any]:
    """LoRA options of a YAML or JSON file, in our names or in peft's (r, target_modules)."""
    return our_names(load_yaml(path))


def our_names(values: dict[str, Any]) -> dict[str, Any]:
    """Released names in ours; what only repeats how we always train is accepted with that value alone."""
    ours = {RELEASED_NAMES.get(name, name): value for name, value in values.items()}
    for name, only in _FIXED.items():
        if name in ours and ours.pop(name) != only:
            raise ConfigError(f"'{name}' is always {only!r} here; leave it out, or give it this value")
    if "bf16" in ours:
        ours["dtype"] = "bfloat16" if ours.pop("bf16") else "float32"
    return ours
