"""Small real files of every kind, made by the libraries that also write them elsewhere."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import docx
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject


def write_docx(path: Path, title: str | None = None) -> Path:
    document = docx.Document()
    document.core_properties.title = title or ""
    document.core_properties.author = "Ada"
    document.add_heading("Chapter", level=1)
    document.add_paragraph("First paragraph.")
    document.add_heading("Section", level=2)
    table = document.add_table(rows=2, cols=2)
    for r in range(2):
        for c in range(2):
            table.cell(r, c).text = f"cell {r}{c}"
    document.add_paragraph("After the table.")
    document.save(str(path))
    return path


def replace_entry(path: Path, entry: str, content: bytes) -> None:
    """Rewrites one file inside a zip file."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    entries[entry] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, raw in entries.items():
            new.writestr(name, raw)


def write_pdf(
    path: Path,
    pages: list[str],
    title: str = "",
    password: str | None = None,
    owner_only: bool = False,
) -> Path:
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(width=300, height=300)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        lines = "".join(f"({line}) Tj 0 -20 Td " for line in text.split("\n") if line)
        stream.set_data(f"BT /F1 12 Tf 20 250 Td {lines}ET".encode("ascii"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title, "/Author": "Ada"})
    for number, text in enumerate(pages):
        if text:
            writer.add_outline_item(title=text.split("\n")[0], page_number=number)
    if password is not None:
        user = "" if owner_only else password
        writer.encrypt(user_password=user, owner_password=password, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    path.write_bytes(buffer.getvalue())
    return path
