"""Does the cycle model of the FPGA card say what its RTL does?

Searches of random codes go through the same driver to two devices: the RTL compiled by
Verilator, exact to the cycle, and the emulated card, which counts by the model of
``retrieval_node.backends.fpga.model``. Results are compared bit for bit. Shapes vary lanes,
bytes per code, list lengths, lists per query, results, and mode.

* ``median_abs_error_pct``, ``max_abs_error_pct``: model against RTL, cycles of a batch.
* ``codes_per_cycle_fraction_4096``, ``.._512``: codes per cycle of the lanes, over the lists of
  a query, of shapes with that many codes or more per list (512: mode B) and tables of the host;
  between a query with all lists and one with half of them, so that neither start nor end count.
* ``made_median_abs_error_pct``: of the shapes whose tables the card makes, the reading of the
  codebook in the first search among their cycles.
* ``codes_per_cycle_fraction_biased``: the least with biases of codes (l2 in mode B), which share
  the channels' ports: M / (M + 2) at best.
* ``wrong_results``: queries whose results differ.

The RTL's memory answers after 40 cycles with a beat per cycle and port.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import emit, machine, note, options, typed_failures
from ragschema.procs import calm_thread_pools
from ragschema.types import Metric, SnapshotId
from retrieval_node.backends.base import Candidates, ScanRequest
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.device import CardBuild
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.backends.fpga.verilator_build import RtlBuild
from retrieval_node.backends.fpga.verilator_device import VerilatorConfig, VerilatorDevice
from retrieval_node.fixedpoint import Contract, TableMode, TablesBy
from retrieval_node.layout import group_codes
from retrieval_node.segment import SegmentRows, SoundMemory
from retrieval_node.shard import LoadedShard, ShardSet
from retrieval_node.shard_files import make_index

BUILDS = (RtlBuild(4, 16), RtlBuild(4, 32), RtlBuild(2, 16), RtlBuild(2, 64, k_max=64))


@dataclass(frozen=True)
class Shape:
    """One search.

    Attributes:
        codes: per list; spread: lists are up to this share shorter or longer.
        metric: l2 makes a table per list (mode A), ip one per query (mode B).
        biased: l2 with one table per query and biases of codes (mode B).
        sub: components per column; made: the card makes the tables, of one word of components
            for each ``build.macs`` of them.
    """

    build: RtlBuild
    codes: int
    nprobe: int
    k: int
    metric: Metric
    queries: int = 3
    spread: float = 0.0
    biased: bool = False
    sub: int = 2
    made: bool = False

    @property
    def mode(self) -> str:
        if self.biased:
            return "B with biases"
        mode = "A" if self.metric is Metric.L2 else "B"
        return f"{mode}, tables made" if self.made else mode

    @property
    def dim(self) -> int:
        return self.build.m * self.sub


def shapes() -> Iterator[Shape]:
    """Short and long lists of both modes on every build."""
    for build in BUILDS:
        for metric in (Metric.L2, Metric.IP):
            yield Shape(build, 4096, 8, 10, metric)
            yield Shape(build, 512, 16, min(100, build.k_max - 4), metric, spread=0.5)
            yield Shape(build, 1024, 16, 10, metric)
    wide = BUILDS[0]
    for metric in (Metric.L2, Metric.IP):
        yield Shape(wide, 512, 32, 10, metric)
        yield Shape(wide, 8192, 4, 100, metric, queries=2)
        yield Shape(wide, 2000, 1, 1, metric, queries=6)
    for build in BUILDS[:2]:
        for codes, nprobe in ((4096, 8), (512, 16), (2000, 1)):
            yield Shape(build, codes, nprobe, 10, Metric.L2, spread=0.3, biased=True)
    for metric in (Metric.L2, Metric.IP):
        for build, sub in ((wide, 2), (wide, 16), (BUILDS[1], 8)):
            yield Shape(build, 8192, 8, 10, metric, sub=sub, made=True)
            yield Shape(build, 512, 16, 100, metric, spread=0.5, sub=sub, made=True)
            yield Shape(build, 2000, 1, 1, metric, queries=6, sub=sub, made=True)


def make_index_of(shape: Shape, seed: int) -> ShardSet:
    """One shard of twice as many lists as a query probes."""
    rng = np.random.default_rng(seed)
    nlist, m = 2 * shape.nprobe, shape.build.m
    widths = rng.uniform(1 - shape.spread, 1 + shape.spread, nlist)
    sizes = np.maximum(1, shape.codes * widths).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    total = int(offsets[-1])
    codes = rng.integers(0, 256, (total, m)).astype(np.uint8)
    centroids = (0.02 * rng.normal(size=(nlist, shape.dim))).astype(np.float32)
    words = rng.normal(size=(m, 256, shape.sub)).astype(np.float32)
    index = make_index(shape.metric, centroids, words)
    ids = rng.permutation(total).astype(np.uint32)
    segment = SegmentRows(
        Path("made"), 0, total, ids, offsets, group_codes(codes, offsets), None, None, None,
        SoundMemory(), None,
    )  # fmt: skip
    return ShardSet(
        SnapshotId("made", 1), shape.metric, shape.dim, 1, total, index, False, None,
        {0: LoadedShard((segment,), total)},
    )  # fmt: skip


def ask(shape: Shape, seed: int, nprobe: int) -> ScanRequest:
    rng = np.random.default_rng(seed)
    n, nlist = shape.queries, 2 * shape.nprobe
    queries = rng.normal(size=(n, shape.dim)).astype(np.float32)
    lists = np.stack([rng.permutation(nlist)[:nprobe] for _ in range(n)]).astype(np.int32)
    return ScanRequest((0,), queries, queries, lists, shape.k)


def card_of(build: RtlBuild) -> CardBuild:
    """What its registers say."""
    return CardBuild(
        build.m, build.channels, build.table_bits, build.sum_bits, build.k_max, build.features,
        build.macs, build.steps,
    )  # fmt: skip


def open_both(
    build: RtlBuild, biased: bool = False, made: bool = False
) -> tuple[FpgaBackend, FpgaBackend]:
    """The RTL, and the emulated card with the same build; made: they make the tables."""
    mode = TableMode.PER_QUERY if biased else None
    by = TablesBy.CARD if made else TablesBy.HOST
    contract = Contract(build.table_bits, build.sum_bits, by)
    rtl = VerilatorDevice(VerilatorConfig(build))
    emulated = EmulatedDevice(EmulatorConfig(build=card_of(build)))
    return FpgaBackend(rtl, contract, mode), FpgaBackend(emulated, contract, mode)


def counted(backend: FpgaBackend, held: ShardSet, request: ScanRequest) -> tuple[int, Candidates]:
    """Cycles of one search, and what it found."""
    before = backend.driver.counters.totals.cycles
    found = backend.search(held, request)
    return backend.driver.counters.totals.cycles - before, found


def differing(a: Candidates, b: Candidates) -> int:
    """Queries whose results are not the same bits."""
    bits = a.distances.view(np.uint32) == b.distances.view(np.uint32)
    return int((~((a.rows == b.rows) & bits).all(axis=1)).sum())


def measure_shape(shape: Shape, seed: int, rtl: FpgaBackend, model: FpgaBackend) -> dict[str, Any]:
    """One shape on both devices."""
    held = make_index_of(shape, seed)
    for backend in (rtl, model):
        backend.load(held)
    request = ask(shape, seed + 1, shape.nprobe)
    cycles, found = counted(rtl, held, request)
    modelled, wanted = counted(model, held, request)
    row = {
        "channels": shape.build.channels, "m": shape.build.m, "lanes": shape.build.lanes,
        "codes": shape.codes, "spread": shape.spread, "nprobe": shape.nprobe, "k": shape.k,
        "queries": shape.queries, "sub": shape.sub, "mode": shape.mode,
        "rtl_cycles": cycles, "model_cycles": modelled,
        "error_pct": round(100 * (modelled / cycles - 1), 2),
        "wrong_results": differing(found, wanted),
        "codes_per_cycle_fraction": fraction(shape, seed, held, rtl),
    }  # fmt: skip
    note(str(row))
    return row


def fraction(shape: Shape, seed: int, held: ShardSet, rtl: FpgaBackend) -> float | None:
    """Codes per cycle, of the lanes' number, between half of the lists and all.

    None: there is one list, or the card makes tables, which take as long as they take.
    """
    if shape.nprobe < 2 or shape.made:
        return None
    one = replace(shape, queries=1)
    full = ask(one, seed + 2, shape.nprobe)
    half = replace(full, lists=np.ascontiguousarray(full.lists[:, : shape.nprobe // 2]))
    segment = held.shards[0].segments[0]
    more = full.lists[0, shape.nprobe // 2 :]
    codes = int(np.diff(segment.list_offsets)[more].sum())
    cycles = counted(rtl, held, full)[0] - counted(rtl, held, half)[0]
    return round(codes / cycles / shape.build.lanes, 3)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All shapes, and the figures over them."""
    opened: dict[tuple[RtlBuild, bool, bool], tuple[FpgaBackend, FpgaBackend]] = {}
    rows = []
    for number, shape in enumerate(shapes()):
        key = (shape.build, shape.biased, shape.made)
        if key not in opened:
            note(f"opening {shape.build}")
            opened[key] = open_both(*key)
        rows.append(measure_shape(shape, given.seed + 10 * number, *opened[key]))
    for backends in opened.values():
        for backend in backends:
            backend.close()
    return figures(rows) | {"shapes": rows}


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [abs(row["error_pct"]) for row in rows]
    made = [abs(row["error_pct"]) for row in rows if row["mode"].endswith("made")]
    reached = [row for row in rows if row["codes_per_cycle_fraction"] is not None]
    biased = [row["codes_per_cycle_fraction"] for row in reached if row["mode"] == "B with biases"]
    long = [
        row["codes_per_cycle_fraction"]
        for row in reached
        if row["codes"] >= 4096 and row["mode"] in ("A", "B")
    ]
    short = [
        row["codes_per_cycle_fraction"]
        for row in reached
        if row["codes"] == 512 and row["mode"] == "B"
    ]
    return {
        "shapes_measured": len(rows),
        "median_abs_error_pct": round(statistics.median(errors), 2),
        "max_abs_error_pct": max(errors),
        "made_median_abs_error_pct": round(statistics.median(made), 2),
        "codes_per_cycle_fraction_4096": min(long),
        "codes_per_cycle_fraction_512": min(short),
        "codes_per_cycle_fraction_biased": min(biased),
        "wrong_results": sum(row["wrong_results"] for row in rows),
    }


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    calm_thread_pools(1)
    with typed_failures():
        emit(measure(given) | {"machine": machine()}, given)


if __name__ == "__main__":
    main()
