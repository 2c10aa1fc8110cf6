"""The host's half of a scan: integer tables, or what a card makes them of, and biases."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.types import F32, I64, U8
from retrieval_node.backends.base import ScanRequest
from retrieval_node.backends.fpga.vectors import VectorLayout
from retrieval_node.fixedpoint import (
    CODES,
    F64,
    U16,
    Contract,
    TableMode,
    TablesBy,
    usual_mode,
)
from retrieval_node.fixedpoint_rows import CodeBiases, has_code_biases, scan_tables_l2_rows
from retrieval_node.native.loader import require_native
from retrieval_node.shard_files import IvfIndex


@dataclass(frozen=True, eq=False)
class Piece:
    """Queries that share one start of the card.

    Attributes:
        lists: int64, list ids of all queries, one after the other.
        starts: int64 [n + 1], borders of the queries in ``lists``.
    """

    request: ScanRequest
    lists: I64
    starts: I64

    @property
    def of_query(self) -> I64:
        """int64 [lists], the query that each list is probed for."""
        n = len(self.request.queries)
        return np.repeat(np.arange(n, dtype=np.int64), np.diff(self.starts))


def flatten(request: ScanRequest) -> Piece:
    """Drops the padding of the lists."""
    wanted = request.lists >= 0
    starts = np.zeros(len(wanted) + 1, dtype=np.int64)
    np.cumsum(wanted.sum(axis=1), out=starts[1:])
    return Piece(request, request.lists[wanted].astype(np.int64), starts)


@dataclass(frozen=True, eq=False)
class Quantized:
    """Integer side of a piece.

    Attributes:
        mode: which of the tables belongs to which list.
        tables: uint8 or uint16 [t, 256, code_bytes], as the card reads them; memory
            of the caller, who may fill it anew. None: the card makes them.
        biases: int64 [lists].
        bases, scales: float64 [n], float32 [n].
        table_of: int64 [lists].
        code_words: uint16 [n, 512], or None where codes have no biases.
    """

    mode: TableMode
    tables: NDArray[np.unsignedinteger[Any]] | None
    biases: I64
    bases: F64
    scales: F32
    table_of: I64
    code_words: U16 | None = None

    def to_floats(self, sums: NDArray[np.integer[Any]]) -> F32:
        """``fixedpoint.to_distance`` for sums [n, k]."""
        scale = self.scales.astype(np.float64)[:, None]
        exact: F32 = (self.bases[:, None] + sums / scale).astype(np.float32)
        return exact


class TableMaker:
    """Makes tables for the indexes of loaded shards.

    Args:
        mode: None: the usual one of each index.
    """

    def __init__(self, contract: Contract, mode: TableMode | None) -> None:
        self._native = require_native()
        self.contract, self._mode = contract, mode
        self._lock = threading.Lock()
        self._encoders: weakref.WeakKeyDictionary[IvfIndex, CodeBiases] = (
            weakref.WeakKeyDictionary()
        )

    def mode(self, index: IvfIndex) -> TableMode:
        """How an index is scanned; what has one table anyway is always mode B."""
        usual = usual_mode(index.metric, index.residual)
        return usual if usual is TableMode.PER_QUERY else self._mode or usual

    def encoder(self, index: IvfIndex) -> CodeBiases | None:
        """Of the biases of codes, where the mode has them."""
        if not has_code_biases(index.metric, index.residual, self.mode(index)):
            return None
        with self._lock:
            if index not in self._encoders:
                self._encoders[index] = CodeBiases.of(
                    index.centroids, index.codebooks, index.shift, index.residual
                )
            return self._encoders[index]

    @property
    def by_card(self) -> bool:
        return self.contract.tables is TablesBy.CARD

    def bytes_per_query(
        self, index: IvfIndex, lists: I64, code_bytes: int, layout: VectorLayout | None
    ) -> I64:
        """Bytes of tables, or of vectors, for queries with so many lists: int64 [n]."""
        per_list = self.mode(index) is TableMode.PER_LIST
        count = lists if per_list else np.ones_like(lists)
        if layout is not None:
            return count * layout.stride_bytes
        return count * CODES * code_bytes * self.contract.table_bits // 8

    def table_bytes(
        self, index: IvfIndex, piece: Piece, code_bytes: int, layout: VectorLayout | None
    ) -> int:
        """Bytes of a piece's tables, or vectors, on the card."""
        lists = np.diff(piece.starts)
        return int(self.bytes_per_query(index, lists, code_bytes, layout).sum())

    def vectors(self, index: IvfIndex, piece: Piece, rows: U8, layout: VectorLayout) -> Quantized:
        """Vectors of a piece, of which the card makes tables.

        Args:
            rows: out, uint8 [table_bytes].
        """
        given = self._blank(index, piece, None)
        self._native.card_vectors(
            index.handle, piece.request.queries, piece.lists, piece.starts,
            self.contract.table_bits, self.contract.sum_bits, layout.width, layout.macs,
            layout.steps, layout.stride_bytes, rows, given.biases, given.bases, given.scales,
        )  # fmt: skip
        return given

    def remake(self, index: IvfIndex, piece: Piece, code_bytes: int) -> Quantized:
        """The tables that a card makes of a piece, made by the host."""
        rows = np.empty(self.table_bytes(index, piece, code_bytes, None), dtype=np.uint8)
        return self.make(index, piece, rows, code_bytes)

    def _blank(
        self, index: IvfIndex, piece: Piece, tables: NDArray[np.unsignedinteger[Any]] | None
    ) -> Quantized:
        """Numbers to be filled in."""
        n, per_list = len(piece.request.queries), self.mode(index) is TableMode.PER_LIST
        return Quantized(
            self.mode(index), tables, np.empty(len(piece.lists), np.int64), np.empty(n),
            np.empty(n, np.float32), np.arange(len(piece.lists)) if per_list else piece.of_query,
        )  # fmt: skip

    def make(self, index: IvfIndex, piece: Piece, rows: U8, code_bytes: int) -> Quantized:
        """Tables of a piece.

        Args:
            rows: out, uint8 [table_bytes].
        """
        kind: type[np.unsignedinteger[Any]] = (
            np.uint8 if self.contract.table_bits == 8 else np.uint16
        )
        tables = rows.view(kind).reshape(-1, CODES, code_bytes)
        encoder = self.encoder(index)
        if encoder is not None:
            return self._make_rows(encoder, piece, tables, rows)
        given = self._blank(index, piece, tables)
        self._native.contract_tables(
            index.handle, piece.request.queries, piece.lists, piece.starts,
            self.contract.table_bits, self.contract.sum_bits, rows, given.biases, given.bases,
            given.scales, width=code_bytes, integers=self.by_card,
        )  # fmt: skip
        return given

    def _make_rows(
        self,
        encoder: CodeBiases,
        piece: Piece,
        tables: NDArray[np.unsignedinteger[Any]],
        rows: U8,
    ) -> Quantized:
        found = [
            scan_tables_l2_rows(query, piece.lists[first:last], encoder, self.contract)
            for query, first, last in zip(
                piece.request.queries, piece.starts[:-1], piece.starts[1:], strict=True
            )
        ]
        words = np.concatenate([one.tables.reshape(1, -1) for one in found])
        self._native.card_tables(
            words, words.shape[1] // CODES, tables.shape[2], self.contract.table_bits, rows
        )
        return Quantized(
            TableMode.PER_QUERY,
            tables,
            np.concatenate([one.biases for one in found]),
            np.array([one.base for one in found]),
            np.array([one.scale for one in found], dtype=np.float32),
            piece.of_query,
            np.stack([one.code_words.reshape(-1) for one in found]),
        )
