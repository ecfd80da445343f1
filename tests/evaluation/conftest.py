"""Benchmark files, and a small OpenAI-compatible server."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fake_server import FakeServer, fake_server

__all__ = ["FakeServer", "fake_server"]


@pytest.fixture
def benchmark_path(tmp_path: Path) -> Path:
    """Three problems with levels and subjects."""
    path = tmp_path / "sums.json"
    rows = [{"prompt": f"{i}+{i}=?", "answer": str(2 * i), "level": 1 + i // 2, "subject": "sums"} for i in range(1, 4)]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="session")
def boxing_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A Llama whose every answer is `\boxed{7}` and then exclamation marks without end.

    Each byte decides the next: embeddings are one-hot, the layer adds nothing, and the head is the table of successors.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.conftest import save_byte_tokenizer

    folder = tmp_path_factory.mktemp("models") / "boxing"
    vocab = save_byte_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=320, hidden_size=320, intermediate_size=64, num_hidden_layers=1, num_attention_heads=10,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=2048, tie_word_embeddings=False,
        eos_token_id=2, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    answer = "\u010a\\boxed{7}!!"  # the prompt ends with a line break, as byte-level tokenizers write it
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(320))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for byte, following in pairwise(answer):
            model.lm_head.weight[vocab[following], vocab[byte]] = 10.0
    model.save_pretrained(folder)
    return folder
