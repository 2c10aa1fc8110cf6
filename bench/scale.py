"""How latency and memory grow with a collection: 1M, 4M and 16M codes; and what a build takes.

``python -m bench.scale --json`` makes up collections of 16-byte codes (random
codes, nlist 1024, d 128, l2) and scans all lists of each, one query at a time, one thread.
Of every size there are as many collections as make up the largest one, searched in
turn: so no size finds its codes in a cache, and all compare at the same place of
the machine. ``scale_latency_growth`` is the largest time per code scanned of any size over
that of the smallest size: 1.0 is linear, below it a query's fixed part shows.

``resident_over_codes_ids`` is measured: growth of the process's resident memory from
before a collection is opened to after it was searched everywhere, over the
bytes of its codes and of an 8-byte id each; the largest of all sizes.

``python -m bench.scale --build N`` builds an index of N vectors of 128
dimensions in a process of its own and watches its memory.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bench import common
from bench.scale_build import measure_build
from bench.scale_data import Synthetic, write_collection, write_sparse_shard
from ragschema.procs import calm_thread_pools

if TYPE_CHECKING:
    from retrieval_node.local import LocalSearcher

_ID_BYTES = 8
_MILLION = 1_000_000
_K = 10
_QUERIES = 8
_QUIET_SHARE = 0.1
_SPARSE_ROWS = 100_000_000


@dataclass(frozen=True)
class Opened:
    """Collections of one size, and what opening and holding one of them took."""

    rows: int
    searchers: list[LocalSearcher]
    open_ms: float
    resident_bytes: float


def _rss_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _queries(dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(5).standard_normal((_QUERIES, dim), dtype=np.float32)


def _search_us(searcher: LocalSearcher, query: int) -> float:
    """One query over every list, in microseconds."""
    queries = _queries(searcher.shard_set.dim)[query : query + 1]
    index = searcher.shard_set.index
    assert index is not None, "made with one"
    batch = searcher.batch(queries, _K, nprobe=index.nlist, refine=False)
    started = time.perf_counter()
    searcher.search(batch)
    return (time.perf_counter() - started) * 1e6


def _open(folder: Path, rows: int, copies: int) -> Opened:
    from retrieval_node.local import LocalSearcher

    opened, times, resident = [], [], []
    for number in range(copies):
        before = _rss_bytes()
        started = time.perf_counter()
        searcher = LocalSearcher(folder / f"{rows}-{number}", "simd")
        times.append((time.perf_counter() - started) * 1e3)
        _search_us(searcher, 0)
        resident.append(_rss_bytes() - before)
        opened.append(searcher)
    return Opened(rows, opened, median(times), median(resident))


def _us_per_code(sizes: list[Opened], rounds: int) -> dict[int, float]:
    """Microseconds per code of each size, contestants in turn, as many searches of each.

    The time that a tenth of a size's searches stay below: others that use the
    machine meanwhile only ever add to a search, and more often to a long one.
    """
    most = max(len(size.searchers) for size in sizes)
    found: dict[int, list[float]] = {size.rows: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            for turn in range(most):
                searcher = size.searchers[turn % len(size.searchers)]
                found[size.rows].append(_search_us(searcher, number % _QUERIES) / size.rows)
    return {rows: common.percentile(times, _QUIET_SHARE) for rows, times in found.items()}


def _open_sparse_ms(folder: Path) -> float:
    """Opens a shard of a hundred million codes that nobody wants to read."""
    from dataclasses import replace

    from ragschema.storage.manifest import file_ref, read_manifest
    from retrieval_node.shard import ShardReader

    directory = folder / "sparse"
    write_collection(directory, Synthetic(1024))
    manifest = read_manifest(directory)
    (segment,) = manifest.segments
    path = directory / segment.shards[0].path
    write_sparse_shard(path, _SPARSE_ROWS, 1024, 16)
    segment = replace(segment, row_count=_SPARSE_ROWS, shards=(file_ref(directory, path),))
    manifest = replace(manifest, segments=(segment,), next_row_id=_SPARSE_ROWS)
    started = time.perf_counter()
    ShardReader().open(directory, manifest, (0,))
    return (time.perf_counter() - started) * 1e3


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Growth of latency and memory over the sizes."""
    millions = sorted(given.millions)
    with tempfile.TemporaryDirectory(dir=given.data_dir) as name:
        folder = Path(name)
        warm = Synthetic(10_240, num_shards=1)
        write_collection(folder / "10240-0", warm)
        # The first search allocates what all later ones use.
        _open(folder, warm.rows, 1)
        opened = []
        for size in millions:
            copies = max(1, millions[-1] // size)
            common.note(f"{copies} collections of {size}M codes")
            for number in range(copies):
                plan = Synthetic(size * _MILLION, seed=100 * size + number)
                write_collection(folder / f"{plan.rows}-{number}", plan)
            opened.append(_open(folder, size * _MILLION, copies))
        per_code = _us_per_code(opened, given.rounds)
        sparse_ms = _open_sparse_ms(folder)
    return _summary(opened, per_code) | {"open_100m_ms": round(sparse_ms, 1)}


def _summary(opened: list[Opened], per_code: dict[int, float]) -> dict[str, Any]:
    code_bytes = 16
    base = per_code[opened[0].rows]
    shares = {o.rows: o.resident_bytes / (o.rows * (code_bytes + _ID_BYTES)) for o in opened}
    return {
        "scale_latency_growth": round(max(value / base for value in per_code.values()), 3),
        "resident_over_codes_ids": round(max(shares.values()), 3),
        "sizes": {
            f"{o.rows // _MILLION}M": {
                "latency_us": round(per_code[o.rows] * o.rows, 1),
                "ns_per_code": round(per_code[o.rows] * 1e3, 4),
                "gb_per_s": round(code_bytes / per_code[o.rows] / 1e3, 2),
                "growth_per_code": round(per_code[o.rows] / base, 3),
                "resident_mb": round(o.resident_bytes / 1e6, 1),
                "resident_over_codes_ids": round(shares[o.rows], 3),
                "open_ms": round(o.open_ms, 2),
            }
            for o in opened
        },
    }


def main() -> None:
    parser = common.options(__doc__ or "")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=8, help="each searches every collection")
    parser.add_argument("--build", type=int, metavar="N", help="build N vectors instead")
    parser.add_argument("--nlist", type=int, help="of the build; chosen from N if left out")
    parser.add_argument("--threads", type=int, default=2, help="of the build")
    given = parser.parse_args()
    calm_thread_pools(1)
    with common.typed_failures():
        result = measure(given) if given.build is None else measure_build(given)
    common.emit(result | {"machine": common.machine()}, given)


if __name__ == "__main__":
    main()
