"""One writer per collection, across processes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from ragschema.errors import Conflict
from ragschema.storage.manifest import check_collection_name


class WriterLock:
    """Held by whoever changes a collection; the kernel frees it when the holder dies.

    The lock file stands beside the collections, not inside one, so that dropping
    and creating a collection of the same name cannot give two writers a lock each.

    Raises (on entering):
        Conflict: another process or thread writes, naming its pid.
    """

    def __init__(self, data_dir: Path, name: str) -> None:
        self._name = check_collection_name(name)
        self._path = data_dir / "collections" / ".locks" / f"{name}.lock"
        self._handle: int | None = None

    def __enter__(self) -> WriterLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise Conflict(
                f"collection {self._name!r} is being changed by process {holder}",
                field="collection",
                hint="wait until that process ends, then try again",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        self._handle = handle
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._handle is not None, "the lock was never taken"
        os.close(self._handle)
        self._handle = None
