"""The torch attention against a loop that is plainly right."""

from __future__ import annotations

import random

import pytest
import torch

from llm_node.engine.attention import AttentionParams
from llm_node.engine.attention_torch import attend, group_by_length
from tests.llm_node.engine.ragged import largest_error

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_ragged_batches(device: str, window: int | None, softcap: float | None) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    how = AttentionParams(0, 0.3, window, softcap)
    assert largest_error(attend, how, device) < 2e-5


def test_groups_hold_everybody_once_with_little_padding() -> None:
    rng = random.Random(5)
    for _ in range(50):
        lengths = [rng.choice([1, 10, 100, 1000]) + rng.randrange(50) for _ in range(20)]
        groups = group_by_length(lengths)
        assert sorted(i for group in groups for i in group) == list(range(20))
        for group in groups:
            real = sum(lengths[i] for i in group)
            assert len(group) * max(lengths[i] for i in group) - real <= 0.25 * real + 64
    assert group_by_length([]) == []
    assert len(group_by_length([300, 310, 320, 290])) == 1
