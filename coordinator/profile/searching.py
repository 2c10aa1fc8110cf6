"""Probes of retrieval: choosing lists, scanning codes, and the call around a scan."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from coordinator.collections.snapshot import Snapshot
from coordinator.nodes.clients import LlmClient, RetrievalClient
from coordinator.profile.collection import clustered
from coordinator.profile.plan import Grid
from coordinator.profile.probe import Call, Kind, Probe, Reading
from coordinator.stages.probe import CoarseIndex
from ragschema.errors import UpstreamError
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig
from ragschema.storage.manifest import FileRef
from ragschema.types import F32, CallContext, Metric, SearchBatch, SnapshotId

CALL_S: Final = 120.0
K: Final = 10
_SEED: Final = 6
_INDEX_TERMS: Final = ("1", "batch", "nlist", "batch*nlist", "batch*nprobe")
#: A call cannot take less on top of its scan; clocks of two processes have limits.
_LEAST_CALL_S: Final = 1e-6


@dataclass(frozen=True)
class Searched:
    """The collection that nodes hold.

    Attributes:
        index: its file, as the manifest has it.
        queries: float32 [n, dim], of the same kind as its vectors.
    """

    snapshot: SnapshotId
    coarse: CoarseIndex
    index: FileRef
    queries: F32
    nlist: int
    m: int

    @property
    def dim(self) -> int:
        return int(self.queries.shape[1])


def open_searched(directory: Path, queries: int) -> Searched:
    """Reads the committed collection of ``make_collection``."""
    snapshot = Snapshot.open(directory)
    try:
        index, centroids = snapshot.manifest.index, snapshot.centroids
        assert index is not None, "it is large enough to have one"
        assert centroids is not None, "it is large enough to have one"
        coarse = CoarseIndex(
            centroids, snapshot.manifest.metric, snapshot.rotation, snapshot.offset
        )
        drawn = clustered(queries, snapshot.manifest.dim, _SEED)
        return Searched(snapshot.id, coarse, index.file, drawn, index.nlist, index.m)
    finally:
        snapshot.close()


def index_scan_probe(grid: Grid, dim: int) -> Probe:
    """Nearest lists of queries, as the coordinator finds them, in this process."""
    kind = Kind(
        "index_scan",
        "coordinator",
        1,
        {"dim": float(dim)},
        _INDEX_TERMS,
    )
    points = tuple(
        _index_call(nlist, dim, batch, nprobe)
        for nlist in grid.index_lists
        for batch in grid.index_batches
        for nprobe in (8, 64)
    )
    return Probe((kind,), points)


def node_index_probe(
    client: LlmClient,
    node: LlmNodeConfig,
    variant: str,
    collections: Sequence[Searched],
    grid: Grid,
) -> Probe:
    """The same by a node with that role: its call, and the scan on its device."""
    kind = Kind(
        "index_scan",
        variant,
        node.threads,
        {"dim": float(collections[0].dim)},
        _INDEX_TERMS,
    )
    points = tuple(
        _node_index_call(client, searched, batch, min(nprobe, searched.nlist))
        for searched in collections
        for batch in grid.index_batches
        for nprobe in (8, 64)
    )
    return Probe((kind,), points)


def _node_index_call(client: LlmClient, searched: Searched, batch: int, nprobe: int) -> Call:
    queries = searched.queries[:batch]
    at = {"batch": float(batch), "nlist": float(searched.nlist), "nprobe": float(nprobe)}
    name = searched.snapshot.collection

    async def call() -> Mapping[str, Reading]:
        context = CallContext.start(CALL_S)
        started_s = time.perf_counter()
        await client.index_scan(name, searched.index, queries, nprobe, context)
        return {"index_scan": Reading(at, time.perf_counter() - started_s)}

    return call


def _index_call(nlist: int, dim: int, batch: int, nprobe: int) -> Call:
    index = CoarseIndex(clustered(nlist, dim, _SEED), Metric.L2)
    queries = clustered(batch, dim, _SEED + 1)
    at = {"batch": float(batch), "nlist": float(nlist), "nprobe": float(nprobe)}

    async def call() -> Mapping[str, Reading]:
        started_s = time.perf_counter()
        index.nearest(queries, nprobe)
        return {"index_scan": Reading(at, time.perf_counter() - started_s)}

    return call


def scan_probe(
    client: RetrievalClient,
    node: RetrievalNodeConfig,
    collections: Sequence[Searched],
    grid: Grid,
) -> Probe:
    """Scans of codes as a node's clock has them, and the call around as the caller's has it."""
    variant = node.backend if node.mode in (None, "fast") else f"{node.backend}-{node.mode}"
    if node.backend == "fpga":
        variant = f"fpga-{node.device}"
    about = {"dim": float(collections[0].dim), "m": float(collections[0].m)}
    scan = Kind("pq_scan", variant, node.threads, about, ("1", "batch", "batch*nprobe", "codes"))
    call = Kind("retrieval_call", variant, node.threads, {"dim": about["dim"]}, ("1", "batch"))
    points = tuple(
        _scan_call(client, searched, batch, min(nprobe, searched.nlist))
        for searched in collections
        for batch, nprobe in grid.scan
    )
    return Probe((scan, call), points)


def _scan_call(client: RetrievalClient, searched: Searched, batch: int, nprobe: int) -> Call:
    rng = np.random.default_rng([batch, nprobe])
    queries = searched.queries[rng.integers(0, len(searched.queries), batch)]
    lists = searched.coarse.nearest(queries, nprobe)
    asked = SearchBatch(searched.snapshot, (0,), queries, lists, K)

    async def call() -> Mapping[str, Reading]:
        started_s = time.perf_counter()
        found = await client.search(asked, CallContext.start(CALL_S))
        passed_s = time.perf_counter() - started_s
        stats = found.stats
        inside_s = (stats.queue_us + stats.scan_us + stats.refine_us) / 1e6
        if not stats.scan_us or not stats.codes_scanned:
            raise UpstreamError("the node does not tell how long it scanned")
        size = float(batch)
        at = {"batch": size, "nprobe": float(nprobe), "codes": float(stats.codes_scanned)}
        return {
            "pq_scan": Reading(at, stats.scan_us / 1e6),
            "retrieval_call": Reading({"batch": size}, max(_LEAST_CALL_S, passed_s - inside_s)),
        }

    return call
