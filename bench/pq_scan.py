"""How near does the PQ scan come to memory speed, and to what faiss does?

One thread; contestants take turns within each round, and every ratio is the
median over rounds of the ratio within the round. Rates count code bytes alone
(m per code), whatever else a scan reads; searches are the ones users call, from
tables to the sorted result, with every list probed and k = 10.

* ``scan_vs_faiss_cache``: mode fast over faiss IndexIVFPQ with the same codes and
  precomputed tables, 8 MiB of codes, one query a call.
* ``scan_fraction_of_read_bw``: mode fast on 512 MiB of codes over a plain read of
  the same bytes: 512-bit loads, with the streams and the prefetch distance that
  a trial finds fastest on this machine. Inner products, as of cosine collections,
  which read nothing but codes; ``.._l2`` is the same for squared distances, which
  also read the two-byte bias terms of some blocks, not counted in the rate.
* ``contract16_fraction_of_read_bw`` and ``.._l2``: the same for mode contract16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np

from bench.common import emit, machine, note, options, typed_failures
from bench.pq_scan_data import CodeSet, make_codes
from ragschema.procs import calm_thread_pools
from ragschema.types import F32, Metric
from retrieval_node.native.loader import require_native

_DIM, _M, _K = 128, 16, 10
_CACHE_BYTES, _CACHE_LISTS = 8 << 20, 64
_LARGE_LISTS = 1024
_READS = [(streams, ahead) for streams in (1, 2, 4, 8) for ahead in (0, 1024, 4096, 16384)]


class Scan:
    """One code set under the extension: a call searches all lists for some queries."""

    def __init__(self, made: CodeSet, metric: Metric) -> None:
        self._scan = require_native()
        self._pool = self._scan.Pool(1)
        self._index, self._segment = made.handles(self._scan, metric)
        self._lists = np.arange(len(made.centroids), dtype=np.int32)
        self.code_bytes = made.codes.nbytes

    def fast(self, queries: F32) -> Any:
        return self._scan.search(*self._arguments(queries))

    def contract16(self, queries: F32) -> Any:
        return self._scan.contract_search(*self._arguments(queries))

    @property
    def isa(self) -> str:
        return str(self._index.isa)

    def _arguments(self, queries: F32) -> tuple[Any, ...]:
        lists = np.tile(self._lists, (len(queries), 1))
        return self._index, [self._segment], queries, lists, _K, self._pool


def faiss_index(made: CodeSet) -> Any:
    """IndexIVFPQ with the same centroids, codebooks and codes."""
    nlist, dim = made.centroids.shape
    quantizer = faiss.IndexFlatL2(dim)
    quantizer.add(made.centroids)
    index = faiss.IndexIVFPQ(quantizer, dim, nlist, len(made.codebooks), 8)
    faiss.copy_array_to_vector(made.codebooks.reshape(-1), index.pq.centroids)
    index.is_trained = True
    index.precompute_table()
    inverted: Any = index.invlists
    for which in range(nlist):
        codes = made.row_codes(which)
        ids = np.arange(len(codes), dtype=np.int64) + which * made.list_rows
        inverted.add_entries(
            which, len(codes), faiss.swig_ptr(ids), faiss.swig_ptr(np.ascontiguousarray(codes))
        )
    index.ntotal = made.rows
    index.nprobe = nlist
    return index


def took_s(call: Callable[[], Any]) -> float:
    """CPU seconds of this thread, which does all the work of every contestant.

    On an idle machine that is the wall clock; a neighbour's turns do not count.
    """
    started_s = time.thread_time()
    call()
    return time.thread_time() - started_s


def in_cache(given: argparse.Namespace) -> dict[str, Any]:
    """Mode fast beside faiss where codes stay in the last-level cache."""
    made = make_codes(_CACHE_BYTES // _M, _CACHE_LISTS, _DIM, _M, given.seed)
    scan, peer = Scan(made, Metric.L2), faiss_index(made)
    queries = _queries(given, 256)
    _same_results(scan, peer, queries[:16])
    result: dict[str, Any] = {}
    for batch, calls, name in ((1, 24, ""), (64, 1, "_b64")):
        ours, theirs = [], []
        for r in range(given.rounds):
            at = r * batch % len(queries)
            some = queries[at : at + batch]
            scan.fast(some)  # both find their own codes in the cache
            ours.append(min(took_s(partial(scan.fast, some)) for _ in range(calls)))
            theirs.append(min(took_s(partial(peer.search, some, _K)) for _ in range(2)))
        swept = made.codes.nbytes * batch
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        result[f"scan_vs_faiss_cache{name}"] = round(statistics.median(ratios), 2)
        result[f"cache_scan_gb_s{name}"] = _rate(swept, ours)
        result[f"cache_faiss_gb_s{name}"] = _rate(swept, theirs)
    return result


def _same_results(scan: Scan, peer: Any, queries: F32) -> None:
    """Contestants that do not find the same are no contestants."""
    found = scan.fast(queries)
    distances, _ = peer.search(queries, _K)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-3)


def from_memory(given: argparse.Namespace) -> dict[str, Any]:
    """Both modes beside a plain read, where codes come from memory."""
    size = given.code_mib << 20
    note(f"making {given.code_mib} MiB of codes, seed {given.seed}")
    made = make_codes(size // _M, _LARGE_LISTS, _DIM, _M, given.seed)
    read = _fastest_read(made)
    result: dict[str, Any] = {}
    for metric, name in ((Metric.IP, ""), (Metric.L2, "_l2")):
        scan = Scan(made, metric)
        turns = _turns(scan, read, _queries(given, given.rounds + 1))
        result |= {
            f"scan_fraction_of_read_bw{name}": _share(turns["read"], turns["fast"]),
            f"contract16_fraction_of_read_bw{name}": _share(turns["read"], turns["contract16"]),
            f"read_gb_s{name}": _rate(size, turns["read"]),
            f"scan_gb_s{name}": _rate(size, turns["fast"]),
            f"contract16_gb_s{name}": _rate(size, turns["contract16"]),
            f"survivors{name}": scan.fast(_queries(given, 1)).survivors,
        }
    return result | {"code_mib": given.code_mib, "isa": scan.isa}


def _turns(scan: Scan, read: Callable[[], Any], queries: F32) -> dict[str, list[float]]:
    """Seconds of each contestant, a round per query; the first only warms up."""
    took: dict[str, list[float]] = {"read": [], "fast": [], "contract16": []}
    for i in range(len(queries)):
        one = queries[i : i + 1]
        before_s = took_s(read)
        took["fast"].append(took_s(partial(scan.fast, one)))
        took["contract16"].append(took_s(partial(scan.contract16, one)))
        # Mean of the reads around them: the machine drifts.
        took["read"].append((before_s + took_s(read)) / 2)
    return {name: values[1:] for name, values in took.items()}


def _fastest_read(made: CodeSet) -> Callable[[], Any]:
    """The plain read with the pattern that is fastest here."""
    scan = require_native()
    data = made.codes

    def trial(pattern: tuple[int, int]) -> float:
        return min(took_s(partial(scan.read_memory, data, *pattern)) for _ in range(3))

    best = min(_READS, key=trial)
    note(f"plain read: {best[0]} streams, prefetching {best[1]} bytes ahead")
    return partial(scan.read_memory, data, *best)


def _queries(given: argparse.Namespace, count: int) -> F32:
    rng = np.random.default_rng(given.seed + 1)
    return rng.normal(size=(count, _DIM)).astype(np.float32)


def _share(reads: list[float], scans: list[float]) -> float:
    return round(statistics.median(r / s for r, s in zip(reads, scans, strict=True)), 3)


def _rate(size: int, took: list[float]) -> float:
    return round(size / statistics.median(took) / 1e9, 2)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=31, help="turns of each contestant")
    parser.add_argument("--code-mib", type=int, default=512, help="codes that come from memory")
    parser.add_argument("--seed", type=int, default=31)
    given = parser.parse_args()
    calm_thread_pools(1)
    faiss.omp_set_num_threads(1)
    with typed_failures():
        result = in_cache(given) | from_memory(given)
    emit(
        result
        | {"seed": given.seed, "rounds": given.rounds, "threads": 1, "dim": _DIM, "m": _M, "k": _K}
        | {"machine": machine()},
        given,
    )


if __name__ == "__main__":
    main()
