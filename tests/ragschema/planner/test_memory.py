"""What stages that share chips hold together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ragschema.planner.memory import cache_bytes, room_bytes
from ragschema.planner.problem import Decoding, Problem
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import search
from ragschema.planner.stages import StageKind, StageMemory, StageTable
from tests.ragschema.planner.making import table


def heavy(stage: StageTable, weights: float, cache: list[float], owner: str) -> StageTable:
    """The same on every row of a chip of 10 bytes."""
    rows = len(stage.counts)
    held = np.tile(np.array(cache), (rows, 1))
    memory = StageMemory(np.full(rows, 10.0), np.full(rows, weights), held, (owner,) * rows)
    return replace(stage, memory=memory)


ENCODE = heavy(table("encode", {1: [1.0, 1.2]}), 4, [0, 0], "encoder")
PREFILL = heavy(table("prefill", {1: [1.0, 1.2]}), 3, [1, 2], "llm")
DECODE = heavy(table("decode", {1: [4.0, 4.1]}, StageKind.DECODE), 3, [2, 4], "llm")


def test_weights_of_one_model_are_held_once() -> None:
    assert room_bytes([PREFILL, DECODE], [0, 0]) == pytest.approx(7)
    assert room_bytes([ENCODE, PREFILL, DECODE], [0, 0, 0]) == pytest.approx(3)


def test_stages_that_say_nothing_hold_nothing() -> None:
    plain = table("prefill", {1: [1.0, 1.2]})
    assert room_bytes([plain], [0]) == np.inf
    assert cache_bytes(plain, 0).tolist() == [0.0, 0.0]
    assert cache_bytes(DECODE, 0).tolist() == [2.0, 4.0]


def batches(points: tuple[Schedule, ...]) -> set[tuple[int, ...]]:
    return {tuple(choice.batch for choice in point.choices) for point in points}


def test_what_does_not_fit_together_is_not_planned() -> None:
    """Encoder, prefill and decode on one chip: 7 bytes of weights, 3 for caches."""
    problem = Problem((ENCODE, PREFILL, DECODE), 1, 1, decoding=Decoding.TOGETHER)
    found = batches(search(problem).points)
    assert found
    assert all(prefill + {1: 2, 2: 4}[decode] <= 3 for _, prefill, decode in found)
    free = [replace(stage, memory=None) for stage in problem.stages]
    assert batches(search(replace(problem, stages=tuple(free))).points) - found


def test_weights_alone_may_be_too_large_together() -> None:
    large = heavy(ENCODE, 8, [0, 0], "encoder")
    problem = Problem((large, PREFILL, DECODE), 1, 3)
    points = search(problem).points
    assert points
    assert all(point.placement == ((0,), (1,)) for point in points)
