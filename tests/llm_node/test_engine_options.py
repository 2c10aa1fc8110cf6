from __future__ import annotations

import pytest

from llm_node.engine.config import EngineConfig
from llm_node.engine_options import parse_engine
from ragschema.errors import InvalidInput


def test_what_is_not_named_keeps_its_default() -> None:
    assert parse_engine("", None) == EngineConfig()
    found = parse_engine("step_tokens=256, dtype=bfloat16,prefix_reuse=False", 3)
    assert found == EngineConfig(
        kv_bytes=3 << 20, step_tokens=256, dtype="bfloat16", prefix_reuse=False
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("step_token=5", "did you mean step_tokens"),
        ("block_tokens=x", "block_tokens is 'x' (use a whole number)"),
        ("prefix_reuse=1", "use true or false"),
        ("block_tokens=0", "0 is not positive"),
        ("dtype=int8", "'int8' is no dtype"),
        ("step_tokens=4,max_running=8", "less than one for each of 8"),
    ],
)
def test_wrong_options_name_the_fix(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_engine(text, None)
    assert said in str(caught.value)
