"""The conversation of a source row, in any of the shapes that public data sets use, as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lark_engine.pool.rejections import BadRow, clean_text, kind_of
from lark_engine.records import Message

_ROLES = ("system", "user", "assistant")
_PROMPT_KEYS = ("prompt", "problem", "question", "instruction")
_RESPONSE_KEYS = ("response", "output", "completion", "solution", "generation")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
# Text that the student would have to produce but that `content` does not hold: leaving it out would change the answer.
_TEXT_OUTSIDE_CONTENT = ("reasoning_content", "reasoning", "thinking", "tool_calls")
FORMAT = '"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def read_messages(raw: Mapping[str, Any]) -> tuple[list[Message], frozenset[str]]:
    """The conversation as the row writes it, and the keys that it was read from."""
    if raw.get("messages") is not None:
        return _turns("messages", raw["messages"], "role", "content"), frozenset({"messages"})
    if raw.get("conversations") is not None:
        turns = _turns("conversations", raw["conversations"], "from", "value")
        system = _system(raw) if turns[0]["role"] != "system" else []
        return [*system, *turns], frozenset({"conversations", *(("system",) if system else ())})
    prompt_key = next((key for key in _PROMPT_KEYS if raw.get(key) is not None), None)
    response_key = next((key for key in _RESPONSE_KEYS if raw.get(key) is not None), None)
    if prompt_key is None or response_key is None:
        raise BadRow("no_messages", "messages", "messages is missing", sorted(map(str, raw)), f"add {FORMAT}")
    used = {prompt_key, response_key, "system"}
    text = _text(prompt_key, raw[prompt_key])
    if prompt_key == "instruction":
        used.add("input")
        text = "\n\n".join(part for part in (text, _text("input", raw.get("input") or "")) if part)
    user, answer = Message(role="user", content=text), _text(response_key, raw[response_key])
    return [*_system(raw), user, Message(role="assistant", content=answer)], frozenset(used)


def _system(raw: Mapping[str, Any]) -> list[Message]:
    text = _text("system", raw.get("system") or "")
    return [Message(role="system", content=text)] if text.strip() else []


def _turns(key: str, value: object, role_key: str, text_key: str) -> list[Message]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow("bad_messages", key, f"{key} is {kind_of(value)}, no list", value, f"write {FORMAT}")
    if not value:
        raise BadRow("no_messages", key, f"{key} is empty", value, f"write {FORMAT}")
    return [_turn(f"{key}[{i}]", turn, role_key, text_key) for i, turn in enumerate(value)]


def _turn(place: str, turn: object, role_key: str, text_key: str) -> Message:
    if not isinstance(turn, Mapping):
        remedy = f'each turn is an object with "{role_key}" and "{text_key}"'
        raise BadRow("bad_messages", place, f"{place} is {kind_of(turn)}, no object", turn, remedy)
    role = turn.get(role_key)
    if role_key == "from" and isinstance(role, str):
        role = _SHAREGPT_ROLES.get(role, role)
    if not isinstance(role, str) or role not in _ROLES:
        known = " or ".join(_SHAREGPT_ROLES if role_key == "from" else _ROLES)
        problem = f"{place}.{role_key} is {kind_of(role)}, no known role"
        raise BadRow("bad_messages", f"{place}.{role_key}", problem, turn.get(role_key), f"use {known}")
    for key in _TEXT_OUTSIDE_CONTENT:
        if turn.get(key):
            remedy = f"put its text into {text_key} (as <think>…</think> before the answer), or remove the key"
            raise BadRow("text_outside_content", f"{place}.{key}", f"{place}.{key} is not read", turn[key], remedy)
    return Message(role=role, content=_text(f"{place}.{text_key}", turn.get(text_key)))


def _text(place: str, value: object) -> str:
    if not isinstance(value, str):
        problem = f"{place} is {'missing' if value is None else kind_of(value)}, no text"
        raise BadRow("bad_messages", place, problem, value, "give the text of the turn as one string")
    return clean_text(value)


def split_answer(messages: list[Message]) -> tuple[tuple[Message, ...], str]:
    """The turns before the answer, and the text of the single assistant turn, which must be the last one."""
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    roles = "/".join(message["role"] for message in messages)
    one = "each candidate needs exactly one assistant turn, the last"
    if not answers:
        raise BadRow("no_assistant_turn", "messages", "the row has no assistant message", roles, one)
    if len(answers) > 1:
        problem = f"the row has {len(answers)} assistant messages"
        raise BadRow("several_assistant_turns", "messages", problem, roles, f"{one}; split or join them")
    if answers[0] != len(messages) - 1:
        raise BadRow("assistant_not_last", "messages", "the assistant message is not the last", roles, one)
    prompt, response = tuple(messages[:-1]), messages[-1]["content"]
    if not any(message["role"] == "user" for message in prompt):
        raise BadRow("no_prompt", "messages", "the row has no user message", roles, "put the problem into a user turn")
    if not response.strip():
        place = f"messages[{len(messages) - 1}].content"
        raise BadRow("empty_response", place, "the answer is empty", response, "remove the row or fill in the answer")
    return prompt, response


def unread_keys(messages: object) -> dict[str, Any]:
    """Keys of turns that are neither role nor content, by the turn's number."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return {}
    unread = {
        str(i): {key: value for key, value in turn.items() if key not in ("role", "content") and value is not None}
        for i, turn in enumerate(messages)
    }
    return {i: keys for i, keys in unread.items() if keys}
