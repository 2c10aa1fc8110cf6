"""Engines that read prompts in pieces beside the answers they write: what a step takes.

While answers are being written, a step takes along a piece of the oldest prompt (chunked prefill),
so that the next tokens do not wait for long prompts; with no answer under way prompts are read
whole. A stage table with a ``Mixing`` says so of decode on the chips of prefill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ragschema.planner.stages import F64, I64, Mixing

#: Numbers of answers under way, whole or not.
Counts = F64 | I64
#: Part of an answer's time that is left to decode where reading takes all of it.
_LEAST = 1e-6


@dataclass(frozen=True)
class Steps:
    """One allocation's steps.

    Attributes:
        alone_s: seconds of a step that writes 1, 2, ... answers.
        mixed_s: likewise, with a whole piece of a prompt.
        piece_tokens: of a prompt, in a step that writes too.
        whole_tokens: of prompts, in a step that writes nothing.
        read_s: per token of a prompt in such a step.
        embed_s: of a question, between two steps.
    """

    alone_s: Sequence[float]
    mixed_s: Sequence[float]
    piece_tokens: float
    whole_tokens: float
    read_s: float
    embed_s: float = 0.0

    @cached_property
    def slots(self) -> int:
        """Answers under way and the prompt that is read beside them."""
        return len(self.alone_s)

    def writing_s(self, answers: int, tokens: float) -> float:
        """A step of so many answers with so many tokens of prompts, a piece at most."""
        alone_s = self.alone_s[answers - 1]
        return alone_s + (self.mixed_s[answers - 1] - alone_s) * tokens / self.piece_tokens


def steps_of(mixing: Mixing, batches: Sequence[int], row: int, batch: int) -> Steps:
    """Steps of one engine: of its part of ``batch`` answers, and of one that was read when all
    were under way.

    Straight lines are drawn between the table's batches.
    """
    engines = int(mixing.engines[row])
    counts = np.arange(1, -(-batch // engines) + 2) * engines
    return Steps(
        _drawn(counts, batches, mixing.alone_s[row]).tolist(),
        _drawn(counts, batches, mixing.mixed_s[row]).tolist(),
        mixing.piece_tokens,
        mixing.whole_tokens,
        float(mixing.prompt_s[row]) / mixing.prompt_tokens,
        float(mixing.embed_s[row]),
    )


def _drawn(counts: Counts, batches: Sequence[int], known_s: F64) -> F64:
    """Seconds at each count; beyond the last batch that is possible as steep as before it."""
    possible = np.isfinite(known_s)
    sizes, seconds = np.array(batches)[possible], known_s[possible]
    drawn: F64 = np.interp(counts, sizes, seconds)
    if len(sizes) > 1:
        steep = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
        drawn += np.maximum(0.0, counts - sizes[-1]) * max(0.0, float(steep))
    return drawn


def answers_s(mixing: Mixing, batches: Sequence[int], output: float) -> F64:
    """Seconds in which a full batch of answers is written and as many prompts are read.

    Every engine has a place more than its part of the answers, for the prompt that it reads. A
    request has its place for as many steps as its prompt has pieces and its answer tokens. Where
    reading takes all of the time, not all places are taken.

    Returns:
        float64 [counts, batches]; inf: not possible.
    """
    steps = max(1.0, output - 1.0)
    pieces = mixing.prompt_tokens / mixing.piece_tokens
    found = np.full(mixing.alone_s.shape, np.inf)
    for row, column in zip(*np.nonzero(np.isfinite(mixing.mixed_s)), strict=True):
        batch, engines = batches[column], float(mixing.engines[row])
        per_step = min((batch + engines) / (steps + pieces), engines / pieces)
        under_way = np.array([max(1.0, per_step * steps)])
        alone_s = _drawn(under_way, batches, mixing.alone_s[row])[0]
        mixed_s = _drawn(under_way, batches, mixing.mixed_s[row])[0]
        step_s = alone_s + per_step / engines * pieces * (mixed_s - alone_s)
        found[row, column] = batch * (step_s / per_step + mixing.embed_s[row] / engines)
    return found


def decode_s(mixing: Mixing, batches: Sequence[int], output: float) -> F64:
    """What is left of ``answers_s`` to decode when prompts are counted as if read by themselves,
    one by each engine.

    So searches, which add the time of prompts to that of answers, find the sum right.
    """
    whole_s = answers_s(mixing, batches, output)
    read_s = mixing.prompt_s / mixing.engines
    left_s = whole_s - np.array(batches) * read_s[:, np.newaxis]
    found: F64 = np.maximum(left_s, _LEAST * whole_s)
    return found
