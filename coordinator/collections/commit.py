"""Making a new state current, and removing what no reader can need any more."""

from __future__ import annotations

import datetime
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ragschema.storage.manifest import MANIFEST_NAME, FileRef, Manifest, commit_manifest

log = logging.getLogger(__name__)

_NUMBERED = re.compile(r"^(?:seg|idx)-([0-9]{6})(?:\.rag)?$")


def utc_now() -> str:
    """The time as manifests and documents record it, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def files_of(manifest: Manifest) -> tuple[FileRef, ...]:
    """Every file a committed state consists of."""
    refs: list[FileRef] = []
    if manifest.index is not None:
        refs.append(manifest.index.file)
    if manifest.tombstones is not None:
        refs.append(manifest.tombstones)
    for segment in manifest.segments:
        refs.extend((*segment.shards, segment.texts))
    return tuple(refs)


def commit(directory: Path, manifest: Manifest, previous: Manifest | None) -> None:
    """Makes ``manifest`` current, then removes files no state of interest names.

    The files of ``previous`` stay until the next commit: a node may still be
    reading them. The caller holds the writer lock and has written and synced
    every file. A crash between the two steps only leaves files behind.
    """
    commit_manifest(directory, manifest)
    keep = [*files_of(manifest), *(files_of(previous) if previous else ())]
    try:
        _collect_garbage(directory, {ref.path for ref in keep})
    except OSError as error:
        # The new state is durable; the next commit tries again.
        log.warning("could not remove old files of %s: %s", directory.name, error)


def next_number(directory: Path) -> int:
    """A number no segment or index on disk bears, committed or left by a crash."""
    used = [0]
    for folder in ("segments", "index"):
        for path in _listed(directory / folder):
            match = _NUMBERED.match(path.name)
            if match:
                used.append(int(match.group(1)))
    return max(used) + 1


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _collect_garbage(directory: Path, keep: set[str]) -> None:
    kept_segments = {Path(path).parts[1] for path in keep if path.startswith("segments/")}
    for segment in _listed(directory / "segments"):
        if segment.name not in kept_segments:
            shutil.rmtree(segment, ignore_errors=True)
    for folder in ("index", "tombstones"):
        _unlink(p for p in _listed(directory / folder) if f"{folder}/{p.name}" not in keep)
    _unlink(directory.glob(f"{MANIFEST_NAME}.*.tmp"))


def _unlink(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
