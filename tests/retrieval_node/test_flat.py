from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.types import Metric
from retrieval_node import flat
from retrieval_node.fixedpoint import exact_distances, smallest

SETTINGS = settings(max_examples=50, deadline=None)


@SETTINGS
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 40),
    dim=st.integers(1, 50),
    k=st.integers(1, 45),
    metric=st.sampled_from(list(Metric)),
    copies=st.booleans(),
    masked=st.booleans(),
)
def test_flat_scan_equals_the_reference(
    seed: int, n: int, dim: int, k: int, metric: Metric, copies: bool, masked: bool
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    if copies and n:
        vectors[:] = vectors[rng.integers(0, min(n, 3), n)]
    ids = rng.permutation(3 * n + 1)[:n].astype(np.int64)
    queries = rng.normal(size=(2, dim)).astype(np.float32)
    alive = rng.integers(0, 2, n).astype(np.uint8) if masked else np.zeros(0, dtype=np.uint8)
    bitmap = rng.integers(0, 256, (1, (3 * n) // 8 + 1), dtype=np.uint8)
    filter_of = np.array([0 if masked else -1, -1], dtype=np.int32)
    distances, rows = np.zeros((2, k), dtype=np.float32), np.zeros((2, k), dtype=np.int64)
    counts = np.zeros(2, dtype=np.int32)
    flat.flat_scan(
        queries, vectors, ids, alive, bitmap, filter_of, metric is Metric.L2,
        distances, rows, counts,
    )  # fmt: skip
    bits = np.unpackbits(bitmap[0], bitorder="little").astype(bool)
    for q in range(2):
        valid = np.ones(n, dtype=bool)
        if masked:
            valid &= alive.astype(bool)
        if filter_of[q] >= 0:
            valid &= bits[ids]
        want = exact_distances(queries[q], vectors, metric)
        best = smallest(want[valid], ids[valid], k)
        assert counts[q] == len(best)
        assert rows[q, : counts[q]].tolist() == ids[valid][best].tolist()
        np.testing.assert_array_equal(distances[q, : counts[q]], want[valid][best])


@SETTINGS
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 40),
    exponent=st.integers(-8, 4),
    metric=st.sampled_from(list(Metric)),
)
def test_rescoring_reads_float16_exactly(
    seed: int, dim: int, exponent: int, metric: Metric
) -> None:
    """Subnormal float16 values included."""
    rng = np.random.default_rng(seed)
    stored = (10.0**exponent * rng.normal(size=(7, dim))).astype(np.float16)
    queries = rng.normal(size=(2, dim)).astype(np.float32)
    positions = np.array([[6, 0, -1], [3, -1, 3]], dtype=np.int64)
    out = np.full((2, 3), 42.0, dtype=np.float32)
    flat.rescore_half(queries, stored.view(np.uint16), positions, metric is Metric.L2, out)
    for q in range(2):
        want = exact_distances(queries[q], stored.astype(np.float32), metric)
        for c in range(3):
            at = positions[q, c]
            assert out[q, c] == (42.0 if at < 0 else want[at])
