"""Cycles, latency, bandwidth and energy of the accelerator, from a formula.

Nothing here was measured on a card: every result carries ``PROVENANCE``, and
clock frequencies are targets. The formula is within a few per cent of the RTL's
own cycles (``bench.rtl_cycles``). With P lanes, list lengths n_l, eta beats per
cycle that memory delivers to each channel, T = 256 cycles per table (512 where a
row of it is two beats) and b_l = ceil(n_l / P) / eta + g cycles per list, a start
of one query takes

* mode A (a table per list): ``T + sum_l max(b_l, T) + S + Q``, but for the last
  list, which no table waits for: ``b_l``;
* mode B (a table per query): ``T + sum_l b_l + S + Q``;

With biases of codes (l2 in mode B) T is 256 cycles longer, and a channel's port carries a
beat of biases for M / 2 beats of codes too. These cost only what is left of them after the
port's idle cycles: gaps, a query's end, and up to 256 beats that it has read ahead.

Where the card makes the tables (``MadeTables``), T is as many cycles as there are words of
components in a table, 256 per step, if that is more; the first table of a start also waits
for its vector and the maker's pipeline, and before it for the codebook where one is read.

S is what a start costs by itself, and ``Q = K + 0.75 K ln P + 9 K / 8``: handing
out the results, stalls of their queue, writing them. In a further query of the
start, S is shorter, results are written and the first table is loaded beside the
scan, where it is long enough.

Equal sums among the K nearest stop the queue for a few cycles each; that is left out.

Where eta is below 1 the formula is too high: a channel reads ahead, up to 256 beats,
beside tables, gaps and a query's end. Against the RTL with eta 0.85 by 3 % (lists of
512 beats) to 11 % (of 64 beats), with eta 0.5 by 2 to 7 %.

``P = channels * 64 / M``: one beat of 64 bytes per channel and cycle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import InvalidInput
from retrieval_node.backends.fpga.boards import Board
from retrieval_node.backends.fpga.model_build import BEAT_BYTES as BEAT_BYTES
from retrieval_node.backends.fpga.model_build import TABLE_CYCLES as TABLE_CYCLES
from retrieval_node.backends.fpga.model_build import Build as Build
from retrieval_node.backends.fpga.model_build import MadeTables as MadeTables
from retrieval_node.backends.fpga.model_build import Pipeline as Pipeline
from retrieval_node.fixedpoint import TableMode as TableMode

PROVENANCE: Final = "modelled"
ID_BYTES: Final = 4
#: Beats of codes that a channel buffers.
READ_AHEAD_BEATS: Final = 256
#: Of a query's record behind the scan of the next one: ids, memory's answers, entries.
_WRITE_CYCLES: Final = 85


@dataclass(frozen=True)
class Cycles:
    """Where a query's cycles go.

    Attributes:
        table: before the first code is read.
        scan: reading and decoding codes, waiting for tables included.
        gaps: between lists.
        settle: of a start, the end of the pipeline, stalls of the queue.
        drain: handing out the K results and, where nothing hides it, writing them.
    """

    table: int
    scan: int
    gaps: int
    settle: int
    drain: int

    @property
    def total(self) -> int:
        return self.table + self.scan + self.gaps + self.settle + self.drain


@dataclass(frozen=True)
class Estimate:
    """A modelled batch.

    Attributes:
        cycles: of the whole batch.
        latency_us: from the start to the last result, at the target clock.
        code_bytes: PQ codes read from memory, padding of last beats left out.
        bandwidth_fraction: ``code_bytes`` per time, of the board's peak.
        energy_mj_bound: at the card's maximum power, so an upper bound.
        provenance: always ``modelled``.
    """

    cycles: int
    latency_us: float
    code_bytes: int
    bandwidth_fraction: float
    energy_mj_bound: float
    provenance: Literal["modelled"] = PROVENANCE


def build_for(board: Board, m: int, pipeline: Pipeline | None = None) -> Build:
    """The build that uses all of a board's channels at its target clock."""
    wanted = BEAT_BYTES * board.target_clock_hz
    return Build(
        channels=board.channels_count,
        m=m,
        clock_hz=board.target_clock_hz,
        beats_per_cycle=min(1.0, board.reached_share * board.channel_bytes_per_s / wanted),
        pipeline=pipeline or Pipeline(),
    )


def query_cycles(
    build: Build,
    list_codes: Sequence[int],
    k: int,
    mode: TableMode,
    first: bool = True,
    biased: bool = False,
    made: MadeTables | None = None,
) -> Cycles:
    """Cycles of one query.

    Args:
        list_codes: codes of each probed list; empty lists cost their gap.
        first: the first query of a start, whose table nothing hides.
        biased: codes have biases, in mode B; of a further query nothing is read ahead.
        made: the card makes the tables; None: the host.

    Raises:
        InvalidInput: k is less than 1, or a list's length is negative.
    """
    if k < 1:
        raise InvalidInput(f"{k} is less than 1", field="k")
    if any(codes < 0 for codes in list_codes):
        raise InvalidInput(f"{min(list_codes)} is negative", field="list_codes")
    pipeline, gap = build.pipeline, build.pipeline.gap_cycles
    table = build.load_cycles(biased, made)
    beats = [math.ceil(-(-codes // build.lanes) / build.beats_per_cycle) for codes in list_codes]
    floor = table - gap if mode is TableMode.PER_LIST else 0
    scan = sum(max(cycles, floor) for cycles in beats[:-1]) + sum(beats[-1:])
    gaps = gap * len(beats)
    if biased:
        own = int(build.bias_cycles(np.array(list_codes, dtype=np.int64)).sum())
        scan += max(0, own - gaps - (READ_AHEAD_BEATS if first else 0))
    written = -(-k * 9 // 8)
    if first:
        settle = pipeline.settle_cycles + build.queue_cycles(k)
        table += made.first_cycles(build) if made else 0
        return Cycles(table, scan, gaps, settle, k + written)
    settle = pipeline.between_cycles + build.queue_cycles(k)
    end = settle + k
    behind = (sum(beats[-1:]) + gap if mode is TableMode.PER_LIST else scan + gaps) + end
    scan += max(0, table - behind) if beats else 0
    scan += max(0, written + _WRITE_CYCLES + k - scan - gaps - end)
    return Cycles(0, scan, gaps, settle, k)


def batch_cycles(
    build: Build,
    codes: NDArray[np.integer[Any]],
    k: int,
    mode: TableMode,
    biased: bool = False,
    made: MadeTables | None = None,
) -> NDArray[np.int64]:
    """``query_cycles(...).total`` of every query of a batch: int64 [n].

    Args:
        codes: codes of each probed list, [n, nprobe]; a list without codes is
            passed over and costs nothing, as the card does with padding.
        biased: codes have biases, in mode B.
        made: the card makes the tables; None: the host.
    """
    pipeline, gap = build.pipeline, build.pipeline.gap_cycles
    table = build.load_cycles(biased, made)
    probed = codes > 0
    beats = (codes.astype(np.int64) + (build.lanes - 1)) // build.lanes
    if build.beats_per_cycle < 1.0:
        beats = np.ceil(beats / build.beats_per_cycle).astype(np.int64)
    beats = (beats + gap) * probed
    some = probed.any(axis=1)
    if mode is TableMode.PER_LIST:
        last = codes.shape[1] - 1 - np.argmax(probed[:, ::-1], axis=1)
        own = np.where(some, beats[np.arange(len(codes)), last], 0)
        scan = np.where(probed, np.maximum(beats, table), 0).sum(axis=1)
        scan += np.where(some, own - np.maximum(own, table), 0)
    else:
        scan = own = beats.sum(axis=1)
    written = -(-k * 9 // 8)
    end = pipeline.between_cycles + build.queue_cycles(k) + k
    if biased:
        own_biases = np.where(probed, build.bias_cycles(codes), 0).sum(axis=1)
        scan = scan + _left_of_biases(own_biases, gap * probed.sum(axis=1), end)
    total = scan + end + np.where(some, np.maximum(0, table - own - end), 0)
    total = np.maximum(total, written + _WRITE_CYCLES + k)
    start = pipeline.settle_cycles - pipeline.between_cycles
    start += made.first_cycles(build) if made else 0
    total[:1] = (scan + end)[:1] + table + start + written
    found: NDArray[np.int64] = total.astype(np.int64)
    return found


def _left_of_biases(
    biases: NDArray[np.int64], gaps: NDArray[np.int64], end: int
) -> NDArray[np.int64]:
    """Cycles that each query of a start waits for biases of codes."""
    ahead, waits = READ_AHEAD_BEATS, np.zeros_like(biases)
    for query, (own, idle) in enumerate(zip(biases.tolist(), gaps.tolist(), strict=True)):
        waits[query] = max(0, own - idle - ahead)
        ahead = min(READ_AHEAD_BEATS, ahead + int(waits[query]) + idle + end - own)
    return waits


def estimate(
    board: Board,
    build: Build,
    queries: Sequence[Sequence[int]],
    k: int,
    mode: TableMode,
    made: MadeTables | None = None,
) -> Estimate:
    """A batch of queries, each given by the lengths of its probed lists.

    Args:
        made: the card makes the tables; None: the host.

    Raises:
        InvalidInput: there is no query, or one that ``query_cycles`` refuses.
    """
    if not queries:
        raise InvalidInput("there is no query", field="queries")
    cycles = sum(
        query_cycles(build, lists, k, mode, first=at == 0, made=made).total
        for at, lists in enumerate(queries)
    )
    code_bytes = build.m * sum(sum(lists) for lists in queries)
    seconds = cycles / build.clock_hz
    return Estimate(
        cycles=cycles,
        latency_us=seconds * 1e6,
        code_bytes=code_bytes,
        bandwidth_fraction=code_bytes / seconds / board.peak_bytes_per_s,
        energy_mj_bound=seconds * board.max_power_w * 1e3,
    )


def estimate_search(
    board: Board,
    m: int,
    vectors: int,
    nlist: int,
    nprobe: int,
    k: int,
    mode: TableMode,
    batch: int = 1,
    made: MadeTables | None = None,
) -> Estimate:
    """A batch on a board that holds ``vectors`` codes in lists of equal length.

    What a planner asks of the model: the build uses all channels of the board, at
    its target clock.

    Args:
        made: the card makes the tables; None: the host.

    Raises:
        InvalidInput: the codes do not fit the board's memory, or a size is no size.
    """
    for name, value in (("vectors", vectors), ("nlist", nlist), ("batch", batch)):
        if value < 1:
            raise InvalidInput(f"{value} is less than 1", field=name)
    if not 1 <= nprobe <= nlist:
        raise InvalidInput(f"{nprobe} is not in 1..{nlist}", field="nprobe")
    if vectors * (m + ID_BYTES) > board.capacity_bytes:
        raise InvalidInput(
            f"{vectors} codes of {m} bytes and their ids are more than the"
            f" {board.capacity_bytes:g} bytes of {board.name}",
            field="vectors",
            hint="spread them over more cards",
        )
    lists = [-(-vectors // nlist)] * nprobe
    return estimate(board, build_for(board, m), [lists] * batch, k, mode, made)
