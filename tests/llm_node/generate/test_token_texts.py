from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm_node.generate.token_texts import TokenTexts

TEXT = "Größe, 漢字 and 😀"


def _sentence_pieces() -> Any:
    """The way Llama 2 writes tokens: a mark for a space, and single bytes."""
    vocabulary = {"<unk>": 0, "\u2581fox": 1, "\u2581": 2, "x": 3}
    vocabulary |= {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_byte_level_tokens_spell_the_text(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    texts = TokenTexts(tokenizer)
    chances = [texts.chance(i, -1.0) for i in tokenizer(TEXT)["input_ids"]]
    assert b"".join(one.data for one in chances) == TEXT.encode()
    assert any(one.text == "\ufffd" for one in chances)
    assert texts.chance(1, -0.5).text == "</s>"
    assert texts.chance(1, -0.5).logprob == -0.5


@pytest.mark.parametrize(
    ("token_id", "data"), [(1, b" fox"), (2, b" "), (3, b"x"), (4 + 0xE6, b"\xe6"), (0, b"<unk>")]
)
def test_sentence_pieces_and_single_bytes(token_id: int, data: bytes) -> None:
    assert TokenTexts(_sentence_pieces()).chance(token_id, 0.0).data == data


def test_an_id_beyond_the_tokenizer_is_nothing() -> None:
    assert TokenTexts(_sentence_pieces()).chance(5000, 0.0).data == b""
