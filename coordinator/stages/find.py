"""Find: probe, retrieve and merge, with more lists where a filter left too few rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coordinator.nodes.pool import NodePool
from coordinator.stages.index_scan import IndexScanStage
from coordinator.stages.merge import MergeStage
from coordinator.stages.probe import ProbeStage
from coordinator.stages.retrieve import RetrieveRequest, RetrieveStage, stack_vectors
from coordinator.types import Coverage, RetrievalReport
from ragschema.types import I32, CallContext

#: Each round scans up to this many times the lists of all rounds before it.
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Found:
    """One request's rows out of a shared retrieval; times are the batch's.

    Attributes:
        lists_probed: lists scanned in all rounds.
        short: fewer than k rows came back although more pass the filter.
    """

    distances: list[float]
    row_ids: list[int]
    coverage: Coverage
    probe_s: float
    scan_s: float
    merge_s: float
    lists_probed: int
    short: bool


@dataclass(slots=True)
class _Clock:
    """Seconds per step, over all rounds."""

    probe_s: float = 0.0
    scan_s: float = 0.0
    merge_s: float = 0.0
    started_s: float = field(default_factory=time.perf_counter)

    def lap_s(self) -> float:
        """Since the last lap."""
        now_s = time.perf_counter()
        lap_s, self.started_s = now_s - self.started_s, now_s
        return lap_s


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the rounds so far found for one request."""

    distances: list[float]
    row_ids: list[int]
    coverage: Coverage


class FindStage:
    """Rows for requests of one key."""

    def __init__(self, pool: NodePool) -> None:
        self._scan = IndexScanStage(pool)
        self._probe = ProbeStage()
        self._retrieve = RetrieveStage(pool)
        self._merge = MergeStage()

    async def __call__(
        self, requests: Sequence[RetrieveRequest], context: CallContext
    ) -> list[Found]:
        """One result per request, exact over the lists that were scanned.

        Raises:
            RagrigError: as RetrieveStage tells.
        """
        clock = _Clock()
        widths = [r.reach.first for r in requests]
        lists = await self._lists(requests, widths, context)
        clock.probe_s += clock.lap_s()
        rows = await self._round(requests, lists, context, clock)
        if lists is not None:
            short = [i for i, request in enumerate(requests) if _is_short(request, rows[i])]
            scanned = {i: set(lists[i, : widths[i]].tolist()) for i in short}
            await self._go_on(requests, rows, scanned, context, clock)
            for i, numbers in scanned.items():
                widths[i] = len(numbers)
        return [
            Found(
                distances=found.distances,
                row_ids=found.row_ids,
                coverage=found.coverage,
                probe_s=clock.probe_s,
                scan_s=clock.scan_s,
                merge_s=clock.merge_s,
                lists_probed=width,
                short=_is_short(request, found),
            )
            for request, found, width in zip(requests, rows, widths, strict=True)
        ]

    async def _lists(
        self, requests: Sequence[RetrieveRequest], widths: Sequence[int], context: CallContext
    ) -> I32 | None:
        """Of each request; None where the collection keeps exact vectors."""
        coarse, queries = requests[0].coarse, stack_vectors(requests)
        if coarse is not None:
            snapshot = requests[0].snapshot
            lists = await self._scan(snapshot, coarse, queries, widths, context)
            if lists is not None:
                return lists
        return await self._probe(coarse, queries, widths)

    async def _go_on(
        self,
        requests: Sequence[RetrieveRequest],
        rows: list[_Rows],
        scanned: dict[int, set[int]],
        context: CallContext,
        clock: _Clock,
    ) -> None:
        """Further rounds for those that found too few; changes ``rows`` and ``scanned``."""
        while True:
            again = [
                i
                for i, numbers in scanned.items()
                if len(numbers) < requests[i].reach.most and _is_short(requests[i], rows[i])
            ]
            if not again:
                return
            some = [requests[i] for i in again]
            widths = [min(requests[i].reach.most, _GROWTH * len(scanned[i])) for i in again]
            ranked = await self._lists(some, widths, context)
            assert ranked is not None, "who has lists keeps them"
            fresh = _without(ranked, [scanned[i] for i in again])
            clock.probe_s += clock.lap_s()
            more = await self._round(some, fresh, context, clock)
            for i, found, numbers in zip(again, more, fresh.tolist(), strict=True):
                scanned[i].update(number for number in numbers if number >= 0)
                rows[i] = _joined(rows[i], found, requests[i].k)

    async def _round(
        self,
        requests: Sequence[RetrieveRequest],
        lists: I32 | None,
        context: CallContext,
        clock: _Clock,
    ) -> list[_Rows]:
        answers = await self._retrieve(requests, lists, context)
        clock.scan_s += clock.lap_s()
        ranking = self._merge(answers.results, len(requests), max(r.k for r in requests))
        distances, row_ids = ranking.distances.tolist(), ranking.row_ids.tolist()
        rows = [
            _Rows(near[: min(n, r.k)], ids[: min(n, r.k)], answers.coverage)
            for r, near, ids, n in zip(
                requests, distances, row_ids, ranking.counts.tolist(), strict=True
            )
        ]
        clock.merge_s += clock.lap_s()
        return rows


def report_of(request: RetrieveRequest, found: Found) -> RetrievalReport:
    """How the request was served."""
    effort, row_filter = request.effort, request.row_filter
    all_lists = request.coarse.nlist if request.coarse is not None else 0
    stopped = found.short and found.lists_probed < all_lists
    return RetrievalReport(
        nprobe=effort.nprobe,
        refine_k=effort.refine_k,
        recall_expected=effort.recall_expected,
        recall_reached=effort.recall_reached,
        lists_probed=found.lists_probed,
        filter_selectivity=row_filter.selectivity if row_filter is not None else None,
        filter_limited=request.reach.limited or stopped,
    )


def _is_short(request: RetrieveRequest, found: _Rows) -> bool:
    """Whether a filter left fewer rows than there must be."""
    if request.row_filter is None:
        return False
    return len(found.row_ids) < min(request.k, request.row_filter.passing)


def _without(ranked: I32, scanned: Sequence[set[int]]) -> I32:
    """Each row's lists that were not scanned yet, nearest first, padded with -1.

    By what was scanned, not by position: the ranking of another batch may
    differ from the first one's in the last bit of a distance.
    """
    rest = [
        [number for number in row if number >= 0 and number not in done]
        for row, done in zip(ranked.tolist(), scanned, strict=True)
    ]
    fresh = np.full((len(rest), max(map(len, rest))), -1, dtype=np.int32)
    for row, numbers in zip(fresh, rest, strict=True):
        row[: len(numbers)] = numbers
    return fresh


def _joined(one: _Rows, other: _Rows, k: int) -> _Rows:
    """The k nearest of two rounds, ties by row id.

    Small fresh segments have no lists and are scanned in every round, so a row
    may come twice.
    """
    nearest = dict(zip(other.row_ids, other.distances, strict=True))
    nearest.update(zip(one.row_ids, one.distances, strict=True))
    ranked = sorted((distance, row) for row, distance in nearest.items())[:k]
    missing = tuple(sorted({*one.coverage.missing, *other.coverage.missing}))
    coverage = Coverage(min(one.coverage.fraction, other.coverage.fraction), missing)
    return _Rows([d for d, _ in ranked], [row for _, row in ranked], coverage)
