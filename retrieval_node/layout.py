"""Spreading rows over shards so that every list is even."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragschema.types import I64


@dataclass(frozen=True)
class ShardLayout:
    """One shard's rows of a segment.

    Attributes:
        rows: int64 [n], row numbers within the segment, by list, then ascending.
        list_offsets: int64 [nlist + 1].
    """

    rows: I64
    list_offsets: I64


def deal(list_of: I64, nlist: int, num_shards: int, first_row_id: int) -> list[ShardLayout]:
    """Deals rows like cards, list after list.

    Consecutive rows of a list go to consecutive shards, so per list and in all
    the shards differ by at most one row. The first shard follows the segment's
    first row id: many small segments do not pile up on shard 0.
    """
    order = np.argsort(list_of, kind="stable").astype(np.int64)
    shard_of = (np.arange(len(order)) + first_row_id) % num_shards
    layouts = []
    for shard in range(num_shards):
        rows = order[shard_of == shard]
        offsets = np.zeros(nlist + 1, dtype=np.int64)
        np.cumsum(np.bincount(list_of[rows], minlength=nlist), out=offsets[1:])
        layouts.append(ShardLayout(rows, offsets))
    return layouts
