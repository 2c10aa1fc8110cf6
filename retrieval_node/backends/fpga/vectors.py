"""How codebooks and vectors lie in the memory of a card that makes its own tables.

A word holds ``macs`` components of every column of the build. A codeword is its
norms, 32 bits a column in whole beats, and ``steps`` words; a vector is a head, its
offsets like norms, and as many words. See ``fpga/regs.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ragschema.errors import IncompatibleRequest
from ragschema.types import U8
from retrieval_node.backends.fpga.device import BEAT_BYTES, Buffer, CardBuild
from retrieval_node.backends.fpga.driver import CardDriver
from retrieval_node.fixedpoint import CODES
from retrieval_node.native.loader import require_native
from retrieval_node.shard_files import IvfIndex


@dataclass(frozen=True)
class VectorLayout:
    """Widths of an index's codebook and vectors on a card.

    Attributes:
        width: columns of a word, those of the build.
        macs: components of a column in a word.
        steps: words per codeword and per vector.
    """

    width: int
    macs: int
    steps: int

    @property
    def _code_beats(self) -> int:
        columns = -(-self.width * 4 // BEAT_BYTES)
        return columns + self.steps * self.width * self.macs * 2 // BEAT_BYTES

    @property
    def book_bytes(self) -> int:
        return CODES * self._code_beats * BEAT_BYTES

    @property
    def vector_beats(self) -> int:
        return 1 + self._code_beats

    @property
    def vector_shift(self) -> int:
        """log2 of the bytes from one vector to the next."""
        return (self.vector_beats * BEAT_BYTES - 1).bit_length()

    @property
    def stride_bytes(self) -> int:
        return 1 << self.vector_shift


def vector_layout(build: CardBuild, index: IvfIndex) -> VectorLayout:
    """The layout of an index for a build.

    Raises:
        IncompatibleRequest: the build makes no tables, or not of so long codewords.
    """
    if not build.makes_tables:
        raise IncompatibleRequest(
            "the card's build makes no tables",
            field="tables",
            hint="have them made by the host, or load a bitstream that makes them",
        )
    sub = index.dim // index.m
    if sub > build.macs * build.steps:
        raise IncompatibleRequest(
            f"codewords of {sub} components are longer than the {build.macs * build.steps}"
            " that the card's build holds",
            field="tables",
            hint="have them made by the host, or train an index with more bytes per code",
        )
    return VectorLayout(build.code_bytes(index.m), build.macs, -(-sub // build.macs))


@dataclass(eq=False)
class PlacedBook:
    """A codebook on the card; its buffer changes with a reset."""

    layout: VectorLayout
    image: U8 = field(repr=False)
    buffer: Buffer | None = None

    @property
    def buffers(self) -> list[Buffer]:
        return [] if self.buffer is None else [self.buffer]

    def damaged(self) -> bool:
        """Reads it back; whether it is not what was uploaded."""
        assert self.buffer is not None, "a placed codebook"
        self.buffer.from_device(len(self.image))
        return not np.array_equal(self.buffer.host[: len(self.image)], self.image)


def round_book(build: CardBuild, index: IvfIndex) -> PlacedBook:
    """An index's codebook in integers; nothing is uploaded.

    Raises:
        IncompatibleRequest: as ``vector_layout``.
    """
    layout = vector_layout(build, index)
    image = np.zeros(layout.book_bytes, dtype=np.uint8)
    require_native().card_book(index.handle, layout.width, layout.macs, layout.steps, image)
    return PlacedBook(layout, image)


def upload_book(driver: CardDriver, placed: PlacedBook) -> None:
    """Copies a codebook to the card.

    Raises:
        Unavailable: the card's memory is full.
    """
    placed.buffer = driver.allocate(len(placed.image))
    placed.buffer.host[: len(placed.image)] = placed.image
    driver.send(placed.buffer, len(placed.image))
