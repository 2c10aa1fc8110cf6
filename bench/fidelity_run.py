"""Starts a rig, puts loads on it, stops it; for ``bench.plan_fidelity``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench.common import note
from bench.fidelity_setup import COLLECTION
from coordinator.load.client import LoadClient
from coordinator.load.drive import Sending, run_load, warm_up
from coordinator.load.report import LoadReport, Objectives, make_report
from coordinator.load.workload import LoadPlan, Shape, paced, synthetic
from coordinator.supervisor.run import with_rig
from coordinator.supervisor.supervisor import Supervisor
from ragschema.errors import Cancelled, Unavailable
from ragschema.rig import RigConfig
from ragschema.traffic import ArrivalsConfig

_PATIENCE_S = 300.0
_IN_FLIGHT = 256


@dataclass(frozen=True)
class Work:
    """What requests look like.

    Attributes:
        question: words, each one token.
        passages: that are put into a prompt.
        output: tokens, no fewer.
    """

    question: int
    passages: int
    output: int
    nprobe: int = 16

    def load(self, count: int, seed: int, rate_per_s: float | None = None) -> LoadPlan:
        """Requests; without a rate for a closed loop."""
        requests = synthetic(Shape(self.question, self.output), count, seed)
        if rate_per_s is None:
            return LoadPlan(requests, None)
        return paced(requests, ArrivalsConfig(), rate_per_s, seed)

    def sending(self, in_flight: int = _IN_FLIGHT) -> Sending:
        """How they are sent."""
        extra = (("ignore_eos", True), ("k", self.passages), ("nprobe", self.nprobe))
        return Sending(f"ragrig/{COLLECTION}", in_flight, _PATIENCE_S, extra=extra)


@dataclass(frozen=True)
class Put:
    """One load.

    Attributes:
        in_flight: of a closed loop.
    """

    load: LoadPlan
    sending: Sending
    objectives: Objectives


def put(
    work: Work,
    count: int,
    seed: int,
    rate_per_s: float | None = None,
    in_flight: int = _IN_FLIGHT,
    objectives: Objectives | None = None,
) -> Put:
    """A load of some work: open at a rate, else closed with so many in flight."""
    load = work.load(count, seed, rate_per_s)
    return Put(load, work.sending(in_flight), objectives or Objectives())


def measured(rig: RigConfig, puts: Sequence[Put]) -> list[LoadReport]:
    """Each load in turn on one rig.

    Raises:
        RagrigError: the rig does not start, or answers nothing.
    """
    found: list[LoadReport] = []

    async def body(supervisor: Supervisor) -> None:
        readiness = await supervisor.start()
        if not readiness.ready:
            raise Unavailable(f"the rig did not turn ready: {readiness.problem}")
        await supervisor.or_failure(_loads(readiness.url, puts, found))

    if not asyncio.run(with_rig(rig, lambda _: None, body)):
        raise Cancelled("stopped by a signal")
    return found


async def _loads(url: str, puts: Sequence[Put], found: list[LoadReport]) -> None:
    first = True
    for one in puts:
        connections = one.sending.max_in_flight
        async with LoadClient(url, None, connections, _PATIENCE_S) as client:
            await warm_up(client, one.load, one.sending, 3 if first else 1)
            first = False
            run = await run_load(client, one.load, one.sending, lambda *_: None)
        report = make_report(run, one.load, one.objectives)
        for kind, errors in report.errors.items():
            note(f"    {errors.count} {kind}: {errors.example}")
        found.append(report)
