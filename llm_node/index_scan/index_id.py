"""Which index a scan means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IndexId:
    """A trained index of a collection: its file, which never changes.

    Attributes:
        path: as the collection's manifest names it.
        crc32: of the file's head, as the manifest has it.
    """

    collection: str
    path: str
    crc32: int
