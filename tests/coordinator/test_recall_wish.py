"""Recall, nprobe and filters from a request to what the nodes are asked and the answer tells."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.types import FilterTerm, QuerySpec, RetrievalEvent, RetrievalReport, SearchSpec
from ragschema.errors import IncompatibleRequest
from ragschema.rig import CoordinatorConfig, LimitsConfig
from ragschema.storage.manifest import CurvePoint
from tests.coordinator.making import (
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)

ROWS, NLIST = 600, 16
VECTORS = unit_vectors(ROWS)
CENTROIDS = VECTORS[:NLIST].copy()
CURVE = (
    CurvePoint(1, 2, 0.50, 40),
    CurvePoint(5, 2, 0.90, 200),
    CurvePoint(9, 2, 0.98, 360),
)


def indexed(**more: Any) -> Content:
    """Row r is of year r; list l of the index holds the rows nearest to row l."""
    values: dict[str, Any] = {"curve": CURVE, "refine_factor": 2, **more}
    metadata = [{"year": row} for row in range(ROWS)]
    return Content(VECTORS, metadata=metadata, centroids=CENTROIDS, **values)


async def report(stage: Stage, **more: Any) -> RetrievalReport:
    spec = SearchSpec("notes", 10, vector=VECTORS[100], **more)
    return (await stage.runtime.pipeline.search(spec, context())).retrieval


async def test_a_wanted_recall_sets_what_the_nodes_do(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", indexed())
    async with running_stage(tmp_path) as stage:
        told = await report(stage, recall=0.9)
        assert told == RetrievalReport(5, 20, 0.9, True, 5)
        batch = stage.retrievals[0].batches[-1]
        assert batch.list_ids is not None
        assert batch.list_ids.shape == (1, 5)
        assert batch.refine_k == 20
        told = await report(stage, recall=0.999)
        assert (told.nprobe, told.recall_expected, told.recall_reached) == (9, 0.98, False)
        told = await report(stage, nprobe=500)
        assert told == RetrievalReport(NLIST, 20, 0.98, None, NLIST)


async def test_a_collection_s_own_recall_holds_for_questions_too(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", indexed(recall=0.7))
    async with running_stage(tmp_path) as stage:
        spec = QuerySpec(SearchSpec("notes", 3, vector=VECTORS[0]), "why?")
        events = [event async for event in stage.runtime.pipeline.query(spec, context())]
        assert isinstance(events[0], RetrievalEvent)
        told = events[0].outcome.retrieval
        assert (told.nprobe, told.recall_reached) == (3, True)
        assert events[-1].retrieval == told  # type: ignore[union-attr]


async def test_an_index_without_a_curve_refuses_a_recall(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", indexed(curve=()))
    async with running_stage(tmp_path) as stage:
        with pytest.raises(IncompatibleRequest, match="notes") as refused:
            await report(stage, recall=0.9)
        assert refused.value.hint is not None
        assert "ragrig index tune" in refused.value.hint
        assert not stage.retrievals[0].batches
        assert (await report(stage)).recall_expected is None


async def test_an_exact_collection_reaches_any_recall(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage:
        assert await report(stage, recall=1.0) == RetrievalReport(None, None, 1.0, True)
        assert (await report(stage)).recall_reached is None


async def test_different_wishes_of_one_moment_share_a_call(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", indexed())
    async with running_stage(tmp_path) as stage:
        wishes: list[dict[str, Any]] = [{"nprobe": 4}, {"nprobe": 12}, {"recall": 0.9}]
        told = await asyncio.gather(*(report(stage, **wish) for wish in wishes))
        assert [t.lists_probed for t in told] == [4, 12, 5]
        (batch,) = stage.retrievals[0].batches
        assert batch.list_ids is not None
        assert (batch.list_ids >= 0).sum(axis=1).tolist() == [4, 12, 5]


async def test_a_filter_finds_its_rows_and_is_told(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", indexed())
    rare = (FilterTerm("year", "in", (77,)),)
    async with running_stage(tmp_path) as stage:
        spec = SearchSpec("notes", 5, vector=VECTORS[100], filters=rare, nprobe=1)
        outcome = await stage.runtime.pipeline.search(spec, context())
        assert [hit.chunk.row_id for hit in outcome.hits] == [77]
        told = outcome.retrieval
        assert told.filter_selectivity == pytest.approx(1 / ROWS)
        assert (told.nprobe, told.lists_probed, told.filter_limited) == (1, NLIST, False)
        nobody = (FilterTerm("year", "gt", (10**6,)),)
        told = await report(stage, filters=nobody)
        assert (told.filter_selectivity, told.filter_limited) == (0.0, False)


async def test_the_rig_s_limit_is_kept_and_told(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", indexed())
    coordinator = CoordinatorConfig(limits=LimitsConfig(max_filter_probe_share=0.25))
    async with running_stage(tmp_path, coordinator=coordinator) as stage:
        list_of = (VECTORS @ CENTROIDS.T).argmax(axis=1)
        ranked = np.argsort(-(CENTROIDS @ VECTORS[100]))
        far = int(np.flatnonzero(list_of == ranked[-1])[0])
        told = await report(stage, nprobe=2, filters=(FilterTerm("year", "in", (far,)),))
        assert (told.lists_probed, told.filter_limited) == (4, True)
