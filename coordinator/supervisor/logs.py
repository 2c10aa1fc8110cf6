"""Node logs: appended by the node, kept within a bound by the supervisor."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LogLimits:
    """Bounds on one node's logs.

    Attributes:
        max_bytes: a file larger than this moves to ``.1``.
        keep: moved files that stay, ``.1`` the newest.
    """

    max_bytes: int = 8 << 20
    keep: int = 3


def rotate_if_large(path: Path, limits: LogLimits) -> bool:
    """Moves a large log's content aside, also under a running writer.

    The writer holds the file open in append mode, so its content is copied
    and the file is cut to nothing; what is written in between is lost.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if size <= limits.max_bytes:
        return False
    for number in range(limits.keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            os.replace(older, path.with_name(f"{path.name}.{number + 1}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True


def tail(path: Path, lines: int = 15, max_bytes: int = 64 << 10) -> str:
    """The last lines of a log, empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - max_bytes))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
