"""Attention over packed trajectories: each sees its own past and nothing of its neighbors in the row.

Models of transformers take this in place of their own attention (`AttentionInterface`); norms, projections and
positions stay theirs. No mask over all pairs of tokens is made, on no device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from lark_engine.attention import causal, refuse_more_than_causal, repeat_heads, varlen

NAME = "lark_packed"


def packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, sliding_window: int | None = None, *, lengths: tuple[int, ...] | None = None,
    windows: dict[int, int | None] | None = None, dropout: float = 0.0, **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of one layer. `query` [1, H, S, D], `key` [1, H_kv, S, D], `value` [1, H_kv, S, E] → [1, S, H, E].

    `lengths` of the trajectories that make up the row of S tokens; None: it is one. `windows` is told the sliding
    window of every layer. Called by the model's layers through transformers' attention interface. Errors:
    `NotImplementedError` when a layer asks for more than causal attention.
    """
    refuse_more_than_causal(attention_mask, more)
    if dropout:
        raise NotImplementedError("its attention has dropout")
    if windows is not None:
        windows[module.layer_idx] = sliding_window
    # As transformers does for its flash attention: norms of some models leave float32 where autocast computes less.
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    ends = lengths or (query.shape[2],)
    if takes_all_at_once(query.device, query.dtype):
        return varlen(query, key, value, ends, ends, scaling, sliding_window), None
    groups = query.shape[1] // key.shape[1]
    rows = zip(*(torch.split(x, list(ends), dim=2) for x in (query, key, value)), strict=True)
    outputs = [
        causal(q, repeat_heads(k, groups), repeat_heads(v, groups), scaling, sliding_window).transpose(1, 2)
        for q, k, v in rows
    ]
    return torch.cat(outputs, dim=1), None


def takes_all_at_once(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether one kernel takes all trajectories of a row: flash attention's variable-length path, from Ampere on."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


AttentionInterface.register(NAME, packed_attention)
