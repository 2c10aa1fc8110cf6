from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from llm_node.config import EmbedDtype
from llm_node.embed import encoder
from llm_node.embed.encoder import SentenceEncoder
from llm_node.embed.layout import find_model_directory
from llm_node.embed.scheduler import embed_now
from ragschema.errors import CorruptData, InvalidInput
from ragschema.types import F32, EmbedPurpose
from tests.llm_node.checkpoints import add_modules

PASSAGE, QUERY = EmbedPurpose.PASSAGE, EmbedPurpose.QUERY
TEXTS = [
    "How do I merge two sorted lists?",
    "heapq.merge merges sorted inputs into one sorted output.",
    "It rains in the mountains.",
    "",
    "naïve café 😀 " * 40,
]


def _directly(texts: list[str], pooling: str = "mean", directory: Path | None = None) -> F32:
    """Mean pooling one text at a time, written out with transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    place = str(directory or find_model_directory("minilm"))
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**ids).last_hidden_state[0]
        pooled = hidden.mean(dim=0) if pooling == "mean" else hidden[0]
        rows.append((pooled / pooled.norm()).numpy())
    return np.stack(rows)


def test_minilm_equals_automodel_with_mean_pooling(minilm: SentenceEncoder) -> None:
    got = embed_now(minilm, TEXTS, PASSAGE)
    assert got.vectors.dtype == np.float32
    assert got.vectors.shape == (5, 384)
    np.testing.assert_allclose(got.vectors, _directly(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got.vectors, axis=1), 1.0, atol=1e-5)


def test_in_bfloat16_vectors_are_nearly_the_same(minilm: SentenceEncoder) -> None:
    narrow = encoder.load("minilm", EmbedDtype.BFLOAT16)
    texts = [text for text in TEXTS if text]
    got, wide = (embed_now(one, texts, PASSAGE).vectors for one in (narrow, minilm))
    assert got.dtype == np.float32
    assert not np.array_equal(got, wide)
    assert (got * wide).sum(axis=1).min() > 0.999
    assert narrow.info == minilm.info


def test_minilm_knows_what_is_near(minilm: SentenceEncoder) -> None:
    vectors = embed_now(minilm, TEXTS[:3], PASSAGE).vectors
    assert vectors[0] @ vectors[1] > 0.5
    assert vectors[0] @ vectors[2] < 0.2


def test_company_in_a_batch_does_not_matter(minilm: SentenceEncoder) -> None:
    texts = [f"{'word ' * (i % 7)}number {i}" for i in range(40)]
    together = embed_now(minilm, texts, PASSAGE).vectors
    for row in (0, 6, 39):
        alone = embed_now(minilm, [texts[row]], PASSAGE).vectors[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_counts_tokens_and_truncation(minilm: SentenceEncoder) -> None:
    got = embed_now(minilm, ["hello world", "word " * 300], PASSAGE)
    assert got.tokens == 4 + 256
    assert got.truncated == 1


def test_offsets_are_characters_of_the_text(minilm: SentenceEncoder) -> None:
    text = "Größe 😀 naïve"
    (offsets,) = minilm.token_offsets([text])
    assert offsets.dtype == np.int32
    words = {text[a:b] for a, b in offsets}
    assert "😀" in words
    assert offsets[-1][1] == len(text)
    assert minilm.token_offsets([""])[0].shape == (0, 2)


def test_info_names_the_model(minilm: SentenceEncoder) -> None:
    info = minilm.info
    assert (info.name, info.dim, info.max_input_tokens) == ("minilm", 384, 256)
    assert len(info.fingerprint) == 32


def test_directory_with_cls_pooling(tiny_bert: Path) -> None:
    add_modules(tiny_bert, pooling={"pooling_mode_cls_token": True})
    texts = ["the cat sat", "a dog ran on"]
    got = embed_now(encoder.load(str(tiny_bert)), texts, PASSAGE).vectors
    np.testing.assert_allclose(got, _directly(texts, "cls", tiny_bert), atol=1e-5)


def test_prompts_are_put_before_the_text(tiny_bert: Path) -> None:
    add_modules(tiny_bert, prompts={"query": "query : ", "passage": "passage : "})
    model = encoder.load(str(tiny_bert))
    asked = embed_now(model, ["the cat"], QUERY).vectors
    stored = embed_now(model, ["the cat"], PASSAGE).vectors
    assert not np.allclose(asked, stored)
    np.testing.assert_allclose(asked, _directly(["query : the cat"], "mean", tiny_bert), atol=1e-5)


def test_max_seq_length_cuts(tiny_bert: Path) -> None:
    got = embed_now(encoder.load(str(tiny_bert)), ["cat " * 50], PASSAGE)
    assert (got.tokens, got.truncated) == (16, 1)


def test_fingerprint_covers_the_pooling(tiny_bert: Path) -> None:
    before = encoder.load(str(tiny_bert)).info.fingerprint
    add_modules(tiny_bert, pooling={"pooling_mode_cls_token": True})
    assert encoder.load(str(tiny_bert)).info.fingerprint != before


def test_weights_of_another_model_are_refused(tiny_bert: Path, tiny_llama: Path) -> None:
    shutil.copy(tiny_llama / "model.safetensors", tiny_bert / "model.safetensors")
    with pytest.raises(CorruptData, match=r"model\.safetensors lacks"):
        encoder.load(str(tiny_bert))


def test_unknown_architecture_is_refused(tiny_bert: Path) -> None:
    config = tiny_bert / "config.json"
    config.write_text(config.read_text().replace('"bert"', '"no-such-model"'))
    with pytest.raises(InvalidInput, match="cannot load"):
        encoder.load(str(tiny_bert))


def test_directory_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match="no model directory"):
        encoder.load("/no/such/model")
