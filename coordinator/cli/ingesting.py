"""One ``ragrig ingest``: an embedder, the ingestion, and the rig that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

from coordinator.cli.console import print_error, stderr, stdout
from coordinator.cli.progress import IngestProgress
from coordinator.cli.serving import wait_served
from coordinator.cli.summary import show_summary
from coordinator.cli.target import RunningRig, running_rig, target_of
from coordinator.ingest.spec import IngestSpec, spec_to_json, summary_from_dict
from coordinator.supervisor.ingestion import IngestionEnd, run_ingestion
from coordinator.supervisor.temporary import temporary_embedder
from ragschema.errors import RagrigError
from ragschema.rig import LlmNodeConfig, RigConfig
from ragschema.storage.manifest import ChunkingConfig
from ragschema.types import Metric

_MAX_THREADS = 16
_DEFAULTS = ChunkingConfig()


@dataclass(frozen=True)
class IngestChoices:
    """The options of the command; None: chosen by the ingestion.

    Attributes:
        sources: absolute paths.
        threads: of a temporary embedder and of index training.
        recall: what searches of the collection shall reach.
    """

    sources: tuple[str, ...]
    collection: str
    metric: str | None = None
    nlist: int | None = None
    m: int | None = None
    chunk_tokens: int | None = None
    chunk_overlap: int | None = None
    strict: bool = False
    prune: bool = True
    threads: int | None = None
    recall: float | None = None

    @property
    def chunking(self) -> ChunkingConfig | None:
        """None: the collection's own."""
        if self.chunk_tokens is None and self.chunk_overlap is None:
            return None
        tokens = self.chunk_tokens or _DEFAULTS.tokens
        overlap = self.chunk_overlap
        if overlap is None:
            overlap = min(_DEFAULTS.overlap, tokens // 4)
        return ChunkingConfig(tokens=tokens, overlap=overlap)

    @property
    def thread_count(self) -> int:
        """As many as this process may use, within reason."""
        return self.threads or min(_MAX_THREADS, len(os.sched_getaffinity(0)))


def make_spec(rig: RigConfig, choices: IngestChoices, llm_address: str) -> IngestSpec:
    """The ingestion's own terms."""
    return IngestSpec(
        data_dir=rig.data_dir,
        collection=choices.collection,
        llm_address=llm_address,
        num_shards=rig.num_shards,
        sources=choices.sources,
        metric=Metric(choices.metric) if choices.metric else None,
        nlist=choices.nlist,
        m=choices.m,
        chunking=choices.chunking,
        recall=choices.recall,
        prune=choices.prune,
        strict=choices.strict,
    )


def ingest_paths(rig: RigConfig, choices: IngestChoices) -> int:
    """Ingests, reports, waits until a running rig serves it; the exit code.

    Raises:
        RagrigError: what went wrong; the collection is then as it was.
        KeyboardInterrupt: stopped by a signal; likewise.
    """
    found = running_rig(rig.data_dir)
    rig = found.rig if found else rig
    try:
        end = asyncio.run(_until_signal(rig, choices, found))
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
    summary = summary_from_dict(end.summary)
    show_summary(stdout(), choices.collection, summary)
    if found is not None and summary.generation:
        _wait_for_rig(found, choices.collection, summary.generation)
    return end.exit_code


async def _until_signal(
    rig: RigConfig, choices: IngestChoices, found: RunningRig | None
) -> IngestionEnd:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    async with _embedder(rig, choices, running=found is not None) as address:
        spec = spec_to_json(make_spec(rig, choices, address))
        with IngestProgress(stderr()) as progress:
            return await run_ingestion(spec, choices.thread_count, progress.update)


@contextlib.asynccontextmanager
async def _embedder(rig: RigConfig, choices: IngestChoices, *, running: bool) -> AsyncIterator[str]:
    """The running rig's embedder or one started elsewhere, else one for this command."""
    node = embed_node(rig)
    if node.address is not None:
        yield node.address
        return
    assert not running, "a running rig's nodes all have addresses"
    with stderr().status("no rig is running: starting an embedder"):
        starting = temporary_embedder(node, choices.thread_count)
        address = await starting.__aenter__()
    try:
        yield address
    finally:
        await starting.__aexit__(None, None, None)


def embed_node(rig: RigConfig) -> LlmNodeConfig:
    """The LLM node that embeds; a rig always has one."""
    return next(node for node in rig.llm_nodes if "embed" in node.roles)


def _wait_for_rig(found: RunningRig, collection: str, generation: int) -> None:
    """The collection is committed whatever the rig does, so trouble is only told."""
    try:
        wait_served(target_of(found), collection, generation)
    except RagrigError as error:
        print_error(f"the running rig does not serve it yet: {error.message}", error.hint)
    else:
        stdout().print(f"served at {found.state.url}")
