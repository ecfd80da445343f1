"""Token statistics from logits (METHOD.md 1): the mathematics of scoring, without a model or a file.

Shape suffixes: T response tokens, V vocabulary. Logits are taken to float32 here, whatever the student runs in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RANK_CLIP = 100


class TokenStats(NamedTuple):
    """One value for each response token, float32 [T] (`rank`: counts in 1..100 as float32)."""

    nll: Tensor
    brier: Tensor
    brier_top_k: Tensor
    entropy: Tensor
    rank: Tensor
    p_true: Tensor


def token_stats(logits_TV: Tensor, target_T: Tensor, top_k: int) -> TokenStats:
    """Statistics of the true tokens `target_T` (int64) under the student's distribution π = softmax(`logits_TV`).

    nll = logsumexp(z) − z_y, nats. brier = 1 − 2π(y) + Σπ² over the whole vocabulary, in [0, 2]. brier_top_k is the
    same over a softmax of the `top_k` largest logits alone, with π(y) = 0 when y is not among them (as released).
    rank = 1 + #{v: z_v > z_y}, clipped at 100 (RSR, arXiv 2601.14249).
    """
    logits_TV = logits_TV.float()
    true_T1 = logits_TV.gather(1, target_T[:, None])
    log_norm_T1 = logits_TV.logsumexp(dim=1, keepdim=True)
    prob_TV = (logits_TV - log_norm_T1).exp_()
    p_true_T = prob_TV.gather(1, target_T[:, None])[:, 0]
    sum_squares_T = torch.linalg.vector_norm(prob_TV, dim=1).square()
    entropy_T = log_norm_T1[:, 0] - torch.einsum("tv,tv->t", prob_TV, logits_TV)
    top = logits_TV.topk(min(top_k, logits_TV.shape[1]), dim=1)
    top_prob_TK = top.values.softmax(dim=1)
    top_true_T = (top_prob_TK * (top.indices == target_T[:, None])).sum(dim=1)
    return TokenStats(
        nll=(log_norm_T1 - true_T1)[:, 0],
        brier=1 - 2 * p_true_T + sum_squares_T,
        brier_top_k=1 - 2 * top_true_T + top_prob_TK.square().sum(dim=1),
        entropy=entropy_T,
        rank=(1 + (logits_TV > true_T1).sum(dim=1)).clamp_(max=RANK_CLIP).float(),
        p_true=p_true_T,
    )


def trajectory_stats(stats: TokenStats) -> dict[str, float]:
    """Means over the response tokens of one trajectory, summed in float64; `rsr` = Σ rank / Σ nll (lower is better)."""
    assert len(stats.nll) > 0, "a trajectory without response tokens is dropped before it is scored"
    means = {name: float(values.double().mean()) for name, values in stats._asdict().items()}
    return {
        "nll": means["nll"],
        "brier_exact": means["brier"],
        "brier_top_k": means["brier_top_k"],
        "entropy": means["entropy"],
        "mean_rank": means["rank"],
        "rsr": means["rank"] / means["nll"] if means["nll"] > 0 else float("nan"),
    }
