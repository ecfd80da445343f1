"""Shared-prompt attention as mathematics: the packed kernels of CPU and CUDA against one softmax a trajectory."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lark_engine.scoring import attention
from lark_engine.scoring.attention import PromptCache, Tree, shared_prompt_attention

# Two prompts (5 and 3 tokens) with responses (4, 1, 7 and 2, 2 tokens), then a trajectory of 6 tokens on its own.
TREES = (Tree(0, 5, (9, 10, 17)), Tree(17, 20, (22, 24)), Tree(24, 30, ()))
HEADS, KEY_HEADS, DIM = 4, 2, 8
LAYER = SimpleNamespace(layer_idx=0)


def draw(num_tokens: int, device: str = "cpu", dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    return [
        torch.randn(1, h, num_tokens, DIM, generator=generator, dtype=torch.float64).to(device, dtype) for h in heads
    ]


def expected(query: Tensor, key: Tensor, value: Tensor, trees: tuple[Tree, ...], window: int | None) -> Tensor:
    """Each trajectory on its own, with a dense mask, in float64; [1, S, H, D]."""
    query, key, value = (x.double().cpu() for x in (query, key, value))
    output = torch.zeros_like(query)
    for tree in trees:
        prompt = torch.arange(tree.start, tree.prompt_end)
        for branch in [torch.arange(*branch) for branch in tree.branches] or [torch.arange(0)]:
            places = torch.cat([prompt, branch])
            q, k, v = (x[:, :, places] for x in (query, key, value))
            k, v = (x.repeat_interleave(HEADS // KEY_HEADS, dim=1) for x in (k, v))
            distance = torch.arange(len(places))[:, None] - torch.arange(len(places))
            seen = (distance >= 0) & (distance < (window or len(places)))
            scores = (q @ k.transpose(2, 3) / DIM**0.5).masked_fill(~seen, float("-inf"))
            output[:, :, places] = scores.softmax(dim=-1) @ v
    return output.transpose(1, 2)


def reference_kernel(
    query: Tensor, key: Tensor, value: Tensor, query_ends: Tensor, key_ends: Tensor, max_query: int, max_key: int,
    *, scale: float | None, window_size: tuple[int, int], enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """What torch documents of `varlen_attn`, sequence after sequence: causal, aligned at the end, a left window."""
    assert query_ends.dtype == key_ends.dtype == torch.int32
    assert (max_query, max_key) == (int(query_ends.diff().max()), int(key_ends.diff().max()))
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert window_size[1] == 0
    parts = []
    for (q0, q1), (k0, k1) in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        q = query[q0:q1].transpose(0, 1)
        k, v = (x[k0:k1].transpose(0, 1).repeat_interleave(HEADS // KEY_HEADS, dim=0) for x in (key, value))
        distance = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0) - torch.arange(k1 - k0)
        seen = (distance >= 0) & (distance <= (window_size[0] if window_size[0] >= 0 else k1))
        scores = (q @ k.transpose(1, 2) * (scale or DIM**-0.5)).masked_fill(~seen, float("-inf"))
        parts.append((scores.softmax(dim=-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("window", [None, 4])
def test_each_token_sees_its_prompt_and_its_own_past(window: int | None) -> None:
    rows = draw(30, dtype=torch.float32)
    output, _ = shared_prompt_attention(LAYER, *rows, None, sliding_window=window, trees=TREES)
    assert torch.allclose(output.double(), expected(*rows, TREES, window), atol=1e-6)


@pytest.mark.parametrize("window", [None, 4])
def test_the_packing_for_cuda_gives_every_response_its_prompt(
    monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    """The kernel runs on CUDA only; what it is given is checked with one written from its documentation."""
    monkeypatch.setattr("lark_engine.attention.varlen_attn", reference_kernel)
    rows = draw(30)
    output = attention._varlen(LAYER, *rows, None, window, TREES)
    assert torch.allclose(output, expected(*rows, TREES, window), atol=1e-12)


@pytest.mark.parametrize("packed", [False, True])
def test_a_prompt_from_the_cache_is_as_good_as_one_in_the_row(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    monkeypatch.setattr("lark_engine.attention.varlen_attn", reference_kernel)
    rows, cache = draw(17, dtype=torch.float64 if packed else torch.float32), PromptCache()

    def run(trees: tuple[Tree, ...], part: slice) -> Tensor:
        query, key, value = (x[:, :, part] for x in rows)
        if packed:
            return attention._varlen(LAYER, query, key, value, None, None, trees)
        return shared_prompt_attention(LAYER, query, key, value, None, trees=trees)[0]

    prompt = run((Tree(0, 5, (), cache),), slice(0, 5))
    responses = run((Tree(0, 0, (4, 5, 12), cache),), slice(5, 17))
    together = expected(*rows, TREES[:1], None)
    assert torch.allclose(torch.cat([prompt, responses], dim=1).double(), together, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel needs a CUDA device")
@pytest.mark.parametrize("window", [None, 4])
def test_cuda_agrees(window: int | None) -> None:
    rows = draw(30, "cuda", torch.bfloat16)
    output, _ = shared_prompt_attention(LAYER, *rows, None, sliding_window=window, trees=TREES)
    assert torch.allclose(output.double().cpu(), expected(*rows, TREES, window), atol=3e-2)


@pytest.mark.parametrize("more", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}, {"indices": torch.zeros(1)}])
def test_an_attention_that_is_more_than_causal_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError, match="its attention takes"):
        shared_prompt_attention(LAYER, *draw(30), None, trees=TREES, **more)
    with pytest.raises(NotImplementedError, match="makes its own attention mask"):
        shared_prompt_attention(LAYER, *draw(30), torch.zeros(1), trees=TREES)
