"""Bounds on what parsing one file may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class ParseLimits:
    """Beyond any of these a file is refused with the reason.

    Attributes:
        max_file_bytes: size of the file as it is.
        max_text_chars: extracted text of all documents of a file together.
        max_documents: documents in one file.
        max_expanded_bytes: a zipped file, unpacked.
        max_expansion: unpacked size over packed size, once it is over 1 MB.
        max_entries: files inside a zipped file.
        max_depth: nesting of markup elements.
        memory_bytes: address space of the parsing process.
        cpu_s: processor time per file.
        wall_s: time per file.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    max_file_bytes: Positive = 64 << 20
    max_text_chars: Positive = 20_000_000
    max_documents: Positive = 100_000
    max_expanded_bytes: Positive = 256 << 20
    max_expansion: Positive = 200
    max_entries: Positive = 5000
    max_depth: Positive = 500
    memory_bytes: Positive = 1 << 30
    cpu_s: Positive = 60
    wall_s: Annotated[float, Field(gt=0)] = 120.0
