"""Rendering: the response is exactly what the template adds, and a template that loses text is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lark_engine.chat import ChatRenderer
from lark_engine.errors import StudentError
from lark_engine.records import Message

PROMPT = (Message(role="user", content="2+2?"),)
CUTS_REASONING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if '</think>' in m['content'] %}"
    "{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS_REASONING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.fixture
def tokenizer(tiny_model_dir: Path) -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_dir)


def decode(renderer: ChatRenderer, ids: list[int]) -> str:
    return str(renderer.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def test_the_response_is_what_the_template_adds_after_the_generation_header(tokenizer: object) -> None:
    renderer = ChatRenderer(tokenizer)
    tokens = renderer.tokens(PROMPT, "It is 4.", 1000)
    assert decode(renderer, tokens.ids[: tokens.num_prompt_tokens]) == (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert decode(renderer, tokens.ids[tokens.num_prompt_tokens :]) == "It is 4.<|im_end|>\n"
    assert not tokens.truncated


def test_a_long_trajectory_is_cut_and_says_so(tokenizer: object) -> None:
    renderer = ChatRenderer(tokenizer)
    whole = renderer.tokens(PROMPT, "It is 4.", 1000)
    cut = renderer.tokens(PROMPT, "It is 4.", len(whole.ids) - 3)
    assert (cut.truncated, cut.num_response_tokens) == (True, whole.num_response_tokens - 3)
    assert renderer.tokens(PROMPT, "It is 4.", 4).num_response_tokens == 0


def test_a_student_without_a_template_is_refused_with_the_option(tokenizer: object) -> None:
    tokenizer.chat_template = None  # type: ignore[attr-defined]
    with pytest.raises(StudentError, match=r"student toy has no chat template; give one .* with --chat-template FILE"):
        ChatRenderer(tokenizer, name="toy")


def test_a_template_given_as_a_file_is_used(tokenizer: object, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}[{% endif %}")
    renderer = ChatRenderer(tokenizer, chat_template=file)
    tokens = renderer.tokens(PROMPT, "4", 100)
    assert decode(renderer, tokens.ids) == "[2+2?][4]"
    assert tokens.num_response_tokens == 2
    with pytest.raises(StudentError, match="no such chat template file"):
        ChatRenderer(tokenizer, chat_template=tmp_path / "absent.jinja")


def test_a_template_that_cuts_reasoning_is_refused_and_append_keeps_it(tokenizer: object, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text(CUTS_REASONING)
    with pytest.raises(StudentError, match=r"leaves out the reasoning before </think>.*use --render append"):
        ChatRenderer(tokenizer, chat_template=file).tokens(PROMPT, "<think>hm</think>4", 1000)
    renderer = ChatRenderer(tokenizer, chat_template=file, render="append")
    tokens = renderer.tokens(PROMPT, "<think>hm</think>4", 1000)
    assert decode(renderer, tokens.ids[tokens.num_prompt_tokens :]) == "<think>hm</think>4<|im_end|>"


def test_a_generation_prompt_that_is_not_how_answers_are_rendered_is_refused(tokenizer: object, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text(OPENS_REASONING)
    with pytest.raises(StudentError, match=r"generation prompt .* where the response starts is not defined"):
        ChatRenderer(tokenizer, chat_template=file).tokens(PROMPT, "4", 1000)
    renderer = ChatRenderer(tokenizer, chat_template=file, render="append")
    tokens = renderer.tokens(PROMPT, "<think>\nhm</think>4", 1000)
    assert decode(renderer, tokens.ids).endswith("assistant\n<think>\nhm</think>4<|im_end|>")


def test_a_template_that_cannot_render_the_roles_is_refused_in_one_sentence(tokenizer: object, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    with pytest.raises(StudentError, match=r"cannot render this conversation \(system/user.*no system"):
        ChatRenderer(tokenizer, chat_template=file).tokens((Message(role="system", content="s"), *PROMPT), "4", 100)


class MergingTokenizer:
    """A tokenizer that, like real ones, merges newlines: the header's and the response's become one token."""

    chat_template = "x"
    eos_token_id = 0

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        return "\n".join(m["content"] for m in messages) + ("\n" if add_generation_prompt else "")

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text.replace("\n\n", "¶")]}


def test_a_prompt_whose_tokens_are_no_prefix_of_the_conversation_is_refused() -> None:
    assert ChatRenderer(MergingTokenizer()).tokens(PROMPT, "4", 100).num_response_tokens == 1
    with pytest.raises(StudentError, match=r"prompt's tokens are not a prefix .* use --render append"):
        ChatRenderer(MergingTokenizer()).tokens(PROMPT, "\n4", 100)
    assert ChatRenderer(MergingTokenizer(), render="append").tokens(PROMPT, "\n4", 100).num_response_tokens == 3
