"""What the driver needs of a device: buffers, registers, a reset.

Registers of a compute unit are 32 bits wide; a 64-bit one takes two, the lower
half first. Devices resolve memory only from addresses in registers. Names and
offsets are those of ``fpga/regs.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from ragschema.errors import VersionMismatch
from ragschema.types import U8
from retrieval_node.backends.fpga.registers import REGISTERS, VERSION, Flags

PAGE_BYTES: Final = 4096
BEAT_BYTES: Final = 64
_WORD: Final = 0xFFFFFFFF


class Buffer(Protocol):
    """Memory with a host side and a device side, equal only after a sync."""

    @property
    def address(self) -> int:
        """Device address, a multiple of 4096."""

    @property
    def host(self) -> U8:
        """Host side, uint8 [size]."""

    def to_device(self, nbytes: int) -> None:
        """Copies the first bytes of the host side to the device."""

    def from_device(self, nbytes: int) -> None:
        """Copies the first bytes of the device side to the host."""


class Device(Protocol):
    """One card. Each compute unit does one start at a time."""

    @property
    def name(self) -> str: ...

    @property
    def compute_units(self) -> int: ...

    @property
    def banks(self) -> int: ...

    def free_bytes(self, bank: int) -> int:
        """Bytes left in a memory bank."""

    def allocate(self, nbytes: int, bank: int) -> Buffer:
        """Raises Unavailable when the bank is full."""

    def free(self, address: int) -> None:
        """Gives a buffer back by its address; one that a reset took is no error."""

    def write_register(self, unit: int, offset: int, value: int) -> None: ...

    def read_register(self, unit: int, offset: int) -> int: ...

    def reset(self) -> None:
        """Programs the card anew. Nothing runs afterwards, and no buffer is left."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class CardBuild:
    """What the bitstream on a card can do, from its registers.

    Attributes:
        m: table columns and bytes per code; 0: any (an emulated card).
        channels: that codes are read from.
        table_bits, sum_bits: LW and SW.
        k_max: results per query at most.
        features: lane masks, biases of codes, tables made on the card.
        macs, steps: components per column and cycle, and words of them per code, where
            the card makes tables; else 0.
    """

    m: int
    channels: int
    table_bits: int
    sum_bits: int
    k_max: int
    features: Flags
    macs: int = 0
    steps: int = 0

    @property
    def makes_tables(self) -> bool:
        return Flags.VECTORS in self.features

    def code_bytes(self, m: int) -> int:
        """Bytes from one code of m bytes to the next: the next power of two, or the build's."""
        return self.m or max(8, 1 << (m - 1).bit_length())


def write_argument(device: Device, unit: int, name: str, value: int, channel: int = 0) -> None:
    """Writes one named argument; wide ones into two registers."""
    register = REGISTERS[name]
    device.write_register(unit, register.at(channel), value & _WORD)
    if register.wide:
        device.write_register(unit, register.at(channel) + 4, value >> 32)


def read_value(device: Device, unit: int, name: str) -> int:
    """The value of a named register."""
    register = REGISTERS[name]
    low = device.read_register(unit, register.offset)
    if not register.wide:
        return low
    return low | device.read_register(unit, register.offset + 4) << 32


def read_build(device: Device, unit: int = 0) -> CardBuild:
    """What a compute unit can do.

    Raises:
        VersionMismatch: the bitstream has other registers than this driver.
    """
    found = read_value(device, unit, "version")
    if found >> 16 != VERSION >> 16:
        raise VersionMismatch(
            f"the bitstream on {device.name} has registers of version {version_text(found)},"
            f" this driver is written for {version_text(VERSION)}",
            hint="load a bitstream of the same release as ragrig",
        )
    return CardBuild(
        m=read_value(device, unit, "build_m"),
        channels=read_value(device, unit, "build_channels"),
        table_bits=read_value(device, unit, "build_lw"),
        sum_bits=read_value(device, unit, "build_sw"),
        k_max=read_value(device, unit, "build_kmax"),
        features=Flags(read_value(device, unit, "build_features")),
        macs=read_value(device, unit, "build_macs"),
        steps=read_value(device, unit, "build_steps"),
    )


def version_text(version: int) -> str:
    return f"{version >> 16}.{version & 0xFFFF}"
