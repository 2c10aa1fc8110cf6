from __future__ import annotations

from typing import Any

import pytest

from llm_node.generate.extractive import ExtractiveGenerator
from llm_node.generate.support import require_supported
from ragschema.errors import IncompatibleRequest
from ragschema.types import CallContext, GenerateSpec, Sampling


@pytest.mark.parametrize(
    "option",
    [
        {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.2}, {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1}, {"stop_ids": (3,)}, {"min_tokens": 1}, {"ignore_eos": True},
        {"logprobs": 0}, {"n": 2},
    ],
    ids=lambda option: next(iter(option)),
)  # fmt: skip
async def test_what_would_have_no_effect_is_refused(option: dict[str, Any]) -> None:
    spec = GenerateSpec((), "why?", (), Sampling(**option))
    with pytest.raises(IncompatibleRequest, match="extractive") as caught:
        await anext(ExtractiveGenerator().generate(spec, CallContext.start(10)))
    assert caught.value.field == f"sampling.{next(iter(option))}"


def test_what_a_generator_can_do_is_let_through() -> None:
    require_supported(Sampling(temperature=1.0, seed=3, stop=("x",)), "extractive")
    require_supported(Sampling(presence_penalty=1.0), "openai", frozenset({"presence_penalty"}))
