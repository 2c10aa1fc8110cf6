"""Real prefill and decode nodes, one of which dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.pool import NodePool
from coordinator.stages.gate import Gate
from coordinator.stages.generate import GenerateStage, GenerateStart
from coordinator.stages.prefill_decode import PrefillDecodeStage
from ragschema.errors import Cancelled, IncompatibleRequest, NotFound, Unavailable, UpstreamError
from ragschema.rig import BatchConfig, LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import (
    CallContext,
    ChatMessage,
    GenerateEnd,
    GenerateSpec,
    Role,
    Sampling,
    TokenLogprob,
    TokenPiece,
)
from ragschema.wire import kv_pb2
from ragschema.wire.generating import generate_to_wire
from tests.coordinator.making import FAST
from tests.coordinator.waiting import until
from tests.llm_node.process import mortal_node


@dataclass
class Nodes:
    """Addresses: a node that prefills and generates, and two that decode."""

    prefill: str
    decode: tuple[str, str]
    processes: tuple[Popen[bytes], Popen[bytes]]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Iterator[Nodes]:
    """In the order of the tests: the last one kills a decode node."""
    with ExitStack() as stack:
        started: list[tuple[str, Popen[bytes]]] = []
        for roles in ("prefill,generate", "decode", "decode"):
            directory = tmp_path_factory.mktemp("node")
            options = ("--roles", roles, "--generator", f"hf:{llama}")
            started.append(stack.enter_context(mortal_node(directory, *options)))
        (prefill, _), (one, first), (two, second) = started
        yield Nodes(prefill, (one, two), (first, second))


@asynccontextmanager
async def pool_of(nodes: Nodes, decodes: int = 2) -> AsyncIterator[NodePool]:
    llm = [LlmNodeConfig(name="pre", roles=("generate", "prefill"), address=nodes.prefill)]
    llm += [
        LlmNodeConfig(name=f"dec-{i}", roles=("decode",), address=nodes.decode[i])
        for i in range(decodes)
    ]
    away = (RetrievalNodeConfig(name="ret", address="127.0.0.1:9"),)
    pool = NodePool(RigConfig(llm_nodes=tuple(llm), retrieval_nodes=away), Metrics(), FAST)
    await pool.start()
    try:
        await until(lambda: sum(h.ready for h in pool.health()) == len(llm))
        yield pool
    finally:
        await pool.close()


def spec(**sampling: Any) -> GenerateSpec:
    turn = ChatMessage("user", "naïve 漢字 and the quick brown fox")
    return GenerateSpec((turn,), "", (), Sampling(**sampling))


def gate() -> Gate:
    return Gate(BatchConfig(max_concurrent=8), "generate", Metrics())


async def collect(stage: Any, asked: GenerateSpec) -> tuple[str, GenerateEnd]:
    text = ""
    async with aclosing(stage(asked, CallContext.start(60))) as events:
        async for event in events:
            if isinstance(event, GenerateEnd):
                return text, event
            if isinstance(event, TokenPiece):
                text += event.text
            else:
                assert isinstance(event, GenerateStart)
                assert event.model.startswith("hf:")
    raise AssertionError("no end")


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 40},
        {"max_tokens": 40, "temperature": 1.2, "top_p": 0.9, "seed": 11},
        {"max_tokens": 1, "temperature": 1.2, "seed": 5},
        {"max_tokens": 2},
        {
            "max_tokens": 30, "temperature": 0.9, "seed": 4, "top_k": 50, "min_p": 0.01,
            "repetition_penalty": 1.3, "frequency_penalty": 0.4, "min_tokens": 30,
        },
    ],
)  # fmt: skip
async def test_the_answer_is_that_of_one_node(nodes: Nodes, sampling: dict[str, Any]) -> None:
    async with pool_of(nodes) as pool:
        whole, end = await collect(GenerateStage(pool, gate()), spec(**sampling))
        apart, other = await collect(PrefillDecodeStage(pool, gate()), spec(**sampling))
        assert apart == whole
        assert other.finish_reason == end.finish_reason
        assert other.prompt_tokens == end.prompt_tokens
        assert other.completion_tokens == end.completion_tokens == sampling["max_tokens"]
        assert 0 < other.first_token_us <= other.total_us


async def collect_all(stage: Any, asked: GenerateSpec) -> dict[int, tuple[str, GenerateEnd]]:
    """Each of several answers, and its end."""
    texts: dict[int, str] = dict.fromkeys(range(asked.sampling.n), "")
    found: dict[int, tuple[str, GenerateEnd]] = {}
    async with aclosing(stage(asked, CallContext.start(60))) as events:
        async for event in events:
            if isinstance(event, GenerateStart):
                continue
            assert event.index not in found, "nothing comes behind an end"
            if isinstance(event, GenerateEnd):
                found[event.index] = (texts[event.index], event)
            else:
                texts[event.index] += event.text
    return found


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 40, "temperature": 1.2, "top_p": 0.9, "seed": 11, "n": 3},
        {"max_tokens": 1, "temperature": 1.2, "seed": 5, "n": 2},
        {
            "max_tokens": 30, "temperature": 0.9, "seed": 4, "n": 4, "top_k": 50,
            "repetition_penalty": 1.3, "min_tokens": 30, "logprobs": 1,
        },
        {"max_tokens": 12, "n": 2},
    ],
)  # fmt: skip
async def test_several_answers_are_those_of_one_node(
    nodes: Nodes, sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(nodes) as pool:
        whole = await collect_all(GenerateStage(pool, gate()), spec(**sampling))
        node = pool.player(Role.PREFILL, fingerprint=None, tried=frozenset())
        calls = []
        original = node.prefill

        async def counted(*arguments: Any) -> kv_pb2.PrefillReply:
            calls.append(1)
            return await original(*arguments)

        monkeypatch.setattr(node, "prefill", counted)
        apart = await collect_all(PrefillDecodeStage(pool, gate()), spec(**sampling))
    assert len(calls) == 1
    assert sorted(apart) == list(range(sampling["n"]))
    for index, (text, end) in whole.items():
        assert apart[index][0] == text
        assert apart[index][1].finish_reason == end.finish_reason
        assert apart[index][1].prompt_tokens == end.prompt_tokens
        assert apart[index][1].completion_tokens == end.completion_tokens
        assert 0 < apart[index][1].first_token_us <= apart[index][1].total_us
    if sampling.get("temperature") and sampling["max_tokens"] > 1:
        assert len({text for text, _ in whole.values()}) == sampling["n"]


async def test_a_stop_string_ends_one_of_several(nodes: Nodes) -> None:
    async with pool_of(nodes) as pool:
        asked = {"max_tokens": 60, "temperature": 1.0, "seed": 3, "n": 2}
        whole = await collect_all(GenerateStage(pool, gate()), spec(**asked))
        text, other = whole[1][0], whole[0][0]
        stop = next(text[i : i + 4] for i in range(20) if text[i : i + 4] not in other)
        asked["stop"] = (stop,)
        apart = await collect_all(PrefillDecodeStage(pool, gate()), spec(**asked))
    assert [apart[i][1].finish_reason for i in (0, 1)] == ["length", "stop"]
    assert (apart[0][0], apart[1][0]) == (other, text[: text.find(stop)])


async def test_log_probabilities_are_those_of_one_node(nodes: Nodes) -> None:
    async def told(stage: Any) -> list[TokenLogprob]:
        asked = spec(max_tokens=25, temperature=1.1, seed=9, logprobs=2)
        async with aclosing(stage(asked, CallContext.start(60))) as events:
            return [
                one
                async for event in events
                if isinstance(event, TokenPiece)
                for one in event.logprobs
            ]

    async with pool_of(nodes) as pool:
        whole = await told(GenerateStage(pool, gate()))
        apart = await told(PrefillDecodeStage(pool, gate()))
        assert [one.chosen.data for one in apart] == [one.chosen.data for one in whole]
        for mine, other in zip(apart, whole, strict=True):
            assert mine.chosen.logprob == pytest.approx(other.chosen.logprob, abs=1e-4)
            assert len(mine.top) == 2


async def test_a_stop_string_ends_it_wherever_it_comes(nodes: Nodes) -> None:
    async with pool_of(nodes) as pool:
        whole, _ = await collect(GenerateStage(pool, gate()), spec(max_tokens=40))
        stage = PrefillDecodeStage(pool, gate())
        for start in (0, 1, 9):
            stop = whole[start : start + 3]
            text, end = await collect(stage, spec(max_tokens=40, stop=(stop,)))
            assert text == whole[: whole.find(stop)]
            assert end.finish_reason == "stop"


async def test_a_seed_is_drawn_once_for_both_nodes(nodes: Nodes) -> None:
    async with pool_of(nodes) as pool:
        stage = PrefillDecodeStage(pool, gate())
        drawn = await asyncio.gather(
            *(collect(stage, spec(max_tokens=20, temperature=1.5)) for _ in range(4))
        )
        assert len({text for text, _ in drawn}) > 1


async def test_calls_for_another_role_and_lost_tickets_say_so(nodes: Nodes) -> None:
    async with pool_of(nodes) as pool:
        decoder = pool.player(Role.DECODE, fingerprint=None, tried=frozenset())
        prefiller = pool.player(Role.PREFILL, fingerprint=None, tried=frozenset())
        with pytest.raises(IncompatibleRequest, match="does not have the role prefill"):
            await decoder.prefill(spec(), CallContext.start(30))
        with pytest.raises(Unavailable, match="no LLM node that has the role decode"):
            pool.player(Role.DECODE, fingerprint="another", tried=frozenset())
        context = CallContext.start(30)
        reply = await prefiller.prefill(spec(), context)
        await prefiller.client.release_kv(reply.ticket, context)
        request = kv_pb2.DecodeRequest(
            request=generate_to_wire(spec()),
            source=prefiller.address,
            ticket=reply.ticket,
            seed=reply.seed,
            answers=[kv_pb2.KnownAnswer(token_ids=reply.token_ids)],
        )
        with pytest.raises(UpstreamError, match="stands for no KV") as caught:
            await anext(decoder.decode(request, context))
        assert caught.value.field == "source"
        with pytest.raises(NotFound):
            await _pull(prefiller, reply.ticket)


async def _pull(node: Any, ticket: str) -> None:
    request = kv_pb2.PullKvRequest(ticket=ticket)
    async for _ in node.client.stream(node.client.kv.PullKv, request, CallContext.start(30)):
        pass


async def test_kv_is_freed_when_the_answer_ends(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets: list[str] = []
    async with pool_of(nodes) as pool:
        node = pool.player(Role.PREFILL, fingerprint=None, tried=frozenset())
        original = node.prefill

        async def noted(*arguments: Any) -> kv_pb2.PrefillReply:
            reply = await original(*arguments)
            tickets.append(reply.ticket)
            return reply

        monkeypatch.setattr(node, "prefill", noted)
        stage = PrefillDecodeStage(pool, gate())
        await collect(stage, spec(max_tokens=5))
        for told in (1, 2, 5):
            events = stage(spec(max_tokens=5000), CallContext.start(60))
            for _ in range(told):
                await anext(events)
            await events.aclose()
        assert len(tickets) == 4
        for ticket in tickets:
            with pytest.raises(NotFound):
                await _pull(node, ticket)


async def test_kv_that_is_gone_is_computed_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(nodes) as pool:
        asked = spec(max_tokens=20, temperature=1.0, seed=3)
        whole, _ = await collect(GenerateStage(pool, gate()), asked)
        node = pool.player(Role.PREFILL, fingerprint=None, tried=frozenset())
        original = node.prefill
        calls = []

        async def forgetful(*arguments: Any) -> kv_pb2.PrefillReply:
            reply = await original(*arguments)
            calls.append(reply.ticket)
            if len(calls) == 1:
                await node.client.release_kv(reply.ticket, CallContext.start(30))
            return reply

        monkeypatch.setattr(node, "prefill", forgetful)
        assert (await collect(PrefillDecodeStage(pool, gate()), asked))[0] == whole
        assert len(calls) == 2


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 12},
        {"max_tokens": 8, "temperature": 1.1, "top_k": 8, "seed": 5, "n": 3},
        {"max_tokens": 14, "stop": ("7",)},
        {"max_tokens": 14, "stop_ids": (38,)},
    ],
)
async def test_a_decode_node_may_be_lost_before_it_says_that_it_has_ended(
    nodes: Nodes, sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(nodes) as pool:
        expected = await collect_all(GenerateStage(pool, gate()), spec(**sampling))
        lost: list[str] = []
        for node in pool.llm_nodes:
            monkeypatch.setattr(node, "decode", _lost_before_an_end(node.decode, lost))
        got = await collect_all(PrefillDecodeStage(pool, gate()), spec(**sampling))
    assert lost == ["before the first end"]
    assert sorted(got) == sorted(expected)
    for index, (text, end) in expected.items():
        assert got[index][0] == text
        assert got[index][1].finish_reason == end.finish_reason
        assert got[index][1].prompt_tokens == end.prompt_tokens
        assert got[index][1].completion_tokens == end.completion_tokens


def _lost_before_an_end(decode: Any, lost: list[str]) -> Any:
    """The call fails in place of the first end that any node tells."""

    async def failing(*arguments: Any) -> AsyncIterator[kv_pb2.DecodeEvent]:
        async with aclosing(decode(*arguments)) as events:
            async for event in events:
                if event.WhichOneof("event") == "done" and not lost:
                    lost.append("before the first end")
                    raise Cancelled("the node ended")
                yield event

    return failing


async def test_a_killed_decode_node_costs_the_client_nothing(nodes: Nodes) -> None:
    """Both nodes are in the middle of an answer when one of them is killed."""
    async with pool_of(nodes) as pool:
        # Of many tokens that are as likely, rounding in another batch may draw another one.
        asked = [spec(max_tokens=600, temperature=1.1, top_k=8, seed=n) for n in range(4)]
        whole = GenerateStage(pool, gate())
        expected = await asyncio.gather(*(collect(whole, one) for one in asked))
        # Answers of different lengths: some have ended when the node is lost.
        many = spec(max_tokens=600, temperature=1.1, top_k=8, seed=7, n=3, stop=("z",))
        expected_several = await collect_all(whole, many)
        stage = PrefillDecodeStage(pool, gate())
        running_several = asyncio.create_task(collect_all(stage, many))
        await asyncio.sleep(0)
        running = [asyncio.create_task(collect(stage, one)) for one in asked]
        victim = next(n for n in pool.llm_nodes if n.name == "dec-0")
        await until(lambda: victim.inflight >= 2)
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in running)
        nodes.processes[0].kill()
        got = await asyncio.gather(*running)
        assert [text for text, _ in got] == [text for text, _ in expected]
        assert [end.completion_tokens for _, end in got] == [600] * 4
        assert sorted(several := await running_several) == [0, 1, 2]
        assert {i: text for i, (text, _) in several.items()} == {
            i: text for i, (text, _) in expected_several.items()
        }
        # The dead one is known by now, and with nobody left the client is told.
        await until(lambda: not victim.ready)
        assert (await collect(stage, asked[0]))[0] == expected[0][0]
        nodes.processes[1].kill()
        with pytest.raises(Unavailable):
            await collect(stage, asked[0])
