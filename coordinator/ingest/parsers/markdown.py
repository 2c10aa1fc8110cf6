"""Markdown: its own text, ``#`` headings, metadata from YAML front matter."""

from __future__ import annotations

import datetime
import re
from pathlib import Path, PurePath

import yaml

from coordinator.ingest.document import ParsedDocument, markdown_headings
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers.decode import read_text
from coordinator.types import FilterScalar

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_MAX_FRONT_MATTER_CHARS = 16_384


def parse(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """One document; ``title`` of the front matter, else the first heading, names it."""
    del limits
    decoded = read_text(path)
    metadata, text = split_front_matter(decoded.text)
    headings = markdown_headings(text)
    title = metadata.pop("title", None) or (headings[0].title if headings else None)
    return (
        ParsedDocument(
            document_id=name,
            title=str(title or PurePath(name).name),
            text=text,
            headings=headings,
            metadata=metadata,
            source=str(path),
            note=decoded.note,
        ),
    )


def split_front_matter(text: str) -> tuple[dict[str, FilterScalar], str]:
    """Scalars of the front matter, and the text after it.

    What is no YAML mapping is no front matter and stays in the text.
    """
    match = _FRONT_MATTER.match(text)
    if match is None or match.end() > _MAX_FRONT_MATTER_CHARS:
        return {}, text
    try:
        values = yaml.safe_load(match.group(1))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(values, dict):
        return {}, text
    metadata: dict[str, FilterScalar] = {}
    for key, value in values.items():
        if isinstance(value, datetime.date):
            metadata[str(key)] = value.isoformat()
        elif isinstance(value, (str, int, float, bool)):
            metadata[str(key)] = value
    return metadata, text[match.end() :]
