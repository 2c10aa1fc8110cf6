"""The fpga backend: tables on the host, the scan on the device, floats on the host."""

from __future__ import annotations

import queue
import threading
import weakref
from dataclasses import dataclass

import numpy as np

from ragschema.types import F32, I64, Metric
from retrieval_node import kernels
from retrieval_node.backends.base import Candidates, ScanRequest, blank_tail, merge_candidates
from retrieval_node.backends.fpga.device import Device
from retrieval_node.backends.fpga.driver import PlacedRows, RawResult, ScanUnit, place
from retrieval_node.fixedpoint import CODES, F64, Contract
from retrieval_node.shard import LoadedShard, ShardRows, ShardSet

#: Tables or masks of the queries that share one start of the device.
_PIECE_BYTES = 4 << 20
_PIECE_QUERIES = 64


@dataclass(frozen=True)
class _Quantized:
    """Integer side of a piece: biases per list, base and scale per query."""

    biases: I64
    bases: F64
    scales: F32
    num_tables: int
    table_of: I64


class FpgaBackend:
    """Implements ``base.Backend`` over any device."""

    name = "fpga"

    def __init__(self, device: Device, contract: Contract | None = None) -> None:
        self._device = device
        self._contract = contract or Contract()
        self._lock = threading.Lock()
        self._placed: weakref.WeakKeyDictionary[ShardRows, PlacedRows] = weakref.WeakKeyDictionary()
        self._alive: weakref.WeakKeyDictionary[LoadedShard, int] = weakref.WeakKeyDictionary()
        self._units: queue.SimpleQueue[ScanUnit] = queue.SimpleQueue()
        for unit in range(device.compute_units):
            self._units.put(ScanUnit(device, unit))

    @property
    def device(self) -> str:
        return self._device.name

    def load(self, shard_set: ShardSet) -> None:
        if shard_set.index is None:
            return
        with self._lock:
            for shard in shard_set.shards.values():
                self._place_rows(shard.rows)
                self._place_alive(shard)

    def _place_rows(self, rows: ShardRows) -> None:
        if rows in self._placed:
            return
        addresses = [place(self._device, array).address for array in (rows.codes, rows.ids)]
        n, m = rows.codes.shape
        self._placed[rows] = PlacedRows(codes=addresses[0], ids=addresses[1], rows=n, m=m)
        for address in addresses:
            weakref.finalize(rows, self._device.free, address).atexit = False

    def _place_alive(self, shard: LoadedShard) -> None:
        if shard in self._alive:
            return
        address = 0
        if len(shard.alive):
            address = place(self._device, shard.alive).address
            weakref.finalize(shard, self._device.free, address).atexit = False
        self._alive[shard] = address

    def scan(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        unit = self._units.get()
        try:
            parts = []
            for first, last in self._pieces(shard_set, request):
                request.checkpoint()
                parts.append(self._scan_piece(unit, shard_set, request.piece(first, last)))
        finally:
            self._units.put(unit)
        return Candidates(
            distances=np.concatenate([p.distances for p in parts]),
            rows=np.concatenate([p.rows for p in parts]),
            counts=np.concatenate([p.counts for p in parts]),
            codes_scanned=sum(p.codes_scanned for p in parts),
        )

    def _pieces(self, shard_set: ShardSet, request: ScanRequest) -> list[tuple[int, int]]:
        """Cuts a batch so that tables and masks stay within their work areas."""
        assert shard_set.index is not None, "an exact collection has no PQ scan"
        lists = np.diff(request.starts)
        tables = lists if shard_set.metric is Metric.L2 else np.ones_like(lists)
        largest = max((len(s.rows.ids) for s in shard_set.shards.values()), default=0)
        cost = tables * shard_set.index.m * CODES * 2 + (request.filter_of >= 0) * largest
        pieces, first, used = [], 0, 0
        for q, bytes_of_query in enumerate(cost.tolist()):
            if q > first and (used + bytes_of_query > _PIECE_BYTES or q - first >= _PIECE_QUERIES):
                pieces.append((first, q))
                first, used = q, 0
            used += bytes_of_query
        return [*pieces, (first, len(cost))]

    def _scan_piece(self, unit: ScanUnit, shard_set: ShardSet, piece: ScanRequest) -> Candidates:
        quantized = self._fill_tables(unit, shard_set, piece)
        found = []
        for number in piece.shards:
            shard = shard_set.shards[number]
            jobs, mask_bytes = _jobs(unit, shard.rows, quantized, piece)
            raw = unit.run(
                self._placed[shard.rows],
                self._alive[shard],
                jobs,
                piece.starts,
                quantized.num_tables,
                mask_bytes,
                piece.k,
                self._contract.sum_max,
            )
            found.append(_to_floats(raw, quantized))
        return merge_candidates(found, piece.k)

    def _fill_tables(self, unit: ScanUnit, shard_set: ShardSet, piece: ScanRequest) -> _Quantized:
        index = shard_set.index
        assert index is not None, "an exact collection has no PQ scan"
        n, lists = len(piece.queries), piece.lists
        per_list = shard_set.metric is Metric.L2
        num_tables = len(lists) if per_list else n
        tables = unit.tables.view(np.uint16, (num_tables, index.m * CODES))
        biases, bases = np.empty(len(lists), np.int64), np.empty(n)
        scales = np.empty(n, np.float32)
        limits = kernels.limits_of(self._contract.table_max, self._contract.span_limit(index.m))
        fill = kernels.tables_mode_a if per_list else kernels.tables_mode_b
        fill(
            piece.queries, lists, piece.starts, index.centroids, index.codebooks_t,
            limits, self._contract.sum_max, tables, biases, bases, scales,
        )  # fmt: skip
        of_query = np.repeat(np.arange(n), np.diff(piece.starts))
        table_of = np.arange(len(lists)) if per_list else of_query
        return _Quantized(biases, bases, scales, num_tables, table_of)

    def close(self) -> None:
        self._device.close()


def _jobs(
    unit: ScanUnit, rows: ShardRows, quantized: _Quantized, piece: ScanRequest
) -> tuple[I64, int]:
    """Jobs int64 [lists, 5] of one shard, and the bytes of lane masks they use."""
    jobs = np.empty((len(piece.lists), 5), dtype=np.int64)
    jobs[:, 0] = rows.list_offsets[piece.lists]
    jobs[:, 1] = rows.list_offsets[piece.lists + 1] - jobs[:, 0]
    jobs[:, 2] = quantized.table_of
    jobs[:, 3] = quantized.biases
    jobs[:, 4] = -1
    filter_of_job = np.repeat(piece.filter_of.astype(np.int64), np.diff(piece.starts))
    need = int(jobs[filter_of_job >= 0, 1].sum())
    if not (filter_of_job >= 0).any():
        return jobs, 0
    masks = unit.masks.view(np.uint8, (max(need, 1),))
    kernels.lane_masks(jobs, filter_of_job, piece.filters, rows.ids, masks)
    return jobs, max(need, 1)


def _to_floats(raw: RawResult, quantized: _Quantized) -> Candidates:
    """``fixedpoint.to_distance`` for a whole piece."""
    scale = quantized.scales.astype(np.float64)[:, None]
    exact = quantized.bases[:, None] + raw.sums / scale
    return blank_tail(exact.astype(np.float32), raw.rows, raw.counts, raw.codes_scanned)
