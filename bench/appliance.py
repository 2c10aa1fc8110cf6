"""A real rig over the demo's collection, for the length of one benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.common import note
from coordinator.collections.snapshot import Snapshot
from coordinator.demo.rig import demo_rig
from coordinator.demo.run import COLLECTION
from coordinator.ingest.spec import IngestSpec, IngestSummary, spec_to_json, summary_from_dict
from coordinator.ingest.stdlib_corpus import write_corpus
from coordinator.supervisor.commands import Programs
from coordinator.supervisor.ingestion import Progress, run_ingestion
from coordinator.supervisor.run import with_rig
from coordinator.supervisor.rundir import RunDir
from coordinator.supervisor.supervisor import Supervisor, SupervisorOptions
from ragschema.errors import Cancelled, Unavailable
from ragschema.rig import RigConfig
from ragschema.storage.manifest import collection_dir

_DEMO_DIR = Path(".ragrig/demo")
_TRAINING_THREADS = 2


@dataclass(frozen=True)
class Bench:
    """What a benchmark works with while its rig is up."""

    rig: RigConfig
    supervisor: Supervisor

    @property
    def directory(self) -> Path:
        """The collection's."""
        return collection_dir(Path(self.rig.data_dir), COLLECTION)

    @property
    def llm_address(self) -> str:
        """host:port of the embedder."""
        name = self.rig.llm_nodes[0].name
        found = next(v.address for v in self.supervisor.views() if v.name == name)
        assert found is not None, "the nodes are up"
        return found

    def snapshot(self) -> Snapshot:
        """The committed state; the caller closes it."""
        return Snapshot.open(self.directory)


def run_bench(
    data_dir: Path | None, body: Callable[[Bench], Awaitable[None]], programs: Programs
) -> None:
    """Starts the nodes, brings the collection up to date, runs ``body``, stops all.

    Raises:
        Cancelled: a signal came.
    """
    with _data_dir(data_dir) as folder:
        rig = demo_rig(folder)

        async def work(supervisor: Supervisor) -> None:
            note("starting the nodes")
            await supervisor.start_nodes()
            bench = Bench(rig, supervisor)
            await supervisor.or_failure(_ingest(bench))
            await body(bench)

        options = SupervisorOptions(programs=programs)
        if not asyncio.run(with_rig(rig, lambda view: None, work, options)):
            raise Cancelled("stopped by a signal")


@contextlib.contextmanager
def _data_dir(given: Path | None) -> Iterator[Path]:
    """The one that was named, else the demo's, else a temporary one."""
    if given is not None:
        yield given.expanduser().resolve()
    elif _DEMO_DIR.exists() and not RunDir.of(_DEMO_DIR).is_held():
        yield _DEMO_DIR.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="ragrig-bench-") as folder:
            yield Path(folder)


async def _ingest(bench: Bench) -> None:
    """Nothing but a comparison when the collection is up to date."""
    corpus = Path(bench.rig.data_dir) / "corpus"
    await asyncio.to_thread(write_corpus, corpus)
    spec = IngestSpec(
        data_dir=bench.rig.data_dir,
        collection=COLLECTION,
        llm_address=bench.llm_address,
        num_shards=bench.rig.num_shards,
        sources=(str(corpus),),
    )
    end = await run_ingestion(spec_to_json(spec), _TRAINING_THREADS, _Reporter())
    summary: IngestSummary = summary_from_dict(end.summary)
    if end.exit_code or summary.index != "ivfpq":
        raise Unavailable(
            f"the demo's collection has {summary.live_rows} rows and a {summary.index} index",
            hint="it needs 1000 rows or more; see the skipped documents",
        )


class _Reporter:
    """Says a phase's name when it begins."""

    def __init__(self) -> None:
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        if progress.phase != self._phase:
            self._phase = progress.phase
            note(f"ingesting: {progress.phase} ({progress.total})")
