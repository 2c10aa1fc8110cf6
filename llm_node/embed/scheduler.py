"""The queue in front of an embedder.

One forward pass runs at a time, in a turn on the device. Texts of requests that wait
together share it: whoever comes before the turn takes part. Urgent requests (queries,
unless the caller says otherwise) go first, so that a question does not stand behind an
ingestion; every fifth pass still belongs to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llm_node.device.scheduler import Lane
from llm_node.roles import Embedder, TokenizedText
from ragschema.errors import InternalError, Overloaded, RagrigError, Unavailable
from ragschema.types import F32, EmbedPurpose

log = logging.getLogger(__name__)

_URGENT_PASSES_IN_A_ROW = 4


@dataclass(frozen=True)
class Embedded:
    """What an Embed call answers.

    Attributes:
        vectors: float32 [n, dim], unit length, in the order of the texts.
        tokens: tokens read, special ones included.
        truncated: texts of which only the head was read.
    """

    vectors: F32
    tokens: int
    truncated: int
    queue_us: int = 0
    compute_us: int = 0


@dataclass(eq=False)
class _Job:
    """One request on its way through the queue; the device's thread fills it.

    Attributes:
        closed: it failed, or the node shuts down: nothing of it runs any more.
    """

    texts: Sequence[str]
    purpose: EmbedPurpose
    urgent: bool
    size_bytes: int
    done: asyncio.Future[None]
    vectors: F32
    arrived_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    closed: bool = False
    encoded: list[TokenizedText] | None = None
    #: Indices still to embed, the shortest text first: taken from the end.
    remaining: list[int] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether there is something left to run."""
        left = self.encoded is None or bool(self.remaining)
        return left and not self.closed and not self.done.done()

    def encode(self, embedder: Embedder) -> None:
        self.encoded = encoded = embedder.encode(self.texts, self.purpose)
        self.remaining = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))


class EmbedScheduler:
    """Merges concurrent Embed calls into shared forward passes.

    Args:
        embedder: used in the device's thread only.
        lane: whose turns the passes get.
        max_waiting: requests that may wait; more raise Overloaded.
        max_pending_bytes: text that may wait.
        max_batch: texts in one forward pass.
    """

    def __init__(
        self,
        embedder: Embedder,
        lane: Lane,
        max_waiting: int,
        max_pending_bytes: int,
        max_batch: int = 32,
    ) -> None:
        self._embedder = embedder
        self._lane = lane
        self._max_waiting = max_waiting
        self._max_pending_bytes = max_pending_bytes
        self._max_batch = max_batch
        self._dim = embedder.info.dim or 0
        self._jobs: deque[_Job] = deque()
        self._pending_bytes = 0
        self._urgent_in_a_row = 0
        #: Of the jobs: the event loop adds and removes, the device's thread picks.
        self._lock = threading.Lock()
        self._asked = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def running(self) -> int:
        """Requests of which a text has been taken up."""
        return sum(job.started_s is not None for job in tuple(self._jobs))

    @property
    def waiting(self) -> int:
        """Requests of which no text has been taken up yet."""
        return sum(job.started_s is None for job in tuple(self._jobs))

    def close(self) -> None:
        """Starts no further pass; whoever still waits gets Unavailable."""
        for job in self._jobs:
            job.closed = True
            if not job.done.done():
                job.done.set_exception(Unavailable("the node shuts down"))

    async def embed(
        self, texts: Sequence[str], purpose: EmbedPurpose, urgent: bool | None = None
    ) -> Embedded:
        """Queues the texts and waits; being cancelled drops what is left of them.

        Args:
            urgent: goes before those that are not; None: queries are.

        Raises:
            Overloaded: too many requests, or too much text, wait already.
        """
        if not texts:
            return Embedded(np.zeros((0, self._dim), dtype=np.float32), 0, 0)
        is_query = purpose is EmbedPurpose.QUERY
        job = self._admit(texts, purpose, is_query if urgent is None else urgent)
        try:
            await job.done
        finally:
            with self._lock:
                self._jobs.remove(job)
                self._pending_bytes -= job.size_bytes
        assert job.encoded is not None
        assert job.started_s is not None
        return Embedded(
            vectors=job.vectors,
            tokens=sum(len(text.ids) for text in job.encoded),
            truncated=sum(text.truncated for text in job.encoded),
            queue_us=int((job.started_s - job.arrived_s) * 1e6),
            compute_us=int((time.monotonic() - job.started_s) * 1e6),
        )

    def _admit(self, texts: Sequence[str], purpose: EmbedPurpose, urgent: bool) -> _Job:
        size_bytes = sum(map(len, texts))
        full = self._pending_bytes and self._pending_bytes + size_bytes > self._max_pending_bytes
        if self.waiting >= self._max_waiting or full:
            raise Overloaded(
                f"{self.waiting} embedding requests with {self._pending_bytes} bytes wait already",
                hint="try again later, or send fewer texts at once",
            )
        vectors = np.empty((len(texts), self._dim), dtype=np.float32)
        self._loop = asyncio.get_running_loop()
        job = _Job(texts, purpose, urgent, size_bytes, self._loop.create_future(), vectors)
        with self._lock:
            self._jobs.append(job)
            self._pending_bytes += size_bytes
            asked, self._asked = self._asked, True
        if not asked:
            self._lane.ask(self._turn)
        return job

    def _turn(self) -> bool:
        """The device's thread: one pass; whether there are texts for another."""
        with self._lock:
            jobs = self._next_jobs()
        failure: Exception | None = None
        try:
            if jobs:
                self._pass(jobs)
        except Exception as error:  # noqa: BLE001  one bad batch must not stop the queue
            failure = self._told(error)
            for job in jobs:
                job.closed = True
        self._tell([job for job in jobs if not job.open], failure)
        with self._lock:
            self._asked = any(job.open for job in self._jobs)
            return self._asked

    def _tell(self, ended: list[_Job], failure: Exception | None) -> None:
        assert self._loop is not None, "a job has been admitted"
        with contextlib.suppress(RuntimeError):  # the loop ended before the device
            self._loop.call_soon_threadsafe(_settle, ended, failure)

    def _told(self, error: Exception) -> Exception:
        """What the callers are told of a failed pass."""
        if isinstance(error, RagrigError):
            return error
        log.error("a forward pass failed", exc_info=error)
        return InternalError(f"the embedder {self._embedder.info.name} failed on this batch")

    def _next_jobs(self) -> list[_Job]:
        """The first jobs of one kind that fill a pass; none when nothing waits."""
        waiting = [job for job in self._jobs if job.open]
        urgent = [job for job in waiting if job.urgent]
        others = [job for job in waiting if not job.urgent]
        if others and (not urgent or self._urgent_in_a_row >= _URGENT_PASSES_IN_A_ROW):
            self._urgent_in_a_row = 0
            return self._fill(others)
        self._urgent_in_a_row += 1
        return self._fill(urgent)

    def _fill(self, queue: Sequence[_Job]) -> list[_Job]:
        chosen: list[_Job] = []
        texts = 0
        for job in queue:
            if texts >= self._max_batch:
                break
            texts += len(job.texts) if job.encoded is None else len(job.remaining)
            chosen.append(job)
            if job.started_s is None:
                job.started_s = time.monotonic()
        return chosen

    def _pass(self, jobs: Sequence[_Job]) -> None:
        """The device's thread: one forward pass over the longest texts of the jobs."""
        picked: list[tuple[_Job, int]] = []
        batch: list[TokenizedText] = []
        for job in jobs:
            if job.encoded is None:
                job.encode(self._embedder)
            encoded = job.encoded or []
            taken = len(job.remaining) - min(len(job.remaining), self._max_batch - len(picked))
            picked += [(job, index) for index in job.remaining[taken:]]
            batch += [encoded[index] for index in job.remaining[taken:]]
            del job.remaining[taken:]
        vectors = self._embedder.forward(batch)
        for (job, index), vector in zip(picked, vectors, strict=True):
            job.vectors[index] = vector


def _settle(ended: Sequence[_Job], failure: Exception | None) -> None:
    for job in ended:
        if job.done.done():
            continue
        if failure is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(failure)


def embed_now(
    embedder: Embedder, texts: Sequence[str], purpose: EmbedPurpose, max_batch: int = 32
) -> Embedded:
    """The same without a queue, in the calling thread; for tools and tests."""
    encoded = embedder.encode(texts, purpose)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids), reverse=True)
    vectors = np.empty((len(texts), embedder.info.dim or 0), dtype=np.float32)
    for start in range(0, len(order), max_batch):
        rows = order[start : start + max_batch]
        vectors[rows] = embedder.forward([encoded[i] for i in rows])
    return Embedded(vectors, sum(len(t.ids) for t in encoded), sum(t.truncated for t in encoded))
