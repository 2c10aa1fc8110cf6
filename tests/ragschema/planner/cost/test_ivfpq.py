"""IVF-PQ on hosts, GPUs and cards: by hand, by dimension, against the accelerator's own model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ragschema.hardware.devices import Accelerator, Fpga, Host, find_device
from ragschema.planner.cost.ivfpq import IvfPq, ivfpq_s
from retrieval_node.backends.fpga.boards import load_board
from retrieval_node.backends.fpga.model import Pipeline, TableMode, build_for, query_cycles

INDEX = IvfPq(1e8, 128, 16.0, 16_384, 32 / 16_384)
HOST = Host("host", 10, 1e12, 1e11, 1e9, core_flops_per_s=1e10)
GPU = Accelerator("gpu", 1e14, 8e10, 1e12, 1e11, scan_share=0.5, launch_s=1e-4)


def card(name: str) -> Fpga:
    found = find_device(name)
    assert isinstance(found, Fpga)
    return found


def device(name: str) -> Host | Accelerator | Fpga:
    return {"host": HOST, "gpu": GPU}.get(name) or card(name)


def seconds(index: IvfPq, name: str, nodes: int = 1, queries: int = 1) -> float:
    found = ivfpq_s(index, device(name), nodes, queries)
    assert found is not None
    return found


def test_a_host_by_hand() -> None:
    scanned = 1e8 * 32 / 16_384 * 16
    flops = 2 * 16_384 * 128 + 3 * 32 * 256 * 128
    centroids = 16_384 * 128 * 4  # bytes; for one query reading them takes longer
    assert INDEX.nprobe == 32
    assert seconds(INDEX, "host") == pytest.approx(scanned / 1e10 + centroids / 1e11)
    many = 64 * (scanned / 1e10 + flops / 1e11)
    assert seconds(INDEX, "host", queries=64) == pytest.approx(many)


def test_a_gpu_by_hand() -> None:
    scanned = 1e8 * 32 / 16_384 * 16
    centroids = 16_384 * 128 * 4
    assert seconds(INDEX, "gpu") == pytest.approx(1e-4 + centroids / 1e12 + scanned / 5e11)


@pytest.mark.parametrize("name", ["u250", "u280", "u55c"])
def test_a_card_is_what_the_accelerators_own_model_says(name: str) -> None:
    board = load_board(name)
    build = build_for(board, 16)
    for vectors in (1e6, 1e8):
        index = replace(INDEX, vectors=vectors)
        codes = round(vectors / 16_384)
        cycles = query_cycles(build, [codes] * 32, 10, TableMode.PER_LIST).total
        assert seconds(index, name) == pytest.approx(cycles / board.target_clock_hz, rel=0.01)
    assert card(name).settle_cycles == Pipeline().settle_cycles
    assert card(name).gap_cycles == Pipeline().gap_cycles


@pytest.mark.parametrize("name", ["host", "gpu", "u55c"])
def test_more_work_never_takes_less_and_more_nodes_never_more(name: str) -> None:
    base = seconds(INDEX, name)
    assert seconds(INDEX, name, queries=64) > base
    assert seconds(replace(INDEX, scan_share=INDEX.scan_share * 4), name) > base
    # Short lists take a card as long as a table does.
    assert seconds(INDEX, name, nodes=4) <= base


def test_time_halves_when_every_rate_doubles() -> None:
    """Seconds come out, whatever the figures are: nothing is added to a number of bytes."""
    quick = replace(
        HOST,
        memory_bytes_per_s=2 * HOST.memory_bytes_per_s,
        scan_bytes_per_s=2 * HOST.scan_bytes_per_s,
        core_flops_per_s=2e10,
    )
    assert ivfpq_s(INDEX, quick, 1, 8) == pytest.approx(seconds(INDEX, "host", queries=8) / 2)
    fast = replace(GPU, flops_per_s=2e14, memory_bytes_per_s=2e12, launch_s=5e-5)
    assert ivfpq_s(INDEX, fast, 1, 8) == pytest.approx(seconds(INDEX, "gpu", queries=8) / 2)
    u55c = card("u55c")
    clocked = replace(
        u55c, clock_hz=2 * u55c.clock_hz, channel_bytes_per_s=2 * u55c.channel_bytes_per_s
    )
    assert ivfpq_s(INDEX, clocked, 1, 8) == pytest.approx(seconds(INDEX, "u55c", queries=8) / 2)


def test_an_index_that_does_not_fit_is_not_possible() -> None:
    huge = replace(INDEX, vectors=1e9)
    assert ivfpq_s(huge, card("u55c"), 1, 1) is None
    assert ivfpq_s(huge, card("u55c"), 2, 1) is not None


def test_a_host_without_core_flops_counts_codes_alone() -> None:
    bare = replace(HOST, core_flops_per_s=None)
    assert ivfpq_s(INDEX, bare, 1, 1) == pytest.approx(INDEX.scanned_bytes / 1e10)
