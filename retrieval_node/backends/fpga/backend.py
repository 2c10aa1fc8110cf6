"""The fpga backend: tables on the host, the scan on the device, floats on the host."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterable

import numpy as np

from ragschema.types import F32, I64, Metric
from retrieval_node.backends.base import (
    Candidates,
    ScanRequest,
    blank_tail,
    merge_candidates,
    no_candidates,
)
from retrieval_node.backends.fpga.device import Device
from retrieval_node.backends.fpga.driver import (
    PlacedMasks,
    PlacedRows,
    RawResult,
    ScanUnit,
    place,
)
from retrieval_node.backends.fpga.jobs import Piece, Quantized, flatten, jobs_of, live_masks
from retrieval_node.fixedpoint import CODES, Contract
from retrieval_node.native.loader import require_native
from retrieval_node.refine import refine
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import LoadedShard, ShardSet
from retrieval_node.shard_files import IvfIndex

#: Tables or masks of the queries that share one start of the device.
_PIECE_BYTES = 4 << 20
_PIECE_QUERIES = 64


class FpgaBackend:
    """Implements ``base.Backend`` over any device.

    Raises:
        Unavailable: the compiled extension, which makes the tables, is not there.
    """

    name = "fpga"
    pool = None

    def __init__(self, device: Device, contract: Contract | None = None) -> None:
        self._native = require_native()
        self._device = device
        self._contract = contract or Contract()
        self._lock = threading.Lock()
        self._placed: weakref.WeakKeyDictionary[SegmentRows, PlacedRows] = (
            weakref.WeakKeyDictionary()
        )
        self._alive: weakref.WeakKeyDictionary[LoadedShard, dict[SegmentRows, PlacedMasks]] = (
            weakref.WeakKeyDictionary()
        )
        self._units: queue.SimpleQueue[ScanUnit] = queue.SimpleQueue()
        for unit in range(device.compute_units):
            self._units.put(ScanUnit(device, unit))

    @property
    def device(self) -> str:
        return self._device.name

    def load(self, shard_set: ShardSet) -> None:
        """Copies codes and ids to the device.

        Raises:
            CorruptData: stored bytes are not what was written.
            Unavailable: the device's memory is full.
        """
        index = shard_set.index
        if index is None:
            return
        with self._lock:
            for shard in shard_set.shards.values():
                for segment in _coded(shard):
                    self._place_rows(segment, index.m)
                self._place_alive(shard_set, shard)

    def _place_rows(self, segment: SegmentRows, m: int) -> None:
        if segment in self._placed:
            return
        assert segment.codes is not None, "a coded segment"
        segment.row_ids()  # verifies ids and their range: a device cannot
        segment.file.ensure_array("codes")
        addresses = [place(self._device, array).address for array in (segment.codes, segment.ids)]
        self._placed[segment] = PlacedRows(
            codes=addresses[0],
            ids=addresses[1],
            code_bytes=len(segment.codes),
            rows=len(segment.ids),
            row_start=segment.row_start,
            m=m,
        )
        for address in addresses:
            weakref.finalize(segment, self._device.free, address).atexit = False

    def _place_alive(self, shard_set: ShardSet, shard: LoadedShard) -> None:
        if shard in self._alive:
            return
        found: dict[SegmentRows, PlacedMasks] = {}
        for segment in _coded(shard):
            found[segment] = PlacedMasks()
            masks = live_masks(segment, shard_set.live)
            if masks is not None:
                address = place(self._device, masks).address
                weakref.finalize(shard, self._device.free, address).atexit = False
                found[segment] = PlacedMasks(address, len(masks))
        self._alive[shard] = found

    def search(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        unit = self._units.get()
        try:
            parts = []
            for first, last in self._pieces(shard_set, request):
                request.check()
                parts.append(self._scan_piece(unit, shard_set, request.piece(first, last)))
        finally:
            self._units.put(unit)
        found = Candidates(
            distances=np.concatenate([p.distances for p in parts]),
            rows=np.concatenate([p.rows for p in parts]),
            counts=np.concatenate([p.counts for p in parts]),
            codes_scanned=sum(p.codes_scanned for p in parts),
        )
        return refine(shard_set, request, found)

    def _pieces(self, shard_set: ShardSet, request: ScanRequest) -> list[tuple[int, int]]:
        """Cuts a batch so that tables and masks stay within their work areas."""
        index = shard_set.index
        assert index is not None, "an exact collection has no PQ scan"
        n = len(request.queries)
        tables = (request.lists >= 0).sum(axis=1) if _table_per_list(index) else np.ones(n, int)
        cost = tables * index.m * CODES * 2
        if request.filter_of is not None:
            segments = (s for shard in shard_set.shards.values() for s in _coded(shard))
            largest = max((len(segment.ids) // 8 for segment in segments), default=0)
            cost = cost + (request.filter_of >= 0) * largest
        pieces, first, used = [], 0, 0
        for q, bytes_of_query in enumerate(cost.tolist()):
            if q > first and (used + bytes_of_query > _PIECE_BYTES or q - first >= _PIECE_QUERIES):
                pieces.append((first, q))
                first, used = q, 0
            used += bytes_of_query
        return [*pieces, (first, n)]

    def _scan_piece(self, unit: ScanUnit, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        piece = flatten(request)
        quantized = self._fill_tables(unit, shard_set, piece)
        found = [no_candidates(len(request.queries), request.candidates)]
        for number in request.shards:
            shard = shard_set.shards[number]
            for segment in _coded(shard):
                jobs, mask_bytes = jobs_of(unit, segment, quantized, piece)
                raw = unit.run(
                    self._placed[segment],
                    self._alive[shard][segment],
                    jobs,
                    piece.starts,
                    quantized.num_tables,
                    mask_bytes,
                    request.candidates,
                    self._contract.sum_max,
                )
                found.append(_to_floats(raw, quantized))
        return merge_candidates(found if len(found) == 1 else found[1:], request.candidates)

    def _fill_tables(self, unit: ScanUnit, shard_set: ShardSet, piece: Piece) -> Quantized:
        index = shard_set.index
        assert index is not None, "an exact collection has no PQ scan"
        n, lists = len(piece.request.queries), piece.lists
        per_list = _table_per_list(index)
        num_tables = len(lists) if per_list else n
        tables = unit.tables.view(np.uint16, (num_tables, index.m * CODES))
        biases, bases = np.empty(len(lists), np.int64), np.empty(n)
        scales = np.empty(n, np.float32)
        self._native.contract_tables(
            index.handle, piece.request.queries, lists, piece.starts,
            self._contract.table_bits, self._contract.sum_bits, tables, biases, bases, scales,
        )  # fmt: skip
        of_query = np.repeat(np.arange(n), np.diff(piece.starts))
        table_of = np.arange(len(lists)) if per_list else of_query
        return Quantized(biases, bases, scales, num_tables, table_of, index.m)

    def close(self) -> None:
        self._device.close()


def _coded(shard: LoadedShard) -> Iterable[SegmentRows]:
    return (segment for segment in shard.segments if not segment.exact)


def _table_per_list(index: IvfIndex) -> bool:
    """Else one table serves all lists of a query."""
    return index.metric is Metric.L2 and index.residual


def _to_floats(raw: RawResult, quantized: Quantized) -> Candidates:
    """``fixedpoint.to_distance`` for a whole piece."""
    scale = quantized.scales.astype(np.float64)[:, None]
    exact: F32 = (quantized.bases[:, None] + raw.sums / scale).astype(np.float32)
    rows: I64 = raw.rows
    return blank_tail(exact, rows, raw.counts, raw.codes_scanned)
