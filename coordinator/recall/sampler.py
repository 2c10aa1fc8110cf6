"""Compares some live searches with exact ones, when nobody waits for the nodes.

A search is offered after it was answered. Which ones are taken is drawn by
lot; they wait in a short queue, and one task compares them one at a time. It
gives a comparison up rather than start it while live searches wait, and rests
after each, the longer the more work it was.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from coordinator.metrics import Metrics
from coordinator.nodes.pool import NodePool
from coordinator.recall.window import RecallEstimate, RecallWindow, recall_of
from coordinator.stages.effort import MAX_NODE_K
from coordinator.stages.find import Found
from coordinator.stages.merge import MergeStage
from coordinator.stages.retrieve import RetrieveRequest, RetrieveStage
from ragschema.errors import RagrigError
from ragschema.rig import RecallSamplingConfig
from ragschema.types import CallContext

log = logging.getLogger(__name__)

_MAX_WAITING = 8
_DEADLINE_S = 10.0
#: How long a comparison waits for a quiet moment, and how often it looks.
_PATIENCE_S = 2.0
_LOOK_S = 0.01
#: A comparison is followed by a pause of so many times its own length: searches
#: that arrive while a node compares wait for it, and that must stay rare.
_REST = 19.0


class SampleOutcome(StrEnum):
    """What became of a search that was drawn.

    NO_VECTORS: its collection stores none to compare with. PARTIAL: not every
    shard answered. DROPPED: the queue or the nodes were busy, or the rate was
    reached.
    """

    COMPARED = "compared"
    NO_VECTORS = "no_vectors"
    PARTIAL = "partial"
    DROPPED = "dropped"
    FAILED = "failed"


class Lease(Protocol):
    """Keeps a snapshot open between the two calls; a ``catalog.Live``."""

    def __enter__(self) -> object: ...

    def __exit__(self, kind: None, error: None, trace: None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Sample:
    lease: Lease
    request: RetrieveRequest
    found: tuple[int, ...]

    def release(self) -> None:
        self.lease.__exit__(None, None, None)


class RecallSampler:
    """Estimates the recall of every collection's live searches.

    Args:
        busy: whether live searches wait for the nodes.
        draw: a number in [0, 1) per offered search.
    """

    def __init__(
        self,
        config: RecallSamplingConfig,
        pool: NodePool,
        metrics: Metrics,
        busy: Callable[[], bool],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._retrieve = RetrieveStage(pool)
        self._merge = MergeStage()
        self._metrics = metrics
        self._busy = busy
        self._draw = draw
        self._waiting: deque[_Sample] = deque()
        self._windows: dict[str, RecallWindow] = {}
        self._next_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def offer(self, lease: Lease, request: RetrieveRequest, found: Found) -> None:
        """Takes an answered search or leaves it; costs nearly nothing, never raises."""
        index = request.snapshot.manifest.index
        if index is None or self._closed or self._draw() >= self._config.share:
            return
        if index.refine_factor is None:
            self._count(SampleOutcome.NO_VECTORS)
        elif found.coverage.fraction < 1.0:
            self._count(SampleOutcome.PARTIAL)
        elif len(self._waiting) >= _MAX_WAITING or not self._take_turn():
            self._count(SampleOutcome.DROPPED)
        else:
            lease.__enter__()
            self._waiting.append(_Sample(lease, request, tuple(found.row_ids)))
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._work())

    def estimates(self, served: Iterable[str]) -> dict[str, RecallEstimate]:
        """Of the collections that are served; forgets the others."""
        names = set(served)
        for gone in self._windows.keys() - names:
            del self._windows[gone]
        told = ((name, window.estimate()) for name, window in sorted(self._windows.items()))
        return {name: estimate for name, estimate in told if estimate is not None}

    async def close(self) -> None:
        """Gives up what waits and what is under way."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft().release()

    def _take_turn(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + 1.0 / self._config.max_per_s
        return True

    async def _work(self) -> None:
        """Compares until nothing waits; a task of its own each time."""
        try:
            while self._waiting:
                sample = self._waiting.popleft()
                try:
                    self._count(await self._try(sample))
                finally:
                    sample.release()
        finally:
            self._task = None

    async def _try(self, sample: _Sample) -> SampleOutcome:
        if not await self._quiet():
            return SampleOutcome.DROPPED
        context = CallContext.start(_DEADLINE_S)
        started_s = time.monotonic()
        try:
            return await self._compare(sample, context)
        except RagrigError as error:
            log.info("trace %s: no recall sample: %s", context.trace_id, error)
        except Exception:
            log.exception("trace %s: defect in the recall sampler", context.trace_id)
        finally:
            now_s = time.monotonic()
            self._next_s = max(self._next_s, now_s + _REST * (now_s - started_s))
        return SampleOutcome.FAILED

    async def _quiet(self) -> bool:
        until_s = time.monotonic() + _PATIENCE_S
        while self._busy():
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def _compare(self, sample: _Sample, context: CallContext) -> SampleOutcome:
        request = sample.request
        # More than k, to see which rows are as near as the k-th.
        wider = replace(request, k=min(MAX_NODE_K, 2 * request.k))
        answers = await self._retrieve([wider], None, context, exact=True)
        if answers.coverage.fraction < 1.0:
            return SampleOutcome.PARTIAL
        ranking = self._merge(answers.results, 1, wider.k)
        count = int(ranking.counts[0])
        distances = ranking.distances[0, :count].tolist()
        rows = ranking.row_ids[0, :count].tolist()
        recall = recall_of(list(sample.found), distances, rows, request.k)
        if recall is not None:
            self._window_of(request).add(recall)
        return SampleOutcome.COMPARED

    def _window_of(self, request: RetrieveRequest) -> RecallWindow:
        manifest = request.snapshot.manifest
        assert manifest.index is not None, "exact collections are not sampled"
        path = manifest.index.file.path
        window = self._windows.get(manifest.collection)
        if window is None or window.index_path != path:
            window = self._windows[manifest.collection] = RecallWindow(path)
        return window

    def _count(self, outcome: SampleOutcome) -> None:
        self._metrics.recall_sample(outcome)
