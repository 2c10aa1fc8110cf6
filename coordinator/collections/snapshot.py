"""One committed state of a collection, opened for reading."""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coordinator.collections import filters
from coordinator.collections.cache import WeightedLru
from coordinator.collections.texts import StoredChunk, StoredDocument, TextsFile
from coordinator.collections.tombstones import live_bitmap, read_tombstones
from coordinator.types import Chunk, FilterScalar, FilterTerm
from ragschema.errors import CorruptData, NotFound
from ragschema.storage.blockfile import VERIFY_UP_TO_BYTES, map_blockfile
from ragschema.storage.index_arrays import IndexArrays, read_index_arrays
from ragschema.storage.manifest import Manifest, SegmentRef, read_manifest, verify_file
from ragschema.types import F32, I64, U8, SnapshotId

_CHUNK_CACHE_BYTES = 16 << 20
_BITMAP_CACHE_BYTES = 64 << 20
#: What an entry costs beside its text, so that tiny texts are counted too.
_ENTRY_BYTES = 600


@dataclass(frozen=True)
class DocumentInfo:
    """A document as users see it.

    Attributes:
        bytes: size of its extracted text in UTF-8.
        ingested_at: ISO 8601, UTC.
    """

    document_id: str
    title: str
    source: str
    content_hash: str
    chunks: int
    bytes: int
    ingested_at: str
    metadata: Mapping[str, FilterScalar]


@dataclass(frozen=True)
class OpenSegment:
    """A segment and its opened texts."""

    ref: SegmentRef
    texts: TextsFile


class Snapshot:
    """Reads of one generation; safe to use from several threads.

    Attributes:
        id: collection and generation.
        manifest: what was committed.
        index: what the trained index says of its lists; None while the collection is exact.
    """

    def __init__(
        self,
        manifest: Manifest,
        index: IndexArrays | None,
        segments: tuple[OpenSegment, ...],
        deleted: I64,
    ) -> None:
        self.id = SnapshotId(manifest.collection, manifest.generation)
        self.manifest = manifest
        self.index = index
        self.segments = segments
        self.deleted = deleted
        self._starts = [s.ref.row_start for s in segments]
        self._live = live_bitmap(manifest.next_row_id, deleted).tobytes()
        self._chunks: WeightedLru[int, Chunk] = WeightedLru(_CHUNK_CACHE_BYTES)
        self._documents: WeightedLru[tuple[int, int], StoredDocument] = WeightedLru(
            _CHUNK_CACHE_BYTES
        )
        self._bitmaps: WeightedLru[tuple[object, ...], U8] = WeightedLru(_BITMAP_CACHE_BYTES)

    @classmethod
    def open(cls, directory: Path, *, shards: bool = True) -> Snapshot:
        """Opens the committed state in ``directory`` after verifying its files.

        Of shard files too large to read now only heads are; who reads the rest verifies it.

        Args:
            shards: look at shard files at all; only who never needs vectors may not.

        Raises:
            NotFound: there is no collection.
            CorruptData: a file is missing or changed, naming it.
        """
        manifest = read_manifest(directory)
        index = read_index_arrays(directory, manifest)
        deleted = read_tombstones(directory, manifest)
        _check_layout(directory, manifest, len(deleted))
        opened: list[OpenSegment] = []
        try:
            for ref in manifest.segments:
                for shard in ref.shards if shards else ():
                    map_blockfile(verify_file(directory, shard), "shard", VERIFY_UP_TO_BYTES)
                opened.append(OpenSegment(ref, _open_texts(directory, ref)))
        except CorruptData:
            for segment in opened:
                segment.texts.close()
            raise
        return cls(manifest, index, tuple(opened), deleted)

    @property
    def centroids(self) -> F32 | None:
        """float32 [nlist, inner dim]; None while the collection is exact."""
        return None if self.index is None else self.index.centroids

    @property
    def rotation(self) -> F32 | None:
        """float32 [inner dim, dim], applied to queries before lists are chosen, or None."""
        return None if self.index is None else self.index.rotation

    @property
    def offset(self) -> F32 | None:
        """float32 [inner dim], added after the rotation, or None."""
        return None if self.index is None else self.index.offset

    def close(self) -> None:
        """Closes the files; later reads raise."""
        for segment in self.segments:
            segment.texts.close()

    def is_live(self, row_id: int) -> bool:
        """Whether the row exists and is not deleted."""
        if not 0 <= row_id < self.manifest.next_row_id:
            return False
        return bool(self._live[row_id >> 3] >> (row_id & 7) & 1)

    def chunks(self, row_ids: Sequence[int]) -> list[Chunk | None]:
        """The chunk of each row; None for deleted and unknown rows."""
        # Only live rows are ever put into the cache.
        found = self._chunks.get_many(row_ids)
        missing: dict[int, list[int]] = {}
        for row in row_ids:
            if row not in found and self.is_live(row):
                missing.setdefault(bisect.bisect_right(self._starts, row) - 1, []).append(row)
        for position, rows in missing.items():
            for stored in self.segments[position].texts.chunks(rows):
                found[stored.row_id] = self._remember(position, stored)
        return [found.get(row) for row in row_ids]

    def _remember(self, position: int, stored: StoredChunk) -> Chunk:
        document = self._document_of(position, stored.doc)
        chunk = Chunk(
            row_id=stored.row_id,
            chunk_id=stored.chunk_id,
            document_id=document.document_id,
            title=document.title,
            start=stored.start,
            end=stored.end,
            text=stored.text,
            headings=stored.headings,
            tokens=stored.tokens,
            metadata=document.metadata,
        )
        self._chunks.put(stored.row_id, chunk, _ENTRY_BYTES + len(stored.text))
        return chunk

    def _document_of(self, position: int, doc: int) -> StoredDocument:
        document = self._documents.get((position, doc))
        if document is None:
            document = self.segments[position].texts.document(doc)
            self._documents.put((position, doc), document, 2 * _ENTRY_BYTES)
        return document

    def filter_bitmap(self, terms: tuple[FilterTerm, ...]) -> U8:
        """Live rows that satisfy every term: uint8 [ceil(next_row_id / 8)], low bit first.

        Raises:
            InvalidInput: a term no value of the field can be compared with.
        """
        key = filters.cache_key(terms)
        cached = self._bitmaps.get(key)
        if cached is not None:
            return cached
        rows = self.manifest.next_row_id
        bitmap = np.frombuffer(self._live, dtype=np.uint8)
        for term in terms:
            mask = filters.matching_rows(term, self._ranges(term.field), rows)
            bitmap = bitmap & np.packbits(mask, bitorder="little")
        bitmap = bitmap.copy()
        bitmap.setflags(write=False)
        self._bitmaps.put(key, bitmap, _ENTRY_BYTES + bitmap.nbytes)
        return bitmap

    def _ranges(self, field: str) -> Iterator[filters.ValueRange]:
        for segment in self.segments:
            if field == filters.DOCUMENT_FIELD:
                ranges = segment.texts.document_ids()
            else:
                ranges = segment.texts.metadata_values(field)
            # A deleted document must not decide which kinds a field holds.
            yield from (r for r in ranges if self.is_live(r[0]))

    def documents(self, offset: int, limit: int) -> list[DocumentInfo]:
        """Live documents in order of their ids."""
        merged = heapq.merge(
            *(self._live_documents(s, "document_id") for s in self.segments),
            key=lambda d: d.document_id.encode("utf-8"),
        )
        return [_info(d) for d in itertools.islice(merged, offset, offset + limit)]

    def document(self, document_id: str) -> DocumentInfo:
        """One live document.

        Raises:
            NotFound: naming the id.
        """
        found = self.stored_document(document_id)
        if found is None:
            raise NotFound(
                f"collection {self.id.collection!r} has no document {document_id!r}",
                field="document_id",
                hint=f"list them with GET /v1/collections/{self.id.collection}/documents",
            )
        return _info(found)

    def stored_document(self, document_id: str) -> StoredDocument | None:
        """The live document of that id with all that ingestion recorded."""
        for segment in self.segments:
            found = segment.texts.document_named(document_id)
            if found is not None and self.is_live(found.first_row):
                return found
        return None

    def documents_from(self, origin: str) -> list[StoredDocument]:
        """Live documents that were read from one file."""
        found = (d for s in self.segments for d in s.texts.documents_from(origin))
        return [d for d in found if self.is_live(d.first_row)]

    def documents_below(self, root: str) -> list[StoredDocument]:
        """Live documents that the ingestion of a folder found."""
        found = (d for s in self.segments for d in s.texts.documents_below(root))
        return [d for d in found if self.is_live(d.first_row)]

    def live_documents(self, segment: OpenSegment) -> Iterator[StoredDocument]:
        """Live documents of one segment in the order of their rows."""
        return self._live_documents(segment, "first_row")

    def _live_documents(self, segment: OpenSegment, order: str) -> Iterator[StoredDocument]:
        for document in segment.texts.documents_in_order(order):
            if self.is_live(document.first_row):
                yield document


def _info(d: StoredDocument) -> DocumentInfo:
    return DocumentInfo(
        document_id=d.document_id,
        title=d.title,
        source=d.source,
        content_hash=d.content_hash,
        chunks=d.chunks,
        bytes=d.bytes,
        ingested_at=d.ingested_at,
        metadata=d.metadata,
    )


def _check_layout(directory: Path, manifest: Manifest, deleted: int) -> None:
    expected = 0
    for ref in manifest.segments:
        if ref.row_start != expected or len(ref.shards) != manifest.num_shards:
            path = directory / "manifest.json"
            raise CorruptData(f"{path}: {ref.id} does not fit the other segments", field=str(path))
        expected += ref.row_count
    if expected != manifest.next_row_id or manifest.live_rows != expected - deleted:
        path = directory / "manifest.json"
        raise CorruptData(f"{path}: its row counts contradict each other", field=str(path))


def _open_texts(directory: Path, ref: SegmentRef) -> TextsFile:
    path = verify_file(directory, ref.texts)
    texts = TextsFile(path)
    wanted = (ref.row_start, ref.row_start + ref.row_count - 1, ref.row_count)
    if texts.row_range() != wanted:
        texts.close()
        raise CorruptData(f"{path}: its rows are not those of {ref.id}", field=str(path))
    return texts
