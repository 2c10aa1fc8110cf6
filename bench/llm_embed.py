"""The embedder beside sentence-transformers: the same model, texts and float32."""

from __future__ import annotations

import importlib
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llm_node.embed.encoder import load
from llm_node.embed.layout import read_sentence_model
from ragschema.types import EmbedPurpose

_BATCH, _ROUNDS = 32, 5


def embed_ratio(seed: int) -> dict[str, Any]:
    """Texts per second of ours over theirs, median of rounds in turn.

    Raises:
        ModuleNotFoundError: sentence-transformers is not installed.
    """
    library: Any = importlib.import_module("sentence_transformers")
    encoder = load("minilm")
    directory = read_sentence_model("minilm").checkpoint.directory
    theirs = library.SentenceTransformer(str(directory), device="cpu")
    texts = _texts(seed, 2 * _BATCH)

    def ours(batch: Sequence[str]) -> Any:
        return encoder.forward(encoder.encode(batch, EmbedPurpose.PASSAGE))

    def peer(batch: Sequence[str]) -> Any:
        return theirs.encode(list(batch), batch_size=_BATCH, normalize_embeddings=True)

    cosine = float((ours(texts[:_BATCH]) * peer(texts[:_BATCH])).sum(axis=1).min())
    ratios, rates = [], []
    for _ in range(_ROUNDS):
        own_s, peer_s = _seconds(ours, texts), _seconds(peer, texts)
        ratios.append(peer_s / own_s)
        rates.append(len(texts) / own_s)
    return {
        "embed_throughput_ratio": round(statistics.median(ratios), 2),
        "embed_texts_per_s": round(statistics.median(rates), 1),
        "embed_cosine_min": round(cosine, 6),
    }


def _seconds(run: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> float:
    started_s = time.perf_counter()
    for first in range(0, len(texts), _BATCH):
        found = run(texts[first : first + _BATCH])
        assert np.isfinite(found).all()
    return time.perf_counter() - started_s


def _texts(seed: int, count: int) -> list[str]:
    """Passages of 40 to 160 words."""
    rng = random.Random(seed)
    words = ["the", "engine", "reads", "a", "page", "of", "some", "book", "and", "keeps", "it"]
    return [" ".join(rng.choices(words, k=rng.randint(40, 160))) for _ in range(count)]
