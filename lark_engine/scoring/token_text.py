"""The text of single tokens, so that a page can show them without the student's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

_INCOMPLETE = "�"


class TokenText:
    """Turns token ids into pieces of text. The pieces of a response, joined, are its text as the student decodes it."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        # Some tokenizers drop the space before a first token: an anchor in front keeps it.
        self._anchor = [int(i) for i in tokenizer("a", add_special_tokens=False)["input_ids"]]
        self._anchor_text = self._decode(self._anchor)
        self._known: dict[int, str] = {}

    def piece(self, token_id: int) -> str:
        """One token on its own; � where it is only part of a character."""
        if token_id not in self._known:
            self._known[token_id] = self._after_anchor([token_id])
        return self._known[token_id]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One piece for each token; tokens that share a character give its text to the first and '' to the others."""
        pieces = [self.piece(token_id) for token_id in ids]
        place = 0
        for incomplete, run in groupby(pieces, key=lambda piece: _INCOMPLETE in piece):
            size = len(list(run))
            if incomplete:
                pieces[place : place + size] = [self._after_anchor(ids[place : place + size]), *[""] * (size - 1)]
            place += size
        return pieces

    def _after_anchor(self, ids: Sequence[int]) -> str:
        return self._decode([*self._anchor, *ids]).removeprefix(self._anchor_text)

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
