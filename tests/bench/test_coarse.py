"""The coarse benchmark measures two searches that find the same."""

from __future__ import annotations

import numpy as np

from bench.coarse import NPROBE, measure
from bench.datasets import Dataset


def test_both_contestants_find_the_same_lists() -> None:
    rng = np.random.default_rng(2)
    base, queries = (rng.standard_normal((n, 16)).astype(np.float32) for n in (50, 8))
    point = measure(Dataset(base, queries, 2, 1), 40, 2)
    assert point.equal_lists == 1.0
    shown = point.shown()
    assert shown["nlist"] == 40
    assert shown["nprobe"] == NPROBE
    assert shown["coarse_us_per_query"] > 0
    assert shown["ratio_to_faiss"] > 0
