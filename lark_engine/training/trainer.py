"""transformers' Trainer with our objective: it brings distribution, DeepSpeed, schedules and resumable checkpoints."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback

from lark_engine.errors import ConfigError, TrainingError
from lark_engine.store.atomic import require_space
from lark_engine.store.events import is_asked_to_stop
from lark_engine.training import checkpoints
from lark_engine.training.examples import Example, MicroBatches
from lark_engine.training.health import RunLog
from lark_engine.training.held_out import HeldOut
from lark_engine.training.loss import Loss

# Trajectories that an error names.
_LABELS = 8


class WeightedTrainer(Trainer):  # type: ignore[misc]
    """Minimises METHOD.md 6. The data order is the dataset's own; see `examples.lay_out`."""

    def __init__(
        self, *args: Any, examples: Sequence[Example], held_out: Sequence[HeldOut], keep: int,
        stop_after_checkpoint: bool, run_log: RunLog, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(*args, **kwargs)
        self.examples = examples
        self._held_out = held_out
        self._keep = keep
        self._stop_after_checkpoint = stop_after_checkpoint
        self._run_log = run_log
        self._step_numbers: list[int] = []
        self.evaluated_step = -1
        # compute_loss divides by the trajectories of the whole step, so nothing may divide by accumulation steps again.
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """Trajectories of this optimizer step, over all its forward passes and all ranks.

        Ranks agree by the same message whether this step is the last: one that stops alone leaves the others waiting.
        """
        self._step_numbers = [int(n) for batch in batch_samples for n in batch["numbers"]]
        mine = torch.tensor([[len(self._step_numbers), int(is_asked_to_stop())]], device=device)
        total, num_asked = self.accelerator.gather(mine).sum(dim=0)
        self._run_log.ends_after_step = bool(num_asked)
        return total.clamp(min=1)

    def _prepare_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """On the device, as they are: with DeepSpeed transformers would round the coefficients to bfloat16."""
        return {name: value.to(self.args.device) for name, value in inputs.items()}

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:  # fmt: skip
        """The weighted loss of one forward pass, scaled so that averaging over ranks gives the sum over ranks.

        Errors: `TrainingError` when it is not finite, with the step, the trajectories and the likely cause.
        """
        assert num_items_in_batch is not None
        numbers = [int(n) for n in inputs["numbers"]]
        outputs = Loss(*model(**{name: value for name, value in inputs.items() if name != "numbers"}))
        if not torch.isfinite(outputs.value):
            raise TrainingError(self._not_finite("loss", float(outputs.value.detach()), numbers, outputs.nll_T))
        loss = outputs.value * (self.accelerator.num_processes / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient's norm. Errors: `TrainingError` when it is not finite, on all ranks (DeepSpeed has then left the
        step out; otherwise the optimizer has not used it yet).
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(float(norm)):
            numbers = gather_object(self._step_numbers)
            raise TrainingError(self._not_finite("gradient norm", float(norm), numbers, None))
        return norm

    def _not_finite(self, what: str, value: float, numbers: list[int], nll_T: Tensor | None) -> str:
        """A sentence for a run that must stop: what, where, on which trajectories, why, and what to do."""
        examples = [self.examples[n] for n in numbers]
        bad = examples if nll_T is None else [e for e, nll in _by_example(examples, nll_T) if not nll.isfinite().all()]
        labels = _some([example.label for example in bad or examples])
        cause = self._cause(len(bad) < len(examples))
        return f"the {what} became {value} at step {self.state.global_step + 1} ({labels}): {cause}"

    def _cause(self, only_some: bool) -> str:
        """The likely cause of a number that is not finite, and the remedy. `only_some` trajectories have one."""
        rate = f"lower --lr (now {self._get_learning_rate():.3g})"
        weights = (getattr(p, "ds_tensor", p) for p in self.model.parameters())
        if not all(bool(torch.isfinite(p.detach()).all()) for p in weights if p is not None):
            return f"the steps before it were too large, so that weights are not finite any more; {rate}"
        if self.args.bf16 and only_some:
            return "these overflow in bfloat16; use --dtype float32, or leave them out of the selection"
        return f"the usual cause is a learning rate that is too high; {rate}, or use --dtype float32"

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss on what is held out, by set; the value of every trajectory stays in the set.

        Errors: `TrainingError` when one is not finite, with the trajectories.
        """
        metrics: dict[str, float] = {}
        started = time.monotonic()
        self.model_wrapped.eval()
        for held_out in self._held_out:
            held_out.losses = self._losses_of(held_out)
            self._require_finite(held_out)
            metrics[f"eval_{held_out.name}_loss"] = sum(held_out.losses) / len(held_out.losses)
        self.model_wrapped.train()
        if self.is_world_process_zero():
            self._run_log.evaluation(self.state.global_step, metrics, time.monotonic() - started)
        self.log(metrics)
        self.evaluated_step = self.state.global_step
        return metrics

    def _require_finite(self, held_out: HeldOut) -> None:
        pairs = zip(held_out.examples, held_out.losses, strict=True)
        bad = [example.label for example, loss in pairs if not math.isfinite(loss)]
        if bad:
            raise TrainingError(
                f"the loss on {held_out.name} is not finite after step {self.state.global_step} "
                f"({_some(bad)}): {self._cause(len(bad) < len(held_out.examples))}"
            )

    @torch.no_grad()
    def _losses_of(self, held_out: HeldOut) -> list[float]:
        """Mean nll per response token of every trajectory. All ranks share the work and get all values."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        device = self.args.device
        losses = torch.zeros(len(held_out.examples), dtype=torch.float64, device=device)
        bins = held_out.bins(world)
        passes = MicroBatches(held_out.examples, bins, packing=held_out.packing)
        for position in range(rank, len(bins), world):
            inputs = {name: value.to(device) for name, value in passes[position].items() if name != "numbers"}
            with self.compute_loss_context_manager():
                nll_T = Loss(*self.model_wrapped(**inputs)).nll_T
            examples = [held_out.examples[n] for n in bins[position]]
            for number, (_, nll) in zip(bins[position], _by_example(examples, nll_T), strict=True):
                losses[number] = nll.double().mean()
        total: Tensor = self.accelerator.reduce(losses, reduction="sum")
        return [float(x) for x in total]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save, when there is room for it; mark as complete; remove what is older than `keep`."""
        folder = Path(self.args.output_dir)
        if self.is_world_process_zero():
            require_space(folder, self._checkpoint_bytes(folder), "a checkpoint")
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            checkpoints.finish(folder / f"checkpoint-{self.state.global_step}", self._keep)
        self.control.should_training_stop |= self._stop_after_checkpoint

    def _checkpoint_bytes(self, folder: Path) -> int:
        if before := checkpoints.newest_complete_checkpoint(folder):
            return checkpoints.size_of(before)
        trained = sum(getattr(p, "ds_numel", p.numel()) for p in self.model.parameters() if p.requires_grad)
        return checkpoints.estimated_bytes(trained, deepspeed=self.is_deepspeed_enabled)


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
    return "; ".join(labels[:_LABELS]) + more


def _by_example(examples: Sequence[Example], nll_T: Tensor) -> list[tuple[Example, Tensor]]:
    """Each example with the nll of its tokens; `nll_T` has those of all examples end to end."""
    counts = [len(e.ids) - max(e.num_prompt_tokens, 1) for e in examples]
    ends = list(itertools.accumulate(counts))
    return [(e, nll_T[end - count : end]) for e, count, end in zip(examples, counts, ends, strict=True)]


class HealthCallback(TrainerCallback):  # type: ignore[misc]
    """Hands what the Trainer logs to the run's log."""

    def __init__(self, run_log: RunLog):
        self._run_log = run_log

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A resumed state has those of the run that saved it.
        state.save_steps, state.eval_steps = args.save_steps, args.eval_steps
        self._run_log.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._run_log.ends_after_step:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            metrics: dict[str, float] = {
                name: float(logs[name]) for name in ("loss", "learning_rate", "grad_norm") if name in logs
            }
            logs |= self._run_log.step(state.global_step, metrics)


def reporters(names: Sequence[str], folder: Path) -> list[TrainerCallback]:
    """Callbacks that hand the logs on: to `tensorboard` (in the run's folder), `trackio` or `wandb`.

    Errors: `ConfigError` for one that is not installed.
    """
    callbacks = []
    for name in names:
        try:
            if name == "tensorboard":
                from torch.utils.tensorboard import SummaryWriter
                from transformers.integrations import TensorBoardCallback

                callbacks.append(TensorBoardCallback(SummaryWriter(log_dir=str(folder / "tensorboard"))))
            elif name == "trackio":
                from transformers.integrations import TrackioCallback

                callbacks.append(TrackioCallback())
            else:
                from transformers.integrations import WandbCallback

                callbacks.append(WandbCallback())
        except (ImportError, RuntimeError) as error:
            raise ConfigError(f"report_to: {name} is not installed; `pip install {name}`, or leave it out") from error
    return callbacks
