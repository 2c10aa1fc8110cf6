"""Servers of the simulation: who takes whom, and how long a batch of different requests is."""

from __future__ import annotations

import pytest

from ragschema.planner.queueing import GroupServer, SlotServer, Step


def step(name: str, work: list[float] | None = None, batch: int = 2) -> Step:
    return Step(name, batch, [1.0, 1.5][:batch], 0.0, work)


def test_requests_pass_a_stage_by() -> None:
    server = GroupServer("a+b", [step("a", [1, 0, 0]), step("b", [1, 1, 0])], 3)
    assert list(server.enter(0.0, [0, 1, 2])) == [2]
    assert not server.working
    ((ends_s, what),) = server.look(0.0)
    # b is behind a, and works first: request 1 waits there alone.
    assert ends_s == 1.0
    assert server.working
    assert list(server.on_event(ends_s, what)) == [1]
    ((ends_s, what),) = server.look(1.0)
    assert list(server.on_event(ends_s, what)) == []
    ((ends_s, what),) = server.look(2.0)
    assert list(server.on_event(ends_s, what)) == [0]
    assert server.wait_s == {"a": [1.0, 0.0, 0.0], "b": [0.0, 0.0, 0.0]}
    assert server.busy_s == pytest.approx(3.0)


def test_a_batch_takes_as_long_as_its_work() -> None:
    heavy = step("prefill", [0.5, 2.5, 1.0])
    assert heavy.seconds([0]) == pytest.approx(0.5)
    assert heavy.seconds([0, 1]) == pytest.approx(1.5 * 1.5)
    assert step("plain").seconds([0, 1]) == 1.5


def test_slots_are_passed_by_too() -> None:
    server = SlotServer(step("rewrite_decode", [1, 0, 1]), 3)
    assert list(server.enter(0.0, [0, 1, 2])) == [1]
    assert [time_s for time_s, _ in server.look(0.0)] == [1.5, 1.5]
    assert server.working
    assert list(server.on_event(1.5, 0)) == [0]
    assert list(server.on_event(1.5, 2)) == [2]
    assert not server.working
