"""From files to a training set: options of importing a pool, scoring it and selecting from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, field_validator, model_validator

from lark_engine.config.base import Device, Dtype, StageConfig, option
from lark_engine.errors import did_you_mean
from lark_engine.scoring.criteria import energy_names

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
_MOST = 2**31 - 1  # a count beyond it is a slip of the finger, and no array's index
Rule = Literal["chi2", "top_b", "softmax", "best_teacher", "all"]
Mode = Literal["budget", "sharpness", "temperature"]
MOST_TAU = 1e6  # uniform weights long before: energies are of the order of 1


class PoolConfig(StageConfig):
    """Import of a pool of candidate trajectories."""

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Source": ("source", "name", "split", "revision"),
        "Checks": ("skip_bad", "labels", "time_limit_s", "workers"),
    }

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

    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Score": ("student", "max_length", "brier", "top_k", "token_stats"),
        "Rendering": ("render", "chat_template", "trust_remote_code"),
        "Devices": (
            "device", "dtype", "batch_tokens", "batch_size", "executor", "ray_address", "num_workers",
        ),
    }  # fmt: skip

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
    budget: int = option(3, "B, trajectories kept for each problem", ge=1, le=_MOST, alias="B")
    sharpness: float = option(1.0, "s = tau/tau_B (mode sharpness); below 1 sharper, above 1 flatter", ge=0.05, le=20)
    tau: float | None = option(
        None, "chi2 temperature tau (mode temperature), or the softmax rule's tau", gt=0, le=MOST_TAU
    )
    max_budget: int | None = option(None, "cap on the number kept (mode temperature)", ge=1, le=_MOST)
    teachers: tuple[str, ...] = option((), "keep only these teachers in the pool (g_hat is recomputed)")
    exclude_teachers: tuple[str, ...] = option((), "leave these teachers out (g_hat is recomputed)")
    correct_only: bool = option(False, "only candidates whose answer is known to be correct")
    drop_truncated: bool = option(False, "leave out candidates that were cut when they were scored")
    min_response_tokens: int = option(0, "shortest response to keep, in tokens", ge=0, le=_MOST)
    max_response_tokens: int | None = option(None, "longest response to keep, in tokens", ge=1, le=_MOST)
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
        ge=1, le=2**53,
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
