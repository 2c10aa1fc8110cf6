from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragschema.errors import Conflict, IncompatibleRequest
from ragschema.storage.manifest import commit_manifest
from ragschema.types import Metric
from retrieval_node.index_spec import ExportSpec
from retrieval_node.interop.faiss_export import ExportedIndex, export_index
from tests.retrieval_node.interop.cases import Case, imported, ivf_of, queries_for
from tests.retrieval_node.making import Plan, make, write_tombstones


def _exported(directory: Path, file: Path) -> tuple[ExportedIndex, Any]:
    done = export_index(ExportSpec(str(directory), str(file)), lambda *_: None)
    return done, faiss.read_index(str(file))


def _list(ivf: Any, number: int) -> tuple[list[int], list[list[int]]]:
    size = ivf.invlists.list_size(number)
    if not size:
        return [], []
    ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
    codes = faiss.rev_swig_ptr(ivf.invlists.get_codes(number), size * ivf.pq.M)
    return ids.tolist(), codes.reshape(size, -1).tolist()


@pytest.mark.parametrize(
    "case",
    [
        Case("IVF8,PQ4", n=700, dim=16),
        Case("IVF8,PQ4", n=700, dim=16, metric=Metric.IP, residual=False),
        Case("OPQ4,IVF8,PQ4", n=700, dim=16),
        Case("PCA8,IVF8,PQ4", n=700, dim=16),
    ],
    ids=str,
)
def test_there_and_back_keeps_lists_codes_and_answers(case: Case, tmp_path: Path) -> None:
    index, made = imported(case, tmp_path)
    done, back = _exported(made.directory, tmp_path / "back.faiss")
    assert (done.rows, done.encoded) == (case.n, 0)
    one, other = ivf_of(index), ivf_of(back)
    assert other.by_residual == case.residual
    assert (other.nprobe, other.nlist) == (case.nprobe, one.nlist)
    for number in range(one.nlist):
        assert _list(one, number) == _list(other, number)
    queries = queries_for(case)
    distances, _ = index.search(queries, 10)
    again, _ = back.search(queries, 10)
    np.testing.assert_allclose(again, distances, rtol=1e-4, atol=1e-5)


def test_only_live_rows_leave(tmp_path: Path) -> None:
    _, made = imported(Case("IVF4,PQ4", n=300, dim=8), tmp_path)
    dead = np.array([0, 7, 250])
    tombstones = write_tombstones(made.directory, dead)
    commit_manifest(made.directory, replace(made.manifest, tombstones=tombstones, live_rows=297))
    done, back = _exported(made.directory, tmp_path / "back.faiss")
    assert done.rows == back.ntotal == 297
    ids = [i for number in range(4) for i in _list(back, number)[0]]
    assert sorted(ids) == np.setdiff1d(np.arange(300), dead).tolist()


def test_an_exact_collection_has_nothing_to_hand_out(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan(exact=True))
    with pytest.raises(IncompatibleRequest, match="no IVF-PQ index"):
        _exported(made.directory, tmp_path / "back.faiss")
    assert not (tmp_path / "back.faiss").exists()


def test_a_file_that_exists_stays(tmp_path: Path) -> None:
    _, made = imported(Case("IVF4,PQ4", n=300, dim=8), tmp_path)
    (tmp_path / "back.faiss").write_text("mine")
    with pytest.raises(Conflict):
        _exported(made.directory, tmp_path / "back.faiss")
    assert (tmp_path / "back.faiss").read_text() == "mine"
    with pytest.raises(OSError, match="nowhere"):
        _exported(made.directory, tmp_path / "nowhere" / "back.faiss")
