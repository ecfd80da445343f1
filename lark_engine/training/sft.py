"""One training process (one rank): builds the model, trains, saves. `python -m lark_engine.training.sft spec.json`.

Full-parameter and LoRA differ only in how the model is built.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, DeviceError, LarkError, first_line
from lark_engine.models import ADAPTER_DIR, STUDENT_DIR, ModelRef, free_device_memory, load_model, load_tokenizer
from lark_engine.store.atomic import write_json
from lark_engine.store.events import EventLog
from lark_engine.training.examples import ScheduledExamples, TrainingSet, build_training_set, collate, read_train_file
from lark_engine.training.examples import schedule as lay_out
from lark_engine.training.resume import newest_complete_checkpoint

SUMMARY = "summary.json"
SPEC = "spec.json"
ERROR = "error.json"
RESUME_DIR = "resume"


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What a training process needs to know, as it stands in spec.json. `config` has device and dtype resolved."""

    config: TrainConfig
    student: ModelRef
    train_path: Path
    folder: Path
    deepspeed: dict[str, Any] | None

    def write(self) -> Path:
        """Write spec.json into the run's folder."""
        path = self.folder / RESUME_DIR / SPEC
        values = {
            "config": self.config.model_dump(mode="json"), "deepspeed": self.deepspeed,
            "student": {"name": self.student.name, "path": str(self.student.path), "content": self.student.content},
            "train_path": str(self.train_path), "folder": str(self.folder),
        }  # fmt: skip
        write_json(path, values)
        return path

    @classmethod
    def read(cls, path: Path) -> TrainSpec:
        values = json.loads(path.read_text())
        student = {**values["student"], "path": Path(values["student"]["path"])}
        return cls(
            config=TrainConfig.parse(values["config"], str(path)), student=ModelRef(**student),
            train_path=Path(values["train_path"]), folder=Path(values["folder"]), deepspeed=values["deepspeed"],
        )  # fmt: skip


def run(spec: TrainSpec) -> None:
    """Train to the end, from the newest complete checkpoint if there is one; saves model/ or adapter/, summary.json.

    Errors: `TrainingError` for a non-finite loss; `StudentError`, `PoolError` for inputs that cannot be used.
    """
    import torch
    from transformers import PrinterCallback

    from lark_engine.training.trainer import EventCallback, WeightedTrainer

    config = spec.config
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    tokenizer = load_tokenizer(spec.student, trust_remote_code=config.trust_remote_code)
    renderer = ChatRenderer(tokenizer, render=config.render, chat_template=config.chat_template, name=spec.student.name)
    training_set = build_training_set(read_train_file(spec.train_path), renderer, config)
    order = lay_out(len(training_set.examples), config)
    arguments = _training_arguments(spec, num_steps=len(order))
    if spec.deepspeed:
        # ZeRO-3 builds the model in shards: its process group must be there first.
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo" if config.device == "cpu" else "nccl", verbose=False)
    model = _build_model(spec)
    trainer = WeightedTrainer(
        model=model, args=arguments, train_dataset=ScheduledExamples(training_set.examples, order),
        data_collator=collate, training_set=training_set,
        callbacks=[EventCallback(EventLog(spec.folder / "events.jsonl", "train"))],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # events.jsonl and the progress bar say the same
    resume = newest_complete_checkpoint(spec.folder / RESUME_DIR)
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"training does not fit on {config.device}; lower --batch-size (the global batch stays), turn on "
            "--gradient-checkpointing, or lower --max-length; with the first two, running again resumes"
        ) from error
    _save(trainer, tokenizer, spec, training_set)
    del trainer, model
    free_device_memory()


def _build_model(spec: TrainSpec) -> Any:
    """The student, with a LoRA adapter around it when that is asked for; float32 master weights for full training."""
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
    try:
        model = get_peft_model(model, lora)
    except ValueError as error:
        linear = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ConfigError(f"lora_targets: {first_line(error)}; this model has {', '.join(linear)}") from error
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    return model.train()


def _training_arguments(spec: TrainSpec, num_steps: int) -> Any:
    """Our config in transformers' words. The schedule of examples holds every epoch, so theirs is one epoch."""
    from transformers import TrainingArguments

    config = spec.config
    return TrainingArguments(
        output_dir=str(spec.folder / RESUME_DIR),
        num_train_epochs=1,
        max_steps=num_steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.grad_accum,
        learning_rate=config.lr,
        lr_scheduler_type=config.scheduler,
        warmup_steps=round(config.warmup_ratio * num_steps),
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        max_grad_norm=config.max_grad_norm,
        bf16=config.dtype == "bfloat16",
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        seed=config.seed,
        save_strategy="steps",
        save_steps=config.save_steps,
        # A checkpoint counts once it is marked complete, which is after older ones are removed: keep one more.
        save_total_limit=config.keep + 1,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        deepspeed=spec.deepspeed,
        use_cpu=config.device == "cpu",
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if config.device == "cpu" and config.nproc_per_node > 1 else None,
        remove_unused_columns=False,
        dataloader_pin_memory=config.device != "cpu",
        report_to=[],
        disable_tqdm=not sys.stderr.isatty(),
        average_tokens_across_devices=False,
    )


def _save(trainer: Any, tokenizer: Any, spec: TrainSpec, training_set: TrainingSet) -> None:
    """Save the adapter, or the model in the precision that the student was stored in; then the summary."""
    from transformers import AutoConfig

    config = spec.config
    target = spec.folder / (ADAPTER_DIR if config.method == "lora" else STUDENT_DIR)
    # DeepSpeed gathers what it sharded (ZeRO-3), which every rank takes part in.
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_deepspeed_enabled else None
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if config.method == "full":
        stored = AutoConfig.from_pretrained(spec.student.path, trust_remote_code=config.trust_remote_code).dtype
        state = _stored_state(model, state or model.state_dict(), stored)
        model.config.dtype = stored
        model.config.use_cache = True
    model.save_pretrained(target, state_dict=state)
    tokenizer.save_pretrained(target)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    write_json(
        spec.folder / SUMMARY,
        {
            "num_sequences": len(training_set.examples),
            "num_truncated": training_set.num_truncated,
            "response_tokens": training_set.num_response_tokens,
            "drops": training_set.drops,
            "num_steps": trainer.state.global_step,
            "global_batch": config.global_batch,
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "trainable_parameters": sum(
                getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad
            ),
        },
    )


def _stored_state(model: Any, state: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """What is written to disk: one copy of tied weights, in the precision `dtype`."""
    tied = set(model.all_tied_weights_keys)
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if name not in tied
    }


def main(argv: list[str]) -> int:
    """Entry point of a launched rank: an error for the user is left in error.json for the process that started us."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    spec = TrainSpec.read(Path(argv[0]))
    try:
        run(spec)
    except LarkError as error:
        write_json(spec.folder / RESUME_DIR / ERROR, {"error": type(error).__name__, "message": str(error)})
        logging.getLogger(__name__).error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
