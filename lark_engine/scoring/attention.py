"""Attention over packed trajectories that share their prompts: each token sees its prompt and its own past, no more.

One row of tokens holds everything of a forward pass end to end: a prompt once, then the responses to it, then the next
prompt. Nothing is padded and no mask over all pairs is made. Models of transformers take this in place of their own
attention (`AttentionInterface`); norms, projections and positions stay theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from lark_engine.attention import causal, refuse_more_than_causal, repeat_heads, varlen

NAME = "lark_shared_prompt"


@dataclass
class PromptCache:
    """Keys and values of one prompt in every layer, [1, H_kv, P, D] each, for passes that hold only its responses."""

    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """One prompt and the responses to it in a packed row, as ends of token ranges.

    The prompt is [start, prompt_end), the responses follow one another up to each of `ends`; a trajectory that shares
    its prompt with no other is all prompt. With a `cache`, a pass without responses fills it, and a pass with responses
    takes the prompt from it (`start == prompt_end` then).
    """

    start: int
    prompt_end: int
    ends: tuple[int, ...]
    cache: PromptCache | None = None

    @property
    def branches(self) -> list[tuple[int, int]]:
        """Token range of each response."""
        return list(pairwise((self.prompt_end, *self.ends)))


def shared_prompt_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, sliding_window: int | None = None, *, trees: tuple[Tree, ...],
    windows: dict[int, int | None] | None = None, **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of one layer. `query` [1, H, S, D], `key` [1, H_kv, S, D], `value` [1, H_kv, S, E] → [1, S, H, E].

    `trees` cover the row of S tokens. `windows` is told the sliding window of every layer. Called by the model's
    layers through transformers' attention interface. Errors: `NotImplementedError` when a layer asks for more than
    causal attention.
    """
    refuse_more_than_causal(attention_mask, more)
    if windows is not None:
        windows[module.layer_idx] = sliding_window
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _varlen(module, query, key, value, scaling, sliding_window, trees), None
    groups = query.shape[1] // key.shape[1]
    output = query.new_empty((*query.shape[:-1], value.shape[-1]))
    for tree in trees:
        prompt_key, prompt_value = (repeat_heads(heads, groups) for heads in _prompt(module, key, value, tree))
        if tree.prompt_end > tree.start:
            prompt = slice(tree.start, tree.prompt_end)
            output[:, :, prompt] = causal(query[:, :, prompt], prompt_key, prompt_value, scaling, sliding_window)
        if tree.ends:
            here = slice(tree.prompt_end, tree.ends[-1])
            own_key, own_value = (repeat_heads(heads[:, :, here], groups) for heads in (key, value))
            _branches(
                output[:, :, here], query[:, :, here], own_key, own_value, prompt_key, prompt_value,
                [end - start for start, end in tree.branches], scaling, sliding_window,
            )  # fmt: skip
    return output.transpose(1, 2), None


AttentionInterface.register(NAME, shared_prompt_attention)


def _prompt(module: Any, key: Tensor, value: Tensor, tree: Tree) -> tuple[Tensor, Tensor]:
    """Keys and values of the tree's prompt: from the row, or from the cache; a pass of a prompt alone fills it."""
    own = key[:, :, tree.start : tree.prompt_end], value[:, :, tree.start : tree.prompt_end]
    if tree.cache is None:
        return own
    if not tree.ends:
        tree.cache.layers[module.layer_idx] = (own[0].clone(), own[1].clone())
        return own
    return tree.cache.layers[module.layer_idx]


def _branches(
    output: Tensor, query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor,
    lengths: list[int], scaling: float | None, window: int | None,
) -> None:  # fmt: skip
    """Attention of the responses to one prompt, [1, H, Σ lengths, D], into `output`."""
    responses = zip(*(torch.split(x, lengths, dim=2) for x in (output, query, key, value)), strict=True)
    windowed = window is not None and prompt_key.shape[2] + max(lengths) > window
    if query.device.type != "cpu" or windowed or query.shape[3] != value.shape[3]:
        for out, q, k, v in responses:
            all_key, all_value = torch.cat([prompt_key, k], dim=2), torch.cat([prompt_value, v], dim=2)
            out.copy_(causal(q, all_key, all_value, scaling, window))
        return
    # The CPU has no kernel for "all of the prompt, then causal" without a mask. All responses look at the prompt at
    # once, each at its own past, and the two are merged by their normalizers:
    # softmax over both = (e^a·A + e^b·B) / (e^a + e^b), with partial outputs A, B and their logsumexps a, b.
    to_prompt, norm_of_prompt = _flash_on_cpu(query, prompt_key, prompt_value, False, scaling)
    seen = zip(*(torch.split(x, lengths, dim=2) for x in (to_prompt, norm_of_prompt)), strict=True)
    for (out, q, k, v), (prompt_part, norm_of_part) in zip(responses, seen, strict=True):
        own, norm_of_own = _flash_on_cpu(q, k, v, True, scaling)
        share_of_own = torch.sigmoid(norm_of_own - norm_of_part)[..., None].to(own.dtype)
        torch.lerp(prompt_part, own, share_of_own, out=out)


def _flash_on_cpu(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """Output and logsumexp; `F.scaled_dot_product_attention` runs the same kernel and drops the logsumexp."""
    output, log_norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=None, scale=scaling
    )
    return output, log_norm


def _varlen(
    module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None,
    trees: tuple[Tree, ...],
) -> Tensor:  # fmt: skip
    """One kernel for all trees on CUDA: a response's keys are its prompt's and its own, aligned at the end."""
    query_lengths: list[int] = []
    keys: list[Tensor] = []
    values: list[Tensor] = []
    key_lengths: list[int] = []
    for tree in trees:
        prompt_key, prompt_value = _prompt(module, key, value, tree)
        if tree.prompt_end > tree.start:
            query_lengths.append(tree.prompt_end - tree.start)
            keys.append(prompt_key)
            values.append(prompt_value)
            key_lengths.append(prompt_key.shape[2])
        for start, end in tree.branches:
            query_lengths.append(end - start)
            keys += [prompt_key, key[:, :, start:end]]
            values += [prompt_value, value[:, :, start:end]]
            key_lengths.append(prompt_key.shape[2] + end - start)
    packed_key, packed_value = (torch.cat(parts, dim=2) for parts in (keys, values))
    return varlen(query, packed_key, packed_value, tuple(query_lengths), tuple(key_lengths), scaling, window)
