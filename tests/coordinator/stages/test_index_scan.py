"""The probe on a node, and without it when the node cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.types import SearchSpec
from ragschema.errors import NotFound
from ragschema.types import Metric
from tests.coordinator.making import (
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)

ROWS = 60
VECTORS = unit_vectors(ROWS)
CENTROIDS = unit_vectors(8, seed=1)


def _scanning(llms: Any, _: Any) -> None:
    for llm in llms:
        llm.roles = ("embed", "generate", "index_scan")
        llm.centroids = CENTROIDS
        llm.reset()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    write_collection(tmp_path, "notes", Content(VECTORS, Metric.L2, centroids=CENTROIDS))
    async with running_stage(tmp_path, prepare=_scanning) as running:
        yield running


async def _rows(stage: Stage, nprobe: int = 3) -> list[list[int]]:
    found = []
    for row in range(5):
        spec = SearchSpec("notes", 6, vector=VECTORS[row], nprobe=nprobe)
        outcome = await stage.runtime.pipeline.search(spec, context())
        found.append([hit.chunk.row_id for hit in outcome.hits])
    return found


async def test_the_node_s_lists_are_searched(stage: Stage) -> None:
    there = await _rows(stage)
    (llm,) = stage.llms
    assert len(llm.scans) == 5
    assert {scan.nprobe for scan in llm.scans} == {3}
    assert {scan.collection for scan in llm.scans} == {"notes"}
    llm.scan_failure = NotFound("another index")
    assert await _rows(stage) == there
    assert len(llm.scans) == 10
    lists = [np.asarray(batch.list_ids) for node in stage.retrievals for batch in node.batches]
    assert len(lists) == 20
    assert all(one.shape == (1, 3) for one in lists)


async def test_lists_that_do_not_exist_are_found_here(stage: Stage) -> None:
    expected = await _rows(stage)
    stage.llms[0].centroids = unit_vectors(20, seed=1)
    assert await _rows(stage) == expected


async def test_more_lists_than_there_are_is_all_of_them(stage: Stage) -> None:
    assert [rows[0] for rows in await _rows(stage, nprobe=500)] == list(range(5))
    assert stage.llms[0].scans[-1].nprobe == 8


async def test_a_rig_without_the_role_probes_here(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS, Metric.L2, centroids=CENTROIDS))
    async with running_stage(tmp_path) as running:
        assert len((await _rows(running))[0]) == 6
        assert running.llms[0].scans == []
