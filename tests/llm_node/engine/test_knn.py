from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from llm_node.engine.knn import check_mix, mixed_logits
from llm_node.engine.request import KnnMix
from llm_node.engine.sampler import Sampler, SamplerRow
from ragschema.errors import InvalidInput
from ragschema.types import Sampling


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


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-300, 1e-30])
def test_next_to_no_temperature_leaves_the_nearest(temperature: float) -> None:
    near = _mix([1, 3, 2], [2.0, 1.0, 1.0], lam=0.5, t=temperature)
    assert mixed_logits(torch.zeros(4), near).exp().tolist() == pytest.approx(
        [0.125, 0.125, 0.375, 0.375]
    )
    far = _mix([1, 2], [3e38, 1e38], lam=0.5, t=temperature)
    assert mixed_logits(torch.zeros(4), far).exp().tolist() == pytest.approx(
        [0.125, 0.125, 0.625, 0.125]
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_model_decides_where_all_that_neighbours_say_is_held_back(temperature: float) -> None:
    """The end of the text is all they know, and it may not come yet."""
    logits = torch.tensor([-2.0, 9.0, 1.0, 20.0, 1.5])
    mixed = mixed_logits(logits, _mix([1], [0.0], lam=1.0))
    assert torch.isfinite(mixed).all()
    assert Sampler().choose(mixed[None], [_row(temperature, seed=0, ends=())])[0].token_id == 1
    rows = [_row(temperature, seed, ends=(1,)) for seed in range(20)]
    chosen = Sampler().choose(mixed.repeat(20, 1), rows)
    assert {one.token_id for one in chosen} == {3}


def test_log_probabilities_of_what_neighbours_rule_out_are_numbers() -> None:
    mixed = mixed_logits(torch.tensor([1.0, 2.0, 3.0]), _mix([0], [0.0], lam=1.0))
    row = _row(0.0, seed=1, ends=(), logprobs=3)
    (chosen,) = Sampler().choose(mixed[None], [row])
    assert (chosen.token_id, chosen.logprob) == (0, 0.0)
    assert [token_id for token_id, _ in chosen.top] == [0, 2, 1]
    assert all(math.isfinite(value) for _, value in chosen.top)


def _row(temperature: float, seed: int, ends: tuple[int, ...], **more: Any) -> SamplerRow:
    sampling = Sampling(temperature=temperature, min_tokens=5, **more)
    return SamplerRow(sampling, [], [], seed, ends)


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
