"""Live searches compared with exact ones, behind real ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.recall import sampler as sampler_module
from coordinator.types import FilterTerm, SearchSpec
from ragschema.errors import UpstreamError
from ragschema.rig import CoordinatorConfig, RecallSamplingConfig
from tests.coordinator.making import (
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)
from tests.coordinator.waiting import until

ROWS = 400
VECTORS = unit_vectors(ROWS)
CENTROIDS = VECTORS[:16].copy()
ALL = RecallSamplingConfig(share=1.0, max_per_s=1000.0)


def content(refine: int | None = 4, **more: Any) -> Content:
    metadata = [{"year": 2000 + row % 2} for row in range(ROWS)]
    return Content(VECTORS, metadata=metadata, centroids=CENTROIDS, refine_factor=refine, **more)


@pytest.fixture(autouse=True)
def no_rest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons follow each other at once, but where the pause is what is tested."""
    if "pause" not in request.node.name:
        monkeypatch.setattr(sampler_module, "_REST", 0.0)


@asynccontextmanager
async def sampling(
    tmp_path: Path, config: RecallSamplingConfig = ALL, made: Content | None = None
) -> AsyncIterator[Stage]:
    write_collection(tmp_path, "notes", made or content())
    coordinator = replace(CoordinatorConfig(), recall_sampling=config)
    async with running_stage(tmp_path, coordinator=coordinator) as stage:
        yield stage


async def search(stage: Stage, row: int, nprobe: int | None = 1, **more: Any) -> list[int]:
    spec = SearchSpec("notes", 10, vector=VECTORS[row], nprobe=nprobe, **more)
    outcome = await stage.runtime.pipeline.search(spec, context())
    return [hit.chunk.row_id for hit in outcome.hits]


def samples(stage: Stage, outcome: str) -> float:
    value = stage.runtime.metrics.registry.get_sample_value(
        "ragrig_recall_samples_total", {"outcome": outcome}
    )
    return value or 0.0


async def compared(stage: Stage, times: int) -> None:
    await until(lambda: samples(stage, "compared") == times, f"{times} comparisons")


def gauge(stage: Stage, name: str) -> float | None:
    return stage.runtime.metrics.registry.get_sample_value(name, {"collection": "notes"})


def true_share(row: int, found: list[int], among: Any = None) -> float:
    rows = np.arange(ROWS) if among is None else among
    truth = rows[np.argsort(-(VECTORS[rows] @ VECTORS[row]), kind="stable")[:10]]
    return len({int(r) for r in truth} & set(found)) / 10


async def test_the_estimate_is_the_mean_recall_of_live_searches(tmp_path: Path) -> None:
    async with sampling(tmp_path) as stage:
        recalls = []
        for done, row in enumerate(range(0, 120, 10), start=1):
            recalls.append(true_share(row, await search(stage, row)))
            await compared(stage, done)
            await asyncio.sleep(0.002)  # past the rate limit
        assert 0.2 < np.mean(recalls) < 0.95
        assert gauge(stage, "ragrig_recall_estimate") == pytest.approx(np.mean(recalls))
        lower = gauge(stage, "ragrig_recall_lower_bound")
        assert lower is not None
        assert lower < np.mean(recalls)
        assert gauge(stage, "ragrig_recall_window_samples") == 12
        estimate = stage.runtime.pipeline.recall_estimates()["notes"]
        assert estimate.samples == 12
        exact = [b for n in stage.retrievals for b in n.batches if b.exact]
        assert len(exact) == 2 * 12
        assert all(b.list_ids is None and b.refine_k is None for b in exact)


async def test_a_filter_is_compared_under_the_filter(tmp_path: Path) -> None:
    async with sampling(tmp_path) as stage:
        found = await search(stage, 3, filters=(FilterTerm("year", "in", (2001,)),))
        await compared(stage, 1)
        assert true_share(3, found, np.arange(1, ROWS, 2)) == 1.0
        assert gauge(stage, "ragrig_recall_estimate") == 1.0


async def test_share_zero_compares_nothing(tmp_path: Path) -> None:
    async with sampling(tmp_path, RecallSamplingConfig(share=0.0)) as stage:
        await search(stage, 0)
        await asyncio.sleep(0.05)
        assert not any(b.exact for n in stage.retrievals for b in n.batches)
        assert gauge(stage, "ragrig_recall_estimate") is None
        text = stage.runtime.metrics.render().decode()
        assert "ragrig_recall_samples_total{" not in text


async def test_collections_without_vectors_are_counted(tmp_path: Path) -> None:
    async with sampling(tmp_path, made=content(refine=None)) as stage:
        await search(stage, 0)
        assert samples(stage, "no_vectors") == 1
        assert gauge(stage, "ragrig_recall_estimate") is None


async def test_exact_collections_need_no_estimate(tmp_path: Path) -> None:
    async with sampling(tmp_path, made=Content(VECTORS)) as stage:
        await search(stage, 0, nprobe=None)
        await asyncio.sleep(0.02)
        assert not any(b.exact for n in stage.retrievals for b in n.batches)


async def test_the_rate_is_kept(tmp_path: Path) -> None:
    async with sampling(tmp_path, RecallSamplingConfig(share=1.0, max_per_s=0.001)) as stage:
        for row in range(5):
            await search(stage, row)
        await compared(stage, 1)
        assert samples(stage, "dropped") == 4


async def test_a_long_comparison_is_followed_by_a_longer_pause(tmp_path: Path) -> None:
    async with sampling(tmp_path) as stage:
        for node in stage.retrievals:
            node.exact_pause_s = 0.3
        await search(stage, 0)
        await compared(stage, 1)
        for _ in range(5):
            await asyncio.sleep(0.02)
            await search(stage, 1)
        assert samples(stage, "dropped") == 5


async def test_a_slow_comparison_delays_no_search_and_is_given_up_at_the_end(
    tmp_path: Path,
) -> None:
    async with sampling(tmp_path) as stage:
        for node in stage.retrievals:
            node.exact_pause_s = 3600
        await search(stage, 0)
        await until(lambda: all(any(b.exact for b in n.batches) for n in stage.retrievals))
        for row in range(1, 40):
            await asyncio.wait_for(search(stage, row), 5)
            await asyncio.sleep(0.002)
        # One is under way, eight wait, the rest was dropped.
        assert samples(stage, "dropped") == 31
        assert samples(stage, "compared") == 0
        live = stage.runtime.catalog.use("notes")
        assert live.users == 9
    assert live.users == 0
    assert all(node.cancelled == 1 for node in stage.retrievals)


async def test_a_failed_comparison_is_counted_and_the_next_one_is_made(tmp_path: Path) -> None:
    async with sampling(tmp_path) as stage:
        for node in stage.retrievals:
            node.exact_failure = UpstreamError("the device is stuck")
        await search(stage, 0)
        await until(lambda: samples(stage, "partial") == 1)
        for node in stage.retrievals:
            node.exact_failure = None
        await asyncio.sleep(0.002)
        await search(stage, 0)
        await compared(stage, 1)
        assert stage.runtime.catalog.use("notes").users == 0


async def test_a_defect_stops_neither_searches_nor_the_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    async with sampling(tmp_path) as stage:
        monkeypatch.setattr(sampler_module, "recall_of", broken)
        await search(stage, 0)
        await until(lambda: samples(stage, "failed") == 1)
        assert len(await search(stage, 1)) > 0
        await until(lambda: stage.runtime.catalog.use("notes").users == 0)


async def test_it_waits_for_a_quiet_moment_and_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_module, "_PATIENCE_S", 0.05)
    async with sampling(tmp_path) as stage:
        monkeypatch.setattr(stage.runtime.pipeline._sampler, "_busy", lambda: True)
        await search(stage, 0)
        await until(lambda: samples(stage, "dropped") == 1)
        assert not any(b.exact for n in stage.retrievals for b in n.batches)


async def test_answers_in_part_are_not_compared(tmp_path: Path) -> None:
    async with sampling(tmp_path) as stage:
        await stage.kill("ret-1")
        await search(stage, 0)
        assert samples(stage, "partial") == 1


async def test_another_index_starts_afresh_and_a_dropped_collection_is_forgotten(
    tmp_path: Path,
) -> None:
    async with sampling(tmp_path) as stage:
        await search(stage, 0)
        await compared(stage, 1)
        write_collection(tmp_path, "notes", content())
        await stage.runtime.catalog.refresh("notes")
        await asyncio.sleep(0.002)
        await search(stage, 0)
        await compared(stage, 2)
        assert gauge(stage, "ragrig_recall_window_samples") == 1
        stage.runtime.store.drop("notes")
        await stage.runtime.catalog.refresh("notes")
        assert gauge(stage, "ragrig_recall_estimate") is None
        assert stage.runtime.pipeline.recall_estimates() == {}
