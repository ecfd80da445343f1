"""The weighted objective (METHOD.md 6). Pure functions on numbers and tensors.

    minimise (1/N) Σ_i w_i · CE_i,      CE_i = mean over the response tokens of sequence i (unit = "trajectory")

w = selection_prob rescaled by one constant for the whole training set, so that its mean is 1. It is never divided by
the weight sum of a micro-batch: with one sequence per micro-batch that cancels the weights (the released trainers do).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


def weighted_loss(logits_BTV: Tensor, ids_BT: Tensor, coefficient_BT: Tensor, num_sequences: Tensor) -> Tensor:
    """Σ coefficient·nll / (sequences in the global batch), float32 scalar.

    `coefficient_BT` is 0 on prompt and padding; position t weighs the prediction of `ids_BT[:, t]` from t − 1.
    `num_sequences` counts the real sequences of the whole optimizer step: all ranks, all accumulation steps.
    """
    coefficient = coefficient_BT[:, 1:]
    scored = coefficient != 0
    nll = F.cross_entropy(logits_BTV[:, :-1][scored].float(), ids_BT[:, 1:][scored], reduction="none")
    return (nll * coefficient[scored]).sum() / num_sequences
