"""The cycle model by hand, and the board files it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.fpga_vs_chamvs import COLLECTIONS, compare
from ragschema.errors import InvalidInput
from retrieval_node.backends.fpga.boards import board_names, load_board, parse_board
from retrieval_node.backends.fpga.model import (
    Build,
    MadeTables,
    Pipeline,
    TableMode,
    batch_cycles,
    build_for,
    estimate,
    estimate_search,
    query_cycles,
)

BUILD = Build(channels=4, m=16, clock_hz=1e6, pipeline=Pipeline(4, 250, 20))


def test_lanes_are_codes_of_one_beat_per_channel() -> None:
    assert BUILD.lanes == 16
    assert replace(BUILD, m=64).lanes == 4


def test_a_query_by_hand() -> None:
    """Lists of 8 192 and 17 codes on 16 lanes: 512 and 2 beats; ln 16 = 2.77."""
    found = query_cycles(BUILD, [17, 8192], 10, TableMode.PER_QUERY)
    assert (found.table, found.scan, found.gaps, found.settle, found.drain) == (
        256,
        514,
        2 * 4,
        250 + 21,
        10 + 12,
    )
    per_list = query_cycles(BUILD, [17, 8192], 10, TableMode.PER_LIST)
    assert per_list.scan + per_list.gaps == 256 + 512 + 4  # the second list waits for its table
    last = query_cycles(BUILD, [8192, 17], 10, TableMode.PER_LIST)
    assert last.scan == 514  # nothing waits behind the last one


def test_biases_of_codes_share_the_channels_port() -> None:
    """4 096 beats of codes and a beat of 32 biases for each 8 of them, 2 beats and 1."""
    found = query_cycles(BUILD, [17, 65_536], 10, TableMode.PER_QUERY, biased=True)
    waits = 512 + 1 - 2 * 4 - 256  # two gaps, and what was read ahead
    assert (found.table, found.scan) == (512, 4096 + 2 + waits)
    codes = np.array([[17, 65_536], [65_536, 17], [160, 0]])
    batch = batch_cycles(BUILD, codes, 10, TableMode.PER_QUERY, biased=True)
    assert batch[0] == found.total
    end = 20 + 21 + 10
    assert batch[1] == 4096 + 2 + 2 * 4 + end + 512 + 1 - 2 * 4 - end
    second = query_cycles(BUILD, [65_536, 17], 10, TableMode.PER_QUERY, first=False, biased=True)
    assert second.total == batch[1] + end  # nothing read ahead
    without = batch_cycles(BUILD, codes, 10, TableMode.PER_QUERY)
    assert batch[2] == without[2] + 256  # the longer table, of a query that hides little of it


def test_a_row_of_two_beats_doubles_a_tables_time() -> None:
    assert replace(BUILD, m=32).table_cycles == 256
    assert replace(BUILD, m=64).table_cycles == 512


@pytest.mark.parametrize("mode", list(TableMode))
def test_a_further_query_hides_its_first_table_and_its_results(mode: TableMode) -> None:
    hidden = query_cycles(BUILD, [16_000], 1, mode, first=False)
    assert (hidden.table, hidden.scan, hidden.drain) == (0, 1000, 1)
    short = query_cycles(BUILD, [160], 1, mode, first=False)
    assert short.total == 256  # as long as its table takes
    results = query_cycles(BUILD, [160], 1000, mode, first=False)
    assert results.total > 2 * 1000  # handed out and written


def test_slow_memory_stretches_the_scan() -> None:
    half = replace(BUILD, beats_per_cycle=0.5)
    assert query_cycles(half, [8192], 1, TableMode.PER_QUERY).scan == 1024


def test_an_estimate_adds_its_queries_up() -> None:
    board = load_board("u250")
    build = build_for(board, 16)
    one = estimate(board, build, [[5000] * 8], 10, TableMode.PER_LIST)
    two = estimate(board, build, [[5000] * 8] * 2, 10, TableMode.PER_LIST)
    assert 1.8 * one.cycles < two.cycles < 2 * one.cycles
    assert one.latency_us == pytest.approx(one.cycles / build.clock_hz * 1e6)
    assert one.code_bytes == 16 * 40_000
    assert one.energy_mj_bound == pytest.approx(one.latency_us * board.max_power_w * 1e-3)
    assert one.provenance == "modelled"


@pytest.mark.parametrize("name", board_names())
def test_no_build_beats_its_boards_memory(name: str) -> None:
    board = load_board(name)
    for m in (8, 16, 32, 64):
        found = estimate(board, build_for(board, m), [[10**6] * 32], 100, TableMode.PER_QUERY)
        assert 0.3 < found.bandwidth_fraction <= board.reached_share


def test_it_is_modelled_to_be_quicker_than_chamvs_on_every_collection() -> None:
    board = load_board("u250")
    assert min(compare(c, board)["speedup"] for c in COLLECTIONS) >= 1.9


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"m": 12}, "m"),
        ({"channels": 0}, "channels"),
        ({"clock_hz": 0.0}, "clock_hz"),
        ({"beats_per_cycle": 1.5}, "beats_per_cycle"),
    ],
)
def test_builds_that_cannot_be(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(BUILD, **change)
    assert caught.value.field == field


def test_queries_that_cannot_be() -> None:
    board = load_board("u55c")
    with pytest.raises(InvalidInput, match="less than 1"):
        query_cycles(BUILD, [1], 0, TableMode.PER_LIST)
    with pytest.raises(InvalidInput, match="negative"):
        query_cycles(BUILD, [-1], 1, TableMode.PER_LIST)
    with pytest.raises(InvalidInput, match="no query"):
        estimate(board, BUILD, [], 1, TableMode.PER_LIST)
    with pytest.raises(InvalidInput, match="negative"):
        Pipeline(gap_cycles=-1)


FIGURE = 'channels_count = {value = 4.0, source = "here"}\n'


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("channels_count = 4", "channels_count"),
        (FIGURE, "channel_bytes"),
        ("x = {value = -1.0, source = 'y'}", "x.value"),
        ("= 3", "board"),
    ],
)
def test_a_bad_board_file_names_the_figure(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_board(text, "board.toml")
    assert caught.value.field == field


def test_an_unknown_board_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_board("u9")
    assert "u250" in (caught.value.hint or "")


@pytest.mark.parametrize("mode", list(TableMode))
def test_a_batch_at_once_gives_the_cycles_of_its_queries(mode: TableMode) -> None:
    """Of lists that hold codes; what is passed over costs nothing there."""
    codes = np.array([[8192, 17, 1], [160, 0, 4096], [0, 0, 0]], dtype=np.uint32)
    want = [
        query_cycles(BUILD, [n for n in lists if n], 10, mode, first=at == 0).total
        for at, lists in enumerate(codes.tolist())
    ]
    assert batch_cycles(BUILD, codes, 10, mode).tolist() == want


def test_a_search_is_a_batch_of_even_lists() -> None:
    board = load_board("u250")
    got = estimate_search(board, 16, 10**8, 16384, 32, 100, TableMode.PER_LIST, batch=3)
    lists = [6104] * 32
    assert got == estimate(board, build_for(board, 16), [lists] * 3, 100, TableMode.PER_LIST)
    assert got.provenance == "modelled"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vectors": 10**10}, "vectors"),
        ({"vectors": 0}, "vectors"),
        ({"nprobe": 17}, "nprobe"),
        ({"batch": 0}, "batch"),
        ({"m": 12}, "m"),
    ],
)
def test_a_search_that_cannot_be_names_the_field(change: dict[str, int], field: str) -> None:
    given = {"m": 16, "vectors": 1000, "nlist": 16, "nprobe": 4, "k": 1} | change
    with pytest.raises(InvalidInput) as caught:
        estimate_search(load_board("u55c"), **given, mode=TableMode.PER_QUERY)
    assert caught.value.field == field


def test_tables_that_the_card_makes_by_hand() -> None:
    """Two words per code: 512 cycles a table. A vector of 10 beats, and log2 8 = 3 levels."""
    made = MadeTables(macs=8, steps=2, vector_beats=10)
    found = query_cycles(BUILD, [17, 8192], 10, TableMode.PER_QUERY, made=made)
    plain = query_cycles(BUILD, [17, 8192], 10, TableMode.PER_QUERY)
    assert found.table == 512 + 10 + 13 + 3
    assert found.total - plain.total == found.table - 256
    per_list = query_cycles(BUILD, [17, 8192], 10, TableMode.PER_LIST, made=made)
    assert per_list.scan + per_list.gaps == 512 + 512 + 4  # the second list waits for its table
    booked = query_cycles(
        BUILD, [17, 8192], 10, TableMode.PER_QUERY, made=replace(made, codebook=True)
    )
    assert booked.table - found.table == 256 * 9  # a vector without its head, per code
    half = replace(BUILD, beats_per_cycle=0.5)
    slow = query_cycles(half, [17, 8192], 10, TableMode.PER_QUERY, made=made)
    assert slow.table == 512 + 20 + 16


def test_a_table_is_made_no_faster_than_it_is_loaded() -> None:
    wide = replace(BUILD, m=64)
    made = MadeTables(macs=8, steps=1, vector_beats=21)
    assert BUILD.load_cycles(False, made) == 256
    assert wide.load_cycles(False, made) == 512
    assert wide.load_cycles(False, replace(made, steps=4)) == 1024


@pytest.mark.parametrize("mode", list(TableMode))
def test_a_batch_of_made_tables_gives_the_cycles_of_its_queries(mode: TableMode) -> None:
    made = MadeTables(macs=8, steps=3, vector_beats=14, codebook=True)
    codes = np.array([[8192, 17, 1], [160, 0, 4096], [900, 20, 20]], dtype=np.uint32)
    want = [
        query_cycles(BUILD, [n for n in lists if n], 10, mode, first=at == 0, made=made).total
        for at, lists in enumerate(codes.tolist())
    ]
    assert batch_cycles(BUILD, codes, 10, mode, made=made).tolist() == want


@pytest.mark.parametrize("field", ["macs", "steps", "vector_beats"])
def test_made_tables_that_cannot_be(field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        MadeTables(**{"macs": 8, "steps": 1, "vector_beats": 6, field: 0})
    assert caught.value.field == field


def test_tables_made_on_the_card_cost_time_only_where_lists_are_short() -> None:
    board = load_board("u250")
    made = MadeTables(macs=8, steps=3, vector_beats=14)
    for vectors, slower in ((1_000_000, True), (1_000_000_000, False)):
        by_host, by_card = (
            estimate_search(board, 16, vectors, 1024, 32, 10, TableMode.PER_LIST, made=maker)
            for maker in (None, made)
        )
        assert (by_card.cycles > 1.5 * by_host.cycles) is slower
        assert by_card.cycles >= by_host.cycles
