from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence

import numpy as np
import pytest

from llm_node.device.scheduler import Device
from llm_node.embed.scheduler import EmbedScheduler
from llm_node.roles import TokenizedText
from ragschema.errors import InternalError, Overloaded, Unavailable
from ragschema.types import F32, I32, EmbedPurpose, ModelInfo, Role

PASSAGE, QUERY = EmbedPurpose.PASSAGE, EmbedPurpose.QUERY


class _Lengths:
    """An embedder whose vector is the text's length; passes wait for the gate."""

    def __init__(self) -> None:
        self.info = ModelInfo(Role.EMBED, "lengths", "f", 1, None)
        self.gate = threading.Event()
        self.gate.set()
        self.passes: list[list[int]] = []

    def encode(self, texts: Sequence[str], purpose: EmbedPurpose) -> list[TokenizedText]:
        return [TokenizedText((len(text),) * max(1, len(text)), False) for text in texts]

    def forward(self, batch: Sequence[TokenizedText]) -> F32:
        assert self.gate.wait(20)
        self.passes.append([text.ids[0] for text in batch])
        if any(text.ids[0] == 13 for text in batch):
            raise ValueError("unlucky")
        return np.array([[text.ids[0]] for text in batch], dtype=np.float32)

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        raise NotImplementedError


@pytest.fixture
async def model() -> _Lengths:
    return _Lengths()


@pytest.fixture
async def device(model: _Lengths) -> AsyncIterator[Device]:
    device = Device("cpu")
    yield device
    model.gate.set()
    await device.close()


@pytest.fixture
def queue(model: _Lengths, device: Device) -> Iterator[EmbedScheduler]:
    lane = device.lane("embed")
    scheduler = EmbedScheduler(model, lane, max_waiting=3, max_pending_bytes=1000, max_batch=4)
    device.start()
    yield scheduler
    scheduler.close()


async def _until_running(queue: EmbedScheduler, running: int) -> None:
    async with asyncio.timeout(20):
        while queue.running != running:
            await asyncio.sleep(0.001)


async def test_order_is_kept_and_long_texts_go_first(
    model: _Lengths, queue: EmbedScheduler
) -> None:
    got = await queue.embed(["a" * n for n in (3, 9, 1, 7, 5)], PASSAGE)
    assert got.vectors[:, 0].tolist() == [3, 9, 1, 7, 5]
    assert [sorted(one) for one in model.passes] == [[3, 5, 7, 9], [1]]
    assert got.tokens == 25
    assert (queue.running, queue.waiting) == (0, 0)


async def test_no_texts_is_an_empty_answer(queue: EmbedScheduler) -> None:
    assert (await queue.embed([], PASSAGE)).vectors.shape == (0, 1)


async def test_requests_that_wait_together_share_a_pass(
    model: _Lengths, queue: EmbedScheduler
) -> None:
    model.gate.clear()
    first = asyncio.create_task(queue.embed(["a"], QUERY))
    await _until_running(queue, 1)
    others = [asyncio.create_task(queue.embed(["a" * n], QUERY)) for n in (2, 3)]
    await asyncio.sleep(0)
    assert queue.waiting == 2
    model.gate.set()
    await asyncio.gather(first, *others)
    assert model.passes == [[1], [2, 3]]


async def test_queries_overtake_an_ingestion(model: _Lengths, queue: EmbedScheduler) -> None:
    model.gate.clear()
    ingest = asyncio.create_task(queue.embed(["a" * 20] * 12, PASSAGE))
    await _until_running(queue, 1)
    query = asyncio.create_task(queue.embed(["b"], QUERY))
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(query, ingest)
    assert model.passes == [[20] * 4, [1], [20] * 4, [20] * 4]


async def test_a_flood_of_queries_does_not_starve_an_ingestion(
    model: _Lengths, device: Device
) -> None:
    lane = device.lane("embed")
    scheduler = EmbedScheduler(model, lane, max_waiting=100, max_pending_bytes=10**6, max_batch=1)
    model.gate.clear()
    queries = [asyncio.create_task(scheduler.embed(["q"], QUERY)) for _ in range(20)]
    ingest = asyncio.create_task(scheduler.embed(["aa"], PASSAGE))
    await asyncio.sleep(0)
    device.start()
    model.gate.set()
    await asyncio.gather(*queries, ingest)
    assert model.passes.index([2]) == 4


async def test_full_queue_refuses(model: _Lengths, queue: EmbedScheduler) -> None:
    model.gate.clear()
    tasks = [asyncio.create_task(queue.embed(["a"], PASSAGE))]
    await _until_running(queue, 1)
    tasks += [asyncio.create_task(queue.embed(["a"], PASSAGE)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="3 embedding requests"):
        await queue.embed(["a"], PASSAGE)
    model.gate.set()
    await asyncio.gather(*tasks)
    await queue.embed(["a"], PASSAGE)


async def test_too_much_waiting_text_refuses(model: _Lengths, queue: EmbedScheduler) -> None:
    model.gate.clear()
    task = asyncio.create_task(queue.embed(["a" * 600], PASSAGE))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="600 bytes"):
        await queue.embed(["a" * 600], PASSAGE)
    model.gate.set()
    await task


async def test_cancelled_request_is_dropped(model: _Lengths, queue: EmbedScheduler) -> None:
    model.gate.clear()
    task = asyncio.create_task(queue.embed(["a" * 9] * 40, PASSAGE))
    await _until_running(queue, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (queue.running, queue.waiting) == (0, 0)
    model.gate.set()
    await queue.embed(["a"], PASSAGE)
    assert model.passes == [[9] * 4, [1]]


async def test_failing_pass_fails_its_requests_alone(queue: EmbedScheduler) -> None:
    with pytest.raises(InternalError, match="failed on this batch"):
        await queue.embed(["a" * 13], PASSAGE)
    assert (await queue.embed(["a" * 4], PASSAGE)).vectors.tolist() == [[4.0]]
    assert (queue.running, queue.waiting) == (0, 0)


async def test_closing_answers_those_who_wait(model: _Lengths, device: Device) -> None:
    scheduler = EmbedScheduler(model, device.lane("embed"), 4, 1000)
    task = asyncio.create_task(scheduler.embed(["a"], PASSAGE))
    await asyncio.sleep(0)
    scheduler.close()
    with pytest.raises(Unavailable, match="shuts down"):
        await task
    assert (scheduler.running, scheduler.waiting) == (0, 0)
