"""Segments and masks in a card's memory: planned first, then uploaded, checked and renewed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ragschema.errors import Unavailable
from ragschema.types import U8
from retrieval_node.backends.fpga.device import PAGE_BYTES, Buffer
from retrieval_node.backends.fpga.driver import CardDriver
from retrieval_node.backends.fpga.image import ImagePlan, ImageShape, fill_channels, plan_image
from retrieval_node.backends.fpga.vectors import PlacedBook
from retrieval_node.fixedpoint_rows import CodeBiases
from retrieval_node.native.loader import require_native
from retrieval_node.segment import SegmentRows

#: Bytes behind masks that a card with many lanes reads and does not look at.
MASK_PADDING = 64


@dataclass(eq=False)
class PlacedSegment:
    """One segment on the card; its buffers change with a reset.

    Attributes:
        plan: where its lists lie.
        encoder: of the biases of its codes; None without them.
        codes, biases: a buffer per channel.
        sums: zlib.crc32 of what was uploaded, in the order of ``buffers``.
    """

    plan: ImagePlan
    encoder: CodeBiases | None
    codes: list[Buffer] = field(default_factory=list)
    biases: list[Buffer] = field(default_factory=list)
    ids: Buffer | None = None
    sums: list[int] = field(default_factory=list)

    @property
    def buffers(self) -> list[Buffer]:
        return [*self.codes, *self.biases, *([] if self.ids is None else [self.ids])]


@dataclass(eq=False)
class PlacedMasks:
    """Lane masks of a segment's rows that are not deleted; no buffer: none is deleted."""

    masks: U8 | None = None
    buffer: Buffer | None = None

    @property
    def buffers(self) -> list[Buffer]:
        return [] if self.buffer is None else [self.buffer]


def plan_segment(
    driver: CardDriver, segment: SegmentRows, m: int, encoder: CodeBiases | None
) -> PlacedSegment:
    """Where a segment's lists will lie; nothing is uploaded."""
    build = driver.build
    shape = ImageShape(build.channels, m, build.code_bytes(m), encoder is not None)
    return PlacedSegment(plan_image(segment.list_offsets, shape), encoder)


def check_room(
    driver: CardDriver, planned: Iterable[tuple[SegmentRows, PlacedSegment]], book_bytes: int = 0
) -> None:
    """Refuses what does not fit the banks, before anything is uploaded.

    Args:
        book_bytes: of a codebook that goes first.

    Raises:
        Unavailable: naming the bank and the bytes.
    """
    device = driver.device
    room = [device.free_bytes(bank) for bank in range(device.banks)]
    room[int(np.argmax(room))] -= _pages(book_bytes) if book_bytes else 0
    for segment, placed in planned:
        for channel in range(placed.plan.shape.channels):
            need = _pages(placed.plan.code_bytes)
            need += _pages(placed.plan.bias_bytes) if placed.encoder is not None else 0
            room[channel % device.banks] -= need
        room[int(np.argmax(room))] -= _pages(segment.ids.nbytes)
        if min(room) < 0:
            bank = int(np.argmin(room))
            raise Unavailable(
                f"bank {bank} of device {device.name} lacks {-room[bank]} bytes"
                f" for {segment.path.name}; nothing was uploaded",
                hint="spread the collection over more retrieval nodes",
            )


def _pages(nbytes: int) -> int:
    return max(1, -(-nbytes // PAGE_BYTES)) * PAGE_BYTES


def upload_segment(driver: CardDriver, segment: SegmentRows, placed: PlacedSegment) -> None:
    """Copies codes, biases and ids to the card.

    Raises:
        CorruptData: stored bytes are not what was written.
        Unavailable: the card's memory is full.
    """
    segment.row_ids()  # verifies ids and their range: a card cannot
    segment.file.ensure_array("codes")
    plan, device = placed.plan, driver.device
    banks = [channel % device.banks for channel in range(plan.shape.channels)]
    placed.codes, placed.biases, placed.ids, placed.sums = [], [], None, []
    try:
        for bank in banks:
            placed.codes.append(device.allocate(plan.code_bytes, bank))
            if placed.encoder is not None:
                placed.biases.append(device.allocate(plan.bias_bytes, bank))
        placed.ids = driver.allocate(max(1, segment.ids.nbytes))
    except Unavailable:
        release(driver, placed)
        raise
    codes = [buffer.host[: plan.code_bytes] for buffer in placed.codes]
    biases = [buffer.host[: plan.bias_bytes] for buffer in placed.biases]
    fill_channels(segment, plan, codes, biases, placed.encoder)
    placed.ids.host[:] = 0
    placed.ids.host[: segment.ids.nbytes] = segment.ids.view(np.uint8)
    for buffer in placed.buffers:
        driver.send(buffer, len(buffer.host) if buffer is placed.ids else _used(placed, buffer))
    crc32 = require_native().crc32
    placed.sums = [crc32(buffer.host[: _used(placed, buffer)]) for buffer in placed.buffers]


def _used(placed: PlacedSegment, buffer: Buffer) -> int:
    if buffer is placed.ids:
        return len(buffer.host)
    return placed.plan.code_bytes if buffer in placed.codes else placed.plan.bias_bytes


def upload_masks(driver: CardDriver, placed: PlacedMasks) -> None:
    """Copies masks to the card, where there are any."""
    placed.buffer = None
    if placed.masks is not None:
        size = placed.masks.nbytes
        placed.buffer = driver.allocate(size + MASK_PADDING)
        placed.buffer.host[:size] = placed.masks
        placed.buffer.host[size : size + MASK_PADDING] = 0
        driver.send(placed.buffer, size + MASK_PADDING)


def damaged(placed: PlacedSegment) -> int | None:
    """Reads a segment back: the first buffer that is not what was uploaded, else None."""
    crc32 = require_native().crc32
    for number, (buffer, want) in enumerate(zip(placed.buffers, placed.sums, strict=True)):
        size = _used(placed, buffer)
        buffer.from_device(size)
        if crc32(buffer.host[:size]) != want:
            return number
    return None


#: What lies on a card, of one owner.
Placed: TypeAlias = PlacedSegment | PlacedMasks | PlacedBook


def release(driver: CardDriver, placed: Placed) -> None:
    """Gives the buffers back."""
    for buffer in placed.buffers:
        driver.device.free(buffer.address)
    if isinstance(placed, PlacedSegment):
        placed.codes, placed.biases, placed.ids = [], [], None
    else:
        placed.buffer = None


def addresses(buffers: Sequence[Buffer]) -> list[int]:
    return [buffer.address for buffer in buffers]
