"""Commits become visible, without a gap and without a restart."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from coordinator.types import SearchSpec
from ragschema.errors import CorruptData, NotFound, RagrigError
from ragschema.storage.manifest import MANIFEST_NAME
from ragschema.types import SnapshotId
from tests.coordinator.making import (
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)
from tests.coordinator.waiting import until

VECTORS = unit_vectors(20)


def content(rows: int) -> Content:
    return Content(VECTORS[:rows])


async def count(stage: Stage, name: str = "notes") -> int:
    spec = SearchSpec(name, 100, vector=VECTORS[0], min_coverage=1.0)
    return len((await stage.runtime.pipeline.search(spec, context())).hits)


async def test_a_commit_by_another_process_is_served_soon(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        catalog = stage.runtime.catalog
        assert catalog.names() == []
        write_collection(tmp_path, "notes", content(4))
        await until(lambda: catalog.names() == ["notes"])
        assert await count(stage) == 4
        write_collection(tmp_path, "notes", content(9))
        await until(lambda: catalog.current("notes").id.generation == 2)
        assert await count(stage) == 9


async def test_refresh_serves_what_was_committed_before_it(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        for rows in (3, 5, 7):
            write_collection(tmp_path, "notes", content(rows))
            await stage.runtime.catalog.refresh("notes")
            assert await count(stage) == rows


async def test_requests_go_on_while_generations_change(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(10))
    async with running_stage(tmp_path) as stage:
        stop = False
        seen: set[int] = set()

        async def searches() -> int:
            done = 0
            while not stop:
                spec = SearchSpec("notes", 100, vector=VECTORS[0], min_coverage=1.0)
                outcome = await stage.runtime.pipeline.search(spec, context())
                seen.add(outcome.generation)
                assert len(outcome.hits) == (10 if outcome.generation % 2 else 20)
                done += 1
            return done

        tasks = [asyncio.create_task(searches()) for _ in range(4)]
        for generation in range(2, 8):
            write_collection(tmp_path, "notes", content(10 if generation % 2 else 20))
            await stage.runtime.catalog.refresh("notes")
            await until(lambda generation=generation: generation in seen)
        stop = True
        assert sum(await asyncio.gather(*tasks)) > 0
        # Nothing of the old generations stays on the nodes.
        for node in stage.retrievals:
            await until(lambda node=node: list(node.loaded) == [SnapshotId("notes", 7)])


async def test_a_lease_keeps_its_snapshot_open_and_loaded(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(4))
    async with running_stage(tmp_path) as stage:
        catalog = stage.runtime.catalog
        with catalog.use("notes") as live:
            for rows in (5, 6):
                write_collection(tmp_path, "notes", content(rows))
                await catalog.refresh("notes")
            await asyncio.sleep(0.3)  # well past the grace
            assert live.snapshot.chunks([3])[0] is not None
            assert SnapshotId("notes", 1) in stage.retrievals[0].loaded
        await until(lambda: list(stage.retrievals[0].loaded) == [SnapshotId("notes", 3)])


async def test_a_dropped_collection_is_gone_at_once(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(4))
    async with running_stage(tmp_path) as stage:
        stage.runtime.store.drop("notes")
        await stage.runtime.catalog.refresh("notes")
        with pytest.raises(NotFound):
            stage.runtime.catalog.current("notes")
        assert stage.runtime.catalog.errors() == {}
        await until(lambda: not stage.retrievals[0].loaded)


async def test_a_broken_collection_is_reported_and_disturbs_no_other(tmp_path: Path) -> None:
    write_collection(tmp_path, "good", content(4))
    write_collection(tmp_path, "bad", content(4))
    (shard,) = (tmp_path / "collections/bad/segments").glob("*/shard-0.rag")
    raw = bytearray(shard.read_bytes())
    raw[20] ^= 1  # in the head, which is read before anything is served
    shard.write_bytes(raw)
    async with running_stage(tmp_path) as stage:
        catalog = stage.runtime.catalog
        assert catalog.names() == ["good"]
        assert str(shard) in str(catalog.errors()["bad"])
        with pytest.raises(CorruptData, match=r"shard-0\.rag") as raised:
            catalog.current("bad")
        assert raised.value is not catalog.errors()["bad"]
        assert await count(stage, "good") == 4
        raw[20] ^= 1  # in the head, which is read before anything is served
        shard.write_bytes(raw)
        await until(lambda: "bad" in catalog.names(), "the mended collection")
        assert catalog.errors() == {}
        assert await count(stage, "bad") == 4


async def test_a_broken_commit_leaves_the_one_before_in_service(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(4))
    async with running_stage(tmp_path) as stage:
        catalog = stage.runtime.catalog
        (tmp_path / "collections/notes" / MANIFEST_NAME).write_text("{}")
        await until(lambda: "notes" in catalog.errors())
        assert await count(stage) == 4
        shutil.rmtree(tmp_path / "collections/notes")
        await until(lambda: catalog.names() == [])
        assert catalog.errors() == {}


async def test_a_node_away_during_a_commit_gets_the_new_generation(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(4))
    async with running_stage(tmp_path) as stage:
        await stage.kill("ret-1")
        write_collection(tmp_path, "notes", content(8))
        await stage.runtime.catalog.refresh("notes")
        outcome = await stage.runtime.pipeline.search(
            SearchSpec("notes", 9, vector=VECTORS[0]), context()
        )
        assert (outcome.generation, outcome.coverage.missing) == (2, ("shard-1",))
        await stage.restart("ret-1")
        await until(lambda: SnapshotId("notes", 2) in stage.retrievals[1].loaded)


async def test_deleted_documents_are_not_found_after_refresh(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(6))
    async with running_stage(tmp_path) as stage:
        stage.runtime.store.delete_documents("notes", ["doc-0000"])
        await stage.runtime.catalog.refresh("notes")
        spec = SearchSpec("notes", 6, vector=VECTORS[0], min_coverage=1.0)
        outcome = await stage.runtime.pipeline.search(spec, context())
        assert {h.chunk.row_id for h in outcome.hits} == {1, 2, 3, 4, 5}
        assert outcome.coverage.fraction == 1.0


async def test_many_refreshes_at_once_agree(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(6))
    async with running_stage(tmp_path) as stage:
        write_collection(tmp_path, "notes", content(7))
        catalog = stage.runtime.catalog
        await asyncio.gather(*(catalog.refresh("notes") for _ in range(10)), catalog.refresh())
        assert await count(stage) == 7


async def test_an_ivf_collection_is_probed(tmp_path: Path) -> None:
    centroids = unit_vectors(5, seed=3)
    write_collection(tmp_path, "notes", Content(VECTORS, centroids=centroids, refine_factor=4))
    async with running_stage(tmp_path) as stage:
        spec = SearchSpec("notes", 3, vector=VECTORS[0], nprobe=50)
        outcome = await stage.runtime.pipeline.search(spec, context())
        batch = stage.retrievals[0].batches[0]
        order = np.argsort(-(centroids @ VECTORS[0]), kind="stable")
        assert batch.list_ids is not None
        assert batch.list_ids[0].tolist() == order.tolist()  # no more lists than there are
        assert batch.refine_k == 12
        assert outcome.timings.probe_ms is not None
        await stage.runtime.pipeline.search(SearchSpec("notes", 3, vector=VECTORS[0]), context())
        batch = stage.retrievals[0].batches[1]
        assert batch.list_ids is not None
        assert batch.list_ids.shape == (1, 2)  # the collection's own setting


async def test_errors_of_all_kinds_have_a_copy_of_their_own(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", content(4))
    (tmp_path / "collections/notes" / MANIFEST_NAME).write_text("{}")
    async with running_stage(tmp_path) as stage:
        catalog = stage.runtime.catalog
        raised: list[RagrigError] = []
        for _ in range(2):
            with pytest.raises(RagrigError) as caught:
                catalog.use("notes")
            raised.append(caught.value)
        assert raised[0] is not raised[1]


async def test_queries_of_a_rotated_index_are_rotated_first(tmp_path: Path) -> None:
    vectors = unit_vectors(40)
    centroids = vectors[:8].copy()
    rotation = np.roll(np.eye(vectors.shape[1], dtype=np.float32), 1, axis=0)
    write_collection(tmp_path, "notes", Content(vectors, centroids=centroids, rotation=rotation))
    async with running_stage(tmp_path) as stage:
        coarse = stage.runtime.catalog.use("notes").coarse
        assert coarse is not None
        turned = np.roll(vectors[9], 1)
        expected = np.argsort(-(centroids @ turned), kind="stable")[:3]
        assert coarse.nearest(vectors[9:10], 3)[0].tolist() == expected.tolist()
        assert expected.tolist() != np.argsort(-(centroids @ vectors[9]))[:3].tolist()
