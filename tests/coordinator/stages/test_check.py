"""Coverage that a caller asks for."""

from __future__ import annotations

import pytest

from coordinator.stages.check import check_coverage, list_count, refine_count
from coordinator.types import Coverage, SearchSpec
from ragschema.errors import InsufficientCoverage
from ragschema.storage.manifest import ChunkingConfig, FileRef, IndexRef, Manifest
from ragschema.types import Metric


@pytest.mark.parametrize(("fraction", "wanted"), [(1.0, 1.0), (0.5, 0.5), (0.01, 0.0)])
def test_enough_is_enough(fraction: float, wanted: float) -> None:
    check_coverage(Coverage(fraction), wanted)


@pytest.mark.parametrize(("fraction", "wanted"), [(0.49, 0.5), (0.0, 0.0)])
def test_too_little_names_what_is_missing(fraction: float, wanted: float) -> None:
    with pytest.raises(InsufficientCoverage, match="shard-3") as refused:
        check_coverage(Coverage(fraction, ("shard-3",)), wanted)
    assert refused.value.field == "min_coverage"


def manifest(index: IndexRef | None) -> Manifest:
    return Manifest(
        1, "c", 1, "now", Metric.L2, 4, 1, None, ChunkingConfig(), index, (), None, 9, 9, 9
    )


def index(refine_factor: int | None) -> IndexRef:
    return IndexRef(FileRef("index/a.rag", 1, 1), 16, 2, 4, refine_factor)


@pytest.mark.parametrize(("asked", "scanned"), [(None, 4), (1, 1), (16, 16), (500, 16)])
def test_lists_are_bounded_by_those_there_are(asked: int | None, scanned: int) -> None:
    assert list_count(SearchSpec("c", 5, nprobe=asked), manifest(index(None))) == scanned


def test_an_exact_collection_neither_probes_nor_refines() -> None:
    spec = SearchSpec("c", 5, nprobe=3)
    assert list_count(spec, manifest(None)) == 0
    assert refine_count(spec, manifest(None)) is None
    assert refine_count(spec, manifest(index(None))) is None


@pytest.mark.parametrize(("k", "candidates"), [(1, 8), (10, 80), (1000, 4096)])
def test_refinement_is_bounded_by_what_a_node_takes(k: int, candidates: int) -> None:
    assert refine_count(SearchSpec("c", k), manifest(index(8))) == candidates
