"""Turns token ids into text one by one."""

from __future__ import annotations

from typing import Any

#: What a decoder writes for bytes that are no whole character yet.
_UNFINISHED = "\ufffd"
_LONGEST_WAIT = 16


class Detokeniser:
    """Text of a growing sequence, without ever sending half a character.

    A token's text depends on its left neighbours (spaces, bytes of one
    character), so a short window is decoded twice, with and without the new
    tokens, and the difference is sent.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._window = 0
        self._sent = 0

    def add(self, token_id: int) -> str:
        """Text that became certain with this token; may be empty."""
        self._ids.append(token_id)
        return self._take(final=False)

    def flush(self) -> str:
        """What is left at the end, with replacement characters if need be."""
        return self._take(final=True)

    def _take(self, final: bool) -> str:
        known = self._decode(self._ids[self._window : self._sent])
        text = self._decode(self._ids[self._window :])
        # No character has as many bytes: the model wrote bytes that are no text.
        final = final or len(self._ids) - self._sent >= _LONGEST_WAIT
        if len(text) <= len(known) or (text.endswith(_UNFINISHED) and not final):
            return ""
        self._window, self._sent = self._sent, len(self._ids)
        return text[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
