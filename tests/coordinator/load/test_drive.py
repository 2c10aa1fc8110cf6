"""Requests leave as planned, latency counts from the plan, and a stop loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import numpy as np
import pytest

from coordinator.load.client import LoadClient
from coordinator.load.drive import LoadRun, Outcome, Sending, run_load, warm_up
from coordinator.load.prompts import LoadRequest, Part, PartKind
from coordinator.load.report import Objectives, make_report
from coordinator.load.workload import LoadPlan
from ragschema.errors import InvalidInput, UpstreamError
from tests.coordinator.load.endpoint import DONE, HEAD, Script, answer, endpoint, piece, refusal


def plan(times_s: list[float] | None, count: int = 0) -> LoadPlan:
    size = count or len(times_s or [])
    requests = tuple(LoadRequest((Part(PartKind.QUESTION, n, 4),), None, 8) for n in range(size))
    return LoadPlan(requests, None if times_s is None else np.array(times_s))


def quiet(outcome: Outcome, in_flight: int) -> None:
    """No progress bar."""


async def run(script: Script, wanted: LoadPlan, sending: Sending) -> tuple[LoadRun, int]:
    async with (
        endpoint(script) as server,
        LoadClient(server.url, None, sending.max_in_flight, 20.0) as client,
    ):
        done = await run_load(client, wanted, sending, quiet)
    return done, server.most


async def test_open_loop_keeps_its_times() -> None:
    times_s = [0.0, 0.05, 0.05, 0.2]
    done, most = await run(answer, plan(times_s), Sending("m", 8, 5.0))
    assert [o.failure for o in done.outcomes] == [None] * 4
    assert [o.index for o in done.outcomes] == [0, 1, 2, 3]
    for outcome, at_s in zip(done.outcomes, times_s, strict=True):
        assert outcome.reply is not None
        assert outcome.planned_s == at_s
        assert at_s <= outcome.reply.sent_s - done.started_s < at_s + 0.5
    assert most >= 2, "the pair at 0.05 s was under way together"


async def test_a_stall_shows_in_everyone_it_held_up() -> None:
    """The first answer takes 0.5 s, and only one may be under way: the rest wait behind it."""
    stalls = [0.5, 0.0, 0.0]

    def stalling(_: dict[str, Any]) -> list[bytes | float]:
        return [HEAD, stalls.pop(0), piece("x", "stop"), DONE]

    wanted = plan([0.0, 0.01, 0.02])
    done, most = await run(stalling, wanted, Sending("m", 1, 5.0))
    assert most == 1
    report = make_report(done, wanted, Objectives(ttft_ms=400.0))
    assert report.metrics["ttft_ms"].min > 400, "counted from the planned arrival"
    assert report.metrics["ttft_from_sent_ms"].min < 400, "counted from when it left"
    assert report.goodput_share == 0
    assert report.coverage.on_time_share == pytest.approx(1 / 3)
    assert report.coverage.sent_share == 1


async def test_who_waited_too_long_is_never_sent() -> None:
    def slow(_: dict[str, Any]) -> list[bytes | float]:
        return [HEAD, 0.4, piece("x", "stop"), DONE]

    done, _ = await run(slow, plan([0.0, 0.01, 0.02]), Sending("m", 1, 0.1))
    kinds = [o.failure.kind if o.failure else "" for o in done.outcomes]
    assert kinds == ["", "too late", "too late"]
    report = make_report(done, plan([0.0, 0.01, 0.02]), Objectives())
    assert (report.coverage.planned, report.coverage.sent, report.coverage.completed) == (3, 1, 1)
    assert report.errors["too late"].count == 2


async def test_closed_loop_keeps_so_many_under_way() -> None:
    done, most = await run(answer, plan(None, 9), Sending("m", 3, 5.0))
    assert most == 3
    assert len(done.outcomes) == done.planned == 9
    assert sorted(o.index for o in done.outcomes) == list(range(9))


async def test_a_closed_loop_ends_with_its_time_and_goes_round() -> None:
    done, _ = await run(answer, plan(None, 2), Sending("m", 2, 5.0, duration_s=0.4))
    assert done.planned == len(done.outcomes) > 2
    assert done.wall_s < 5


async def test_an_open_loop_plans_nothing_behind_its_time() -> None:
    done, _ = await run(answer, plan([0.0, 0.1, 30.0]), Sending("m", 2, 5.0, duration_s=0.2))
    assert (done.planned, len(done.outcomes)) == (2, 2)
    with pytest.raises(InvalidInput, match="no requests"):
        await run(answer, plan([9.0]), Sending("m", 2, 5.0, duration_s=0.2))


async def test_an_interrupt_ends_the_load_and_keeps_what_came() -> None:
    def second_hangs(body: dict[str, Any]) -> list[bytes | float]:
        if len(seen) == 0:
            seen.append(body)
            return answer(body)
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
        return [HEAD, piece("x"), 30.0]

    seen: list[Any] = []
    done, _ = await run(second_hangs, plan([0.0, 0.2, 60.0]), Sending("m", 4, 5.0))
    assert done.stopped
    assert done.planned == 3
    kinds = [o.failure.kind if o.failure else "" for o in done.outcomes]
    assert kinds == ["", "cancelled"]


async def test_the_body_is_what_openai_clients_send() -> None:
    request = LoadRequest((Part(PartKind.SYSTEM, 1, 3),), "What is it?", 8)
    sending = Sending("ragrig/docs", 1, 5.0, extra=(("k", 3), ("temperature", 1)))
    async with endpoint(answer) as server, LoadClient(server.url, None, 1, 5.0) as client:
        await run_load(client, LoadPlan((request,), None), sending, quiet)
    (body,) = server.bodies
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "What is it?"
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert (body["model"], body["max_tokens"], body["k"]) == ("ragrig/docs", 8, 3)
    assert body["temperature"] == 1, "what the caller asked for wins"


async def test_a_load_is_not_sent_where_nothing_is_answered() -> None:
    refuse = refusal("404 Not Found", b'{"error": {"message": "no such model"}}')
    async with (
        endpoint(lambda _: refuse) as server,
        LoadClient(server.url, None, 1, 5.0) as client,
    ):
        with pytest.raises(UpstreamError, match="http 404: no such model"):
            await warm_up(client, plan(None, 3), Sending("m", 1, 5.0), 2)
        await warm_up(client, plan(None, 3), Sending("m", 1, 5.0), 0)
    assert len(server.bodies) == 2
