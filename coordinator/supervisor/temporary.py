"""An LLM node for the time of one ingestion, when no rig runs."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from coordinator.supervisor.commands import Programs
from coordinator.supervisor.node import ManagedNode, NodeView, SupervisionPolicy
from coordinator.supervisor.rundir import RunDir
from coordinator.supervisor.specs import llm_spec
from ragschema.rig import LlmNodeConfig


def _quiet(_view: NodeView) -> None:
    """Nobody watches a node this short-lived."""


@contextlib.asynccontextmanager
async def temporary_embedder(
    node: LlmNodeConfig, threads: int, programs: Programs | None = None
) -> AsyncIterator[str]:
    """Starts a node with the embedder of ``node`` alone; gives its address.

    Raises:
        Unavailable: it does not start; the message ends with its log.
    """
    lone = replace(node, roles=("embed",), port=0, host="127.0.0.1", threads=threads)
    policy = SupervisionPolicy(max_failed_starts=1)
    with tempfile.TemporaryDirectory(prefix="ragrig-embedder-") as folder:
        run = RunDir(Path(folder))
        run.create()
        managed = ManagedNode(llm_spec(lone, run, programs or Programs()), run, policy, _quiet)
        supervising = asyncio.ensure_future(managed.supervise())
        ready = asyncio.ensure_future(managed.until_ready())
        try:
            await asyncio.wait({supervising, ready}, return_when=asyncio.FIRST_COMPLETED)
            if supervising.done():
                supervising.result()
            yield await ready
        finally:
            ready.cancel()
            supervising.cancel()
            await asyncio.wait({supervising, ready})
            await managed.stop(policy.grace_s)
