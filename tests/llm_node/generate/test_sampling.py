from __future__ import annotations

import pytest
import torch

from llm_node.generate.sampling import Sampler
from ragschema.errors import InternalError
from ragschema.types import Sampling

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])


def test_greedy_takes_the_best() -> None:
    assert Sampler(Sampling(temperature=0)).choose(LOGITS) == 1


def test_seed_decides_and_global_state_does_not() -> None:
    def draw(seed: int) -> list[int]:
        torch.manual_seed(torch.randint(0, 1000, (1,)).item())
        sampler = Sampler(Sampling(temperature=2.0, seed=seed))
        return [sampler.choose(LOGITS) for _ in range(40)]

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    state = torch.get_rng_state()
    Sampler(Sampling(temperature=2.0, seed=7)).choose(LOGITS)
    Sampler(Sampling(temperature=2.0)).choose(LOGITS)
    assert torch.equal(state, torch.get_rng_state())


def test_largest_seed_is_accepted() -> None:
    assert Sampler(Sampling(temperature=1.0, seed=2**64 - 1)).choose(LOGITS) in range(4)


def test_shares_follow_the_softmax() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=11))
    drawn = torch.tensor([sampler.choose(LOGITS) for _ in range(4000)]).bincount(minlength=4)
    assert torch.allclose(drawn / 4000, torch.softmax(LOGITS, 0), atol=0.04)


@pytest.mark.parametrize(("top_p", "allowed"), [(0.1, {1}), (0.8, {1, 2}), (0.95, {0, 1, 2})])
def test_top_p_keeps_the_fewest(top_p: float, allowed: set[int]) -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_p=top_p, seed=1))
    assert {sampler.choose(LOGITS) for _ in range(300)} == allowed


def test_tiny_temperature_is_nearly_greedy() -> None:
    sampler = Sampler(Sampling(temperature=1e-30, seed=2))
    assert {sampler.choose(LOGITS) for _ in range(20)} == {1}


def test_nan_is_reported() -> None:
    with pytest.raises(InternalError, match="NaN"):
        Sampler(Sampling()).choose(torch.tensor([1.0, float("nan")]))
