"""The pipeline in front of real retrieval node processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from coordinator.runtime import Runtime
from coordinator.types import FilterTerm, SearchOutcome, SearchSpec
from ragschema.errors import RagrigError
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from tests.coordinator.making import (
    DIM,
    FAST,
    FOLLOW,
    Content,
    context,
    unit_vectors,
    write_collection,
)
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeServer
from tests.retrieval_node.process import NodeProcess

ROWS = 300
VECTORS = unit_vectors(ROWS)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[NodeProcess]]:
    metadata = [{"odd": row % 2 == 1} for row in range(ROWS)]
    write_collection(tmp_path, "notes", Content(VECTORS, metadata=metadata))
    with ExitStack() as stack:
        started = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            started.append(stack.enter_context(NodeProcess(tmp_path, tmp_path / name)))
        yield started


def rig_of(tmp_path: Path, llm: FakeServer, nodes: list[NodeProcess]) -> RigConfig:
    return RigConfig(
        data_dir=str(tmp_path),
        llm_nodes=(LlmNodeConfig(name="llm-0", address=llm.address),),
        retrieval_nodes=tuple(
            RetrievalNodeConfig(name=f"ret-{i}", address=n.address) for i, n in enumerate(nodes)
        ),
    )


async def test_exact_answers_a_killed_node_and_its_return(
    tmp_path: Path, nodes: list[NodeProcess]
) -> None:
    async with FakeServer(FakeLlm("llm-0", DIM)) as llm:
        runtime = Runtime(rig_of(tmp_path, llm, nodes), FAST, FOLLOW)
        await runtime.open()
        try:
            await until(lambda: all(h.ready for h in runtime.pool.health()))
            await _answers_are_exact(runtime)
            await _no_request_hangs_when_a_node_dies(runtime, nodes[1].process.pid)
            port = nodes[1].address.rpartition(":")[2]
            (tmp_path / "again").mkdir()
            with NodeProcess(tmp_path, tmp_path / "again", "--port", port):
                await until(lambda: runtime.pool.health()[2].ready)
                await _covered(runtime)
                await _answers_are_exact(runtime)
        finally:
            await runtime.stop()


async def _search(runtime: Runtime, row: int, *terms: FilterTerm) -> SearchOutcome:
    spec = SearchSpec("notes", 10, vector=VECTORS[row], filters=terms)
    return await runtime.pipeline.search(spec, context())


async def _answers_are_exact(runtime: Runtime) -> None:
    outcomes = await asyncio.gather(*(_search(runtime, row) for row in range(40)))
    for row, outcome in enumerate(outcomes):
        far = -(VECTORS @ VECTORS[row])
        expected = np.lexsort((np.arange(ROWS), far))[:10]
        assert [h.chunk.row_id for h in outcome.hits] == expected.tolist()
        assert outcome.coverage.fraction == 1.0
    odd = await _search(runtime, 0, FilterTerm("odd", "in", (True,)))
    assert len(odd.hits) == 10
    assert all(h.chunk.row_id % 2 for h in odd.hits)


async def _no_request_hangs_when_a_node_dies(runtime: Runtime, pid: int) -> None:
    killed = asyncio.Event()

    async def client() -> list[float]:
        seen = []
        for number in range(1000):
            try:
                seen.append((await _search(runtime, number % ROWS)).coverage.fraction)
            except RagrigError as error:
                pytest.fail(f"a search was refused: {error}")
            if killed.is_set() and seen[-1] < 1.0:
                return seen
        return seen

    clients = [asyncio.create_task(client()) for _ in range(8)]
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    killed.set()
    for seen in await asyncio.wait_for(asyncio.gather(*clients), 60):
        assert set(seen) <= {0.5, 1.0}
        assert seen[-1] == 0.5
    outcome = await _search(runtime, 0)
    assert outcome.coverage.missing == ("shard-1",)


async def _covered(runtime: Runtime) -> None:
    """Returns once every shard answers again."""
    for _ in range(500):
        if (await _search(runtime, 0)).coverage.fraction == 1.0:
            return
        await asyncio.sleep(0.02)
    pytest.fail("coverage did not recover")
