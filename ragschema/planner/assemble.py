"""From a workload and a pool to the latency tables that the search works on."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.hardware.devices import Accelerator, Device
from ragschema.models import find_model
from ragschema.planner.cost.inference import Precision, decode_s, encode_s, prefill_s
from ragschema.planner.iterative import Iterative
from ragschema.planner.problem import (
    ChipKind,
    Problem,
    Sharing,
    StageKind,
    StageTable,
    Weights,
)
from ragschema.planner.searching import Retrieval
from ragschema.pool import Pool
from ragschema.workload import GeneratorConfig, RagSchema, RewriterConfig, bytes_of


class Counts(enum.StrEnum):
    """Which numbers of chips a stage may get."""

    POWERS_OF_TWO = "pow2"
    EVERY = "every"


@dataclass(frozen=True)
class SearchSpace:
    """Sizes the search may choose from.

    Attributes:
        max_batch: largest batch before decode; powers of two up to it are tried.
        max_decode_batch: the same for decode.
        max_iterative_batch: the same for sequences that retrieve together during decode.
    """

    counts: Counts = Counts.POWERS_OF_TWO
    max_batch: int = 128
    max_decode_batch: int = 1024
    max_iterative_batch: int = 64
    sharing: Sharing = Sharing.ANY


class Rate(enum.StrEnum):
    """What requests per second are divided by."""

    PER_CHIP = "qps_per_chip"
    PER_COST = "cost"
    PER_WATT = "energy"


def problem_of(
    schema: RagSchema,
    pool: Pool,
    space: SearchSpace | None = None,
    rates: tuple[Rate, ...] = (Rate.PER_CHIP,),
) -> Problem:
    """The search problem of a workload on a pool.

    Args:
        rates: of the frontier, beside TTFT.

    Raises:
        InvalidInput: the pool cannot hold a model or the database at all, or a device lacks
            a price or watts that a rate asks for.
    """
    space = space or SearchSpace()
    build = _Tables(schema, pool, space)
    stages = [
        table
        for table in (
            *build.rewriter(),
            build.encoder(),
            build.retrieval(),
            build.reranker(),
            build.prefill(),
            build.decode(),
        )
        if table is not None
    ]
    searched = schema.database is not None
    return Problem(
        tuple(stages),
        pool.min_chips,
        pool.max_chips,
        chips_per_server=pool.chips_per_node,
        sharing=space.sharing,
        kinds=tuple(ChipKind(c.device.name, c.count) for c in pool.chips),
        weights=tuple(weights_for(rate, pool, searched) for rate in rates),
        iterative=build.iterative,
    )


def weights_for(rate: Rate, pool: Pool, searched: bool) -> Weights:
    """What each device of a pool counts.

    Args:
        searched: retrieval nodes are needed. Those that come with accelerators and have no
            price of their own are in the accelerators' price.
    """
    if rate is Rate.PER_CHIP:
        return Weights(rate)
    figure = "price_per_h" if rate is Rate.PER_COST else "watts"
    chips = tuple(_figure(c.device, figure) for c in pool.chips)
    if not searched:
        return Weights(rate, chips)
    if pool.chips_per_node is not None:
        with_chips = tuple(getattr(n.device, figure) or 0.0 for n in pool.nodes)
        return Weights(rate, chips, with_chips)
    return Weights(rate, chips, tuple(_figure(n.device, figure) for n in pool.nodes))


def _figure(device: Device, name: str) -> float:
    value: float | None = getattr(device, name)
    if value is None:
        raise InvalidInput(
            f"{device.name!r} has no {name}",
            field=f"pool.{device.name}.{name}",
            hint=f"give {name} beside its count in the pool file, or in the device's file",
        )
    return value


_Latency = Callable[[Accelerator, int, int], float | None]


class _Tables:
    """Builds a table per stage of one schema."""

    def __init__(self, schema: RagSchema, pool: Pool, space: SearchSpace) -> None:
        self._schema = schema
        self._pool = pool
        self._batches = _powers_of_two(space.max_batch)
        self._decode_batches = _powers_of_two(space.max_decode_batch)
        self._every = space.counts is Counts.EVERY
        again = schema.retrieval.per_sequence - 1
        batches = _powers_of_two(space.max_iterative_batch)
        self.iterative = Iterative(again, tuple(batches)) if again else None

    def rewriter(self) -> Iterable[StageTable]:
        config = self._schema.rewriter
        if config is None:
            return ()
        model, precision = find_model(config.model), _precision(config)
        read = self._on_chips(
            "rewrite_prefill",
            lambda chip, n, b: prefill_s(model, chip, precision, n, b, config.input),
        )
        write = self._on_chips(
            "rewrite_decode",
            lambda chip, n, b: decode_s(model, chip, precision, n, b, config.input, config.output),
            delay=True,
        )
        return (read, write)

    def encoder(self) -> StageTable | None:
        config = self._schema.encoder
        if config is None:
            return None
        pieces = math.ceil(config.context / config.chunk)
        width = bytes_of(config.weights)
        return self._on_chips(
            "encode",
            lambda chip, n, b: encode_s(
                config.parameters, chip, width, n, b * pieces, config.chunk
            ),
        )

    def retrieval(self) -> StageTable | None:
        if self._schema.database is None:
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
        rows: list[tuple[int, int, list[float | None]]] = [
            (kind, count, [search.seconds(count, b) for b in self._batches])
            for kind, (search, nodes) in enumerate(zip(searches, self._pool.nodes, strict=True))
            for count in range(1, self._most_nodes(nodes.count) + 1)
        ]
        table = self._table("retrieval", StageKind.SERVER, rows, self._batches)
        return self._later(table, lambda kind, n, b: searches[kind].seconds(n, b))

    def _later(
        self, table: StageTable, latency_s: Callable[[int, int, int], float | None]
    ) -> StageTable:
        """The table with latencies of sequences that come back during decode.

        Args:
            latency_s: by kind, count and batch.
        """
        if self.iterative is None:
            return table
        later = [
            [latency_s(kind, count, batch) for batch in self.iterative.batches]
            for kind, count in table.rows
        ]
        return replace(table, later_s=np.array(_finite(later)))

    def _most_nodes(self, count: int) -> int:
        per_node = self._pool.chips_per_node
        return count if per_node is None else max(1, self._pool.max_chips // per_node)

    def reranker(self) -> StageTable | None:
        config = self._schema.reranker
        if config is None:
            return None
        width = bytes_of(config.weights)
        return self._on_chips(
            "rerank",
            lambda chip, n, b: encode_s(
                config.parameters, chip, width, n, b * config.passages, config.passage
            ),
        )

    def prefill(self) -> StageTable:
        config, prompt = self._schema.generator, self._schema.lengths.prompt
        cached = min(self._schema.cached_tokens, prompt - 1)
        model, precision = find_model(config.model), _precision(config)
        table = self._on_chips(
            "prefill", lambda chip, n, b: prefill_s(model, chip, precision, n, b, prompt, cached)
        )
        reads = self._schema.reread_tokens
        if not reads:
            return table
        # Half of the answer is written on average; what is read replaces as much.
        context = max(reads, prompt + self._schema.lengths.output // 2)
        chips = [c.device for c in self._pool.chips]
        return self._later(
            table,
            lambda kind, n, b: prefill_s(
                model, chips[kind], precision, n, b, context, context - reads
            ),
        )

    def decode(self) -> StageTable:
        config, lengths = self._schema.generator, self._schema.lengths
        model, precision = find_model(config.model), _precision(config)
        return self._on_chips(
            "decode",
            lambda chip, n, b: decode_s(
                model, chip, precision, n, b, lengths.prompt, lengths.output
            ),
            kind=StageKind.DECODE,
            batches=self._decode_batches,
        )

    def _on_chips(
        self,
        name: str,
        latency_s: _Latency,
        kind: StageKind = StageKind.CHIP,
        batches: Sequence[int] | None = None,
        delay: bool = False,
    ) -> StageTable:
        batches = batches or self._batches
        rows = []
        for place, chips in enumerate(self._pool.chips):
            for count in self._counts(chips.count):
                row = [latency_s(chips.device, count, batch) for batch in batches]
                rows.append((place, count, row))
        return self._table(name, kind, rows, batches, delay)

    def _counts(self, limit: int) -> Sequence[int]:
        # Decode is apart from all others, which leaves one chip less than there are.
        most = min(limit, self._pool.max_chips - 1)
        return list(range(1, most + 1)) if self._every else _powers_of_two(max(1, most))

    def _table(
        self,
        name: str,
        kind: StageKind,
        rows: Sequence[tuple[int, int, list[float | None]]],
        batches: Sequence[int],
        delay: bool = False,
    ) -> StageTable:
        kept = [row for row in rows if any(value is not None for value in row[2])]
        if not kept:
            raise InvalidInput(
                f"{name} does not fit on any number of {kind} of this pool",
                field="pool",
                hint="use devices with more memory, more of them, or a smaller precision",
            )
        single = all(place == 0 for place, _, _ in kept)
        latency = _finite([values for _, _, values in kept])
        return StageTable(
            name,
            kind,
            tuple(count for _, count, _ in kept),
            tuple(batches),
            np.array(latency),
            delay,
            None if single else tuple(place for place, _, _ in kept),
        )


def _finite(rows: Sequence[Sequence[float | None]]) -> list[list[float]]:
    return [[math.inf if value is None else value for value in row] for row in rows]


def _precision(config: GeneratorConfig | RewriterConfig) -> Precision:
    return Precision(bytes_of(config.weights), bytes_of(config.kv))


def _powers_of_two(most: int) -> list[int]:
    return [1 << i for i in range(most.bit_length()) if 1 << i <= most]
