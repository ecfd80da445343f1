"""The student's forward pass, taught to return the weighted loss of a micro-batch instead of all its logits.

It stays one module with one forward, so that DistributedDataParallel, DeepSpeed and peft wrap it as any model.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from lark_engine.architecture import LogitTransform, logit_transform, why_not_packed, windows
from lark_engine.errors import ConfigError, StudentError, first_line
from lark_engine.training import attention
from lark_engine.training.examples import Example, micro_batch
from lark_engine.training.loss import weighted_nll

# A few trajectories to try a model on: tokens, and how many of them are the prompt.
_TRIED = ((7, 2), (12, 5), (4, 3))


def prepare(model: Any, *, packing: bool, name: str, autocast: torch.dtype | None, can_run: bool = True) -> None:
    """`teach` the model; let it attend within packed trajectories, if asked to; and try both on a few tokens.

    `autocast`: the precision that training computes in, where that is not the weights' own. `can_run`: the model has
    its weights here (under ZeRO-3 it has not, and only its config is looked at). Errors: those of `teach`;
    `ConfigError` when the architecture does not allow packing, with the option that trains it all the same;
    `StudentError` when it makes its logits in a way that we do not know.
    """
    causal_lm = _causal_lm(model)
    teach(model)
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(causal_lm.device.type, autocast, enabled=autocast is not None):
        expected = _own_nll(causal_lm) if can_run else None
        if expected is not None and not _agrees(causal_lm, _taught_nll(causal_lm, packing=False), expected):
            raise StudentError(
                f"student {name}: its logits are made in a way that training does not know "
                f"(architecture {type(causal_lm).__name__}); please report it with the model's config.json"
            )
        if packing and (reason := why_not_packed(causal_lm.config) or _pack(causal_lm, expected)):
            raise ConfigError(
                f"student {name} ({type(causal_lm).__name__}) {reason}, so its trajectories cannot be packed; use "
                "--no-packing"
            )
    model.train(was_training)


def teach(model: Any) -> None:
    """Let `model(…, coefficient=…)` return a `Loss`; without a coefficient it answers as before.

    Inputs are those of `examples.micro_batch`. The nll of the `Loss` is that of the tokens with a coefficient, in
    their order. Errors: `ConfigError` for a LoRA adapter on the output projection; `StudentError` for a head that is
    no linear layer.
    """
    causal_lm = _causal_lm(model)
    head = causal_lm.get_output_embeddings()
    if hasattr(head, "base_layer"):
        raise ConfigError("lora_targets: the output projection cannot have an adapter; leave it out")
    if not isinstance(head, nn.Linear):
        raise StudentError(f"its output projection is a {type(head).__name__}; only linear ones can be trained")
    causal_lm.forward = MethodType(_forward, causal_lm)
    head.forward = MethodType(_head_forward, head)  # type: ignore[method-assign]


def kernel(device: torch.device, dtype: torch.dtype) -> str:
    """How attention runs over packed trajectories there, in words."""
    if attention.takes_all_at_once(device, dtype):
        return "flash attention of variable lengths"
    return "attention trajectory by trajectory"


def _causal_lm(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _forward(
    self: Any, input_ids: Tensor, coefficient: Tensor | None = None, lengths: Tensor | None = None, **inputs: Any
) -> Any:
    """The forward of a taught causal language model."""
    if coefficient is None:
        return type(self).forward(self, input_ids=input_ids, **inputs)
    # peft hands on what it knows of a causal model's arguments, as None.
    given = {name: value for name, value in inputs.items() if value is not None}
    if lengths is not None:
        given["lengths"] = tuple(lengths.tolist())
    hidden_BSH = self.get_decoder()(input_ids=input_ids, use_cache=False, **given).last_hidden_state
    row, place = coefficient.nonzero(as_tuple=True)
    # Through the head's own call: ZeRO-3 has its weights there, and only there.
    return self.get_output_embeddings()(
        hidden_BSH[row, place - 1], target=input_ids[row, place], coefficient=coefficient[row, place],
        transform=logit_transform(self.config),
    )  # fmt: skip


def _head_forward(
    self: Any, hidden: Tensor, target: Tensor | None = None, coefficient: Tensor | None = None,
    transform: LogitTransform | None = None,
) -> Any:  # fmt: skip
    """The forward of a taught output projection."""
    if target is None or coefficient is None:
        return type(self).forward(self, hidden)
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return weighted_nll(hidden, self.weight, self.bias, target, coefficient, transform, dtype)


def _pack(causal_lm: Any, expected: Tensor | None) -> str | None:
    """Turn attention within packed trajectories on; returns why it is not right for this model, None if it is."""
    seen: dict[int, int | None] = {}
    try:
        causal_lm.set_attn_implementation(attention.NAME)
        if expected is None:
            return None
        packed = _taught_nll(causal_lm, packing=True, windows=seen)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:  # what kernels and architectures refuse
        return f"does not let its attention be replaced ({first_line(error)})"
    if seen != windows(causal_lm.config):
        # A few tokens cannot tell: a window that only the model's own mask knows would be lost.
        return "makes its sliding windows in a way that packing does not know"
    return None if _agrees(causal_lm, packed, expected) else "lets packed trajectories see each other"


def _examples(causal_lm: Any) -> list[Example]:
    vocabulary = causal_lm.get_output_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(0)
    return [
        Example(
            ids=torch.randint(vocabulary, (length,), generator=draw).int().numpy(), num_prompt_tokens=prompt,
            coefficient=1.0, problem_id="", candidate_id="", teacher="",
        )
        for length, prompt in _TRIED
    ]  # fmt: skip


def _own_nll(causal_lm: Any) -> Tensor:
    """nll of the response tokens by the model's own logits, [T] float32."""
    nll = []
    for example in _examples(causal_lm):
        ids = torch.tensor(example.ids, dtype=torch.long, device=causal_lm.device)
        start = example.num_prompt_tokens
        logits = causal_lm(input_ids=ids[None], use_cache=False).logits[0, start - 1 : -1].float()
        nll.append(nn.functional.cross_entropy(logits, ids[start:], reduction="none"))
    return torch.cat(nll)


def _taught_nll(causal_lm: Any, *, packing: bool, **told: Any) -> Tensor:
    """The same by our forward, packed in one row or padded. `told`: to the attention."""
    inputs = micro_batch(_examples(causal_lm), packing=packing)
    nll: Tensor = causal_lm(**{k: v.to(causal_lm.device) for k, v in inputs.items()}, **told).nll_T
    return nll


def _agrees(causal_lm: Any, nll: Tensor, expected: Tensor) -> bool:
    exact = causal_lm.dtype == torch.float32 and not torch.is_autocast_enabled(nll.device.type)
    tolerance = 1e-3 if exact else 2e-2
    return torch.allclose(nll, expected, rtol=tolerance, atol=tolerance * float(expected.max()))
