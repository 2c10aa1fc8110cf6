"""Token borders: fast tokenizers, and a word splitter where there is no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragschema.errors import CorruptData
from ragschema.types import I32

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Pieces of at most six letters or digits; language models need about as many
# tokens for such text, and rarely more.
_WORD_PIECE = re.compile(r"[A-Za-z0-9]{1,6}|[^\W_]|_|[^\w\s]")


def load_tokenizer(path: Path) -> Tokenizer:
    """The fast tokenizer of a file, with its own cutting and padding removed.

    Raises:
        CorruptData: the file is no tokenizer; names it.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise CorruptData(f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encoding_offsets(encoding: Any) -> I32:
    """int32 [tokens, 2] of one encoding."""
    return np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)


def word_offsets(texts: Sequence[str]) -> list[I32]:
    """int32 [pieces, 2] per text: an estimate where no tokenizer is at hand.

    Words are cut every six letters; letters outside ASCII and punctuation count
    one each, so scripts without spaces are not underestimated.
    """
    return [
        np.array([m.span() for m in _WORD_PIECE.finditer(text)], dtype=np.int32).reshape(-1, 2)
        for text in texts
    ]
