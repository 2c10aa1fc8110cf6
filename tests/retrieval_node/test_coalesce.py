"""Put together, searched and cut apart equals searched alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragschema.errors import InvalidInput
from ragschema.types import SearchBatch, SearchResult, SearchStats, SnapshotId
from retrieval_node.coalesce import CoalesceLimits, batch_key, merge, split

DIM = 3
ROWS = 40


def answer(batch: SearchBatch) -> SearchResult:
    """A small search that uses every part of a batch: list i holds rows i, i + 8, ..."""
    n, k = len(batch.queries), batch.k
    distances = np.zeros((n, k), np.float32)
    rows = np.zeros((n, k), np.int64)
    counts = np.zeros(n, np.int32)
    scanned = 0
    for q in range(n):
        allowed = np.ones(ROWS, bool)
        if batch.list_ids is not None:
            wanted = batch.list_ids[q][batch.list_ids[q] >= 0]
            allowed = np.isin(np.arange(ROWS) % 8, wanted)
            scanned += 5 * len(wanted)
        if batch.filter_of is not None and batch.filter_of[q] >= 0:
            bits = np.unpackbits(batch.filters[batch.filter_of[q]], bitorder="little")
            allowed = allowed & bits.astype(bool)
        found = np.flatnonzero(allowed)
        far = np.abs(found % 7 - batch.queries[q].sum()).astype(np.float32)
        order = np.lexsort((found, far))[:k]
        counts[q] = len(order)
        distances[q, : len(order)], rows[q, : len(order)] = far[order], found[order]
    stats = SearchStats(codes_scanned=scanned, bytes_scanned=16 * scanned, scan_us=7)
    return SearchResult(distances, rows, counts, ROWS, stats)


@st.composite
def batches(draw: st.DrawFn) -> list[SearchBatch]:
    """Some that may be put together."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    exact = draw(st.booleans())
    made = []
    for _ in range(draw(st.integers(1, 5))):
        n, nprobe, filters = (
            draw(st.integers(1, 4)),
            draw(st.integers(1, 4)),
            draw(st.integers(0, 2)),
        )
        lists = np.stack([rng.permutation(8)[:nprobe] for _ in range(n)]).astype(np.int32)
        lists[rng.random(lists.shape) < 0.2] = -1
        made.append(
            SearchBatch(
                SnapshotId("docs", 1), (0, 1),
                rng.integers(-3, 3, (n, DIM)).astype(np.float32),
                None if exact else lists,
                draw(st.integers(1, 12)),
                filters=tuple(rng.integers(0, 256, (filters, ROWS // 8), dtype=np.uint8)),
                filter_of=rng.integers(-1, filters, n).astype(np.int32) if filters else None,
            )
        )  # fmt: skip
    return made


@given(batches())
def test_put_together_equals_alone(made: list[SearchBatch]) -> None:
    assert len({batch_key(b) for b in made}) == 1
    merged = merge(made)
    assert merged.queries.dtype == np.float32
    assert merged.list_ids is None or merged.list_ids.dtype == np.int32
    assert merged.filter_of is None or merged.filter_of.dtype == np.int32
    whole = answer(merged)
    parts = split(whole, made)
    for batch, part in zip(made, parts, strict=True):
        alone = answer(batch)
        np.testing.assert_array_equal(part.distances, alone.distances)
        np.testing.assert_array_equal(part.row_ids, alone.row_ids)
        np.testing.assert_array_equal(part.counts, alone.counts)
        assert part.stats.scan_us == 7
        assert part.stats.batch_queries == len(merged.queries)
        assert np.shares_memory(part.distances, whole.distances)
    for name in ("codes_scanned", "bytes_scanned", "survivors"):
        assert sum(getattr(p.stats, name) for p in parts) == getattr(whole.stats, name)
    # Every list holds as many codes here, so that the shares are exact.
    for batch, part in zip(made, parts, strict=True):
        assert part.stats.codes_scanned == answer(batch).stats.codes_scanned


BATCH = SearchBatch(
    SnapshotId("docs", 1), (0,), np.zeros((1, DIM), np.float32), np.zeros((1, 1), np.int32), 3
)


def test_one_alone_is_not_touched() -> None:
    assert merge([BATCH]) is BATCH
    result = answer(BATCH)
    (part,) = split(result, [BATCH])
    assert part.distances is result.distances
    assert part.stats == replace(result.stats, batch_queries=1)


@pytest.mark.parametrize(
    "other",
    [
        replace(BATCH, snapshot=SnapshotId("docs", 2)),
        replace(BATCH, shards=(1,)),
        replace(BATCH, refine_k=9),
        replace(BATCH, list_ids=None),
        replace(BATCH, list_ids=None, exact=True),
    ],
)
def test_searches_of_different_kinds_are_not_put_together(other: SearchBatch) -> None:
    assert batch_key(other) != batch_key(BATCH)


@pytest.mark.parametrize("name", ["max_batch", "max_wait_us"])
@pytest.mark.parametrize("value", [-1, 10_000_000])
def test_limits_that_cannot_be(name: str, value: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        CoalesceLimits(**{name: value})
    assert caught.value.field == f"coalesce.{name}"
