"""One training process (one rank): builds the model, trains, saves. `python -m lark_engine.training.sft spec.json`."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import DeviceError, LarkError, StoppedEarly, StoreError
from lark_engine.jobs.membership import join
from lark_engine.models import (
    ADAPTER_DIR,
    BASE_MODEL,
    STUDENT_DIR,
    free_device_memory,
    load_tokenizer,
    save_weights,
    torch_dtype,
)
from lark_engine.store.atomic import write_json
from lark_engine.store.events import EventLog
from lark_engine.training import checkpoints
from lark_engine.training.examples import MicroBatches, TrainingSet, build_training_set, lay_out, read_train_file
from lark_engine.training.health import RunLog, read_curve
from lark_engine.training.held_out import HELD_OUT, HeldOut, held_out_sets, split, write_losses
from lark_engine.training.packing import Layout
from lark_engine.training.spec import EVENTS, RESUME_DIR, SUMMARY, TrainSpec, error_file
from lark_engine.training.student import build_model

log = logging.getLogger(__name__)

_EVALUATIONS = 10  # while training, unless the config says how often


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What a run computes on: trajectories to train on, their forward passes, and what is held out."""

    training_set: TrainingSet
    layout: Layout
    held_out: list[HeldOut]


def run(spec: TrainSpec) -> None:
    """Train to the end, from the newest complete checkpoint if there is one; saves model/ or adapter/, summary.json.

    Errors: `TrainingError` for a non-finite loss; `StudentError`, `PoolError`, `ConfigError` for inputs that cannot be
    used; `StoreError` when the disk has no room; `StoppedEarly` after the checkpoint that it was to stop after.
    """
    import torch

    config = spec.config
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    tokenizer = load_tokenizer(spec.student, trust_remote_code=config.trust_remote_code)
    data = read_data(spec, tokenizer)
    arguments = make_arguments(spec, data)
    if spec.deepspeed:
        # ZeRO-3 builds the model in shards: its process group must be there first.
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo" if config.device == "cpu" else "nccl", verbose=False)
    model = build_model(spec, arguments.device)
    trainer = make_trainer(model, spec, data, arguments)
    resume_dir = spec.folder / RESUME_DIR
    if trainer.is_world_process_zero():
        checkpoints.remove_torn(resume_dir)
    trainer.accelerator.wait_for_everyone()
    resume = checkpoints.newest_complete_checkpoint(resume_dir)
    if resume and spec.deepspeed:
        checkpoints.require_own_files(resume)
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"training does not fit on {config.device}; lower --pack-length (what is learned stays the same), turn on "
            "--gradient-checkpointing, or lower --max-length; with the first two, running again resumes"
        ) from error
    except UnpicklingError as error:  # torch reads numbers only, and its words say how to run the code in a file
        raise StoreError(
            f"{resume}: its state holds more than numbers and is not loaded; remove that folder to train from before it"
        ) from error
    if trainer.state.global_step < data.layout.num_steps:
        raise StoppedEarly(
            f"stopped after step {trainer.state.global_step} of {data.layout.num_steps}, which is saved; run the same "
            f"command {'without --stop-after-checkpoint' if config.stop_after_checkpoint else 'again'} to go on"
        )
    if data.held_out and trainer.evaluated_step < trainer.state.global_step:
        trainer.evaluate()
    _save(trainer, tokenizer, spec, data)
    del trainer, model
    free_device_memory()


def read_data(spec: TrainSpec, tokenizer: Any) -> RunData:
    """Read, render, split and lay out the data of a run. Errors: those of `run` that concern the data."""
    config = spec.config
    renderer = ChatRenderer(tokenizer, render=config.render, chat_template=config.chat_template, name=spec.student.name)
    lines, held_out_lines = split(read_train_file(spec.train_path), config.eval_share)
    training_set = build_training_set(lines, renderer, config)
    return RunData(
        training_set=training_set, layout=lay_out(training_set, config),
        held_out=held_out_sets(held_out_lines, renderer, config, spec.eval_path),
    )  # fmt: skip


def describe(config: TrainConfig, layout: Layout) -> str:
    """The run in a sentence: steps, the global batch and what it is made of, and what is computed for nothing."""
    passes = f"{layout.grad_accum} forward pass{'es' if layout.grad_accum > 1 else ''}"
    how = "packed" if config.packing else "padded"
    devices = f"{config.num_processes} process{'es' if config.num_processes > 1 else ''}"
    return (
        f"{layout.num_steps:,} steps; global batch {config.global_batch} = {devices} × {passes}, {how}, of at most "
        f"{layout.longest:,} tokens; {layout.computed_per_token:.2f} tokens computed per useful one"
        + (f", devices {layout.efficiency:.1%} busy" if config.num_processes > 1 else "")
    )


def make_trainer(model: Any, spec: TrainSpec, data: RunData, arguments: Any) -> Any:
    """The Trainer of a run, with its log and its callbacks."""
    from transformers import PrinterCallback

    from lark_engine.training.objective import kernel
    from lark_engine.training.trainer import HealthCallback, WeightedTrainer, reporters

    config, layout = spec.config, data.layout
    examples = data.training_set.examples
    run_log = RunLog(EventLog(spec.folder / EVENTS, "train"), layout.step_tokens, config.logging_steps, config.device)
    trainer = WeightedTrainer(
        model=model, args=arguments, train_dataset=MicroBatches(examples, layout.bins, packing=config.packing),
        eval_dataset=data.held_out or None, data_collator=lambda rows: rows[0], examples=examples,
        held_out=data.held_out, keep=config.keep, stop_after_checkpoint=config.stop_after_checkpoint, run_log=run_log,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # events.jsonl and the progress bar say the same
    # First, so that what it adds to the logs reaches the reporters.
    trainer.callback_handler.callbacks.insert(0, HealthCallback(run_log))
    if trainer.is_world_process_zero():
        for callback in reporters(config.report_to, spec.folder):
            trainer.add_callback(callback)
        note = describe(config, layout)
        if config.packing:
            note += f"; {kernel(arguments.device, torch_dtype(config.dtype))}"
        run_log.note(0, note)
        log.info("%s", note)
    return trainer


def make_arguments(spec: TrainSpec, data: RunData) -> Any:
    """Our config in transformers' words. The layout holds every forward pass in order, so theirs is one epoch."""
    from transformers import TrainingArguments

    config, num_steps = spec.config, data.layout.num_steps
    arguments = TrainingArguments(
        output_dir=str(spec.folder / RESUME_DIR),
        num_train_epochs=1,
        max_steps=num_steps,
        per_device_train_batch_size=1,  # one item of the dataset is one forward pass
        gradient_accumulation_steps=data.layout.grad_accum,
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
        logging_steps=1,  # of the Trainer; config.logging_steps thins out the events
        logging_nan_inf_filter=False,
        eval_strategy="steps" if data.held_out else "no",
        eval_steps=config.eval_steps or max(1, num_steps // _EVALUATIONS),
        eval_on_start=bool(data.held_out),
        deepspeed=spec.deepspeed,
        use_cpu=config.device == "cpu",
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if config.device == "cpu" and config.num_processes > 1 else None,
        remove_unused_columns=False,
        dataloader_pin_memory=config.device != "cpu",
        report_to=[],
        run_name=spec.folder.name,
        project="lark-studio",
        disable_tqdm=not sys.stderr.isatty(),
        average_tokens_across_devices=False,
    )
    # One process has one device. transformers would spread it over all GPUs that it sees (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _save(trainer: Any, tokenizer: Any, spec: TrainSpec, data: RunData) -> None:
    """Save the adapter, or the model in the precision that the student was stored in; then the summary."""
    config = spec.config
    target = spec.folder / (ADAPTER_DIR if config.method == "lora" else STUDENT_DIR)
    # DeepSpeed gathers what it sharded (ZeRO-3), which every rank takes part in.
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_deepspeed_enabled else None
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if config.method == "full":
        save_weights(model, target, like=spec.student, state=state, trust_remote_code=config.trust_remote_code)
    else:
        model.save_pretrained(target, state_dict=state)
        write_json(target / BASE_MODEL, {"name": spec.student.name, "content": spec.student.content})
    tokenizer.save_pretrained(target)
    if data.held_out:
        write_losses(data.held_out, spec.folder / HELD_OUT)
    write_json(spec.folder / SUMMARY, _summary(trainer, spec, data, model))


def _summary(trainer: Any, spec: TrainSpec, data: RunData, model: Any) -> dict[str, Any]:
    losses = list(read_curve(spec.folder / EVENTS).values())
    held_out = {f"eval_{held.name}_loss": sum(held.losses) / len(held.losses) for held in data.held_out}
    return {
        "counts": {
            "num_sequences": len(data.training_set.examples),
            "num_truncated": data.training_set.num_truncated,
            "num_steps": trainer.state.global_step,
            "global_batch": spec.config.global_batch,
            "num_forward_passes": len(data.layout.bins),
            "tokens_seen": data.layout.tokens,
            "num_held_out": sum(len(held.examples) for held in data.held_out),
            "num_held_out_truncated": sum(held.num_truncated for held in data.held_out),
        },
        "metrics": {
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "trainable_parameters": sum(
                getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad
            ),
            **held_out,
        },
        "tokens": data.training_set.num_response_tokens,
        "drops": {
            **data.training_set.drops,
            **{f"{held.name}: {reason}": n for held in data.held_out for reason, n in held.drops.items()},
        },
    }


def main(argv: list[str]) -> int:
    """Entry point of a launched rank: an error for the user is left in error.json for the process that started us."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    join(os.environ)
    path = Path(argv[0])
    spec = TrainSpec.read(path)
    try:
        run(spec)
    except LarkError as error:
        write_json(error_file(path), {"error": type(error).__name__, "message": str(error)})
        logging.getLogger(__name__).error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
