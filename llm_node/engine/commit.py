"""What a step's logits do to the sequences: tokens, pauses, ends, events."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import torch

from llm_node.engine.admit import finish_behind
from llm_node.engine.knn import mixed_logits
from llm_node.engine.request import (
    Ended,
    Finish,
    Paused,
    PauseReason,
    Sequence,
    SequenceState,
    StepEvent,
    TokenOut,
)
from llm_node.engine.runner import StepOutput
from llm_node.engine.sampler import Chosen, Sampler, SamplerRow
from llm_node.engine.scheduler import Chunk, Scheduler
from ragschema.types import F32

_NAN = "the model produced NaN or infinity; its weights may be damaged"


class Committer:
    """Turns logits into tokens and moves sequences between the queues.

    Attributes:
        mixed: paused sequences whose held token can be drawn in the next step.
    """

    def __init__(self, scheduler: Scheduler, events: list[StepEvent]) -> None:
        self._scheduler = scheduler
        self._events = events
        self._sampler = Sampler()
        self.mixed: list[Sequence] = []

    def computed(self, chunks: Seq[Chunk], output: StepOutput) -> None:
        """Commits a step: KV that is there now, and the tokens that follow."""
        for chunk in chunks:
            self._scheduler.computed(chunk)
        sampling = [chunk.sequence for chunk in chunks if chunk.samples]
        if not sampling:
            return
        best: list[list[int]] = output.best.tolist()
        drawn: list[int] = []
        for row, sequence in enumerate(sampling):
            pause = sequence.request.pause
            if not best[row][1]:
                self._scheduler.distrust(sequence)
                self.end(sequence, Finish.ERROR, _NAN)
            elif pause is not None and pause.every_token_hidden:
                sequence.logits = output.logits[row].clone()
                self._pause(sequence, PauseReason.NEIGHBOURS, _vector(output.hidden[row]))
            else:
                drawn.append(row)
        if drawn:
            # Most steps draw for every row, and a copy of all logits is not free.
            whole = len(drawn) == len(sampling)
            logits = output.logits if whole else output.logits[drawn]
            chosen = self._choose(
                logits, [sampling[row] for row in drawn], [best[row][0] for row in drawn]
            )
            for row, choice in zip(drawn, chosen, strict=True):
                self._append(sampling[row], choice, output.hidden[row])

    def draw_mixed(self) -> None:
        """Draws the tokens that were held back for neighbours."""
        ready, self.mixed = [s for s in self.mixed if s.logits is not None], []
        if not ready:
            return
        logits = [s.logits if s.mix is None else mixed_logits(s.logits, s.mix) for s in ready]
        for sequence, choice in zip(ready, self._choose(torch.stack(logits), ready), strict=True):
            sequence.logits = sequence.mix = None
            self._scheduler.resume(sequence)
            self._append(sequence, choice, None)

    def _choose(
        self, logits: torch.Tensor, sequences: Seq[Sequence], best: Seq[int] | None = None
    ) -> list[Chosen]:
        return self._sampler.choose(logits, [one.row or _row(one) for one in sequences], best)

    def _append(self, sequence: Sequence, chosen: Chosen, hidden: torch.Tensor | None) -> None:
        request = sequence.request
        sequence.token_ids.append(chosen.token_id)
        sequence.output_ids.append(chosen.token_id)
        sequence.since_pause += 1
        self._events.append(
            TokenOut(
                request.request_id, chosen.token_id, chosen.logprob, chosen.top, sequence.index
            )
        )
        finish = _finish(sequence, chosen.token_id)
        if finish is not None:
            self.end(sequence, finish)
            return
        reason = _pause_reason(sequence, chosen.token_id)
        if reason is not None:
            wanted = request.capture_hidden and hidden is not None
            self._pause(sequence, reason, _vector(hidden) if wanted else None)

    def _pause(self, sequence: Sequence, reason: PauseReason, hidden: F32 | None) -> None:
        new = sequence.output_ids[len(sequence.output_ids) - sequence.since_pause :]
        sequence.since_pause = 0
        self._scheduler.pause(sequence)
        request_id = sequence.request.request_id
        self._events.append(Paused(request_id, reason, tuple(new), hidden, sequence.index))

    def end(self, sequence: Sequence, finish: Finish, message: str = "") -> None:
        """Frees what a sequence holds and tells why; ended ones are left alone."""
        if sequence.state is SequenceState.FINISHED:
            return
        if sequence in self.mixed:
            self.mixed.remove(sequence)
        self._scheduler.finish(sequence)
        self._events.append(
            Ended(sequence.request.request_id, finish, sequence.index, message, sequence.cached)
        )


def _row(sequence: Sequence) -> SamplerRow:
    request = sequence.request
    eos = frozenset() if request.sampling.ignore_eos else request.eos
    ends = tuple(eos.union(request.sampling.stop_ids))
    sequence.row = SamplerRow(
        request.sampling, sequence.token_ids, sequence.output_ids, sequence.seed, ends
    )
    return sequence.row


def _vector(hidden: torch.Tensor | None) -> F32:
    assert hidden is not None
    vector: F32 = hidden.float().cpu().numpy()
    return vector


def _finish(sequence: Sequence, token_id: int) -> Finish | None:
    request, made = sequence.request, len(sequence.output_ids)
    finish = finish_behind(request.sampling, request.eos, token_id, made)
    if finish is None and len(sequence.token_ids) >= sequence.limit:
        return Finish.LENGTH
    return finish


def _pause_reason(sequence: Sequence, token_id: int) -> PauseReason | None:
    policy = sequence.request.pause
    if policy is None:
        return None
    if token_id in policy.trigger_ids:
        return PauseReason.TRIGGER
    if policy.every_tokens is not None and sequence.since_pause >= policy.every_tokens:
        return PauseReason.INTERVAL
    return None
