"""Filters grow the lists that are scanned, and rounds merge exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from coordinator.stages import row_filter
from coordinator.stages.effort import Effort
from coordinator.stages.find import FindStage, Found, report_of
from coordinator.stages.probe import CoarseIndex
from coordinator.stages.retrieve import RetrieveRequest
from coordinator.stages.row_filter import Reach, RowFilter, reach_of
from ragschema.errors import Overloaded
from ragschema.types import (
    F32,
    CallContext,
    Metric,
    SearchBatch,
    SearchResult,
    SnapshotId,
)

ROWS, DIM, NLIST, K = 20_000, 12, 64, 10
SEED = 11


class Data:
    """Clustered rows in lists; rows from ``fresh`` on are in no list and always scanned."""

    def __init__(self, fresh: int = 0) -> None:
        rng = np.random.default_rng(SEED)
        middles = rng.standard_normal((40, DIM)) * 3
        self.cluster = rng.integers(0, 40, ROWS)
        self.rows = (middles[self.cluster] + rng.standard_normal((ROWS, DIM))).astype(np.float32)
        picked = rng.integers(0, 40, 50)
        self.queries = (middles[picked] + rng.standard_normal((50, DIM))).astype(np.float32)
        self.centroids = self.rows[rng.choice(ROWS, NLIST, replace=False)]
        self.coarse = CoarseIndex(self.centroids, Metric.L2)
        self.list_of = self.coarse.nearest(self.rows, 1)[:, 0]
        if fresh:
            self.list_of[-fresh:] = -2

    def nearest(self, query: F32, among: Any) -> list[int]:
        """The k nearest of the rows where ``among`` holds."""
        far = ((self.rows - query) ** 2).sum(1)
        order = np.lexsort((np.arange(ROWS), far))
        return [int(r) for r in order[among[order]][:K]]


@dataclass
class Node:
    """Searches its lists exactly; stands for pool, route and group as well."""

    data: Data
    batches: list[SearchBatch] = field(default_factory=list)
    fail_from: int = 10**9
    name = "node"
    shards = (0,)

    @property
    def group(self) -> Node:
        return self

    def routes(self, num_shards: int) -> tuple[Node, ...]:
        return (self,)

    def candidates(self, snapshot: SnapshotId) -> Iterator[Node]:
        yield self

    async def search(self, batch: SearchBatch, context: CallContext) -> SearchResult:
        self.batches.append(batch)
        if len(self.batches) >= self.fail_from:
            raise Overloaded("busy")
        n = len(batch.queries)
        distances, rows = np.zeros((n, batch.k), np.float32), np.zeros((n, batch.k), np.int64)
        counts = np.zeros(n, np.int32)
        for i, query in enumerate(batch.queries):
            assert batch.list_ids is not None
            among = np.isin(self.data.list_of, [*batch.list_ids[i][batch.list_ids[i] >= 0], -2])
            if batch.filter_of is not None and batch.filter_of[i] >= 0:
                bits = np.unpackbits(batch.filters[batch.filter_of[i]], bitorder="little")
                among &= bits[:ROWS].astype(bool)
            found = np.flatnonzero(among)
            far = ((self.data.rows[found] - query) ** 2).sum(1)
            order = np.lexsort((found, far))[: batch.k]
            counts[i] = len(order)
            distances[i, : len(order)] = far[order]
            rows[i, : len(order)] = found[order]
        return SearchResult(distances, rows, counts, rows_covered=ROWS)


class Known:
    """As much of a snapshot as is needed."""

    id = SnapshotId("notes", 1)

    class manifest:
        num_shards = 1
        live_rows = ROWS
        index = None


@pytest.fixture(scope="module")
def data() -> Data:
    return Data()


def filter_of(mask: Any) -> RowFilter:
    passing = int(mask.sum())
    return RowFilter(np.packbits(mask, bitorder="little"), passing, passing / ROWS)


def request(
    data: Data, query: F32, mask: Any = None, nprobe: int = 4, share: float = 1.0, **more: Any
) -> RetrieveRequest:
    given = None if mask is None else filter_of(mask)
    reach = more.get("reach") or reach_of(nprobe, NLIST, given, share)
    effort = Effort(nprobe, None, None, None)
    return RetrieveRequest(
        cast(Any, Known()), data.coarse, query, more.get("k", K), effort, reach, given
    )


async def find(node: Node, requests: list[RetrieveRequest]) -> list[Found]:
    return await FindStage(cast(Any, node))(requests, CallContext.start(30))


async def recall(data: Data, mask: Any, **more: Any) -> float:
    """Against exact answers among the rows that pass."""
    everything = np.ones(ROWS, bool)
    requests = [request(data, q, mask, **more) for q in data.queries]
    found = await find(Node(data), requests)
    shares = []
    for query, one in zip(data.queries, found, strict=True):
        truth = data.nearest(query, everything if mask is None else mask)
        shares.append(len(set(truth) & set(one.row_ids)) / len(truth))
    return float(np.mean(shares))


@pytest.mark.parametrize("share", [0.5, 0.2, 0.01, 0.001])
@pytest.mark.parametrize("few", [0, 4096])
async def test_a_filter_costs_no_recall(
    data: Data, monkeypatch: pytest.MonkeyPatch, share: float, few: int
) -> None:
    monkeypatch.setattr(row_filter, "_FEW_ROWS", few)
    plain = await recall(data, None)
    assert 0.5 < plain < 0.999, "a test of recall needs a search that misses something"
    mask = np.random.default_rng(SEED).random(ROWS) < share
    assert await recall(data, mask) >= plain - 0.01


@pytest.mark.parametrize("few", [0, 4096])
async def test_a_filter_for_rows_far_from_the_query_costs_no_recall(
    data: Data, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Rows of half the clusters: most queries have none of them near."""
    monkeypatch.setattr(row_filter, "_FEW_ROWS", few)
    plain = await recall(data, None)
    assert await recall(data, data.cluster < 20) >= plain - 0.01
    assert await recall(data, data.cluster == 3) >= plain - 0.01


async def test_a_single_row_is_always_found(data: Data) -> None:
    for row in (0, 777, ROWS - 1):
        mask = np.zeros(ROWS, bool)
        mask[row] = True
        requests = [request(data, q, mask) for q in data.queries[:5]]
        node = Node(data)
        for found in await find(node, requests):
            assert found.row_ids == [row]
            assert found.lists_probed == NLIST
            assert not found.short
        assert len(node.batches) == 1


async def test_without_a_filter_lists_stay_as_asked(data: Data) -> None:
    node = Node(data)
    (found,) = await find(node, [request(data, data.queries[0])])
    assert found.lists_probed == 4
    assert len(node.batches) == 1
    report = report_of(request(data, data.queries[0]), found)
    assert report.filter_selectivity is None
    assert not report.filter_limited


async def test_further_rounds_are_exact_over_all_lists_scanned(data: Data) -> None:
    mask = np.zeros(ROWS, bool)
    query = data.queries[0]
    ranked = data.coarse.nearest(query[np.newaxis], NLIST)[0]
    far_lists = ranked[30:]
    mask[np.isin(data.list_of, far_lists)] = True
    node = Node(data)
    (found,) = await find(node, [request(data, query, mask, reach=Reach(2, NLIST))])
    assert len(node.batches) == 3  # 2, then up to 8, then up to 32 lists
    assert found.lists_probed == 32
    assert not found.short
    asked = [set(b.list_ids[0].tolist()) - {-1} for b in node.batches if b.list_ids is not None]
    assert [len(lists) for lists in asked] == [2, 6, 24]
    assert set.union(*asked) == set(ranked[:32].tolist())
    in_scanned = np.isin(data.list_of, ranked[:32])
    assert found.row_ids == data.nearest(query, mask & in_scanned)


async def test_only_those_who_need_it_go_on(data: Data) -> None:
    """And each by its own filter; distances stay sorted."""
    near = data.coarse.nearest(data.queries[:3], NLIST)
    masks = [np.isin(data.list_of, near[i, [0, 20, 60][i]]) for i in range(3)]
    requests = [
        request(data, q, m, reach=Reach(2, NLIST))
        for q, m in zip(data.queries[:3], masks, strict=True)
    ]
    requests.append(request(data, data.queries[3], reach=Reach(2, 2)))
    node = Node(data)
    found = await find(node, requests)
    assert [len(b.queries) for b in node.batches] == [4, 2, 2, 1]
    assert [f.lists_probed for f in found] == [2, 32, NLIST, 2]
    for query, mask, one in zip(data.queries, masks, found[:3], strict=False):
        assert one.row_ids == data.nearest(query, mask)
        assert one.distances == sorted(one.distances)


async def test_the_limit_ends_the_growth_and_is_told(data: Data) -> None:
    mask = np.zeros(ROWS, bool)
    ranked = data.coarse.nearest(data.queries[:1], NLIST)[0]
    mask[np.isin(data.list_of, ranked[40:])] = True
    limited = request(data, data.queries[0], mask, nprobe=2, share=0.25)
    assert (limited.reach.most, limited.reach.limited) == (16, False)
    (found,) = await find(Node(data), [limited])
    assert found.lists_probed == 16
    assert found.short
    report = report_of(limited, found)
    assert report.filter_limited
    assert report.filter_selectivity == pytest.approx(mask.mean())
    free = request(data, data.queries[0], mask)
    (found,) = await find(Node(data), [free])
    assert not report_of(free, found).filter_limited


async def test_rows_of_fresh_segments_come_once() -> None:
    data = Data(fresh=3)
    mask = np.zeros(ROWS, bool)
    mask[-3:] = True
    mask[[5, 6]] = True
    (found,) = await find(Node(data), [request(data, data.queries[0], mask, reach=Reach(1, NLIST))])
    assert sorted(found.row_ids) == [5, 6, ROWS - 3, ROWS - 2, ROWS - 1]
    assert found.row_ids == data.nearest(data.queries[0], mask)
    assert not found.short


async def test_k_beyond_what_passes_ends_when_all_of_it_is_found(data: Data) -> None:
    mask = np.zeros(ROWS, bool)
    mask[:4] = True
    node = Node(data)
    (found,) = await find(
        node, [request(data, data.queries[0], mask, k=50, reach=Reach(NLIST, NLIST))]
    )
    assert len(found.row_ids) == 4
    assert not found.short
    assert len(node.batches) == 1


async def test_a_node_that_fails_in_a_later_round_fails_the_search(data: Data) -> None:
    mask = np.zeros(ROWS, bool)
    ranked = data.coarse.nearest(data.queries[:1], NLIST)[0]
    mask[np.isin(data.list_of, ranked[40:])] = True
    with pytest.raises(Overloaded):
        await find(
            Node(data, fail_from=2),
            [request(data, data.queries[0], mask, reach=Reach(2, NLIST))],
        )
