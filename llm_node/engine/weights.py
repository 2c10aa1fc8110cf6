"""Tensors of safetensors files, as views of memory-mapped pages.

A view costs no memory of its own: pages come from the file when they are read
and can be dropped again. A tensor that has to be converted is copied, and its
pages are given back at once, so that file and copy never add up.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ragschema.errors import CorruptData

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_CHECK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
        begin: first byte, from the start of the file.
    """

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class MappedFile:
    """One safetensors file, mapped privately: nothing is ever written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        (length,) = struct.unpack("<Q", self._map[:8])
        header = json.loads(self._map[8 : 8 + length])
        self.tensors = [
            self._stored(name, entry, 8 + length)
            for name, entry in header.items()
            if name != "__metadata__"
        ]

    def _stored(self, name: str, entry: dict[str, object], base: int) -> StoredTensor:
        try:
            dtype = _DTYPES[str(entry["dtype"])]
            shape = tuple(int(n) for n in entry["shape"])  # type: ignore[attr-defined]
            begin, end = (base + int(n) for n in entry["data_offsets"])  # type: ignore[attr-defined]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData(f"{self.path} describes {name} wrongly: {entry}") from error
        size = math.prod(shape) * dtype.itemsize
        if end - begin != size or not base <= begin <= end <= len(self._map):
            raise CorruptData(
                f"{self.path} gives {name} {end - begin} bytes, its shape"
                f" {list(shape)} needs {size}",
                hint="copy the checkpoint again",
            )
        return StoredTensor(self.path, name, dtype, shape, begin, end)

    def read(self, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
        """The tensor; a view unless its dtype differs. Integers stay integers.

        Raises:
            CorruptData: a weight is not a number; names file and tensor.
        """
        count = math.prod(stored.shape)
        if count == 0:
            return torch.empty(stored.shape, dtype=stored.dtype)
        flat = torch.frombuffer(self._map, dtype=stored.dtype, count=count, offset=stored.begin)
        if not stored.dtype.is_floating_point:
            return flat.view(stored.shape)
        if has_nan(flat):
            raise CorruptData(
                f"{self.path} holds NaN in {stored.name}",
                hint="the weights are damaged; copy or train the checkpoint again",
            )
        if stored.dtype == dtype:
            return flat.view(stored.shape)
        copy = flat.to(dtype).view(stored.shape)
        self._forget(stored)
        return copy

    def _forget(self, stored: StoredTensor) -> None:
        """Gives whole pages back; a neighbour's part comes again when it is read."""
        begin = -(-stored.begin // mmap.PAGESIZE) * mmap.PAGESIZE
        end = stored.end // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def has_nan(flat: torch.Tensor) -> bool:
    """Whether a NaN is among [n] floats; without a temporary of their size."""
    for begin in range(0, flat.numel(), _CHECK_ELEMENTS):
        part = flat[begin : begin + _CHECK_ELEMENTS]
        # A sum is NaN when a part is; opposite infinities need the second look.
        if bool(torch.isnan(part.sum(dtype=torch.float32))) and bool(torch.isnan(part).any()):
            return True
    return False


def read_weights(
    paths: tuple[Path, ...], dtype: torch.dtype
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    """Every tensor of these files; the mappings live as long as their views.

    Raises:
        CorruptData: naming the file.
    """
    for path in paths:
        file = MappedFile(path)
        for stored in file.tensors:
            yield stored, file.read(stored, dtype)
