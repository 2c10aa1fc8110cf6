from __future__ import annotations

import math
from typing import Any

import pytest

from ragschema.errors import InvalidInput
from ragschema.sampling import check_sampling
from ragschema.types import Sampling


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -math.inf}, "frequency_penalty"),
        ({"seed": -1}, "seed"),
        ({"logprobs": 21}, "logprobs"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"stop_ids": (3, -1)}, "stop_ids.1"),
    ],
    ids=repr,
)
def test_what_is_out_of_range_is_named_with_its_value_and_range(
    options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_sampling(Sampling(**options))
    name = field.partition(".")[0]
    assert caught.value.field == f"sampling.{field}"
    value = options[name][1] if name == "stop_ids" else options[name]
    assert f" is {value}," in caught.value.message
    assert "use " in str(caught.value)


def test_too_many_stop_ids_are_refused() -> None:
    with pytest.raises(InvalidInput, match="65 stop ids, at most 64"):
        check_sampling(Sampling(stop_ids=tuple(range(65))))


def test_borders_are_allowed() -> None:
    check_sampling(Sampling())
    check_sampling(
        Sampling(
            max_tokens=8, temperature=100, top_p=1e-6, seed=2**64 - 1, min_tokens=8, min_p=1.0,
            repetition_penalty=0.01, presence_penalty=-2, frequency_penalty=2, logprobs=20, n=16,
        )
    )  # fmt: skip
