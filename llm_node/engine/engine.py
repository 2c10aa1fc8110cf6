"""The engine: one step is schedule, run, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path

import torch

from llm_node.engine.admit import check_ids, make_sequences
from llm_node.engine.blocks import BlockPool
from llm_node.engine.budget import blocks_for
from llm_node.engine.commit import Committer
from llm_node.engine.config import EngineConfig
from llm_node.engine.graphs import Record, compiled, record_cuda
from llm_node.engine.knn import check_mix
from llm_node.engine.kv import KvCache, KvSnapshot
from llm_node.engine.load import LoadedModel, load_model
from llm_node.engine.request import (
    EngineRequest,
    EngineStats,
    Finish,
    KnnMix,
    Sequence,
    SequenceState,
    StepEvent,
)
from llm_node.engine.runner import Runner
from llm_node.engine.scheduler import Scheduler
from ragschema.errors import Conflict, InvalidInput, NotFound, PayloadTooLarge
from ragschema.types import F32, I32


class Engine:
    """Serves requests over one model; one thread only, see ``worker.EngineWorker``.

    Args:
        model: on its device.
        clock: seconds, what deadlines are compared with.

    Attributes:
        max_tokens: of one request, prompt and answer.
        stalled: the last step found nothing that could be computed.

    Raises:
        InvalidInput: the KV cache cannot hold one request of the maximum length.
    """

    def __init__(
        self,
        model: LoadedModel,
        config: EngineConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self._clock = clock
        self.max_tokens = _max_tokens(model, config)
        self.config = config
        blocks = blocks_for(config, model.layout, self.max_tokens, model.device)
        self._kv = KvCache(model.layout, blocks, config.block_tokens, model.device)
        self._pool = BlockPool(blocks, config.prefix_reuse)
        self._scheduler = Scheduler(config, self._pool)
        self._runner = Runner(model, self._kv, _record(config))
        self._events: list[StepEvent] = []
        self._commit = Committer(self._scheduler, self._events)
        self._live: dict[str, list[Sequence]] = {}
        self._arrivals = 0
        self.stalled = False
        self._steps = self._batch_tokens = self._computed_tokens = 0
        self._step_us = self._steps_us = 0

    @staticmethod
    def load(directory: Path, config: EngineConfig) -> Engine:
        """Loads a checkpoint directory, sizes the KV cache and records decode steps.

        Raises:
            InvalidInput, CorruptData: naming the file or option at fault.
        """
        engine = Engine(load_model(directory, config), config)
        with torch.inference_mode():
            engine._runner.warm_up(config.max_running)
        return engine

    def step(self) -> list[StepEvent]:
        """One forward pass over what is due, and what became of every sequence."""
        with torch.inference_mode():
            started_s = time.monotonic()
            self._end_expired(self._clock())
            self._commit.draw_mixed()
            plan = self._scheduler.schedule()
            for sequence in plan.imports:
                self._import(sequence)
            if plan.chunks:
                output = self._runner.run(plan.chunks)
                self._commit.computed(plan.chunks, output)
                self._count(plan.tokens, started_s)
            events = self.take_events()
            self.stalled = not plan.chunks and not events
            return events

    @property
    def has_work(self) -> bool:
        """Whether a step would do something now."""
        scheduler = self._scheduler
        return bool(self._events or scheduler.running or scheduler.waiting or self._commit.mixed)

    def next_deadline_s(self) -> float | None:
        """When the first live request ends by itself, on the monotonic clock."""
        deadlines = [s.request.deadline_s for s in self._scheduler.live()]
        return min((d for d in deadlines if d is not None), default=None)

    def add(self, request: EngineRequest) -> None:
        """Queues a request.

        Raises:
            PayloadTooLarge: the prompt leaves no room for an answer.
            InvalidInput: an empty prompt, unknown ids, options that exclude each other.
            Conflict: a live request has the same id.
        """
        self._queue(request, None, dict.fromkeys(range(request.sampling.n), ()))

    def import_kv(
        self, request: EngineRequest, snapshot: KvSnapshot, known: Mapping[int, Seq[int]]
    ) -> None:
        """Queues a request whose prompt is computed and first tokens are known.

        Args:
            known: output tokens by the index of their sequence; they count as generated and
                are not told again. An index that is not named has ended elsewhere.

        Raises:
            IncompatibleRequest: the snapshot is another model's or another prompt's.
        """
        self._kv.check(snapshot, self.model.fingerprint)
        self._queue(request, snapshot, known)

    def _queue(
        self,
        request: EngineRequest,
        snapshot: KvSnapshot | None,
        known: Mapping[int, Seq[int]],
    ) -> None:
        if request.request_id in self._live:
            raise Conflict(f"request {request.request_id!r} is still running", field="request_id")
        sequences = make_sequences(
            request, self._arrivals, self.max_tokens, self.model.vocabulary, snapshot, known
        )
        self._arrivals += len(sequences)
        self._live[request.request_id] = sequences
        for sequence in sequences:
            self._scheduler.add(sequence)

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """Ends a request and frees its blocks at once; unknown ones are ignored.

        Args:
            index: of the only one of its sequences to end; None: all of them.
        """
        for sequence in self._live.get(request_id, ()):
            if index is None or sequence.index == index:
                self._commit.end(sequence, Finish.CANCELLED)
        self._forget_ended()

    def resume(self, request_id: str, extra_ids: Seq[int], index: int = 0) -> None:
        """Goes on with a paused sequence behind ``extra_ids``, which are read.

        Args:
            index: which of the request's sequences.

        Raises:
            NotFound: there is no such request.
            Conflict: it is not paused.
            PayloadTooLarge: the tokens leave no room for an answer.
        """
        sequence = self._paused(request_id, index)
        room = self.max_tokens - len(sequence.token_ids)
        if len(extra_ids) >= room:
            raise PayloadTooLarge(
                f"{len(extra_ids)} tokens of context do not fit, {room} are left with the answer",
                field="extra_ids",
                hint="send fewer or shorter passages",
            )
        if extra_ids:
            check_ids(extra_ids, self.model.vocabulary, "extra_ids")
        sequence.token_ids += extra_ids
        if sequence.logits is not None and not extra_ids:
            self._commit.mixed.append(sequence)
            return
        sequence.logits = None
        self._scheduler.resume(sequence)

    def resume_mixed(
        self,
        request_id: str,
        neighbour_tokens: I32,
        neighbour_distances: F32,
        lam: float,
        temperature: float,
        index: int = 0,
    ) -> None:
        """Draws the held token from lam * p_knn + (1 - lam) * p_lm in the next step.

        Raises:
            NotFound: there is no such request.
            Conflict: it does not hold a token back.
            InvalidInput: the neighbours cannot be mixed in.
        """
        sequence = self._paused(request_id, index)
        if sequence.logits is None:
            raise Conflict(f"request {request_id!r} holds no token back", field="request_id")
        mix = KnnMix(neighbour_tokens, neighbour_distances, lam, temperature)
        check_mix(mix, sequence.logits.shape[-1])
        sequence.mix = mix
        self._commit.mixed.append(sequence)

    def export_kv(self, request_id: str, index: int = 0) -> KvSnapshot:
        """The KV of one of a request's sequences, as far as it is computed.

        Raises:
            NotFound: there is no such request.
            Conflict: nothing is computed, or its blocks were taken; a pause with
                ``hold_kv`` keeps them.
        """
        sequence = self._sequence(request_id, index)
        if not sequence.computed or sequence in self._scheduler.waiting:
            raise Conflict(f"request {request_id!r} has no KV now", field="request_id")
        return self._kv.export(
            sequence.blocks, sequence.token_ids, sequence.computed, self.model.fingerprint
        )

    def stats(self) -> EngineStats:
        """Counters and gauges."""
        scheduler = self._scheduler
        return EngineStats(
            steps=self._steps,
            batch_tokens=self._batch_tokens,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            paused=len(scheduler.paused),
            preempted=scheduler.preempted,
            blocks_used=self._pool.used,
            blocks_total=self._pool.total,
            prefix_hit_tokens=scheduler.prefix_hits,
            prefix_query_tokens=scheduler.prefix_queries,
            computed_tokens=self._computed_tokens,
            step_us=self._step_us,
            steps_us=self._steps_us,
        )

    def check_integrity(self) -> None:
        """Raises InternalError when a block leaked or is held twice."""
        self._scheduler.check_integrity()

    def _import(self, sequence: Sequence) -> None:
        assert sequence.snapshot is not None
        self._kv.load(sequence.snapshot, sequence.blocks)
        sequence.snapshot = None

    def _end_expired(self, now_s: float) -> None:
        for sequence in list(self._scheduler.live()):
            deadline_s = sequence.request.deadline_s
            if deadline_s is not None and deadline_s <= now_s:
                self._commit.end(sequence, Finish.DEADLINE)

    def take_events(self) -> list[StepEvent]:
        """What happened since the last step, such as the end of a cancelled request."""
        events = self._events[:]
        self._events.clear()
        self._forget_ended()
        return events

    def _forget_ended(self) -> None:
        for request_id, sequences in list(self._live.items()):
            if all(s.state is SequenceState.FINISHED for s in sequences):
                del self._live[request_id]

    def _count(self, tokens: int, started_s: float) -> None:
        self._steps += 1
        self._batch_tokens = tokens
        self._computed_tokens += tokens
        self._step_us = int((time.monotonic() - started_s) * 1e6)
        self._steps_us += self._step_us

    def _sequence(self, request_id: str, index: int) -> Sequence:
        for sequence in self._live.get(request_id, ()):
            if sequence.index == index:
                return sequence
        which = f" with a sequence {index}" if index else ""
        raise NotFound(f"there is no request {request_id!r}{which}", field="request_id")

    def _paused(self, request_id: str, index: int) -> Sequence:
        sequence = self._sequence(request_id, index)
        if sequence.state is not SequenceState.PAUSED or sequence in self._commit.mixed:
            raise Conflict(f"request {request_id!r} is not paused", field="request_id")
        return sequence


def _record(config: EngineConfig) -> Record | None:
    """How decode steps are recorded; None: they are not."""
    if not config.cuda_graphs:
        return None
    return compiled(record_cuda) if config.compile_steps else record_cuda


def _max_tokens(model: LoadedModel, config: EngineConfig) -> int:
    """Tokens of the longest request: what is configured, within the context."""
    asked, context = config.max_tokens_per_request, model.context
    if asked is None and context is None:
        raise InvalidInput(
            "the model has no longest context",
            field="max_tokens_per_request",
            hint="say how long a request may be",
        )
    if asked is not None and context is not None and asked > context:
        raise InvalidInput(
            f"{asked} tokens are more than the model's context of {context}",
            field="max_tokens_per_request",
            hint=f"use {context} or less",
        )
    return asked or context or 0
