"""Packing: which trajectories share a forward pass. Pure arithmetic on lengths; no tokens, no model.

The trajectories of an optimizer step are laid out before training and stay together: packing decides only in how many
forward passes, and on which device, a step is computed. So it cannot change what is learned.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lark_engine.errors import ConfigError

Bin = tuple[int, ...]
# How finely the smallest sufficient capacity of a step's bins is searched, as a share of max_length.
_CAPACITY_STEP = 1 / 256


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The forward passes of a whole run.

    `bins`: numbers of the trajectories in each, in the order [step, accumulation step, device]; a bin may be empty.
    `longest`: most tokens in one of them. `step_tokens`: real tokens of every optimizer step. `computed`: tokens that
    go through the model, padding included. `occupied`: what all devices together have time for, since in every
    accumulation step each waits for the one with the most tokens.
    """

    bins: list[Bin]
    num_steps: int
    grad_accum: int
    longest: int
    step_tokens: list[int]
    computed: int
    occupied: int

    @property
    def tokens(self) -> int:
        """Real tokens of the run."""
        return sum(self.step_tokens)

    @property
    def efficiency(self) -> float:
        """Real tokens as a share of what the devices have time for."""
        return self.tokens / self.occupied

    @property
    def computed_per_token(self) -> float:
        """Tokens computed ÷ useful tokens: 1 when nothing is padded."""
        return self.computed / self.tokens


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Places 0 … len − 1 in bins of at most `capacity` tokens: the longest first, each where it leaves least room.

    A trajectory that is longer than `capacity` has a bin of its own. O(n log n) comparisons.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), ascending
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        found = bisect_left(room, (lengths[place], -1))
        if found == len(room):
            bins.append([place])
            insort(room, (max(capacity - lengths[place], 0), len(bins) - 1))
            continue
        left, number = room.pop(found)
        bins[number].append(place)
        insort(room, (left - lengths[place], number))
    return bins


def pack_steps(steps: Sequence[Bin], lengths: Sequence[int], capacity: int, num_devices: int) -> Layout:
    """Pack every step into bins of at most `capacity` tokens, as many for each device and each step.

    The fullest step decides how many bins that is. The others are packed into as many, of the smallest capacity that
    does, so that the devices of a step finish together.
    """
    counts = [len(best_fit_decreasing([lengths[i] for i in step], capacity)) for step in steps]
    grad_accum = max(1, math.ceil(max(counts) / num_devices))
    bins: list[Bin] = []
    for step in steps:
        packed = _pack_into(step, lengths, capacity, grad_accum * num_devices)
        # The fullest together: in every accumulation step the devices have about as much to do.
        bins += sorted(packed, key=lambda b: -_tokens(b, lengths))
    return _layout(bins, lengths, len(steps), grad_accum, num_devices, padded=False)


def cut_steps(steps: Sequence[Bin], lengths: Sequence[int], batch_size: int, num_devices: int, width: int) -> Layout:
    """Without packing: `batch_size` trajectories a forward pass, in their order, padded to the longest of the pass.

    `width`: trajectories in a full step. Errors: `ConfigError` when that is no multiple of what one pass of all
    devices holds.
    """
    if width % (batch_size * num_devices):
        raise ConfigError(
            f"global_batch {width} is no multiple of batch_size {batch_size} × {num_devices} processes; choose a "
            "multiple, or leave packing on"
        )
    grad_accum = width // (batch_size * num_devices)
    starts = range(0, width, batch_size)
    bins = [step[start : start + batch_size] for step in steps for start in starts]
    return _layout(bins, lengths, len(steps), grad_accum, num_devices, padded=True)


def _pack_into(step: Bin, lengths: Sequence[int], capacity: int, num_bins: int) -> list[Bin]:
    """A step in exactly `num_bins` bins (some may be empty) of the smallest capacity that is enough."""
    own = [lengths[i] for i in step]
    least = max(math.ceil(sum(own) / num_bins), max(own, default=1))
    # The last of them is known to be enough: the number of bins was chosen for it.
    capacities = [*range(least, capacity, max(1, round(capacity * _CAPACITY_STEP))), capacity]
    packed = next(found for c in capacities if len(found := best_fit_decreasing(own, c)) <= num_bins)
    bins: list[Bin] = [tuple(sorted(step[i] for i in places)) for places in packed]
    return bins + [()] * (num_bins - len(bins))


def _layout(
    bins: list[Bin], lengths: Sequence[int], num_steps: int, grad_accum: int, num_devices: int, *, padded: bool
) -> Layout:
    tokens = [_tokens(b, lengths) for b in bins]
    sizes = [len(b) * max((lengths[i] for i in b), default=0) for b in bins] if padded else tokens
    return Layout(
        bins=bins, num_steps=num_steps, grad_accum=grad_accum, longest=max(sizes),
        step_tokens=[sum(step) for step in batched(tokens, grad_accum * num_devices)],
        computed=sum(sizes), occupied=sum(max(together) * num_devices for together in batched(sizes, num_devices)),
    )  # fmt: skip


def batched(values: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive groups of `size` values."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _tokens(numbers: Bin, lengths: Sequence[int]) -> int:
    return sum(lengths[i] for i in numbers)
