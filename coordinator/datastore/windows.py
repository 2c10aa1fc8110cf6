"""Texts of a corpus, cut into windows that a model reads on their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.node_command import Progress
from coordinator.ingest.sandbox import ParseWorker
from coordinator.ingest.scan import scan_sources
from ragschema.errors import InvalidInput

#: Of one call: no text has more tokens than bytes, and the node takes 8 192.
_CALL_BYTES = 7000
_CALL_TEXTS = 64


@dataclass(frozen=True)
class Window:
    """A piece of a document; ``number`` counts from 0."""

    document_id: str
    source: str
    number: int
    text: str


async def windows_of(
    sources: Sequence[Path], window_chars: int, notes: list[str], progress: Progress
) -> AsyncGenerator[Window]:
    """Windows of all readable files, one after another; what was left out goes to ``notes``."""
    scan = await asyncio.to_thread(scan_sources, [str(source) for source in sources])
    notes += [f"{skipped.path} {skipped.reason}" for skipped in scan.skipped]
    async with ParseWorker(ParseLimits()) as worker:
        for done, file in enumerate(scan.files):
            progress("read", done, len(scan.files))
            try:
                documents = await worker.parse(file.path, file.name)
            except InvalidInput as error:
                notes.append(f"{file.path} {error}")
                continue
            for document in documents:
                for number, text in enumerate(cut(document.text, window_chars)):
                    yield Window(document.document_id, document.source, number, text)
    progress("read", len(scan.files), len(scan.files))


def cut(text: str, window_chars: int) -> Iterator[str]:
    """Pieces of at most so many characters, between words where there are any."""
    start = 0
    while start < len(text):
        end = min(start + window_chars, len(text))
        if end < len(text):
            space = text.rfind(" ", start + 1, end)
            end = space if space > start else end
        yield text[start:end]
        start = end


async def calls_of(windows: AsyncIterator[Window]) -> AsyncGenerator[list[Window]]:
    """Windows that go into one call together."""
    batch: list[Window] = []
    size = 0
    async for window in windows:
        more = len(window.text.encode())
        if batch and (size + more > _CALL_BYTES or len(batch) >= _CALL_TEXTS):
            yield batch
            batch, size = [], 0
        batch.append(window)
        size += more
    if batch:
        yield batch
