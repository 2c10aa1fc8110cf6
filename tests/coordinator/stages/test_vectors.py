"""Vectors that callers send."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coordinator.stages.vectors import query_vector
from ragschema.errors import InvalidInput
from ragschema.types import F32, Metric


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_other_metrics_keep_the_vector(metric: Metric) -> None:
    vector = np.array([3.0, 4.0], np.float32)
    assert query_vector(vector, 2, metric).tolist() == [3.0, 4.0]
    assert query_vector(np.zeros(2, np.float32), 2, metric).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 3e37])
def test_cosine_makes_it_unit_length(scale: float) -> None:
    unit = query_vector(np.array([3.0, 4.0], np.float32) * np.float32(scale), 2, Metric.COSINE)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [0.6, 0.8], rtol=1e-5)


@pytest.mark.parametrize(
    ("vector", "metric", "what"),
    [
        ([1.0], Metric.L2, "has 1 numbers"),
        ([1.0, 2.0, 3.0], Metric.L2, "have 2"),
        ([np.nan, 1.0], Metric.L2, "NaN"),
        ([np.inf, 1.0], Metric.IP, "NaN or infinity"),
        ([np.inf, -np.inf], Metric.COSINE, "NaN or infinity"),
        ([0.0, 0.0], Metric.COSINE, "all zeros"),
        ([3e38, 3e38], Metric.L2, "length"),
    ],
)
def test_what_cannot_be_searched_is_refused(vector: list[float], metric: Metric, what: str) -> None:
    with pytest.raises(InvalidInput, match=what) as refused:
        query_vector(np.array(vector, np.float32), 2, metric)
    assert refused.value.field == "vector"


@given(
    hnp.arrays(np.float32, 4, elements=st.floats(width=32)),
    st.sampled_from(list(Metric)),
)
def test_what_passes_is_finite(vector: F32, metric: Metric) -> None:
    try:
        ready = query_vector(vector, 4, metric)
    except InvalidInput:
        return
    assert np.isfinite(ready).all()
    if metric is Metric.COSINE:
        assert float(np.linalg.norm(ready)) == pytest.approx(1.0, abs=1e-5)
