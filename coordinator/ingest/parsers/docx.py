"""Word documents: paragraphs, headings by style, tables row by row."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePath
from typing import Any

from coordinator.ingest.document import ParsedDocument
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers.outline import OutlineBuilder
from coordinator.ingest.parsers.zipguard import check_zip
from coordinator.types import FilterScalar
from ragschema.errors import UnreadableDocument

_BODY = "word/document.xml"
_HEADING_STYLE = re.compile(r"^heading (\d)$", re.IGNORECASE)
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def parse(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """One document; Word's own title names it when there is one."""
    with path.open("rb") as source:
        if source.read(8) == _OLE_MAGIC:
            raise UnreadableDocument(
                "is encrypted, or in the old .doc format",
                hint="save it as .docx without a password",
            )
    if _BODY not in check_zip(path, limits):
        raise UnreadableDocument("is a zip file, but no Word document")
    _refuse_entities(path)
    document = _open(path)
    outline = OutlineBuilder(limits.max_text_chars)
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            for line in _table_lines(block):
                outline.block(line)
        else:
            _paragraph(outline, block)
    first = outline.headings[0].title if outline.headings else ""
    core = document.core_properties
    metadata: dict[str, FilterScalar] = {"author": core.author} if core.author else {}
    return (
        ParsedDocument(
            document_id=name,
            title=core.title or first or PurePath(name).name,
            text=outline.text(),
            headings=outline.headings,
            metadata=metadata,
            source=str(path),
        ),
    )


def _refuse_entities(path: Path) -> None:
    """No Word program writes a DOCTYPE; entity bombs need one."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if entry.endswith((".xml", ".rels")):
                with archive.open(entry) as source:
                    if b"<!DOCTYPE" in source.read(4096):
                        raise UnreadableDocument(f"declares XML entities in {entry}")


def _open(path: Path) -> Any:
    import docx
    from docx.opc.exceptions import OpcError
    from lxml import etree

    try:
        document = docx.Document(str(path))
        _ = document.element.body, document.core_properties.title
    except (OpcError, etree.LxmlError, KeyError, ValueError, AttributeError) as error:
        raise UnreadableDocument(f"is damaged: {error}") from error
    return document


def _paragraph(outline: OutlineBuilder, paragraph: Any) -> None:
    style = paragraph.style.name if paragraph.style is not None else ""
    match = _HEADING_STYLE.match(style or "")
    if style == "Title":
        outline.heading(1, paragraph.text)
    elif match:
        outline.heading(int(match.group(1)), paragraph.text)
    else:
        outline.block(paragraph.text)


def _table_lines(table: Any) -> list[str]:
    """A line per row. Reads the XML itself: the library's cells cost quadratic time."""
    lines = []
    for row in table._tbl.tr_lst:
        cells = ("".join(cell.itertext("{*}t")) for cell in row.tc_lst)
        lines.append(" | ".join(cell.strip() for cell in cells))
    return lines
