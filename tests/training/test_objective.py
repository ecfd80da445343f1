"""The objective of METHOD.md 6: weights count, and how a step is computed does not change its gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lark_engine.chat import ChatRenderer
from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError, PoolError, StudentError, TrainingError
from lark_engine.training import objective
from lark_engine.training.examples import (
    Example,
    MicroBatches,
    build_training_set,
    lay_out,
    micro_batch,
    read_train_file,
    schedule,
)
from lark_engine.training.loss import Loss, sequence_weights, token_coefficients
from tests.training.conftest import WEIGHTS, write_train_file
from tests.training.gradients import WAYS, Gradients, difference, formula_gradient, step_gradient

Make = Callable[..., TrainConfig]


def test_weights_keep_their_ratios_and_have_mean_one() -> None:
    weights = sequence_weights(np.array([0.9, 0.1, 1.0]))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[0] / weights[1] == pytest.approx(9.0)


def test_units_share_out_by_trajectory_or_by_token() -> None:
    weight, tokens = np.array([1.0, 1.0]), np.array([10, 30])
    assert token_coefficients(weight, tokens, "trajectory").tolist() == [0.1, 1 / 30]
    assert token_coefficients(weight, tokens, "token").tolist() == [0.05, 0.05]


@pytest.mark.parametrize("unit", ["trajectory", "token"])
@pytest.mark.parametrize("way", [name for name, changes in WAYS.items() if "nproc_per_node" not in changes])
def test_the_gradient_of_a_step_is_the_formulas(
    tiny_config: Make, train_path: Path, tmp_path: Path, way: str, unit: str
) -> None:
    config = tiny_config(unit=unit, **WAYS[way])
    ours = step_gradient(config, train_path, tmp_path / "run")
    assert difference(ours, formula_gradient(config, train_path, WEIGHTS)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("way", [name for name, changes in WAYS.items() if "nproc_per_node" in changes])
def test_the_gradient_of_two_ranks_is_the_formulas(
    tiny_config: Make, train_path: Path, tmp_path: Path, way: str
) -> None:
    config = tiny_config(**WAYS[way])
    ours = step_gradient(config, train_path, tmp_path / "run")
    assert difference(ours, formula_gradient(config, train_path, WEIGHTS)) <= 1e-5


@pytest.mark.slow
def test_in_bfloat16_two_ranks_have_the_gradient_of_one(tiny_config: Make, train_path: Path, tmp_path: Path) -> None:
    """The same forward passes on one and on two: gradients of 16 bits are added up and sent in 32."""
    alone, together = (
        step_gradient(
            tiny_config(dtype="bfloat16", packing=False, nproc_per_node=n, deepspeed="zero2"),
            train_path,
            tmp_path / str(n),
        )
        for n in (1, 2)
    )
    assert difference(together, alone) <= 1e-3


def test_doubling_a_weight_doubles_its_trajectorys_share(tiny_config: Make, tmp_path: Path) -> None:
    """With one sequence in a forward pass too, where the released trainers cancel the weight."""
    config = tiny_config(packing=False, batch_size=1, global_batch=7)

    def total(name: str, weights: list[float]) -> Gradients:
        """Σ q_i ∇CE_i: the gradient free of the constant that makes the mean weight 1."""
        path = write_train_file(tmp_path / f"{name}.jsonl", weights)
        return {n: g * sum(weights) for n, g in step_gradient(config, path, tmp_path / name).items()}

    doubled = [*WEIGHTS[:3], 2 * WEIGHTS[3], *WEIGHTS[4:]]
    once, twice = total("once", WEIGHTS), total("twice", doubled)
    alone = formula_gradient(config, tmp_path / "once.jsonl", [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    share = {name: WEIGHTS[3] * gradient for name, gradient in alone.items()}
    assert difference({name: twice[name] - once[name] for name in once}, share) <= 1e-4


def test_coefficients_stay_float32_where_the_model_is_bfloat16() -> None:
    """transformers casts what it hands to DeepSpeed: weights would be off by up to 0.4 %."""
    from types import SimpleNamespace

    from lark_engine.training.trainer import WeightedTrainer

    trainer = SimpleNamespace(args=SimpleNamespace(device="cpu"), is_deepspeed_enabled=True)
    inputs = WeightedTrainer._prepare_inputs(trainer, {"coefficient": torch.tensor([1 / 3])})
    assert inputs["coefficient"].dtype == torch.float32


def test_weights_of_all_one_are_plain_trajectory_mean_fine_tuning(
    tiny_config: Make, train_path: Path, tmp_path: Path
) -> None:
    ones = write_train_file(tmp_path / "ones.jsonl", [1.0] * len(WEIGHTS))
    plain = formula_gradient(tiny_config(), ones, [1.0] * len(WEIGHTS))
    assert difference(step_gradient(tiny_config(), ones, tmp_path / "a"), plain) <= 1e-5
    uniform = step_gradient(tiny_config(weighting="uniform"), train_path, tmp_path / "b")
    assert difference(uniform, plain) <= 1e-5
    weighted = step_gradient(tiny_config(), train_path, tmp_path / "c")
    assert difference(weighted, plain) > 0.05


def drawn(*lengths: int, vocabulary: int = 320, seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Example(
            ids=torch.randint(vocabulary, (n,), generator=generator).int().numpy(), num_prompt_tokens=2,
            coefficient=1.0,
            problem_id="", candidate_id="", teacher="",
        )
        for n in lengths
    ]  # fmt: skip


def taught(model: Any, packing: bool = True) -> Any:
    objective.prepare(model.eval(), packing=packing, name="tiny", autocast=None)
    return model


def nll(model: Any, examples: list[Example]) -> torch.Tensor:
    with torch.no_grad():
        return Loss(*model(**micro_batch(examples, packing=True))).nll_T


@pytest.fixture(params=["llama", "mistral with a window of 4"])
def tiny_model(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Any:
    from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

    if request.param == "llama":
        return AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, sliding_window=4,
        )
    )  # fmt: skip


def test_attention_never_crosses_into_a_neighbor(tiny_model: Any) -> None:
    model = taught(tiny_model)
    middle, before, after = *drawn(11), drawn(7, 9), drawn(7, 9, seed=1)
    alone = nll(model, [middle])
    for first, last in (before, after):
        row = nll(model, [first, middle, last])
        assert torch.equal(row[5:14], nll(model, [before[0], middle, before[1]])[5:14])
        assert torch.allclose(row[5:14], alone, atol=1e-5)
    assert not torch.allclose(nll(model, [before[0]]), nll(model, [after[0]]), atol=1e-2)


def test_a_student_that_cannot_be_packed_is_refused_with_the_way_out() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        rope_parameters=rope,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"has positions of kind dynamic, .*cannot be packed; use --no-packing"):
        taught(LlamaForCausalLM(config))
    taught(LlamaForCausalLM(config), packing=False)


def test_a_neighbor_that_is_seen_is_noticed_before_training(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    from lark_engine.training import attention

    monkeypatch.setattr(attention, "NAME", "sdpa")  # which takes a packed row for one trajectory
    with pytest.raises(ConfigError, match=r"(sliding windows|see each other).*cannot be packed"):
        taught(AutoModelForCausalLM.from_pretrained(tiny_model_dir))


def test_logits_made_in_an_unknown_way_are_noticed_before_training(tiny_model_dir: Path) -> None:
    from transformers import LlamaForCausalLM

    class Scaled(LlamaForCausalLM):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 3
            return output

    with pytest.raises(StudentError, match="its logits are made in a way that training does not know"):
        taught(Scaled.from_pretrained(tiny_model_dir), packing=False)


def test_a_taught_model_still_answers_with_its_logits(tiny_model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.tensor(drawn(9)[0].ids, dtype=torch.long)[None]
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir)(input_ids=ids).logits
    model = taught(AutoModelForCausalLM.from_pretrained(tiny_model_dir), packing=False)
    assert torch.equal(model(input_ids=ids).logits, plain)


def test_the_schedule_shows_every_example_once_an_epoch(tiny_config: Make) -> None:
    def steps(**changes: Any) -> list[tuple[int, ...]]:
        return schedule([10] * 7, tiny_config(**{"epochs": 2, "global_batch": 4, **changes}))

    assert [len(step) for step in steps()] == [4, 3, 4, 3]
    assert sorted([*steps()[0], *steps()[1]]) == sorted([*steps()[2], *steps()[3]]) == list(range(7))
    assert steps()[:2] != steps()[2:]
    assert steps() == steps()
    assert steps() != steps(seed=1)
    assert [len(step) for step in steps(max_steps=3)] == [4, 3, 4]
    assert [len(step) for step in steps(epochs=0.5)] == [4]
    assert [len(step) for step in steps(max_tokens=99)] == [4, 3, 2]  # 10 tokens each: not more than said
    assert [len(step) for step in steps(max_tokens=70)] == [4, 3]
    assert [len(step) for step in steps(max_tokens=5)] == [1]


def test_a_device_without_a_trajectory_adds_nothing_to_the_loss(tiny_model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    for packing in (True, False):
        model = taught(AutoModelForCausalLM.from_pretrained(tiny_model_dir), packing)
        inputs = MicroBatches([], [()], packing=packing)[0]
        assert inputs.pop("numbers").tolist() == []
        loss = Loss(*model(**inputs)).value
        loss.backward()
        assert loss.item() == 0.0
        assert all(float(p.grad.abs().sum()) == 0.0 for p in model.parameters())


def training_set(config: TrainConfig, path: Path) -> Any:
    from transformers import AutoTokenizer

    renderer = ChatRenderer(AutoTokenizer.from_pretrained(config.student))
    return build_training_set(read_train_file(path), renderer, config)


def test_without_packing_the_batch_sizes_must_add_up(tiny_config: Make, train_path: Path) -> None:
    examples = training_set(tiny_config(), train_path)
    assert lay_out(examples, tiny_config(packing=False, batch_size=2)).grad_accum == 2
    with pytest.raises(ConfigError, match=r"global_batch 4 is no multiple of batch_size 3 × 1 processes"):
        lay_out(examples, tiny_config(packing=False, batch_size=3))


def test_cut_and_dropped_sequences_are_counted(tiny_config: Make, train_path: Path) -> None:
    whole = training_set(tiny_config(), train_path)
    assert (len(whole.examples), whole.num_truncated, whole.drops) == (7, 0, {})
    shortest = min(e.num_prompt_tokens for e in whole.examples)
    cut = training_set(tiny_config(max_length=shortest + 12), train_path)
    assert cut.num_truncated == 5  # responses have 3n + 9 tokens
    with pytest.raises(TrainingError, match=r"nothing is left to train on .* raise --max-length"):
        training_set(tiny_config(max_length=3), train_path)


def test_a_line_without_a_weight_among_weighted_ones_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    messages = '"messages": [{"role": "assistant", "content": "x"}]'
    path.write_text(f'{{{messages}, "meta": {{"train_weight": 0.2}}}}\n{{{messages}}}\n')
    with pytest.raises(PoolError, match=r"train.jsonl:2: has no train_weight, but other lines have one"):
        read_train_file(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"train.jsonl:1: not a line of a train file"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}], "meta": "a"}',
            r"train.jsonl:1: not a line of a train file",
        ),
        ('{"messages": [{"role": "user", "content": "x"}]}', r"train.jsonl:1: needs exactly one assistant message"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "meta": {"train_weight": -1}}', r"train_weight is -1"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}], "meta": {"train_weight": NaN}}',
            r"train_weight is nan",
        ),
    ],
)
def test_a_bad_training_line_is_named_by_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(PoolError, match=message):
        read_train_file(path)
