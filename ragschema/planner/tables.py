"""Latency tables of a workload's stages on a pool's devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.planner.cost.batches import Timed, answers, prompts
from ragschema.planner.cost.network import message_s
from ragschema.planner.iterative import Iterative
from ragschema.planner.mix import mix_of
from ragschema.planner.searching import Retrieval, network_of
from ragschema.planner.shared_chips import Row, SharedChips, Sizes, seconds_of
from ragschema.planner.stages import F64, StageKind, StageMemory, StageTable
from ragschema.planner.thinning import thinned
from ragschema.planner.timing import LanguageModel, OnChips, encoding, searching
from ragschema.pool import Pool
from ragschema.workload import RagSchema


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
        self._llm = LanguageModel.of(schema.generator, pool.measured)
        # Prefill and decode apart are two processes, on one machine if they are on its cores.
        self._apart = replace(self._llm, beside=1)
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
        """Prefill and decode on the same chips."""
        asked = None
        if self._schema.database is not None:
            asked = sum(c.share * c.question.mean for c in self._mix.classes)
        shared = SharedChips(
            self._llm, self._pool, self._sizes, self._mix, asked, self.iterative is not None
        )
        prefill, decode, name = *shared.rows(self._chip_rows()), self._llm.name
        return (
            self._rereading(self._thin(self._table("prefill", StageKind.CHIP, prefill, name))),
            shared.mixed(self._table("decode", StageKind.DECODE, decode, name), prefill),
        )

    def _rewriter(self) -> tuple[StageTable, ...]:
        config = self._schema.rewriter
        if config is None or not self._mix.share("rewrite_prefill"):
            return ()
        llm = LanguageModel.of(config, self._pool.measured)
        read, written = prompts(config.input), answers(config.input, config.output)
        return (
            self._on_chips("rewrite_prefill", llm.reading(read), llm.name),
            self._on_chips("rewrite_decode", llm.writing(written), llm.name, delay=True),
        )

    def _encoder(self) -> StageTable | None:
        config = self._schema.encoder
        if config is None or not self._mix.share("encode"):
            return None
        pieces = math.ceil(config.context / config.chunk)
        timed = encoding(config, pieces, config.chunk, "embed", self._pool.measured)
        return self._on_chips("encode", timed)

    def _reranker(self) -> StageTable | None:
        config = self._schema.reranker
        if config is None or not self._mix.share("rerank"):
            return None
        timed = encoding(config, config.passages, config.passage, "rerank", self._pool.measured)
        return self._on_chips("rerank", timed)

    def _retrieval(self) -> StageTable | None:
        if self._schema.database is None or not self._mix.share("retrieval"):
            return None
        if not self._pool.nodes:
            raise InvalidInput(
                "the workload has a database, and the pool no nodes to hold it",
                field="pool.retrieval",
                hint="add retrieval: [{device: ..., count: ...}] to the pool file",
            )
        network, measured = self._pool.network, self._pool.measured
        searches = [
            searching(Retrieval(self._schema, nodes.device, network), nodes.device, measured)
            for nodes in self._pool.nodes
        ]
        rows = [
            Row(kind, count, tuple(search(count, b) for b in self._sizes.batches))
            for kind, (search, nodes) in enumerate(zip(searches, self._pool.nodes, strict=True))
            for count in range(1, self._most_nodes(nodes.count) + 1)
        ]
        table = self._thin(self._table("retrieval", StageKind.SERVER, rows, None))
        return self._later(table, lambda kind, n, b: searches[kind](n, b))

    def _most_nodes(self, count: int) -> int:
        per_node = self._pool.chips_per_node
        return count if per_node is None else max(1, self._pool.max_chips // per_node)

    def _prefill(self) -> StageTable:
        timed = self._apart.reading(self._mix.read)
        return self._rereading(self._on_chips("prefill", timed, self._llm.name))

    def _rereading(self, table: StageTable) -> StageTable:
        """With what is read again after retrievals during decode."""
        reads = self._schema.retrieval.reads
        if reads is None:
            reads = math.ceil(self._mix.passages)
        if not reads or self.iterative is None:
            return table
        # Half of the answer is written on average; what is read replaces as much.
        context = max(reads, self._mix.prompt + self._mix.output / 2)
        timed = self._llm.reading(prompts(context, context - reads))
        chips = [c.device for c in self._pool.chips]
        return self._later(table, lambda kind, n, b: timed(chips[kind], n, b))

    def _decode(self) -> StageTable:
        llm = self._apart
        timed = llm.writing(self._mix.written)
        table = self._on_chips("decode", timed, llm.name, kind=StageKind.DECODE)
        # The slot is held while the prompt's KV comes from prefill.
        kv_bytes = self._mix.prompt * llm.model.kv_values_per_token * llm.precision.kv_bytes
        measured = [llm.moving_s(chips.device, kv_bytes) for chips in self._pool.chips]
        moved = [seconds for seconds in measured if seconds is not None]
        if len(moved) == len(measured):
            return replace(table, latency_s=table.latency_s + max(moved))
        if self._pool.network is None:
            return table
        transfer_s = message_s(network_of(self._pool.network), kv_bytes)
        return replace(table, latency_s=table.latency_s + transfer_s)

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
            [seconds_of(timed(kind, count, batch)) for batch in self.iterative.batches]
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
        timed: OnChips,
        owner: str | None = None,
        kind: StageKind = StageKind.CHIP,
        delay: bool = False,
    ) -> StageTable:
        decode = kind is StageKind.DECODE
        batches = self._sizes.decode_batches if decode else self._sizes.batches
        rows = [
            Row(k, count, tuple(timed(self._pool.chips[k].device, count, b) for b in batches))
            for k, count in self._chip_rows()
        ]
        return self._thin(replace(self._table(name, kind, rows, owner), delay=delay))

    def _thin(self, table: StageTable) -> StageTable:
        """The table as it is for the whole stream, where some requests pass it by."""
        return thinned(table, self._mix.share(table.name))

    def _table(
        self, name: str, kind: StageKind, rows: Sequence[Row], owner: str | None
    ) -> StageTable:
        kept = [row for row in rows if any(timed is not None for timed in row.timed)]
        if not kept:
            raise self._nowhere(name, kind)
        decode = kind is StageKind.DECODE
        single = all(row.kind == 0 for row in kept)
        return StageTable(
            name,
            kind,
            tuple(row.count for row in kept),
            self._sizes.decode_batches if decode else self._sizes.batches,
            np.array([[seconds_of(timed) for timed in row.timed] for row in kept]),
            spread=_spread(kept),
            kinds=None if single else tuple(row.kind for row in kept),
            memory=None if kind is StageKind.SERVER else self._memory(name, kept, owner),
        )

    def _nowhere(self, name: str, kind: StageKind) -> InvalidInput:
        more = "use devices with more memory, more of them, or a smaller precision"
        if self._pool.measured:
            more += "; or sizes that the profile measured, or --allow-extrapolation"
        return InvalidInput(
            f"{name} does not fit on any number of {kind} of this pool", field="pool", hint=more
        )

    def _memory(self, name: str, rows: Sequence[Row], owner: str | None) -> StageMemory:
        cache = [[0.0 if t is None else t.held.cache for t in row.timed] for row in rows]
        return StageMemory(
            np.array([self._pool.chips[row.kind].device.memory_bytes for row in rows]),
            np.array([max(t.held.weights for t in row.timed if t is not None) for row in rows]),
            np.maximum.accumulate(np.array(cache), axis=1),
            tuple(_owner(name, at, row, owner) for at, row in enumerate(rows)),
        )


def _owner(name: str, at: int, row: Row, owner: str | None) -> str:
    """Whose weights a row holds: one model in one split, or the stage's own."""
    found = {timed.split for timed in row.timed if timed is not None}
    if owner is None or len(found) > 1:
        return f"{name} {at}"
    return f"{owner} {found.pop()}"


def _spread(rows: Sequence[Row]) -> F64 | None:
    """Half-widths of what was measured; None: nothing was."""
    given = [[None if t is None else t.spread for t in row.timed] for row in rows]
    if all(spread is None for row in given for spread in row):
        return None
    return np.array([[np.nan if spread is None else spread for spread in row] for row in given])


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to the most."""
    return tuple(1 << i for i in range(most.bit_length()) if 1 << i <= most)
