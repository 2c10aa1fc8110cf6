"""Files of a multipart upload, written to the spool while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from coordinator.jobs.spool import spool_error
from coordinator.rest.names import is_document_id
from ragschema.errors import InvalidInput, PayloadTooLarge

FIELD = "files"
_FLUSH_BYTES = 1 << 20


@dataclass(frozen=True)
class UploadedFile:
    """A file of an upload; ``path`` is ours, ``name`` is what the client called it."""

    name: str
    path: Path


class FileReceiver:
    """Turns a body into files.

    Args:
        folder: where they go; they are called 0, 1, 2 there, whatever their names.
        most_files: files beyond which the upload is refused.
    """

    def __init__(self, boundary: bytes, folder: Path, most_files: int) -> None:
        self._folder = folder
        self._most_files = most_files
        self._files: list[UploadedFile] = []
        self._names: set[str] = set()
        self._pending: list[tuple[int, bytes]] = []
        self._pending_bytes = 0
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_text,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )

    async def receive(self, body: AsyncIterator[bytes]) -> tuple[UploadedFile, ...]:
        """Reads the body to its end.

        Raises:
            InvalidInput: not multipart, no file in it, or a name that is no
                relative path.
            PayloadTooLarge: too many files.
            Unavailable: the spool's disk is full.
        """
        try:
            async for part in body:
                self._parser.write(part)
                if self._pending_bytes >= _FLUSH_BYTES:
                    await self._flush()
            self._parser.finalize()
        except FormParserError as error:
            raise InvalidInput("the body is not multipart/form-data", field="body") from error
        await self._flush()
        if not self._complete:
            raise InvalidInput("the multipart body ends too early", field="body")
        if not self._files:
            raise InvalidInput(
                "no file was sent", field=FIELD, hint=f"send files in the field {FIELD!r}"
            )
        return tuple(self._files)

    async def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        try:
            await asyncio.to_thread(self._write, pending)
        except OSError as error:
            raise spool_error(error) from error

    def _write(self, pending: list[tuple[int, bytes]]) -> None:
        out: BinaryIO | None = None
        current: int | None = None
        try:
            for index, data in pending:
                if index != current:
                    if out is not None:
                        out.close()
                    out, current = self._files[index].path.open("ab"), index
                assert out is not None, "opened in the lines above"
                out.write(data)
        finally:
            if out is not None:
                out.close()

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD or b"filename" not in options:
            raise InvalidInput(
                f"the field {field[:60]!r} is not a file this endpoint reads",
                field=field[:60] or "body",
                hint=f"send files in the field {FIELD!r}",
            )
        name = _checked_name(options[b"filename"])
        if len(self._files) >= self._most_files:
            raise PayloadTooLarge(
                f"more than {self._most_files} files in one upload",
                field=FIELD,
                hint="send them in several uploads",
            )
        if name in self._names:
            raise InvalidInput(
                f"two files are called {name!r}", field=FIELD, hint="give each a name of its own"
            )
        self._names.add(name)
        self._files.append(UploadedFile(name, self._folder / str(len(self._files))))
        self._pending.append((len(self._files) - 1, b""))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._pending.append((len(self._files) - 1, data[start:end]))
        self._pending_bytes += end - start

    def _end(self) -> None:
        self._complete = True


def _checked_name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("a file name is not UTF-8", field="filename") from error
    if not is_document_id(name) or "\\" in name:
        raise InvalidInput(
            f"{name[:120]!r} is no file name this server takes",
            field="filename",
            hint="use a relative path without '.' or '..' parts and control characters",
        )
    return name
