"""What is taken of a faiss file, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragschema.errors import CorruptData, InvalidInput, NotFound
from ragschema.types import Metric
from retrieval_node.interop.faiss_file import open_index
from retrieval_node.interop.faiss_parts import FaissParts, take_apart
from tests.retrieval_node.interop.cases import Case, build, ivf_of
from tests.retrieval_node.making import clustered


def _taken(index: Any, tmp_path: Path) -> FaissParts:
    path = tmp_path / "index.faiss"
    faiss.write_index(index, str(path))
    return take_apart(open_index(path))


def test_arrays_are_those_of_the_index(tmp_path: Path) -> None:
    index, _ = build(Case("OPQ4_8,IVF4,PQ4", n=400, dim=16, metric=Metric.IP, nprobe=3))
    parts = _taken(index, tmp_path)
    ivf = ivf_of(index)
    assert (parts.metric, parts.input_dim, parts.nlist, parts.m) == (Metric.IP, 16, 4, 4)
    assert (parts.residual, parts.nprobe, parts.refine_factor) == (True, 3, None)
    np.testing.assert_array_equal(parts.centroids, ivf.quantizer.reconstruct_n(0, 4))
    assert parts.rotation is not None
    assert parts.rotation.shape == (8, 16)
    assert parts.offset is None
    total = 0
    for number in range(4):
        rows, codes = parts.list_rows(number)
        assert (np.diff(rows) > 0).all()
        size = ivf.invlists.list_size(number)
        ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
        stored = faiss.rev_swig_ptr(ivf.invlists.get_codes(number), size * 4).reshape(-1, 4)
        np.testing.assert_array_equal(parts.ids[rows], np.sort(ids))
        np.testing.assert_array_equal(codes, stored[np.argsort(ids)])
        total += len(rows)
    assert total == 400


def test_stored_vectors_follow_their_rows_through_an_id_map(tmp_path: Path) -> None:
    inner, vectors = build(Case("IVF4,PQ4,RFlat", n=300, dim=8))
    inner.k_factor = 2.5
    inner.reset()
    mapped = faiss.IndexIDMap2(inner)
    ids = np.random.default_rng(3).permutation(1000)[:300]
    mapped.add_with_ids(vectors, ids)
    parts = _taken(mapped, tmp_path)
    order = np.argsort(ids)
    np.testing.assert_array_equal(parts.ids, ids[order])
    assert parts.vectors is not None
    np.testing.assert_array_equal(parts.vectors, vectors[order])
    assert parts.refine_factor == 3, "no fewer candidates than faiss takes"


def test_lists_chosen_through_a_graph_are_noted(tmp_path: Path) -> None:
    index, _ = build(Case("IVF8_HNSW4,PQ4", n=400, dim=8))
    parts = _taken(index, tmp_path)
    assert "HNSW" in parts.notes[0]
    np.testing.assert_array_equal(parts.centroids, ivf_of(index).quantizer.reconstruct_n(0, 8))


def _factory(key: str, **case: Any) -> Callable[[], Any]:
    return lambda: build(Case(key, n=600, **case))[0]


def _flat() -> Any:
    index = faiss.IndexFlatL2(8)
    index.add(clustered(50, 8, 1))
    return index


def _untrained() -> Any:
    return faiss.index_factory(8, "IVF4,PQ4")


def _empty() -> Any:
    index, _ = build(Case("IVF4,PQ4", n=300, dim=8))
    index.reset()
    return index


def _l1() -> Any:
    index, _ = build(Case("IVF4,PQ4", n=300, dim=8))
    index.metric_type = faiss.METRIC_L1
    return index


def _stretching() -> Any:
    index, _ = build(Case("PCA8,IVF4,PQ4", n=300, dim=8))
    transform = faiss.downcast_VectorTransform(index.chain.at(0))
    faiss.copy_array_to_vector(3 * faiss.vector_to_array(transform.A), transform.A)
    return index


def _twice() -> Any:
    index, vectors = build(Case("IVF4,PQ4", n=300, dim=8))
    index.add_with_ids(vectors[:1], np.array([7]))
    return index


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "flat": (_flat, "IndexFlat"),
    "ivf flat": (_factory("IVF4,Flat", dim=8), "IndexIVFFlat"),
    "scalar": (_factory("IVF4,SQ8", dim=8), "IndexIVFScalarQuantizer"),
    "four bits": (_factory("IVF4,PQ4x4", dim=8), "4 bits"),
    "fast scan": (_factory("IVF4,PQ4x4fs", dim=8), "IndexIVFPQFastScan"),
    "two codes": (_factory("IVF4,PQ4+4", dim=8), "IndexIVFPQR"),
    "M 2": (_factory("IVF4,PQ2", dim=8), "2 bytes"),
    "M 160": (_factory("IVF4,PQ160", dim=160), "160 bytes"),
    "normalised": (_factory("L2norm,IVF4,PQ4", dim=8), "NormalizationTransform"),
    "whitened": (_factory("PCAW8,IVF4,PQ4", dim=8), "PCAMatrix"),
    "stretching": (_stretching, "PCAMatrix"),
    "multi-index": (_factory("IMI2x2,PQ4", dim=8), "MultiIndexQuantizer"),
    "lossy refinement": (_factory("IVF4,PQ4,Refine(SQ8)", dim=8), "IndexScalarQuantizer"),
    "metric": (_l1, "metric"),
    "not trained": (_untrained, "not trained"),
    "nothing in it": (_empty, "0 vectors"),
    "an id twice": (_twice, "id 7"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_kinds_are_refused_by_name(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    with pytest.raises(InvalidInput) as caught:
        _taken(make(), tmp_path)
    assert words in caught.value.message
    assert caught.value.field == "file"
    assert caught.value.hint


def test_refined_ids_that_name_no_vector_are_refused(tmp_path: Path) -> None:
    base, vectors = build(Case("IVF4,PQ4", n=300, dim=8, ids=tuple(range(1, 301))))
    store = faiss.IndexFlatL2(8)
    store.add(vectors)
    refined = faiss.IndexRefine(base, store)
    with pytest.raises(InvalidInput, match="nothing tells"):
        _taken(refined, tmp_path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    index, _ = build(Case("IVF4,PQ4", n=300, dim=8))
    books = faiss.vector_to_array(index.pq.centroids)
    books[5] = np.nan
    faiss.copy_array_to_vector(books, index.pq.centroids)
    with pytest.raises(CorruptData, match="codebooks"):
        _taken(index, tmp_path)


def test_a_file_that_is_not_there_or_no_index(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_index(tmp_path / "none.faiss")
    path = tmp_path / "noise.faiss"
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(CorruptData, match="no faiss index"):
        open_index(path)
