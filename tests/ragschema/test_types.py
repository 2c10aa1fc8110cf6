"""Deadlines and metrics."""

from __future__ import annotations

import time

import pytest

from ragschema.errors import DeadlineExceeded
from ragschema.types import CallContext, Metric


def test_a_context_counts_down() -> None:
    context = CallContext.start(60.0, "0123456789abcdef")
    assert context.trace_id == "0123456789abcdef"
    assert 0 < context.remaining_s() <= 60.0


def test_fresh_trace_ids_differ() -> None:
    ids = {CallContext.start(1.0).trace_id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(i) == 16 for i in ids)


def test_a_passed_deadline_raises_with_the_trace_id() -> None:
    context = CallContext("0123456789abcdef", time.monotonic() - 0.001)
    with pytest.raises(DeadlineExceeded) as caught:
        context.remaining_s()
    assert caught.value.trace_id == "0123456789abcdef"
    assert caught.value.hint


@pytest.mark.parametrize("metric", list(Metric))
def test_a_nearer_row_has_the_larger_score(metric: Metric) -> None:
    assert metric.score(0.25) > metric.score(0.5)
