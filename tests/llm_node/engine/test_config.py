from __future__ import annotations

from typing import Any

import pytest

from llm_node.engine.config import EngineConfig
from llm_node.engine.request import PausePolicy
from ragschema.errors import InvalidInput


@pytest.mark.parametrize(
    "options",
    [
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"dtype": "int8"},
        {"block_tokens": 0},
        {"max_running": 0},
        {"step_tokens": 31},
        {"prefill_chunk": -1},
        {"threads": 0},
        {"kv_bytes": 0},
        {"max_tokens_per_request": 0},
    ],
)
def test_options_without_sense_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        EngineConfig(**options)
    assert caught.value.field == next(iter(options))


def test_options_with_sense() -> None:
    EngineConfig(device="cuda:3", dtype="float16", kv_bytes=1, threads=2, cuda_graphs=True)


def test_a_pause_after_no_tokens() -> None:
    with pytest.raises(InvalidInput, match="0 is not positive"):
        PausePolicy(every_tokens=0)
