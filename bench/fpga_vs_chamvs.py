"""How much sooner would this FPGA design answer than ChamVS on the same card? Modelled.

Both designs go through formulas of one style with batch 1 on an Alveo U250. Nothing
is measured: our clock is a target, ChamVS' is the one its authors publish. ChamVS
(Chameleon, arXiv 2310.09949, and its public code): four 512-bit ports at 140 MHz,
tables not double-buffered, so each list waits for 256 entries and an adder chain of
depth 4 M + 3; costs of its queues, network and software are left out, in its favour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.common import emit, options, typed_failures
from retrieval_node.backends.fpga.boards import Board, load_board
from retrieval_node.backends.fpga.model import (
    BEAT_BYTES,
    PROVENANCE,
    TABLE_CYCLES,
    TableMode,
    build_for,
    estimate,
)

VECTORS = 1_000_000_000
NLIST = 32_768
NPROBE = 32
K = 100
CHAMVS_CLOCK_HZ = 140e6
CHAMVS_CHANNELS = 4
#: Its list descriptors are read again on every call.
CHAMVS_METADATA_CYCLES_PER_LIST = 4
#: Of the U250's peak, from the log in its public code.
CHAMVS_LOG_FRACTION = 0.32


@dataclass(frozen=True)
class Collection:
    """One of the paper's data sets; ``m`` bytes per vector."""

    name: str
    m: int


COLLECTIONS = (
    Collection("Deep", 16),
    Collection("SIFT", 16),
    Collection("SYN-512", 32),
    Collection("SYN-1024", 64),
)


def chamvs_us(m: int, list_codes: int, nprobe: int, board: Board) -> float:
    """Modelled latency of ChamVS for one query, in us, list descriptors left out."""
    lanes = CHAMVS_CHANNELS * BEAT_BYTES // m
    wanted = BEAT_BYTES * CHAMVS_CLOCK_HZ
    beats_per_cycle = min(1.0, board.reached_share * board.channel_bytes_per_s / wanted)
    depth = 4 * m + 3
    cycles = nprobe * (-(-list_codes // lanes) / beats_per_cycle + TABLE_CYCLES + depth)
    return cycles / CHAMVS_CLOCK_HZ * 1e6


def compare(collection: Collection, board: Board) -> dict[str, Any]:
    """Both designs on one data set."""
    codes = -(-VECTORS // NLIST)
    ours = {
        mode: estimate(board, build_for(board, collection.m), [[codes] * NPROBE], K, mode)
        for mode in TableMode
    }
    theirs_us = chamvs_us(collection.m, codes, NPROBE, board)
    metadata_us = NLIST * CHAMVS_METADATA_CYCLES_PER_LIST / CHAMVS_CLOCK_HZ * 1e6
    code_bytes = codes * NPROBE * collection.m
    slower = ours[TableMode.PER_LIST]
    return {
        "dataset": collection.name,
        "bytes_per_code": collection.m,
        "ragrig_us": round(slower.latency_us, 1),
        "ragrig_mode_b_us": round(ours[TableMode.PER_QUERY].latency_us, 1),
        "ragrig_bandwidth_fraction": round(slower.bandwidth_fraction, 3),
        "ragrig_energy_mj_bound": round(slower.energy_mj_bound, 1),
        "chamvs_us": round(theirs_us, 1),
        "chamvs_bandwidth_fraction": round(
            code_bytes / (theirs_us * 1e-6) / board.peak_bytes_per_s, 3
        ),
        "chamvs_with_metadata_us": round(theirs_us + metadata_us, 1),
        "speedup": round(theirs_us / slower.latency_us, 3),
        "speedup_with_metadata": round((theirs_us + metadata_us) / slower.latency_us, 3),
        "codes_and_ids_of_card": round(VECTORS * (collection.m + 4) / board.capacity_bytes, 3),
    }


def published(rows: list[dict[str, Any]], board: Board) -> dict[str, Any]:
    """What its authors' log says about one scan, beside the formula for ChamVS."""
    sift = next(row for row in rows if row["dataset"] == "SIFT")
    code_bytes = -(-VECTORS // NLIST) * NPROBE * 16
    logged_us = code_bytes / (CHAMVS_LOG_FRACTION * board.peak_bytes_per_s) * 1e6
    return {
        "chamvs_log_bandwidth_fraction": CHAMVS_LOG_FRACTION,
        "chamvs_log_us_implied": round(logged_us, 1),
        "chamvs_modelled_us": sift["chamvs_us"],
        "formula_leaves_out_us": round(logged_us - sift["chamvs_us"], 1),
    }


def main() -> None:
    """Prints both designs for the paper's four data sets."""
    given = options(__doc__ or "").parse_args()
    with typed_failures():
        board = load_board("u250")
        rows = [compare(collection, board) for collection in COLLECTIONS]
        emit(
            {
                "question": "how much sooner than ChamVS on a U250, batch 1",
                "provenance": PROVENANCE,
                "speedup_min": min(row["speedup"] for row in rows),
                "clock_mhz": {
                    "ragrig_target": board.target_clock_hz / 1e6,
                    "chamvs_published": CHAMVS_CLOCK_HZ / 1e6,
                },
                "shape": {"vectors": VECTORS, "nlist": NLIST, "nprobe": NPROBE, "k": K},
                "reached_share_assumed": board.reached_share,
                "datasets": rows,
                "published": published(rows, board),
            },
            given,
        )


if __name__ == "__main__":
    main()
