"""One start of the emulated card: from registers to results in its memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragschema.types import U8
from retrieval_node.backends.fpga.device import CardBuild
from retrieval_node.backends.fpga.emulator_memory import EmulatedMemory, NoSuchMemory
from retrieval_node.backends.fpga.faults import Fault
from retrieval_node.backends.fpga.image import GroupedImage, ImageShape
from retrieval_node.backends.fpga.model import MadeTables, TableMode, batch_cycles
from retrieval_node.backends.fpga.records import LIST_WORDS, result_bytes
from retrieval_node.backends.fpga.registers import (
    REGISTERS,
    RESULT_BYTES,
    Error,
    Flags,
    ListWord,
    Mode,
    ResultWord,
)
from retrieval_node.backends.fpga.vectors import VectorLayout
from retrieval_node.fixedpoint import CODES
from retrieval_node.native.loader import require_native

if TYPE_CHECKING:
    from retrieval_node.backends.fpga.emulator import EmulatorConfig
    from retrieval_node.native._scan import CardBook

#: Images of this many segments are kept; one is as large as the segment's codes.
_MAX_IMAGES = 64


@dataclass(frozen=True)
class Outcome:
    """Status registers after a start, by offset."""

    registers: dict[int, int]


class _Refused(Exception):
    """Becomes a code in the error register."""

    def __init__(self, code: Error) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True)
class _Arguments:
    """Argument registers by name."""

    registers: dict[int, int]

    def get(self, name: str, channel: int = 0) -> int:
        register = REGISTERS[name]
        at = register.at(channel)
        low = self.registers.get(at, 0)
        return low | (self.registers.get(at + 4, 0) << 32 if register.wide else 0)


class UnitScan:
    """Runs starts on the card's memory; called from several units at once."""

    def __init__(self, memory: EmulatedMemory, config: EmulatorConfig) -> None:
        self._native = require_native()
        self._memory, self._config = memory, config
        self._lock = threading.Lock()
        self._images: dict[tuple[Any, ...], GroupedImage] = {}
        #: What units hold of the codebooks that they have read.
        self._books: dict[int, CardBook] = {}

    def forget(self) -> None:
        with self._lock:
            self._images.clear()
            self._books.clear()

    def run(self, unit: int, registers: dict[int, int], fault: Fault | None) -> Outcome:
        """One start of a unit; never raises what the card can tell by an error code."""
        given, done = _Arguments(registers), np.zeros(1, dtype=np.int64)
        status = dict.fromkeys(
            ("error", "error_query", "queries_done", "cycles", "codes_scanned", "bytes_read"), 0
        )
        try:
            if fault is not None and fault.error is not None:
                raise _Refused(fault.error)
            status |= self._scan(unit, given, done, fault)
        except _Refused as refused:
            status["error"] = int(refused.code)
        except NoSuchMemory:
            status["error"] = int(Error.AXI_READ)
        status["queries_done"] = int(done[0])
        if status["error"]:
            status["error_query"] = int(done[0])
            self._books.pop(unit, None)
        return Outcome(dict(_words(status)))

    def _scan(
        self, unit: int, given: _Arguments, done: NDArray[np.int64], fault: Fault | None
    ) -> dict[str, int]:
        n, nprobe, k = given.get("num_queries"), given.get("nprobe"), given.get("k")
        m, width, build = given.get("m"), given.get("code_bytes"), self._config.build
        flags = Flags(given.get("flags"))
        if not _can(build, given, flags):
            raise _Refused(Error.BAD_ARGUMENT)
        if self._config.watchful:
            self._watch(given, flags)
        lists = self._read(given.get("lists"), np.uint32, (n * nprobe, LIST_WORDS))
        results = self._written(given.get("results"), n * result_bytes(k))
        image = self._image(given, ImageShape(build.channels, m, width, Flags.BIASES in flags))
        codes = np.ascontiguousarray(lists[:, ListWord.CODES])
        probed = codes > 0
        image.need(lists[:, ListWord.FIRST_BEAT][probed], codes[probed])
        words = None
        if Flags.BIASES in flags:
            pairs = self._read(given.get("bias_table"), np.uint16, (n, CODES, 2))
            words = np.ascontiguousarray(pairs.transpose(0, 2, 1)).reshape(-1)
        book = self._book(unit, given, flags) if Flags.VECTORS in flags else None
        masks = self._rest(given.get("masks")) if Flags.MASKS in flags else None
        ids = self._rest(given.get("ids"))
        try:
            scanned: int = self._native.card_scan(
                lists, nprobe, self._rest(given.get("tables")), m, width, build.table_bits,
                words, image.grouped, image.shape.lanes, ids[: len(ids) // 4 * 4].view(np.uint32),
                masks, (1 << build.sum_bits) - 1, k, self._config.version, results, done,
                book=book, vector_stride=1 << given.get("vector_shift") if book is not None else 0,
            )  # fmt: skip
        except ValueError as error:
            raise _Refused(Error.BAD_ARGUMENT) from error
        except IndexError as error:
            raise NoSuchMemory(str(error)) from error
        cycles = self._put_cycles(given, codes.reshape(n, nprobe), results)
        spoil(fault, results)
        return {
            "cycles": cycles,
            "codes_scanned": scanned,
            "bytes_read": int((-(-codes.astype(np.int64) // image.shape.lanes)).sum())
            * image.shape.beat_bytes
            * build.channels,
        }

    def _book(self, unit: int, given: _Arguments, flags: Flags) -> CardBook:
        """The codebook that a unit holds, read anew where it is told to.

        A card that was never told to has whatever its memory came up with; here it
        is a codebook of zeros, which no test takes for the right one.
        """
        m, layout = given.get("m"), _layout(self._config.build, given)
        if Flags.CODEBOOK in flags:
            image = self._read(given.get("codebook"), np.uint8, (layout.book_bytes,))
        elif unit not in self._books:
            image = np.zeros(layout.book_bytes, dtype=np.uint8)
        else:
            return self._books[unit]
        self._books[unit] = self._native.read_card_book(
            image, m, layout.width, layout.macs, layout.steps
        )
        return self._books[unit]

    def _read(self, address: int, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        return self._memory.read(address, dtype, shape, strict=True)

    def _rest(self, address: int) -> U8:
        """Everything from an address to the end of what was synced; the scan checks its reads."""
        buffer, start = self._memory.find(address)
        if start % 4 or start >= buffer.written:
            raise NoSuchMemory(f"address {address:#x}")
        return buffer.device[start : buffer.written]

    def _written(self, address: int, nbytes: int) -> U8:
        """Memory that results are written to."""
        try:
            results: U8 = self._memory.read(address, np.uint8, (nbytes,), strict=False)
        except NoSuchMemory as error:
            raise _Refused(Error.AXI_WRITE) from error
        buffer, start = self._memory.find(address)
        buffer.written = max(buffer.written, start + nbytes)
        return results

    def _image(self, given: _Arguments, shape: ImageShape) -> GroupedImage:
        names = ("codes", "biases") if shape.biased else ("codes",)
        found = [
            [self._memory.find(given.get(name, channel)) for channel in range(shape.channels)]
            for name in names
        ]
        key = (shape, *((b.address, at, b.version) for part in found for b, at in part))
        with self._lock:
            if key not in self._images:
                memory = [[b.device[at : b.written] for b, at in part] for part in found]
                if any(len(one) < shape.beat_bytes for one in memory[0]):
                    raise NoSuchMemory("codes were never synced")
                if len(self._images) >= _MAX_IMAGES:
                    self._images.pop(next(iter(self._images)))
                self._images[key] = GroupedImage(
                    shape, memory[0], memory[1] if shape.biased else []
                )
            return self._images[key]

    def _put_cycles(self, given: _Arguments, codes: NDArray[np.uint32], results: U8) -> int:
        """The estimate per query into the heads; the sum of them."""
        per_list = given.get("mode") == Mode.TABLE_PER_LIST
        mode = TableMode.PER_LIST if per_list else TableMode.PER_QUERY
        build = self._config.modelled(given.get("code_bytes"))
        flags = Flags(given.get("flags"))
        cycles = batch_cycles(
            build, codes, given.get("k"), mode, Flags.BIASES in flags, self._made(given, flags)
        )
        heads = results.reshape(len(codes), -1)[:, :RESULT_BYTES].view(np.uint32)
        heads[:, ResultWord.CYCLES_LOW] = cycles & 0xFFFFFFFF
        heads[:, ResultWord.CYCLES_HIGH] = cycles >> 32
        return int(cycles.sum())

    def _made(self, given: _Arguments, flags: Flags) -> MadeTables | None:
        """Tables made on the card, where a start asks for them."""
        if Flags.VECTORS not in flags:
            return None
        return MadeTables(
            self._config.build.macs, given.get("steps"), given.get("vector_beats"),
            Flags.CODEBOOK in flags,
        )  # fmt: skip

    def _watch(self, given: _Arguments, flags: Flags) -> None:
        """Finds a sync that the driver forgot; see ``EmulatorConfig.watchful``."""
        read = [given.get(name) for name in ("lists", "tables", "ids")]
        read += [given.get("codes", channel) for channel in range(self._config.build.channels)]
        read += [given.get("bias_table")] if Flags.BIASES in flags else []
        read += [given.get("masks")] if Flags.MASKS in flags else []
        read += [given.get("codebook")] if Flags.CODEBOOK in flags else []
        for address in read:
            if self._memory.find(address)[0].stale:
                raise NoSuchMemory(f"address {address:#x} was written and not synced")
        self._memory.find(given.get("results"))[0].poison_host()


def _layout(build: CardBuild, given: _Arguments) -> VectorLayout:
    return VectorLayout(given.get("code_bytes"), build.macs, given.get("steps"))


def _can(build: CardBuild, given: _Arguments, flags: Flags) -> bool:
    """Whether a build can do what a start asks of it."""
    m, width, k = given.get("m"), given.get("code_bytes"), given.get("k")
    fits = width == build.m if build.m else width >= 1 and width & (width - 1) == 0
    some = given.get("num_queries") and given.get("nprobe")
    if not (some and 1 <= k <= build.k_max and 1 <= m <= width and fits):
        return False
    per_query = given.get("mode") == Mode.TABLE_PER_QUERY
    if int(flags) & ~int(build.features) or (Flags.BIASES in flags and not per_query):
        return False
    if Flags.VECTORS not in flags:
        return Flags.CODEBOOK not in flags
    return (
        Flags.BIASES not in flags
        and 1 <= given.get("steps") <= build.steps
        and given.get("vector_beats") == _layout(build, given).vector_beats
        and 6 <= given.get("vector_shift") <= 31
    )


def spoil(fault: Fault | None, results: U8) -> None:
    """Turns the bit that a fault turns, in the results of the first query."""
    if fault is Fault.HEAD:
        results[ResultWord.QUERY * 4 + 3] ^= np.uint8(0x10)
    elif fault is Fault.ORDER:
        results[RESULT_BYTES + 7] ^= np.uint8(0x80)


def _words(status: dict[str, int]) -> dict[int, int]:
    found = {}
    for name, value in status.items():
        register = REGISTERS[name]
        found[register.offset] = value & 0xFFFFFFFF
        if register.wide:
            found[register.offset + 4] = value >> 32
    return found
