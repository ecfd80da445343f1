"""One frozen model for each stage. Command line, YAML recipe and form are derived from these.

A field's `identity` says whether it changes the output: only identity fields enter the fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lark_engine.errors import ConfigError, did_you_mean
from lark_engine.scoring.criteria import energy_names

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
Arm = Literal["chi2", "uniform", "random"]
Reporter = Literal["tensorboard", "trackio", "wandb"]
TrainFormat = Literal["messages", "prompt-completion"]


@dataclass(frozen=True)
class Choices:
    """Marks a field whose valid words are known only when the program runs (a registry's), for help and forms."""

    names: Callable[[], tuple[str, ...]]


def _known_energy(name: str) -> str:
    if name not in energy_names():
        raise ValueError(f"no such energy{did_you_mean(name, energy_names())}")
    return name


Energy = Annotated[str, AfterValidator(_known_energy), Choices(energy_names)]
Rule = Literal["chi2", "top_b", "softmax", "best_teacher", "all"]
Mode = Literal["budget", "sharpness", "temperature"]


def option(default: Any, help: str, *, identity: bool = True, **bounds: Any) -> Any:
    """A config field with its line of help; `identity=False` for what cannot change the output."""
    return Field(default, description=help, json_schema_extra={"identity": identity}, **bounds)


class StageConfig(BaseModel):
    """Frozen, checked at construction; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    def identity(self) -> dict[str, Any]:
        """The fields that change the output, as JSON values: what the fingerprint hashes."""
        fields = type(self).model_fields
        hidden = {
            name
            for name, field in fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("identity") is False
        }
        return self.model_dump(mode="json", exclude=hidden)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Build the config from untrusted values. Errors: `ConfigError` with place, field and remedy."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_explain(cls, error)}") from None


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    """The first problem of a validation error in one sentence."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner: Any = model
        for part in first["loc"][:-1]:
            owner = getattr(owner.model_fields.get(part), "annotation", None) or model
        known = getattr(owner, "model_fields", model.model_fields)
        if first["loc"][-1] in known:
            return f"'{place}' is given twice, under two names; give it once"
        return f"unknown key '{place}'{did_you_mean(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"'{place}' is missing; give it a value"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"'{place}' = {first['input']!r}: {message}" if place else message


class PoolConfig(StageConfig):
    """Import of a pool of candidate trajectories."""

    source: str = option(..., "file (.jsonl, .gz, .zst, .parquet), folder of teachers, or Hugging Face dataset id")
    name: str | None = option(None, "name of the pool; by default that of the source", identity=False)
    split: str = option("train", "split, when the source is a Hugging Face dataset id")
    revision: str | None = option(None, "revision, when the source is a Hugging Face dataset id")
    skip_bad: bool = option(False, "leave bad lines out (they are listed in rejected.jsonl) instead of refusing")
    labels: Literal["auto", "verify", "none"] = option(
        "auto", "correctness labels: keep given ones and verify the rest; verify all anew; or none"
    )
    time_limit_s: float = option(5.0, "seconds that checking one answer may take", gt=0, le=600)
    workers: int = option(0, "processes that check answers; 0 = one for each core", identity=False, ge=0)


class ScoreConfig(StageConfig):
    """Token statistics of every candidate under the student, and the criteria made from them."""

    student: str = option(..., "student model: folder, workspace student, or Hugging Face id", identity=False)
    top_k: int = option(50, "logits that the released Brier score looks at", ge=1)
    brier: Literal["exact", "top_k"] = option("exact", "Brier score behind rho and g_hat: whole vocabulary or top-K")
    max_length: int = option(32768, "longest prompt + response in tokens; the rest is cut and flagged", ge=2)
    render: Literal["template", "append"] = option(
        "template", "response tokens by the student's template, or the text appended to the prompt as it is"
    )
    chat_template: Path | None = option(None, "Jinja file to use instead of the student's own chat template")
    dtype: Dtype = option("auto", "precision of the student; auto = bfloat16 on CUDA, float32 on CPU")
    device: Device = option("auto", "where to run; auto = CUDA when this machine has it", identity=False)
    batch_tokens: int | None = option(
        None, "most tokens in one forward pass; by default 16384 on CUDA, 2048 on CPU", identity=False, ge=1
    )
    batch_size: int | None = option(None, "most trajectories in one forward pass", identity=False, ge=1)
    token_stats: Literal["bins", "full"] = option(
        "bins", "token statistics to keep: means of 64 tokens, or every response token too", identity=False
    )
    executor: Literal["local", "ray"] = option("local", "this process, or a pool of Ray actors", identity=False)
    ray_address: str | None = option(
        None, "host:port of a Ray cluster's head, or auto; by default a Ray of its own on this machine", identity=False
    )
    num_workers: int = option(0, "Ray actors; 0 = one for each GPU, on CPUs one", identity=False, ge=0)
    trust_remote_code: bool = option(False, "run Python code that comes with the student's files")

    @model_validator(mode="after")
    def _ray_options_go_with_ray(self) -> Self:
        if self.executor != "ray" and (self.ray_address is not None or self.num_workers):
            raise ValueError("ray_address and num_workers have no effect here; use --executor ray, or leave them out")
        return self


class SelectConfig(StageConfig):
    """Which candidates to keep for each problem, and with what weight."""

    rule: Rule = option("chi2", "how energies become weights")
    energy: Energy = option("g_hat", "what candidates are ranked by")
    mode: Mode = option("budget", "chi2: paper rule at B, B with a sharpness, or one tau for all problems")
    budget: int = option(3, "B, trajectories kept for each problem", ge=1, alias="B")
    sharpness: float = option(1.0, "s = tau/tau_B (mode sharpness); below 1 sharper, above 1 flatter", ge=0.05, le=20)
    tau: float | None = option(None, "chi2 temperature tau (mode temperature), or the softmax rule's tau", gt=0)
    max_budget: int | None = option(None, "cap on the number kept (mode temperature)", ge=1)
    teachers: tuple[str, ...] = option((), "keep only these teachers in the pool (g_hat is recomputed)")
    exclude_teachers: tuple[str, ...] = option((), "leave these teachers out (g_hat is recomputed)")
    correct_only: bool = option(False, "only candidates whose answer is known to be correct")
    drop_truncated: bool = option(False, "leave out candidates that were cut when they were scored")
    min_response_tokens: int = option(0, "shortest response to keep, in tokens", ge=0)
    max_response_tokens: int | None = option(None, "longest response to keep, in tokens", ge=1)
    deduplicate: bool = option(False, "keep one of several identical responses to a problem")
    keep_zero_weight: bool = option(False, "write rows of weight 0 too, as the released code does")
    uniform_if_no_energy: bool = option(False, "a problem without a valid energy becomes uniform, as released")
    seed: int = option(0, "seed of the energy 'random'", ge=0)
    max_teacher_share: float | None = option(
        None,
        "largest share of the kept trajectories from one teacher; where a teacher has more, its candidates with the "
        "smallest margin give way to the next ranked (g_hat is not recomputed)",
        gt=0, le=1,
    )  # fmt: skip
    max_train_tokens: int | None = option(
        None,
        "most tokens (prompt + response) of all kept trajectories; those with the least selection_prob give way "
        "first, and every problem keeps its best one",
        ge=1,
    )  # fmt: skip

    # B is the paper's symbol and the released flag; recipes may write either.
    model_config = ConfigDict(populate_by_name=True)

    @field_validator("max_teacher_share")
    @classmethod
    def _all_is_no_constraint(cls, share: float | None) -> float | None:
        return None if share == 1.0 else share

    @model_validator(mode="after")
    def _tau_where_it_means_something(self) -> Self:
        needs = self.rule == "softmax" or (self.rule == "chi2" and self.mode == "temperature")
        if needs and self.tau is None:
            raise ValueError(f"rule {self.rule} in mode {self.mode} needs tau; give --tau")
        if not needs and self.tau is not None:
            raise ValueError("tau has no effect here; use --mode temperature or --rule softmax, or leave it out")
        if self.sharpness != 1.0 and not (self.rule == "chi2" and self.mode == "sharpness"):
            raise ValueError("sharpness has no effect here; use --mode sharpness with rule chi2, or leave it out")
        if self.max_budget is not None and not (self.rule == "chi2" and self.mode == "temperature"):
            raise ValueError("max_budget has no effect here; use --mode temperature with rule chi2, or leave it out")
        given = self.model_fields_set
        if "budget" in given and not self.has_budget:
            raise ValueError("a budget has no effect here; mode temperature takes --max-budget, and rule all keeps all")
        if self.mode != "budget" and self.rule != "chi2":
            raise ValueError(f"mode {self.mode} has no effect on rule {self.rule}; leave it out, or use rule chi2")
        if "seed" in given and self.energy != "random":
            raise ValueError("seed has no effect here; it is for --energy random")
        return self

    @model_validator(mode="after")
    def _constraints_where_they_mean_something(self) -> Self:
        if not self.has_constraint:
            return self
        if self.rule == "best_teacher" and self.max_teacher_share is not None:
            raise ValueError("max_teacher_share contradicts rule best_teacher, which keeps one teacher; leave one out")
        for name in ("keep_zero_weight", "uniform_if_no_energy"):
            if getattr(self, name):
                raise ValueError(
                    f"{name} writes rows that the rule did not choose, so max_teacher_share and max_train_tokens "
                    "cannot hold; leave one out"
                )
        return self

    @property
    def has_constraint(self) -> bool:
        """Whether the selection as a whole is constrained: by a teacher's share or by tokens."""
        return self.max_teacher_share is not None or self.max_train_tokens is not None

    @property
    def has_budget(self) -> bool:
        """Whether B says how many are kept: not in mode temperature, and not for the rule all."""
        return self.rule != "all" and not (self.rule == "chi2" and self.mode == "temperature")

    @property
    def most_kept(self) -> int | None:
        """The most candidates that a problem can keep, None for no limit."""
        return self.budget if self.has_budget else self.max_budget

    @property
    def pool_edit(self) -> dict[str, Any]:
        """The fields that say which candidates are chosen from and by which energy; the others only weigh them."""
        names = ("energy", "teachers", "exclude_teachers", "correct_only", "drop_truncated", "min_response_tokens")
        values = {name: getattr(self, name) for name in (*names, "max_response_tokens", "deduplicate")}
        return {**values, "seed": self.seed if self.energy == "random" else None}

    def identity(self) -> dict[str, Any]:
        """As for every config, without what has no effect under these options."""
        values = super().identity()
        silent = {
            "seed": self.energy != "random", "budget": not self.has_budget, "mode": self.rule != "chi2",
            "max_teacher_share": self.max_teacher_share is None, "max_train_tokens": self.max_train_tokens is None,
        }  # fmt: skip
        return {name: value for name, value in values.items() if not silent.get(name, False)}


class TrainConfig(StageConfig):
    """Weighted fine-tuning of the student on a selection, full-parameter or LoRA."""

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
    )
    deepspeed: str | None = option(None, "DeepSpeed configuration: zero2, zero2_bf16, zero3, or a JSON file")
    nproc_per_node: int = option(1, "training processes (devices) on each machine", identity=False, ge=1)
    nnodes: int = option(1, "machines; start the same command on each, on a shared workspace", identity=False, ge=1)
    node_rank: int = option(0, "number of this machine, 0 … nnodes − 1", identity=False, ge=0)
    rdzv_endpoint: str | None = option(None, "host:port on machine 0 where the machines meet", identity=False)
    device: Device = option("auto", "where to run; auto = CUDA when it is there", identity=False)
    trust_remote_code: bool = option(False, "run Python code that comes with the student's files")

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


class GenerateConfig(StageConfig):
    """Sampling of answers to benchmark problems."""

    benchmark: tuple[str, ...] = option(..., "benchmarks by name or JSON file", min_length=1, identity=False)
    backend: Literal["vllm", "endpoint", "transformers"] = option(
        "vllm", "vLLM server started by us, an OpenAI-compatible server by URL, or transformers in process"
    )
    endpoint: str | None = option(None, "URL of an OpenAI-compatible server (backend endpoint)", identity=False)
    endpoint_model: str | None = option(None, "model name to ask that server for; by default its only one")
    n_samples: int = option(5, "samples for each problem", ge=1)
    temperature: float = option(0.6, "sampling temperature; 0 = greedy", ge=0)
    top_p: float = option(0.95, "nucleus sampling", gt=0, le=1)
    max_new_tokens: int = option(12288, "longest generation in tokens", ge=1)
    repetition_penalty: float = option(1.0, "1.0 = none; the released code hid a 1.1", gt=0)
    seed: int = option(0, "seed; sample i of problem p has its own, derived from it", ge=0)
    limit: int | None = option(None, "only the first so many problems of each benchmark", ge=1)
    system_prompt: str | None = option(None, "system prompt instead of the benchmark's own; '' = none")
    chat_template: Path | None = option(None, "Jinja file to use instead of the model's own chat template")
    dtype: Dtype = option("auto", "precision; auto = bfloat16 on CUDA, float32 on CPU (vllm on CPU: bfloat16)")
    device: Device = option("auto", "where to run; auto = CUDA when it is there", identity=False)
    max_model_len: int | None = option(None, "context length of the server; by default the model's", ge=2)
    tensor_parallel_size: int = option(1, "devices for one copy of the model (vllm)", identity=False, ge=1)
    max_concurrency: int = option(64, "requests in flight at once", identity=False, ge=1)
    start_timeout_s: float = option(900.0, "seconds that a server may take to start", identity=False, gt=0)
    trust_remote_code: bool = option(False, "run Python code that comes with the model's files")

    @model_validator(mode="after")
    def _endpoint_has_a_url(self) -> Self:
        if (self.backend == "endpoint") != (self.endpoint is not None):
            raise ValueError("backend 'endpoint' and the option endpoint (a URL) go together; give both or neither")
        return self


class GradeConfig(StageConfig):
    """Extraction and grading of generated answers."""

    time_limit_s: float = option(5.0, "seconds that grading one answer may take", gt=0, le=600)
    workers: int = option(0, "worker processes; 0 = one for each core", identity=False, ge=0)


class RunRecipe(StageConfig):
    """All stages of one run, as `lark run recipe.yaml` reads them."""

    name: str = option(..., "name of the run")
    student: str = option(..., "the student of every stage: folder, workspace student, or Hugging Face id")
    pool: dict[str, Any] = option(..., "options of `lark pool import`")
    score: dict[str, Any] = option({}, "options of `lark score`")
    select: dict[str, Any] = option({}, "options of `lark select`")
    train: dict[str, Any] = option({}, "options of `lark train`, or `recipe: NAME` and what differs from it")
    generate: dict[str, Any] = option(..., "options of `lark generate`")
    grade: dict[str, Any] = option({}, "options of `lark grade`")
    baseline: bool = option(True, "evaluate the untrained student too, as the table's reference row")
