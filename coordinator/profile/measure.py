"""Repeats probes: warm-up, two passes in another order each, medians of many, a time limit.

Two passes far apart in time show a drift of the machine as dispersion; another order in each keeps
it from looking like an effect of size.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.collections.commit import utc_now
from coordinator.profile.probe import Call, Kind, Probe, Reading
from ragschema.errors import RagrigError
from ragschema.here import Software
from ragschema.profile import RoleProfile, Sample, fitted
from ragschema.profile_fit import Fit, Term

_PASSES = 2
_SEED = 11
#: Filled in by ``fitted``.
_NO_FIT = Fit((Term("1", 0.0),), (0.0,), False, 0.0)


@dataclass(frozen=True)
class Effort:
    """How much a point may take.

    Attributes:
        warm_up: calls before the first pass, not kept.
        least, most: repeats over all passes.
        point_s: seconds of a point over all passes, beyond which only ``least`` are made.
        total_s: of everything; later no point is begun. None: no limit.
    """

    warm_up: int
    least: int
    most: int
    point_s: float
    total_s: float | None


QUICK = Effort(warm_up=1, least=4, most=30, point_s=0.6, total_s=100.0)
THOROUGH = Effort(warm_up=3, least=10, most=120, point_s=6.0, total_s=None)


@dataclass(frozen=True)
class Step:
    """Where a measurement is; ``left_s`` is an estimate, None before there is one."""

    probe: str
    done: int
    total: int
    left_s: float | None


@dataclass
class _Found:
    """Readings of one point by role."""

    readings: dict[str, list[Reading]] = field(default_factory=dict)

    def add(self, reading: Mapping[str, Reading]) -> None:
        for role, one in reading.items():
            self.readings.setdefault(role, []).append(one)


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        failed: by role and variant, why some or all of it could not be measured.
        skipped: points that the time limit left out.
    """

    roles: tuple[RoleProfile, ...]
    failed: Mapping[str, str]
    skipped: int


class Measurement:
    """Runs probes to their end.

    Args:
        load_before: processes that wanted to run on the machine when nothing of ours did.
        told: called before every point of every pass.
    """

    def __init__(
        self,
        effort: Effort,
        software: Software,
        load_before: float,
        told: Callable[[Step], None],
    ) -> None:
        self._effort = effort
        self._software = software
        self._told = told
        self._started_s = time.monotonic()
        self._load_before = load_before
        self._failed: dict[str, str] = {}

    async def run(self, probes: Sequence[Probe]) -> Measured:
        """Measures every point of every probe."""
        work = [(probe, call) for probe in probes for call in probe.points]
        found = [_Found() for _ in work]
        skipped: set[int] = set()
        done = 0
        for number in range(_PASSES):
            gc.collect()
            order = list(range(len(work)))
            random.Random(_SEED + number).shuffle(order)  # noqa: S311  no secret
            for at in order:
                probe, call = work[at]
                self._told(Step(probe.name, done, _PASSES * len(work), self._left_s(done, work)))
                done += 1
                if self._out_of_time():
                    if not found[at].readings:
                        skipped.add(at)
                    continue
                await self._point(probe, call, found[at], first=number == 0)
        roles = [
            role
            for probe in probes
            for kind in probe.kinds
            if (role := self._profile(kind, [f for (p, _), f in zip(work, found, strict=True)
                                             if p is probe])) is not None
        ]  # fmt: skip
        return Measured(tuple(roles), self._failed, len(skipped))

    async def _point(self, probe: Probe, call: Call, found: _Found, first: bool) -> None:
        effort = self._effort
        if any(_name(kind) in self._failed for kind in probe.kinds):
            return
        least, most = (math.ceil(n / _PASSES) for n in (effort.least, effort.most))
        try:
            for _ in range(effort.warm_up if first else 1):
                await call()
            until_s = time.perf_counter() + effort.point_s / _PASSES
            for repeat in range(most):
                if repeat >= least and time.perf_counter() > until_s:
                    break
                if repeat and self._out_of_time():
                    break
                found.add(await call())
        except RagrigError as error:
            for kind in probe.kinds:
                self._failed[_name(kind)] = str(error)[:1000]

    def _profile(self, kind: Kind, found: Sequence[_Found]) -> RoleProfile | None:
        by_point: dict[tuple[tuple[str, float], ...], list[float]] = {}
        for readings in (f.readings.get(kind.role, ()) for f in found):
            for reading in readings:
                key = tuple(sorted(reading.at.items()))
                by_point.setdefault(key, []).append(reading.seconds)
        if not by_point:
            self._failed.setdefault(_name(kind), "there was no time for it")
            return None
        samples = tuple(Sample(dict(key), tuple(times)) for key, times in sorted(by_point.items()))
        bare = RoleProfile(
            kind.role,
            kind.variant,
            kind.threads,
            dict(kind.about),
            self._software,
            utc_now(),
            self._load_before,
            samples,
            _NO_FIT,
        )
        return fitted(bare, kind.terms)

    def _out_of_time(self) -> bool:
        limit_s = self._effort.total_s
        return limit_s is not None and time.monotonic() - self._started_s > limit_s

    def _left_s(self, done: int, work: Sequence[object]) -> float | None:
        if not done:
            return None
        passed_s = time.monotonic() - self._started_s
        left_s = passed_s / done * (_PASSES * len(work) - done)
        if self._effort.total_s is not None:
            left_s = min(left_s, max(0.0, self._effort.total_s - passed_s))
        return left_s


def _name(kind: Kind) -> str:
    """As a profile's ``missing`` has it."""
    return f"{kind.role} {kind.variant}"
