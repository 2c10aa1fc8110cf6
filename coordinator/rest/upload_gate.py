"""Bounds on uploads of files: each may hold a full body on disk and a parser in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from ragschema.errors import Overloaded


class UploadGate:
    """Lets few uploads in, and fewer parse at once.

    Attributes:
        parsing: held while an upload's files are read by the sandbox.
    """

    def __init__(self, most_uploads: int = 8, most_parsing: int = 2) -> None:
        self._most_uploads = most_uploads
        self._under_way = 0
        self.parsing = asyncio.Semaphore(most_parsing)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Raises Overloaded when too many uploads are under way."""
        if self._under_way >= self._most_uploads:
            raise Overloaded(
                f"{self._under_way} uploads are under way",
                retry_after_s=5.0,
                hint="send files one after another",
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
