"""The fpga backend: tables on the host or on the card, the scan on the card, floats on the host."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator

import numpy as np

from ragschema.errors import IncompatibleRequest, InvalidInput
from retrieval_node.backends.base import (
    Candidates,
    ScanRequest,
    blank_tail,
    merge_candidates,
    no_candidates,
)
from retrieval_node.backends.fpga.counters import CardTotals
from retrieval_node.backends.fpga.device import CardBuild, Device
from retrieval_node.backends.fpga.driver import CardDriver, DriverConfig
from retrieval_node.backends.fpga.gate import Gate
from retrieval_node.backends.fpga.masks import is_filtered
from retrieval_node.backends.fpga.records import Answer
from retrieval_node.backends.fpga.registers import Flags
from retrieval_node.backends.fpga.residents import Residents, coded
from retrieval_node.backends.fpga.tables import TableMaker, flatten
from retrieval_node.backends.fpga.ties import Settled, host_scan, settle
from retrieval_node.backends.fpga.unit import Run, ScanUnit
from retrieval_node.fixedpoint import Contract, TableMode, TablesBy
from retrieval_node.refine import refine
from retrieval_node.shard import ShardSet
from retrieval_node.shard_files import IvfIndex

#: Tables or masks of the queries that share one start of the card.
_PIECE_BYTES = 16 << 20
_PIECE_QUERIES = 64


class FpgaBackend:
    """Implements ``base.Backend`` over any device.

    Args:
        contract: word widths, and who makes tables; None: the card's, and ``tables``.
        tables: who makes them, where no contract says so.
        mode: of l2 with residual codes; the others have one mode.

    Raises:
        Unavailable: the compiled extension, which makes the tables, is not there.
        VersionMismatch: the card's bitstream has other registers.
        InvalidInput: the card's build has other word widths, or makes no tables.
    """

    name = "fpga"
    pool = None

    def __init__(
        self,
        device: Device,
        contract: Contract | None = None,
        mode: TableMode | None = None,
        config: DriverConfig | None = None,
        tables: TablesBy = TablesBy.HOST,
    ) -> None:
        self.driver = CardDriver(device, config)
        build = self.driver.build
        self._tables = TableMaker(_contract_for(build, contract, tables), mode)
        self.residents = Residents(self.driver, self._tables)
        self._gate = Gate()
        self._units: queue.SimpleQueue[ScanUnit] = queue.SimpleQueue()
        for unit in range(device.compute_units):
            self._units.put(ScanUnit(self.driver, unit))

    @property
    def device(self) -> str:
        return self.driver.device.name

    @property
    def card(self) -> CardTotals:
        """What the card has done since it was opened."""
        return self.driver.counters.totals

    def load(self, shard_set: ShardSet) -> None:
        """Copies codes and ids to the card.

        Raises:
            IncompatibleRequest: codes longer than the build takes, or a mode it has not.
            CorruptData: stored bytes are not what was written.
            Unavailable: the card's memory is too small; nothing was uploaded.
        """
        if shard_set.index is not None:
            self.residents.load(shard_set, shard_set.index)

    def search(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        """See ``base.Backend``.

        Raises:
            DeviceFault: the card hung, failed or answered nonsense. The next search
                programs it anew and uploads everything again.
            IncompatibleRequest: more results than the build can give.
        """
        self._check_request(request)
        self._recover()
        with self._gate.shared(), self._unit() as unit:
            parts = list(self._scan(unit, shard_set, request))
        found = Candidates(
            distances=np.concatenate([p.distances for p in parts]),
            rows=np.concatenate([p.rows for p in parts]),
            counts=np.concatenate([p.counts for p in parts]),
            codes_scanned=sum(p.codes_scanned for p in parts),
        )
        return refine(shard_set, request, found)

    def _check_request(self, request: ScanRequest) -> None:
        most = self.driver.build.k_max - 1  # one more settles ties
        if request.candidates > most:
            raise IncompatibleRequest(
                f"{request.candidates} candidates are more than the card's {most}",
                field="k",
                hint="ask for fewer, or with a smaller refine factor",
            )

    @contextlib.contextmanager
    def _unit(self) -> Iterator[ScanUnit]:
        unit = self._units.get()
        try:
            yield unit
        finally:
            unit.abandon()  # nothing runs any more, except after an error
            self._units.put(unit)

    def _recover(self) -> None:
        """Resets a broken card and uploads everything again, once nobody uses it."""
        if self.driver.broken:
            with self._gate.alone():
                self.residents.restore()

    def verify(self) -> None:
        """Reads all segments and codebooks back from the card and compares checksums.

        Raises:
            DeviceFault: naming what differs; the next search uploads everything again.
        """
        self._recover()
        with self._gate.alone():
            self.residents.verify()

    def _scan(
        self, unit: ScanUnit, shard_set: ShardSet, request: ScanRequest
    ) -> Iterator[Candidates]:
        """Piece by piece; the next start is made ready while one runs."""
        index, k = shard_set.index, request.candidates
        assert index is not None, "an exact collection has no PQ scan"
        targets = list(self.residents.targets(shard_set, request.shards))
        asked = min(k + self.driver.config.tie_slack, self.driver.build.k_max)
        code_bytes, book = self.driver.build.code_bytes(index.m), self.residents.book(index)
        waiting: Run | None = None
        found: list[Candidates] = []
        for first, last in self._pieces(shard_set, request):
            request.check()
            piece = flatten(request.piece(first, last))
            if not targets:
                yield no_candidates(last - first, k)
                continue
            prepared = unit.prepare(piece, self._tables, index, code_bytes, book)
            for target in targets:
                run = unit.fill(prepared, target, asked)
                if waiting is not None:
                    found.append(self._collect(unit, index, waiting, k))
                    if waiting.prepared is not prepared:
                        yield merge_candidates(found, k)
                        found = []
                unit.start(run)
                waiting = run
        if waiting is not None:
            found.append(self._collect(unit, index, waiting, k))
            yield merge_candidates(found, k)

    def _pieces(self, shard_set: ShardSet, request: ScanRequest) -> list[tuple[int, int]]:
        """Cuts a batch so that tables and masks stay within their work areas."""
        index = shard_set.index
        assert index is not None, "an exact collection has no PQ scan"
        n = len(request.queries)
        book, code_bytes = self.residents.book(index), self.driver.build.code_bytes(index.m)
        cost = self._tables.bytes_per_query(
            index, (request.lists >= 0).sum(axis=1), code_bytes,
            None if book is None else book.layout,
        )  # fmt: skip
        if request.filter_of is not None:
            segments = (s for shard in shard_set.shards.values() for s in coded(shard))
            largest = max((len(segment.ids) // 8 for segment in segments), default=0)
            cost = cost + (request.filter_of >= 0) * largest
        pieces, first, used = [], 0, 0
        for q, bytes_of_query in enumerate(cost.tolist()):
            if q > first and (used + bytes_of_query > _PIECE_BYTES or q - first >= _PIECE_QUERIES):
                pieces.append((first, q))
                first, used = q, 0
            used += bytes_of_query
        return [*pieces, (first, n)]

    def _collect(self, unit: ScanUnit, index: IvfIndex, run: Run, k: int) -> Candidates:
        """Waits for a start; its results as floats."""
        answer = unit.finish(run)
        settled = settle(answer, k)
        by_host = settled.open_queries.tolist()
        if self._needs_host(run):
            by_host = list(range(len(settled.counts)))
        if by_host:
            self._scan_by_host(index, run, settled, by_host, k)
        self.driver.counters.add(host_queries=len(by_host))
        return _to_floats(settled, run, answer)

    def _needs_host(self, run: Run) -> bool:
        """Whether rows are masked and the build cannot do it."""
        masked = run.target.masks.masks is not None or is_filtered(run.prepared.piece)
        return masked and Flags.MASKS not in self.driver.build.features

    def _scan_by_host(
        self, index: IvfIndex, run: Run, settled: Settled, queries: list[int], k: int
    ) -> None:
        piece, quantized = run.prepared.piece, run.prepared.quantized
        if quantized.tables is None:
            code_bytes = self.driver.build.code_bytes(index.m)
            quantized = self._tables.remake(index, piece, code_bytes)
        for query in queries:
            sums, rows = host_scan(
                run.target.segment, piece, quantized, query, k,
                self._tables.contract, self._tables.encoder(index), index.m,
            )  # fmt: skip
            settled.counts[query] = len(sums)
            settled.sums[query, : len(sums)] = sums
            settled.rows[query, : len(rows)] = rows

    def close(self) -> None:
        self.driver.device.close()


def _contract_for(build: CardBuild, asked: Contract | None, tables: TablesBy) -> Contract:
    """Raises InvalidInput where the build cannot do what is asked."""
    by = tables if asked is None else asked.tables
    contract = Contract(build.table_bits, build.sum_bits, by)
    if asked is not None and asked != contract:
        raise InvalidInput(
            f"{asked} is not what the card's build has, {contract}", field="contract"
        )
    if by is TablesBy.CARD and not build.makes_tables:
        raise InvalidInput(
            "the card's build makes no tables", field="tables",
            hint="have them made by the host, or load a bitstream that makes them",
        )  # fmt: skip
    return contract


def _to_floats(settled: Settled, run: Run, answer: Answer) -> Candidates:
    exact = run.prepared.quantized.to_floats(settled.sums)
    rows = settled.rows + run.target.segment.row_start
    return blank_tail(exact, rows, settled.counts.astype(np.int32), answer.codes)
