"""Finds the files of an ingestion, without being led in circles or out of order."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from coordinator.ingest.parsers import EXTENSIONS, supported
from coordinator.ingest.spec import Skipped


@dataclass(frozen=True)
class SourceFile:
    """A file to read.

    Attributes:
        name: the id its document gets; ``<folder>/<relative path>``, or the file's name.
        root: the source folder it was found in; None when it was named itself.
    """

    path: Path
    name: str
    root: Path | None


@dataclass
class Scan:
    """What was found.

    Attributes:
        roots: folders that could be listed.
        blocked: places below them that could not; nothing there counts as gone.
        unsupported: files in folders no parser reads, by extension.
    """

    files: list[SourceFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    blocked: list[Path] = field(default_factory=list)
    unsupported: Counter[str] = field(default_factory=Counter)


def scan_sources(sources: Iterable[str]) -> Scan:
    """Lists every file to read, folders recursively in the order of names.

    Hidden files and folders are left out. A file reached twice is read once.
    """
    scan = Scan()
    seen: set[tuple[int, int]] = set()
    for source in sources:
        path = Path(os.path.abspath(os.path.expanduser(source)))
        try:
            mode = path.stat().st_mode
        except OSError as error:
            scan.skipped.append(Skipped(source, error.strerror or "cannot be read"))
            continue
        if stat.S_ISDIR(mode):
            _scan_folder(scan, path, seen)
        elif not supported(path.name):
            reason = f"{path.suffix or 'no extension'} is not among {' '.join(sorted(EXTENSIONS))}"
            scan.skipped.append(Skipped(str(path), reason))
        else:
            _take(scan, SourceFile(path, path.name, None), seen)
    return scan


def _scan_folder(scan: Scan, root: Path, seen: set[tuple[int, int]]) -> None:
    scan.roots.append(root)
    prefix = root.name or "root"
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            info = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            scan.skipped.append(Skipped(str(folder), error.strerror or "cannot be listed"))
            scan.blocked.append(folder)
            continue
        if (info.st_dev, info.st_ino) in seen:
            continue
        seen.add((info.st_dev, info.st_ino))
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if _is_folder(entry):
                folders.append(path)
            elif supported(entry.name):
                name = str(PurePath(prefix) / path.relative_to(root))
                _take(scan, SourceFile(path, name, root), seen)
            else:
                scan.unsupported[path.suffix.lower() or "(none)"] += 1
        pending.extend(reversed(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _take(scan: Scan, file: SourceFile, seen: set[tuple[int, int]]) -> None:
    """Adds a regular file; reading anything else could wait for ever."""
    try:
        info = file.path.stat()
    except OSError as error:
        scan.skipped.append(Skipped(str(file.path), error.strerror or "cannot be read"))
        return
    if not stat.S_ISREG(info.st_mode):
        scan.skipped.append(Skipped(str(file.path), "is not a regular file"))
        return
    if not _encodable(str(file.path)):
        shown = str(file.path).encode("utf-8", "replace").decode("utf-8")
        scan.skipped.append(Skipped(shown, "its name is not valid UTF-8; rename it"))
        return
    if (info.st_dev, info.st_ino) in seen:
        return
    seen.add((info.st_dev, info.st_ino))
    scan.files.append(file)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
