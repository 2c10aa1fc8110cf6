from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm_node.device.scheduler import Device, Lane
from llm_node.rerank import cross_encoder
from llm_node.rerank.cross_encoder import CrossEncoder
from llm_node.rerank.queue import RerankQueue
from llm_node.roles import TokenizedPair
from ragschema.errors import CorruptData, InvalidInput, Overloaded
from ragschema.types import F32, Role
from tests.llm_node.checkpoints import save_tiny_bert, save_tiny_cross_encoder

QUERY = "the cat sat"
TEXTS = ["a dog ran", "the cat sat on the dog", "cat", "the dog sat on a passage : query"]


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    device = Device("cpu")
    device.start()
    yield device.lane("rerank", max_waiting=1)
    await device.close()


def _reference(directory: Path, query: str, texts: list[str]) -> F32:
    """What transformers itself says, one pair at a time."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    loader: Any = AutoModelForSequenceClassification
    model = loader.from_pretrained(directory, dtype=torch.float32).eval()
    rows = []
    for text in texts:
        pair = tokenizer(query, text, truncation="only_second", max_length=32, return_tensors="pt")
        pair["token_type_ids"] = torch.tensor([tokenizer(query, text).encodings[0].type_ids])
        with torch.inference_mode():
            rows.append(model(**pair).logits[0].numpy())
    logits = np.stack(rows)
    scores: F32 = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    return scores


@pytest.mark.parametrize("labels", [1, 2])
def test_scores_equal_transformers(tmp_path: Path, labels: int) -> None:
    directory = save_tiny_cross_encoder(tmp_path / "cross", labels)
    encoder = cross_encoder.load(str(directory))
    scores = encoder.forward(encoder.encode(QUERY, TEXTS))
    np.testing.assert_allclose(scores, _reference(directory, QUERY, TEXTS), atol=1e-5)
    assert len(set(scores.tolist())) == len(TEXTS)
    assert encoder.info.role is Role.RERANK
    assert encoder.info.max_input_tokens == 32


def test_long_texts_lose_their_end_and_long_queries_half(tmp_path: Path) -> None:
    encoder = cross_encoder.load(str(save_tiny_cross_encoder(tmp_path / "cross")))
    long, short = encoder.encode(QUERY, ["dog " * 90, "dog"])
    assert (len(long.ids), long.truncated) == (32, True)
    assert (len(short.ids), short.truncated) == (3 + 3 + 1, False)
    (both,) = encoder.encode("cat " * 90, ["dog " * 90])
    # [CLS], 14 of the query, [SEP], 15 of the text, [SEP].
    assert (both.types.count(0), both.types.count(1), len(both.ids)) == (16, 16, 32)
    assert encoder.encode(QUERY, []) == []
    assert np.isfinite(encoder.forward(encoder.encode("", [""]))).all()


def test_models_that_do_not_score_pairs_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    plain = save_tiny_bert(tmp_path / "plain")
    with pytest.raises(CorruptData, match=r"lacks classifier") as caught:
        cross_encoder.load(str(plain))
    assert caught.value.field == "reranker"
    with pytest.raises(InvalidInput, match="sorts into 3 classes"):
        cross_encoder.load(str(save_tiny_cross_encoder(tmp_path / "three", 3)))
    with pytest.raises(InvalidInput, match="no model directory"):
        cross_encoder.load("/no/such/place")
    with pytest.raises((InvalidInput, CorruptData)):
        cross_encoder.load(str(tiny_llama))


def test_pickled_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    directory = save_tiny_cross_encoder(tmp_path / "cross")
    weights = directory / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(CorruptData, match=r"model\.safetensors"):
        cross_encoder.load(str(directory))
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    at = 8 + size + header["classifier.bias"]["data_offsets"][0]
    weights.write_bytes(whole[:at] + b"\x00\x00\xc0\x7f" + whole[at + 4 :])  # NaN
    with pytest.raises(CorruptData, match="NaN"):
        cross_encoder.load(str(directory))
    weights.unlink()
    (directory / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="pickled weights"):
        cross_encoder.load(str(directory))


async def test_the_queue_scores_in_order(tmp_path: Path, lane: Lane) -> None:
    encoder = cross_encoder.load(str(save_tiny_cross_encoder(tmp_path / "cross")))
    queue = RerankQueue(encoder, lane)
    done = await queue.rank(QUERY, TEXTS * 20)
    alone = encoder.forward(encoder.encode(QUERY, TEXTS))
    np.testing.assert_allclose(done.scores, np.tile(alone, 20), atol=1e-5)
    assert (done.truncated, lane.running, lane.waiting) == (0, 0, 0)
    assert done.tokens == sum(len(pair.ids) for pair in encoder.encode(QUERY, TEXTS)) * 20
    assert len((await queue.rank(QUERY, [])).scores) == 0


class _Slow(CrossEncoder):
    def __init__(self) -> None:
        pass

    def encode(self, query: str, texts: Any) -> list[TokenizedPair]:
        import time

        time.sleep(0.2)
        return []


async def test_too_many_calls_are_refused(lane: Lane) -> None:
    import asyncio

    queue = RerankQueue(_Slow(), lane)
    calls = [asyncio.ensure_future(queue.rank("q", [])) for _ in range(3)]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, Overloaded) for one in done] == [False, False, True]
