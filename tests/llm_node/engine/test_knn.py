from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from llm_node.engine.knn import check_mix, mixed_logits
from llm_node.engine.request import KnnMix
from ragschema.errors import InvalidInput


def _mix(tokens: list[int], distances: list[float], lam: float = 0.4, t: float = 2.0) -> KnnMix:
    return KnnMix(np.array(tokens, np.int32), np.array(distances, np.float32), lam, t)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_formula(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=50).astype(np.float32) * 3
    tokens = rng.integers(0, 50, 12).astype(np.int32)
    tokens[3] = tokens[5]  # neighbours with the same token add up
    distances = rng.uniform(0, 30, 12).astype(np.float32)
    mix = KnnMix(tokens, distances, float(rng.uniform()), float(rng.uniform(0.5, 10)))
    weights = np.exp(-(distances - distances.min()).astype(np.float64) / mix.temperature)
    p_knn = np.bincount(tokens, weights / weights.sum(), minlength=50)
    p_lm = np.exp(logits.astype(np.float64))
    expected = mix.lam * p_knn + (1 - mix.lam) * p_lm / p_lm.sum()
    found = mixed_logits(torch.from_numpy(logits), mix).exp().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert math.isclose(found.sum(), 1, abs_tol=1e-5)


def test_without_neighbours_the_model_decides() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0])
    for mix in (_mix([], []), _mix([0], [0.0], lam=0.0)):
        assert torch.allclose(mixed_logits(logits, mix), torch.log_softmax(logits, -1))


def test_neighbours_alone() -> None:
    found = mixed_logits(torch.tensor([9.0, 0.0, 0.0]), _mix([1, 2], [0.0, 2.0], lam=1.0)).exp()
    share = 1 / (1 + math.exp(-1))
    assert found.tolist() == pytest.approx([0, share, 1 - share])


def test_far_neighbours_do_not_underflow() -> None:
    found = mixed_logits(torch.zeros(3), _mix([1], [1e30], lam=1.0)).exp()
    assert found.tolist() == pytest.approx([0, 1, 0])


@pytest.mark.parametrize(
    ("mix", "field"),
    [
        (_mix([1, 2], [0.0]), "neighbour_tokens"),
        (_mix([10], [0.0]), "neighbour_tokens"),
        (_mix([-1], [0.0]), "neighbour_tokens"),
        (_mix([1], [math.nan]), "neighbour_distances"),
        (_mix([1], [0.0], lam=1.1), "lam"),
        (_mix([1], [0.0], lam=math.nan), "lam"),
        (_mix([1], [0.0], t=0.0), "temperature"),
        (_mix([1], [0.0], t=math.inf), "temperature"),
    ],
)
def test_wrong_neighbours_are_refused(mix: KnnMix, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_mix(mix, 10)
    assert caught.value.field == field
