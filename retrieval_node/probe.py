"""The nearest lists of a query, for builds, benches and tests.

The coordinator probes by itself in production; the order here is the same:
nearest first, ties by list number.
"""

from __future__ import annotations

import numpy as np

from ragschema.types import F32, I32, Metric


def nearest_lists(queries: F32, centroids: F32, metric: Metric, nprobe: int) -> I32:
    """The nprobe nearest lists per query: int32 [n, min(nprobe, nlist)]."""
    inner = queries @ centroids.T
    if metric is Metric.L2:
        keys = np.einsum("ij,ij->i", centroids, centroids)[None, :] - 2.0 * inner
    else:
        keys = -inner
    width = min(nprobe, len(centroids))
    return np.argsort(keys, axis=1, kind="stable")[:, :width].astype(np.int32)
