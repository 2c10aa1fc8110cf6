"""What the commands of ``ragrig index`` do."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from coordinator.cli.console import print_error, printable, stderr, stdout
from coordinator.cli.index_view import show_imported, show_tuned
from coordinator.cli.progress import IngestProgress
from coordinator.cli.serving import wait_served
from coordinator.cli.target import running_rig, target_of
from coordinator.indexes.exporting import export_faiss
from coordinator.indexes.importing import ImportRequest, import_faiss
from coordinator.indexes.tuning import TuneRequest, tune_collection
from coordinator.ingest.node_command import Progress
from coordinator.supervisor.ingestion import Progress as Step
from ragschema.errors import RagrigError
from ragschema.rig import RigConfig
from ragschema.storage.manifest import Manifest, check_collection_name

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")

T = TypeVar("T")


@dataclass(frozen=True)
class TuneChoices:
    """The options of ``ragrig index tune``; ``threads`` None: all there are."""

    collection: str
    recall: float
    k: int
    queries: Path | None
    truth: Path | None
    sample: int
    threads: int | None


def run_import(rig: RigConfig, file: Path, name: str | None, texts: Path | None) -> None:
    """Imports, reports, waits until a running rig serves it.

    Raises:
        RagrigError: what went wrong; nothing was made.
        KeyboardInterrupt: stopped by a signal; likewise.
    """
    rig = _current(rig)
    request = ImportRequest(
        data_dir=Path(rig.data_dir),
        collection=check_collection_name(name or name_of(file)),
        file=file.expanduser().absolute(),
        texts=None if texts is None else texts.expanduser().absolute(),
        num_shards=rig.num_shards,
    )
    with Bars() as bars:
        imported = run_to_end(import_faiss(request, bars.report))
    show_imported(stdout(), imported)
    served_by_rig(rig, imported.manifest)


def name_of(file: Path) -> str:
    """A collection name made of a file's."""
    return _NOT_IN_NAMES.sub("-", file.stem.lower()).strip("-_")[:63] or "imported"


def run_export(rig: RigConfig, collection: str, file: Path) -> None:
    """Exports and reports.

    Raises:
        RagrigError: what went wrong; no file was written.
    """
    path = file.expanduser().absolute()
    with Bars() as bars:
        done = run_to_end(export_faiss(Path(rig.data_dir), collection, path, bars.report))
    stdout().print(f"{done.rows} vectors written to {printable(done.file)}")
    if done.encoded:
        stdout().print(f"note: {done.encoded} fresh rows, kept as vectors, were encoded for it")


def run_tune(rig: RigConfig, choices: TuneChoices) -> bool:
    """Tunes and reports; whether the wanted recall is reached.

    Raises:
        RagrigError: what went wrong; the collection is as it was.
        KeyboardInterrupt: stopped by a signal; likewise.
    """
    rig = _current(rig)
    request = TuneRequest(
        data_dir=Path(rig.data_dir),
        collection=choices.collection,
        recall=choices.recall,
        k=choices.k,
        queries=choices.queries,
        truth=choices.truth,
        sample=choices.sample,
        threads=choices.threads or len(os.sched_getaffinity(0)),
    )
    with Bars() as bars:
        tuned = run_to_end(tune_collection(request, bars.report))
    show_tuned(stdout(), tuned, choices.recall, choices.k)
    served_by_rig(rig, tuned.manifest)
    return tuned.measured.reached


class Bars(IngestProgress):
    """Progress bars on standard error."""

    def __init__(self) -> None:
        super().__init__(stderr())

    @property
    def report(self) -> Progress:
        return lambda phase, done, total: self.update(Step(phase, done, total))


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(_until_signal(work))
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


async def _until_signal(work: Coroutine[Any, Any, T]) -> T:
    """SIGTERM ends the child and removes what is half done, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await work


def _current(rig: RigConfig) -> RigConfig:
    """The rig that runs on the data directory decides, not the file."""
    found = running_rig(rig.data_dir)
    return found.rig if found else rig


def served_by_rig(rig: RigConfig, manifest: Manifest) -> None:
    """The collection is committed whatever the rig does, so trouble is only told."""
    found = running_rig(rig.data_dir)
    if found is None:
        return
    try:
        wait_served(target_of(found), manifest.collection, manifest.generation)
    except RagrigError as error:
        print_error(f"the running rig does not serve it yet: {error.message}", error.hint)
    else:
        stdout().print(f"served at {found.state.url}")
