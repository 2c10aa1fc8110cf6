"""Generation with retrieval every few tokens."""

from __future__ import annotations

from typing import Any

import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.cost.interleaved import Interleaved


@pytest.mark.parametrize(
    "model",
    [Interleaved(1, 64, 0.015, 0.09), Interleaved(64, 8, 0.08, 0.02, 2), Interleaved(8, 4, 1, 1)],
)
def test_the_best_share_is_best_among_all_splits(model: Interleaved) -> None:
    total = 10_000
    rates = {n: model.tokens_per_s(n, (total - n) / model.devices_per_set) for n in range(1, total)}
    best = max(rates, key=lambda n: rates[n])
    assert best / total == pytest.approx(model.best_share(), abs=1.5 / total)


def test_rates_follow_the_slower_side() -> None:
    model = Interleaved(interval=2, batch=10, inference_s=1.0, retrieval_s=2.0)
    assert model.tokens_per_s(1, 100) == pytest.approx(5.0)
    assert model.tokens_per_s(100, 1) == pytest.approx(10.0)


@pytest.mark.parametrize("field", ["interval", "batch", "inference_s", "retrieval_s"])
def test_nothing_takes_no_time(field: str) -> None:
    figures: Any = {"interval": 1, "batch": 1, "inference_s": 1.0, "retrieval_s": 1.0, field: 0}
    with pytest.raises(InvalidInput) as caught:
        Interleaved(**figures)
    assert caught.value.field == field
