"""The manifest: what one committed state of a collection consists of.

``<data>/collections/<name>/manifest.json`` is replaced atomically, so a crash
at any moment leaves either the old or the new state. Every file it names
carries its length and checksum, and the manifest carries its own digest.

Files of a collection::

    manifest.json
    index/<id>.rag          centroids, codebooks (absent for exact collections)
    segments/<id>/shard-<s>.rag   one per shard: ids, codes or vectors
    segments/<id>/texts.sqlite    chunks and documents of the segment
    tombstones/<id>.rag     row ids that were deleted
    staging/                work in progress, never part of a snapshot
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from ragschema.errors import CorruptData, InvalidInput, NotFound
from ragschema.storage.blockhead import read_head
from ragschema.types import Metric

_STRICT = ConfigDict(extra="forbid", strict=True)
MANIFEST_NAME = "manifest.json"
BLOCKFILE_SUFFIX = ".rag"
FORMAT_VERSION = 2
COLLECTION_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class FileRef:
    """A file of the collection, by path relative to its directory.

    Attributes:
        crc32: of a block file's head, which covers the rest block by block; of
            all bytes of any other file.
    """

    __pydantic_config__ = _STRICT
    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$")]
    bytes: Count
    crc32: Count


@dataclass(frozen=True)
class EmbedderRef:
    """The model whose vectors the collection holds."""

    __pydantic_config__ = _STRICT
    name: str
    fingerprint: str


@dataclass(frozen=True)
class ChunkingConfig:
    """How documents were cut; sizes in the embedder's tokens."""

    __pydantic_config__ = _STRICT
    tokens: Annotated[int, Field(ge=16, le=8192)] = 200
    overlap: Annotated[int, Field(ge=0, le=4096)] = 32


@dataclass(frozen=True)
class CurvePoint:
    """One measured setting of an index.

    Attributes:
        nprobe: lists scanned.
        refine_factor: candidates rescored as a multiple of k; None: none.
        recall_at_10: share of the true ten nearest that were found.
        codes_per_query: codes scanned, on average.
    """

    __pydantic_config__ = _STRICT
    nprobe: Annotated[int, Field(ge=1)]
    refine_factor: Annotated[int, Field(ge=1)] | None
    recall_at_10: Annotated[float, Field(ge=0, le=1)]
    codes_per_query: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class IndexRef:
    """A trained IVF-PQ index: block file kind "ivfpq-index".

    Its arrays: centroids float32 [nlist, dim]; codebooks float32 [m, 256, dim / m];
    shift float32 [dim], subtracted from queries and centroids where that makes
    numbers smaller; and, when ``rotated``, rotation float32 [dim, input dim]
    (``x -> rotation @ x``) and offset float32 [dim], added after it. Centroids
    and codebooks live in the rotated space.

    Attributes:
        residual: PQ codes are of residuals (vector minus its list's centroid);
            false: of the vectors themselves.
        nprobe: lists to scan unless a request says otherwise.
        refine_factor: candidates rescored with stored vectors, as a multiple
            of k; None: results are those of the PQ scan.
        curve: what was measured of this index, by codes_per_query ascending.
    """

    __pydantic_config__ = _STRICT
    file: FileRef
    nlist: Annotated[int, Field(ge=1)]
    m: Annotated[int, Field(ge=1)]
    nprobe: Annotated[int, Field(ge=1)]
    refine_factor: Annotated[int, Field(ge=1)] | None
    residual: bool = True
    rotated: bool = False
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True)
class SegmentRef:
    """Rows ``row_start .. row_start + row_count - 1``, spread over the shards.

    Shard file arrays, block file kind "shard" (n rows, grouped by list; of a list by
    bias where there is one, else by ascending id; files of earlier releases always so):
      ids           uint32 [n], row id minus row_start
      list_offsets  int64 [nlist + 1], rows; absent when exact
      codes         uint8, list by list, in groups (retrieval_node/layout.py)
      bias          uint16 [padded rows], l2 only; see retrieval_node/bias.py
      bias_affine   float32 [nlist, 2], l2 only
      vectors       float32 or float16 [n, dim]: exact segments, and segments
                    of an index that refines
    A segment without list_offsets in an indexed collection is a fresh one:
    few rows, every one of them compared exactly.
    """

    __pydantic_config__ = _STRICT
    id: Annotated[str, Field(pattern=r"^seg-[0-9]{6}$")]
    row_start: Count
    row_count: Count
    shards: tuple[FileRef, ...]
    texts: FileRef


@dataclass(frozen=True)
class Manifest:
    """One committed state.

    Attributes:
        index: None while the collection keeps exact vectors.
        next_row_id: one past the largest row id ever used in this generation.
        live_rows: rows that are not deleted.
        recall: what searches shall reach unless they say otherwise; None: the
            index's own nprobe and refine_factor hold.
        tombstones: block file kind "tombstones", array rows int64 ascending.
    """

    __pydantic_config__ = _STRICT
    format: Literal[2]
    collection: str
    generation: Annotated[int, Field(ge=1)]
    created_at: str
    metric: Metric
    dim: Annotated[int, Field(ge=1, le=65536)]
    num_shards: Annotated[int, Field(ge=1, le=4096)]
    embedder: EmbedderRef | None
    chunking: ChunkingConfig
    index: IndexRef | None
    segments: tuple[SegmentRef, ...]
    tombstones: FileRef | None
    next_row_id: Count
    live_rows: Count
    live_documents: Count
    recall: Annotated[float, Field(gt=0, le=1)] | None = None


def check_collection_name(name: str) -> str:
    """Returns the name; raises InvalidInput when it could not be a directory of ours."""
    if not COLLECTION_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a collection name",
            field="collection",
            hint="use 1-63 of a-z, 0-9, _ and -, starting with a letter or digit",
        )
    return name


def collection_dir(data_dir: Path, name: str) -> Path:
    """Where a collection lives below a rig's data directory."""
    return data_dir / "collections" / check_collection_name(name)


def _digest(body: dict[str, object]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def commit_manifest(directory: Path, manifest: Manifest) -> None:
    """Makes the manifest the collection's state, durably and atomically.

    Every file it names must already be written and fsynced.
    """
    body = json.loads(json.dumps(asdict(manifest)))
    draft = directory / f"{MANIFEST_NAME}.{os.getpid()}.tmp"
    with draft.open("w", encoding="utf-8") as out:
        json.dump({"digest": _digest(body), "manifest": body}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    os.replace(draft, directory / MANIFEST_NAME)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Makes renames and new files in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_manifest(directory: Path) -> Manifest:
    """The committed state of the collection in ``directory``.

    Raises:
        NotFound: nothing was ever committed there.
        CorruptData: the file is not what was written, naming it.
    """
    path = directory / MANIFEST_NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"there is no collection {directory.name!r}",
            field="collection",
            hint="list collections with `ragrig status` or GET /v1/collections",
        ) from error
    except OSError as error:
        raise CorruptData(f"cannot read {path}: {error.strerror}", field=str(path)) from error
    try:
        outer = json.loads(text)
        body, digest = outer["manifest"], outer["digest"]
        _check_format(path, body.get("format"))
        if _digest(body) == digest:
            return TypeAdapter(Manifest).validate_json(json.dumps(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptData(f"{path}: not a manifest", field=str(path)) from error
    raise CorruptData(f"{path}: digest does not match its content", field=str(path))


def _check_format(path: Path, version: object) -> None:
    """Refuses manifests of other releases; what is no number is left to validation."""
    if type(version) is not int or version == FORMAT_VERSION:
        return
    older = version < FORMAT_VERSION
    raise CorruptData(
        f"{path}: was written by {'an older' if older else 'a newer'} release"
        f" (format {version}, this release reads {FORMAT_VERSION})",
        field=str(path),
        hint="drop the collection and ingest it again" if older else "install a newer release",
    )


def file_ref(directory: Path, path: Path) -> FileRef:
    """Measures a finished file for the manifest."""
    size, crc = _measure(path)
    return FileRef(path=path.relative_to(directory).as_posix(), bytes=size, crc32=crc)


def verify_file(directory: Path, ref: FileRef) -> Path:
    """The file's path, after its length and checksum were found right.

    Raises:
        CorruptData: missing, shortened or changed, naming the file.
    """
    path = (directory / ref.path).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise CorruptData(f"{ref.path} leaves the collection's directory", field=str(path))
    try:
        size, crc = _measure(path)
    except OSError as error:
        raise CorruptData(f"cannot read {path}: {error.strerror}", field=str(path)) from error
    if size != ref.bytes:
        raise CorruptData(f"{path} has {size} bytes, expected {ref.bytes}", field=str(path))
    if crc != ref.crc32:
        raise CorruptData(f"{path}: checksum does not match the manifest", field=str(path))
    return path


def _measure(path: Path) -> tuple[int, int]:
    """Length and checksum as a FileRef records them; of a block file without its data."""
    if path.suffix == BLOCKFILE_SUFFIX:
        head = read_head(path)
        return head.file_bytes, head.crc32
    size = crc = 0
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return size, crc
