from __future__ import annotations

from dataclasses import replace

import pytest

from llm_node.checks import check_generate, check_texts
from llm_node.config import NodeLimits
from ragschema.errors import InvalidInput, PayloadTooLarge
from ragschema.types import ChatMessage, GenerateSpec, Passage, Sampling

LIMITS = NodeLimits(
    max_messages=2, max_passages=2, max_stop=2, max_stop_chars=4, max_prompt_bytes=9
)
GOOD = GenerateSpec((ChatMessage("user", "hi"),), "", ())


def test_texts_are_counted_in_bytes() -> None:
    check_texts(["ää", ""], max_texts=2, max_bytes=4)
    with pytest.raises(PayloadTooLarge, match="5 bytes"):
        check_texts(["ää", "x"], max_texts=2, max_bytes=4)
    with pytest.raises(PayloadTooLarge, match="3 texts"):
        check_texts(["", "", ""], max_texts=2, max_bytes=4)


def test_good_request_passes() -> None:
    check_generate(GOOD, LIMITS)


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"messages": (ChatMessage("robot", "x"),)}, InvalidInput, "messages.0.role"),
        ({"messages": ()}, InvalidInput, "messages"),
        ({"messages": (ChatMessage("user", "x"),) * 3}, PayloadTooLarge, "messages"),
        ({"passages": (Passage(1, "", "x"),) * 3}, PayloadTooLarge, "passages"),
        ({"passages": (Passage(1, "", "x" * 10),)}, PayloadTooLarge, "messages"),
        ({"sampling": Sampling(stop=("a",) * 3)}, PayloadTooLarge, "sampling.stop"),
        ({"sampling": Sampling(stop=("a", ""))}, InvalidInput, "sampling.stop.1"),
        ({"sampling": Sampling(stop=("aaaaa",))}, InvalidInput, "sampling.stop.0"),
    ],
)
def test_bad_requests_name_the_field(
    changes: dict[str, object], error: type[InvalidInput], field: str
) -> None:
    with pytest.raises(error) as caught:
        check_generate(replace(GOOD, **changes), LIMITS)  # type: ignore[arg-type]
    assert caught.value.field == field
