"""Collections of any size for benchmarks: random codes, lists of equal length."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.storage import manifest as m
from ragschema.storage.blockfile import StreamedArray
from ragschema.storage.blockhead import BLOCK_BYTES, encode_head, entry_of, place
from ragschema.types import I64, U8, Metric
from retrieval_node.bias import BiasEncoder
from retrieval_node.build_train import write_index
from retrieval_node.build_write import write_shard
from retrieval_node.layout import group_list, grouped_bytes, lane_offsets
from retrieval_node.shard_files import IvfIndex, make_index


@dataclass(frozen=True)
class Synthetic:
    """What to make up.

    Attributes:
        rows: codes of the whole collection.
        m: bytes per code.
    """

    rows: int
    nlist: int = 1024
    m: int = 16
    dim: int = 128
    num_shards: int = 1
    seed: int = 1


def write_collection(directory: Path, plan: Synthetic) -> m.Manifest:
    """Commits an L2 collection without stored vectors; a few lists in memory at a time."""
    directory.mkdir(parents=True)
    index = _index(plan)
    index_path = directory / "index" / "idx-000001.rag"
    write_index(index_path, index, {"seed": plan.seed})
    folder = directory / "segments" / "seg-000001"
    paths = [folder / f"shard-{number}.rag" for number in range(plan.num_shards)]
    for number, path in enumerate(paths):
        write_shard(path, number, _Shard(plan, index, number).arrays())
    texts = folder / "texts.sqlite"
    texts.write_bytes(b"")
    refs = tuple(m.file_ref(directory, path) for path in paths)
    manifest = m.Manifest(
        format=2, collection=directory.name, generation=1, created_at="", metric=Metric.L2,
        dim=plan.dim, num_shards=plan.num_shards, embedder=None, chunking=m.ChunkingConfig(),
        index=m.IndexRef(m.file_ref(directory, index_path), plan.nlist, plan.m, 32, None),
        segments=(
            m.SegmentRef("seg-000001", 0, plan.rows, refs, m.file_ref(directory, texts)),
        ),
        tombstones=None, next_row_id=plan.rows, live_rows=plan.rows, live_documents=1,
    )  # fmt: skip
    m.commit_manifest(directory, manifest)
    return manifest


def _index(plan: Synthetic) -> IvfIndex:
    rng = np.random.default_rng(plan.seed)
    centroids = rng.standard_normal((plan.nlist, plan.dim), dtype=np.float32)
    shape = (plan.m, 256, plan.dim // plan.m)
    codebooks = np.float32(0.5) * rng.standard_normal(shape, dtype=np.float32)
    return make_index(Metric.L2, centroids, codebooks)


class _Shard:
    """One shard: every num_shards-th row of each list."""

    def __init__(self, plan: Synthetic, index: IvfIndex, number: int) -> None:
        self._plan = plan
        self._index = index
        self._number = number
        whole = np.linspace(0, plan.rows, plan.nlist + 1).astype(np.int64)
        mine = [len(range(n, int(last), plan.num_shards))
                for n, last in zip(whole[:-1] + number, whole[1:], strict=True)]  # fmt: skip
        self._starts = whole
        self.offsets: I64 = np.concatenate([[0], np.cumsum(mine)]).astype(np.int64)
        self._affine = np.zeros((plan.nlist, 2), dtype=np.float32)

    def arrays(self) -> list[StreamedArray]:
        offsets, affine = self.offsets, self._affine
        lanes = int(lane_offsets(offsets)[-1])
        return [
            StreamedArray("list_offsets", "int64", offsets.shape, lambda: (offsets,)),
            StreamedArray("codes", "uint8", (grouped_bytes(offsets, self._plan.m),), self._groups),
            StreamedArray("bias", "uint16", (lanes,), self._bias),
            StreamedArray("bias_affine", "float32", affine.shape, lambda: (affine,)),
            StreamedArray("ids", "uint32", (int(offsets[-1]),), self._ids),
        ]

    def _codes(self) -> Iterator[tuple[int, U8]]:
        for number, rows in enumerate(np.diff(self.offsets).tolist()):
            rng = np.random.default_rng([self._plan.seed, self._number, number])
            if rows:
                yield number, rng.integers(0, 256, (rows, self._plan.m), dtype=np.uint8)

    def _groups(self) -> Iterator[U8]:
        for _, codes in self._codes():
            yield group_list(codes)

    def _bias(self) -> Iterator[NDArray[np.uint16]]:
        encoder = BiasEncoder(self._index)
        for number, codes in self._codes():
            stored, self._affine[number] = encoder.encode(number, codes)
            yield stored

    def _ids(self) -> Iterator[NDArray[np.int64]]:
        for number in range(self._plan.nlist):
            first, last = self._starts[number : number + 2].tolist()
            yield np.arange(first + self._number, last, self._plan.num_shards)


def write_sparse_shard(path: Path, rows: int, nlist: int, m: int) -> None:
    """A shard whose codes, bias terms and ids are all zero: a sparse file, made at once."""
    offsets = np.linspace(0, rows, nlist + 1).astype(np.int64)
    lanes = int(lane_offsets(offsets)[-1])
    affine = np.ones((nlist, 2), dtype=np.float32)
    given: dict[str, NDArray[Any]] = {"list_offsets": offsets, "bias_affine": affine}
    shapes = {
        "codes": ("uint8", (grouped_bytes(offsets, m),)),
        "bias": ("uint16", (lanes,)),
        "ids": ("uint32", (rows,)),
    }
    entries = [entry_of(name, a.dtype, a.shape) for name, a in given.items()]
    entries += [entry_of(name, np.dtype(dtype), shape) for name, (dtype, shape) in shapes.items()]
    head = place("shard", {}, entries)
    # Blocks that hold something, then zeros to the end.
    filled = -(-(head.entries[len(given) - 1].stop - head.first) // BLOCK_BYTES)
    first = bytearray(filled * BLOCK_BYTES)
    for entry in head.entries[: len(given)]:
        at = entry.offset - head.first
        first[at : at + entry.bytes] = given[entry.name].tobytes()
    crcs = np.full(len(head.crcs), zlib.crc32(bytes(BLOCK_BYTES)), dtype=np.uint32)
    for block in range(filled):
        crcs[block] = zlib.crc32(first[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES])
    crcs[-1] = zlib.crc32(bytes((head.file_bytes - head.first) % BLOCK_BYTES or BLOCK_BYTES))
    with path.open("wb") as out:
        out.write(encode_head(replace(head, crcs=crcs)))
        out.write(first)
        out.truncate(head.file_bytes)
