"""The loss over the vocabulary: what the plain one gives, without its logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lark_engine.architecture import LogitTransform
from lark_engine.training import loss
from lark_engine.training.loss import weighted_nll

TOKENS, WIDTH, VOCABULARY = 23, 8, 50


def draw(bias: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, WIDTH, generator=generator, requires_grad=True) for n in (TOKENS, VOCABULARY))
    return {
        "hidden_TH": hidden, "weight_VH": weight,
        "bias_V": torch.randn(VOCABULARY, generator=generator, requires_grad=True) if bias else None,
        "target_T": torch.randint(VOCABULARY, (TOKENS,), generator=generator),
        "coefficient_T": torch.rand(TOKENS, generator=generator),
    }  # fmt: skip


def plain(hidden_TH: Tensor, weight_VH: Tensor, bias_V: Any, target_T: Tensor, coefficient_T: Tensor,
          transform: LogitTransform) -> Tensor:  # fmt: skip
    logits = F.linear(hidden_TH, weight_VH, bias_V) * transform.scale
    if transform.softcap:
        logits = torch.tanh(logits / transform.softcap) * transform.softcap
    return (F.cross_entropy(logits, target_T, reduction="none") * coefficient_T).sum()


@pytest.mark.parametrize("chunk", [5, 23, 1000])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(0.5), LogitTransform(0.7, 2.0)])
def test_value_and_gradients_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, chunk: int, bias: bool, transform: LogitTransform
) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", {"cpu": chunk})
    inputs, expected = draw(bias), draw(bias)
    ours = weighted_nll(**inputs, transform=transform)
    (3 * ours.value).backward()
    reference = plain(**expected, transform=transform)
    (3 * reference).backward()
    assert ours.value.item() == pytest.approx(reference.item(), rel=1e-5)
    for name in ("hidden_TH", "weight_VH", "bias_V"):
        if inputs[name] is not None:
            assert torch.allclose(inputs[name].grad, expected[name].grad, rtol=1e-4, atol=1e-5)
    assert (ours.nll_T * inputs["coefficient_T"]).sum().item() == pytest.approx(ours.value.item(), rel=1e-5)


def test_the_loss_by_hand() -> None:
    hidden, weight = torch.tensor([[2.0]]), torch.tensor([[1.0], [0.0]])
    value = weighted_nll(hidden, weight, None, torch.tensor([1]), torch.tensor([0.5])).value
    assert value.item() == pytest.approx(0.5 * 2.126928, rel=1e-6)  # log(1 + e²)


def test_in_bfloat16_it_is_near_the_plain_one() -> None:
    inputs, expected = draw(False), draw(False)
    weighted_nll(**inputs, dtype=torch.bfloat16).value.backward()
    plain(**expected, transform=LogitTransform()).backward()
    for name in ("hidden_TH", "weight_VH"):
        found, right = inputs[name].grad, expected[name].grad
        assert found.dtype == torch.float32
        assert torch.linalg.vector_norm(found - right) <= 2e-2 * torch.linalg.vector_norm(right)


def test_what_is_frozen_gets_no_gradient_and_nothing_is_kept_for_it() -> None:
    inputs = draw(True)
    inputs["weight_VH"].requires_grad_(False)
    weighted_nll(**inputs).value.backward()
    assert inputs["weight_VH"].grad is None
    assert inputs["hidden_TH"].grad is not None
    with torch.no_grad():
        assert not weighted_nll(**inputs).value.requires_grad


def test_no_logits_are_kept_for_the_backward_pass() -> None:
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        weighted_nll(**draw(False))
    assert sum(kept) == TOKENS * WIDTH + VOCABULARY * WIDTH
