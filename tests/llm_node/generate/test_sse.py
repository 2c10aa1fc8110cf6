from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from llm_node.generate import sse
from ragschema.errors import UpstreamError


async def _chunks(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


async def _read(*parts: bytes) -> list[dict[str, Any]]:
    return [event async for event in sse.read_events(_chunks(*parts), "server")]


async def test_events_over_any_chunk_border() -> None:
    whole = 'event: x\r\n: note\r\ndata: {"a": "ä"}\r\n\r\ndata:{"b":2}\n\ndata: [DONE]\n'.encode()
    for cut in range(len(whole)):
        assert await _read(whole[:cut], whole[cut:]) == [{"a": "ä"}, {"b": 2}]


async def test_nothing_after_done_is_read() -> None:
    assert await _read(b"data: [DONE]\n\ndata: broken\n") == []


async def test_last_line_may_lack_its_end() -> None:
    assert await _read(b'data: {"a": 1}') == [{"a": 1}]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<html>hello</html>\n", "does not stream"),
        (b"data: {not json}\n", "not JSON"),
        (b"data: [1]\n", "no object"),
        (b"data: " + b"[" * 100_000 + b"\n", "nested too deeply"),
        (b"data: " + b'{"a":' * 100_000 + b"\n", "nested too deeply"),
        (b"data: " + b"9" * 5000 + b"\n", "not JSON"),
        (b"data: \xff\xfe\n", "not UTF-8"),
    ],
)
async def test_garbage_is_reported(raw: bytes, message: str) -> None:
    with pytest.raises(UpstreamError, match=message):
        await _read(raw)


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (["a\ud83d", "\ude00b"], ["a", "\U0001f600b", ""]),
        (["\ud83d", "", "\ude00"], ["", "", "\U0001f600", ""]),
        (["\ud83d", "b"], ["", "\ufffdb", ""]),
        (["\ude00b"], ["\ufffdb", ""]),
        (["\ud83d", "\ud83d", "\ude00"], ["", "\ufffd", "\U0001f600", ""]),
        (["a\ud83d"], ["a", "\ufffd"]),
        (["H\u00e9l", "lo \U0001f600", "\0"], ["H\u00e9l", "lo \U0001f600", "\0", ""]),
    ],
)
def test_halves_of_a_pair_are_joined_or_replaced(pieces: list[str], told: list[str]) -> None:
    pairs = sse.Pairs()
    assert [*map(pairs.take, pieces), pairs.end()] == told


async def test_endless_line_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_LINE_BYTES", 100)
    with pytest.raises(UpstreamError, match="over 100 bytes"):
        await _read(*[b"data: " + b"x" * 30] * 10)
