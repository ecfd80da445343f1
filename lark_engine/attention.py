"""Causal attention of token ranges in a packed row, as scoring and training run it: the kernels that are there."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.varlen import varlen_attn

# Sliding-window layers mask this many queries at a time, so that no mask grows with the square of a trajectory.
_WINDOW_QUERIES = 1024
# What layers of transformers hand to their attention that changes its result: soft caps, sinks, biases, sparse keys.
_MORE_THAN_CAUSAL = ("softcap", "s_aux", "position_bias", "indices", "block_indices")


def refuse_more_than_causal(attention_mask: Tensor | None, more: dict[str, Any]) -> None:
    """Errors: `NotImplementedError` when a layer asks for what the kernels here do not do. `more`: its other words."""
    if attention_mask is not None:  # transformers makes none for an attention that it does not know
        raise NotImplementedError("the model makes its own attention mask")
    if unknown := [name for name in _MORE_THAN_CAUSAL if more.get(name) is not None]:
        raise NotImplementedError(f"its attention takes {', '.join(unknown)}")


def causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """`query` [1, H, Q, D] are the last of the keys' tokens; each sees at most `window` keys, the last its own.

    `key` and `value` [1, H, K, D], with as many heads; → [1, H, Q, D].
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    if window is not None and num_keys > window:
        return _windowed(query, key, value, scaling, window)
    if num_queries == num_keys:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    bias: Any = causal_lower_right(num_queries, num_keys)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling)


def _windowed(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int) -> Tensor:
    num_queries, num_keys = query.shape[2], key.shape[2]
    outputs = []
    for start in range(0, num_queries, _WINDOW_QUERIES):
        end = min(start + _WINDOW_QUERIES, num_queries)
        last = torch.arange(start, end, device=query.device) + (num_keys - num_queries)
        first_key = max(0, int(last[0]) - window + 1)
        seen = torch.arange(first_key, int(last[-1]) + 1, device=query.device)
        mask = (seen[None, :] <= last[:, None]) & (seen[None, :] > last[:, None] - window)
        keys = slice(first_key, int(last[-1]) + 1)
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, start:end], key[:, :, keys], value[:, :, keys], attn_mask=mask, scale=scaling
            )
        )
    return torch.cat(outputs, dim=2)


def varlen(
    query: Tensor, key: Tensor, value: Tensor, query_lengths: tuple[int, ...], key_lengths: tuple[int, ...],
    scaling: float | None, window: int | None,
) -> Tensor:  # fmt: skip
    """One kernel for all ranges on CUDA. `query` [1, H, Σ query_lengths, D], `key` [1, H_kv, Σ key_lengths, D],
    `value` as `key` → [1, Σ query_lengths, H, D]. Each range's queries are the last of its keys' tokens.
    """
    output = varlen_attn(
        query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1),
        _offsets(query_lengths, query.device), _offsets(key_lengths, query.device), max(query_lengths),
        max(key_lengths), scale=scaling, window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(output, Tensor)
    return output[None]


@lru_cache(maxsize=2)
def _offsets(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Cumulative lengths; the same for all layers of a pass, so they are sent to the device once."""
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)


def repeat_heads(heads: Tensor, groups: int) -> Tensor:
    """[1, H_kv, S, D] → [1, H, S, D]: every key head for the query heads of its group."""
    return heads if groups == 1 else heads.repeat_interleave(groups, dim=1)
