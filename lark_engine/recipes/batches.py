"""The global batch of a training recipe, where it says accumulation steps instead, as the released files do."""

from __future__ import annotations

import logging
from typing import Any

from lark_engine.errors import ConfigError

log = logging.getLogger(__name__)


def with_global_batch(
    merged: dict[str, Any], given: dict[str, Any] | None = None, grad_accum: int | None = None
) -> dict[str, Any]:
    """The values with a global batch, where only accumulation steps are given, as the released commands do.

    Accumulation written for 8 devices is an eighth of the batch on one: a file that says both is held to its global
    batch, and the number of devices that it was written for is said.
    """
    values = dict(merged)
    in_file = values.pop("grad_accum", None)
    micro = values.get("nproc_per_node", 1) * values.get("nnodes", 1) * values.get("batch_size", 1)
    if grad_accum is not None:
        if "global_batch" in (given or {}):
            raise ConfigError("--grad-accum and --global-batch say the same thing; give one of them")
        values["global_batch"] = grad_accum * micro
        log.warning(
            "global batch %d = %d accumulation steps × %d trajectories at once; on another number of devices this is "
            "another batch: --global-batch states it for good", values["global_batch"], grad_accum, micro,
        )  # fmt: skip
    elif in_file is not None and "global_batch" not in values:
        values["global_batch"] = in_file * micro
        log.warning(
            "the recipe gives %d accumulation steps and no global_batch: on these devices that is a batch of %d; on 8 "
            "devices it was %d. State global_batch", in_file, values["global_batch"],
            in_file * 8 * values.get("batch_size", 1),
        )  # fmt: skip
    elif in_file is not None and in_file * micro != values["global_batch"]:
        log.warning(
            "global batch %d is kept; the recipe's %d accumulation steps are for %g devices, and here they follow from "
            "the %d there are", values["global_batch"], in_file,
            values["global_batch"] / in_file / values.get("batch_size", 1), micro // values.get("batch_size", 1),
        )  # fmt: skip
    return values
