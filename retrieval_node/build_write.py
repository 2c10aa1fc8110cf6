"""Writing a segment's shard files, a few lists of rows in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.storage.blockfile import StreamedArray, write_streamed
from ragschema.storage.manifest import sync_directory
from ragschema.types import F32, I64, U8, Metric
from retrieval_node.bias import BiasEncoder
from retrieval_node.layout import ShardLayout, group_list, grouped_bytes, lane_offsets
from retrieval_node.shard_files import SHARD_KIND, IvfIndex

_CHUNK_ROWS = 65_536
_GATHER_ROWS = 16_384


@dataclass(frozen=True)
class Stored:
    """Vectors to keep beside or instead of codes.

    Attributes:
        source: float32 [n, dim] of the whole segment, mapped.
        dtype: "float16" or "float32".
    """

    source: F32
    dtype: str


def exact_arrays(layout: ShardLayout, stored: Stored) -> list[StreamedArray]:
    """A shard file whose rows are compared exactly."""
    return [_ids(layout), _vectors(layout, stored)]


def coded_arrays(
    layout: ShardLayout, index: IvfIndex, codes: U8, stored: Stored | None
) -> list[StreamedArray]:
    """A shard file of PQ codes.

    Args:
        codes: uint8 [n, m] of the whole segment, by row.
    """
    encoder = BiasEncoder(index) if index.metric is Metric.L2 else None
    if encoder is not None:
        layout = _by_bias(layout, encoder, codes)
    offsets = layout.list_offsets

    def grouped() -> Iterator[U8]:
        for _, mine in _by_list(layout, codes):
            yield group_list(mine)

    arrays = [
        StreamedArray("list_offsets", "int64", offsets.shape, lambda: (offsets,)),
        StreamedArray("codes", "uint8", (grouped_bytes(offsets, index.m),), grouped),
    ]
    if encoder is not None:
        arrays += _bias_arrays(layout, index.nlist, encoder, codes)
    arrays.append(_ids(layout))
    if stored is not None:
        arrays.append(_vectors(layout, stored))
    return arrays


def _by_bias(layout: ShardLayout, encoder: BiasEncoder, codes: U8) -> ShardLayout:
    """The same rows in the same lists, those of a list by their bias terms."""
    rows = layout.rows.copy()
    for number, mine in _by_list(layout, codes):
        low, high = layout.list_offsets[number : number + 2].tolist()
        rows[low:high] = rows[low:high][encoder.order(number, mine)]
    return ShardLayout(rows, layout.list_offsets)


def _bias_arrays(
    layout: ShardLayout, nlist: int, encoder: BiasEncoder, codes: U8
) -> list[StreamedArray]:
    affine = np.zeros((nlist, 2), dtype=np.float32)

    def terms() -> Iterator[NDArray[Any]]:
        for number, mine in _by_list(layout, codes):
            stored, affine[number] = encoder.encode(number, mine)
            yield stored

    lanes = int(lane_offsets(layout.list_offsets)[-1])
    return [
        StreamedArray("bias", "uint16", (lanes,), terms),
        # Known once the terms were written, which is before it.
        StreamedArray("bias_affine", "float32", affine.shape, lambda: (affine,)),
    ]


def _by_list(layout: ShardLayout, codes: U8) -> Iterator[tuple[int, U8]]:
    """(list, codes uint8 [rows, m]) of each list that is not empty, gathered many at once."""
    offsets = layout.list_offsets.tolist()
    filled = np.flatnonzero(np.diff(layout.list_offsets)).tolist()
    at = 0
    while at < len(filled):
        first, last = at, at + 1
        while last < len(filled) and offsets[filled[last] + 1] - offsets[filled[first]] <= (
            _CHUNK_ROWS
        ):
            last += 1
        low, high = offsets[filled[first]], offsets[filled[last - 1] + 1]
        some = codes[layout.rows[low:high]]
        for number in filled[first:last]:
            yield number, some[offsets[number] - low : offsets[number + 1] - low]
        at = last


def _ids(layout: ShardLayout) -> StreamedArray:
    return StreamedArray("ids", "uint32", layout.rows.shape, lambda: (layout.rows,))


def _vectors(layout: ShardLayout, stored: Stored) -> StreamedArray:
    def gathered() -> Iterator[NDArray[Any]]:
        rows: I64 = layout.rows
        for low in range(0, len(rows), _GATHER_ROWS):
            yield stored.source[rows[low : low + _GATHER_ROWS]].astype(stored.dtype)

    shape = (len(layout.rows), stored.source.shape[1])
    return StreamedArray("vectors", stored.dtype, shape, gathered)


def write_whole(
    path: Path, kind: str, meta: dict[str, Any], arrays: Sequence[StreamedArray]
) -> None:
    """A file that is there complete, or not at all, also after a power cut.

    Raises:
        OSError: naming the file that could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    try:
        write_streamed(draft, kind, meta, arrays)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_directory(path.parent)
    sync_directory(path.parent.parent)


def write_shard(path: Path, number: int, arrays: Sequence[StreamedArray]) -> None:
    """One shard file; see ``write_whole``."""
    write_whole(path, SHARD_KIND, {"shard": number}, arrays)
