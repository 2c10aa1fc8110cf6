"""How long batches of prompts and answers take on n chips, and what they hold there.

The best of all splits of the chips is taken. Source: RAGO (arXiv 2503.14649), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ragschema.hardware.devices import Accelerator
from ragschema.models import Transformer
from ragschema.planner.cost.inference import Precision, Split, Work, pass_s


@dataclass(frozen=True)
class Sequences:
    """What a batch reads or writes per sequence, on average.

    Attributes:
        tokens: that are computed.
        context: tokens that a computed one attends to.
        held: tokens whose KV is kept.
        held_spread: standard deviation of ``held`` between sequences.
    """

    tokens: float
    context: float
    held: float
    held_spread: float = 0.0

    def held_by(self, sequences: int) -> float:
        """Tokens that 99 of 100 such batches stay below."""
        return sequences * self.held + 2.33 * math.sqrt(sequences) * self.held_spread


def prompts(tokens: float, cached: float = 0) -> Sequences:
    """Prompts of one length; the KV of the first ``cached`` tokens is there already."""
    fresh = tokens - cached
    return Sequences(fresh, cached + (fresh + 1) / 2, tokens)


def answers(prompt: float, output: float) -> Sequences:
    """Answers of one length.

    Requests start at different times, so the mean context is the prompt and half the output.
    """
    return Sequences(output, prompt + output / 2, prompt + output)


@dataclass(frozen=True)
class Held:
    """Bytes on each chip of a split."""

    weights: float
    cache: float

    @property
    def total(self) -> float:
        return self.weights + self.cache


@dataclass(frozen=True)
class Timed:
    """A batch on a split of chips.

    Attributes:
        seconds: of the whole batch.
        spread: relative half-width of what was measured; None: it is modelled.
    """

    seconds: float
    split: Split
    held: Held
    spread: float | None = None


def held_on(
    model: Transformer, precision: Precision, split: Split, sequences: int, read: Sequences
) -> Held:
    """What weights and the KV cache of a replica's sequences take on each of its chips."""
    parts = split.tensor * split.pipeline
    weights = model.parameters * precision.weight_bytes
    cache = read.held_by(sequences) * model.kv_values_per_token * precision.kv_bytes
    # Latent rows have no heads to divide: every tensor-parallel chip holds them whole.
    holders = parts if model.mla is None else split.pipeline
    return Held(weights / parts, cache / holders)


def prefill_on(
    model: Transformer,
    chip: Accelerator,
    precision: Precision,
    split: Split,
    batch: int,
    read: Sequences,
) -> Timed | None:
    """A batch of prompts on one split; None: it does not fit.

    A replica's sequences run as m micro-batches through its pipeline:
    ``(m + pp - 1) T(micro-batch) / pp``.
    """
    mine = math.ceil(batch / split.data)
    held = held_on(model, precision, split, mine, read)
    if held.total > chip.memory_bytes:
        return None
    best = math.inf
    for parts in _micro_batches(mine, split.pipeline):
        work = Work(math.ceil(mine / parts), read.tokens, read.context)
        once = pass_s(model, chip, precision, work, split)
        best = min(best, (parts + split.pipeline - 1) * once / split.pipeline)
    return Timed(best, split, held)


def _micro_batches(sequences: int, pipeline: int) -> Iterator[int]:
    if pipeline == 1:
        yield 1
        return
    parts = 1
    while parts <= sequences:
        yield parts
        parts *= 2


def decode_on(
    model: Transformer,
    chip: Accelerator,
    precision: Precision,
    split: Split,
    batch: int,
    written: Sequences,
) -> Timed | None:
    """A running batch until each has written its tokens, on one split; None: it does not fit.

    Every pipeline stage works on its own share of the batch.
    """
    mine = math.ceil(batch / split.data)
    held = held_on(model, precision, split, mine, written)
    if held.total > chip.memory_bytes:
        return None
    work = Work(math.ceil(mine / split.pipeline), 1, written.context)
    step = pass_s(model, chip, precision, work, split)
    return Timed(step * written.tokens, split, held)


def quickest(timed: Iterable[Timed | None]) -> Timed | None:
    """Of the same batch on several splits the quickest; None: it fits none."""
    return min((t for t in timed if t is not None), key=lambda t: t.seconds, default=None)
