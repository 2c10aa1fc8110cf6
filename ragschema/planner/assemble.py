"""From a workload and a pool to the latency tables that the search works on."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.models import find_model
from ragschema.planner.cost.inference import Precision, decode_s, encode_s, prefill_s
from ragschema.planner.cost.retrieval import Database, search_s
from ragschema.planner.problem import Problem, Sharing, StageKind, StageTable
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
    """

    counts: Counts = Counts.POWERS_OF_TWO
    max_batch: int = 128
    max_decode_batch: int = 1024
    sharing: Sharing = Sharing.ANY


def problem_of(schema: RagSchema, pool: Pool, space: SearchSpace | None = None) -> Problem:
    """The search problem of a workload on a pool.

    Raises:
        InvalidInput: the pool cannot hold a model or the database at all; names the stage.
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
    return Problem(
        tuple(stages),
        pool.min_chips,
        pool.max_chips,
        chips_per_server=pool.host.chips or 1,
        sharing=space.sharing,
    )


class _Tables:
    """Builds a table per stage of one schema."""

    def __init__(self, schema: RagSchema, pool: Pool, space: SearchSpace) -> None:
        self._schema = schema
        self._pool = pool
        self._batches = _powers_of_two(space.max_batch)
        self._decode_batches = _powers_of_two(space.max_decode_batch)
        every = range(1, pool.max_chips)
        self._counts: Sequence[int] = (
            _powers_of_two(pool.max_chips) if space.counts is Counts.POWERS_OF_TWO else list(every)
        )

    def rewriter(self) -> Iterable[StageTable]:
        config = self._schema.rewriter
        if config is None:
            return ()
        model, precision = find_model(config.model), _precision(config)
        chip = self._pool.chip
        read = self._table(
            "rewrite_prefill",
            StageKind.CHIP,
            lambda n, b: prefill_s(model, chip, precision, n, b, config.input),
        )
        write = self._table(
            "rewrite_decode",
            StageKind.CHIP,
            lambda n, b: decode_s(model, chip, precision, n, b, config.input, config.output),
            delay=True,
        )
        return (read, write)

    def encoder(self) -> StageTable | None:
        config = self._schema.encoder
        if config is None:
            return None
        pieces = math.ceil(config.context / config.chunk)
        width = bytes_of(config.weights)
        return self._table(
            "encode",
            StageKind.CHIP,
            lambda n, b: encode_s(
                config.parameters, self._pool.chip, width, n, b * pieces, config.chunk
            ),
        )

    def retrieval(self) -> StageTable | None:
        config = self._schema.database
        if config is None:
            return None
        vectors = config.vectors
        if vectors is None:
            encoder = self._schema.encoder
            assert encoder is not None, "the schema was checked"
            vectors = float(math.ceil(encoder.context / encoder.chunk))
        exact = config.index == "exact"
        database = Database(
            vectors,
            config.bytes_per_vector,
            1.0 if exact else config.scan_share,
            None if exact else config.fanout,
        )
        queries, host = self._schema.retrieval.queries, self._pool.host
        servers = range(1, max(1, self._pool.max_chips // (host.chips or 1)) + 1)
        return self._table(
            "retrieval",
            StageKind.SERVER,
            lambda n, b: search_s(database, host, n, b * queries),
            counts=servers,
        )

    def reranker(self) -> StageTable | None:
        config = self._schema.reranker
        if config is None:
            return None
        width = bytes_of(config.weights)
        return self._table(
            "rerank",
            StageKind.CHIP,
            lambda n, b: encode_s(
                config.parameters, self._pool.chip, width, n, b * config.passages, config.passage
            ),
        )

    def prefill(self) -> StageTable:
        config, prompt = self._schema.generator, self._schema.lengths.prompt
        model, precision = find_model(config.model), _precision(config)
        return self._table(
            "prefill",
            StageKind.CHIP,
            lambda n, b: prefill_s(model, self._pool.chip, precision, n, b, prompt),
        )

    def decode(self) -> StageTable:
        config, lengths = self._schema.generator, self._schema.lengths
        model, precision = find_model(config.model), _precision(config)
        return self._table(
            "decode",
            StageKind.DECODE,
            lambda n, b: decode_s(
                model, self._pool.chip, precision, n, b, lengths.prompt, lengths.output
            ),
            batches=self._decode_batches,
        )

    def _table(
        self,
        name: str,
        kind: StageKind,
        latency_s: Callable[[int, int], float | None],
        counts: Sequence[int] | None = None,
        batches: Sequence[int] | None = None,
        delay: bool = False,
    ) -> StageTable:
        batches = batches or self._batches
        rows, kept = [], []
        for count in counts or self._counts:
            row = [latency_s(count, batch) for batch in batches]
            if any(value is not None for value in row):
                kept.append(count)
                rows.append([math.inf if value is None else value for value in row])
        if not rows:
            raise InvalidInput(
                f"{name} does not fit on any number of {kind} of this pool",
                field="pool",
                hint="use devices with more memory, more of them, or a smaller precision",
            )
        return StageTable(name, kind, tuple(kept), tuple(batches), np.array(rows), delay)


def _precision(config: GeneratorConfig | RewriterConfig) -> Precision:
    return Precision(bytes_of(config.weights), bytes_of(config.kv))


def _powers_of_two(most: int) -> list[int]:
    return [1 << i for i in range(most.bit_length()) if 1 << i <= most]
