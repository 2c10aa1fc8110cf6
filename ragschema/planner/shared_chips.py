"""Prefill and decode on the same chips: how these are divided, and what their batches take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from ragschema.hardware.devices import Accelerator
from ragschema.llm_rig import STEP_TOKENS
from ragschema.planner.cost.batches import Timed
from ragschema.planner.cost.inference import Split
from ragschema.planner.mix import Mix
from ragschema.planner.mixing import decode_s
from ragschema.planner.stages import Mixing, StageTable
from ragschema.planner.timing import LanguageModel
from ragschema.pool import Pool

#: Of every prefill batch, and of every decode batch, on one split.
_Pair = tuple[tuple[Timed | None, ...], tuple[Timed | None, ...]]


@dataclass(frozen=True)
class Sizes:
    """What tables have rows and columns for; all ascending.

    Attributes:
        engines: among which cores that prefill and decode share are divided.
    """

    counts: tuple[int, ...]
    batches: tuple[int, ...]
    decode_batches: tuple[int, ...]
    iterative_batches: tuple[int, ...]
    engines: int = 1


@dataclass(frozen=True)
class Row:
    """Chips or servers of a kind, and what they make of every batch size."""

    kind: int
    count: int
    timed: tuple[Timed | None, ...]


def seconds_of(timed: Timed | None) -> float:
    """inf: not possible."""
    return math.inf if timed is None else timed.seconds


class SharedChips:
    """Both stages of one model, with one split for both, which holds the weights once.

    Args:
        asked: tokens of a question that is embedded on the same chips; None: there is none.
        again: answers retrieve again while they are being written.
    """

    def __init__(
        self,
        llm: LanguageModel,
        pool: Pool,
        sizes: Sizes,
        mix: Mix,
        asked: float | None,
        again: bool,
    ) -> None:
        self._llm = llm
        self._pool = pool
        self._sizes = sizes
        self._mix = mix
        self._asked = asked
        self._again = again
        self._split: dict[tuple[int, int], Split] = {}

    def rows(self, counts: Iterable[tuple[int, int]]) -> tuple[list[Row], list[Row]]:
        """Of prefill and of decode, on the splits whose best batches serve most requests.

        Args:
            counts: kind and number of chips.
        """
        prefill, decode = [], []
        for kind, count in counts:
            chip = self._pool.chips[kind].device
            pairs = [
                (split, self._both(chip, split))
                for split in self._llm.divided(chip, count, self._sizes.engines)
            ]
            if not pairs:
                continue
            self._split[kind, count], (read, written) = max(pairs, key=partial(self._served, chip))
            prefill.append(Row(kind, count, read))
            decode.append(Row(kind, count, written))
        return prefill, decode

    def _both(self, chip: Accelerator, split: Split) -> _Pair:
        """Batches of prompts, and running ones, on one split."""
        llm, sizes = self._llm, self._sizes
        # An engine that reads pieces of prompts beside its answers reads one after the other.
        batches = sizes.batches if self._piece_tokens is None else (split.data,)
        return (
            tuple(
                llm.read(chip, split, b, self._mix.read) if b in batches else None
                for b in sizes.batches
            ),
            tuple(llm.write(chip, split, b, self._mix.written) for b in sizes.decode_batches),
        )

    @cached_property
    def _piece_tokens(self) -> float | None:
        """Of prompts beside answers; None: decode waits, or it is not known how long that takes."""
        if self._again:
            return None
        return self._llm.piece_tokens(chips.device for chips in self._pool.chips)

    def mixed(self, decode: StageTable, prefill: Sequence[Row]) -> StageTable:
        """Decode that reads prompts in between, where such steps were measured."""
        piece, output = self._piece_tokens, self._mix.output
        if piece is None:
            return decode
        single = {(row.kind, row.count): min(map(seconds_of, row.timed)) for row in prefill}
        steps = [[self._step_s(row, batch) for batch in decode.batches] for row in decode.rows]
        mixing = Mixing(
            decode.latency_s / output,
            np.array(steps),
            np.array([single[row] for row in decode.rows]),
            np.array([self._split[row].data for row in decode.rows]),
            np.array([self._embed_s(row) for row in decode.rows]),
            self._mix.read.tokens,
            piece,
            STEP_TOKENS,
        )
        return replace(decode, latency_s=decode_s(mixing, decode.batches, output), mixing=mixing)

    def _embed_s(self, row: tuple[int, int]) -> float:
        """Of a request's question, on average; 0 where it was not measured."""
        if self._asked is None:
            return 0.0
        chip, split = self._pool.chips[row[0]].device, self._split[row]
        seconds = self._llm.embed_s(chip, split, self._asked)
        return self._mix.share("retrieval") * seconds

    def _step_s(self, row: tuple[int, int], batch: int) -> float:
        """With a piece of a prompt."""
        chip = self._pool.chips[row[0]].device
        return seconds_of(self._llm.mix(chip, self._split[row], batch, self._mix.written))

    def _served(self, chip: Accelerator, on: tuple[Split, _Pair]) -> float:
        """Requests per second of the best two batches that fit together; 0: none do."""
        read, written = on[1]
        best = 0.0
        for b, prefill in zip(self._sizes.batches, read, strict=True):
            for d, decode in zip(self._sizes.decode_batches, written, strict=True):
                if prefill is None or decode is None:
                    continue
                if prefill.held.total + decode.held.cache <= chip.memory_bytes:
                    best = max(best, 1 / (prefill.seconds / b + decode.seconds / d))
        return best
