"""A shard of a hundred million codes opens without being read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.scale_data import write_sparse_shard
from ragschema.errors import CorruptData
from ragschema.storage.blockhead import BLOCK_BYTES
from ragschema.storage.manifest import Manifest, file_ref
from retrieval_node.shard import ShardReader
from tests.retrieval_node.making import Made, Plan, make

ROWS = 100_000_000
NLIST = 8
M = 4
#: Head, index and list offsets; the rest of the 800 MB is not to be touched.
MOST_BYTES = 32 << 20


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "c", Plan(nlist=NLIST, m=M, refine=False))


def _of_one_segment(made: Made) -> Manifest:
    (segment,) = made.manifest.segments
    path = made.directory / segment.shards[0].path
    write_sparse_shard(path, ROWS, NLIST, M)
    segment = replace(segment, row_count=ROWS, shards=(file_ref(made.directory, path),))
    return replace(made.manifest, segments=(segment,), next_row_id=ROWS, live_rows=ROWS)


def test_opening_reads_next_to_nothing(made: Made) -> None:
    manifest = _of_one_segment(made)
    before = psutil.Process().memory_info().rss
    loaded = ShardReader().open(made.directory, manifest, (0,))
    assert psutil.Process().memory_info().rss - before < MOST_BYTES
    assert loaded.live_rows == ROWS
    (segment,) = loaded.shards[0].segments
    assert segment.resident_bytes > ROWS * (M + 4 + 2)
    # What is touched is verified all the same.
    start, _ = segment.file.span("codes")  # type: ignore[union-attr]
    segment.file.ensure(start, start + BLOCK_BYTES)


def test_damage_far_inside_is_found_where_it_is_touched(made: Made) -> None:
    manifest = _of_one_segment(made)
    path = made.directory / manifest.segments[0].shards[0].path
    with path.open("r+b") as out:
        out.seek(300_000_000)
        out.write(b"\x01")
    (segment,) = ShardReader().open(made.directory, manifest, (0,)).shards[0].segments
    segment.file.ensure(200_000_000, 201_000_000)
    with pytest.raises(CorruptData, match=r"shard-0\.rag.*offset 29\d{7}"):
        segment.file.ensure(299_000_000, 301_000_000)
