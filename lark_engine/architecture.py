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
