"""Latency tables of a workload's stages on a pool's devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.hardware.devices import Accelerator
from ragschema.models import Transformer, find_model
from ragschema.planner.cost.batches import (
    Held,
    Sequences,
    Timed,
    answers,
    decode_on,
    prefill_on,
    prompts,
    quickest,
)
from ragschema.planner.cost.inference import Precision, Split, encode_s, splits
from ragschema.planner.cost.network import message_s
from ragschema.planner.iterative import Iterative
from ragschema.planner.mix import mix_of
from ragschema.planner.searching import Retrieval, network_of
from ragschema.planner.stages import StageKind, StageMemory, StageTable
from ragschema.planner.thinning import thinned
from ragschema.pool import Pool
from ragschema.workload import (
    EncoderConfig,
    GeneratorConfig,
    RagSchema,
    RerankerConfig,
    RewriterConfig,
    bytes_of,
)

#: A batch on so many chips; None: it does not fit.
_OnChips = Callable[[Accelerator, int, int], Timed | None]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Sizes:
    """What tables have rows and columns for; all ascending."""

    counts: tuple[int, ...]
    batches: tuple[int, ...]
    decode_batches: tuple[int, ...]
    iterative_batches: tuple[int, ...]


@dataclass(frozen=True)
class _Row:
    """Chips or servers of a kind, and what they make of every batch size."""

    kind: int
    count: int
    timed: tuple[Timed | None, ...]


class StageTables:
    """Builds a table per stage of one schema.

    Raises:
        InvalidInput: a model or the database does not fit the pool at all.
    """

    def __init__(self, schema: RagSchema, pool: Pool, sizes: Sizes) -> None:
        self._schema = schema
        self._pool = pool
        self._sizes = sizes
        self._mix = mix_of(schema)
        again = self._mix.again
        self.iterative = Iterative(again, sizes.iterative_batches) if again else None

    def all(self) -> tuple[StageTable, ...]:
        """In order of a request's way; stages that no request goes through are left out."""
        found = (
            *self._rewriter(),
            self._encoder(),
            self._retrieval(),
            self._reranker(),
            self._prefill(),
            self._decode(),
        )
        return tuple(table for table in found if table is not None)

    def together(self) -> tuple[StageTable, StageTable]:
        """Prefill and decode on the same chips, with one split for both, which holds the
        weights once: the one whose best batches serve most requests."""
        model, precision = self._generator()
        read, written, rows = self._mix.read, self._mix.written, self._chip_rows()
        chosen = {}
        for kind, count in rows:
            chip = self._pool.chips[kind].device

            def both(
                split: Split, chip: Accelerator = chip
            ) -> tuple[list[Timed | None], list[Timed | None]]:
                return (
                    [prefill_on(model, chip, precision, split, b, read)
                     for b in self._sizes.batches],
                    [decode_on(model, chip, precision, split, b, written)
                     for b in self._sizes.decode_batches],
                )  # fmt: skip

            pairs = [both(split) for split in splits(count, model)]
            chosen[kind, count] = max(pairs, key=lambda pair: self._served(chip, *pair))
        prefill = [_Row(*row, tuple(chosen[row][0])) for row in rows]
        decode = [_Row(*row, tuple(chosen[row][1])) for row in rows]
        name = self._schema.generator.model
        return (
            self._rereading(self._thin(self._table("prefill", StageKind.CHIP, prefill, name))),
            self._table("decode", StageKind.DECODE, decode, name),
        )

    def _served(
        self, chip: Accelerator, read: Sequence[Timed | None], written: Sequence[Timed | None]
    ) -> float:
        """Requests per second of the best pair of batches that fits; 0: none does."""
        best = 0.0
        for b, prefill in zip(self._sizes.batches, read, strict=True):
            for d, decode in zip(self._sizes.decode_batches, written, strict=True):
                if prefill is None or decode is None:
                    continue
                if prefill.held.total + decode.held.cache <= chip.memory_bytes:
                    best = max(best, 1 / (prefill.seconds / b + decode.seconds / d))
        return best

    def _rewriter(self) -> tuple[StageTable, ...]:
        config = self._schema.rewriter
        if config is None or not self._mix.share("rewrite_prefill"):
            return ()
        model, precision = find_model(config.model), _precision(config)
        read, written = prompts(config.input), answers(config.input, config.output)
        return (
            self._on_chips("rewrite_prefill", _prefill(model, precision, read), config.model),
            self._on_chips(
                "rewrite_decode", _decode(model, precision, written), config.model, delay=True
            ),
        )

    def _encoder(self) -> StageTable | None:
        config = self._schema.encoder
        if config is None or not self._mix.share("encode"):
            return None
        pieces = math.ceil(config.context / config.chunk)
        return self._on_chips("encode", _encode(config, pieces, config.chunk))

    def _reranker(self) -> StageTable | None:
        config = self._schema.reranker
        if config is None or not self._mix.share("rerank"):
            return None
        return self._on_chips("rerank", _encode(config, config.passages, config.passage))

    def _retrieval(self) -> StageTable | None:
        if self._schema.database is None or not self._mix.share("retrieval"):
            return None
        if not self._pool.nodes:
            raise InvalidInput(
                "the workload has a database, and the pool no nodes to hold it",
                field="pool.retrieval",
                hint="add retrieval: [{device: ..., count: ...}] to the pool file",
            )
        searches = [
            Retrieval(self._schema, nodes.device, self._pool.network) for nodes in self._pool.nodes
        ]
        rows = [
            _Row(kind, count, tuple(_alone(search.seconds(count, b)) for b in self._sizes.batches))
            for kind, (search, nodes) in enumerate(zip(searches, self._pool.nodes, strict=True))
            for count in range(1, self._most_nodes(nodes.count) + 1)
        ]
        table = self._thin(self._table("retrieval", StageKind.SERVER, rows, None))
        return self._later(table, lambda kind, n, b: _alone(searches[kind].seconds(n, b)))

    def _most_nodes(self, count: int) -> int:
        per_node = self._pool.chips_per_node
        return count if per_node is None else max(1, self._pool.max_chips // per_node)

    def _prefill(self) -> StageTable:
        model, precision = self._generator()
        name = self._schema.generator.model
        timed = _prefill(model, precision, self._mix.read)
        return self._rereading(self._on_chips("prefill", timed, name))

    def _rereading(self, table: StageTable) -> StageTable:
        """With what is read again after retrievals during decode."""
        reads = self._schema.retrieval.reads
        if reads is None:
            reads = math.ceil(self._mix.passages)
        if not reads or self.iterative is None:
            return table
        model, precision = self._generator()
        # Half of the answer is written on average; what is read replaces as much.
        context = max(reads, self._mix.prompt + self._mix.output / 2)
        timed = _prefill(model, precision, prompts(context, context - reads))
        chips = [c.device for c in self._pool.chips]
        return self._later(table, lambda kind, n, b: timed(chips[kind], n, b))

    def _decode(self) -> StageTable:
        model, precision = self._generator()
        timed = _decode(model, precision, self._mix.written)
        table = self._on_chips("decode", timed, self._schema.generator.model, kind=StageKind.DECODE)
        if self._pool.network is None:
            return table
        # The slot is held while the prompt's KV comes from prefill.
        kv_bytes = self._mix.prompt * model.kv_values_per_token * precision.kv_bytes
        transfer_s = message_s(network_of(self._pool.network), kv_bytes)
        return replace(table, latency_s=table.latency_s + transfer_s)

    def _generator(self) -> tuple[Transformer, Precision]:
        config = self._schema.generator
        return find_model(config.model), _precision(config)

    def _later(
        self, table: StageTable, timed: Callable[[int, int, int], Timed | None]
    ) -> StageTable:
        """The table with latencies of sequences that come back during decode.

        Args:
            timed: by kind, count and batch.
        """
        if self.iterative is None:
            return table
        later = [
            [_seconds(timed(kind, count, batch)) for batch in self.iterative.batches]
            for kind, count in table.rows
        ]
        return replace(table, later_s=np.array(later))

    def _chip_rows(self) -> list[tuple[int, int]]:
        """Kind and count of all allocations."""
        return [
            (kind, count)
            for kind, chips in enumerate(self._pool.chips)
            for count in self._sizes.counts
            if count <= chips.count
        ]

    def _on_chips(
        self,
        name: str,
        timed: _OnChips,
        owner: str | None = None,
        kind: StageKind = StageKind.CHIP,
        delay: bool = False,
    ) -> StageTable:
        decode = kind is StageKind.DECODE
        batches = self._sizes.decode_batches if decode else self._sizes.batches
        rows = [
            _Row(k, count, tuple(timed(self._pool.chips[k].device, count, b) for b in batches))
            for k, count in self._chip_rows()
        ]
        return self._thin(replace(self._table(name, kind, rows, owner), delay=delay))

    def _thin(self, table: StageTable) -> StageTable:
        """The table as it is for the whole stream, where some requests pass it by."""
        return thinned(table, self._mix.share(table.name))

    def _table(
        self, name: str, kind: StageKind, rows: Sequence[_Row], owner: str | None
    ) -> StageTable:
        kept = [row for row in rows if any(timed is not None for timed in row.timed)]
        if not kept:
            raise InvalidInput(
                f"{name} does not fit on any number of {kind} of this pool",
                field="pool",
                hint="use devices with more memory, more of them, or a smaller precision",
            )
        decode = kind is StageKind.DECODE
        single = all(row.kind == 0 for row in kept)
        return StageTable(
            name,
            kind,
            tuple(row.count for row in kept),
            self._sizes.decode_batches if decode else self._sizes.batches,
            np.array([[_seconds(timed) for timed in row.timed] for row in kept]),
            kinds=None if single else tuple(row.kind for row in kept),
            memory=None if kind is StageKind.SERVER else self._memory(name, kept, owner),
        )

    def _memory(self, name: str, rows: Sequence[_Row], owner: str | None) -> StageMemory:
        cache = [[0.0 if t is None else t.held.cache for t in row.timed] for row in rows]
        return StageMemory(
            np.array([self._pool.chips[row.kind].device.memory_bytes for row in rows]),
            np.array([max(t.held.weights for t in row.timed if t is not None) for row in rows]),
            np.maximum.accumulate(np.array(cache), axis=1),
            tuple(_owner(name, at, row, owner) for at, row in enumerate(rows)),
        )


def _owner(name: str, at: int, row: _Row, owner: str | None) -> str:
    """Whose weights a row holds: one model in one split, or the stage's own."""
    found = {timed.split for timed in row.timed if timed is not None}
    if owner is None or len(found) > 1:
        return f"{name} {at}"
    return f"{owner} {found.pop()}"


def _prefill(model: Transformer, precision: Precision, read: Sequences) -> _OnChips:
    return lambda chip, n, b: quickest(
        prefill_on(model, chip, precision, split, b, read) for split in splits(n, model)
    )


def _decode(model: Transformer, precision: Precision, written: Sequences) -> _OnChips:
    return lambda chip, n, b: quickest(
        decode_on(model, chip, precision, split, b, written) for split in splits(n, model)
    )


def _encode(config: EncoderConfig | RerankerConfig, pieces: int, tokens: int) -> _OnChips:
    """An encoder that reads so many pieces of so many tokens per request."""
    width = bytes_of(config.weights)

    def timed(chip: Accelerator, n: int, b: int) -> Timed:
        seconds = encode_s(config.parameters, chip, width, n, b * pieces, tokens)
        return Timed(seconds, Split(n, 1, 1), Held(config.parameters * width, 0.0))

    return timed


def _alone(seconds: float | None) -> Timed | None:
    """On servers, which hold nothing else."""
    return None if seconds is None else Timed(seconds, Split(1, 1, 1), Held(0.0, 0.0))


def _seconds(timed: Timed | None) -> float:
    return math.inf if timed is None else timed.seconds


def _precision(config: GeneratorConfig | RewriterConfig) -> Precision:
    return Precision(bytes_of(config.weights), bytes_of(config.kv))


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to the most."""
    return tuple(1 << i for i in range(most.bit_length()) if 1 << i <= most)
