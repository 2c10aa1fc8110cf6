"""The collections of a data directory: list, create, drop, delete documents."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from coordinator.collections.commit import commit, utc_now
from coordinator.collections.lock import WriterLock
from coordinator.collections.snapshot import Snapshot
from coordinator.collections.tombstones import write_tombstones
from ragschema.errors import Conflict, CorruptData, InvalidInput, NotFound, RagrigError, Unavailable
from ragschema.storage.manifest import (
    COLLECTION_NAME,
    MANIFEST_NAME,
    ChunkingConfig,
    EmbedderRef,
    Manifest,
    collection_dir,
    read_manifest,
    sync_directory,
)
from ragschema.types import Metric

_TRASH_PREFIX = ".trash-"
_FULL_ERRNOS = frozenset({27, 28, 122})  # EFBIG, ENOSPC, EDQUOT


@dataclass(frozen=True)
class CollectionSpec:
    """What a new collection is to hold.

    Attributes:
        dim: length of its vectors.
        num_shards: parts its rows are spread over.
        embedder: the model of its vectors; None: set by the first ingestion.
        recall: what its searches shall reach; None: what its index is set to.
    """

    dim: int
    metric: Metric
    num_shards: int
    embedder: EmbedderRef | None
    chunking: ChunkingConfig = field(default_factory=ChunkingConfig)
    recall: float | None = None


def storage_error(error: OSError, what: str) -> RagrigError:
    """The typed error for a failed write: a full disk, or a folder we may not use."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL_ERRNOS:
        return Unavailable(
            f"{what}: no space left to write{where}",
            field="data_dir",
            hint="free disk space or raise the limit, then run it again; nothing was lost",
        )
    return InvalidInput(
        f"{what}: {error.strerror or error}{where}",
        field="data_dir",
        hint="check that the data directory exists and that you may write there",
    )


class CollectionStore:
    """Collections below ``<data_dir>/collections``. Safe to use from several threads."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._root = data_dir / "collections"
        self._known: dict[str, tuple[tuple[int, int, int], int]] = {}
        self._guard = threading.Lock()

    def names(self) -> list[str]:
        """Committed collections, sorted."""
        try:
            entries = list(self._root.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            e.name
            for e in entries
            if COLLECTION_NAME.match(e.name) and (e / MANIFEST_NAME).is_file()
        )

    def directory(self, name: str) -> Path:
        """Where the collection lives, whether it exists or not."""
        return collection_dir(self.data_dir, name)

    def lock(self, name: str) -> WriterLock:
        """The writer's lock; entering it raises Conflict when somebody holds it."""
        return WriterLock(self.data_dir, name)

    def generation(self, name: str) -> int | None:
        """The committed generation; None when there is no such collection.

        Costs one stat while the manifest is unchanged.

        Raises:
            CorruptData: the manifest is not what was written.
        """
        directory = self.directory(name)
        try:
            stat = os.stat(directory / MANIFEST_NAME)
        except (FileNotFoundError, NotADirectoryError):
            with self._guard:
                self._known.pop(name, None)
            return None
        mark = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        with self._guard:
            known = self._known.get(name)
        if known is not None and known[0] == mark:
            return known[1]
        try:
            generation = read_manifest(directory).generation
        except NotFound:
            return None
        with self._guard:
            self._known[name] = (mark, generation)
        return generation

    def create(self, name: str, spec: CollectionSpec) -> Manifest:
        """Commits an empty collection.

        Raises:
            Conflict: it exists, or somebody is changing it.
        """
        directory = self.directory(name)
        with self._writing(name):
            self._sweep_trash()
            manifest = empty_manifest(name, spec, self.first_generation(name))
            if (directory / MANIFEST_NAME).exists():
                raise Conflict(
                    f"collection {name!r} exists already",
                    field="name",
                    hint="drop it first, or choose another name",
                )
            directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self._root)
            commit(directory, manifest, None)
        return manifest

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """The empty folder of a new collection, under the writer lock.

        What the block leaves uncommitted when it fails is removed.

        Raises:
            Conflict: the collection exists, or somebody is making it.
            Unavailable: the disk is full, or the folder may not be used.
        """
        directory = self.directory(name)
        try:
            with self.lock(name):
                if (directory / MANIFEST_NAME).exists():
                    raise Conflict(
                        f"collection {name!r} exists already",
                        field="name",
                        hint="choose another with --name, or drop it first",
                    )
                # What a run left that was killed.
                shutil.rmtree(directory, ignore_errors=True)
                try:
                    yield directory
                except BaseException:
                    shutil.rmtree(directory, ignore_errors=True)
                    raise
        except OSError as error:
            raise storage_error(error, f"cannot write collection {name!r}") from error

    def drop(self, name: str) -> None:
        """Removes a collection; readers that have it open keep what they opened.

        Raises:
            NotFound: there is no such collection.
            Conflict: somebody is changing it.
        """
        directory = self.directory(name)
        with self._writing(name):
            if not (directory / MANIFEST_NAME).exists():
                read_manifest(directory)  # raises NotFound with the usual words
            self._remember_generation(name)
            # One rename takes it out of sight; a crash later leaves only trash.
            os.rename(directory, self._root / f"{_TRASH_PREFIX}{name}-{secrets.token_hex(4)}")
            sync_directory(self._root)
            self._sweep_trash()

    def delete_documents(self, name: str, document_ids: Sequence[str]) -> Manifest:
        """Makes documents unretrievable at once, all of them or none.

        Raises:
            NotFound: the collection, or the first id it does not hold.
            Conflict: somebody is changing the collection.
        """
        directory = self.directory(name)
        if self.generation(name) is None:
            read_manifest(directory)
        with (
            self._writing(name),
            contextlib.closing(Snapshot.open(directory, shards=False)) as snapshot,
        ):
            rows = []
            wanted = dict.fromkeys(document_ids)
            for document_id in wanted:
                snapshot.document(document_id)
                stored = snapshot.stored_document(document_id)
                assert stored is not None, "the line above raises for unknown ids"
                rows.append(np.arange(stored.first_row, stored.first_row + stored.chunks))
            if not rows:
                return snapshot.manifest
            old = snapshot.manifest
            deleted = np.union1d(snapshot.deleted, np.concatenate(rows))
            manifest = replace(
                old,
                generation=old.generation + 1,
                created_at=utc_now(),
                tombstones=write_tombstones(directory, old.generation + 1, deleted),
                live_rows=old.next_row_id - len(deleted),
                live_documents=old.live_documents - len(wanted),
            )
            commit(directory, manifest, old)
        return manifest

    def set_recall(self, name: str, recall: float | None) -> Manifest:
        """Commits what searches shall reach; None: what the index is set to.

        Raises:
            NotFound: there is no such collection.
            Conflict: somebody is changing it.
        """
        directory = self.directory(name)
        if self.generation(name) is None:
            read_manifest(directory)
        with self._writing(name):
            old = read_manifest(directory)
            if old.recall == recall:
                return old
            manifest = replace(
                old, generation=old.generation + 1, created_at=utc_now(), recall=recall
            )
            commit(directory, manifest, old)
        return manifest

    def first_generation(self, name: str) -> int:
        """What a new collection counts from.

        It goes on where a dropped one of the same name ended, so that a snapshot
        id never stands for two different states.
        """
        try:
            return int(self._last_generation_file(name).read_text(encoding="ascii")) + 1
        except (FileNotFoundError, ValueError):
            return 1

    def _remember_generation(self, name: str) -> None:
        path = self._last_generation_file(name)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            last = read_manifest(self.directory(name)).generation
        except CorruptData:
            # A broken collection can be dropped too; no reader has it open.
            last = self.first_generation(name)
        draft.write_text(str(last), encoding="ascii")
        os.replace(draft, path)

    def _last_generation_file(self, name: str) -> Path:
        return self._root / ".locks" / f"{name}.generation"

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            with self.lock(name):
                yield
        except OSError as error:
            raise storage_error(error, f"cannot change collection {name!r}") from error

    def _sweep_trash(self) -> None:
        for leftover in self._root.glob(f"{_TRASH_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def empty_manifest(name: str, spec: CollectionSpec, generation: int) -> Manifest:
    """A collection without rows."""
    return Manifest(
        format=2,
        collection=name,
        generation=generation,
        created_at=utc_now(),
        metric=spec.metric,
        dim=spec.dim,
        num_shards=spec.num_shards,
        embedder=spec.embedder,
        chunking=spec.chunking,
        index=None,
        segments=(),
        tombstones=None,
        next_row_id=0,
        live_rows=0,
        live_documents=0,
        recall=spec.recall,
    )
