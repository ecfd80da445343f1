"""Token statistics from logits (METHOD.md 1): the mathematics of scoring, without a model or a file.

Shape suffixes: T response tokens, V vocabulary, A alternatives. Logits are taken to float32 here, whatever the student
runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

RANK_CLIP = 100


class TokenStats(NamedTuple):
    """One value for each response token, float32 [T] (`rank`: counts in 1..100 as float32).

    `top_id` [T, A] and `top_p` [T, A] are the A most probable tokens and their probabilities; A may be 0.
    """

    nll: Tensor
    brier: Tensor
    brier_top_k: Tensor
    entropy: Tensor
    rank: Tensor
    p_true: Tensor
    top_id: Tensor
    top_p: Tensor


def token_stats(logits_TV: Tensor, target_T: Tensor, top_k: int, num_alternatives: int = 0) -> TokenStats:
    """Statistics of the true tokens `target_T` (int64) under the student's distribution π = softmax(`logits_TV`).

    nll = logsumexp(z) − z_y, nats. brier = 1 − 2π(y) + Σπ² over the whole vocabulary, in [0, 2]. brier_top_k is the
    same over a softmax of the `top_k` largest logits alone, with π(y) = 0 when y is not among them (as released).
    entropy = −Σ π log π. rank = 1 + #{v: z_v > z_y}, clipped at 100 (RSR, arXiv 2601.14249).

    Memory: two temporaries of the size of `logits_TV`. Give few rows at a time where a cache is to hold them.
    """
    logits_TV = logits_TV.float()
    true_T1 = logits_TV.gather(1, target_T[:, None])
    prob_TV = logits_TV.softmax(dim=1)
    # The largest probability is 1/Σexp(z − max z): logsumexp without another pass over the exponentials.
    log_norm_T = logits_TV.amax(dim=1) - prob_TV.amax(dim=1).log()
    p_true_T = prob_TV.gather(1, target_T[:, None])[:, 0]
    sum_squares_T = torch.linalg.vector_norm(prob_TV, dim=1).square()
    top = logits_TV.topk(min(max(top_k, num_alternatives), logits_TV.shape[1]), dim=1)
    top_prob_TK = top.values[:, :top_k].softmax(dim=1)
    top_true_T = (top_prob_TK * (top.indices[:, :top_k] == target_T[:, None])).sum(dim=1)
    top_id_TA = top.indices[:, :num_alternatives]
    top_p_TA = prob_TV.gather(1, top_id_TA)
    # Counts are summed as floats (exact below 2^24, the fastest sum there is), then π is overwritten by π·z.
    greater_TV = torch.gt(logits_TV, true_T1, out=torch.empty_like(logits_TV))
    rank_T = (1 + greater_TV.sum(dim=1)).clamp_(max=RANK_CLIP)
    del greater_TV
    entropy_T = log_norm_T - prob_TV.mul_(logits_TV).sum(dim=1)
    return TokenStats(
        nll=log_norm_T - true_T1[:, 0],
        brier=1 - 2 * p_true_T + sum_squares_T,
        brier_top_k=1 - 2 * top_true_T + top_prob_TK.square().sum(dim=1),
        entropy=entropy_T,
        rank=rank_T,
        p_true=p_true_T,
        top_id=top_id_TA,
        top_p=top_p_TA,
    )


def concatenate(parts: Sequence[TokenStats]) -> TokenStats:
    """Statistics of consecutive tokens joined."""
    return TokenStats(*(torch.cat(values) for values in zip(*parts, strict=True)))
