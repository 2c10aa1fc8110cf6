"""Which snapshots this node holds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ragschema.errors import InvalidInput, NotFound, Overloaded
from ragschema.storage.manifest import collection_dir, read_manifest
from ragschema.types import SnapshotId
from retrieval_node.engine import SearchEngine
from retrieval_node.shard import Memory, ShardReader, ShardSet

_MAX_SNAPSHOTS = 1024


class LoadedSnapshots:
    """Snapshots by id. Loading blocks and belongs in a thread; looking up does not.

    Args:
        data_dir: collections lie in ``<data_dir>/collections``.
        memory: see ``ShardReader``.
    """

    def __init__(self, data_dir: Path, engine: SearchEngine, memory: Memory = "map") -> None:
        self._data_dir = data_dir
        self._engine = engine
        self._reader = ShardReader(memory)
        self._loading = threading.Lock()
        self._held: dict[SnapshotId, ShardSet] = {}

    def load(self, snapshot: SnapshotId, shards: Sequence[int]) -> ShardSet:
        """Opens shards beside those that are loaded already, which stay.

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

    def unload(self, snapshot: SnapshotId, shards: Sequence[int] | None = None) -> bool:
        """Forgets a snapshot, or some shards of it; searches under way finish.

        A shard moves to another node when that one loads it first and this one
        unloads it then: both can serve it meanwhile.

        Args:
            shards: None for all; those that are not loaded are no error.

        Returns:
            Whether any of it was loaded.
        """
        with self._loading:
            held = self._held.get(snapshot)
            if held is None:
                return False
            gone = set(held.shards if shards is None else shards)
            kept = {number: shard for number, shard in held.shards.items() if number not in gone}
            if len(kept) == len(held.shards):
                return False
            if kept:
                fewer = replace(held, shards=kept)
                self._engine.load(fewer)
                self._held[snapshot] = fewer
            else:
                del self._held[snapshot]
            return True

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
