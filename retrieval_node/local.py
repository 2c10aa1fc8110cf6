"""A collection searched inside this process: for benches, tests and tools."""

from __future__ import annotations

from pathlib import Path

from ragschema.errors import IncompatibleRequest
from ragschema.storage.manifest import Manifest, read_manifest
from ragschema.types import F32, I32, SearchBatch, SearchResult
from retrieval_node.backends.base import Backend
from retrieval_node.backends.registry import open_backend
from retrieval_node.engine import SearchEngine
from retrieval_node.probe import nearest_lists
from retrieval_node.shard import ShardReader, ShardSet


class LocalSearcher:
    """The committed state of a collection behind one backend.

    Args:
        directory: the collection's directory.
        backend: a name for the registry, or an opened backend.
        shards: which shards to hold; None for all.

    Raises:
        NotFound: nothing was committed there.
        CorruptData: naming the file at fault.
    """

    def __init__(
        self,
        directory: Path,
        backend: str | Backend = "fpga",
        shards: tuple[int, ...] | None = None,
        threads: int = 1,
    ) -> None:
        self.manifest: Manifest = read_manifest(directory)
        opened = open_backend(backend, threads=threads) if isinstance(backend, str) else backend
        self._engine = SearchEngine(opened)
        chosen = tuple(range(self.manifest.num_shards)) if shards is None else shards
        self.shard_set: ShardSet = ShardReader().open(directory, self.manifest, chosen)
        self._engine.load(self.shard_set)

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
        refine_k = None
        if ref is not None and ref.refine_factor is not None and refine:
            refine_k = min(4096, ref.refine_factor * k)
        return SearchBatch(
            snapshot=self.shard_set.snapshot,
            shards=tuple(self.shard_set.shards),
            queries=queries,
            list_ids=None if ref is None else self.probe(queries, nprobe or ref.nprobe),
            k=k,
            refine_k=refine_k,
        )

    def probe(self, queries: F32, nprobe: int) -> I32:
        """The nearest lists; IncompatibleRequest for an exact collection."""
        index = self.shard_set.index
        if index is None:
            raise IncompatibleRequest("an exact collection has no lists", field="nprobe")
        return nearest_lists(queries, index.centroids, self.manifest.metric, nprobe)

    def search(self, batch: SearchBatch) -> SearchResult:
        """Searches in the calling thread; see ``SearchEngine.search``."""
        return self._engine.search(self.shard_set, batch)

    def close(self) -> None:
        self._engine.backend.close()
