"""A real node process, spoken to over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragschema.errors import Cancelled, IncompatibleRequest, InvalidInput
from ragschema.types import CallContext, ChatMessage, GenerateSpec, Sampling
from ragschema.wire import augment_pb2, augment_pb2_grpc, llm_pb2, llm_pb2_grpc
from ragschema.wire.client import NodeClient
from ragschema.wire.convert import tensor_from_wire, tensor_to_wire
from ragschema.wire.generating import generate_to_wire
from tests.llm_node.process import node_process

SPEC = generate_to_wire(GenerateSpec((ChatMessage("user", "go"),), "", (), Sampling(max_tokens=8)))
INTERVAL = augment_pb2.IntervalRetrieval(
    every_tokens=3, max_rounds=5, recent_tokens=2, want_hidden=True
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, long_llama: Path) -> Iterator[str]:
    options = ("--roles", "generate", "--generator", f"hf:{long_llama}")
    with node_process(tmp_path_factory.mktemp("node"), *options) as found:
        yield found


@pytest.fixture
async def client(address: str) -> AsyncIterator[NodeClient]:
    one = NodeClient("llm-0", address)
    yield one
    await one.close()


def start(**fields: Any) -> augment_pb2.AugmentMessage:
    return augment_pb2.AugmentMessage(start=augment_pb2.AugmentStart(request=SPEC, **fields))


async def run(client: NodeClient, *messages: augment_pb2.AugmentMessage) -> list[Any]:
    """All events of a stream whose messages are known beforehand."""

    async def said() -> AsyncIterator[augment_pb2.AugmentMessage]:
        for message in messages:
            yield message

    stub: Any = augment_pb2_grpc.AugmentNodeStub(client.channel)
    events = client.stream(stub.Augment, said(), CallContext.start(60))
    return [event async for event in events]


async def test_events_come_in_order_and_tell_what_was_asked_for(client: NodeClient) -> None:
    passages = augment_pb2.AugmentMessage(passages=augment_pb2.Passages(texts=["the dog "]))
    events = await run(client, start(interval=INTERVAL), passages, passages)
    wanted = [event.wanted for event in events if event.WhichOneof("event") == "wanted"]
    assert [(w.round, w.reason) for w in wanted] == [(1, "interval"), (2, "interval")]
    for one in wanted:
        assert tensor_from_wire(one.hidden, np.float32, 1, "hidden").shape == (32,)
    done = events[-1].done
    assert done.rounds == 2
    assert done.done.completion_tokens == 8
    assert done.context_tokens > 0
    assert done.dropped_passages == 0


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (augment_pb2.AugmentMessage(passages=augment_pb2.Passages()), "start"),
        (start(), "kind"),
        (start(interval=augment_pb2.IntervalRetrieval(max_rounds=1)), "every_tokens"),
        (start(interval=augment_pb2.IntervalRetrieval(triggers=["a"] * 65)), "triggers"),
        (start(neighbours=augment_pb2.NeighbourMixing(lam=1.5, temperature=1)), "lam"),
        (start(neighbours=augment_pb2.NeighbourMixing(lam=0.5, temperature=0)), "temperature"),
        (start(neighbours=augment_pb2.NeighbourMixing(lam=float("nan"), temperature=1)), "lam"),
    ],
)
async def test_a_wrong_start_names_the_field(
    client: NodeClient, message: augment_pb2.AugmentMessage, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await run(client, message)
    assert caught.value.field == field


async def test_wrong_neighbours_name_the_field(client: NodeClient) -> None:
    begun = start(neighbours=augment_pb2.NeighbourMixing(lam=0.5, temperature=1))

    def answer(tokens: Any, distances: Any) -> augment_pb2.AugmentMessage:
        return augment_pb2.AugmentMessage(
            neighbours=augment_pb2.Neighbours(
                tokens=tensor_to_wire(tokens), distances=tensor_to_wire(distances)
            )
        )

    one = np.ones(1, np.float32)
    with pytest.raises(InvalidInput, match="NaN"):
        await run(client, begun, answer(np.ones(1, np.int32), one * np.nan))
    with pytest.raises(InvalidInput, match="the model knows") as caught:
        await run(client, begun, answer(np.full(1, 1 << 30, np.int32), one))
    assert caught.value.field == "neighbour_tokens"
    with pytest.raises(InvalidInput, match="answers nothing"):
        await run(client, begun, begun)


async def test_a_caller_that_leaves_frees_its_slot(client: NodeClient) -> None:
    with pytest.raises(Cancelled, match="caller left"):
        await run(client, start(interval=INTERVAL))
    stub: Any = llm_pb2_grpc.LlmNodeStub(client.channel)

    async def running() -> int:
        status = await client.call(stub.Status, llm_pb2.LlmStatusRequest(), CallContext.start(30))
        return int(status.running)

    waits = asyncio.Event()

    async def said() -> AsyncIterator[augment_pb2.AugmentMessage]:
        yield start(interval=INTERVAL)
        await waits.wait()

    augment: Any = augment_pb2_grpc.AugmentNodeStub(client.channel)
    events = client.stream(augment.Augment, said(), CallContext.start(60))
    async for event in events:
        if event.WhichOneof("event") == "wanted":
            break
    assert await running() == 1
    await events.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(20):
        while await running():
            await asyncio.sleep(0.01)


async def test_hidden_states_have_a_row_per_token(client: NodeClient) -> None:
    stub: Any = augment_pb2_grpc.AugmentNodeStub(client.channel)
    request = augment_pb2.HiddenStatesRequest(texts=["the quick fox", "", "a dog"])
    reply = await client.call(stub.HiddenStates, request, CallContext.start(60))
    counts = tensor_from_wire(reply.counts, np.int32, 1, "counts")
    hidden = tensor_from_wire(reply.hidden, np.float32, 2, "hidden")
    assert counts[1] == 0
    assert hidden.shape == (counts.sum(), 32)
    assert np.isfinite(hidden).all()


async def test_no_text_has_no_states(client: NodeClient) -> None:
    stub: Any = augment_pb2_grpc.AugmentNodeStub(client.channel)
    for texts in ([], ["", ""]):
        request = augment_pb2.HiddenStatesRequest(texts=texts)
        reply = await client.call(stub.HiddenStates, request, CallContext.start(60))
        counts = tensor_from_wire(reply.counts, np.int32, 1, "counts")
        assert counts.tolist() == [0] * len(texts)
        assert tensor_from_wire(reply.next_tokens, np.int32, 1, "next_tokens").shape == (0,)
        assert tensor_from_wire(reply.hidden, np.float32, 2, "hidden").size == 0


async def test_more_short_texts_than_the_engine_takes_requests(client: NodeClient) -> None:
    stub: Any = augment_pb2_grpc.AugmentNodeStub(client.channel)
    request = augment_pb2.HiddenStatesRequest(texts=["ab", "cde"] * 550)
    reply = await client.call(stub.HiddenStates, request, CallContext.start(120))
    counts = tensor_from_wire(reply.counts, np.int32, 1, "counts")
    assert len(counts) == 1100
    hidden = tensor_from_wire(reply.hidden, np.float32, 2, "hidden")
    assert hidden.shape == (counts.sum(), 32)
    two = hidden[: counts[:2].sum()]
    np.testing.assert_allclose(hidden, np.tile(two, (550, 1)), atol=1e-5)


async def test_a_node_without_the_role_says_so(tmp_path: Path, tiny_llama: Path) -> None:
    options = ("--roles", "decode", "--generator", f"hf:{tiny_llama}")
    with node_process(tmp_path, *options) as address:
        client = NodeClient("llm-1", address)
        try:
            with pytest.raises(IncompatibleRequest, match="does not have the role generate"):
                await run(client, start(interval=INTERVAL))
        finally:
            await client.close()
