"""Names of full blocks: a hash of a block's tokens and of everything before them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

_ROOT = b"\0" * 16


def extend_chain(hashes: list[bytes], token_ids: Sequence[int], block_tokens: int) -> None:
    """Appends the hashes of full blocks that ``hashes`` lacks.

    A hash has 128 bits, so two different prefixes do not meet.
    """
    parent = hashes[-1] if hashes else _ROOT
    for end in range((len(hashes) + 1) * block_tokens, len(token_ids) + 1, block_tokens):
        tokens = array("q", token_ids[end - block_tokens : end]).tobytes()
        parent = hashlib.blake2b(tokens, digest_size=16, key=parent).digest()
        hashes.append(parent)
