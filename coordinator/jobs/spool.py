"""Files of uploads on their way into a collection: below the run folder, always removed."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from ragschema.errors import InvalidInput, Unavailable

_FULL_ERRNOS = frozenset({27, 28, 122})  # EFBIG, ENOSPC, EDQUOT


class Spool:
    """Folders named after this process, so that leftovers of a dead one are known.

    Args:
        root: ``<data_dir>/run/spool``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self) -> None:
        """Makes the spool and removes what processes that are gone left in it.

        Raises:
            InvalidInput: the data directory cannot be written.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"cannot write {self._root}: {error.strerror}",
                field="data_dir",
                hint="choose a data directory you may write to",
            ) from error
        for folder in self._root.iterdir():
            owner = folder.name.partition("-")[0]
            if not owner.isdigit() or not _is_alive(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)

    def folder(self) -> Path:
        """A new, empty folder; whoever asks removes it."""
        path = self._root / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise spool_error(error) from error
        return path

    def discard(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Removes everything of this process."""
        for folder in self._root.glob(f"{os.getpid()}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def spool_error(error: OSError) -> Unavailable:
    """An upload that cannot be kept."""
    why = "no space left" if error.errno in _FULL_ERRNOS else (error.strerror or str(error))
    return Unavailable(
        f"cannot keep the upload: {why}",
        field="data_dir",
        hint="free disk space in the server's data directory; nothing was lost",
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
