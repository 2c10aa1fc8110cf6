from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from llm_node.engine.engine import Engine
from llm_node.engine.load import LoadedModel
from llm_node.engine.request import Ended, Finish, Paused, PausePolicy, StepEvent, TokenOut
from llm_node.engine.worker import EngineWorker
from ragschema.errors import (
    Conflict,
    InternalError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Unavailable,
)
from tests.llm_node.engine.harness import SMALL, Run, greedy, prompt_of

PROMPT = prompt_of(1, 10)


@contextlib.asynccontextmanager
async def _worker(model: LoadedModel, **options: Any) -> AsyncGenerator[EngineWorker, None]:
    worker = EngineWorker(Engine(model, SMALL), **options)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()
        worker.engine.check_integrity()


async def _tokens(events: AsyncGenerator[StepEvent, None]) -> list[int]:
    return [event.token_id async for event in events if isinstance(event, TokenOut)]


def _alone(model: LoadedModel, prompt: tuple[int, ...], tokens: int) -> list[int]:
    run = Run.of(model)
    run.engine.add(greedy("a", prompt, tokens))
    return run.finish().tokens["a", 0]


async def test_streams_do_not_mix(llama: LoadedModel) -> None:
    prompts = {str(n): prompt_of(n, 5 + n) for n in range(6)}
    async with _worker(llama) as worker:
        streams = [_tokens(worker.stream(greedy(i, p, 12))) for i, p in prompts.items()]
        found = await asyncio.gather(*streams)
        assert (await worker.stats()).blocks_used == 0
    assert found == [_alone(llama, p, 12) for p in prompts.values()]


async def test_refusals_reach_the_caller_and_leave_the_engine_alone(llama: LoadedModel) -> None:
    async with _worker(llama, max_waiting=1) as worker:
        with pytest.raises(PayloadTooLarge):
            await anext(worker.stream(greedy("a", prompt_of(1, 500), 1)))
        events = worker.stream(greedy("a", PROMPT, 100))
        await anext(events)
        with pytest.raises(Conflict):
            await anext(worker.stream(greedy("a", PROMPT, 1)))
        with pytest.raises(Overloaded):
            await anext(worker.stream(greedy("b", PROMPT, 1)))
        with pytest.raises(NotFound):
            await worker.resume("x", ())
        await events.aclose()
        assert await _tokens(worker.stream(greedy("a", PROMPT, 2))) == _alone(llama, PROMPT, 2)


async def test_cancel_ends_the_stream(llama: LoadedModel) -> None:
    async with _worker(llama) as worker:
        events = worker.stream(greedy("a", PROMPT, 100))
        await anext(events)
        await worker.cancel("a")
        last = [event async for event in events][-1]
        assert isinstance(last, Ended)
        assert last.finish is Finish.CANCELLED


async def test_a_task_that_is_cancelled_frees_its_blocks(llama: LoadedModel) -> None:
    async with _worker(llama) as worker:
        request = greedy("a", PROMPT, 5, pause=PausePolicy(every_tokens=1))
        task = asyncio.create_task(_tokens(worker.stream(request)))
        while not (await worker.stats()).paused:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await worker.stats()).blocks_used == 0


async def test_a_paused_request_is_ended_at_its_deadline(llama: LoadedModel) -> None:
    import time

    async with _worker(llama) as worker:
        request = greedy(
            "a", PROMPT, 5, pause=PausePolicy(every_tokens=1), deadline_s=time.monotonic() + 0.3
        )
        last = [event async for event in worker.stream(request)][-1]
        assert isinstance(last, Ended)
        assert last.finish is Finish.DEADLINE


async def test_resume_export_and_import(llama: LoadedModel) -> None:
    expected = _alone(llama, PROMPT, 6)
    async with _worker(llama) as worker:
        request = greedy("a", PROMPT, 6, pause=PausePolicy(every_tokens=1, hold_kv=True))
        tokens = []
        async for event in worker.stream(request):
            if isinstance(event, TokenOut):
                tokens.append(event.token_id)
            elif isinstance(event, Paused) and len(tokens) == 1:
                snapshot = await worker.export_kv("a")
                await worker.resume("a", ())
            elif isinstance(event, Paused):
                await worker.resume("a", ())
        assert tokens == expected
        rest = worker.stream_imported(greedy("b", PROMPT, 6), snapshot, {0: tokens[:1]})
        assert await _tokens(rest) == expected[1:]


async def test_neighbours(llama: LoadedModel) -> None:
    async with _worker(llama) as worker:
        request = greedy("a", PROMPT, 3, pause=PausePolicy(every_token_hidden=True))
        tokens = []
        async for event in worker.stream(request):
            if isinstance(event, Paused):
                wanted = np.array([40 + len(tokens)], np.int32)
                await worker.resume_mixed("a", wanted, np.ones(1, np.float32), 1.0, 1.0)
            elif isinstance(event, TokenOut):
                tokens.append(event.token_id)
        assert tokens == [40, 41, 42]


async def test_close_ends_every_stream(llama: LoadedModel) -> None:
    async with _worker(llama) as worker:
        events = worker.stream(greedy("a", PROMPT, 9, pause=PausePolicy(every_tokens=1)))
        assert isinstance(await anext(events), TokenOut)
        assert isinstance(await anext(events), Paused)
        await worker.close()
        with pytest.raises(Unavailable, match="closed"):
            await anext(events)
        with pytest.raises(Unavailable):
            await worker.stats()


async def test_a_step_that_fails_tells_everybody(
    llama: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    async with _worker(llama) as worker:
        runner: Any = worker.engine._runner

        def broken(chunks: Any) -> Any:
            raise RuntimeError("out of luck")

        runner.run = broken
        with pytest.raises(InternalError, match="the engine stopped: out of luck"):
            await _tokens(worker.stream(greedy("a", PROMPT, 3)))
        with pytest.raises(InternalError, match="out of luck"):
            await worker.stats()
    assert "the engine stopped" in caplog.text


async def test_a_worker_that_was_not_started(llama: LoadedModel) -> None:
    worker = EngineWorker(Engine(llama, SMALL))
    with pytest.raises(Unavailable, match="not running"):
        await worker.stats()
