"""transformers' Trainer with our objective: it brings distribution, DeepSpeed, schedules and resumable checkpoints."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback

from lark_engine.errors import TrainingError
from lark_engine.store.atomic import write_text
from lark_engine.store.events import EventLog
from lark_engine.training.examples import PADDING, TrainingSet
from lark_engine.training.loss import weighted_loss
from lark_engine.training.resume import COMPLETE


class WeightedTrainer(Trainer):  # type: ignore[misc]
    """Minimises METHOD.md 6. The data order is the dataset's own; see `examples.schedule`."""

    def __init__(self, *args: Any, training_set: TrainingSet, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._training_set = training_set
        # compute_loss divides by the sequences of the whole step, so nothing may divide by accumulation steps again.
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """Real sequences of this optimizer step, over all its micro-batches and all ranks."""
        count = sum(int((batch["number"] != PADDING).sum()) for batch in batch_samples)
        total: Tensor = self.accelerator.gather(torch.tensor([count], device=device)).sum()
        return total.clamp(min=1)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:  # fmt: skip
        """The weighted loss of one micro-batch, scaled so that averaging over ranks gives the sum over ranks.

        Errors: `TrainingError` when it is not finite, with the step and the trajectories of the batch.
        """
        assert num_items_in_batch is not None
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        loss = weighted_loss(outputs.logits, inputs["input_ids"], inputs["coefficient"], num_items_in_batch)
        if not torch.isfinite(loss):
            raise TrainingError(self._not_finite("loss", float(loss.detach()), self._batch(inputs["number"])))
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient's norm, before the optimizer uses it. Errors: `TrainingError` when it is not finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(float(norm)):
            raise TrainingError(self._not_finite("gradient norm", float(norm), ""))
        return norm

    def _batch(self, number: Tensor) -> str:
        labels = [self._training_set.examples[int(n)].label for n in number if int(n) != PADDING]
        return f" (batch: {'; '.join(labels)})"

    def _not_finite(self, what: str, value: float, batch: str) -> str:
        return (
            f"the {what} became {value} at step {self.state.global_step + 1}{batch}; the usual cause is a learning "
            "rate that is too high: lower --lr or use --dtype float32"
        )


class EventCallback(TrainerCallback):  # type: ignore[misc]
    """Loss, learning rate and progress to `events.jsonl`; marks saved checkpoints as complete, after the fact."""

    def __init__(self, events: EventLog):
        self._events = events
        self._started = time.monotonic()
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started, self._first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        rate = (state.global_step - self._first_step) / max(time.monotonic() - self._started, 1e-9)
        self._events.write(
            done=state.global_step, total=state.max_steps, unit="step", rate=round(rate, 5),
            eta_s=round((state.max_steps - state.global_step) / rate, 1) if rate else None,
            metrics={name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs},
        )  # fmt: skip

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, "")
