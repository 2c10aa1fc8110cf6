"""What of loaded shards lies on a card: segments, masks of live rows, codebooks.

Everything is keyed weakly by what it is of, and freed with it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator

from ragschema.errors import IncompatibleRequest
from retrieval_node.backends.fpga import upload
from retrieval_node.backends.fpga.driver import CardDriver
from retrieval_node.backends.fpga.masks import live_masks
from retrieval_node.backends.fpga.registers import Flags
from retrieval_node.backends.fpga.tables import TableMaker
from retrieval_node.backends.fpga.unit import Target
from retrieval_node.backends.fpga.upload import PlacedMasks, PlacedSegment
from retrieval_node.backends.fpga.vectors import (
    PlacedBook,
    round_book,
    upload_book,
    vector_layout,
)
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import LoadedShard, ShardSet
from retrieval_node.shard_files import IvfIndex


class Residents:
    """Loads, finds again and renews what lies on one card; called from any thread."""

    def __init__(self, driver: CardDriver, tables: TableMaker) -> None:
        self._driver, self._tables = driver, tables
        self._lock = threading.Lock()
        self._segments: weakref.WeakKeyDictionary[SegmentRows, PlacedSegment] = (
            weakref.WeakKeyDictionary()
        )
        self._books: weakref.WeakKeyDictionary[IvfIndex, PlacedBook] = weakref.WeakKeyDictionary()
        self._alive: weakref.WeakKeyDictionary[LoadedShard, dict[SegmentRows, PlacedMasks]] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def segments(self) -> list[PlacedSegment]:
        return list(self._segments.values())

    def book(self, index: IvfIndex) -> PlacedBook | None:
        """What the card makes an index's tables with; None: the host makes them."""
        return self._books.get(index)

    def targets(self, shard_set: ShardSet, shards: Iterable[int]) -> Iterator[Target]:
        """The segments of loaded shards, in order."""
        for number in shards:
            shard = shard_set.shards[number]
            for segment in coded(shard):
                yield Target(segment, self._segments[segment], self._alive[shard][segment])

    def load(self, shard_set: ShardSet, index: IvfIndex) -> None:
        """Copies what is new of a shard set to the card.

        Raises:
            IncompatibleRequest: codes longer than the build takes, or a mode it has not.
            CorruptData: stored bytes are not what was written.
            Unavailable: the card's memory is too small; nothing was uploaded.
        """
        self._check_index(index)
        encoder = self._tables.encoder(index)
        with self._lock:
            segments = [s for shard in shard_set.shards.values() for s in coded(shard)]
            new = {
                segment: upload.plan_segment(self._driver, segment, index.m, encoder)
                for segment in segments
                if segment not in self._segments
            }
            book = None
            if self._tables.by_card and index not in self._books:
                book = round_book(self._driver.build, index)
            upload.check_room(self._driver, new.items(), 0 if book is None else len(book.image))
            if book is not None:
                upload_book(self._driver, book)
                self._books[index] = book
                self._free_with(index, book)
            for segment, placed in new.items():
                upload.upload_segment(self._driver, segment, placed)
                self._segments[segment] = placed
                self._free_with(segment, placed)
            for shard in shard_set.shards.values():
                self._place_alive(shard_set, shard)

    def _check_index(self, index: IvfIndex) -> None:
        build = self._driver.build
        if build.m and index.m > build.m:
            raise IncompatibleRequest(
                f"codes of {index.m} bytes are longer than the card's {build.m}",
                field="m",
                hint="load a bitstream for longer codes, or train a smaller index",
            )
        if self._tables.by_card:
            vector_layout(build, index)
        if self._tables.encoder(index) is None:
            return
        if Flags.BIASES not in build.features:
            raise IncompatibleRequest(
                "the card's build has no biases of codes, which l2 in mode B needs",
                field="mode",
                hint="use mode A",
            )
        if self._tables.by_card:
            raise IncompatibleRequest(
                "a card makes no tables of l2 in mode B", field="tables", hint="use mode A"
            )

    def _place_alive(self, shard_set: ShardSet, shard: LoadedShard) -> None:
        if shard in self._alive:
            return
        found: dict[SegmentRows, PlacedMasks] = {}
        for segment in coded(shard):
            masks = PlacedMasks(live_masks(segment, shard_set.live))
            if Flags.MASKS in self._driver.build.features:
                upload.upload_masks(self._driver, masks)
            found[segment] = masks
            self._free_with(shard, masks)
        self._alive[shard] = found

    def _free_with(
        self, owner: IvfIndex | SegmentRows | LoadedShard, placed: upload.Placed
    ) -> None:
        weakref.finalize(owner, upload.release, self._driver, placed).atexit = False

    def restore(self) -> None:
        """Resets a broken card and uploads everything again; nobody may use it meanwhile."""
        with self._lock:
            if not self._driver.broken:
                return
            self._driver.reset()
            for book in list(self._books.values()):
                upload_book(self._driver, book)
            for segment, placed in list(self._segments.items()):
                upload.upload_segment(self._driver, segment, placed)
            if Flags.MASKS in self._driver.build.features:
                for found in list(self._alive.values()):
                    for masks in found.values():
                        upload.upload_masks(self._driver, masks)

    def verify(self) -> None:
        """Reads segments and codebooks back and compares; nobody may use the card meanwhile.

        Raises:
            DeviceFault: naming what differs.
        """
        with self._lock:
            for segment, placed in list(self._segments.items()):
                number = upload.damaged(placed)
                if number is not None:
                    raise self._driver.fault(
                        f"buffer {number} of {segment.path.name} is not what was uploaded"
                    )
            if any(book.damaged() for book in list(self._books.values())):
                raise self._driver.fault("a codebook is not what was uploaded")


def coded(shard: LoadedShard) -> Iterable[SegmentRows]:
    """A shard's segments that a card scans; the others are compared exactly."""
    return (segment for segment in shard.segments if not segment.exact)
