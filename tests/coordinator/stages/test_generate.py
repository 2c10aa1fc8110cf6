"""Streams that end early, break, or have nobody to come from."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from coordinator.metrics import Metrics
from coordinator.stages.gate import Gate
from coordinator.stages.generate import GenerateStage, GenerateStart
from ragschema.errors import DeadlineExceeded, Unavailable, UpstreamError
from ragschema.rig import BatchConfig
from ragschema.types import CallContext, ChatMessage, GenerateEnd, GenerateSpec, TokenPiece
from tests.coordinator.making import Stage, context, running_stage
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm

SPEC = GenerateSpec((ChatMessage("user", "why?"),), "why?", ())


def make(stage: Stage) -> tuple[GenerateStage, Gate]:
    gate = Gate(BatchConfig(), "generate-test", Metrics())
    return GenerateStage(stage.runtime.pool, gate), gate


async def stream(generate: GenerateStage, ctx: CallContext | None = None) -> list[Any]:
    async with aclosing(generate(SPEC, ctx or context())) as events:
        return [event async for event in events]


async def test_it_tells_who_answers_then_what_then_why_it_ended(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        generate, gate = make(stage)
        start, *pieces, end = await stream(generate)
        assert start == GenerateStart("fake-generator", start.queued_s)
        assert "".join(p.text for p in pieces) == "All is well [1]."
        assert end == GenerateEnd("stop", 11, 3)
        assert gate.inside == 0


async def test_a_stream_without_an_end_is_an_upstream_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_short(self: FakeLlm, request: Any, context: Any) -> Any:
        from ragschema.wire.generating import event_to_wire

        yield event_to_wire(TokenPiece("half an ans"))

    monkeypatch.setattr(FakeLlm, "Generate", cut_short)
    async with running_stage(tmp_path) as stage:
        generate, gate = make(stage)
        with pytest.raises(UpstreamError, match="llm-0"):
            await stream(generate)
        assert gate.inside == 0


async def test_a_node_lost_midway_ends_the_answer(tmp_path: Path) -> None:
    async with running_stage(tmp_path, llm_nodes=2) as stage:
        for llm in stage.llms:
            llm.script, llm.pause_s = ("word ",) * 10_000, 0.01
        generate, gate = make(stage)
        seen: list[Any] = []

        async def listen() -> None:
            async with aclosing(generate(SPEC, context())) as events:
                async for event in events:
                    seen.append(event)  # noqa: PERF401  it is read meanwhile

        listener = asyncio.create_task(listen())
        await until(lambda: len(seen) > 2)
        busy = next(llm for llm in stage.llms if llm.running)
        await stage.kill(busy.name)
        with pytest.raises(Unavailable):
            await listener
        # Half an answer is not begun again elsewhere.
        assert sum(len(llm.generated) for llm in stage.llms) == 1
        assert gate.inside == 0


async def test_the_deadline_reaches_the_node(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        llm = stage.llms[0]
        llm.pause_s = 3600
        generate, _ = make(stage)
        with pytest.raises(DeadlineExceeded):
            await stream(generate, CallContext.start(0.1))
        await until(lambda: llm.running == 0)


async def test_nobody_to_generate_is_unavailable(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        generate, gate = make(stage)
        await stage.kill("llm-0")
        with pytest.raises(Unavailable):
            await stream(generate)
        assert gate.inside == 0
