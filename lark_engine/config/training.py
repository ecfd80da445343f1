"""Options of training, and of comparing selections by training on each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, field_validator, model_validator

from lark_engine.config.base import Device, Dtype, StageConfig, option

Arm = Literal["chi2", "uniform", "random"]
Reporter = Literal["tensorboard", "trackio", "wandb"]


class TrainConfig(StageConfig):
    """Weighted fine-tuning of the student on a selection, full-parameter or LoRA."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Run": ("method", "recipe", "student", "seed"),
        "Length": ("epochs", "max_steps", "max_tokens", "max_length"),
        "Optimizer": (
            "lr", "scheduler", "warmup_ratio", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
            "max_grad_norm",
        ),
        "Batch": ("global_batch", "packing", "pack_length", "batch_size", "unit", "weighting"),
        "LoRA": ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets"),
        "Precision and memory": ("dtype", "gradient_checkpointing", "deepspeed"),
        "Held-out loss": ("eval_share", "eval_data", "eval_benchmarks", "eval_steps"),
        "Checkpoints and logs": ("save_steps", "keep", "logging_steps", "stop_after_checkpoint", "report_to"),
        "Rendering": ("render", "chat_template", "trust_remote_code"),
        "Devices": ("device", "nproc_per_node", "nnodes", "node_rank", "rdzv_endpoint"),
    }  # fmt: skip

    method: Literal["full", "lora"] = option("lora", "train all parameters, or a LoRA adapter")
    recipe: str = option("custom", "name of the recipe that these values come from", identity=False)
    student: str = option(..., "model to train: folder, workspace student, or Hugging Face id", identity=False)
    lr: float = option(1e-4, "peak learning rate", gt=0)
    epochs: float = option(3.0, "passes over the selection", gt=0)
    max_steps: int | None = option(None, "optimizer steps, instead of epochs", ge=1)
    max_tokens: int | None = option(None, "tokens (prompt + response) to train on, instead of epochs", ge=1)
    global_batch: int = option(64, "trajectories in one optimizer step, over all devices", ge=1)
    max_length: int = option(8192, "longest trajectory in tokens; longer ones are cut and counted", ge=2)
    packing: bool = option(True, "trajectories end to end in one forward pass, without padding", identity=False)
    pack_length: int | None = option(
        None, "most tokens in one packed forward pass of one device; max_length by default", identity=False, ge=2
    )
    batch_size: int = option(
        1, "trajectories in one padded forward pass on one device, without packing", identity=False, ge=1
    )
    unit: Literal["trajectory", "token"] = option("trajectory", "whether trajectories or their tokens count equally")
    weighting: Literal["selection", "uniform"] = option("selection", "use the selection's weights, or 1 for all")
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = option(
        "cosine", "learning-rate schedule"
    )
    warmup_ratio: float = option(0.03, "share of steps with a rising learning rate", ge=0, lt=1)
    weight_decay: float = option(0.0, "AdamW weight decay", ge=0)
    adam_beta1: float = option(0.9, "AdamW beta 1", ge=0, lt=1)
    adam_beta2: float = option(0.999, "AdamW beta 2", ge=0, lt=1)
    adam_epsilon: float = option(1e-8, "AdamW epsilon", gt=0)
    max_grad_norm: float = option(1.0, "gradient clipping by norm; 0 = none", ge=0)
    dtype: Dtype = option("auto", "precision; auto = bfloat16 on CUDA, float32 on CPU")
    gradient_checkpointing: bool = option(
        True, "recompute activations in the backward pass to save memory", identity=False
    )
    seed: int = option(0, "seed of data order, initialization and dropout", ge=0)
    eval_share: float = option(
        0.0, "share of the problems that is held out, to measure the loss on; the same ones in every selection",
        ge=0, lt=1,
    )  # fmt: skip
    eval_data: str | None = option(
        None, "selection or train.jsonl whose held-out problems the loss is measured on; by default the training data",
        identity=False,
    )  # fmt: skip
    eval_benchmarks: tuple[str, ...] = option((), "benchmark files: loss of their reference answers", identity=False)
    eval_steps: int | None = option(
        None, "optimizer steps between evaluations; by default ten in a run", identity=False, ge=1
    )
    save_steps: int = option(50, "optimizer steps between resumable checkpoints", identity=False, ge=1)
    logging_steps: int = option(1, "optimizer steps between logged points", identity=False, ge=1)
    keep: int = option(1, "resumable checkpoints kept on disk while training", identity=False, ge=1)
    stop_after_checkpoint: bool = option(
        False, "stop after the next checkpoint; the run can be resumed", identity=False
    )
    report_to: tuple[Reporter, ...] = option((), "also log to tensorboard, trackio or wandb", identity=False)
    render: Literal["template", "append"] = option("template", "how response tokens are made; as when scoring")
    chat_template: Path | None = option(None, "Jinja file to use instead of the student's own chat template")
    lora_rank: int = option(64, "LoRA rank r", ge=1)
    lora_alpha: int = option(128, "LoRA alpha", ge=1)
    lora_dropout: float = option(0.05, "LoRA dropout", ge=0, lt=1)
    lora_targets: tuple[str, ...] = option(
        ("auto",),
        "modules that get an adapter; auto = every projection of attention and feed-forward, by architecture; "
        "all-linear = every linear layer",
        min_length=1,
    )
    deepspeed: str | None = option(None, "DeepSpeed configuration: zero2, zero2_bf16, zero3, or a JSON file")
    nproc_per_node: int = option(1, "training processes (devices) on each machine", identity=False, ge=1)
    nnodes: int = option(1, "machines; start the same command on each, on a shared workspace", identity=False, ge=1)
    node_rank: int = option(0, "number of this machine, 0 … nnodes − 1", identity=False, ge=0)
    rdzv_endpoint: str | None = option(None, "host:port on machine 0 where the machines meet", identity=False)
    device: Device = option("auto", "where to run; auto = CUDA when it is there", identity=False)
    trust_remote_code: bool = option(False, "run Python code that comes with the student's files")

    @field_validator("deepspeed")
    @classmethod
    def _none_is_a_word_too(cls, name: str | None) -> str | None:
        return None if name == "none" else name

    @model_validator(mode="after")
    def _batches_add_up(self) -> Self:
        if self.packing and self.global_batch < self.num_processes:
            raise ValueError(
                f"global_batch {self.global_batch} leaves some of the {self.num_processes} processes without a "
                "trajectory; raise it, or start fewer"
            )
        return self

    @model_validator(mode="after")
    def _options_mean_something(self) -> Self:
        if self.max_steps is not None and self.max_tokens is not None:
            raise ValueError("max_steps and max_tokens both say where training ends; give one of them")
        if not self.packing and self.pack_length is not None:
            raise ValueError("pack_length has no effect without packing; leave it out, or leave packing on")
        if self.eval_steps is not None and not (self.eval_share or self.eval_benchmarks):
            raise ValueError("eval_steps has no effect without something held out; give --eval-share too")
        if self.eval_data is not None and not self.eval_share:
            raise ValueError("eval_data has no effect without held-out problems; give --eval-share too")
        return self

    @model_validator(mode="after")
    def _machines_can_meet(self) -> Self:
        if self.node_rank >= self.nnodes:
            raise ValueError(f"node_rank {self.node_rank} is not below nnodes {self.nnodes}")
        if (self.nnodes > 1) != (self.rdzv_endpoint is not None):
            raise ValueError(
                "several machines meet at --rdzv-endpoint host:port, and one needs none; give it with nnodes"
            )
        return self

    @property
    def num_processes(self) -> int:
        """Training processes on all machines; each has a device."""
        return self.nnodes * self.nproc_per_node


class SweepConfig(StageConfig):
    """A comparison of selections of one budget, trained alike. Arms: the paper's weights on the top B, the top B
    weighted alike, B candidates at random.
    """

    budget: int = option(3, "B, trajectories kept for each problem", ge=1, alias="B")
    arms: tuple[Arm, ...] = option(("chi2", "uniform", "random"), "what is compared", min_length=1)
    seeds: tuple[int, ...] = option((0, 1, 2), "a run for each: data order, adapter, and the random arm", min_length=1)
    correct_only: bool = option(False, "only candidates whose answer is known to be correct")
    drop_truncated: bool = option(False, "leave out candidates that were cut when they were scored")
    deduplicate: bool = option(False, "keep one of several identical responses to a problem")

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.arms)) < len(self.arms) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("an arm or a seed is given twice; a run more would be the same run")
        return self
