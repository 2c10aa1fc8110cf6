"""Lists and PQ codes of many vectors: streamed, by several threads, resumable."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import faiss
import numpy as np

from ragschema.types import F32, I64, U8
from retrieval_node import training
from retrieval_node.encode_scratch import EncodeScratch, Shape
from retrieval_node.shard_files import IvfIndex

#: Called with (phase, done, total).
Progress = Callable[[str, int, int], None]

BLOCK_ROWS = 16_384


class Encoder:
    """Assigns vectors to lists and encodes them. Safe to use from several threads."""

    def __init__(self, index: IvfIndex) -> None:
        self._index = index
        self._encode = training.encoder(index.codebooks)

    def __call__(self, vectors: F32) -> tuple[I64, U8]:
        """The list of each vector, int64 [n], and its code, uint8 [n, m].

        Args:
            vectors: float32 [n, input dim].
        """
        turned = self._index.rotate(vectors)
        lists = training.assign(turned, self._index.centroids, self._index.metric)
        if not self._index.residual:
            return lists, self._encode(turned)
        return lists, self._encode(turned - self._index.centroids[lists])


def encode_all(
    vectors: F32, index: IvfIndex, folder: Path, threads: int, progress: Progress
) -> EncodeScratch:
    """Encodes every vector into a scratch folder, going on where a killed run stopped.

    Args:
        vectors: float32 [n, input dim], mapped; read block by block.
        threads: blocks encoded at once.

    Raises:
        OSError: naming the file that could not be written.
    """
    n = len(vectors)
    shape = Shape(fingerprint(index), n, index.m, BLOCK_ROWS)
    scratch = EncodeScratch(folder, shape)
    encoder = Encoder(index)

    def work(block: int) -> int:
        rows = np.array(vectors[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS])
        crc = zlib.crc32(rows.data)
        if not scratch.has(block, crc):
            lists, codes = encoder(rows)
            scratch.put(block, crc, lists.astype(np.int32), codes)
        return len(rows)

    progress("encode", 0, n)
    done = 0
    # Each thread works on a block of its own: faiss itself is to start none.
    with ThreadPoolExecutor(
        threads, "encode", initializer=faiss.omp_set_num_threads, initargs=(1,)
    ) as pool:
        waiting: set[Future[int]] = set()
        for block in range(-(-n // BLOCK_ROWS)):
            if len(waiting) > threads:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                done += sum(future.result() for future in ready)
                progress("encode", done, n)
            waiting.add(pool.submit(work, block))
        for future in waiting:
            done += future.result()
            progress("encode", done, n)
    return scratch


def fingerprint(index: IvfIndex) -> str:
    """Of everything that codes depend on."""
    body = hashlib.blake2b(digest_size=16)
    body.update(f"{index.metric}/{index.residual}".encode("ascii"))
    for array in (index.centroids, index.codebooks, index.rotation, index.offset):
        body.update(b"-" if array is None else str(array.shape).encode("ascii"))
        if array is not None:
            body.update(np.ascontiguousarray(array).data)
    return body.hexdigest()
