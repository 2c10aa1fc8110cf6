"""The same queries through every backend.

The fpga backend and mode contract16 of simd must equal a reference written with
``fixedpoint`` alone, bit for bit; faiss and mode fast must agree wherever float
rounding cannot decide the order; and every backend must give the same bytes
however a collection is sharded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragschema.errors import IncompatibleRequest
from ragschema.types import F32, I64, U8, Metric, SearchBatch, SearchResult
from retrieval_node.backends.base import Candidates, merge_candidates
from retrieval_node.backends.registry import open_backend
from retrieval_node.fixedpoint import (
    Contract,
    TablesBy,
    exact_distances,
    saturating_sums,
    smallest,
    to_distance,
)
from retrieval_node.fixedpoint_card import contract_tables
from retrieval_node.local import LocalSearcher
from retrieval_node.shard import ShardSet
from tests.retrieval_node.making import Made, Plan, clustered, make

K = 10
DEAD = tuple(range(3, 400, 7))
PLANS = {
    "exact": Plan(exact=True, segments=(120, 1, 60), dead=DEAD[:20]),
    "ivfpq": Plan(segments=(400,), refine=False),
    "refined": Plan(segments=(400,)),
    "segments": Plan(segments=(300, 1, 150), dead=DEAD, refine=False),
    "coarse": Plan(segments=(400,), m=1, nlist=3, refine=False, dead=(5,)),
    "fresh": Plan(segments=(300, 150, 40), dead=DEAD, fresh=True),
    "rotated": Plan(segments=(400,), rotate=True, residual=False, refine=False),
}
#: How each contestant is opened, and whether it obeys the numeric contract.
CONTESTANTS: dict[str, tuple[dict[str, Any], bool]] = {
    "fpga": ({"name": "fpga"}, True),
    "contract16": ({"name": "simd", "mode": "contract16", "threads": 3}, True),
    "fpga-card": ({"name": "fpga", "tables": "card"}, True),
    "contract16-card": ({"name": "simd", "mode": "contract16", "tables": "card"}, True),
    "fast": ({"name": "simd", "mode": "fast", "threads": 2}, False),
    "faiss": ({"name": "faiss"}, False),
}
EXACT_BITS = [name for name, (_, bits) in CONTESTANTS.items() if bits]
FLOATS = [name for name, (_, bits) in CONTESTANTS.items() if not bits]


def _open(made: Made, contestant: str) -> LocalSearcher:
    return LocalSearcher(made.directory, open_backend(**CONTESTANTS[contestant][0]))


@dataclass(frozen=True)
class Case:
    made: dict[int, Made]
    metric: Metric
    name: str


CASES = [(plan, metric) for plan in PLANS for metric in Metric]
on_exact = pytest.mark.parametrize(
    "case", [c for c in CASES if c[0] == "exact"], indirect=True, ids=str, scope="module"
)
on_codes = pytest.mark.parametrize(
    "case", [c for c in CASES if c[0] != "exact"], indirect=True, ids=str, scope="module"
)


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, metric = request.param
    folder = tmp_path_factory.mktemp("collections")
    made = {
        shards: make(folder / f"c{shards}", replace(PLANS[name], metric=metric, shards=shards))
        for shards in (1, 2, 3)
    }
    return Case(made, metric, name)


@pytest.fixture(params=CONTESTANTS)
def searchers(request: pytest.FixtureRequest, case: Case) -> Iterator[dict[int, LocalSearcher]]:
    opened = {n: _open(made, request.param) for n, made in case.made.items()}
    yield opened
    for searcher in opened.values():
        searcher.close()


def _queries(case: Case) -> F32:
    made = case.made[1]
    rng = np.random.default_rng(11)
    fresh = clustered(9, made.manifest.dim, 99, case.metric)
    stored = made.vectors[rng.choice(len(made.vectors), 6)]
    return np.concatenate([fresh, stored])


def _filtered(batch: SearchBatch, rows: int) -> SearchBatch:
    """Every third query unfiltered, the others with one of two bitmaps; one lets none pass."""
    rng = np.random.default_rng(4)
    half = np.packbits(rng.integers(0, 2, rows).astype(np.uint8), bitorder="little")
    filters = (half, np.zeros_like(half))
    n = len(batch.queries)
    return replace(batch, filters=filters, filter_of=(np.arange(n) % 3 - 1).astype(np.int32))


def _batches(searcher: LocalSearcher, queries: F32, nprobe: int = 3) -> list[SearchBatch]:
    batch = searcher.batch(queries, K, nprobe)
    rows = searcher.manifest.next_row_id
    return [batch, _filtered(batch, rows), replace(_filtered(batch, rows), k=500, refine_k=None)]


def _same(a: SearchResult, b: SearchResult) -> None:
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_array_equal(a.row_ids, b.row_ids)
    assert a.distances.tobytes() == b.distances.tobytes()


def test_sharding_changes_no_bit(case: Case, searchers: dict[int, LocalSearcher]) -> None:
    queries = _queries(case)
    for number, whole_batch in enumerate(_batches(searchers[1], queries)):
        whole = searchers[1].search(whole_batch)
        assert whole.counts.max() > 0
        for shards in (2, 3):
            batch = _batches(searchers[shards], queries)[number]
            together = searchers[shards].search(batch)
            _same(together, whole)
            assert together.rows_covered == whole.rows_covered
            apart = _node_by_node(searchers[shards], batch)
            if whole_batch.refine_k is None:
                _same(apart, whole)
            else:
                # Each node rescores refine_k candidates of its own, so more are
                # rescored than in one piece and nothing can get worse.
                assert (apart.counts >= whole.counts).all()
                assert (apart.distances <= whole.distances).all()


def _node_by_node(searcher: LocalSearcher, batch: SearchBatch) -> SearchResult:
    """Each shard asked for by itself, then merged as a coordinator would."""
    parts = [searcher.search(replace(batch, shards=(shard,))) for shard in batch.shards]
    merged = merge_candidates(
        [Candidates(p.distances, p.row_ids, p.counts) for p in parts], batch.k
    )
    return SearchResult(merged.distances, merged.rows, merged.counts, 0)


def test_filters_and_tombstones_hold(case: Case, searchers: dict[int, LocalSearcher]) -> None:
    dead = set(PLANS[case.name].dead)
    for searcher in searchers.values():
        for batch in _batches(searcher, _queries(case)):
            result = searcher.search(batch)
            for q, count in enumerate(result.counts.tolist()):
                rows = result.row_ids[q, :count]
                assert not dead.intersection(rows.tolist())
                assert len(set(rows.tolist())) == count
                if batch.filter_of is not None and batch.filter_of[q] >= 0:
                    bits = np.unpackbits(batch.filters[batch.filter_of[q]], bitorder="little")
                    assert bits[rows].all()
                keys = list(zip(result.distances[q, :count].tolist(), rows.tolist(), strict=True))
                assert keys == sorted(keys)
        live = searcher.manifest.live_rows
        assert result.rows_covered == live


@on_exact
def test_exact_results_equal_the_reference(case: Case, searchers: dict[int, LocalSearcher]) -> None:
    made = case.made[1]
    queries = _queries(case)
    result = searchers[1].search(searchers[1].batch(queries, K))
    live = np.setdiff1d(np.arange(len(made.vectors)), PLANS["exact"].dead)
    for q, query in enumerate(queries):
        distances = exact_distances(query, made.vectors[live], case.metric)
        best = smallest(distances, live, K)
        assert result.row_ids[q].tolist() == live[best].tolist()
        np.testing.assert_array_equal(result.distances[q], distances[best])


def _valid(shard_set: ShardSet, batch: SearchBatch, q: int) -> U8:
    bits = np.ones(shard_set.next_row_id, dtype=np.uint8)
    for bitmap in [shard_set.live] + (
        [batch.filters[batch.filter_of[q]]]
        if batch.filter_of is not None and batch.filter_of[q] >= 0
        else []
    ):
        if bitmap is not None:
            bits &= np.unpackbits(bitmap, bitorder="little")[: len(bits)]
    return bits


def _reference_scan(
    shard_set: ShardSet, batch: SearchBatch, q: int, k: int, by: TablesBy
) -> tuple[F32, I64]:
    """The PQ scan of one query with ``fixedpoint`` alone, over all coded segments."""
    index = shard_set.index
    assert index is not None
    assert batch.list_ids is not None
    lists = batch.list_ids[q][batch.list_ids[q] >= 0]
    contract = Contract(tables=by)
    found = contract_tables(
        index.rotate(batch.queries[q : q + 1])[0], index.centroids[lists], index.codebooks,
        shard_set.metric, contract, index.residual,
    )  # fmt: skip
    valid = _valid(shard_set, batch, q).astype(bool)
    sums, ids = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    coded = [s for shard in shard_set.shards.values() for s in shard.segments if not s.exact]
    for segment in coded:
        rows, codes = segment.row_ids(), segment.row_codes()
        for p, number in enumerate(lists):
            part = slice(segment.list_offsets[number], segment.list_offsets[number + 1])
            keep = valid[rows[part]]
            table = found.tables[p if len(found.tables) > 1 else 0]
            sums.append(saturating_sums(table, int(found.biases[p]), codes[part][keep], contract))
            ids.append(rows[part][keep])
    all_sums, all_ids = np.concatenate(sums), np.concatenate(ids)
    best = smallest(all_sums, all_ids, k)
    return to_distance(all_sums[best], found.base, found.scale), all_ids[best]


def _stored(shard_set: ShardSet, rows: I64) -> F32:
    """Vectors as they are stored, float32 [len(rows), dim]."""
    found = np.empty((len(rows), shard_set.dim), dtype=np.float32)
    for segment in (s for shard in shard_set.shards.values() for s in shard.segments):
        assert segment.vectors is not None
        place = {int(row): at for at, row in enumerate(segment.row_ids())}
        for at, row in enumerate(rows.tolist()):
            if row in place:
                found[at] = segment.vectors[place[row]]
    return found


def _reference_fresh(shard_set: ShardSet, batch: SearchBatch, q: int) -> tuple[F32, I64]:
    """Every live row of the segments without codes, compared exactly."""
    valid = _valid(shard_set, batch, q).astype(bool)
    fresh = [s for shard in shard_set.shards.values() for s in shard.segments if s.exact]
    rows = np.concatenate([np.zeros(0, np.int64), *(segment.row_ids() for segment in fresh)])
    rows = rows[valid[rows]]
    if not len(rows):
        return np.zeros(0, np.float32), rows
    return exact_distances(batch.queries[q], _stored(shard_set, rows), shard_set.metric), rows


def _reference(shard_set: ShardSet, batch: SearchBatch, q: int, by: TablesBy) -> tuple[F32, I64]:
    if batch.refine_k is None:
        distances, rows = _reference_scan(shard_set, batch, q, batch.k, by)
    else:
        _, rows = _reference_scan(shard_set, batch, q, batch.refine_k, by)
        stored = _stored(shard_set, rows)
        distances = exact_distances(batch.queries[q], stored, shard_set.metric)
    compared, fresh = _reference_fresh(shard_set, batch, q)
    distances, rows = np.concatenate([distances, compared]), np.concatenate([rows, fresh])
    best = smallest(distances, rows, batch.k)
    return distances[best], rows[best]


@on_codes
@pytest.mark.parametrize("contestant", EXACT_BITS)
def test_equals_the_contract_bit_for_bit(case: Case, contestant: str) -> None:
    searcher = _open(case.made[1], contestant)
    by = TablesBy(CONTESTANTS[contestant][0].get("tables", "host"))
    for batch in _batches(searcher, _queries(case)):
        result = searcher.search(batch)
        for q in range(len(batch.queries)):
            distances, rows = _reference(searcher.shard_set, batch, q, by)
            assert result.counts[q] == len(rows)
            assert result.row_ids[q, : len(rows)].tolist() == rows.tolist()
            assert result.distances[q, : len(rows)].tobytes() == distances.tobytes()
    searcher.close()


@on_codes
@pytest.mark.parametrize("contestant", ["fpga", "contract16", "fast"])
def test_an_exact_batch_passes_the_codes_by(case: Case, contestant: str) -> None:
    made, searcher = case.made[2], _open(case.made[2], contestant)
    batch = SearchBatch(searcher.shard_set.snapshot, (0, 1), _queries(case), None, K, exact=True)
    if not PLANS[case.name].refine:
        with pytest.raises(IncompatibleRequest, match="no vectors"):
            searcher.search(batch)
        return
    result = searcher.search(batch)
    live = np.flatnonzero(_valid(searcher.shard_set, batch, 0))
    stored = _stored(searcher.shard_set, live)
    for q, query in enumerate(batch.queries):
        distances = exact_distances(query, stored, case.metric)
        best = smallest(distances, live, K)
        assert result.row_ids[q].tolist() == live[best].tolist()
        assert result.distances[q].tobytes() == distances[best].tobytes()
    assert result.stats.codes_scanned == len(batch.queries) * len(made.vectors)
    searcher.close()


def test_finding_is_searching_with_less_around_it(
    case: Case, searchers: dict[int, LocalSearcher]
) -> None:
    queries = _queries(case)
    result = searchers[2].search(searchers[2].batch(queries, K, 3))
    found = searchers[2].find(queries, K, 3)
    np.testing.assert_array_equal(found.rows, result.row_ids)
    assert found.distances.tobytes() == result.distances.tobytes()
    assert found.counts.tolist() == result.counts.tolist()


@pytest.mark.parametrize("contestant", FLOATS)
def test_floats_and_the_contract_agree_within_rounding(case: Case, contestant: str) -> None:
    made = case.made[2]
    fpga, faiss = (_open(made, name) for name in ("fpga", contestant))
    for a_batch in _batches(fpga, _queries(case)):
        a, b = fpga.search(a_batch), faiss.search(a_batch)
        np.testing.assert_array_equal(a.counts, b.counts)
        np.testing.assert_allclose(a.distances, b.distances, atol=2e-3, rtol=1e-4)
        for q, count in enumerate(a.counts.tolist()):
            mine = dict(zip(a.row_ids[q, :count].tolist(), a.distances[q, :count], strict=True))
            theirs = set(b.row_ids[q, :count].tolist())
            last = a.distances[q, count - 1] if count else 0.0
            for row in set(mine) - theirs:
                assert last - mine[row] < 4e-3, "a row clearly inside is missing from floats"
    fpga.close()
    faiss.close()


@on_codes
def test_a_long_probe_list_with_padding(case: Case, searchers: dict[int, LocalSearcher]) -> None:
    searcher = searchers[2]
    queries = _queries(case)
    plain = searcher.batch(queries, K, nprobe=2)
    assert plain.list_ids is not None
    gaps = np.full((len(queries), 5), -1, dtype=np.int32)
    gaps[:, 1], gaps[:, 3] = plain.list_ids[:, 0], plain.list_ids[:, 1]
    _same(searcher.search(replace(plain, list_ids=gaps)), searcher.search(plain))
    none = replace(plain, list_ids=np.full((len(queries), 2), -1, dtype=np.int32))
    # Fresh segments are compared whatever the lists.
    fresh = PLANS[case.name].segments[-1] if PLANS[case.name].fresh else 0
    assert (searcher.search(none).counts <= min(K, fresh)).all()


def test_no_queries_give_no_answers(case: Case, searchers: dict[int, LocalSearcher]) -> None:
    batch = searchers[2].batch(np.zeros((0, 16), dtype=np.float32), K)
    result = searchers[2].search(batch)
    assert result.distances.shape == (0, K)
    assert result.counts.shape == (0,)


def test_a_batch_equals_its_queries_one_by_one(
    case: Case, searchers: dict[int, LocalSearcher], tmp_path: Path
) -> None:
    queries = np.concatenate([_queries(case)] * 5)
    together = searchers[1].search(searchers[1].batch(queries, K, nprobe=4))
    for q in (0, 8, 40, 74):
        alone = searchers[1].search(searchers[1].batch(queries[q : q + 1], K, nprobe=4))
        np.testing.assert_array_equal(alone.row_ids[0], together.row_ids[q])
        assert alone.distances[0].tobytes() == together.distances[q].tobytes()
