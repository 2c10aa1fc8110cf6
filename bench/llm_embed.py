"""The embedder beside sentence-transformers: the same model and texts, in float32 and bfloat16."""

from __future__ import annotations

import importlib
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llm_node.config import EmbedDtype
from llm_node.embed.encoder import load
from llm_node.embed.layout import read_sentence_model
from ragschema.types import EmbedPurpose

_BATCH, _ROUNDS = 32, 5


def embed_ratio(seed: int) -> dict[str, Any]:
    """Texts per second of ours over theirs in float32, median of rounds in turn.

    Raises:
        ModuleNotFoundError: sentence-transformers is not installed.
    """
    library: Any = importlib.import_module("sentence_transformers")
    directory = read_sentence_model("minilm").checkpoint.directory
    theirs = library.SentenceTransformer(str(directory), device="cpu")
    texts = _texts(seed, 2 * _BATCH)
    ours = {dtype: _embedding(dtype) for dtype in EmbedDtype}

    def peer(batch: Sequence[str]) -> Any:
        return theirs.encode(list(batch), batch_size=_BATCH, normalize_embeddings=True)

    wanted = peer(texts[:_BATCH])
    cosine = {d: float((run(texts[:_BATCH]) * wanted).sum(axis=1).min()) for d, run in ours.items()}
    ratios: dict[str, list[float]] = {dtype: [] for dtype in ours}
    rates: dict[str, list[float]] = {dtype: [] for dtype in ours}
    for _ in range(_ROUNDS):
        peer_s = _seconds(peer, texts)
        for dtype, run in ours.items():
            own_s = _seconds(run, texts)
            ratios[dtype].append(peer_s / own_s)
            rates[dtype].append(len(texts) / own_s)
    found: dict[str, Any] = {}
    for dtype in ours:
        kind = "" if dtype is EmbedDtype.FLOAT32 else f"_{dtype}"
        found |= {
            f"embed_throughput_ratio{kind}": round(statistics.median(ratios[dtype]), 2),
            f"embed_texts_per_s{kind}": round(statistics.median(rates[dtype]), 1),
            f"embed_cosine_min{kind}": round(cosine[dtype], 6),
        }
    return found


def _embedding(dtype: EmbedDtype) -> Callable[[Sequence[str]], Any]:
    encoder = load("minilm", dtype)
    return lambda batch: encoder.forward(encoder.encode(batch, EmbedPurpose.PASSAGE))


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
