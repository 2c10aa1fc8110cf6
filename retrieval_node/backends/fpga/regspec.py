"""The register specification ``fpga/regs.toml``, read and checked.

The texts that are made from it are in ``generate``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragschema.errors import InvalidInput

WORD_BYTES: Final = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Register(_Strict):
    """One register, or one per channel; offsets in bytes."""

    name: str
    offset: int
    access: Literal["rw", "ro", "ctl"]
    doc: str
    bits: Literal[32, 64] = 32
    per_channel: bool = False
    port: Literal["host", "codes"] | None = None

    @property
    def nbytes(self) -> int:
        return self.bits // 8


class Bit(_Strict):
    bit: int
    doc: str


class Value(_Strict):
    value: int
    doc: str


class Word(_Strict):
    word: int
    doc: str


class Record(_Strict):
    """A record in device memory, of 32-bit words."""

    bytes: int
    doc: str
    words: dict[str, Word]


class _File(_Strict):
    version: int
    kernel: str
    address_bits: int
    max_channels: int
    registers: list[Register] = Field(alias="register")
    bits: dict[str, dict[str, Bit]]
    enum: dict[str, dict[str, Value]]
    record: dict[str, Record]


@dataclass(frozen=True)
class RegisterSpec:
    """A checked specification: nothing overlaps, everything is aligned and in range."""

    version: int
    kernel: str
    address_bits: int
    max_channels: int
    registers: tuple[Register, ...]
    bits: Mapping[str, Mapping[str, Bit]]
    enums: Mapping[str, Mapping[str, Value]]
    records: Mapping[str, Record]

    def span(self, register: Register) -> int:
        """Bytes that a register takes, over all its channels."""
        return register.nbytes * (self.max_channels if register.per_channel else 1)

    @property
    def version_text(self) -> str:
        return f"{self.version >> 16}.{self.version & 0xFFFF}"


def parse_spec(text: str) -> RegisterSpec:
    """A specification from its TOML text.

    Raises:
        InvalidInput: it is not TOML, a key is not known, or registers overlap.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(text)
        given = _File.model_validate(raw)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(str(error), field="regs.toml") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidInput(f"{problem['input']!r}: {problem['msg']}", field=where) from error
    spec = RegisterSpec(
        given.version, given.kernel, given.address_bits, given.max_channels,
        tuple(given.registers), given.bits, given.enum, given.record,
    )  # fmt: skip
    _check_registers(spec)
    _check_records(spec)
    return spec


def _check_registers(spec: RegisterSpec) -> None:
    owner: dict[int, str] = {}
    for register in spec.registers:
        if register.offset % register.nbytes:
            raise InvalidInput(
                f"{register.offset:#x} is not a multiple of {register.nbytes}", field=register.name
            )
        end = register.offset + spec.span(register)
        if register.offset < 0 or end > 1 << spec.address_bits:
            raise InvalidInput(
                f"it ends at {end:#x}, beyond {spec.address_bits} address bits",
                field=register.name,
            )
        for at in range(register.offset, end, WORD_BYTES):
            if at in owner:
                raise InvalidInput(f"{at:#x} is {owner[at]}'s already", field=register.name)
            owner[at] = register.name


def _check_records(spec: RegisterSpec) -> None:
    for name, record in spec.records.items():
        places = [word.word for word in record.words.values()]
        if len(set(places)) != len(places) or max(places) * WORD_BYTES >= record.bytes:
            raise InvalidInput(f"words {places} overlap or leave {record.bytes} bytes", field=name)
