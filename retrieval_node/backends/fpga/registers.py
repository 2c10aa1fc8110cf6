"""Registers and records of the accelerator.

Made from fpga/regs.toml by `python -m retrieval_node.backends.fpga.generate`; do not edit.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

VERSION: Final = 0x00010001
KERNEL: Final = "ragrig_scan"
ADDRESS_BITS: Final = 12
MAX_CHANNELS: Final = 32


@dataclass(frozen=True)
class Register:
    """Byte offset; ``wide`` ones are 64 bits, the lower half first."""

    offset: int
    wide: bool = False
    per_channel: bool = False
    writable: bool = False

    def at(self, channel: int = 0) -> int:
        """Offset of one channel's register."""
        return self.offset + channel * (8 if self.wide else 4)


REGISTERS: Final[Mapping[str, Register]] = {
    "ctrl": Register(0x000, writable=True),
    "gie": Register(0x004, writable=True),
    "ier": Register(0x008, writable=True),
    "isr": Register(0x00C, writable=True),
    "num_queries": Register(0x010, writable=True),
    "nprobe": Register(0x014, writable=True),
    "k": Register(0x018, writable=True),
    "m": Register(0x01C, writable=True),
    "mode": Register(0x020, writable=True),
    "metric": Register(0x024, writable=True),
    "flags": Register(0x028, writable=True),
    "code_bytes": Register(0x02C, writable=True),
    "lists": Register(0x030, wide=True, writable=True),
    "tables": Register(0x038, wide=True, writable=True),
    "results": Register(0x040, wide=True, writable=True),
    "ids": Register(0x048, wide=True, writable=True),
    "masks": Register(0x050, wide=True, writable=True),
    "bias_table": Register(0x058, wide=True, writable=True),
    "codebook": Register(0x060, wide=True, writable=True),
    "steps": Register(0x068, writable=True),
    "vector_beats": Register(0x06C, writable=True),
    "vector_shift": Register(0x070, writable=True),
    "codes": Register(0x100, wide=True, per_channel=True, writable=True),
    "biases": Register(0x200, wide=True, per_channel=True, writable=True),
    "version": Register(0x300),
    "build_m": Register(0x304),
    "build_channels": Register(0x308),
    "build_lw": Register(0x30C),
    "build_sw": Register(0x310),
    "build_kmax": Register(0x314),
    "build_features": Register(0x318),
    "build_macs": Register(0x368),
    "build_steps": Register(0x36C),
    "error": Register(0x320),
    "error_query": Register(0x324),
    "queries_done": Register(0x328),
    "cycles": Register(0x330, wide=True),
    "codes_scanned": Register(0x338, wide=True),
    "bytes_read": Register(0x340, wide=True),
    "stall_memory": Register(0x348, wide=True),
    "stall_table": Register(0x350, wide=True),
    "stall_topk": Register(0x358, wide=True),
    "stall_result": Register(0x360, wide=True),
}


class Ctrl(enum.IntFlag):
    """Bits of ctrl."""

    START = 0x1
    DONE = 0x2
    IDLE = 0x4
    READY = 0x8


class Flags(enum.IntFlag):
    """Bits of flags."""

    MASKS = 0x1
    BIASES = 0x2
    VECTORS = 0x4
    CODEBOOK = 0x8


class Error(enum.IntEnum):
    """Values of the register error."""

    NONE = 0
    BAD_ARGUMENT = 1
    AXI_READ = 2
    AXI_WRITE = 3


class Mode(enum.IntEnum):
    """Values of the register mode."""

    TABLE_PER_LIST = 0
    TABLE_PER_QUERY = 1


class Metric(enum.IntEnum):
    """Values of the register metric."""

    L2 = 0
    IP = 1


class ListWord(enum.IntEnum):
    """Places of 32-bit words in record list."""

    FIRST_BEAT = 0
    CODES = 1
    FIRST_TAG = 2
    BIAS = 3
    MASK_WORD = 4
    TABLE = 5


class VectorWord(enum.IntEnum):
    """Places of 32-bit words in record vector."""

    NORM_SHIFT = 0
    SUM_SHIFT = 1
    FACTOR = 2


class ResultWord(enum.IntEnum):
    """Places of 32-bit words in record result."""

    VERSION = 0
    ERROR = 1
    COUNT = 2
    QUERY = 3
    CYCLES_LOW = 4
    CYCLES_HIGH = 5
    CODES_LOW = 6
    CODES_HIGH = 7


class EntryWord(enum.IntEnum):
    """Places of 32-bit words in record entry."""

    ID = 0
    SUM = 1


LIST_BYTES: Final = 32
VECTOR_BYTES: Final = 64
RESULT_BYTES: Final = 64
ENTRY_BYTES: Final = 8
