from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_node.config import LlmOptions
from llm_node.device.scheduler import Device, Lane
from llm_node.index_scan.index_id import IndexId
from llm_node.index_scan.scanner import IndexScanner
from llm_node.node import load_node
from ragschema.errors import CorruptData, IncompatibleRequest, InvalidInput, NotFound, Overloaded
from ragschema.storage.manifest import Manifest
from ragschema.types import Metric, Role
from tests.coordinator.making import Content, unit_vectors, write_collection

CENTROIDS = unit_vectors(12, seed=2)
QUERIES = unit_vectors(5, seed=3)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_collection(
        tmp_path, "notes", Content(unit_vectors(40), metric=Metric.L2, centroids=CENTROIDS)
    )


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    device = Device("cpu")
    device.start()
    yield device.lane("index_scan", max_waiting=1)
    await device.close()


def id_of(manifest: Manifest) -> IndexId:
    assert manifest.index is not None
    return IndexId(manifest.collection, manifest.index.file.path, manifest.index.file.crc32)


async def test_it_scans_what_the_manifest_names(
    tmp_path: Path, manifest: Manifest, lane: Lane
) -> None:
    scanner = IndexScanner(tmp_path, "cpu", lane)
    done = await scanner.scan(id_of(manifest), QUERIES, 3)
    far = ((QUERIES[:, None].astype(np.float64) - CENTROIDS) ** 2).sum(2)
    assert done.lists.tolist() == far.argsort(axis=1)[:, :3].tolist()
    assert (await scanner.scan(id_of(manifest), QUERIES, 99)).lists.shape == (5, 12)
    # Kept: the file is not looked at again.
    (tmp_path / "collections" / "notes" / id_of(manifest).path).unlink()
    assert (await scanner.scan(id_of(manifest), QUERIES, 1)).lists.shape == (5, 1)


async def test_another_index_and_a_damaged_one_are_told(
    tmp_path: Path, manifest: Manifest, lane: Lane
) -> None:
    scanner = IndexScanner(tmp_path, "cpu", lane)
    index = id_of(manifest)
    for wrong in (replace(index, crc32=index.crc32 ^ 1), replace(index, path="../secret")):
        with pytest.raises(NotFound, match="is not the index of 'notes'"):
            await scanner.scan(wrong, QUERIES, 1)
    with pytest.raises(NotFound, match="no collection 'other'"):
        await scanner.scan(replace(index, collection="other"), QUERIES, 1)
    with pytest.raises(InvalidInput):
        await scanner.scan(replace(index, collection="../notes"), QUERIES, 1)
    with pytest.raises(InvalidInput, match="3 numbers"):
        await scanner.scan(index, QUERIES[:, :3], 1)
    path = tmp_path / "collections" / "notes" / index.path
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(CorruptData):
        await IndexScanner(tmp_path, "cpu", lane).scan(index, QUERIES, 1)


async def test_too_many_calls_are_refused(tmp_path: Path, manifest: Manifest, lane: Lane) -> None:
    scanner = IndexScanner(tmp_path, "cpu", lane)
    calls = [scanner.scan(id_of(manifest), QUERIES, 1) for _ in range(3)]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, Overloaded) for one in done] == [False, False, True]
    assert (lane.running, lane.waiting) == (0, 0)


async def test_a_node_that_only_scans(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="index_scan has no collections"):
        await load_node(LlmOptions("n", roles=(Role.INDEX_SCAN,)))
    node = await load_node(LlmOptions("n", roles=(Role.INDEX_SCAN,), data_dir=tmp_path))
    assert [model.name for model in node.models()] == ["index_scan:cpu"]
    assert node.capabilities() == ["tokenize", "index_scan"]
    await node.close()
    other = await load_node(LlmOptions("n", roles=(Role.GENERATE,)))
    with pytest.raises(IncompatibleRequest, match="role index_scan"):
        _ = other.scanner
    await other.close()


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no device 'cuda:77'"):
        IndexScanner(tmp_path, "cuda:77", Device("cuda:77").lane("index_scan"))
