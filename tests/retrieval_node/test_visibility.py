"""Searches beside appends, deletions and compactions: what is visible when.

One writer commits generations of a real collection and makes them current, as a
coordinator does; readers search meanwhile. Every item has a vector of its own,
so a search tells whether the item is there, whatever row id it has by then. An
operation takes effect at one moment between its begin and its end; so a search

* finds no item whose deletion ended before the search began,
* misses no item whose insertion ended before it began and whose deletion had
  not begun when it ended,
* finds no item whose insertion had not begun when it ended.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from coordinator.collections.commit import commit
from ragschema.errors import NotFound
from ragschema.storage.manifest import ChunkingConfig, FileRef, Manifest, SegmentRef
from ragschema.types import F32, Metric, SearchBatch, SnapshotId
from retrieval_node.backends.registry import open_backend
from retrieval_node.build import build
from retrieval_node.build_spec import BuildSpec, IndexChoice, TrainSpec
from retrieval_node.engine import SearchEngine
from retrieval_node.loaded import LoadedSnapshots
from tests.retrieval_node.making import index_ref, segment_ref, write_tombstones

#: Seconds; `RAGRIG_SOAK_S=5` for a short run.
SOAK_S = float(os.environ.get("RAGRIG_SOAK_S", "60"))
READERS = 2
DIM = 16
NLIST = 4
SHARDS = 2
#: So few that refining every candidate makes a search over codes exact.
MOST_LIVE = 800
SEED = 7


def vector_of(item: int) -> F32:
    """float32 [DIM]; far from that of any other item."""
    return np.random.default_rng([SEED, item]).normal(size=DIM).astype(np.float32)


@dataclass
class History:
    """When operations on items began and ended, on time.monotonic()'s clock."""

    inserted: dict[int, tuple[float, float]] = field(default_factory=dict)
    deleted: dict[int, tuple[float, float]] = field(default_factory=dict)
    first_unused: int = 0

    def must_be_there(self, item: int, begun: float, ended: float) -> bool:
        added, gone = self.inserted.get(item), self.deleted.get(item)
        return added is not None and added[1] < begun and (gone is None or gone[0] > ended)

    def must_be_away(self, item: int, begun: float, ended: float) -> bool:
        added, gone = self.inserted.get(item), self.deleted.get(item)
        return added is None or added[0] > ended or (gone is not None and gone[1] < begun)


@dataclass(frozen=True)
class Current:
    """What readers go by: the newest generation that is loaded, and whose rows are whose."""

    manifest: Manifest
    item_of: dict[int, int]


class Writer:
    """Commits one generation after another until the time is up."""

    def __init__(self, data_dir: Path, held: LoadedSnapshots, history: History) -> None:
        self._directory = data_dir / "collections" / "soak"
        self._directory.mkdir(parents=True)
        self._held = held
        self._history = history
        self._rng = np.random.default_rng(SEED)
        self._number = 0
        self._dead: set[int] = set()
        self.done: Counter[str] = Counter()
        self.current = Current(self._empty(), {})
        self._rewrite("first", [self._new_item() for _ in range(300)], set())

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            live = len(self.current.item_of) - len(self._dead)
            if len(self.current.manifest.segments) > 7 or self._rng.random() < 0.05:
                self._rewrite("compact", [], set())
            elif live > MOST_LIVE or (live > 100 and self._rng.random() < 0.4):
                self._delete(int(self._rng.integers(1, 60)))
            else:
                self._append(int(self._rng.integers(1, 30)))

    def _empty(self) -> Manifest:
        return Manifest(
            format=2, collection="soak", generation=0, created_at="", metric=Metric.L2, dim=DIM,
            num_shards=SHARDS, embedder=None, chunking=ChunkingConfig(), index=None, segments=(),
            tombstones=None, next_row_id=0, live_rows=0, live_documents=0,
        )  # fmt: skip

    def _new_item(self) -> int:
        item = self._history.first_unused
        self._history.first_unused += 1
        return item

    def _build(
        self, items: list[int], row_start: int, index: IndexChoice | None
    ) -> tuple[SegmentRef, object]:
        self._number += 1
        source = self._directory.parent / "vectors.npy"
        np.save(source, np.stack([vector_of(item) for item in items]))
        spec = BuildSpec(
            collection_dir=str(self._directory),
            segment_id=f"seg-{self._number:06d}",
            row_start=row_start,
            vectors=str(source),
            metric=Metric.L2,
            num_shards=SHARDS,
            index=index,
            refine=True,
            vector_type="float32",
            threads=1,
        )
        result = build(spec, lambda *_: None)
        return segment_ref(self._directory, spec, result, len(items)), result

    def _append(self, count: int) -> None:
        old = self.current
        items = [self._new_item() for _ in range(count)]
        index = old.manifest.index
        assert index is not None
        # Small segments are exact; larger ones, and some of these, are coded.
        coded = self._rng.random() < 0.5
        choice = IndexChoice(existing=index.file.path) if coded else None
        start = old.manifest.next_row_id
        segment, _ = self._build(items, start, choice)
        manifest = replace(
            old.manifest,
            segments=(*old.manifest.segments, segment),
            next_row_id=start + count,
            live_rows=old.manifest.live_rows + count,
        )
        rows = old.item_of | {start + i: item for i, item in enumerate(items)}
        self._publish("append coded" if coded else "append fresh", manifest, rows, items, [])

    def _delete(self, count: int) -> None:
        old = self.current
        alive = sorted(set(old.item_of) - self._dead)
        rows = self._rng.choice(alive, min(count, len(alive)), replace=False).tolist()
        self._dead.update(rows)
        manifest = replace(
            old.manifest,
            tombstones=self._tombstones(),
            live_rows=old.manifest.live_rows - len(rows),
        )
        gone = [old.item_of[row] for row in rows]
        self._publish("delete", manifest, old.item_of, [], gone)

    def _tombstones(self) -> FileRef | None:
        dead = np.array(sorted(self._dead), dtype=np.int64)
        name = f"tomb-{self.current.manifest.generation + 1:06d}"
        return write_tombstones(self._directory, dead, name)

    def _rewrite(self, what: str, new: list[int], gone: set[int]) -> None:
        old = self.current
        kept = [old.item_of[row] for row in sorted(set(old.item_of) - self._dead)]
        items = kept + new
        train = TrainSpec(f"idx-{self._number + 1:06d}", nlist=NLIST, m=8, measure=False)
        segment, result = self._build(items, 0, IndexChoice(train=train))
        self._dead = set()
        manifest = replace(
            old.manifest,
            index=index_ref(self._directory, result),  # type: ignore[arg-type]
            segments=(segment,),
            tombstones=None,
            next_row_id=len(items),
            live_rows=len(items),
        )
        self._publish(what, manifest, dict(enumerate(items)), new, list(gone))

    def _publish(
        self, what: str, manifest: Manifest, item_of: dict[int, int], new: list[int],
        gone: list[int],
    ) -> None:  # fmt: skip
        old = self.current
        manifest = replace(manifest, generation=old.manifest.generation + 1)
        begun = time.monotonic()
        for item in new:
            self._history.inserted[item] = (begun, float("inf"))
        for item in gone:
            self._history.deleted[item] = (begun, float("inf"))
        commit(self._directory, manifest, old.manifest if old.manifest.generation else None)
        self._held.load(SnapshotId("soak", manifest.generation), range(SHARDS))
        self.current = Current(manifest, item_of)
        ended = time.monotonic()
        for item in new:
            self._history.inserted[item] = (begun, ended)
        for item in gone:
            self._history.deleted[item] = (begun, ended)
        self._held.unload(SnapshotId("soak", manifest.generation - 1))
        self.done[what] += 1


class Reader:
    """Searches for items, and compares what it finds with what may and must be."""

    def __init__(
        self, engine: SearchEngine, held: LoadedSnapshots, writer: Writer, history: History,
        number: int,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._held = held
        self._writer = writer
        self._history = history
        self._rng = np.random.default_rng([SEED, 1000 + number])
        self.errors: list[str] = []
        self.seen: Counter[str] = Counter()

    def run(self, until: float) -> None:
        while time.monotonic() < until and not self.errors:
            try:
                self._search()
            except Exception as error:
                self.errors.append(repr(error))

    def _search(self) -> None:
        # Also items that are not yet there, and may be while we look.
        items = self._rng.integers(0, self._history.first_unused + 20, 16).tolist()
        queries = np.stack([vector_of(item) for item in items])
        exact = bool(self._rng.integers(2))
        begun = time.monotonic()
        current = self._writer.current
        snapshot = SnapshotId("soak", current.manifest.generation)
        try:
            loaded = self._held.get(snapshot)
        except NotFound:  # a later one is current already: ask again
            self.seen["outdated"] += 1
            return
        lists = np.tile(np.arange(NLIST, dtype=np.int32), (len(items), 1))
        batch = SearchBatch(
            snapshot=snapshot,
            shards=tuple(range(SHARDS)),
            queries=queries,
            list_ids=None if exact else lists,
            k=1,
            refine_k=None if exact else 1024,
            exact=exact,
        )
        found = self._engine.search(loaded, batch)
        ended = time.monotonic()
        for q, item in enumerate(items):
            row = int(found.row_ids[q, 0])
            there = bool(found.counts[q]) and float(found.distances[q, 0]) < 1e-6
            if there and current.item_of.get(row) != item:
                self.errors.append(f"row {row} is not that of item {item}")
            if there and self._history.must_be_away(item, begun, ended):
                self.errors.append(f"item {item} was found at {begun}..{ended}")
            if not there and self._history.must_be_there(item, begun, ended):
                self.errors.append(f"item {item} was missed at {begun}..{ended}")
            self.seen[f"{'exact' if exact else 'coded'} {'there' if there else 'away'}"] += 1


def test_searches_see_what_was_committed_and_nothing_else(tmp_path: Path) -> None:
    engine = SearchEngine(open_backend("simd", threads=1))
    held = LoadedSnapshots(tmp_path, engine)
    history = History()
    writer = Writer(tmp_path, held, history)
    readers = [Reader(engine, held, writer, history, number) for number in range(READERS)]
    until = time.monotonic() + SOAK_S
    threads = [threading.Thread(target=reader.run, args=(until,)) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        writer.run(until)
    finally:
        for thread in threads:
            thread.join()
    print(f"seed {SEED}: {dict(writer.done)}")
    for reader in readers:
        print(dict(reader.seen))
        assert not reader.errors, reader.errors[:5]
    seen = sum((reader.seen for reader in readers), Counter())
    for outcome in ("exact there", "exact away", "coded there", "coded away"):
        assert seen[outcome] > 20, seen
    assert {"append fresh", "append coded", "delete"} <= set(writer.done)
