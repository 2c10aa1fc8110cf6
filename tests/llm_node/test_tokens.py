from __future__ import annotations

from pathlib import Path

import pytest

from llm_node.tokens import load_tokenizer, word_offsets
from ragschema.errors import CorruptData


def test_word_pieces_cover_every_visible_character() -> None:
    text = "Größe: internationalisation, 漢字 x_1!"
    (offsets,) = word_offsets([text])
    pieces = [text[a:b] for a, b in offsets]
    assert "".join(pieces) == "".join(text.split())
    assert max(map(len, pieces)) <= 6


def test_word_pieces_of_nothing_have_their_shape() -> None:
    assert [o.shape for o in word_offsets(["", "  ", "a"])] == [(0, 2), (0, 2), (1, 2)]


def test_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(CorruptData, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(path)
