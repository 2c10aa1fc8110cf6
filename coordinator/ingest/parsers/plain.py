"""Plain text: as it is."""

from __future__ import annotations

from pathlib import Path, PurePath

from coordinator.ingest.document import ParsedDocument
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers.decode import read_text


def parse(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """One document without headings, titled by the file's name."""
    del limits
    decoded = read_text(path)
    return (
        ParsedDocument(
            document_id=name,
            title=PurePath(name).name,
            text=decoded.text,
            source=str(path),
            note=decoded.note,
        ),
    )
