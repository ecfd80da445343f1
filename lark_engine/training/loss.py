"""The weighted objective (METHOD.md 6). Pure functions on numbers and tensors.

    minimise (1/N) Σ_i w_i · CE_i,      CE_i = mean over the response tokens of sequence i (unit = "trajectory")

w = selection_prob rescaled by one constant for the whole training set, so that its mean is 1. It is never divided by
the weight sum of a micro-batch: with one sequence per micro-batch that cancels the weights (the released trainers do).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lark_engine.architecture import LogitTransform

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Logits exist for this many tokens at a time, in float32, of at most so many bytes.
CHUNK_TOKENS = {"cpu": 256, "cuda": 4096}
CHUNK_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}


def sequence_weights(selection_prob: Floats) -> Floats:
    """w_i = q_i · N / Σq, [N]: the same constant for all, mean 1."""
    return selection_prob * (len(selection_prob) / selection_prob.sum())


def token_coefficients(weight: Floats, num_response_tokens: Ints, unit: str) -> Floats:
    """What each response token of sequence i carries, [N]: w_i / T_i ("trajectory") or w_i / T̄ ("token").

    T̄ is the mean number of response tokens in the training set.
    """
    if unit == "trajectory":
        return weight / num_response_tokens
    return weight / num_response_tokens.mean()


class Loss(NamedTuple):
    """Σ coefficient·nll, a float32 scalar with a gradient, and the nll of every token [T], float32, without one."""

    value: Tensor
    nll_T: Tensor


def weighted_nll(
    hidden_TH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, target_T: Tensor, coefficient_T: Tensor,
    transform: LogitTransform | None = None, dtype: torch.dtype | None = None,
) -> Loss:  # fmt: skip
    """The loss of tokens `target_T` that are predicted from `hidden_TH` by the output projection `weight_VH`.

    The gradient of Σ c_t·nll_t by the logits of token t is c_t·(softmax − onehot), known as soon as the logits are. So
    a chunk of tokens is projected, turned into its loss and its gradients, and forgotten: logits never exist for all
    tokens, and nothing is computed twice. Products are made in `dtype` (that of the hidden states when None), sums
    over the vocabulary and over chunks in float32.
    """
    graded = torch.is_grad_enabled()
    needs = tuple(graded and x is not None and x.requires_grad for x in (hidden_TH, weight_VH, bias_V))
    how = transform or LogitTransform(), dtype or hidden_TH.dtype, needs
    loss: tuple[Tensor, Tensor] = _WeightedNll.apply(  # type: ignore[no-untyped-call]
        hidden_TH, weight_VH, bias_V, target_T, coefficient_T, *how
    )
    return Loss(*loss)


class _WeightedNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, target_T: Tensor, coefficient_T: Tensor,
        transform: LogitTransform, dtype: torch.dtype, needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        hidden, weight = hidden_TH.to(dtype), weight_VH.to(dtype)
        device = hidden.device.type
        gradients = _Gradients(hidden, weight, bias_V, needs)
        nll_T = torch.empty(len(target_T), dtype=torch.float32, device=hidden.device)
        size = max(1, min(CHUNK_TOKENS[device], CHUNK_BYTES[device] // (4 * len(weight))))
        with torch.autocast(device, enabled=False):
            for start in range(0, len(target_T), size):
                here = slice(start, start + size)
                logits = torch.mm(hidden[here], weight.t()).float()
                if bias_V is not None:
                    logits += bias_V
                slope = _apply(transform, logits)
                normalizer = torch.logsumexp(logits, dim=1, keepdim=True)
                target = target_T[here, None]
                nll_T[here] = (normalizer - logits.gather(1, target))[:, 0]
                if any(needs):
                    by_logits = logits.sub_(normalizer).exp_()
                    by_logits.scatter_add_(1, target, by_logits.new_full(target.shape, -1))
                    by_logits *= coefficient_T[here, None] * slope
                    gradients.add(here, by_logits)
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        ctx.dtypes = hidden_TH.dtype, weight_VH.dtype
        ctx.mark_non_differentiable(nll_T)
        return (nll_T * coefficient_T).sum(), nll_T

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (
            None if hidden is None else (hidden * grad_loss).to(hidden_dtype),
            # In place: at 49,152 × 576 a copy is as large as all logits of a chunk.
            None if weight is None else weight.mul_(grad_loss).to(weight_dtype),
            None if bias is None else bias * grad_loss,
            None, None, None, None, None,
        )  # fmt: skip


class _Gradients:
    """Gradients of the loss by what needs one, collected chunk by chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool]):
        self._of_hidden, self._weight = hidden, weight
        self.hidden = torch.empty_like(hidden) if needs[0] else None
        self.weight = torch.zeros_like(weight, dtype=torch.float32) if needs[1] else None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if needs[2] and bias is not None else None

    def add(self, here: slice, by_logits: Tensor) -> None:
        """What the gradient by the logits of the tokens `here`, [t, V] float32, adds."""
        if self.bias is not None:
            self.bias += by_logits.sum(dim=0)
        by_logits = by_logits.to(self._weight.dtype)
        if self.hidden is not None:
            torch.mm(by_logits, self._weight, out=self.hidden[here])
        if self.weight is None:
            return
        if self._weight.dtype == torch.float32:
            self.weight.addmm_(by_logits.t(), self._of_hidden[here])
        else:
            self.weight += torch.mm(by_logits.t(), self._of_hidden[here])


def _apply(transform: LogitTransform, logits: Tensor) -> Tensor | float:
    """Transform logits in place; returns the derivative of the result by what was there."""
    if transform.scale != 1:
        logits *= transform.scale
    if transform.softcap is None:
        return transform.scale
    logits.div_(transform.softcap).tanh_()
    slope = transform.scale * (1 - logits.square())
    logits *= transform.softcap
    return slope
