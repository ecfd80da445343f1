"""The student as a scorer: token ids in, trajectory statistics out. The only code of scoring that runs a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lark_engine.errors import DeviceError, StudentError
from lark_engine.models import ModelRef, load_model
from lark_engine.scoring.token_stats import TokenStats, token_stats, trajectory_stats

# Vocabulary projections are made for this many response tokens at a time: [512, 49152] float32 is 100 MB.
CHUNK_TOKENS = 512


class Student:
    """A loaded student. Errors of loading: `StudentError`, `DeviceError` (see `models.load_model`)."""

    def __init__(self, model: ModelRef, *, dtype: str, device: str, top_k: int, trust_remote_code: bool = False):
        self.name = model.name
        self.device = device
        self.top_k = top_k
        self._model = load_model(model, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        self._decoder: Any = self._model.get_decoder()
        self._head: Any = self._model.get_output_embeddings()
        self._check_projection()

    @torch.inference_mode()
    def score(self, batch: Sequence[tuple[Sequence[int], int]]) -> list[dict[str, float]]:
        """Statistics of each (token ids, number of prompt tokens); every trajectory has ≥ 1 response token.

        A batch that does not fit the device is split in halves until it does. Errors: `DeviceError` when a single
        trajectory does not fit.
        """
        try:
            return self._score(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise DeviceError(
                    f"a trajectory of {len(batch[0][0])} tokens does not fit on {self.device}; lower --max-length"
                ) from error
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        return self.score(batch[:middle]) + self.score(batch[middle:])

    def _score(self, batch: Sequence[tuple[Sequence[int], int]]) -> list[dict[str, float]]:
        length = max(len(ids) for ids, _ in batch)
        ids = torch.zeros((len(batch), length), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, (row, _) in enumerate(batch):
            ids[i, : len(row)] = torch.as_tensor(row, dtype=torch.long)
            mask[i, : len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        # Padding is on the right: causal attention never sees it, so one length in the batch needs no mask at all.
        attention_mask = None if bool(mask.all()) else mask
        hidden = self._decoder(input_ids=ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return [
            trajectory_stats(self._stats(hidden[i, start - 1 : len(row) - 1], ids[i, start : len(row)]))
            for i, (row, start) in enumerate(batch)
        ]

    def _stats(self, hidden: Tensor, target: Tensor) -> TokenStats:
        """Statistics of one response; `hidden` [T, H] predicts `target` [T]. Never holds [T, V] for all T at once."""
        parts = [
            token_stats(self._project(hidden[i : i + CHUNK_TOKENS]), target[i : i + CHUNK_TOKENS], self.top_k)
            for i in range(0, len(target), CHUNK_TOKENS)
        ]
        return TokenStats(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _project(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, with the final soft cap or scale of the architectures that have one."""
        config = self._model.config
        logits: Tensor = self._head(hidden)
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.inference_mode()
    def _check_projection(self) -> None:
        """Compare our logits with the model's own on a few tokens: an unknown final step must not pass unseen."""
        size = int(self._head.weight.shape[0])
        ids = torch.arange(8, device=self.device)[None] % size
        own = self._model(input_ids=ids, use_cache=False).logits[0].float()
        ours = self._project(self._decoder(input_ids=ids, use_cache=False).last_hidden_state[0]).float()
        if not torch.allclose(own, ours, rtol=2e-2, atol=2e-2 * float(own.abs().max())):
            raise StudentError(
                f"student {self.name}: its logits are made in a way that scoring does not know "
                f"(architecture {type(self._model).__name__}); please report it with the model's config.json"
            )
