"""Packing as arithmetic: every trajectory once, nothing too long, little left empty."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lark_engine.errors import ConfigError
from lark_engine.store.workspace import Artifact
from lark_engine.training.packing import best_fit_decreasing, cut_steps, pack_steps

DATA = Path(__file__).parents[3] / "shared" / "data"
LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=60)


def test_best_fit_decreasing_by_hand() -> None:
    assert best_fit_decreasing([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]
    assert best_fit_decreasing([], 10) == []
    assert best_fit_decreasing([12, 3], 10) == [[0], [1]]  # too long: a bin of its own


@given(LENGTHS, st.integers(1, 120))
def test_every_trajectory_is_in_one_bin_that_is_not_too_full(lengths: list[int], capacity: int) -> None:
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    assert all(len(b) == 1 or sum(lengths[i] for i in b) <= capacity for b in bins)
    # Any two bins together hold more than one bin can.
    sizes = [sum(lengths[i] for i in b) for b in bins]
    assert all(a + b > capacity for n, a in enumerate(sizes) for b in sizes[:n])


@given(LENGTHS, st.integers(20, 300), st.integers(1, 4), st.integers(1, 20))
def test_a_layout_keeps_steps_together_and_gives_each_as_many_bins(
    lengths: list[int], capacity: int, num_devices: int, width: int
) -> None:
    steps = [tuple(range(s, min(s + width, len(lengths)))) for s in range(0, len(lengths), width)]
    layout = pack_steps(steps, lengths, capacity, num_devices)
    per_step = layout.grad_accum * num_devices
    assert len(layout.bins) == per_step * len(steps)
    for number, step in enumerate(steps):
        bins = layout.bins[number * per_step : (number + 1) * per_step]
        assert sorted(i for b in bins for i in b) == list(step)
        assert all(len(b) <= 1 or sum(lengths[i] for i in b) <= capacity for b in bins)
    assert layout.step_tokens == [sum(lengths[i] for i in step) for step in steps]
    assert layout.computed == layout.tokens == sum(lengths)
    assert layout.longest == max(sum(lengths[i] for i in b) for b in layout.bins)


def test_padding_is_counted_where_it_is_computed() -> None:
    layout = cut_steps([(0, 1, 2, 3), (4,)], [10, 30, 5, 5, 20], batch_size=2, num_devices=1, width=4)
    assert layout.bins == [(0, 1), (2, 3), (4,), ()]
    assert (layout.grad_accum, layout.tokens, layout.computed, layout.longest) == (2, 70, 60 + 10 + 20, 60)
    assert layout.computed_per_token == pytest.approx(90 / 70)


def test_devices_wait_for_the_fullest() -> None:
    layout = cut_steps([(0, 1)], [10, 30], batch_size=1, num_devices=2, width=2)
    assert layout.efficiency == pytest.approx(40 / 60)


def test_batches_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"global_batch 6 is no multiple of batch_size 4 × 1 processes"):
        cut_steps([(0,)], [1], batch_size=4, num_devices=1, width=6)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["gsm8k_pool", "alpaca_pool"])
def test_efficiency_on_real_pools(real_student: Artifact, pool: str) -> None:
    """Best-fit-decreasing into max_length over the pool, and step by step with 1, 2 and 8 devices: at least 95 %."""
    from transformers import AutoTokenizer

    file = DATA / f"{pool}.jsonl.gz"
    if not file.is_file():
        pytest.skip("../shared/data is absent")
    tokenizer = AutoTokenizer.from_pretrained(real_student.path / "model")
    with gzip.open(file, "rt") as lines:
        conversations = [json.loads(line)["messages"] for line in lines]
    rendered = tokenizer.apply_chat_template(conversations, tokenize=True, return_dict=True)["input_ids"]
    lengths = [len(ids) for ids in rendered]
    bins = best_fit_decreasing(lengths, 8192)
    assert sum(lengths) / (len(bins) * 8192) >= 0.95
    steps = [tuple(range(s, s + 64)) for s in range(0, len(lengths) - 64, 64)]
    for num_devices in (1, 2, 8):
        layout = pack_steps(steps, lengths, 8192, num_devices)
        assert layout.efficiency >= 0.95
        per_step = layout.grad_accum * num_devices
        sizes = [sum(lengths[i] for i in b) for b in layout.bins]
        # The bins of a step are about equal: no device, and no pass, is left with a rest.
        fullest = sum(per_step * max(sizes[s : s + per_step]) for s in range(0, len(sizes), per_step))
        assert sum(sizes) / fullest >= 0.95
