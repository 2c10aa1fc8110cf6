"""Which route a commit takes, from counts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.collections.store import CollectionSpec, empty_manifest
from coordinator.ingest.plan import Plan, Route, Wish, choose
from ragschema.storage.manifest import FileRef, IndexRef, Manifest, SegmentRef
from ragschema.types import Metric

FILE = FileRef("x", 1, 1)
INDEX = IndexRef(FILE, nlist=40, m=48, nprobe=8, refine_factor=4)
EMPTY = empty_manifest("c", CollectionSpec(384, Metric.COSINE, 2, None), 1)


def holding(*segments: int, deleted: int = 0, index: IndexRef | None = None) -> Manifest:
    refs = []
    start = 0
    for number, rows in enumerate(segments):
        refs.append(SegmentRef(f"seg-{number:06d}", start, rows, (FILE, FILE), FILE))
        start += rows
    return replace(
        EMPTY, segments=tuple(refs), index=index, next_row_id=start, live_rows=start - deleted
    )


APPEND_EXACT = Plan(Route.APPEND, exact=True)
APPEND = Plan(Route.APPEND)
REWRITE_EXACT = Plan(Route.REWRITE, exact=True)
TRAIN = Plan(Route.REWRITE, train=True)


@pytest.mark.parametrize(
    ("manifest", "new", "removed", "plan"),
    [
        (EMPTY, 0, 0, Plan(Route.NOTHING)),
        (EMPTY, 999, 0, APPEND_EXACT),
        (EMPTY, 1000, 0, TRAIN),
        (holding(900), 99, 0, APPEND_EXACT),
        (holding(900), 100, 0, TRAIN),
        (holding(990, deleted=100), 100, 0, APPEND_EXACT),
        (holding(900), 0, 0, Plan(Route.NOTHING)),
        (holding(900), 0, 10, Plan(Route.TOMBSTONES, exact=True)),
        (holding(900), 0, 270, Plan(Route.TOMBSTONES, exact=True)),
        (holding(900), 0, 271, REWRITE_EXACT),
        (holding(900, deleted=200), 0, 71, REWRITE_EXACT),
        (holding(900), 0, 900, REWRITE_EXACT),
        (holding(*[10] * 7), 1, 0, APPEND_EXACT),
        (holding(*[10] * 8), 1, 0, REWRITE_EXACT),
        (holding(*[10] * 8), 0, 1, Plan(Route.TOMBSTONES, exact=True)),
        (holding(2000, index=INDEX), 1, 0, APPEND_EXACT),
        (holding(2000, index=INDEX), 1024, 0, APPEND_EXACT),
        (holding(2000, index=INDEX), 1025, 0, APPEND),
        (holding(2000, index=INDEX), 5999, 0, APPEND),
        (holding(2000, index=INDEX), 6000, 0, TRAIN),
        (holding(2000, 5999, index=INDEX), 1, 0, TRAIN),
        (holding(2000, index=INDEX), 1, 700, TRAIN),
        (holding(1200, index=INDEX), 0, 300, Plan(Route.TOMBSTONES)),
        (holding(1200, index=INDEX), 0, 400, REWRITE_EXACT),
        (holding(1200, index=INDEX), 0, 0, Plan(Route.NOTHING)),
    ],
)
def test_routes(manifest: Manifest, new: int, removed: int, plan: Plan) -> None:
    assert choose(manifest, new, removed, Wish()) == plan


def test_other_index_settings_retrain() -> None:
    manifest = holding(2000, index=INDEX)
    assert choose(manifest, 0, 0, Wish(nlist=40, m=48)).route is Route.NOTHING
    assert choose(manifest, 0, 0, Wish(nlist=64)) == TRAIN
    assert choose(manifest, 0, 0, Wish(m=96)) == TRAIN
    assert choose(holding(500), 0, 0, Wish(nlist=64)).route is Route.NOTHING


def test_without_stored_vectors_nothing_is_rebuilt() -> None:
    bare = replace(INDEX, refine_factor=None)
    plan = choose(holding(*[3_000_000] * 8, index=bare), 10, 0, Wish())
    assert plan.route is Route.APPEND
    assert "segments" in str(plan.note)
    # Small segments that nothing merges would be compared in full for ever.
    assert not plan.exact
    assert choose(holding(3_000_000, index=bare), 10, 0, Wish()).exact
    assert choose(holding(3_000_000, index=bare), 0, 0, Wish(m=96)).route is Route.NOTHING
