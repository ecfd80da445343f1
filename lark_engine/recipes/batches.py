"""The global batch of a training recipe, where it says accumulation steps instead, as the released files do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lark_engine.errors import ConfigError

log = logging.getLogger(__name__)


_NUMBERS = ("grad_accum", "nproc_per_node", "nnodes", "batch_size", "global_batch")


def problem_with_batch(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key of which no global batch can be made, and what is wrong, where accumulation steps are given."""
    if values.get("grad_accum") is None:
        return None
    for name in _NUMBERS:
        value = values.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and value // 1 == value):
            return name, f"give a positive whole number, not {'nothing' if value is None else repr(value)}"
    return None


def with_global_batch(
    merged: dict[str, Any], given: dict[str, Any] | None = None, grad_accum: int | None = None
) -> dict[str, Any]:
    """The values with a global batch, where only accumulation steps are given, as the released commands do.

    Accumulation written for 8 devices is an eighth of the batch on one: a file that says both is held to its global
    batch, and the number of devices that it was written for is said.
    Errors: `ConfigError` for accumulation steps that make no batch.
    """
    values = dict(merged)
    if grad_accum is not None:
        values["grad_accum"] = grad_accum
    if (problem := problem_with_batch(values)) is not None:
        raise ConfigError(f"{values.get('recipe', 'the recipe')}: '{problem[0]}': {problem[1]}")
    in_file = values.pop("grad_accum", None)
    if in_file is None:
        return values
    micro = values.get("nproc_per_node", 1) * values.get("nnodes", 1) * values.get("batch_size", 1)
    if grad_accum is not None:
        if "global_batch" in (given or {}):
            raise ConfigError("--grad-accum and --global-batch say the same thing; give one of them")
        values["global_batch"] = grad_accum * micro
        log.warning(
            "global batch %d = %d accumulation steps × %d trajectories at once; on another number of devices this is "
            "another batch: --global-batch states it for good", values["global_batch"], grad_accum, micro,
        )  # fmt: skip
    elif "global_batch" not in values:
        values["global_batch"] = in_file * micro
        log.warning(
            "the recipe gives %d accumulation steps and no global_batch: on these devices that is a batch of %d; on 8 "
            "devices it was %d. State global_batch", in_file, values["global_batch"],
            in_file * 8 * values.get("batch_size", 1),
        )  # fmt: skip
    elif in_file * micro != values["global_batch"]:
        log.warning(
            "global batch %d is kept; the recipe's %d accumulation steps are for %g devices, and here they follow from "
            "the %d there are", values["global_batch"], in_file,
            values["global_batch"] / in_file / values.get("batch_size", 1), micro // values.get("batch_size", 1),
        )  # fmt: skip
    return values
