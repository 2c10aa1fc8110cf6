"""One segment's share of one shard: mapped arrays, checked as far as kernels trust them.

Offsets and sizes are checked on opening. Row ids, codes, bias terms and vectors
are not read then: their blocks are verified when they are first touched, by the
native code through its guard, by Python through ``SegmentRows.file``.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragschema.storage.blockfile import VERIFY_UP_TO_BYTES, MappedBlockFile, map_blockfile
from ragschema.storage.blockhead import corrupt
from ragschema.storage.manifest import FileRef, SegmentRef, verify_file
from ragschema.types import F32, I64, U8, Metric
from retrieval_node.layout import lane_offsets, ungroup_codes
from retrieval_node.native.loader import native
from retrieval_node.shard_files import SHARD_KIND, IvfIndex, check_array

#: map: the file's pages, shared with other processes and read as they are needed.
#: huge: codes, bias terms and ids copied into huge pages and verified while opening.
Memory = Literal["map", "huge"]

#: What scans of a file at most this large read is fetched in the background.
_FETCH_UP_TO_BYTES = 256 << 20
_COPY_BYTES = 4 << 20
_SCANNED = ("codes", "bias", "ids")

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]


class SoundMemory:
    """Stands for the file of rows that were never on disk: there is nothing to verify."""

    sound = True

    def ensure(self, start: int, stop: int) -> None:
        """See ``MappedBlockFile.ensure``."""

    def ensure_array(self, name: str) -> None:
        """See ``MappedBlockFile.ensure_array``."""

    def verify_all(self) -> None:
        """See ``MappedBlockFile.verify_all``."""


@dataclass(frozen=True, eq=False)
class SegmentRows:
    """One segment's share of one shard; deleted rows included.

    Attributes:
        path: the shard file.
        row_start: first row id of the segment.
        row_count: rows of the segment, over all shards.
        ids: uint32 [n], row id minus row_start; of a list by bias where there is one, else
            ascending.
        list_offsets: int64 [nlist + 1] in rows; [0, n] when exact.
        codes: uint8, grouped (``layout``); None when exact.
        bias: uint16 [padded rows], l2 only (``bias``).
        bias_affine: float32 [nlist, 2], base and step of each list, l2 only.
        vectors: float32 or float16 [n, input dim], or None.
        file: verifies ids, codes, bias and vectors before Python reads them.
        handle: native.Segment, which verifies by itself; None without the extension.
    """

    path: Path
    row_start: int
    row_count: int
    ids: U32
    list_offsets: I64
    codes: U8 | None
    bias: U16 | None
    bias_affine: F32 | None
    vectors: NDArray[Any] | None
    file: MappedBlockFile | SoundMemory
    handle: Any | None

    @property
    def exact(self) -> bool:
        """Whether there are no codes: rows are compared by their vectors."""
        return self.codes is None

    @property
    def resident_bytes(self) -> int:
        """Bytes of its arrays, mapped or copied; of mapped ones the kernel keeps what it can."""
        arrays = (self.ids, self.list_offsets, self.codes, self.bias, self.bias_affine,
                  self.vectors)  # fmt: skip
        return sum(a.nbytes for a in arrays if a is not None)

    def row_ids(self) -> I64:
        """Row ids, verified: int64 [n].

        Raises:
            CorruptData: the file is not what was written.
        """
        self.file.ensure_array("ids")
        if len(self.ids) and int(self.ids.max()) >= self.row_count:
            raise corrupt(self.path, f"holds row ids beyond its {self.row_count} rows")
        return self.ids.astype(np.int64) + self.row_start

    def row_codes(self) -> U8:
        """PQ codes, verified, in the order of ``row_ids``: uint8 [n, m], a copy.

        Raises:
            CorruptData: the file is not what was written.
        """
        assert self.codes is not None, "an exact segment has no codes"
        self.file.ensure_array("codes")
        lanes = int(lane_offsets(self.list_offsets)[-1])
        return ungroup_codes(self.codes, self.list_offsets, len(self.codes) // max(1, lanes))


@dataclass(frozen=True)
class SegmentFile:
    """A shard file to open, and what the manifest says about it.

    Attributes:
        nlist, m: of the collection's index; None while it is exact.
        dim: of the stored vectors.
        vectors_wanted: the collection refines; coded rows must have vectors.
    """

    ref: FileRef
    row_start: int
    row_count: int
    metric: Metric
    dim: int
    nlist: int | None
    m: int | None
    vectors_wanted: bool

    @staticmethod
    def of(ref: FileRef, segment: SegmentRef, metric: Metric, dim: int,
           index: IvfIndex | None, vectors_wanted: bool) -> SegmentFile:  # fmt: skip
        nlist, m = (None, None) if index is None else (index.nlist, index.m)
        return SegmentFile(
            ref, segment.row_start, segment.row_count, metric, dim, nlist, m, vectors_wanted
        )


def open_segment(
    directory: Path, wanted: SegmentFile, index: IvfIndex | None, memory: Memory = "map",
    verify_up_to_bytes: int = VERIFY_UP_TO_BYTES,
) -> SegmentRows:  # fmt: skip
    """Maps a shard file and checks everything but the blocks of its large arrays.

    Args:
        directory: of the collection.
        verify_up_to_bytes: smaller files are verified whole.

    Raises:
        CorruptData: naming the file that is wrong.
    """
    path = verify_file(directory, wanted.ref)
    file = map_blockfile(path, SHARD_KIND, verify_up_to_bytes)
    arrays = dict(file.arrays)
    ids = check_array(path, arrays, "ids", ("uint32",), (None,))
    if len(ids) > wanted.row_count:
        raise corrupt(path, f"holds {len(ids)} rows of a segment of {wanted.row_count}")
    vectors = _checked_vectors(path, arrays, wanted, len(ids))
    if "list_offsets" not in arrays:
        if arrays.keys() != {"ids", "vectors"}:
            raise corrupt(path, f"holds {sorted(arrays)}, which make up no segment")
        offsets = np.array([0, len(ids)], dtype=np.int64)
        return _with_handle(path, wanted, offsets, arrays | {"codes": None}, file, None)
    offsets = _checked_codes(file, arrays, wanted)
    if memory == "huge":
        arrays.update(_copied(file))
    elif file.data.nbytes <= _FETCH_UP_TO_BYTES:
        for name in _SCANNED:
            if name in arrays:
                file.will_need(name)
    if vectors is not None:
        file.at_random("vectors")
    return _with_handle(path, wanted, offsets, arrays, file, index)


def _checked_vectors(
    path: Path, arrays: Mapping[str, NDArray[Any]], wanted: SegmentFile, rows: int
) -> NDArray[Any] | None:
    if "vectors" not in arrays and not wanted.vectors_wanted:
        return None
    shape = (rows, wanted.dim)
    return check_array(path, arrays, "vectors", ("float32", "float16"), shape)


def _checked_codes(
    file: MappedBlockFile, arrays: Mapping[str, NDArray[Any]], wanted: SegmentFile
) -> I64:
    """The list offsets; codes and bias terms have the sizes that follow from them."""
    path, rows = file.path, len(arrays["ids"])
    if wanted.nlist is None or wanted.m is None:
        raise corrupt(path, "holds lists, but the collection has no index")
    known = {"ids", "list_offsets", "codes", "bias", "bias_affine", "vectors"}
    if arrays.keys() - known:
        raise corrupt(path, f"holds unknown arrays {sorted(arrays.keys() - known)}")
    offsets = check_array(path, arrays, "list_offsets", ("int64",), (wanted.nlist + 1,))
    file.ensure_array("list_offsets")
    ascend = bool((offsets[1:] >= offsets[:-1]).all())
    if offsets[0] != 0 or offsets[-1] != rows or not ascend:
        raise corrupt(path, f"list_offsets do not ascend from 0 to {rows}")
    lanes = int(lane_offsets(offsets)[-1])
    check_array(path, arrays, "codes", ("uint8",), (lanes * wanted.m,))
    if wanted.metric is Metric.L2:
        check_array(path, arrays, "bias", ("uint16",), (lanes,))
        affine = check_array(path, arrays, "bias_affine", ("float32",), (wanted.nlist, 2))
        file.ensure_array("bias_affine")
        # Squares of components: larger than any component may be.
        if not (np.isfinite(affine).all() and (affine[:, 1] >= 0).all()):
            raise corrupt(path, "bias_affine holds what is no base and step")
    elif "bias" in arrays or "bias_affine" in arrays:
        raise corrupt(path, f"holds bias terms, which {wanted.metric} has not")
    return offsets


def _copied(file: MappedBlockFile) -> dict[str, NDArray[Any]]:
    """What a scan reads, verified and copied into memory of huge pages where there are any."""
    names = [name for name in _SCANNED if name in file.arrays]
    sizes = [-(-file.arrays[name].nbytes // 64) * 64 for name in names]
    memory, found, at = _huge(sum(sizes)), {}, 0
    for name, size in zip(names, sizes, strict=True):
        source = file.arrays[name]
        start, stop = file.span(name)
        for low in range(start, stop, _COPY_BYTES):
            high = min(stop, low + _COPY_BYTES)
            file.ensure(low, high)
            memory[at + low - start : at + high - start] = file.data[low:high]
        found[name] = memory[at : at + source.nbytes].view(source.dtype)
        file.forget(name)
        at += size
    return found


def _huge(nbytes: int) -> U8:
    """Fresh memory, of huge pages where there are any: uint8 [nbytes or more], aligned."""
    block = mmap.mmap(-1, max(1, nbytes))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(block, dtype=np.uint8)


def _placed(array: NDArray[Any] | None) -> Any:
    """A copy that lies as arrays of a file do: kernels read whole cache lines."""
    if array is None:
        return None
    copy = _huge(array.nbytes)[: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _with_handle(
    path: Path, wanted: SegmentFile, offsets: I64, arrays: Mapping[str, NDArray[Any] | None],
    file: MappedBlockFile, index: IvfIndex | None,
) -> SegmentRows:  # fmt: skip
    ids = arrays["ids"]
    assert ids is not None, "checked before"
    codes, bias, affine = arrays["codes"], arrays.get("bias"), arrays.get("bias_affine")
    vectors = arrays.get("vectors")
    module, handle = native(), None
    if module is not None:
        guard = None if file.sound else module.Guard(*file.guard_arguments)
        try:
            handle = module.Segment(
                None if index is None else index.handle, offsets, codes, bias, affine, ids,
                wanted.row_start, wanted.row_count, vectors, guard,
            )  # fmt: skip
        except ValueError as error:  # it checks more than we do
            raise corrupt(path, str(error)) from error
    return SegmentRows(
        path, wanted.row_start, wanted.row_count, ids, offsets, codes, bias, affine, vectors,
        file, handle,
    )  # fmt: skip


def segment_in_memory(
    index: IvfIndex | None, list_offsets: I64, ids: U32, codes: U8 | None, bias: U16 | None,
    bias_affine: F32 | None, vectors: NDArray[Any] | None, row_count: int,
) -> SegmentRows:  # fmt: skip
    """Rows that were never on disk, from row id 0; for measuring. See ``SegmentRows``.

    The large arrays are copied, to lie as ``memory: huge`` places those of a file.
    """
    ids, codes, bias, vectors = _placed(ids), _placed(codes), _placed(bias), _placed(vectors)
    module, handle = native(), None
    if module is not None:
        handle = module.Segment(
            None if index is None else index.handle, list_offsets, codes, bias, bias_affine, ids,
            0, row_count, vectors, None,
        )  # fmt: skip
    return SegmentRows(
        Path("memory"), 0, row_count, ids, list_offsets, codes, bias, bias_affine, vectors,
        SoundMemory(), handle,
    )  # fmt: skip
