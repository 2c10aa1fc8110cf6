"""Bytes to text: byte order marks, UTF-8, and an honest fallback."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from ragschema.errors import UnreadableDocument

_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\v\b\x1b\x85")
_CONTROLS = frozenset(set(range(32)) | {127}) - _TEXT_CONTROLS
_MAX_CONTROL_SHARE = 0.02
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class Decoded:
    """Text and, when the encoding had to be guessed, a note about it."""

    text: str
    note: str | None


def read_text(path: Path, declared: str | None = None) -> Decoded:
    """Reads a text file.

    Args:
        declared: an encoding the content itself names; tried after UTF-8.

    Raises:
        UnreadableDocument: it cannot be read, or is binary.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UnreadableDocument(f"cannot be read: {error.strerror}") from error
    return decode(raw, declared)


def decode(raw: bytes, declared: str | None = None) -> Decoded:
    """Decodes a file's bytes; see ``read_text``."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            try:
                return Decoded(_newlines(raw.decode(encoding)), None)
            except UnicodeDecodeError as error:
                raise UnreadableDocument(f"begins as {encoding} but does not go on so") from error
    _refuse_binary(raw)
    try:
        return Decoded(_newlines(raw.decode("utf-8")), None)
    except UnicodeDecodeError:
        return _guessed(raw, declared)


def _guessed(raw: bytes, declared: str | None) -> Decoded:
    if declared is not None:
        try:
            return Decoded(_newlines(raw.decode(declared)), None)
        except (UnicodeDecodeError, LookupError):
            pass
    text = raw.decode("latin-1")
    return Decoded(_newlines(text), "is not UTF-8 and was read as Latin-1")


def _refuse_binary(raw: bytes) -> None:
    sample = raw[:_SAMPLE_BYTES]
    if b"\0" in raw:
        raise UnreadableDocument("is binary: it holds NUL bytes")
    controls = sum(byte in _CONTROLS for byte in sample)
    if controls > _MAX_CONTROL_SHARE * len(sample):
        share = 100 * controls / len(sample)
        raise UnreadableDocument(f"is binary: {share:.0f} % of it are control characters")


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
