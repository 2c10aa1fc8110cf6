"""What a single token stands for, as text and as bytes."""

from __future__ import annotations

import json
import re
from typing import Any

from ragschema.types import TokenChance

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenTexts:
    """Bytes of tokens by the conventions of the tokenizer's decoder.

    A token need not be whole characters, so that its bytes say more than its text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(int(i) for i in tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = "" if backend is None else json.dumps(json.loads(backend.to_str())["decoder"])
        self._of_char = _bytes_of_chars() if '"ByteLevel"' in decoder else None
        self._known: dict[int, tuple[str, bytes]] = {}

    def chance(self, token_id: int, logprob: float) -> TokenChance:
        """The token with its log probability."""
        found = self._known.get(token_id)
        if found is None:
            data = self._data(token_id)
            found = self._known[token_id] = (data.decode(errors="replace"), data)
        return TokenChance(*found, logprob)

    def _data(self, token_id: int) -> bytes:
        # Ids beyond the tokenizer, where the weights are padded, stand for nothing.
        token = self._tokenizer.convert_ids_to_tokens(token_id) or ""
        if token_id in self._special:
            return str(token).encode()
        if self._of_char is not None and all(char in self._of_char for char in token):
            return bytes(self._of_char[char] for char in token)
        if match := _BYTE.fullmatch(token):
            return bytes.fromhex(match.group(1))
        return str(token).replace("\u2581", " ").encode()


def _bytes_of_chars() -> dict[str, int]:
    """The printable characters that byte-level tokenizers write bytes with."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    chars = {chr(byte): byte for byte in own}
    return chars | {chr(256 + place): byte for place, byte in enumerate(others)}
