"""What a model's config says of how it computes, as far as scoring and training take part in it.

Both pack trajectories end to end in one row and make the logits themselves, a few tokens at a time. Nothing here
imports torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Kinds of attention layers that packing is right for, and position encodings that look at the longest trajectory of a
# pass, which would make a trajectory's numbers depend on its neighbors.
_PACKABLE_LAYERS = {"full_attention", "sliding_attention"}
_ROPE_OF_THE_LONGEST = {"dynamic", "longrope"}


# Projections of attention and feed-forward that a LoRA adapter goes on, for architectures that do not name them as
# Llama does. Experts of a mixture are fused parameters, which adapters do not go on.
_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_NEOX = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
_EXPERTS = ("q_proj", "k_proj", "v_proj", "o_proj")
_LORA_TARGETS = {
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "glm": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    "glm4": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    "starcoder2": ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "gptj": ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": _NEOX, "falcon": _NEOX, "bloom": _NEOX,
    "mixtral": _EXPERTS, "qwen2_moe": _EXPERTS, "qwen3_moe": _EXPERTS, "olmoe": _EXPERTS, "gpt_oss": _EXPERTS,
}  # fmt: skip


def lora_targets(model_type: str) -> tuple[str, ...]:
    """Modules that get an adapter, by the `model_type` of a config; Llama's names for an unknown one."""
    return _LORA_TARGETS.get(model_type, _LLAMA)


class LogitTransform(NamedTuple):
    """What an architecture does to the output projection z: `scale`·z, then `softcap`·tanh(z / `softcap`)."""

    scale: float = 1.0
    softcap: float | None = None


def logit_transform(config: Any) -> LogitTransform:
    """The transform that the config of a causal language model asks for."""
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    return LogitTransform(scale, getattr(config, "final_logit_softcapping", None) or None)


def why_not_packed(config: Any) -> str | None:
    """What in a model's config rules packing out, None if nothing does."""
    text = config.get_text_config()
    if unknown := set(getattr(text, "layer_types", None) or ()) - _PACKABLE_LAYERS:
        return f"has layers of kind {', '.join(sorted(map(str, unknown)))}"
    rope = str(getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or "")
    if found := [kind for kind in _ROPE_OF_THE_LONGEST if f"'{kind}'" in rope]:
        return f"has positions of kind {found[0]}"
    return None


def windows(config: Any) -> dict[int, int | None]:
    """The sliding window of every layer as the config says it, None for a layer that sees everything."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None) or None
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"] * text.num_hidden_layers
    return {layer: window if kind == "sliding_attention" else None for layer, kind in enumerate(kinds)}
