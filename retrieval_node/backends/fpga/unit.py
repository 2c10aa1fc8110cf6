"""One compute unit: fills its buffers, starts it, reads the answer.

There are two sets of buffers, so that the next start is made ready while one runs.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.errors import DeviceFault, RagrigError
from ragschema.types import I64, U8
from retrieval_node.backends.fpga.driver import CardDriver, Started, WorkArea
from retrieval_node.backends.fpga.masks import is_filtered, live_words, no_words, piece_masks
from retrieval_node.backends.fpga.records import (
    LIST_WORDS,
    U32,
    Answer,
    WrongAnswer,
    read_answer,
    result_bytes,
)
from retrieval_node.backends.fpga.registers import Flags, ListWord, Metric, Mode
from retrieval_node.backends.fpga.tables import Piece, Quantized, TableMaker
from retrieval_node.backends.fpga.upload import (
    MASK_PADDING,
    PlacedMasks,
    PlacedSegment,
    addresses,
)
from retrieval_node.backends.fpga.vectors import PlacedBook
from retrieval_node.fixedpoint import CODES, TableMode
from retrieval_node.segment import SegmentRows
from retrieval_node.shard_files import IvfIndex

#: Bits of a bias, at most; what lies above them sorts by query.
_BIAS_BITS = 24


@dataclass(frozen=True, eq=False)
class Prepared:
    """Tables of a piece, on the card, or the vectors that it makes them of.

    Attributes:
        book: what the card makes tables with; None: the host made them.
    """

    piece: Piece
    quantized: Quantized
    tables: int
    code_words: int
    book: PlacedBook | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """What is scanned: one segment and where it lies."""

    segment: SegmentRows
    placed: PlacedSegment
    masks: PlacedMasks


@dataclass(frozen=True, eq=False)
class Run:
    """A start: what was asked, and where its results will be.

    Attributes:
        codes: that it scans.
    """

    prepared: Prepared
    target: Target
    k: int
    codes: int
    results: WorkArea
    arguments: dict[str, int]


class _Slot:
    """Work areas of one start."""

    def __init__(self, driver: CardDriver) -> None:
        self.tables = WorkArea(driver)
        self.words = WorkArea(driver)
        self.lists = WorkArea(driver)
        self.masks = WorkArea(driver)
        self.results = WorkArea(driver)


class ScanUnit:
    """Used by one thread at a time. At most one start runs; it is waited for before the next."""

    def __init__(self, driver: CardDriver, number: int) -> None:
        self._driver, self._number = driver, number
        self._slots = (_Slot(driver), _Slot(driver))
        self._pieces = self._runs = 0
        self._started: Started | None = None
        #: The codebook that the unit has read, and when: an address may be given out again.
        self._book: tuple[weakref.ref[PlacedBook], int] | None = None

    def prepare(
        self, piece: Piece, maker: TableMaker, index: IvfIndex, code_bytes: int,
        book: PlacedBook | None,
    ) -> Prepared:  # fmt: skip
        """Makes and sends a piece's tables, or vectors; the piece before stays as it is.

        Args:
            book: what the card makes tables with; None: the host makes them.
        """
        self._pieces += 1
        slot, layout = self._slots[self._pieces % 2], None if book is None else book.layout
        size = maker.table_bytes(index, piece, code_bytes, layout)
        rows = slot.tables.view(np.uint8, (size,))
        if layout is None:
            quantized = maker.make(index, piece, rows, code_bytes)
        else:
            quantized = maker.vectors(index, piece, rows, layout)
        slot.tables.send(max(1, size))
        words = 0
        if quantized.code_words is not None:
            given = quantized.code_words.reshape(len(quantized.code_words), 2, CODES)
            pairs = slot.words.view(np.uint16, (len(given), CODES, 2))
            pairs[:] = given.transpose(0, 2, 1)  # both bytes' words side by side
            slot.words.send(pairs.nbytes)
            words = slot.words.address
        return Prepared(piece, quantized, slot.tables.address, words, book)

    def fill(self, prepared: Prepared, target: Target, k: int) -> Run:
        """Sends descriptors and masks of one segment for a prepared piece."""
        self._runs += 1
        slot, piece = self._slots[self._runs % 2], prepared.piece
        n, flags, masks = len(piece.request.queries), Flags(0), 0
        words: U32 | I64 = no_words(len(piece.lists))
        if is_filtered(piece):
            filtered, words = piece_masks(target.segment, piece)
            masks, flags = self._send_masks(slot, filtered), Flags.MASKS
        elif target.masks.buffer is not None:
            words = live_words(target.segment, piece.lists)
            masks, flags = target.masks.buffer.address, Flags.MASKS
        if prepared.code_words:
            flags |= Flags.BIASES
        nprobe = max(1, int(np.diff(piece.starts).max(initial=0)))
        lists = slot.lists.view(np.uint32, (n * nprobe, LIST_WORDS))
        _describe(lists, prepared, target, words, nprobe)
        codes = int(lists[:, ListWord.CODES].sum(dtype=np.int64))
        slot.lists.send(lists.nbytes)
        slot.results.view(np.uint8, (n * result_bytes(k),))
        assert target.placed.ids is not None, "an uploaded segment"
        shape = target.placed.plan.shape
        arguments = {
            "num_queries": n, "nprobe": nprobe, "k": k, "m": shape.m,
            "mode": _mode_of(prepared.quantized.mode), "metric": _metric_of(prepared),
            "flags": int(flags), "code_bytes": shape.code_bytes, "lists": slot.lists.address,
            "tables": prepared.tables, "results": slot.results.address,
            "ids": target.placed.ids.address, "masks": masks, "bias_table": prepared.code_words,
        }  # fmt: skip
        if prepared.book is not None:
            arguments |= _vector_arguments(prepared.book, flags)
        return Run(prepared, target, k, codes, slot.results, arguments)

    def _send_masks(self, slot: _Slot, masks: U8) -> int:
        padded = slot.masks.view(np.uint8, (masks.nbytes + MASK_PADDING,))
        padded[: masks.nbytes] = masks
        padded[masks.nbytes :] = 0
        slot.masks.send(padded.nbytes)
        return slot.masks.address

    def start(self, run: Run) -> None:
        """Returns at once; ``finish`` before the next."""
        assert self._started is None, "a start is under way"
        placed, arguments = run.target.placed, run.arguments
        if run.prepared.book is not None:
            wanted = (weakref.ref(run.prepared.book), self._driver.generation)
            if wanted != self._book:
                arguments = arguments | {"flags": arguments["flags"] | Flags.CODEBOOK}
            self._book = wanted
        channels: dict[str, Sequence[int]] = {"codes": addresses(placed.codes)}
        if placed.biases:
            channels["biases"] = addresses(placed.biases)
        self._started = self._driver.start(self._number, arguments, channels, run.codes)

    def finish(self, run: Run) -> Answer:
        """Waits for the start and reads its results.

        Raises:
            DeviceFault: it hung, failed or answered nonsense.
        """
        self.settle()
        n, rows = len(run.prepared.piece.request.queries), run.target.segment.row_count
        size = n * result_bytes(run.k)
        raw = run.results.view(np.uint8, (size,))
        run.results.fetch(size)
        sum_max = (1 << self._driver.build.sum_bits) - 1
        try:
            answer = read_answer(raw, n, run.k, sum_max, rows)
        except WrongAnswer as error:
            raise self._driver.fault(str(error)) from error
        self._driver.counters.add(queries=n, codes=answer.codes)
        return answer

    def settle(self) -> None:
        """Waits until nothing runs.

        Raises:
            DeviceFault: the start hung or failed.
        """
        started, self._started = self._started, None
        if started is None:
            return
        try:
            self._driver.wait(self._number, started)
        except RagrigError:
            self._book = None  # a start that failed may have read half of it
            raise

    def abandon(self) -> None:
        """As ``settle``, where an error is on its way already: faults are noted, not raised."""
        with contextlib.suppress(DeviceFault):
            self.settle()


def _vector_arguments(book: PlacedBook, flags: Flags) -> dict[str, int]:
    assert book.buffer is not None, "a placed codebook"
    return {
        "flags": int(flags | Flags.VECTORS), "codebook": book.buffer.address,
        "steps": book.layout.steps, "vector_beats": book.layout.vector_beats,
        "vector_shift": book.layout.vector_shift,
    }  # fmt: skip


def _mode_of(mode: TableMode) -> int:
    return int(Mode.TABLE_PER_LIST if mode is TableMode.PER_LIST else Mode.TABLE_PER_QUERY)


def _metric_of(prepared: Prepared) -> int:
    quantized = prepared.quantized
    squared = quantized.mode is TableMode.PER_LIST or quantized.code_words is not None
    return int(Metric.L2 if squared else Metric.IP)


def _describe(
    lists: U32, prepared: Prepared, target: Target, words: U32 | I64, nprobe: int
) -> None:
    """Writes the descriptors, each query's lists by ascending bias: thresholds fall early."""
    piece, quantized, segment = prepared.piece, prepared.quantized, target.segment
    of_query = piece.of_query
    # One key sorts faster than two; biases are of 24 bits at most.
    order = np.argsort(of_query << _BIAS_BITS | quantized.biases, kind="stable")
    chosen = piece.lists[order]
    first, numbers = segment.list_offsets[chosen], words[order]
    made = lists
    if len(order) < len(lists):
        lists[:] = 0
        made = np.empty((len(order), LIST_WORDS), dtype=np.uint32)
    made[:, ListWord.TABLE + 1 :] = 0
    made[:, ListWord.FIRST_BEAT] = target.placed.plan.first_beats[chosen]
    made[:, ListWord.CODES] = segment.list_offsets[chosen + 1] - first
    made[:, ListWord.FIRST_TAG] = first
    made[:, ListWord.BIAS] = quantized.biases[order]
    made[:, ListWord.MASK_WORD] = numbers
    made[:, ListWord.TABLE] = quantized.table_of[order]
    if made is not lists:
        lists[of_query * nprobe + np.arange(len(order)) - piece.starts[of_query]] = made
