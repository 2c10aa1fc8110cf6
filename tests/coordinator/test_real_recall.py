"""Recall, filters and the sampler in front of real retrieval nodes and a real index."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.collections.commit import commit
from coordinator.runtime import Runtime
from coordinator.types import FilterTerm, RetrievalReport, SearchSpec
from ragschema.rig import (
    CoordinatorConfig,
    LlmNodeConfig,
    RecallSamplingConfig,
    RetrievalNodeConfig,
    RigConfig,
)
from ragschema.storage.manifest import Manifest, file_ref
from ragschema.types import Metric
from retrieval_node.build import build
from retrieval_node.build_spec import BuildSpec, IndexChoice, TrainSpec
from tests.coordinator.making import DIM, FAST, FOLLOW, Content, context, write_collection
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeServer
from tests.retrieval_node.making import clustered, index_ref
from tests.retrieval_node.process import NodeProcess

ROWS, QUERIES, K = 6000, 60, 10
VECTORS = clustered(ROWS + QUERIES, DIM, 5)
ASKED = VECTORS[ROWS:]
EVERYTHING = np.ones(ROWS, bool)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection ``notes``: two shards, 64 lists, refined, with its curve."""
    path = tmp_path_factory.mktemp("data")
    metadata = [{"row": row, "tenth": row % 10, "cent": row % 100} for row in range(ROWS)]
    content = Content(VECTORS[:ROWS], metric=Metric.L2, metadata=metadata)
    plain = write_collection(path, "notes", content)
    _commit_index(path / "collections" / "notes", plain)
    return path


def _commit_index(directory: Path, plain: Manifest) -> None:
    """The next generation: the same rows and texts, with codes in place of vectors."""
    vectors = directory.parent / "vectors.npy"
    np.save(vectors, VECTORS[:ROWS])
    spec = BuildSpec(
        collection_dir=str(directory),
        segment_id="seg-000002",
        row_start=0,
        vectors=str(vectors),
        metric=Metric.L2,
        num_shards=2,
        index=IndexChoice(train=TrainSpec("idx-000002", nlist=64, m=4, refine=True, measure=True)),
        refine=True,
        threads=1,
    )
    built = build(spec, lambda *_: None)
    texts = directory / "segments" / "seg-000002" / "texts.sqlite"
    shutil.copyfile(directory / plain.segments[0].texts.path, texts)
    segment = replace(
        plain.segments[0],
        id="seg-000002",
        shards=tuple(file_ref(directory, directory / shard) for shard in built.shards),
        texts=file_ref(directory, texts),
    )
    index = index_ref(directory, built)
    assert index is not None
    assert index.curve, "building measures the curve"
    commit(directory, replace(plain, generation=2, index=index, segments=(segment,)), plain)


@pytest.fixture(scope="module")
def nodes(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                NodeProcess(data_dir, tmp_path_factory.mktemp(name), "--backend", "simd")
            )
            for name in ("a", "b")
        ]


@pytest.fixture
async def runtime(data_dir: Path, nodes: list[NodeProcess]) -> AsyncIterator[Runtime]:
    async with FakeServer(FakeLlm("llm-0", DIM)) as llm:
        rig = RigConfig(
            data_dir=str(data_dir),
            coordinator=CoordinatorConfig(
                recall_sampling=RecallSamplingConfig(share=1.0, max_per_s=1000.0)
            ),
            llm_nodes=(LlmNodeConfig(name="llm-0", address=llm.address),),
            retrieval_nodes=tuple(
                RetrievalNodeConfig(name=f"ret-{i}", backend="simd", address=n.address)
                for i, n in enumerate(nodes)
            ),
        )
        running = Runtime(rig, FAST, FOLLOW)
        await running.open()
        try:
            await until(lambda: all(h.ready for h in running.pool.health()), "readiness")
            yield running
        finally:
            await running.stop()


async def search(runtime: Runtime, query: Any, **more: Any) -> tuple[list[int], RetrievalReport]:
    outcome = await runtime.pipeline.search(SearchSpec("notes", K, vector=query, **more), context())
    assert outcome.coverage.fraction == 1.0
    return [hit.chunk.row_id for hit in outcome.hits], outcome.retrieval


async def recall(runtime: Runtime, among: Any = EVERYTHING, **more: Any) -> float:
    """Mean over the queries, against exact answers among the rows that pass."""
    rows = np.flatnonzero(among)
    shares = []
    for query in ASKED:
        far = ((VECTORS[rows] - query) ** 2).sum(1)
        truth = {int(r) for r in rows[np.argsort(far, kind="stable")[:K]]}
        found, _ = await search(runtime, query, **more)
        assert set(found) <= set(rows.tolist())
        shares.append(len(truth & set(found)) / len(truth))
    return float(np.mean(shares))


def passes(field: str, value: int) -> tuple[FilterTerm, ...]:
    return (FilterTerm(field, "in", (value,)),)


async def test_a_wanted_recall_is_reached(runtime: Runtime) -> None:
    _, low = await search(runtime, ASKED[0], recall=0.6)
    _, high = await search(runtime, ASKED[0], recall=0.95)
    assert low.recall_reached
    assert high.recall_reached
    assert low.nprobe is not None
    assert high.nprobe is not None
    assert low.nprobe <= high.nprobe
    # 60 queries of 10 rows: three standard deviations are about 0.03.
    assert await recall(runtime, recall=0.95) >= 0.95 - 0.03


@pytest.mark.parametrize("field", ["tenth", "cent"])
async def test_filters_cost_no_recall(runtime: Runtime, field: str) -> None:
    plain = await recall(runtime, nprobe=2)
    share = {"tenth": 10, "cent": 100}[field]
    among = np.arange(ROWS) % share == 3
    assert await recall(runtime, among, nprobe=2, filters=passes(field, 3)) >= plain


async def test_rare_rows_are_found(runtime: Runtime) -> None:
    few = tuple(range(0, ROWS, 1000))
    among = np.isin(np.arange(ROWS), few)
    terms = (FilterTerm("row", "in", few),)
    assert await recall(runtime, among, nprobe=1, filters=terms) == 1.0
    for row in (0, 4321, ROWS - 1):
        found, report = await search(runtime, ASKED[0], nprobe=1, filters=passes("row", row))
        assert found == [row]
        assert report.lists_probed == 64
        assert report.filter_selectivity == pytest.approx(1 / ROWS)
        assert not report.filter_limited


async def test_live_searches_are_compared_with_exact_ones(runtime: Runtime) -> None:
    registry = runtime.metrics.registry

    def compared() -> float:
        labels = {"outcome": "compared"}
        return registry.get_sample_value("ragrig_recall_samples_total", labels) or 0.0

    await search(runtime, ASKED[0], nprobe=64)
    await until(lambda: compared() == 1)
    estimate = runtime.pipeline.recall_estimates()["notes"]
    assert estimate.samples == 1
    assert estimate.mean >= 0.8
    shown = registry.get_sample_value("ragrig_recall_estimate", {"collection": "notes"})
    assert shown == estimate.mean
