"""The driver: fills one compute unit's buffers, starts it, reads the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import InternalError
from ragschema.types import I32, I64
from retrieval_node.backends.fpga.device import (
    CODES_HIGH,
    CODES_LOW,
    CTRL,
    ERROR,
    Buffer,
    Ctrl,
    Device,
    DeviceError,
    write_argument,
)

_WAIT_S = 300.0


def allocate(device: Device, nbytes: int) -> Buffer:
    """A buffer in the bank with most room."""
    bank = max(range(device.banks), key=device.free_bytes)
    return device.allocate(nbytes, bank)


def place(device: Device, array: NDArray[Any]) -> Buffer:
    """A copy of an array in device memory."""
    buffer = allocate(device, array.nbytes)
    buffer.host[: array.nbytes] = array.reshape(-1).view(np.uint8)
    buffer.to_device(array.nbytes)
    return buffer


@dataclass(frozen=True)
class PlacedRows:
    """Device addresses of one segment; valid as long as the segment is loaded.

    Attributes:
        code_bytes: of the grouped codes.
        row_start: added to ids.
    """

    codes: int
    ids: int
    code_bytes: int
    rows: int
    row_start: int
    m: int


@dataclass(frozen=True)
class PlacedMasks:
    """Lane masks of the rows that are not deleted; address 0: none is deleted."""

    address: int = 0
    nbytes: int = 0


@dataclass(frozen=True)
class RawResult:
    """Integers as they leave the device: sums and rows int64 [n, k], counts int32 [n]."""

    sums: I64
    rows: I64
    counts: I32
    codes_scanned: int


class WorkArea:
    """A buffer of one compute unit that grows to what a call needs."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffer: Buffer | None = None

    def view(self, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        """Host side of at least this size, seen as an array."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if self._buffer is None or len(self._buffer.host) < nbytes:
            if self._buffer is not None:
                self._device.free(self._buffer.address)
                self._buffer = None
            self._buffer = allocate(self._device, 1 << max(12, nbytes - 1).bit_length())
        return self._buffer.host[:nbytes].view(dtype).reshape(shape)

    def send(self, nbytes: int) -> int:
        """Syncs to the device; returns the address."""
        assert self._buffer is not None, "sent before it was filled"
        self._buffer.to_device(nbytes)
        return self._buffer.address

    def fetch(self, nbytes: int) -> None:
        assert self._buffer is not None, "fetched before it was placed"
        self._buffer.from_device(nbytes)

    @property
    def address(self) -> int:
        assert self._buffer is not None, "used before it was placed"
        return self._buffer.address


class ScanUnit:
    """One compute unit and its work areas; used by one thread at a time."""

    def __init__(self, device: Device, unit: int) -> None:
        self._device = device
        self._unit = unit
        self.tables = WorkArea(device)
        self.masks = WorkArea(device)
        self._jobs = WorkArea(device)
        self._starts = WorkArea(device)
        self._sums = WorkArea(device)
        self._rows = WorkArea(device)
        self._counts = WorkArea(device)

    def run(
        self,
        placed: PlacedRows,
        alive: PlacedMasks,
        jobs: I64,
        starts: I64,
        num_tables: int,
        mask_bytes: int,
        k: int,
        sum_max: int,
    ) -> RawResult:
        """Scans the jobs; tables and masks were filled in before.

        Args:
            alive: masks that jobs refer to where mask_bytes is 0.
            jobs: int64 [j, 6], see ``contract_scan`` in native/_scan.pyi.
        """
        n = len(starts) - 1
        sums = self._sums.view(np.int64, (n, k))
        rows = self._rows.view(np.int64, (n, k))
        counts = self._counts.view(np.int32, (n,))
        self._start(
            {
                "codes": placed.codes,
                "ids": placed.ids,
                "alive": alive.address,
                "masks": self.masks.send(mask_bytes) if mask_bytes else 0,
                "tables": self.tables.send(num_tables * placed.m * 512),
                "jobs": _send(self._jobs, jobs),
                "starts": _send(self._starts, starts),
                "sums": self._sums.address,
                "rows": self._rows.address,
                "counts": self._counts.address,
                "code_rows": placed.rows,
                "code_bytes": placed.code_bytes,
                "row_start": placed.row_start,
                "alive_bytes": alive.nbytes,
                "mask_bytes": mask_bytes,
                "num_jobs": len(jobs),
                "num_queries": n,
                "num_tables": num_tables,
                "m": placed.m,
                "k": k,
                "sum_max": sum_max,
            }
        )
        for area, array in ((self._sums, sums), (self._rows, rows), (self._counts, counts)):
            area.fetch(array.nbytes)
        return RawResult(sums.copy(), rows.copy(), counts.copy(), self._codes_scanned())

    def _start(self, arguments: Mapping[str, int]) -> None:
        for name, value in arguments.items():
            write_argument(self._device, self._unit, name, value)
        self._device.write_register(self._unit, CTRL, int(Ctrl.START))
        self._device.wait(self._unit, _WAIT_S)
        code = self._device.read_register(self._unit, ERROR)
        if code != DeviceError.NONE:
            raise InternalError(
                f"device {self._device.name} refused the scan: {DeviceError(code).name.lower()}"
            )

    def _codes_scanned(self) -> int:
        low = self._device.read_register(self._unit, CODES_LOW)
        return low | (self._device.read_register(self._unit, CODES_HIGH) << 32)


def _send(area: WorkArea, array: I64) -> int:
    area.view(np.int64, array.shape)[...] = array
    return area.send(array.nbytes)
