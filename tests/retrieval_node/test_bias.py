"""The stored part of a distance: what it adds up to, and that it is a lower bound."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.types import F32, U8, Metric
from retrieval_node.bias import BiasEncoder
from retrieval_node.shard_files import IvfIndex, make_index


def _index(seed: int, residual: bool, scale: float = 1.0, shift: F32 | None = None) -> IvfIndex:
    rng = np.random.default_rng(seed)
    centroids = scale * (3 + rng.normal(size=(3, 12)))
    codebooks = scale * rng.normal(size=(4, 256, 3))
    return make_index(
        Metric.L2,
        centroids.astype(np.float32),
        codebooks.astype(np.float32),
        residual=residual,
        shift=shift,
    )


def _decoded(index: IvfIndex, codes: U8) -> np.ndarray:  # type: ignore[type-arg]
    picked = index.codebooks[np.arange(index.m), codes]
    return picked.reshape(len(codes), -1).astype(np.float64)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_distances_add_up(residual: bool, shifted: bool) -> None:
    shift = np.full(12, 0.7, dtype=np.float32) if shifted else np.zeros(12, dtype=np.float32)
    index = _index(1, residual, shift=shift)
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (100, 4), dtype=np.uint8)
    query = rng.normal(size=12)
    r = _decoded(index, codes)
    for number in range(3):
        centroid = index.centroids[number].astype(np.float64) if residual else np.zeros(12)
        t = BiasEncoder(index).terms(number, codes)
        true = ((query - centroid - r) ** 2).sum(axis=1)
        sum_of_parts = ((query - centroid) ** 2).sum() + t - 2 * r @ (query - index.shift)
        np.testing.assert_allclose(sum_of_parts, true, rtol=1e-9)


def test_the_shift_of_a_new_index_is_the_mean_of_residual_centroids() -> None:
    index = _index(3, residual=True)
    np.testing.assert_allclose(index.shift, index.centroids.mean(axis=0), rtol=1e-5)
    assert not _index(3, residual=False).shift.any()


def test_rows_of_a_list_are_ordered_by_their_terms() -> None:
    index = _index(5, residual=True)
    codes = np.random.default_rng(5).integers(0, 256, (300, 4), dtype=np.uint8)
    codes[200:] = codes[:100]
    encoder = BiasEncoder(index)
    for number in range(3):
        order = encoder.order(number, codes)
        assert sorted(order.tolist()) == list(range(300))
        assert (np.diff(encoder.terms(number, codes[order])) >= 0).all()
        place = np.argsort(order)
        assert (place[:100] < place[200:]).all(), "equal terms keep their order"


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6, 1e-25, 1e15])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 700])
def test_stored_terms_are_tight_lower_bounds(scale: float, rows: int) -> None:
    index = _index(4, residual=True, scale=scale)
    codes = np.random.default_rng(rows).integers(0, 256, (rows, 4), dtype=np.uint8)
    encoder = BiasEncoder(index)
    for number in range(3):
        t = encoder.terms(number, codes)
        stored, (base, step) = encoder.encode(number, codes)
        assert len(stored) == -(-rows // 64) * 64
        assert (stored[rows:] == 65_535).all()
        back = (base + step * stored[:rows].astype(np.float32)).astype(np.float64)
        assert (back <= t).all()
        slack = 1.01 * (t.max() - t.min()) / 65_535 + 4e-6 * np.abs(t).max() + 1e-44
        assert (t - back <= slack).all()


def test_equal_terms_need_no_step() -> None:
    index = _index(5, residual=True)
    codes = np.full((70, 4), 9, dtype=np.uint8)
    t = BiasEncoder(index).terms(0, codes)
    stored, (base, step) = BiasEncoder(index).encode(0, codes)
    back = base + step * stored[:70].astype(np.float32)
    assert (back <= t).all()
    np.testing.assert_allclose(back, t, rtol=1e-5)
