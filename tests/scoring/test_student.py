"""The student as a scorer: prompts computed once, nothing padded, and the numbers of the model's own forward pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lark_engine.errors import DeviceError
from lark_engine.models import ModelRef
from lark_engine.scoring.student import Responses, Scored, Student


def ref(path: Path) -> ModelRef:
    return ModelRef(name="student", path=path, content="")


def draw(seed: int, num_prompt: int, lengths: list[int]) -> Responses:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(3, 250, n).astype(np.int32) for n in (num_prompt, *lengths)]
    return Responses(ids[0], tuple(ids[1:]))


GROUPS = [draw(0, 9, [4, 1, 30]), draw(1, 70, [2]), draw(2, 1, [5, 5])]


def plain_nll(path: Path, groups: list[Responses]) -> torch.Tensor:
    """−log π of every response token, one trajectory a forward pass, by the model's own attention."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    result = []
    for group in groups:
        for response in group.responses:
            ids = torch.from_numpy(np.concatenate([group.prompt, response]).astype(np.int64))
            with torch.no_grad():
                logits = model(ids[None]).logits[0, len(group.prompt) - 1 : -1]
            result.append(torch.nn.functional.cross_entropy(logits, ids[len(group.prompt) :], reduction="none"))
    return torch.cat(result)


def save_model(folder: Path, config: Any) -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


SMALL = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
}  # fmt: skip


def assert_right(path: Path, *, shares_prompts: bool) -> None:
    """Right numbers, in the way that the student's architecture allows."""
    student = Student(ref(path), dtype="float32", device="cpu", top_k=5)
    assert student.shares_prompts == shares_prompts
    assert torch.allclose(student.score(GROUPS).stats.nll, plain_nll(path, GROUPS), atol=2e-5)


@pytest.mark.parametrize("apart", [False, True])
def test_packed_trajectories_have_the_numbers_of_one_plain_pass_each(tiny_model_dir: Path, apart: bool) -> None:
    student = Student(ref(tiny_model_dir), dtype="float32", device="cpu", top_k=50)
    assert student.shares_prompts
    if apart:
        parts = [student.score([group], prompt_apart=True) for group in GROUPS]
        nll = torch.cat([part.stats.nll for part in parts])
    else:
        scored = student.score(GROUPS)
        nll = scored.stats.nll
        assert scored.lengths.tolist() == [4, 1, 30, 2, 5, 5]
    assert torch.allclose(nll, plain_nll(tiny_model_dir, GROUPS), atol=2e-5)


def test_responses_do_not_see_their_neighbors(tiny_model_dir: Path) -> None:
    student = Student(ref(tiny_model_dir), dtype="float32", device="cpu", top_k=50)
    group, other = draw(0, 9, [4, 6]), draw(7, 9, [4, 6])
    changed = Responses(group.prompt, (other.responses[0], group.responses[1]))
    first, second = student.score([group]), student.score([changed])
    assert torch.equal(first.stats.nll[4:], second.stats.nll[4:])
    assert not torch.equal(first.stats.nll[:4], second.stats.nll[:4])


def test_parts_of_a_problem_have_the_same_bits_whatever_was_computed_before(tiny_model_dir: Path) -> None:
    group = draw(0, 40, [20, 10])
    part = Responses(group.prompt, group.responses[1:])
    fresh = Student(ref(tiny_model_dir), dtype="float32", device="cpu", top_k=50)
    used = Student(ref(tiny_model_dir), dtype="float32", device="cpu", top_k=50)
    used.score([Responses(group.prompt, group.responses[:1])], prompt_apart=True)
    a, b = (student.score([part], prompt_apart=True) for student in (fresh, used))
    assert torch.equal(a.stats.nll, b.stats.nll)


def test_sliding_window_layers_see_their_window_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import MistralConfig

    path = save_model(tmp_path / "mistral", MistralConfig(**SMALL, sliding_window=12))
    monkeypatch.setattr("lark_engine.attention._WINDOW_QUERIES", 16)  # so that a response takes several blocks
    assert_right(path, shares_prompts=True)


def test_a_student_whose_positions_depend_on_the_longest_trajectory_is_scored_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import LlamaConfig

    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    path = save_model(
        tmp_path / "dynamic", LlamaConfig(**{**SMALL, "max_position_embeddings": 32}, rope_parameters=rope)
    )
    assert_right(path, shares_prompts=False)
    assert "has positions of kind dynamic: its candidates are scored one by one" in caplog.text


def test_an_attention_with_sinks_is_found_out_and_scored_one_by_one(tmp_path: Path) -> None:
    from transformers import GptOssConfig

    config = GptOssConfig(
        **SMALL, num_local_experts=2, num_experts_per_tok=1, sliding_window=128, layer_types=["full_attention"] * 2
    )
    path = save_model(tmp_path / "gpt_oss", config)
    assert_right(path, shares_prompts=False)


def test_values_may_be_narrower_than_keys(tmp_path: Path) -> None:
    from transformers import DeepseekV3Config

    sizes = {name: value for name, value in SMALL.items() if name not in ("head_dim", "num_key_value_heads")}
    config = DeepseekV3Config(
        **sizes, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16,
        v_head_dim=12, first_k_dense_replace=2,
    )  # fmt: skip
    path = save_model(tmp_path / "deepseek", config)
    assert_right(path, shares_prompts=True)


def test_a_window_that_only_the_models_own_mask_knows_is_not_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The few tokens of the check lie within the window: what the layers are told gives it away."""
    from transformers import PhimoeConfig

    config = PhimoeConfig(**SMALL, sliding_window=40, num_local_experts=2, num_experts_per_tok=1)
    path = save_model(tmp_path / "phimoe", config)
    assert_right(path, shares_prompts=False)
    assert "makes its sliding windows in a way that shared prompts do not know: its candidates are" in caplog.text


def test_an_attention_with_a_soft_cap_is_scored_one_by_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import Gemma2Config

    path = save_model(tmp_path / "gemma2", Gemma2Config(**SMALL, attn_logit_softcapping=50.0, query_pre_attn_scalar=16))
    assert_right(path, shares_prompts=False)
    assert "does not allow shared prompts (its attention takes softcap)" in caplog.text


class SmallDevice(Student):
    """A student whose device holds at most 60 tokens; `cuts` are the sizes of the passes that fitted."""

    cuts: list[int]

    def _forward(self, groups: Any, prompt_apart: bool, num_alternatives: int) -> Scored:
        size = sum(group.num_tokens for group in groups)
        if size > 60:
            raise torch.OutOfMemoryError(f"cannot hold {size} tokens")
        self.cuts = [*getattr(self, "cuts", []), size]
        return super()._forward(groups, prompt_apart, num_alternatives)


def test_how_a_batch_is_cut_does_not_depend_on_those_before_it(tiny_model_dir: Path) -> None:
    """A resumed run has not met the large batches of the first one, and must compute the same passes."""
    huge = [draw(seed, 5, [10, 10]) for seed in range(6)]
    fitting, large = huge[:2], [draw(9, 10, [30, 40])]
    used, fresh = (SmallDevice(ref(tiny_model_dir), dtype="float32", device="cpu", top_k=5) for _ in range(2))
    used.score(huge)
    assert used.cuts == [25, 50, 25, 50]
    results = []
    for student in (used, fresh):
        student.cuts = []
        results.append([student.score(fitting).stats.nll, student.score(large).stats.nll])
        assert student.cuts == [50, 40, 50]
        assert student._kept is not None
        student.score(fitting)
        assert student._kept is None  # its keys and values would take what a long trajectory needs
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with pytest.raises(DeviceError, match=r"a trajectory of 91 tokens does not fit on cpu; lower --max-length"):
        fresh.score([draw(1, 1, [90])])


OUT_OF_MEMORY = """
import logging, resource, sys
from pathlib import Path
import numpy as np, torch
from lark_engine.models import ModelRef
from lark_engine.scoring.student import Responses, Student
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
torch.set_num_threads(1)
student = Student(ModelRef(name="s", path=Path(sys.argv[1]), content=""), dtype="float32", device="cpu", top_k=5)
rng = np.random.default_rng(0)
ids = lambda n: rng.integers(3, 250, n).astype(np.int32)
large = [Responses(ids(20), tuple(ids(2000) for _ in range(8))) for _ in range(8)]
one = [student.score([Responses(g.prompt, (r,))]) for g in large for r in g.responses]
status = [line.split() for line in open("/proc/self/status") if line.startswith("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (int(status[0][1]) * 1024 + 60_000_000,) * 2)
scored = student.score(large)
expected = torch.cat([part.stats.nll for part in one])
print("deviation", float((scored.stats.nll - expected).abs().max()) < 1e-4, len(expected) == len(scored.stats.nll))
"""


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_and_goes_on(tiny_model_dir: Path) -> None:
    """A real limit on the process's memory: 128,000 tokens do not fit, their halves' halves do."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(tiny_model_dir)], capture_output=True, text=True, timeout=300
    )
    for num_tokens in (128160, 64080):
        assert f"is out of memory at {num_tokens} tokens; batches so large are cut in half" in done.stdout, done.stderr
    assert "deviation True True" in done.stdout
