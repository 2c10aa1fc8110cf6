"""What the coordinator's values look like in JSON."""

from __future__ import annotations

import math

import orjson

from coordinator.rest.encode import logprobs_json, to_json
from ragschema.types import TokenChance, TokenLogprob


def test_log_probabilities_are_always_numbers() -> None:
    """JSON has no infinity: orjson would write null where clients read a number."""
    sure, never = TokenChance("a", b"a", 0.0), TokenChance("b", b"b", -math.inf)
    told = orjson.loads(to_json(logprobs_json([TokenLogprob(sure, (sure, never))])))
    (content,) = told["content"]
    assert content["logprob"] == 0.0
    assert [one["logprob"] for one in content["top_logprobs"]] == [0.0, -9999.0]
    (forced,) = logprobs_json([TokenLogprob(never)])["content"]
    assert forced["logprob"] == -9999.0
