"""Probes are warmed up, repeated in two passes, and one that fails stops nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from coordinator.profile.measure import Effort, Measured, Measurement, Step
from coordinator.profile.probe import Call, Kind, Probe, Reading
from ragschema.errors import UpstreamError
from ragschema.here import this_software

EFFORT = Effort(warm_up=2, least=4, most=8, point_s=60.0, total_s=None)
EXACT_CALLS = 2 + 4 + 1 + 4


def kind(role: str, variant: str = "x") -> Kind:
    return Kind(role, variant, 1, {"dim": 8.0}, ("1", "batch"))


def probe(role: str, sizes: tuple[int, ...], calls: Counter[int], variant: str = "x") -> Probe:
    def point(size: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            calls[size] += 1
            at = {"batch": float(size)}
            slow = 50.0 if calls[size] <= EFFORT.warm_up else 1.0
            seconds = (0.01 + 0.001 * size) * slow
            return {role: Reading(at, seconds), "around": Reading(at, 0.5)}

        return call

    return Probe((kind(role, variant), kind("around", variant)), tuple(map(point, sizes)))


async def measure(
    *probes: Probe, effort: Effort = EFFORT, steps: list[Step] | None = None
) -> Measured:
    told = steps if steps is not None else []
    return await Measurement(effort, this_software(), 0.25, told.append).run(probes)


async def test_points_are_repeated_in_two_passes() -> None:
    calls: Counter[int] = Counter()
    steps: list[Step] = []
    found = await measure(probe("embed", (1, 4, 16, 64), calls), steps=steps)
    assert set(calls.values()) == {EXACT_CALLS}
    embed, around = found.roles
    assert (embed.role, around.role) == ("embed", "around")
    assert [s.at["batch"] for s in embed.samples] == [1, 4, 16, 64]
    assert {len(s.seconds) for s in embed.samples} == {EFFORT.most}
    assert max(s.dispersion for s in embed.samples) == 0, "the warm-up is not kept"
    assert embed.predict({"batch": 8.0}).seconds == pytest.approx(0.018, rel=1e-3)
    assert embed.load_before == 0.25
    assert [step.done for step in steps] == list(range(8))
    assert steps[0].left_s is None
    assert all(step.left_s is not None and step.left_s >= 0 for step in steps[1:])
    assert (found.failed, found.skipped) == ({}, 0)


async def test_slow_points_get_the_least_repeats() -> None:
    calls: Counter[int] = Counter()
    effort = Effort(warm_up=1, least=4, most=100, point_s=0.0, total_s=None)
    await measure(probe("embed", (1,), calls), effort=effort)
    assert calls == {1: 1 + 2 + 1 + 2}


async def test_a_probe_that_fails_is_told_and_others_go_on() -> None:
    async def broken() -> Mapping[str, Reading]:
        raise UpstreamError("the node fell over")

    calls: Counter[int] = Counter()
    bad = Probe((kind("pq_scan", "faiss"), kind("retrieval_call", "faiss")), (broken, broken))
    found = await measure(bad, probe("pq_scan", (1, 2), calls, "simd"))
    assert [(r.role, r.variant) for r in found.roles] == [("pq_scan", "simd"), ("around", "simd")]
    assert found.failed == dict.fromkeys(
        ("pq_scan faiss", "retrieval_call faiss"), "the node fell over"
    )


async def test_the_time_limit_leaves_points_out_and_says_so() -> None:
    calls: Counter[int] = Counter()
    effort = Effort(warm_up=1, least=4, most=4, point_s=1.0, total_s=0.0)
    found = await measure(probe("embed", (1, 2, 3), calls), effort=effort)
    assert not calls
    assert found.skipped == 3
    assert found.failed["embed x"] == "there was no time for it"


async def test_readings_of_one_point_may_come_from_several() -> None:
    """A scan has a point per probed lists, the call around it one per batch."""

    def point(nprobe: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            return {
                "pq_scan": Reading({"batch": 1.0, "nprobe": float(nprobe)}, 0.1 * nprobe),
                "retrieval_call": Reading({"batch": 1.0}, 0.001),
            }

        return call

    both = (kind("pq_scan"), kind("retrieval_call"))
    found = await measure(Probe(both, (point(1), point(2), point(4))))
    scan, call = found.roles
    assert len(scan.samples) == 3
    assert [len(s.seconds) for s in call.samples] == [3 * EFFORT.most]
