"""What does the emulated card cost beside the kernels that it runs?

The same batches of 64 queries through the fpga backend (driver, emulated card)
and through the simd backend in mode contract16, which is the native kernel with
nothing around it: from queries and lists to sorted distances. Both give the same
bits, which is checked. CPU seconds of the whole process count, so that threads of
the emulated card cannot hide; every ratio is the median over rounds of the ratio
within the round.

* ``emulator_throughput_ratio``: queries per CPU second, card over kernel, with
  inner products (mode B, one table per query), which cosine collections use.
* ``emulator_throughput_ratio_l2``: squared distances in mode A, where each query
  brings a table per list: 256 KiB with the defaults, which the card's format makes
  the host transpose and sync, and the emulated card turn back.
* ``.._card``: the card makes the tables, of integers, and so does the kernel.
* ``.._wall``: the same by the wall clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.common import emit, machine, note, options, typed_failures
from bench.pq_scan_data import CodeSet, make_codes
from ragschema.procs import calm_thread_pools
from ragschema.types import Metric, SnapshotId
from retrieval_node.backends.base import Backend, ScanRequest
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.emulator import EmulatedDevice
from retrieval_node.backends.simd import SimdBackend
from retrieval_node.fixedpoint import Contract, TablesBy
from retrieval_node.segment import segment_in_memory
from retrieval_node.shard import LoadedShard, ShardSet
from retrieval_node.shard_files import make_index


def shard_set(made: CodeSet, metric: Metric) -> ShardSet:
    """One shard in memory."""
    index = make_index(metric, made.centroids, made.codebooks, shift=made.shift)
    squared = metric is Metric.L2
    bias = (made.bias if squared else None, made.bias_affine if squared else None)
    ids = np.arange(made.rows, dtype=np.uint32)
    segment = segment_in_memory(
        index, made.offsets, ids, made.codes, bias[0], bias[1], None, made.rows
    )
    return ShardSet(
        SnapshotId("made", 1), metric, made.centroids.shape[1], 1, made.rows, index, False, None,
        {0: LoadedShard((segment,), made.rows)},
    )  # fmt: skip


def ask(made: CodeSet, given: argparse.Namespace, seed: int) -> ScanRequest:
    """A batch whose queries probe random lists."""
    rng = np.random.default_rng(seed)
    nlist, dim = made.centroids.shape
    queries = rng.normal(size=(given.batch, dim)).astype(np.float32)
    lists = np.stack([rng.permutation(nlist)[: given.nprobe] for _ in range(given.batch)])
    return ScanRequest((0,), queries, queries, lists.astype(np.int32), given.k)


def took(call: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(
    made: CodeSet, metric: Metric, tables: TablesBy, given: argparse.Namespace
) -> dict[str, Any]:
    """Both backends on the same batches, in turns."""
    held, contract = shard_set(made, metric), Contract(tables=tables)
    card = FpgaBackend(EmulatedDevice(), contract)
    kernel = SimdBackend("contract16", contract=contract)
    for backend in (card, kernel):
        backend.load(held)
    _same_results(card, kernel, held, made, given)
    times: dict[str, list[tuple[float, float]]] = {"card": [], "kernel": []}
    for r in range(given.rounds):
        request = ask(made, given, given.seed + r)
        for name, backend in (("card", card), ("kernel", kernel)):
            best = min(took(partial(backend.search, held, request)) for _ in range(3))
            times[name].append(best)
    card.close()
    pairs = list(zip(times["kernel"], times["card"], strict=True))
    suffix = ("" if metric is Metric.IP else "_l2") + ("_card" if tables is TablesBy.CARD else "")
    return {
        f"emulator_throughput_ratio{suffix}": round(
            statistics.median(a[0] / b[0] for a, b in pairs), 3
        ),
        f"emulator_throughput_ratio{suffix}_wall": round(
            statistics.median(a[1] / b[1] for a, b in pairs), 3
        ),
        f"kernel_queries_per_s{suffix}": round(
            given.batch / statistics.median(a[0] for a, _ in pairs)
        ),
        f"card_queries_per_s{suffix}": round(
            given.batch / statistics.median(b[0] for _, b in pairs)
        ),
        f"host_queries{suffix}": card.driver.counters.totals.host_queries,
    }


def _same_results(
    card: Backend, kernel: Backend, held: ShardSet, made: CodeSet, given: argparse.Namespace
) -> None:
    """Contestants that do not find the same are no contestants."""
    request = ask(made, given, given.seed - 1)
    a, b = card.search(held, request), kernel.search(held, request)
    np.testing.assert_array_equal(a.rows, b.rows)
    assert a.distances.tobytes() == b.distances.tobytes(), "the contract is one of bits"


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Both metrics."""
    note(f"making {given.rows} codes of {given.m} bytes, seed {given.seed}")
    made = make_codes(given.rows, given.nlist, given.dim, given.m, given.seed)
    found: dict[str, Any] = {}
    for tables in TablesBy:
        for metric in (Metric.IP, Metric.L2):
            found |= compare(made, metric, tables, given)
    return found


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rows", type=int, default=1 << 20)
    parser.add_argument("--nlist", type=int, default=256, help="lists, of rows / nlist codes each")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--m", type=int, default=16, help="bytes per code")
    parser.add_argument("--nprobe", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    calm_thread_pools(1)
    with typed_failures():
        kept = {
            name: getattr(given, name) for name in ("rows", "nlist", "m", "nprobe", "batch", "k")
        }
        emit(measure(given) | kept | {"machine": machine()}, given)


if __name__ == "__main__":
    main()
