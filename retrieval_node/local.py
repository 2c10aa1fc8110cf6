"""A collection searched inside this process: for benches, tests and tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragschema.errors import IncompatibleRequest
from ragschema.storage.blockfile import VERIFY_UP_TO_BYTES
from ragschema.storage.manifest import Manifest, read_manifest
from ragschema.types import F32, I32, SearchBatch, SearchResult
from retrieval_node.backends.base import Backend, Candidates
from retrieval_node.backends.registry import open_backend
from retrieval_node.checks import MAX_K
from retrieval_node.engine import SearchEngine, contiguous, scan_request
from retrieval_node.exact import ExactRequest, search_exact
from retrieval_node.native.loader import native
from retrieval_node.probe import nearest_lists
from retrieval_node.shard import ShardReader, ShardSet


class LocalSearcher:
    """The committed state of a collection behind one backend.

    Args:
        directory: the collection's directory.
        backend: a name for the registry, or an opened backend.
        shards: which shards to hold; None for all.
        mode: of the simd backend.
        verify_up_to_bytes: see ``ShardReader``.

    Raises:
        NotFound: nothing was committed there.
        CorruptData: naming the file at fault.
    """

    def __init__(
        self,
        directory: Path,
        backend: str | Backend = "simd",
        shards: tuple[int, ...] | None = None,
        threads: int = 1,
        mode: str = "fast",
        verify_up_to_bytes: int = VERIFY_UP_TO_BYTES,
    ) -> None:
        self.manifest: Manifest = read_manifest(directory)
        opened = (
            open_backend(backend, threads=threads, mode=mode)
            if isinstance(backend, str)
            else backend
        )
        self._engine = SearchEngine(opened)
        chosen = tuple(range(self.manifest.num_shards)) if shards is None else shards
        self.shard_set: ShardSet = ShardReader(verify_up_to_bytes=verify_up_to_bytes).open(
            directory, self.manifest, chosen
        )
        self._engine.load(self.shard_set)
        self._shards = tuple(self.shard_set.shards)
        module = native()
        self._pool: Any | None = opened.pool
        if self._pool is None and module is not None:
            self._pool = module.Pool(threads)

    def batch(
        self, queries: F32, k: int, nprobe: int | None = None, refine: bool = True
    ) -> SearchBatch:
        """A batch over all held shards with the collection's own settings.

        Args:
            queries: float32 [n, dim], unit length where the metric is cosine.
            nprobe: lists to scan, None for the collection's own number.
            refine: rescore with stored vectors, where the collection does.
        """
        ref = self.manifest.index
        return SearchBatch(
            snapshot=self.shard_set.snapshot,
            shards=tuple(self.shard_set.shards),
            queries=queries,
            list_ids=None if ref is None else self.probe(queries, nprobe or ref.nprobe),
            k=k,
            refine_k=self._refine_k(k, refine),
        )

    def _refine_k(self, k: int, refine: bool) -> int | None:
        ref = self.manifest.index
        if ref is None or ref.refine_factor is None or not refine:
            return None
        return min(MAX_K, ref.refine_factor * k)

    def probe(self, queries: F32, nprobe: int) -> I32:
        """The nearest lists; IncompatibleRequest for an exact collection."""
        index = self.shard_set.index
        if index is None:
            raise IncompatibleRequest("an exact collection has no lists", field="nprobe")
        return self._nearest(index.rotate(contiguous(queries)), nprobe)

    def _nearest(self, rotated: F32, nprobe: int) -> I32:
        index = self.shard_set.index
        assert index is not None, "asked for lists of an exact collection"
        if index.handle is None or self._pool is None:
            return nearest_lists(rotated, index.centroids, self.manifest.metric, nprobe)
        lists: I32 = index.handle.coarse(rotated, nprobe, self._pool)
        return lists

    def find(
        self, queries: F32, k: int, nprobe: int | None = None, refine: bool = True
    ) -> Candidates:
        """``search(batch(...))`` with less around it: nothing is checked.

        Args:
            queries: float32 [n, dim], finite, C-contiguous.
        """
        ref = self.manifest.index
        if ref is None:
            segments = [s for shard in self.shard_set.shards.values() for s in shard.segments]
            exact = ExactRequest(queries, k, self.manifest.metric, self.shard_set.live)
            return search_exact(segments, exact, self._pool)
        request = scan_request(
            self.shard_set,
            self._shards,
            queries,
            lambda rotated: self._nearest(rotated, nprobe or ref.nprobe),
            k=k,
            refine_k=self._refine_k(k, refine),
        )
        return self._engine.find(self.shard_set, request)[0]

    def search(self, batch: SearchBatch) -> SearchResult:
        """Searches in the calling thread; see ``SearchEngine.search``."""
        return self._engine.search(self.shard_set, batch)

    def close(self) -> None:
        self._engine.backend.close()
