"""Which snapshots this node holds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from ragschema.errors import InvalidInput, NotFound, Overloaded
from ragschema.storage.manifest import collection_dir, read_manifest
from ragschema.types import SnapshotId
from retrieval_node.engine import SearchEngine
from retrieval_node.shard import ShardReader, ShardSet

_MAX_SNAPSHOTS = 1024


class LoadedSnapshots:
    """Snapshots by id. Loading blocks and belongs in a thread; looking up does not.

    Args:
        data_dir: collections lie in ``<data_dir>/collections``.
    """

    def __init__(self, data_dir: Path, engine: SearchEngine) -> None:
        self._data_dir = data_dir
        self._engine = engine
        self._reader = ShardReader()
        self._loading = threading.Lock()
        self._held: dict[SnapshotId, ShardSet] = {}

    def load(self, snapshot: SnapshotId, shards: Sequence[int]) -> ShardSet:
        """Loads and verifies shards; those already loaded stay.

        Raises:
            NotFound: no such collection, or another generation is committed.
            CorruptData: naming the file at fault; nothing is changed then.
            InvalidInput: a shard or name that cannot be.
        """
        directory = collection_dir(self._data_dir, snapshot.collection)
        if not shards:
            raise InvalidInput("no shard is named", field="shards", hint="name at least one")
        with self._loading:
            held = self._held.get(snapshot)
            have: set[int] = set() if held is None else set(held.shards)
            if held is not None and have.issuperset(shards):
                return held
            if len(self._held) >= _MAX_SNAPSHOTS:
                raise Overloaded(f"{_MAX_SNAPSHOTS} snapshots are loaded", hint="unload some")
            manifest = read_manifest(directory)
            if (manifest.collection, manifest.generation) != (
                snapshot.collection, snapshot.generation,
            ):  # fmt: skip
                raise NotFound(
                    f"{snapshot.collection!r} has generation {manifest.generation},"
                    f" not {snapshot.generation}",
                    field="snapshot.generation",
                    hint="load the committed generation",
                )
            loaded = self._reader.open(directory, manifest, sorted(have.union(shards)))
            self._engine.load(loaded)
            self._held[snapshot] = loaded
            return loaded

    def unload(self, snapshot: SnapshotId) -> bool:
        """Forgets a snapshot; searches under way finish. False: it was not loaded."""
        return self._held.pop(snapshot, None) is not None

    def get(self, snapshot: SnapshotId) -> ShardSet:
        """A loaded snapshot; NotFound when it is not."""
        found = self._held.get(snapshot)
        if found is None:
            raise NotFound(
                f"generation {snapshot.generation} of {snapshot.collection!r} is not loaded",
                field="snapshot",
                hint="call LoadShards first",
            )
        return found

    def all(self) -> tuple[ShardSet, ...]:
        """Everything that is loaded, by name and generation."""
        held = list(self._held.values())
        return tuple(sorted(held, key=lambda s: (s.snapshot.collection, s.snapshot.generation)))
