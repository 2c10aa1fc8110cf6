"""The walker: commands of random descriptors in both modes, with masks and biases of codes."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick

P, SW = PARAMETERS["P"], PARAMETERS["SW"]
NONE = 0xFFFFFFFF
Words = list[int]


def descriptor(rng: random.Random, table: int) -> Words:
    codes = rng.choice((0, 1, P - 1, P, P + 1, rng.randrange(1, 5000)))
    bias = rng.choice((0, rng.getrandbits(SW), rng.getrandbits(32) | 1 << 31))
    word = rng.choice((NONE, rng.getrandbits(12), 8 * rng.getrandbits(9) + 7))
    return [rng.getrandbits(20), codes, rng.getrandbits(32), bias, word, table, 0, 0]


def commands(lists: list[list[Words]], per_query: bool, masked: bool) -> list[tuple[int, ...]]:
    """Of every descriptor (codes, tag, bias, fresh, release, last, beat, beats, table, masked,
    word in the beat, first beat of its mask, beats of it)."""
    wanted = []
    for query in lists:
        has_table = False
        for at, words in enumerate(query):
            beat, codes, tag, bias, word, table = words[:6]
            last, some = at == len(query) - 1, codes != 0
            fresh = some and not (per_query and has_table)
            has_table |= some
            release = (last and has_table) if per_query else some
            wanted.append(
                (codes, tag, min(bias, (1 << SW) - 1), fresh, release, last)
                + ((beat, -(-codes // P)) if some else (0, 0))
                + ((table,) if fresh else (0,))
                + mask_of(codes, word, masked)
            )
    return wanted


def mask_of(codes: int, word: int, masked: bool) -> tuple[int, ...]:
    if not masked or codes == 0 or word == NONE:
        return (0, 0, 0, 0)
    bits = 64 * (word % 8) + -(-codes // P) * P
    return (1, word % 8, word // 8, -(-bits // 512))


async def walk(
    dut: Any, rng: random.Random, per_query: bool, queries: int, nprobe: int, masked: bool,
    biased: bool,
) -> None:  # fmt: skip
    lists = [[descriptor(rng, q if per_query else q * nprobe + p) for p in range(nprobe)]
             for q in range(queries)]  # fmt: skip
    flat = [words for query in lists for words in query]
    flat += [[0xEEEEEEEE] * 8] * (len(flat) % 2)  # the half beat behind them
    beats = [pack(flat[at] + flat[at + 1], 32) for at in range(0, len(flat), 2)]
    for name in ("stop", "desc_valid", "fetch_ready", "table_ready", "scan_ready"):
        getattr(dut, name).value = 0
    dut.num_queries.value, dut.nprobe.value, dut.per_query.value = queries, nprobe, int(per_query)
    dut.masked.value, dut.biased.value = int(masked), int(biased)
    await reset(dut)
    found: list[tuple[int, ...]] = []
    tables: list[tuple[int, int]] = []
    for _ in range(40 * len(flat) + 100):
        dut.desc_valid.value = int(bool(beats) and rng.random() < 0.8)
        dut.desc_data.value = beats[0] if beats else 0
        for name in ("fetch_ready", "table_ready", "scan_ready"):
            getattr(dut, name).value = int(rng.random() < 0.7)
        await _settled()
        if dut.scan_valid.value:
            fetch, table = int(dut.fetch_valid.value), int(dut.table_valid.value)
            assert table == int(dut.scan_fresh.value)
            mask = int(dut.mask_valid.value)
            assert mask == int(dut.scan_masked.value)
            found.append(
                (int(dut.scan_codes.value), int(dut.scan_tag.value), int(dut.scan_bias.value),
                 bool(dut.scan_fresh.value), bool(dut.scan_release.value),
                 bool(dut.scan_last.value))
                + ((int(dut.fetch_beat.value), int(dut.fetch_beats.value)) if fetch else (0, 0))
                + ((tables[-1][1] if biased else int(dut.table_number.value),) if table else (0,))
                + ((1, int(dut.scan_word.value), int(dut.mask_beat.value),
                    int(dut.mask_beats.value)) if mask else (0, 0, 0, 0))
            )  # fmt: skip
        if dut.table_valid.value:
            tables.append((int(dut.table_words.value), int(dut.table_number.value)))
        if dut.desc_pop.value:
            beats.pop(0)
        await tick(dut)
    wanted = commands(lists, per_query, masked)
    assert found == wanted
    if biased:  # a table and its query's words, by turns
        fresh = [at // nprobe for at, command in enumerate(wanted) if command[3]]
        assert tables[1::2] == [(1, query) for query in fresh]
        assert all(words == 0 for words, _ in tables[::2])
    else:
        assert all(words == 0 for words, _ in tables)


async def _settled() -> None:
    from cocotb.triggers import Timer

    await Timer(100, "ps")


@cocotb.test()
async def descriptors_become_commands(dut: Any) -> None:
    rng = seeded()
    for per_query, masked, biased in (
        (False, False, False), (True, False, False), (False, True, False), (True, True, True),
    ):  # fmt: skip
        for queries, nprobe in ((1, 1), (3, 5), (4, 8), (7, 1)):
            await walk(dut, rng, per_query, queries, nprobe, masked, biased)
