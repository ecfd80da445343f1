"""The only place that renders a chat template: messages become prompt tokens and response tokens, or are refused.

The response is every token that the template adds after the prompt-with-generation-header, up to the end of the full
rendering (METHOD.md 1). A template that cuts text of the response, or whose prompt is no prefix of the full rendering,
would make every number wrong without a sign: such a student is refused with the option that decides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lark_engine.errors import StudentError
from lark_engine.records import Message
from lark_engine.store.atomic import open_regular

_MOST_TEMPLATE_BYTES = 1 << 20

Render = Literal["template", "append"]
OPENING = "<think>"  # of a block of reasoning, in the models that mark it


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A rendered trajectory: `ids` = prompt + response, cut at `max_length`; int token ids of the student."""

    ids: list[int]
    num_prompt_tokens: int
    truncated: bool

    @property
    def num_response_tokens(self) -> int:
        return max(len(self.ids) - self.num_prompt_tokens, 0)


def read_template(path: Path | None) -> str | None:
    """The text of a chat template file; None for None.

    Errors: `StudentError` when there is no such file, or one that is no template: a page may be asked for any path.
    """
    if path is None:
        return None
    try:
        with open_regular(path, follow=True) as file:
            content = file.read(_MOST_TEMPLATE_BYTES + 1)
        if len(content) > _MOST_TEMPLATE_BYTES:
            raise StudentError(f"{path}: is too large for a chat template; give the Jinja file itself")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise StudentError(f"{path}: no such chat template file, or not readable as UTF-8 text") from error


def template_text(model_dir: Path, chat_template: Path | None) -> str:
    """The chat template that a model's prompts are rendered with, as text; '' where its files have none."""
    if chat_template is not None:
        return str(read_template(chat_template))
    files = [model_dir / "chat_template.jinja", model_dir / "tokenizer_config.json"]
    return "\n".join(f.read_text(encoding="utf-8", errors="replace") for f in files if f.is_file())


class ChatRenderer:
    """Renders conversations with one tokenizer.

    `render="template"`: the tokenizer's template renders the whole conversation; refused where that loses text.
    `render="append"`: the template renders the prompt only; the response text is appended as it is, then the
    end-of-turn token. Right for students whose template cuts reasoning, and never ambiguous.

    Errors: `StudentError` when the tokenizer has no chat template and none is given.
    """

    def __init__(
        self, tokenizer: Any, *, render: Render = "template", chat_template: Path | None = None, name: str = ""
    ):
        self.tokenizer = tokenizer
        self.render = render
        self.name = name or str(getattr(tokenizer, "name_or_path", "the student"))
        if chat_template is not None:
            tokenizer.chat_template = read_template(chat_template)
        if not getattr(tokenizer, "chat_template", None):
            raise StudentError(
                f"student {self.name} has no chat template; give one as a Jinja file with --chat-template FILE"
            )

    def prompt_text(self, prompt: Sequence[Message]) -> str:
        """The prompt with its generation header, as text."""
        return self._apply(prompt, add_generation_prompt=True)

    def opens_thinking(self) -> bool:
        """Whether the template ends a prompt inside a thinking block, so that a response begins in it."""
        return self.prompt_text([Message(role="user", content="1 + 1 = ?")]).rstrip().endswith(OPENING)

    def tokens(self, prompt: Sequence[Message], response: str, max_length: int) -> Tokens:
        """Token ids of one trajectory, cut at `max_length`. Errors: `StudentError` when the template loses text."""
        prompt_text = self.prompt_text(prompt)
        if self.render == "append":
            prompt_ids, response_ids = self._append(prompt_text, response)
            ids = prompt_ids + response_ids
        else:
            full_text = self._apply([*prompt, Message(role="assistant", content=response)])
            self._check_text(full_text, prompt_text, response)
            prompt_ids, ids = self._encode(prompt_text), self._encode(full_text)
            if ids[: len(prompt_ids)] != prompt_ids:
                raise StudentError(
                    f"student {self.name}: the prompt's tokens are not a prefix of the whole conversation's, so the "
                    "response's tokens are not defined by the template; use --render append"
                )
        return Tokens(ids=ids[:max_length], num_prompt_tokens=len(prompt_ids), truncated=len(ids) > max_length)

    def _append(self, prompt_text: str, response: str) -> tuple[list[int], list[int]]:
        # A generation header that already opens the reasoning block must not open it twice.
        if prompt_text.rstrip().endswith(OPENING) and response.lstrip().startswith(OPENING):
            response = response.lstrip().removeprefix(OPENING).lstrip("\n")
        end = self.tokenizer.eos_token_id
        if end is None:
            raise StudentError(f"student {self.name} has no end-of-turn token; --render append needs one")
        return self._encode(prompt_text), [*self._encode(response), int(end)]

    def _check_text(self, full_text: str, prompt_text: str, response: str) -> None:
        # Templates may strip white space around a turn; anything else that is missing was cut.
        answer_text = full_text.removeprefix(prompt_text)
        if response.strip() not in answer_text:
            what = "the reasoning before </think>" if "</think>" in response else "part of the response"
            raise StudentError(
                f"student {self.name}: its chat template leaves out {what}, so it would be neither scored nor trained "
                "on; use --render append to keep the text as it is, or another --chat-template FILE"
            )
        if not full_text.startswith(prompt_text):
            raise StudentError(
                f"student {self.name}: its template's generation prompt (…{prompt_text[-40:]!r}) is not how it renders "
                "an answer, so where the response starts is not defined; use --render append"
            )

    def _apply(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(m) for m in messages], tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template is a program of its author's: it may raise anything
            raise StudentError(
                f"student {self.name}: its chat template cannot render this conversation "
                f"({'/'.join(m['role'] for m in messages)}): {error}; use another --chat-template FILE"
            ) from error
        assert isinstance(text, str)
        return text

    def _encode(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [int(i) for i in ids]
