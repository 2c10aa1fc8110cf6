"""What the measurements of `bench.node_overhead` share: sizes, batches, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.node_collections import QUERIES_FILE
from coordinator.nodes.clients import RetrievalClient
from ragschema.types import F32, CallContext, SearchBatch
from retrieval_node.local import LocalSearcher

DIM, M, K, SEED = 128, 16, 10, 1
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """Sizes and times.

    Attributes:
        rows, nlist, nprobe, batch: of the first measurement.
        inflight: batches under way at the node.
        codes: of the full scan.
        rounds: times that each of the compared things runs.
        seconds: of one round.
        scans: full scans of one round.
        tiny: searches of one round of the last measurement.
    """

    rows: int = 1_000_000
    nlist: int = 1024
    nprobe: int = 32
    batch: int = 64
    inflight: int = 8
    codes: int = 16_000_000
    rounds: int = 7
    seconds: float = 2.0
    scans: int = 30
    tiny: int = 1000

    def quick(self) -> Plan:
        """A try in seconds; its figures mean nothing."""
        return replace(
            self, rows=20_000, nlist=64, nprobe=8, codes=200_000, rounds=2, seconds=0.3,
            scans=5, tiny=100,
        )  # fmt: skip


def batches(searcher: LocalSearcher, queries: F32, size: int, nprobe: int) -> list[SearchBatch]:
    """As many batches of that size as there are queries, lists chosen."""
    return [
        searcher.batch(queries[at : at + size], K, nprobe)
        for at in range(0, len(queries) - size + 1, size)
    ]


def queries_of(data: Path, name: str) -> F32:
    """float32 [QUERIES, dim], kept beside the collection."""
    found: F32 = np.load(data / "collections" / name / QUERIES_FILE, allow_pickle=False)
    return found


async def loaded(client: RetrievalClient, batch: SearchBatch, *shards: int) -> RetrievalClient:
    await client.load(batch.snapshot, shards or batch.shards, context())
    return client


def context() -> CallContext:
    return CallContext.start(_TIMEOUT_S)


def paired(rates: Sequence[float], against: Sequence[float]) -> float:
    """Median of the rounds' ratios: a machine that changes its speed moves both."""
    return round(statistics.median(a / b for a, b in zip(rates, against, strict=True)), 4)
