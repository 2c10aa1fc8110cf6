from __future__ import annotations

import pytest

from llm_node.generate.detokenise import Detokeniser
from tests.llm_node.checkpoints import byte_tokenizer


class _Fast:
    """The decoding call of a chat tokenizer over a bare one."""

    def __init__(self) -> None:
        self.bare = byte_tokenizer(262)  # hardly a merge: many tokens per character

    def decode(self, ids: list[int], **_: object) -> str:
        return str(self.bare.decode(ids))


@pytest.mark.parametrize("text", ["plain words", "Größe 😀👩‍👩‍👧 漢字", "日本語だけ", " x\n\ny "])
def test_pieces_are_whole_characters(text: str) -> None:
    fast = _Fast()
    ids = fast.bare.encode(text).ids
    detokeniser = Detokeniser(fast)
    pieces = [detokeniser.add(i) for i in ids]
    assert detokeniser.flush() == ""
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    if not text.isascii():
        assert "" in pieces


def test_half_a_character_comes_out_at_the_end() -> None:
    fast = _Fast()
    detokeniser = Detokeniser(fast)
    assert "".join(detokeniser.add(i) for i in fast.bare.encode("a😀").ids[:-1]) == "a"
    assert set(detokeniser.flush()) == {"\ufffd"}


def test_endless_broken_bytes_do_not_pile_up() -> None:
    fast = _Fast()
    lone = fast.bare.encode("😀").ids[-1]
    detokeniser = Detokeniser(fast)
    assert any(detokeniser.add(lone) for _ in range(40))
