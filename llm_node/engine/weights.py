"""Tensors of safetensors files, as views of memory-mapped pages.

A view costs no memory of its own: pages come from the file when they are read
and can be dropped again at any time, as nothing is ever written to them.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ragschema.errors import CorruptData, InvalidInput

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
            stored = str(entry["dtype"])
            shape = tuple(int(n) for n in entry["shape"])  # type: ignore[attr-defined]
            begin, end = (base + int(n) for n in entry["data_offsets"])  # type: ignore[attr-defined]
            if any(n < 0 for n in shape):
                raise ValueError(f"a shape of {list(shape)}")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData(f"{self.path} describes {name} wrongly: {entry}") from error
        dtype = _DTYPES.get(stored)
        if dtype is None:
            raise InvalidInput(
                f"{self.path} holds {name} as {stored}, which is not served",
                hint=f"save the weights as one of {', '.join(_DTYPES)}",
            )
        size = math.prod(shape) * dtype.itemsize
        if end - begin != size or not base <= begin <= end <= len(self._map):
            raise CorruptData(
                f"{self.path} gives {name} {end - begin} bytes, its shape"
                f" {list(shape)} needs {size}",
                hint="copy the checkpoint again",
            )
        return StoredTensor(self.path, name, dtype, shape, begin, end)

    def view(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor itself, in the file's dtype; pages are read when it is.

        A copy where it does not lie at a multiple of its numbers' size.
        """
        count = math.prod(stored.shape)
        if count == 0:
            return torch.empty(stored.shape, dtype=stored.dtype)
        if stored.begin % stored.dtype.itemsize:
            # Files may begin their data anywhere; processors and numpy want it aligned.
            copied = bytearray(self._map[stored.begin : stored.end])
            return torch.frombuffer(copied, dtype=stored.dtype).view(stored.shape)
        flat = torch.frombuffer(self._map, dtype=stored.dtype, count=count, offset=stored.begin)
        return flat.view(stored.shape)

    def check(self, stored: StoredTensor) -> None:
        """Raises CorruptData, naming file and tensor, when a weight is not a number."""
        if stored.dtype.is_floating_point and has_nan(self.view(stored).flatten()):
            raise CorruptData(
                f"{self.path} holds NaN in {stored.name}",
                hint="the weights are damaged; copy or train the checkpoint again",
            )

    def forget(self) -> None:
        """Gives all pages back; they come again from the file when they are read."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def has_nan(flat: torch.Tensor) -> bool:
    """Whether a NaN is among [n] floats; without a temporary of their size."""
    for begin in range(0, flat.numel(), _CHECK_ELEMENTS):
        part = flat[begin : begin + _CHECK_ELEMENTS]
        # A sum is NaN when a part is; opposite infinities need the second look.
        if bool(torch.isnan(part.sum(dtype=torch.float32))) and bool(torch.isnan(part).any()):
            return True
    return False


class Weights:
    """The tensors of a checkpoint's files, each read when transformers asks for it."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._files = [MappedFile(path) for path in paths]

    def check(self) -> None:
        """Raises CorruptData naming the file when a weight is not a number."""
        for file in self._files:
            for stored in file.tensors:
                file.check(stored)
                file.forget()

    def tensors(self) -> dict[str, LazyTensor]:
        """Every tensor by its name in the file."""
        return {
            stored.name: LazyTensor(self, file, stored)
            for file in self._files
            for stored in file.tensors
        }

    def forget(self) -> None:
        """Gives back the pages of what has been copied, and harmlessly of the rest."""
        for file in self._files:
            file.forget()


@dataclass(frozen=True)
class LazyTensor:
    """What transformers takes for a slice of a safetensors file.

    Reading one drops the pages of those read before: where tensors are converted
    or merged, originals and results never add up.
    """

    weights: Weights
    file: MappedFile
    stored: StoredTensor

    def __getitem__(self, item: Any) -> torch.Tensor:
        self.weights.forget()
        view: torch.Tensor = self.file.view(self.stored)[item]
        return view

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.dtype

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.stored.shape)
