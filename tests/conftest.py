"""Fixtures shared by all tests. Nothing here needs the network or a file outside the checkout and `../shared`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from lark_engine.store.workspace import Artifact, Workspace

ROOT = Path(__file__).resolve().parents[1]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# Two files of tests run at a time. A thread of torch that waits for another one would hold a core that the other needs:
# where both test something with all cores, that made them six times as slow.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A shell without job control starts what it puts in the background deaf to Ctrl-C, and its children with it; tests that
# send Ctrl-C to a child must not depend on how they were started.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long one example takes says more about what else the machine does.
hypothesis.settings.register_profile("lark", deadline=None)
hypothesis.settings.load_profile("lark")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real data and golden numbers; absent on a user's machine, required in CI."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        reason = f"{path} is absent: tests on real data need it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session", autouse=True)
def own_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jobs of tests wait for no device that a job of the user, or of tests beside these, has leased."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LARK_LEASES", str(tmp_path_factory.mktemp("leases")))
        yield


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models"))


def save_byte_tokenizer(folder: Path) -> dict[str, int]:
    """Save a byte-level tokenizer with a ChatML template; returns its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*specials, *alphabet])}
    byte_level = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=specials, chat_template=CHATML,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return vocab


def make_tiny_model(root: Path) -> Path:
    """A 2-layer random Llama with a byte-level tokenizer and a ChatML template, as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = root / "tiny"
    save_byte_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=2048, tie_word_embeddings=True,
        eos_token_id=2, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_student(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The real 135M student, converted once for all tests that need it (about 20 s), by the first worker that does."""
    from lark_engine.demo.student import convert_student

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return convert_student(Workspace(tmp_path_factory.mktemp("student")))
    return convert_student(Workspace(tmp_path_factory.getbasetemp().parent / "student"))  # one folder of all workers
