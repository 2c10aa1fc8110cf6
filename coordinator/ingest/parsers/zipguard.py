"""Zipped documents are unpacked only after their size was found harmless."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from coordinator.ingest.limits import ParseLimits
from ragschema.errors import PayloadTooLarge, UnreadableDocument

_RATIO_FROM_BYTES = 1 << 20
_READ_BYTES = 1 << 20


def check_zip(path: Path, limits: ParseLimits) -> frozenset[str]:
    """Names of the entries of a zip file that is safe to unpack.

    What the file declares is checked first, then what unpacking really gives.

    Raises:
        UnreadableDocument: not a zip file, encrypted or damaged.
        PayloadTooLarge: it would expand beyond the limits.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_declared(entries, path.stat().st_size, limits)
            _check_actual(archive, entries, limits)
            return frozenset(entry.filename for entry in entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise UnreadableDocument(f"is damaged: {error}") from error


def _check_declared(entries: list[zipfile.ZipInfo], size: int, limits: ParseLimits) -> None:
    if len(entries) > limits.max_entries:
        raise PayloadTooLarge(
            f"holds {len(entries)} packed files, the limit is {limits.max_entries}"
        )
    if any(entry.flag_bits & 0x1 for entry in entries):
        raise UnreadableDocument("is encrypted", hint="save it without a password")
    _check_expansion(sum(entry.file_size for entry in entries), size, limits)


def _check_actual(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], limits: ParseLimits
) -> None:
    total = 0
    packed = sum(entry.compress_size for entry in entries)
    for entry in entries:
        with archive.open(entry) as source:
            while block := source.read(_READ_BYTES):
                total += len(block)
                _check_expansion(total, packed, limits)


def _check_expansion(expanded: int, packed: int, limits: ParseLimits) -> None:
    if expanded > limits.max_expanded_bytes:
        raise PayloadTooLarge(
            f"unpacks to more than {limits.max_expanded_bytes} bytes",
            hint="it may be a zip bomb; split or shrink it",
        )
    if expanded > _RATIO_FROM_BYTES and expanded > limits.max_expansion * max(1, packed):
        raise PayloadTooLarge(
            f"unpacks to more than {limits.max_expansion} times its size",
            hint="it may be a zip bomb; save it again with the program that made it",
        )
