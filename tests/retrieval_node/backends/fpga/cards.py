"""Loaded shards in memory, and what the reference finds in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragschema.types import F32, I32, I64, U8, SnapshotId
from retrieval_node.backends.base import ScanRequest
from retrieval_node.fixedpoint import Contract, TableMode, smallest, to_distance
from retrieval_node.fixedpoint_rows import CodeBiases, saturating_sums_rows, scan_tables_l2_rows
from retrieval_node.layout import group_codes
from retrieval_node.segment import SegmentRows, SoundMemory
from retrieval_node.shard import LoadedShard, ShardSet
from retrieval_node.shard_files import make_index
from tests.retrieval_node.native.contract_reference import Made, Shape, make, reference


@dataclass(frozen=True, eq=False)
class Loaded:
    """A made-up index as a backend sees it."""

    made: Made
    shard_set: ShardSet

    @property
    def rows(self) -> int:
        last = self.made.segments[-1]
        return last.row_start + last.row_count


def load(shape: Shape, seed: int, live: U8 | None = None) -> Loaded:
    """One shard that holds all segments of the shape.

    Args:
        live: a byte per row; None: no row is deleted.
    """
    made = make(shape, seed)
    index = make_index(made.metric, made.centroids, made.codebooks, residual=made.residual)
    segments = tuple(
        SegmentRows(
            Path(f"segment-{number}"), rows.row_start, rows.row_count, rows.ids, rows.offsets,
            group_codes(rows.codes, rows.offsets), None, None, None, SoundMemory(), None,
        )
        for number, rows in enumerate(made.segments)
    )  # fmt: skip
    total = made.segments[-1].row_start + made.segments[-1].row_count
    bitmap = None if live is None else np.packbits(live, bitorder="little")
    shard_set = ShardSet(
        SnapshotId("made", 1), made.metric, made.centroids.shape[1], 1, total, index, False,
        bitmap, {0: LoadedShard(segments, total)},
    )  # fmt: skip
    return Loaded(made, shard_set)


def ask(loaded: Loaded, n: int, nprobe: int, k: int, seed: int) -> ScanRequest:
    """Random queries; some probe fewer lists than others."""
    rng = np.random.default_rng(seed)
    nlist, dim = loaded.made.centroids.shape
    queries = rng.normal(size=(n, dim)).astype(np.float32)
    lists = np.stack([rng.permutation(nlist)[:nprobe] for _ in range(n)]).astype(np.int32)
    lists[rng.random(lists.shape) < 0.1] = -1
    bitmap = loaded.shard_set.live
    return ScanRequest((0,), queries, queries, lists, k, live=bitmap)


def expected(
    loaded: Loaded, request: ScanRequest, query: int, contract: Contract, mode: TableMode | None,
    valid: U8 | None = None,
) -> tuple[F32, I64]:  # fmt: skip
    """Distances and rows of one query by the reference."""
    made, lists = loaded.made, request.lists[query]
    if mode is TableMode.PER_QUERY and made.metric.value == "l2" and made.residual:
        return _expected_rows(loaded, request.queries[query], lists, request.k, contract, valid)
    return reference(made, request.queries[query], lists, request.k, contract, valid)


def _expected_rows(
    loaded: Loaded, query: F32, lists: I32, k: int, contract: Contract, valid: U8 | None
) -> tuple[F32, I64]:
    made, index = loaded.made, loaded.shard_set.index
    assert index is not None
    biases = CodeBiases.of(made.centroids, made.codebooks, index.shift, made.residual)
    own = lists[lists >= 0]
    found = scan_tables_l2_rows(query, own, biases, contract)
    sums, ids = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for rows in made.segments:
        for p, number in enumerate(own.tolist()):
            part = slice(rows.offsets[number], rows.offsets[number + 1])
            codes, row_ids = rows.codes[part], rows.ids[part].astype(np.int64) + rows.row_start
            keep = np.ones(len(row_ids), bool) if valid is None else valid[row_ids].astype(bool)
            stored = biases.encode(number, codes)
            bias = int(found.biases[p])
            sums.append(saturating_sums_rows(found, bias, codes, stored, contract)[keep])
            ids.append(row_ids[keep])
    all_sums, all_ids = np.concatenate(sums), np.concatenate(ids)
    best = smallest(all_sums, all_ids, k)
    return to_distance(all_sums[best], found.base, found.scale), all_ids[best]
